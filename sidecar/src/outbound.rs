//! The way out: calls of the server to downstreams, on loopback, each through the permit of a live call.
//!
//! `http://127.0.0.1:<port>/<downstream>/…` goes to the downstream's origin under its base path, with a
//! token that was exchanged for the caller whose handle the request carries. Without a live handle
//! nothing is attached, and in stage `Enforce` nothing goes out; there is never a "last caller".

mod cut;
mod headers;
mod refusal;
mod request;
mod server;
mod target;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::bundle::{Downstream, Policy, Stage, State};
use behalf_policy::decide::decide_downstream;
use behalf_policy::decision::{Decision, ExchangeOrder, Reason};
use behalf_policy::ids::EntryName;
use behalf_policy::interaction::Interaction;
use behalf_policy::raw_path;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use secrecy::{ExposeSecret as _, SecretString};

pub use refusal::Refusal;
pub use request::RequestRefusal;
pub use server::serve;

use crate::audit::Audit;
use crate::bundle_source::{Active, Bundles};
use crate::clock::Clock;
use crate::exchange::{ExchangeError, Exchanged, Exchanger, ProviderRefusal};
use crate::handles::{Handles, OpenCall};
use crate::provider::dial::DialError;
use crate::provider::http::{BoxError, Carried, HttpClient, HttpError, OutgoingBody, http_error};
use crate::recording::Recording;
use cut::{Answer, BrokenRequest, DataOnly, Search};
use request::judge;

/// The head of a downstream's answer must be there within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// What the way out works with.
pub struct Outbound {
    bundles: Bundles,
    handles: Handles,
    exchanger: Exchanger,
    http: HttpClient,
    audit: Audit,
    clock: Clock,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

/// A request on its way: where it goes and what it is made of, but for body and token.
struct Onward<'a> {
    name: &'a EntryName,
    downstream: &'a Downstream,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    handle: Option<&'a str>,
}

/// What policy says about a request to a downstream.
enum Pass {
    /// With a token for this order of this call.
    Attached(Arc<OpenCall>, Box<ExchangeOrder>),
    /// Stage `Audit`: as the server sent it, nothing attached.
    Bare(&'static str),
}

impl Outbound {
    /// The way out of one pod.
    #[must_use]
    pub fn new(
        bundles: Bundles,
        handles: Handles,
        exchanger: Exchanger,
        http: HttpClient,
        audit: Audit,
        clock: Clock,
    ) -> Self {
        Self { bundles, handles, exchanger, http, audit, clock }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        recording: &mut Recording,
    ) -> Result<Response<OutgoingBody>, Refusal> {
        if !self.audit.is_open() {
            return Err(Refusal::NotRecorded);
        }
        let (head, body) = request.into_parts();
        let active = self.bundles.current().ok_or(Refusal::NoBundle)?;
        recording.bundle(&active.bundle);
        let policy = active.bundle.policy().map_err(|r| Refusal::Policy(Reason::RefuseAll(r)))?;
        recording.policy(policy);
        let asked = judge(&head.method, &head.uri, head.version, &head.headers)?;
        let (name, downstream, target) = asked.target.find(&policy.downstreams)?;
        recording.downstream(name.as_str());
        let handle = asked.handle.as_ref().map(|h| h.as_str());
        let pass = self.pass(&active, policy, name, handle, recording)?;
        let onward = Onward {
            name,
            downstream,
            method: head.method,
            uri: place(downstream, target)?,
            headers: head.headers,
            handle,
        };
        let intended = match &pass {
            Pass::Bare(reason) => recording.intend_as("WouldDeny", Some(reason)).await,
            Pass::Attached(..) => recording.intend_as("Permit", None).await,
        };
        intended.map_err(|_| Refusal::NotRecorded)?;
        match pass {
            Pass::Bare(reason) => {
                recording.decision("WouldDeny", Some(reason));
                let sent = self.send(&onward, None, outgoing(body)).await?;
                back(sent, None, recording)
            }
            Pass::Attached(call, order) => {
                let response = self.attached(&active, &onward, &call, &order, body, recording).await?;
                Ok(response)
            }
        }
    }

    /// Decides by the bundle of now: a handle buys what it would buy if its call came in at this moment.
    fn pass(
        &self,
        active: &Active,
        policy: &Policy,
        name: &EntryName,
        handle: Option<&str>,
        recording: &mut Recording,
    ) -> Result<Pass, Refusal> {
        if policy.state == State::Suspended {
            return Err(Refusal::Policy(Reason::Suspended));
        }
        // Also without a handle, which stage Audit would let pass.
        if active.bundle.deny.refuses_downstream(name) {
            return Err(Refusal::Policy(Reason::DeniedByNamespace));
        }
        let now = self.clock.now();
        let call = match self.handles.redeem(handle.unwrap_or_default(), now) {
            Ok(call) => call,
            Err(refusal) if policy.stage == Stage::Audit => return Ok(Pass::Bare(refusal.reason())),
            Err(refusal) => return Err(refusal.into()),
        };
        recording.call(&call);
        match decide_downstream(&active.bundle, &call.caller, call.operation(), name, now) {
            Decision::Permit(permit) => {
                let order = permit.order(name).ok_or(Refusal::Policy(Reason::DownstreamNotPermitted))?;
                Ok(Pass::Attached(call, Box::new(order)))
            }
            Decision::WouldDeny(refusal) => Ok(Pass::Bare(refusal.reason.as_str())),
            Decision::Refuse(refusal) => Err(Refusal::Policy(refusal.reason)),
        }
    }

    async fn attached(
        &self,
        active: &Active,
        onward: &Onward<'_>,
        call: &OpenCall,
        order: &ExchangeOrder,
        body: Incoming,
        recording: &mut Recording,
    ) -> Result<Response<OutgoingBody>, Refusal> {
        let mut exchanged = self.exchange(active, onward, call, order).await?;
        recording.exchange(exchanged.how());
        recording.decision("Permit", None);
        let repeatable = body.is_end_stream();
        let mut sent = self.send(onward, Some(exchanged.token()), outgoing(body)).await?;
        if sent.0.status() == StatusCode::UNAUTHORIZED {
            self.exchanger.evict(&exchanged).await;
            if repeatable {
                exchanged = self.exchange(active, onward, call, order).await?;
                recording.exchange(exchanged.how());
                let empty = Empty::<Bytes>::new().map_err(BoxError::from).boxed_unsync();
                sent = self.send(onward, Some(exchanged.token()), empty).await?;
            }
        }
        if wants(onward.name, &sent.0, call) {
            recording.reason(ExchangeError::Refused(ProviderRefusal::Interaction).reason());
        }
        back(sent, Some(exchanged.token()), recording)
    }

    async fn exchange(
        &self,
        active: &Active,
        onward: &Onward<'_>,
        call: &OpenCall,
        order: &ExchangeOrder,
    ) -> Result<Exchanged, Refusal> {
        let exchanged = self.exchanger.token(&active.bundle, order, call, self.clock.now()).await?;
        // Asking took time, in which the call may have ended: then its token is not used.
        self.handles.check(onward.handle.unwrap_or_default(), self.clock.now())?;
        Ok(exchanged)
    }

    async fn send(
        &self,
        onward: &Onward<'_>,
        token: Option<&SecretString>,
        body: OutgoingBody,
    ) -> Result<(Response<Incoming>, Carried), Refusal> {
        let mut request = Request::new(body);
        *request.method_mut() = onward.method.clone();
        *request.uri_mut() = onward.uri.clone();
        *request.headers_mut() =
            headers::to_downstream(&onward.headers, onward.handle, token).ok_or(Refusal::DownstreamAnswer)?;
        let ca = onward.downstream.ca_bundle.as_deref();
        let pool = self.http.pool(&format!("downstream {}", onward.name), ca).map_err(Refusal::Downstream)?;
        let carried = Carried::of(&mut request);
        match tokio::time::timeout(ANSWER_TIMEOUT, pool.request(request)).await {
            Ok(Ok(response)) => Ok((response, carried)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(Refusal::DownstreamTimeout),
        }
    }
}

/// Leaves with the call what its downstream wants of the caller; one that serves it wants nothing any more.
fn wants(name: &EntryName, answer: &Response<Incoming>, call: &OpenCall) -> bool {
    if answer.status().is_success() {
        call.wanted.served(name);
    }
    if answer.status() != StatusCode::UNAUTHORIZED {
        return false;
    }
    let lines = answer.headers().get_all(WWW_AUTHENTICATE).iter().map(|line| line.to_str().ok());
    let Some(lines) = lines.collect::<Option<Vec<_>>>() else { return false };
    let Some(interaction) = Interaction::of_challenges(lines) else { return false };
    call.wanted.put(name, interaction, &call.token);
    true
}

/// Why a request that was sent has no answer: because of its own body, or of the other side.
fn failed(error: &(dyn StdError + 'static)) -> Refusal {
    let mut at = Some(error);
    while let Some(link) = at {
        if let Some(BrokenRequest(refusal)) = link.downcast_ref() {
            return RequestRefusal::Framing(*refusal).into();
        }
        at = link.source();
    }
    match http_error(error) {
        HttpError::Dial(DialError::Timeout) => Refusal::DownstreamTimeout,
        error => Refusal::Downstream(error),
    }
}

/// Where a request goes: the downstream's origin and base path, and the target byte for byte.
fn place(downstream: &Downstream, target: &str) -> Result<Uri, RequestRefusal> {
    let joined = raw_path::join(&downstream.base_path, target);
    let slash = if joined.starts_with('/') { "" } else { "/" };
    format!("{}{slash}{joined}", downstream.origin)
        .parse()
        .map_err(|_| RequestRefusal::Path(raw_path::PathRefusal::Character))
}

fn outgoing(body: Incoming) -> OutgoingBody {
    DataOnly(body).boxed_unsync()
}

/// The answer to the server; with a token, searched for it. Redirects are answers like any other: they
/// are passed on and never followed. The connection of an answer that is not passed on whole is not used
/// again.
fn back(
    (response, carried): (Response<Incoming>, Carried),
    token: Option<&SecretString>,
    recording: &Recording,
) -> Result<Response<OutgoingBody>, Refusal> {
    let (head, body) = response.into_parts();
    let refuse = |refusal| {
        carried.give_up();
        Err(refusal)
    };
    if head.status.is_informational() {
        return refuse(Refusal::DownstreamAnswer);
    }
    let Some(mut headers) = headers::to_server(&head.headers, token) else {
        return refuse(Refusal::TokenInAnswer);
    };
    // The token could not be seen in it; so it was asked not to be (RFC 9110 §12.5.3).
    if token.is_some() && is_encoded(&head.headers) && !body.is_end_stream() {
        return refuse(Refusal::EncodedAnswer);
    }
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // Of a body that is not there.
        headers.remove(CONTENT_LENGTH);
    }
    let search = token.map(|token| Search::new(SecretString::from(token.expose_secret())));
    let record_cut = recording.on_cut(head.status);
    let on_cut = Box::new(move |reason| {
        carried.give_up();
        record_cut(reason);
    });
    let mut answer = Response::new(Answer::new(body, search, on_cut).boxed_unsync());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let plain = |v: &http::HeaderValue| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    !headers.get_all(CONTENT_ENCODING).iter().all(plain)
}

/// Names a request that belongs to no call; gives nobody anything. Empty without a random source.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    match rand::fill(&mut bytes) {
        Ok(()) => URL_SAFE_NO_PAD.encode(bytes),
        Err(_) => String::new(),
    }
}
