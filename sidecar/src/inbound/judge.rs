//! A request that was read, from who sends it to what leaves for the server: authentication, what it comes back with,
//! decision, intent.

use std::sync::Arc;

use behalf_policy::bundle::{Policy, Stage};
use behalf_policy::decide::{Operation, decide_metered, decide_unknown_caller};
use behalf_policy::decision::{Decision, Permit};
use behalf_policy::envelope::{Era, Message, Target};
use behalf_policy::ids::ToolName;
use http::request::Parts;
use http::{HeaderValue, Response};
use secrecy::ExposeSecret as _;

use super::Inbound;
use super::api::Api;
use super::authenticate::Proved;
use super::body::{AnswerBody, OpenRequest};
use super::connection::ConnectionClient;
use super::forward::Outgoing;
use super::owned::Made;
use super::respond::Denial;
use super::route::peer;
use super::sessions::Principal;
use super::stream::operation_of;
use crate::bundle_source::{Active, Prepared};
use crate::drain::Draining;
use crate::handles::{CallName, OpenCall, OpenHandle, Wanted};
use crate::recording::Recording;

/// With which a client takes a request back (MCP basic/utilities/cancellation).
const CANCELLED: &str = "notifications/cancelled";

/// What a request is judged by.
pub(super) struct Judged<'a> {
    pub(super) active: &'a Arc<Active>,
    pub(super) policy: &'a Policy,
    pub(super) prepared: &'a Prepared,
    pub(super) parts: &'a Parts,
    pub(super) message: Option<&'a Message>,
    /// The request of a plain HTTP API.
    pub(super) api: Option<Api>,
    pub(super) request_id: &'a str,
}

/// What goes along with a request and is not judged.
pub(super) struct Moved<'a> {
    /// The body of a plain HTTP API's request.
    pub(super) upload: Option<AnswerBody>,
    pub(super) open: OpenRequest,
    /// The `DPoP-Nonce` of the answer, whatever the answer is.
    pub(super) nonce: &'a mut Option<HeaderValue>,
}

/// By which a sender's calls are told apart from everybody else's.
#[derive(Clone, Copy)]
struct Sender<'a> {
    principal: Principal,
    session: Option<&'a str>,
}

impl Inbound {
    /// Judges a request, and forwards it if nothing speaks against it.
    ///
    /// # Errors
    /// The first thing that does not hold, where the identity's stages enforce it.
    pub(super) async fn judge(
        &self,
        judged: &Judged<'_>,
        moved: Moved<'_>,
        recording: &mut Recording,
    ) -> Result<Response<AnswerBody>, Denial> {
        let Judged { active, policy, prepared, parts, message, .. } = *judged;
        let client = ConnectionClient::of(&parts.extensions);
        // Before any credential is looked at: what stands here was not said to us.
        let proved = match client.check(policy, prepared, self.clock.now()) {
            Ok(()) => self.authenticate(active, policy, parts, &client, moved.nonce).await,
            Err(refusal) => Err(Denial::Client(refusal)),
        };
        if proved.as_ref().is_err_and(Denial::is_of_nobody) {
            self.limits.unauthenticated(peer(parts), self.clock.millis()).map_err(Denial::TooMany)?;
        }
        let known = proved.as_ref().ok();
        if let Some(Proved { caller, .. }) = known {
            recording.caller(caller);
        }
        let caller = known.map(|proved| Arc::clone(&proved.caller));
        let asked = known.map(|proved| &proved.token);
        let asked = asked.filter(|token| self.verifier.asked_every(policy, token.expose_secret()).is_some());
        let asked = asked.cloned();
        let principal = Principal::of(caller.as_deref());
        let (session, resumed) = self.resumed(judged, known.is_some(), principal);
        let made = resumed.as_ref().ok().cloned().flatten();
        let operation = operation_of(made.as_ref(), message, judged.api.as_ref());
        // What authentication refuses is refused, or recorded and let through without any authority.
        let handle = match proved.and_then(|proved| resumed.map(|_| proved)) {
            Ok(proved) => {
                let sender = Sender { principal, session };
                self.cancel(message, sender);
                self.decide(judged, operation, proved, sender, recording)?
            }
            Err(denial) if policy.authentication == Stage::Audit => {
                decide_unknown_caller(&active.bundle, operation).map_err(Denial::Policy)?;
                recording.decision("WouldDeny", Some(denial.reason()));
                None
            }
            Err(denial) => return Err(denial),
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
            open: moved.open,
            made,
            api: judged.api.as_ref(),
            upload: moved.upload,
            draining: parts.extensions.get::<Draining>().cloned(),
            client,
        };
        recording.intend().await.map_err(|_| Denial::NotRecorded)?;
        self.forward(outgoing, recording).await
    }

    /// The session that a request names, and the call it goes on with. What was given to one principal is nobody else's
    /// to come back with (C17, C19, D34).
    fn resumed<'a>(
        &self,
        judged: &Judged<'a>,
        is_known: bool,
        principal: Principal,
    ) -> (Option<&'a str>, Result<Option<Made>, Denial>) {
        // Sessions are a matter of the legacy era; a modern request that names one is not of it (C2).
        let legacy = judged.api.is_none() && judged.message.is_none_or(|m| m.era() == Era::Legacy);
        let checked =
            if is_known && legacy { self.sessions.check(&judged.parts.headers, principal) } else { Ok(None) };
        let session = match checked {
            Ok(session) => session,
            Err(refusal) => return (None, Err(Denial::Session(refusal))),
        };
        let made = judged.message.map(|message| self.owned.check(message, principal));
        (session, made.transpose().map(Option::flatten).map_err(|_| Denial::NotOwned))
    }

    /// A caller that takes its call back takes the handle back with it, whatever the server makes of it.
    fn cancel(&self, message: Option<&Message>, sender: Sender<'_>) {
        let Some(message) = message else { return };
        let cancels = |t: &Target| matches!(t, Target::ClientNotification(m) if m == CANCELLED);
        if cancels(message.target())
            && let Some(id) = message.param("requestId")
        {
            self.handles.cancel(&sender.call_name(id));
        }
    }

    /// What policy says of a request whose sender is known, and the handle that a permit opens.
    fn decide(
        &self,
        judged: &Judged<'_>,
        operation: Operation<'_>,
        proved: Proved,
        sender: Sender<'_>,
        recording: &mut Recording,
    ) -> Result<Option<OpenHandle>, Denial> {
        let Judged { active, parts, message, .. } = *judged;
        let (caller, now) = (&proved.caller, self.clock.now());
        let (mut limited, shared) = (None, active.bundle.feed.is_some());
        let decision = decide_metered(&active.bundle, caller, operation, now, |policy| {
            limited = self.limits.admit(policy, shared, caller, operation, self.clock.millis()).err();
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
            Decision::Refuse(refusal) => Err(limited.map_or(Denial::Policy(refusal), Denial::TooMany)),
            Decision::WouldDeny(_) => Ok(None),
            Decision::Permit(permit) => {
                if let Some(message) = message
                    && let Err(error) = self.mirrored.check(message, &parts.headers, now)
                {
                    recording.decision("Refuse", Some(error.reason().as_str()));
                    return Err(Denial::Envelope(error));
                }
                self.handle_for(&permit, judged, proved, sender)
            }
        }
    }

    /// A handle for a permit that names downstreams; for nothing else.
    fn handle_for(
        &self,
        permit: &Permit,
        judged: &Judged<'_>,
        proved: Proved,
        sender: Sender<'_>,
    ) -> Result<Option<OpenHandle>, Denial> {
        let Judged { policy, message, ref api, .. } = *judged;
        let row = api.as_ref().and_then(|api| api.name(&policy.server));
        let name = match (message.map(Message::target), row) {
            (Some(Target::ToolCall { name }), _) => name.as_str(),
            (None, Some(row)) => row,
            _ => return Ok(None),
        };
        if !permit.needs_handle() {
            return Ok(None);
        }
        let Ok(tool) = ToolName::new(name) else { return Ok(None) };
        // Where they decide about the call, they decide again at each use of its handle.
        let arguments = has_conditions(policy, message)
            .then(|| message.and_then(Message::arguments).unwrap_or("{}").to_owned());
        let call = OpenCall {
            caller: proved.caller,
            token: proved.token,
            tool,
            arguments,
            route: row.and(api.as_ref()).map(Api::route),
            request_id: judged.request_id.to_owned(),
            opened: self.clock.now(),
            grace: policy.server.handle_grace,
            name: message.and_then(Message::id_text).map(|id| sender.call_name(id)),
            wanted: Wanted::default(),
        };
        self.handles.open(call).map(Some).map_err(Denial::Open)
    }
}

impl Sender<'_> {
    /// By which the sender may take a call back.
    fn call_name(&self, id: &str) -> CallName {
        CallName::new(self.principal.as_bytes(), self.session, id)
    }
}

/// Whether the arguments of this call decide about it.
fn has_conditions(policy: &Policy, message: Option<&Message>) -> bool {
    match message.map(Message::target) {
        Some(Target::ToolCall { name }) => {
            policy.server.tools.get(name.as_str()).is_some_and(|tool| !tool.conditions.is_empty())
        }
        _ => false,
    }
}
