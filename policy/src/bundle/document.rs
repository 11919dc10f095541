//! The bundle as it is written: versioned, closed (an unknown member is refused), additive by version.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::provider::ProviderDocument;
pub use super::requirement::{Assurance, ConditionDocument, ScopeChallenge};
use super::rows::{PromptDocument, Protocol, ResourceDocument, RouteDocument, Timeouts};
use super::tls::TlsRules;
use super::tokens::is_default;
use crate::ids::{Audience, ClientId, EntryName, Group, Scope, ToolName};

/// The format this build reads and writes. A sidecar refuses any other.
pub const FORMAT: u32 = 1;

/// What the operator signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Must equal [`FORMAT`].
    pub format: u32,
    /// Namespace of the identity; a sidecar takes no bundle of another.
    pub namespace: String,
    /// Name of the identity; a sidecar takes no bundle of another.
    pub identity: String,
    /// The greater of the last serial + 1 and the compile time in milliseconds. A sidecar takes none
    /// whose serial goes back.
    pub serial: u64,
    /// Where the operator is told and asked; none where there is no operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedDocument>,
    /// Salt of the installation for the ids of tokens in records. Whoever may read the bundle may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_salt: Option<String>,
    /// What to do with calls.
    pub serve: Serve,
}

/// How a sidecar reaches the operator's feed. Signed like everything else here, so nobody can point it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeedDocument {
    /// Scheme, host and port, always https.
    pub origin: String,
    /// PEM of the authorities its certificate may be from.
    pub ca_bundle: String,
}

/// What to do with calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Serve {
    /// Refuse every call.
    RefuseAll {
        /// Why.
        reason: RefuseAllReason,
    },
    /// Judge calls.
    Policy(Box<PolicyDocument>),
}

/// Why every call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefuseAllReason {
    /// The identity was deleted; this bundle is its tombstone.
    IdentityDeleted,
    /// The identity asks for more than policy gives it.
    IdentityNotAccepted,
    /// What the identity refers to is gone and no last good bundle may be kept.
    ReferencesNotResolved,
}

impl RefuseAllReason {
    /// Stable name, for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityDeleted => "IdentityDeleted",
            Self::IdentityNotAccepted => "IdentityNotAccepted",
            Self::ReferencesNotResolved => "ReferencesNotResolved",
        }
    }
}

/// The policy of one identity, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// Suspended identities authenticate, then refuse.
    pub state: State,
    /// Whether policy refusals are enforced or recorded.
    pub stage: Stage,
    /// Whether authentication refusals are enforced or recorded.
    pub authentication: Stage,
    /// Digest of the catalogue rows this was compiled from.
    pub catalog_revision: String,
    /// The servers of the identity; exactly one in this format.
    pub servers: Vec<ServerDocument>,
    /// The providers whose tokens are taken.
    pub providers: Vec<ProviderDocument>,
    /// The catalogue's scopes, as far as the identity or its tools name them.
    pub scopes: Vec<ScopeDocument>,
    /// Scopes every operation needs.
    pub required_scopes: BTreeSet<Scope>,
    /// Further scopes the identity offers.
    pub optional_scopes: BTreeSet<Scope>,
    /// Which scopes a challenge names.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope_challenge: ScopeChallenge,
    /// Who may call.
    pub callers: CallersDocument,
    /// The downstreams a permit may name.
    pub downstreams: Vec<DownstreamDocument>,
    /// How many calls are let through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<crate::rate::RateLimit>,
}

/// Whether an identity serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Calls are judged.
    Active,
    /// Every call is refused after authentication.
    Suspended,
}

/// Roll-out stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// What would be refused is recorded and let through without a handle.
    Audit,
    /// What is refused is refused.
    Enforce,
}

impl Stage {
    /// Stable name, for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "Audit",
            Self::Enforce => "Enforce",
        }
    }
}

/// The server behind the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerDocument {
    /// Name of the entry.
    pub name: EntryName,
    /// What it speaks.
    #[serde(default, skip_serializing_if = "is_mcp")]
    pub protocol: Protocol,
    /// Canonical URL, which is the audience.
    pub url: Audience,
    /// Port on loopback.
    pub port: u16,
    /// What the server sees as `Host`.
    pub host: Host,
    /// Where the one-call handle travels.
    pub carriers: BTreeSet<Carrier>,
    /// Seconds that a handle outlives the response of its call, at most
    /// [`MAX_HANDLE_GRACE`](super::load::MAX_HANDLE_GRACE).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub handle_grace: u32,
    /// Origins of web pages whose scripts may call, besides the server's own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_origins: BTreeSet<String>,
    /// How long it and its callers may take.
    #[serde(default, skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// How connections of callers are secured, where the sidecar terminates TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRules>,
    /// The tools it may serve.
    pub tools: Vec<ToolDocument>,
    /// The prompts it may serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptDocument>,
    /// The resources it may serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceDocument>,
    /// The routes it may serve, when it speaks plain HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteDocument>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_mcp(protocol: &Protocol) -> bool {
    *protocol == Protocol::Mcp
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What the server sees as `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// `127.0.0.1:<port>`.
    Loopback,
    /// What the caller sent, after it was judged.
    Keep,
}

/// Where the one-call handle travels to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Carrier {
    /// `Authorization: Bearer <handle>`: servers that pass the caller's header on need no code.
    Authorization,
    /// `params._meta["behalf.dev/handle"]`.
    Meta,
    /// `Behalf-Handle: <handle>`: servers that pass on headers of their choice and use `Authorization` themselves.
    Header,
}

/// One tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolDocument {
    /// Exact name.
    pub name: ToolName,
    /// Scopes a call needs; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Whether a refusal says what is missing.
    pub denial: Denial,
    /// Downstreams a permit names.
    pub downstreams: Vec<ToolDownstream>,
    /// What calls with certain arguments need besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionDocument>,
}

/// How a refused tool call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// 403 that says what is missing.
    Explain,
    /// The answer of a tool that does not exist.
    Hide,
}

impl Denial {
    /// True when the answer may say what is missing.
    #[must_use]
    pub fn explains(self) -> bool {
        self == Self::Explain
    }
}

/// A downstream of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolDownstream {
    /// Name of the downstream.
    pub name: EntryName,
    /// Scopes asked in the exchange; at least one.
    pub scopes: BTreeSet<Scope>,
}

/// One scope of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScopeDocument {
    /// The scope.
    pub name: Scope,
    /// Who holds it.
    pub groups: BTreeSet<Group>,
    /// What it implies, directly.
    pub implies: BTreeSet<Scope>,
    /// How the caller must have logged in to use it; anyhow, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assurance: Option<Assurance>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallersDocument {
    /// Kinds of caller.
    pub kinds: BTreeSet<CallerKind>,
    /// Clients that may act for a user; `None` means whichever the provider gave the token to, an empty
    /// set means no client.
    pub clients: Option<BTreeSet<ClientId>>,
    /// Nested actors a token may carry.
    pub max_actor_depth: u8,
}

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CallerKind {
    /// A person.
    User,
    /// A program that calls for itself.
    Workload,
}

/// One downstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownstreamDocument {
    /// Name of the entry.
    pub name: EntryName,
    /// URL of the origin, with an optional base path.
    pub url: String,
    /// PEM of the CA to trust for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// The one audience of its tokens.
    pub audience: Audience,
    /// Name of the provider that issues them.
    pub provider: EntryName,
    /// Ceiling: scopes a tool may ask there; empty means those its tools name.
    pub scope_ceiling: BTreeSet<Scope>,
    /// Seconds.
    pub max_token_lifetime: u32,
}
