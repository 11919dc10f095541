//! The one record of a request on either side, written whatever becomes of it.

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::claims::Caller;
use behalf_policy::decision::Refusal;
use behalf_policy::record::{Direction, Exchange, Record};
use http::{HeaderMap, StatusCode};

use crate::audit::{Audit, AuditError};
use crate::handles::OpenCall;

/// Status of a request whose peer left before there was an answer; nobody sees it.
const PEER_LEFT: u16 = 499;

/// Fills a record as the request is judged. Dropped before [`Recording::finish`], it records that the peer
/// left.
pub(crate) struct Recording {
    audit: Audit,
    record: Option<Box<Record>>,
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
        Self { audit: audit.clone(), record: Some(Box::new(record)) }
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
            r.method = Some(method);
            r.tool = tool.map(str::to_owned);
        });
    }

    pub(crate) fn caller(&mut self, caller: &Caller) {
        let token_id = caller.token_id.as_deref().map(|id| self.audit.hash_token_id(id));
        self.with(|r| {
            r.provider = Some(caller.provider.to_string());
            r.subject = Some(caller.subject.to_string());
            r.client = caller.client.as_ref().map(ToString::to_string);
            r.scopes_presented = caller.scopes.iter().map(ToString::to_string).collect();
            r.token_id_hash = token_id;
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

    pub(crate) fn missing(&mut self, refusal: &Refusal) {
        self.with(|r| r.scopes_missing = refusal.missing.iter().map(ToString::to_string).collect());
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
                audit.record_late(record);
            }
        }
    }

    /// Hands the record over; the answer may go out afterwards.
    pub(crate) async fn finish(mut self, status: StatusCode) -> Result<(), AuditError> {
        let audit = self.audit.clone();
        // Until there is a place in the queue the record stays here, where a drop still records it.
        let slot = audit.reserve().await?;
        if let Some(mut record) = self.record.take() {
            record.status = status.as_u16();
            slot.write(*record);
        }
        Ok(())
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
        self.audit.record_late(record);
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
