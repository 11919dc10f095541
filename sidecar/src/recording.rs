//! The one record of a request on either side, written whatever becomes of it.

use std::sync::Arc;

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::claims::{Actor, Caller};
use behalf_policy::decision::{Decision, Refusal};
use behalf_policy::record::{Direction, Exchange, MAX_TEXT, Record, RecordedActor, bounded};
use http::{HeaderMap, StatusCode};

use crate::audit::{Audit, AuditError};
use crate::handles::OpenCall;
use crate::limits::Limited;

/// Status of a request whose peer left before there was an answer; nobody sees it.
const PEER_LEFT: u16 = 499;
/// Status of a request that got no answer, because its record could not be written; nobody sees it.
const UNANSWERED: u16 = 444;
/// Reason of what was refused or withheld because it could not be recorded.
const UNAVAILABLE: &str = "RecordsUnavailable";

/// What becomes of a peer whose request could not be recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NotRecorded {
    /// It is told so; of relaxed mode.
    Told,
    /// It gets no answer; of strict mode.
    Unanswered(Unanswered),
}

/// Nobody gets an answer without a record: the connection (of HTTP/2: the stream) ends without one.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a request gets no answer, because it cannot be recorded")]
pub(crate) struct Unanswered;

/// Fills a record as the request is judged. Dropped before [`Recording::finish`], it records that the peer
/// left.
pub(crate) struct Recording {
    audit: Audit,
    record: Option<Box<Record>>,
    /// Ties the record to its intent.
    request: Option<u64>,
    /// Salt of the installation, for token ids.
    salt: Option<Arc<str>>,
}

impl Recording {
    /// Of a caller's request.
    pub(crate) fn inbound(audit: &Audit, request_id: &str) -> Self {
        Self::new(audit, Direction::Inbound, request_id)
    }

    /// Of a request of the server to a downstream.
    pub(crate) fn outbound(audit: &Audit, request_id: &str) -> Self {
        Self::new(audit, Direction::Outbound, request_id)
    }

    fn new(audit: &Audit, direction: Direction, request_id: &str) -> Self {
        let record = audit.blank(direction, request_id);
        Self { audit: audit.clone(), record: Some(Box::new(record)), request: None, salt: None }
    }

    fn with(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    pub(crate) fn trace(&mut self, headers: &HeaderMap) {
        let trace = headers.get("traceparent").and_then(|v| v.to_str().ok()).and_then(trace_id);
        self.with(|r| r.trace_id = trace);
    }

    pub(crate) fn bundle(&mut self, bundle: &Bundle) {
        self.salt.clone_from(&bundle.record_salt);
        self.with(|r| r.bundle_serial = Some(bundle.serial));
    }

    pub(crate) fn policy(&mut self, policy: &Policy) {
        self.with(|r| {
            r.stage = Some(policy.stage.as_str());
            r.catalog_revision = Some(policy.catalog_revision.clone());
        });
    }

    /// An MCP method, or a verb as [`verb`] names it.
    pub(crate) fn method(&mut self, method: String, tool: Option<&str>) {
        self.with(|r| {
            r.method = Some(if method.len() > MAX_TEXT { bounded(&method) } else { method });
            r.tool = tool.map(bounded);
        });
    }

    pub(crate) fn caller(&mut self, caller: &Caller) {
        let token_id =
            caller.token_id.as_deref().map(|id| self.audit.hash_token_id(self.salt.as_deref(), id));
        self.with(|r| {
            r.provider = Some(caller.provider.to_string());
            r.subject = Some(caller.subject.to_string());
            r.actors = caller.actors.iter().map(actor).collect();
            r.client = caller.client.as_ref().map(ToString::to_string);
            r.scopes_presented = caller.scopes.iter().map(ToString::to_string).collect();
            r.token_id_hash = token_id;
            r.token_bound_to = caller.binding.names();
        });
    }

    /// The inbound call that an outbound request belongs to: the record carries its id.
    pub(crate) fn call(&mut self, call: &OpenCall) {
        self.caller(&call.caller);
        self.with(|r| {
            r.request_id.clone_from(&call.request_id);
            r.tool = Some(call.tool.to_string());
        });
    }

    /// Only a name of the catalogue: what a server makes up does not come into a record.
    pub(crate) fn downstream(&mut self, name: &str) {
        self.with(|r| r.downstream = Some(name.to_owned()));
    }

    pub(crate) fn exchange(&mut self, how: Exchange) {
        self.with(|r| r.exchange = Some(how));
    }

    pub(crate) fn decision(&mut self, decision: &'static str, reason: Option<&'static str>) {
        self.with(|r| {
            r.decision = decision;
            r.reason = reason;
        });
    }

    /// What went wrong after the decision stood, or the refusal itself.
    pub(crate) fn reason(&mut self, reason: &'static str) {
        self.with(|r| r.reason = Some(reason));
    }

    /// What the operation needs: the scopes of every call, and those of the tool.
    pub(crate) fn required(&mut self, decision: &Decision) {
        self.with(|r| r.scopes_required = decision.needed().iter().map(ToString::to_string).collect());
    }

    pub(crate) fn missing(&mut self, refusal: &Refusal) {
        self.with(|r| r.scopes_missing = refusal.missing.iter().map(ToString::to_string).collect());
    }

    /// Which rate limit has no call left, if one has not.
    pub(crate) fn limited(&mut self, limited: Option<&Limited>) {
        self.with(|r| r.rate_limit = limited.and_then(|limited| limited.limit.clone()));
    }

    /// To be run when the answer is cut after its head was recorded: one more record, of the same request.
    pub(crate) fn on_cut(&self, status: StatusCode) -> impl FnOnce(&'static str) + Send + use<> {
        let audit = self.audit.clone();
        let record = self.record.clone();
        move |reason| {
            if let Some(mut record) = record {
                record.decision = "Refuse";
                record.reason = Some(reason);
                record.status = status.as_u16();
                audit.record_late(record, None);
            }
        }
    }

    /// To be run when the answer is over and nobody could be told what is wanted of the caller: one more record, of the
    /// same request.
    pub(crate) fn on_untold(&self, status: StatusCode) -> impl FnOnce() + Send + use<> {
        let audit = self.audit.clone();
        let record = self.record.clone();
        move || {
            if let Some(mut record) = record {
                record.reason = Some("InteractionNotTold");
                record.status = status.as_u16();
                audit.record_late(record, None);
            }
        }
    }

    /// In strict mode: the request is about to leave, as decided. To be awaited before any byte does.
    pub(crate) async fn intend(&mut self) -> Result<(), AuditError> {
        let decided = self.record.as_ref().map(|r| (r.decision, r.reason));
        let (decision, reason) = decided.unwrap_or_default();
        self.intend_as(decision, reason).await
    }

    /// The same before the record itself says so.
    pub(crate) async fn intend_as(
        &mut self,
        decision: &'static str,
        reason: Option<&'static str>,
    ) -> Result<(), AuditError> {
        if !self.audit.is_strict() {
            return Ok(());
        }
        let Some(record) = &self.record else { return Ok(()) };
        let intent = Record { decision, reason, ..Record::clone(record) };
        // Known before it is written: whoever is dropped meanwhile still leaves its outcome.
        let request = *self.request.insert(self.audit.next_request());
        let intended = self.audit.intend(request, &intent).await;
        if intended.is_err() {
            self.decision("Refuse", Some(UNAVAILABLE));
        }
        intended
    }

    /// Hands the record over; the answer may go out afterwards. In strict mode it is written then; one that cannot be
    /// says that its peer got no answer, and is written when there is room.
    pub(crate) async fn finish(mut self, status: StatusCode) -> Result<(), NotRecorded> {
        let audit = self.audit.clone();
        // Until there is a place in the queue the record stays here, where a drop still records it.
        let slot = match audit.reserve().await {
            Ok(slot) => slot,
            Err(_) if audit.is_strict() => return Err(NotRecorded::Unanswered(Unanswered)),
            Err(_) => return Err(NotRecorded::Told),
        };
        let Some(mut record) = self.record.take() else { return Ok(()) };
        record.status = status.as_u16();
        if !audit.is_strict() {
            slot.write(record, self.request);
            return Ok(());
        }
        let written = slot.write_now(record.clone(), self.request);
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                record.reason = Some(UNAVAILABLE);
                record.status = UNANSWERED;
                audit.record_late(record, self.request);
                Err(NotRecorded::Unanswered(Unanswered))
            }
            Err(_) => Err(NotRecorded::Unanswered(Unanswered)),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        record.status = PEER_LEFT;
        record.reason = record.reason.or(Some(match record.direction {
            Direction::Inbound => "ClientClosed",
            Direction::Outbound => "ServerClosed",
        }));
        self.audit.record_late(record, self.request);
    }
}

/// A verb for a record; one that we do not know is not repeated.
pub(crate) fn verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "other",
    }
}

fn actor(actor: &Actor) -> RecordedActor {
    RecordedActor {
        subject: actor.subject.as_ref().map(ToString::to_string),
        issuer: actor.issuer.as_ref().map(ToString::to_string),
        client: actor.client.as_ref().map(ToString::to_string),
    }
}

/// The trace id of a `traceparent` of version 00 (W3C Trace Context §3.2.2).
fn trace_id(value: &str) -> Option<String> {
    let mut parts = value.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let known = version == "00" && parts.count() == 2;
    let valid = trace.len() == 32 && hex(trace) && trace.bytes().any(|b| b != b'0');
    (known && valid).then(|| trace.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c25_only_a_well_formed_traceparent_names_a_trace() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(good).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }
}
