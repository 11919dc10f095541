//! `AgentIdentity`: one MCP server behind the identity of its callers. Written by the service team; it may narrow, never widen.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientAuthenticationType, NameRef, bounds};

mod rate_limit;
mod server;
mod status;
mod tls;

pub use rate_limit::*;
pub use server::*;
pub use status::*;
pub use tls::*;

/// One MCP server and what it may do for its callers.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "behalf.dev",
    version = "v1alpha1",
    kind = "AgentIdentity",
    plural = "agentidentities",
    shortname = "aid",
    category = "behalf",
    namespaced,
    status = "AgentIdentityStatus",
    derive = "PartialEq",
    doc = "One MCP server behind the identity of its callers. Pods of its namespace join by the label behalf.dev/agent-identity with its name.",
    selectable = ".spec.catalogRef.name",
    selectable = ".spec.serviceAccountName",
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.rollout.stage"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.matched"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.pods.current"),
    printcolumn(name = "Would-Deny", type_ = "integer", json_path = ".status.decisions.wouldDeny"),
    printcolumn(name = "Denied", type_ = "integer", json_path = ".status.decisions.denied"),
    printcolumn(name = "Injected", type_ = "integer", json_path = ".status.pods.injected", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of an AgentIdentity has at most 63 characters: a-z, 0-9 and inner hyphens (pods carry it as a label)")
        .reason(Reason::FieldValueInvalid)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.downstreams) || self.downstreams.all(d, self.identityProviders.exists(p, p.name == d.identityProvider))")
        .message("each downstream's identityProvider must be one of spec.identityProviders")
        .field_path(".downstreams").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.downstreams) || self.downstreams.all(d, !has(d.env) || self.downstreams.filter(o, has(o.env) && o.env.baseURL == d.env.baseURL).size() == 1)")
        .message("no two downstreams may set the same env variable")
        .field_path(".downstreams").reason(Reason::FieldValueInvalid)
)]
pub struct AgentIdentitySpec {
    /// Active, or Suspended: every call is refused at once, nothing else changes.
    #[serde(default)]
    pub state: State,
    /// The ScopeCatalog that says what the tools need.
    pub catalog_ref: NameRef,
    /// The ServiceAccount the pods run as: the server's own identity towards its providers, so no other pod may run as
    /// it. Not default, and it cannot be changed; make another AgentIdentity instead.
    #[schemars(schema_with = "bounds::text::<bounds::Subdomain>")]
    #[x_kube(
        validation = Rule::new("self != 'default'").message("default is every pod's account; give this server one of its own")
            .reason(Reason::FieldValueForbidden),
        validation = Rule::new("self == oldSelf").message("serviceAccountName cannot be changed; make another AgentIdentity")
            .reason(Reason::FieldValueForbidden)
    )]
    pub service_account_name: String,
    /// The MCP server of the pod; exactly one.
    #[schemars(schema_with = "bounds::named::<Server, 1, 1>")]
    pub servers: Vec<Server>,
    /// The providers whose callers are taken, and the client this server is there.
    #[schemars(schema_with = "bounds::named::<ProviderClient, 1, 4>")]
    pub identity_providers: Vec<ProviderClient>,
    /// Who may call.
    #[serde(default)]
    pub callers: Callers,
    /// The scopes of the catalogue that this server uses. A tool that needs another cannot be called.
    #[serde(default)]
    pub scopes: Scopes,
    /// The downstreams of the catalogue that this server uses, and as whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Downstream, 0, 16>")]
    pub downstreams: Vec<Downstream>,
    /// How many calls are let through. A call has to be within each of these limits that counts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<RateLimit, 0, 16>")]
    pub rate_limits: Vec<RateLimit>,
    /// How far refusals go.
    #[serde(default)]
    pub rollout: Rollout,
}

/// Whether an identity serves at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Serves.
    #[default]
    Active,
    /// Refuses every call.
    Suspended,
}

/// The client this server is at a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderClient {
    /// Name of an IdentityProvider.
    #[schemars(schema_with = "bounds::text::<bounds::ProviderName>")]
    pub name: String,
    /// The client.
    pub client: Client,
    /// Audiences of callers' tokens that are taken beside the server's URL. The provider must allow each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Identifier, 0, 4>")]
    pub audiences: Vec<String>,
}

/// A client at a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The client id, as registered at the provider.
    #[schemars(schema_with = "bounds::text::<bounds::Identifier>")]
    pub id: String,
    /// How the client authenticates.
    pub authentication: ClientAuthentication,
}

/// How a client authenticates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientAuthentication {
    /// ServiceAccountToken: the pod's projected service-account token. None: not at all. The provider must allow it.
    #[serde(rename = "type")]
    pub type_: ClientAuthenticationType,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Callers {
    /// User, Workload, or both.
    #[serde(default = "default_kinds")]
    #[schemars(schema_with = "bounds::choices::<CallerKind, 1, 2>")]
    pub kinds: Vec<CallerKind>,
    /// Which clients may act for the caller. Absent: whichever client the provider gave the token to, and nobody
    /// between it and the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Actors")]
    pub actors: Option<Actors>,
}

fn default_kinds() -> Vec<CallerKind> {
    vec![CallerKind::User]
}

impl Default for Callers {
    fn default() -> Self {
        Self { kinds: default_kinds(), actors: None }
    }
}

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CallerKind {
    /// A person.
    User,
    /// A program with an identity of its own.
    Workload,
}

/// Which clients may act for the caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actors {
    /// Client ids that may hold the caller's token, and act for the caller now (the outermost act claim); the actors inside
    /// that one are recorded and decide nothing. A service account or a SPIFFE identity is its own client. None, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Identifier, 0, 32>")]
    pub allowed: Vec<String>,
    /// The longest actor chain (act claims, RFC 8693 §4.1) that is taken.
    #[serde(default = "default_max_depth")]
    #[schemars(schema_with = "bounds::whole::<0, 10>")]
    pub max_depth: i64,
}

fn default_max_depth() -> i64 {
    3
}

/// The scopes of the catalogue that a server uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.required) || !has(self.optional) || self.optional.all(s, !(s in self.required))")
    .message("a scope is either required or optional, not both").field_path(".optional").reason(Reason::FieldValueInvalid))]
pub struct Scopes {
    /// Scopes that every call needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 0, 32>")]
    pub required: Vec<String>,
    /// Scopes that some tools need; callers step up to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 0, 64>")]
    pub optional: Vec<String>,
    /// Which scopes a caller is told who lacks some. Operation: all that the refused call needs; Cumulative: also those
    /// that the token has, for clients that ask for exactly what they are told (MCP 2025-11-25).
    #[serde(default)]
    pub challenge: ScopeChallenge,
}

/// Which scopes a challenge names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScopeChallenge {
    /// Those of the refused call.
    #[default]
    Operation,
    /// Those of the refused call and those presented.
    Cumulative,
}

/// A downstream that a server uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Downstream {
    /// Name of a downstream of the catalogue.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Which of spec.identityProviders makes the tokens for it.
    #[schemars(schema_with = "bounds::text::<bounds::ProviderName>")]
    pub identity_provider: String,
    /// As whom the downstream is called: Caller.
    #[serde(default)]
    pub subject: Subject,
    /// Who acts for the subject, as the token says: None.
    #[serde(default)]
    pub actor: Actor,
    /// How the server learns where to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DownstreamEnv")]
    pub env: Option<DownstreamEnv>,
}

/// As whom a downstream is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Subject {
    /// As the caller.
    #[default]
    Caller,
}

/// Who acts for the subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Actor {
    /// Nobody is named.
    #[default]
    None,
}

/// Env variables that Behalf sets in the server's containers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownstreamEnv {
    /// The variable that receives the base URL of the downstream (on loopback, through Behalf).
    #[serde(rename = "baseURL")]
    #[schemars(schema_with = "bounds::text::<bounds::EnvName>")]
    pub base_url: String,
}

/// How far refusals go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// What policy refuses. Audit: the call reaches the server, gets nothing from Behalf, and is recorded. Enforce: it is
    /// refused.
    #[serde(default)]
    pub stage: Stage,
    /// The same for calls without a valid token.
    #[serde(default = "default_authentication_stage")]
    pub authentication: Stage,
}

fn default_authentication_stage() -> Stage {
    Stage::Enforce
}

impl Default for Rollout {
    fn default() -> Self {
        Self { stage: Stage::default(), authentication: default_authentication_stage() }
    }
}

/// How far a refusal goes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Stage {
    /// Recorded.
    #[default]
    Audit,
    /// Refused.
    Enforce,
}
