//! Who a session belongs to. A session id is not a credential: it only ever works together with a token
//! of the principal that opened it (MCP security best practices, Session Hijacking).

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use behalf_policy::claims::Caller;
use http::{HeaderMap, HeaderName};

/// Header of the session id, of versions up to 2025-11-25.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Header with which an interrupted stream is resumed, of the same versions.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Sessions that are remembered; the caller of a forgotten one is told to start anew.
const REMEMBERED: u64 = 50_000;
const IDLE: Duration = Duration::from_hours(24);
const MAX_ID: usize = 1024;

/// Why a session id was not taken. The caller cannot tell the first two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionRefusal {
    /// No session has it.
    Unknown,
    /// It is another principal's.
    Foreign,
    /// It is no session id, or there are several.
    Malformed,
}

/// A principal: provider, subject and client, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Principal([u8; 32]);

impl Principal {
    pub(super) fn of(caller: Option<&Caller>) -> Self {
        let mut digest = Context::new(&SHA256);
        let mut part = |text: &str| {
            digest.update(&(text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        if let Some(caller) = caller {
            part(caller.provider.as_str());
            part(caller.subject.as_str());
            if let Some(client) = &caller.client {
                part(client.as_str());
            }
        }
        let mut out = [0; 32];
        out.copy_from_slice(digest.finish().as_ref());
        Self(out)
    }
}

impl Principal {
    /// The same bytes for the same principal.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The sessions that this sidecar saw the server open.
pub(super) struct Sessions(moka::sync::Cache<String, Principal>);

impl Sessions {
    pub(super) fn new() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build())
    }

    /// The session id of a request, when it belongs to the principal.
    pub(super) fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        principal: Principal,
    ) -> Result<Option<&'a str>, SessionRefusal> {
        let mut values = headers.get_all(SESSION_ID).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(SessionRefusal::Malformed);
        }
        let id = value.to_str().ok().filter(|id| well_formed(id)).ok_or(SessionRefusal::Malformed)?;
        match self.0.get(id) {
            None => Err(SessionRefusal::Unknown),
            Some(owner) if owner != principal => Err(SessionRefusal::Foreign),
            Some(_) => Ok(Some(id)),
        }
    }

    /// Remembers whose session the server opened. False when it is already another principal's, or no
    /// session id: then the answer must not pass.
    pub(super) fn open(&self, id: &str, principal: Principal) -> bool {
        well_formed(id) && self.0.get_with_by_ref(id, || principal) == principal
    }

    /// The session has ended.
    pub(super) fn end(&self, id: &str) {
        self.0.invalidate(id);
    }
}

/// Visible ASCII only (streamable HTTP of 2025-11-25, Session Management).
fn well_formed(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| matches!(b, 0x21..=0x7e))
}
