//! The bundle: what one identity's sidecars run by. The only contract between operator and sidecar.
//!
//! The operator compiles a [`Document`], signs its bytes as a [`signed::SignedBundle`], and the sidecar
//! checks the signature, then [`Bundle::load`]s the document: every reference resolved, every bound
//! checked, everything indexed, so that deciding allocates nothing that could be made here.

pub mod algorithm;
pub mod document;
pub mod load;
pub mod provider;
pub mod requirement;
pub mod rows;
pub mod signed;
pub mod tls;
pub mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use algorithm::Algorithm;
pub use document::{Denial, Document, Host, RefuseAllReason, Serve, Stage, State};
pub use load::LoadError;
pub use provider::{ClientAuthentication, Flavor, ProviderDocument as Provider, TokenProfile};
pub use rows::{HttpMethod, HttpRoute, Protocol, Resource, Timeouts};
pub use tls::{ClientCertificates, ClientValidation, TlsRules};
pub use tokens::{
    Introspection, IntrospectionResponse, IntrospectionRule, NonceRule, SenderConstraint,
    SenderConstraintMode, TokenRules,
};

use crate::condition::Expression;
use crate::deny::DenyList;
use crate::ids::{Audience, ClientId, EntryName, Group, Issuer, PromptName, Scope, ScopeSet, ToolName};

/// A loaded bundle: valid, resolved and indexed. Made only by [`Bundle::load`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Namespace of the identity.
    pub namespace: String,
    /// Name of the identity.
    pub identity: String,
    /// Never goes back; see [`document::Document::serial`].
    pub serial: u64,
    /// Digest of the signed bytes, `sha256:…`, for records and status.
    pub digest: String,
    /// Where the operator is told and asked.
    pub feed: Option<document::FeedDocument>,
    /// Salt of the installation for the ids of tokens in records.
    pub record_salt: Option<Arc<str>>,
    /// What the namespace's own people refuse by hand; it comes beside the document, never in it.
    pub deny: DenyList,
    /// What to do with calls.
    pub serve: Loaded,
}

/// What a loaded bundle says about calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Refuse every call for this reason.
    RefuseAll(RefuseAllReason),
    /// Judge calls by this policy.
    Policy(Box<Policy>),
}

/// The policy of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Suspended identities authenticate, then refuse.
    pub state: State,
    /// Whether policy refusals are enforced or recorded.
    pub stage: Stage,
    /// Whether authentication refusals are enforced or recorded.
    pub authentication: Stage,
    /// Revision of the catalogue this was compiled from, for records.
    pub catalog_revision: String,
    /// The server behind the sidecar.
    pub server: Server,
    /// Providers by name.
    pub providers: BTreeMap<EntryName, Provider>,
    /// Provider name by issuer: the unverified `iss` of a token only selects here (A31).
    pub issuers: BTreeMap<Issuer, EntryName>,
    /// Catalogue scopes.
    pub scopes: BTreeMap<Scope, ScopeRule>,
    /// Scopes every operation needs.
    pub required: ScopeSet,
    /// Scopes the identity offers: required and optional. A tool that needs another is refused.
    pub offered: ScopeSet,
    /// Which scopes a challenge names.
    pub scope_challenge: document::ScopeChallenge,
    /// Who may call.
    pub callers: Callers,
    /// Downstreams by name.
    pub downstreams: BTreeMap<EntryName, Downstream>,
    /// How many calls are let through: a call has to be within all of them.
    pub rate_limits: Vec<crate::rate::RateLimit>,
}

/// The server behind the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name of the entry.
    pub name: EntryName,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its canonical URL, which is its audience (RFC 8707, MCP authorization).
    pub url: Audience,
    /// Path of that URL, at least `/`.
    pub path: String,
    /// Scheme and authority of that URL.
    pub origin: String,
    /// The port it listens on, on loopback.
    pub port: u16,
    /// What the server sees as `Host`.
    pub host: Host,
    /// Where the one-call handle travels.
    pub carriers: BTreeSet<document::Carrier>,
    /// Seconds that a handle outlives the response of its call.
    pub handle_grace: u32,
    /// Origins of web pages whose scripts may call, besides [`Server::origin`].
    pub allowed_origins: BTreeSet<String>,
    /// How long it and its callers may take.
    pub timeouts: Timeouts,
    /// How connections of callers are secured, where the sidecar terminates TLS.
    pub tls: Option<TlsRules>,
    /// Tools by exact name; one that is not here is refused.
    pub tools: BTreeMap<ToolName, Tool>,
    /// Prompts by exact name; one that is not here is refused.
    pub prompts: BTreeMap<PromptName, Tool>,
    /// Resources by pattern; one that none of them names is refused. See [`Server::resource`].
    pub resources: Vec<Resource>,
    /// Routes by method and pattern; see [`Server::route`].
    pub routes: Vec<HttpRoute>,
}

/// What one tool, prompt, resource or route of the catalogue needs, and where it may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Scopes a call needs.
    pub scopes: ScopeSet,
    /// Whether a refusal says what is missing.
    pub denial: Denial,
    /// Downstreams a permit for it names, each with the scopes asked there.
    pub downstreams: BTreeMap<EntryName, ScopeSet>,
    /// What calls with certain arguments need besides.
    pub conditions: Vec<Condition>,
}

/// What a call needs besides, where its expression is true. With neither scopes nor groups such a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Name of the row.
    pub name: EntryName,
    /// The expression.
    pub when: Expression,
    /// Further scopes, all of them.
    pub scopes: ScopeSet,
    /// Groups of which the caller must be in one.
    pub groups: BTreeSet<Group>,
}

/// One scope of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRule {
    /// A caller holds the scope when one of its groups is here.
    pub groups: BTreeSet<Group>,
    /// Narrower scopes that holding this one presents as well.
    pub implies: ScopeSet,
    /// How the caller must have logged in to use it.
    pub assurance: Option<document::Assurance>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callers {
    /// Kinds of caller.
    pub kinds: BTreeSet<document::CallerKind>,
    /// Clients (`azp` / `client_id`) that may act for a user; `None` means any, an empty set none.
    pub clients: Option<BTreeSet<ClientId>>,
    /// How many nested actors a token may carry.
    pub max_actor_depth: u8,
}

/// One downstream of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downstream {
    /// Scheme and authority it is reached at.
    pub origin: String,
    /// Path under which calls are placed; empty or starting with `/`, without a trailing slash.
    pub base_path: String,
    /// PEM of the CA to trust for it; none means the public roots.
    pub ca_bundle: Option<String>,
    /// The one audience its tokens carry.
    pub audience: Audience,
    /// The provider that issues them.
    pub provider: EntryName,
    /// No token for it may live longer than this, seconds.
    pub max_token_lifetime: u32,
}

impl Bundle {
    /// The policy, or why every call is refused.
    ///
    /// # Errors
    /// The reason for which every call is refused.
    pub fn policy(&self) -> Result<&Policy, RefuseAllReason> {
        match &self.serve {
            Loaded::RefuseAll(reason) => Err(*reason),
            Loaded::Policy(policy) => Ok(policy),
        }
    }
}
