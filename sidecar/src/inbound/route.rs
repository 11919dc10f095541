//! One request from its head to its answer, step by step, each step with its own reason.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::bundle::{Policy, Stage};
use behalf_policy::decide::{decide_metered, decide_unknown_caller};
use behalf_policy::decision::{Decision, Permit};
use behalf_policy::envelope::{EnvelopeError, EnvelopeReason, Era, Limits, Message, Target, check_media};
use behalf_policy::ids::ToolName;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use secrecy::{ExposeSecret as _, SecretString};

use super::api::{Api, methods, upload};
use super::authenticate::{Proved, scheme};
use super::body::{AnswerBody, OpenRequest, read};
use super::connection::{ConnectionClient, InTheClear};
use super::forward::Outgoing;
use super::head::{Route, media, mirrored, route};
use super::respond::{Denial, NONCE, REQUEST_ID, metadata, refuse};
use super::sessions::Principal;
use super::stream::operation_of;
use super::{Inbound, cors};
use crate::bundle_source::{Active, Prepared};
use crate::drain::Draining;
use crate::handles::{CallName, OpenCall, OpenHandle, Wanted};
use crate::recording::{NotRecorded, Recording, Unanswered, verb};

/// With which a client takes a request back (MCP basic/utilities/cancellation).
const CANCELLED: &str = "notifications/cancelled";

/// A refused request, with its id when it was read.
struct Refused {
    denial: Denial,
    id: Option<String>,
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { denial, id: None }
    }
}

/// What a handle is opened on, besides who calls which tool.
#[derive(Clone, Copy)]
struct Terms<'a> {
    request_id: &'a str,
    grace: u32,
    keep_arguments: bool,
    name: Option<CallName>,
    /// The request of a plain HTTP API, and the name of its row.
    api: Option<(&'a Api, &'a str)>,
}

impl Inbound {
    /// Answers one request and leaves one record.
    ///
    /// # Errors
    /// It could not be recorded, and gets no answer.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        let started = tokio::time::Instant::now();
        let active = self.bundles.current();
        let Ok(request_id) = request_id() else {
            return Err(Unanswered);
        };
        let page = active.as_deref().and_then(Active::policy);
        let page = page.and_then(|(policy, _)| cors::page(request.headers(), &policy.server));
        let (used, mut for_next) = (scheme(request.headers()), None);
        let mut recording = Recording::inbound(&self.audit, &request_id);
        let served = self.serve(active.as_ref(), request, &request_id, &mut recording, &mut for_next).await;
        let mut response = served.unwrap_or_else(|refused| {
            recording.reason(refused.denial.reason());
            refuse(&refused.denial, active.as_deref(), used, refused.id.as_deref(), &request_id)
        });
        match recording.finish(response.status()).await {
            Ok(()) => {}
            Err(NotRecorded::Told) => response = refuse(&Denial::NotRecorded, None, None, None, &request_id),
            Err(NotRecorded::Unanswered(none)) => return Err(none),
        }
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        if let Some(nonce) = for_next {
            response.headers_mut().insert(NONCE, nonce);
        }
        if let Some(page) = page {
            cors::let_see(response.headers_mut(), page);
        }
        self.metrics.answered(started.elapsed().as_secs_f64());
        Ok(response)
    }

    async fn serve(
        &self,
        active: Option<&Arc<Active>>,
        request: Request<Incoming>,
        request_id: &str,
        recording: &mut Recording,
        nonce: &mut Option<HeaderValue>,
    ) -> Result<Response<AnswerBody>, Refused> {
        let open = OpenRequest::new(&self.metrics);
        let (parts, body) = request.into_parts();
        recording.trace(&parts.headers);
        recording.method(format!("HTTP {}", verb(&parts.method)), None);
        if !self.audit.is_open() {
            return Err(Denial::NotRecorded.into());
        }
        if parts.extensions.get::<InTheClear>().is_some() {
            return Err(Denial::TlsRequired.into());
        }
        let active = active.ok_or(Denial::NoBundle)?;
        recording.bundle(&active.bundle);
        if let Err(reason) = active.bundle.policy() {
            return Err(Denial::RefuseAll(reason).into());
        }
        let (policy, prepared) = active.policy().ok_or(Denial::NoBundle)?;
        recording.policy(policy);

        let (mut message, mut api) = (None, None);
        match route(&parts, &policy.server, prepared)? {
            Route::Metadata => {
                recording.decision("Permit", None);
                let mut answer = metadata(&prepared.metadata);
                cors::let_everybody_see(answer.headers_mut());
                return Ok(answer);
            }
            Route::Preflight => {
                recording.decision("Permit", None);
                let mut answer = cors::preflight(&parts.headers, methods(&policy.server));
                cors::let_everybody_see(answer.headers_mut());
                return Ok(answer);
            }
            Route::Message => message = Some(read_message(&parts, body, policy.server.timeouts.body).await?),
            Route::Stream | Route::End => {}
            Route::Api(found) => {
                recording.method(format!("HTTP {}", verb(&parts.method)), found.name(&policy.server));
                api = Some((found, upload(body)?));
            }
        }
        if let Some(message) = &message {
            let tool = match message.target() {
                Target::ToolCall { name } => Some(name.as_str()),
                _ => None,
            };
            recording.method(message.method().unwrap_or("response").to_owned(), tool);
        }
        let judged =
            Judged { active, policy, prepared, parts: &parts, message: message.as_ref(), api, nonce };
        self.judge(judged, request_id, recording, open).await.map_err(|denial| Refused {
            denial: denial.in_words_of(message.as_ref()),
            id: message.as_ref().and_then(Message::id_text).map(str::to_owned),
        })
    }

    async fn judge(
        &self,
        judged: Judged<'_>,
        request_id: &str,
        recording: &mut Recording,
        open: OpenRequest,
    ) -> Result<Response<AnswerBody>, Denial> {
        let Judged { active, policy, prepared, parts, message, api, nonce } = judged;
        let (api, upload) = api.unzip();
        let now = self.clock.now();
        let client = ConnectionClient::of(&parts.extensions);
        // Before any credential is looked at: what stands here was not said to us.
        let proved = match client.check(policy, prepared, now) {
            Ok(()) => self.authenticate(active, policy, parts, &client, nonce).await,
            Err(refusal) => Err(Denial::Client(refusal)),
        };
        if proved.as_ref().is_err_and(Denial::is_of_nobody) {
            self.limits.unauthenticated(peer(parts), self.clock.millis()).map_err(Denial::TooMany)?;
        }
        let caller = proved.as_ref().ok().map(|p| Arc::clone(&p.caller));
        let is_asked =
            |token: &SecretString| self.verifier.asked_every(policy, token.expose_secret()).is_some();
        let asked = proved.as_ref().ok().map(|p| &p.token).filter(|token| is_asked(token)).cloned();
        if let Some(caller) = &caller {
            recording.caller(caller);
        }
        let principal = Principal::of(caller.as_deref());
        // Sessions are a matter of the legacy era; a modern request that names one is not of it (C2).
        let legacy = api.is_none() && message.is_none_or(|m| m.era() == Era::Legacy);
        let checked = match &proved {
            Ok(_) if legacy => self.sessions.check(&parts.headers, principal).map_err(Denial::Session),
            _ => Ok(None),
        };
        let session = *checked.as_ref().unwrap_or(&None);

        // What was given to one principal is nobody else's to come back with (C19, D34).
        let owned = message.map(|message| self.owned.check(message, principal).map_err(|_| Denial::NotOwned));
        let checked = checked.and_then(|_| owned.transpose().map(Option::flatten));
        let made = checked.as_ref().ok().cloned().flatten();
        // What authentication refuses is refused, or recorded and let through without any authority.
        let handle = match proved.and_then(|proved| checked.map(|_| proved)) {
            Err(denial) if policy.authentication == Stage::Audit => {
                let operation = operation_of(made.as_ref(), message, api.as_ref());
                decide_unknown_caller(&active.bundle, operation).map_err(Denial::Policy)?;
                recording.decision("WouldDeny", Some(denial.reason()));
                None
            }
            Err(denial) => return Err(denial),
            Ok(proved) => {
                self.cancel(message, principal, session);
                let operation = operation_of(made.as_ref(), message, api.as_ref());
                let (mut limited, shared) = (None, active.bundle.feed.is_some());
                let decision = decide_metered(&active.bundle, &proved.caller, operation, now, |policy| {
                    let millis = self.clock.millis();
                    limited = self.limits.admit(policy, shared, &proved.caller, operation, millis).err();
                    limited.is_none()
                });
                recording.required(&decision);
                if let Some(refusal) = decision.refusal() {
                    recording.missing(refusal);
                }
                recording.limited(limited.as_ref());
                let reason = limited.as_ref().map(|it| it.reason.as_str());
                let reason = reason.or(decision.refusal().map(|r| r.reason.as_str()));
                recording.decision(decision.as_str(), reason);
                match decision {
                    Decision::Refuse(refusal) => {
                        return Err(limited.map_or(Denial::Policy(refusal), Denial::TooMany));
                    }
                    Decision::WouldDeny(_) => None,
                    Decision::Permit(permit) => {
                        if let Some(message) = message
                            && let Err(error) = self.mirrored.check(message, &parts.headers, now)
                        {
                            recording.decision("Refuse", Some(error.reason().as_str()));
                            return Err(Denial::Envelope(error));
                        }
                        let id = message.and_then(Message::id_text);
                        let terms = Terms {
                            request_id,
                            grace: policy.server.handle_grace,
                            keep_arguments: has_conditions(policy, message),
                            name: id.map(|id| CallName::new(principal.as_bytes(), session, id)),
                            api: api.as_ref().zip(api.as_ref().and_then(|api| api.name(&policy.server))),
                        };
                        self.handle_for(&permit, proved, message, terms)?
                    }
                }
            }
        };
        let outgoing = Outgoing {
            active,
            policy,
            prepared,
            verb: parts.method.clone(),
            headers: &parts.headers,
            message,
            caller,
            principal,
            session,
            handle,
            asked,
            open,
            made,
            api: api.as_ref(),
            upload,
            draining: parts.extensions.get::<Draining>().cloned(),
            client,
        };
        recording.intend().await.map_err(|_| Denial::NotRecorded)?;
        self.forward(outgoing, recording).await
    }

    /// A caller that takes its call back takes the handle back with it, whatever the server makes of it.
    fn cancel(&self, message: Option<&Message>, principal: Principal, session: Option<&str>) {
        let Some(message) = message else { return };
        let cancels = |t: &Target| matches!(t, Target::ClientNotification(m) if m == CANCELLED);
        if cancels(message.target())
            && let Some(id) = message.param("requestId")
        {
            self.handles.cancel(&CallName::new(principal.as_bytes(), session, id));
        }
    }

    /// A handle for a permit that names downstreams; for nothing else.
    fn handle_for(
        &self,
        permit: &Permit,
        proved: Proved,
        message: Option<&Message>,
        terms: Terms<'_>,
    ) -> Result<Option<OpenHandle>, Denial> {
        let name = match (message.map(Message::target), terms.api) {
            (Some(Target::ToolCall { name }), _) => name.as_str(),
            (None, Some((_, name))) => name,
            _ => return Ok(None),
        };
        if !permit.needs_handle() {
            return Ok(None);
        }
        let Ok(tool) = ToolName::new(name) else { return Ok(None) };
        let call = OpenCall {
            caller: proved.caller,
            token: proved.token,
            tool,
            arguments: terms
                .keep_arguments
                .then(|| message.and_then(Message::arguments).unwrap_or("{}").to_owned()),
            route: terms.api.map(|(api, _)| api.route()),
            request_id: terms.request_id.to_owned(),
            opened: self.clock.now(),
            grace: terms.grace,
            name: terms.name,
            wanted: Wanted::default(),
        };
        self.handles.open(call).map(Some).map_err(Denial::Open)
    }
}

/// What a request is judged by.
struct Judged<'a> {
    active: &'a Arc<Active>,
    policy: &'a Policy,
    prepared: &'a Prepared,
    parts: &'a Parts,
    message: Option<&'a Message>,
    api: Option<(Api, AnswerBody)>,
    /// The `DPoP-Nonce` of the answer, whatever the answer is.
    nonce: &'a mut Option<HeaderValue>,
}

/// Whether the arguments of this call decide about it, now and at each use of its handle.
fn has_conditions(policy: &Policy, message: Option<&Message>) -> bool {
    match message.map(Message::target) {
        Some(Target::ToolCall { name }) => {
            policy.server.tools.get(name.as_str()).is_some_and(|tool| !tool.conditions.is_empty())
        }
        _ => false,
    }
}

/// The one parse of a body.
async fn read_message(parts: &Parts, body: Incoming, within: u32) -> Result<Message, Refused> {
    let limits = Limits::default();
    let mut accept = String::new();
    check_media(&media(&parts.headers, &mut accept)).map_err(envelope)?;
    let body = read(body, limits.bytes, within).await?;
    let body = body.ok_or_else(|| envelope(EnvelopeReason::BodyTooLarge.into()))?;
    Message::read(&body, &mirrored(&parts.headers), &limits).map_err(envelope)
}

fn envelope(error: EnvelopeError) -> Refused {
    let id = error.id().map(str::to_owned);
    Refused { denial: Denial::Envelope(error), id }
}

/// Where a request comes from, as far as the packet rules let it be seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

fn peer(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
}

/// 128 random bits. They name a record and give nobody anything.
pub(super) fn request_id() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
