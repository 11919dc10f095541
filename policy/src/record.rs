//! The decision record: one line of JSON for every request that reached a socket of the sidecar.

use serde::Serialize;

/// Version of the record's schema.
pub const SCHEMA: &str = "behalf.dev/record/v1";

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

/// One decision. Holds no token, assertion or handle, and no name of a person but the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When the request was decided, RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// Counts up by one per record of this boot of the sidecar, from 1.
    pub sequence: u64,
    /// Identifies this boot of the sidecar.
    pub boot: String,
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
    /// HTTP status the peer got.
    pub status: u16,
    /// Provider that issued the caller's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The human (or workload): `sub` of the caller's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
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
    /// Scopes that were missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_missing: Vec<String>,
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
}
