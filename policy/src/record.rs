//! The decision record: one line of JSON for every request that reached a socket of the sidecar, and the chain that
//! ties the lines of one boot together.
//!
//! Every line names the hash of the line before it: SHA-256 over the exact bytes of that line as written, without its
//! newline. Lines of the schema [`SCHEMA`] are decisions, one for each request; lines of [`CHAIN_SCHEMA`] belong to the
//! chain alone: its start and end, and intents. [`verify()`] reads them back.

mod line;
mod verify;

use serde::Serialize;

use crate::ids::EntryName;
use crate::rate::Per;

pub use line::{MAX_TEXT, ReadLine, bounded, chain_hash, genesis, read_line, write_line};
pub use verify::{Chain, Fault, Finding, Hash, Head, Options, Source, Verdict, verify};

/// Version of the record's schema.
pub const SCHEMA: &str = "behalf.dev/record/v1";
/// Version of the schema of the chain's own lines.
pub const CHAIN_SCHEMA: &str = "behalf.dev/chain/v1";

/// What a line of [`CHAIN_SCHEMA`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// A boot begins. Always the line of sequence 0.
    Start,
    /// A request was permitted and is about to leave; its decision comes when there is an answer.
    Intent,
    /// So many decisions were made while nothing could be written and no room was left to keep them.
    Unrecorded,
    /// A clean end: every request was ended and recorded.
    End,
}

impl Kind {
    /// Stable name, as it stands in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Intent => "Intent",
            Self::Unrecorded => "Unrecorded",
            Self::End => "End",
        }
    }
}

/// What a record is held to before a request goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// A record is handed to the writer before the answer goes out.
    #[default]
    Relaxed,
    /// An intent is durable before anything leaves, and a record before the answer goes out.
    Strict,
}

/// Whether it is known what came before a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// The chain goes on from another boot's last line.
    Continued,
    /// Nothing is known: the chain begins with [`genesis`].
    Unknown,
}

/// A line about the chain itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// [`CHAIN_SCHEMA`].
    pub schema: &'static str,
    /// What it says; never [`Kind::Intent`], which is a [`Record`].
    pub kind: Kind,
    /// As in [`Record`].
    pub time: String,
    /// As in [`Record`]; 0 for the start.
    pub sequence: u64,
    /// As in [`Record`].
    pub boot: String,
    /// As in [`Record`].
    pub previous: String,
    /// As in [`Record`].
    pub namespace: String,
    /// As in [`Record`].
    pub identity: String,
    /// Of a start: whether it is known what came before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Of a start that continues: the boot before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_boot: Option<String>,
    /// Of a start that continues: the sequence of that boot's last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_sequence: Option<u64>,
    /// Of a start: bytes of an unfinished last line that were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_bytes: Option<u64>,
    /// Of a start: what records are held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Of a start: version of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// Of unrecorded decisions: how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Which side of the server the request was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Direction {
    /// From a caller to the server.
    Inbound,
    /// From the server to a downstream.
    Outbound,
}

/// What became of the exchange behind an outbound request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Exchange {
    /// The provider was asked.
    Made,
    /// A checked token of the same order was still good.
    Cached,
}

/// One actor of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedActor {
    /// `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `iss`, when it is another than the token's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `client_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// A rate limit of the identity that did not let a call through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedLimit {
    /// Its name.
    pub name: EntryName,
    /// What it counts per.
    pub per: Per,
}

/// One decision. Holds no token, assertion or handle, and no name of a person but the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`SCHEMA`], or [`CHAIN_SCHEMA`] for an intent.
    pub schema: &'static str,
    /// [`Kind::Intent`] for an intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// When the request came, RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// Counts up by one per line of this boot of the sidecar; its start is 0.
    pub sequence: u64,
    /// Identifies this boot of the sidecar.
    pub boot: String,
    /// Hash of the line before, `sha256:…`.
    pub previous: String,
    /// Sequence of the intent that this is the outcome of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// Namespace of the identity.
    pub namespace: String,
    /// Name of the identity.
    pub identity: String,
    /// Which side.
    pub direction: Direction,
    /// Identifies the request; an outbound one carries that of the inbound call it belongs to.
    pub request_id: String,
    /// W3C trace id, when one came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// `Permit`, `WouldDeny` or `Refuse`.
    pub decision: &'static str,
    /// Closed reason of a refusal, enforced or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Stage the decision was made in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// HTTP status the peer got; an intent has none yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: u16,
    /// Provider that issued the caller's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The human (or workload): `sub` of the caller's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who acts for the subject, the current actor first (RFC 8693 §4.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<RecordedActor>,
    /// The client the caller's token was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// MCP method, or `HTTP <verb>` for what is no JSON-RPC message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Tool of a `tools/call`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Scopes the caller presented.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_presented: Vec<String>,
    /// Scopes the operation needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_required: Vec<String>,
    /// Scopes that were missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_missing: Vec<String>,
    /// The rate limit it was refused by; of several the one that is waited for longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RecordedLimit>,
    /// Downstream of an outbound request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downstream: Option<String>,
    /// What became of the exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// Revision of the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_revision: Option<String>,
    /// Serial of the bundle decided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_serial: Option<u64>,
    /// Salted hash of the caller's token id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id_hash: Option<String>,
    /// What the caller's token is bound to, all of which was proved: `Key`, `Certificate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_bound_to: Vec<&'static str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(status: &u16) -> bool {
    *status == 0
}
