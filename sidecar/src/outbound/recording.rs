//! The one record of a request on the way out, written whatever becomes of it.

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::claims::Caller;
use behalf_policy::record::{Direction, Exchange, Record};
use http::{HeaderMap, Method};

use crate::audit::{Audit, AuditError};
use crate::handles::OpenCall;

/// Status of a request whose server left before there was an answer.
const SERVER_CLOSED: u16 = 499;

/// Filled as the request is judged. Dropped before [`Recording::finish`], it records that the server left.
pub(super) struct Recording {
    audit: Audit,
    record: Option<Box<Record>>,
}

impl Recording {
    pub(super) fn new(audit: &Audit, request_id: &str) -> Self {
        let record = audit.blank(Direction::Outbound, request_id);
        Self { audit: audit.clone(), record: Some(Box::new(record)) }
    }

    fn with(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    pub(super) fn request(&mut self, method: &Method, headers: &HeaderMap) {
        let trace = headers.get("traceparent").and_then(|v| v.to_str().ok()).and_then(trace_id);
        let method = match method.as_str() {
            verb @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "CONNECT"
            | "TRACE") => verb,
            _ => "other",
        };
        self.with(|r| {
            r.method = Some(format!("HTTP {method}"));
            r.trace_id = trace;
        });
    }

    pub(super) fn bundle(&mut self, bundle: &Bundle) {
        self.with(|r| r.bundle_serial = Some(bundle.serial));
    }

    pub(super) fn policy(&mut self, policy: &Policy) {
        self.with(|r| {
            r.stage = Some(policy.stage.as_str());
            r.catalog_revision = Some(policy.catalog_revision.clone());
        });
    }

    /// Only a name of the catalogue: what a server makes up does not come into a record.
    pub(super) fn downstream(&mut self, name: &str) {
        self.with(|r| r.downstream = Some(name.to_owned()));
    }

    pub(super) fn call(&mut self, call: &OpenCall) {
        let caller: &Caller = &call.caller;
        let token_id = caller.token_id.as_deref().map(|id| self.audit.hash_token_id(id));
        self.with(|r| {
            r.request_id.clone_from(&call.request_id);
            r.tool = Some(call.tool.to_string());
            r.provider = Some(caller.provider.to_string());
            r.subject = Some(caller.subject.to_string());
            r.client = caller.client.as_ref().map(ToString::to_string);
            r.scopes_presented = caller.scopes.iter().map(ToString::to_string).collect();
            r.token_id_hash = token_id;
        });
    }

    pub(super) fn decision(&mut self, decision: &'static str, reason: Option<&'static str>) {
        self.with(|r| {
            r.decision = decision;
            r.reason = reason;
        });
    }

    /// What went wrong after a decision that stands.
    pub(super) fn reason(&mut self, reason: &'static str) {
        self.with(|r| r.reason = Some(reason));
    }

    pub(super) fn exchange(&mut self, how: Exchange) {
        self.with(|r| r.exchange = Some(how));
    }

    /// To be run when the answer is cut after its head was recorded: one more record, of the same request.
    pub(super) fn on_cut(&self, reason: &'static str, status: u16) -> Box<dyn FnOnce() + Send> {
        let audit = self.audit.clone();
        let record = self.record.clone();
        Box::new(move || {
            if let Some(mut record) = record {
                record.decision = "Refuse";
                record.reason = Some(reason);
                record.status = status;
                spawn(audit, record);
            }
        })
    }

    pub(super) async fn finish(mut self, status: u16) -> Result<(), AuditError> {
        let Some(mut record) = self.record.take() else { return Ok(()) };
        record.status = status;
        self.audit.record(*record).await
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.status = SERVER_CLOSED;
            spawn(self.audit.clone(), record);
        }
    }
}

fn spawn(audit: Audit, record: Box<Record>) {
    // Without a runtime the process is ending, and its connections with it.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if audit.record(*record).await.is_err() {
            tracing::error!("a decision record was lost with its sink");
        }
    });
}

/// The trace id of a `traceparent` of version 00 (W3C Trace Context §3.2.2).
fn trace_id(value: &str) -> Option<String> {
    let mut parts = value.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = trace.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let valid = version == "00" && trace.len() == 32 && hex && parts.count() == 2;
    valid.then(|| trace.to_owned())
}
