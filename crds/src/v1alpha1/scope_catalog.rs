//! `ScopeCatalog`: what may be called, by whom, and where a call may lead. Written by the platform team.

mod requirement;
mod tool_set;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity_provider::{
    CA_MESSAGE, CA_RULE, HTTPS_MESSAGE, HTTPS_RULE, LIFETIME_MESSAGE, LIFETIME_RULE,
    default_max_token_lifetime,
};
use super::{Duration, NamespaceAccess, bounds};
pub use requirement::*;
pub use tool_set::*;

/// Scopes, tools and downstreams.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "behalf.dev",
    version = "v1alpha1",
    kind = "ScopeCatalog",
    plural = "scopecatalogs",
    shortname = "scat",
    category = "behalf",
    status = "ScopeCatalogStatus",
    derive = "PartialEq",
    doc = "What may be called, by whom, and where a call may lead: scopes and their holders, tools and the scopes they need, downstreams.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Scopes", type_ = "integer", json_path = ".status.counts.scopes", priority = 1),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.counts.tools", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of a ScopeCatalog has at most 63 characters: a-z, 0-9 and inner hyphens")
        .reason(Reason::FieldValueInvalid)
)]
#[serde(rename_all = "camelCase")]
pub struct ScopeCatalogSpec {
    /// Which namespaces may use this catalogue. None by default.
    #[serde(default)]
    pub allowed_namespaces: NamespaceAccess,
    /// The scopes that callers present, and who holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<CatalogScope, 0, 256>")]
    pub scopes: Vec<CatalogScope>,
    /// Tools and what they need; one set for each kind of server, so that equal tool names do not collide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<ToolSet, 0, 64>")]
    pub tool_sets: Vec<ToolSet>,
    /// Where calls may lead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<CatalogDownstream, 0, 64>")]
    pub downstreams: Vec<CatalogDownstream>,
}

/// A scope that callers present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.implies) || !(self.name in self.implies)")
    .message("a scope does not imply itself; leave its own name out").field_path(".implies").reason(Reason::FieldValueInvalid))]
pub struct CatalogScope {
    /// The scope as it stands in tokens (RFC 6749 §3.3).
    #[schemars(schema_with = "bounds::text::<bounds::Scope>")]
    pub name: String,
    /// Who holds the scope. It counts for a caller only if the token presents it and one of these holds it too.
    #[serde(default)]
    pub holders: Holders,
    /// Scopes that this one presents as well, for whoever presents and holds it. Each needs its own holder too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 0, 32>")]
    pub implies: Vec<String>,
    /// What the scope lets its holder do: Read, Write or Admin.
    pub access_class: AccessClass,
    /// How a caller must have logged in to use the scope; absent: anyhow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Assurance")]
    pub assurance: Option<Assurance>,
}

/// Who holds a scope. Nobody, if nothing is listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holders {
    /// Groups as the provider's token names them, exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Group, 0, 64>")]
    pub groups: Vec<String>,
}

/// What a scope lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AccessClass {
    /// See.
    Read,
    /// Change.
    Write,
    /// Change who may do what.
    Admin,
}

/// What one kind of server may serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolSet {
    /// Name of the set; servers of AgentIdentities name it.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// The tools. One that is not listed cannot be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Tool, 0, 256>")]
    pub tools: Vec<Tool>,
    /// The prompts. One that is not listed cannot be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Prompt, 0, 128>")]
    pub prompts: Vec<Prompt>,
    /// The resources. One that no row matches cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Resource, 0, 128>")]
    pub resources: Vec<Resource>,
    /// The routes of a server with protocol HTTP. A request that no row matches is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Route, 0, 128>")]
    pub routes: Vec<Route>,
}

/// A tool, what it needs and where it may lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// The tool's name, exactly.
    #[schemars(schema_with = "bounds::text::<bounds::Tool>")]
    pub name: String,
    /// Scopes of this catalogue that a call needs, all of them.
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 16>")]
    pub scopes: Vec<String>,
    /// What a caller learns who may not call it. Explain: which scope is missing. Hide: that there is no such tool.
    #[serde(default)]
    pub denial: Denial,
    /// Downstreams of this catalogue that a call may lead to, and with which scopes. None: the call leads nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<ToolDownstream, 0, 16>")]
    pub downstreams: Vec<ToolDownstream>,
    /// What calls with certain arguments need besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<ToolCondition, 0, 8>")]
    pub conditions: Vec<ToolCondition>,
}

/// What a caller learns who may not call a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Denial {
    /// Which scope is missing.
    #[default]
    Explain,
    /// The same as for a tool that does not exist.
    Hide,
}

/// A downstream a tool may lead to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolDownstream {
    /// Name of a downstream of this catalogue.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Scopes the exchanged token carries, exactly.
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 16>")]
    pub scopes: Vec<String>,
}

/// Where calls may lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'HTTP') == has(self.http)")
    .message("http must be set if, and only if, type is HTTP").field_path(".http").reason(Reason::FieldValueInvalid))]
pub struct CatalogDownstream {
    /// Name of the downstream; tools and AgentIdentities name it, and it is the first segment of the local path.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// How it is spoken to: HTTP.
    #[serde(rename = "type")]
    pub type_: DownstreamType,
    /// Where it is, for type HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpDownstream")]
    pub http: Option<HttpDownstream>,
    /// The audience its tokens are made for; exactly one.
    #[schemars(schema_with = "bounds::texts::<bounds::Identifier, 1, 1>")]
    pub audiences: Vec<String>,
    /// The ceiling: no tool may ask a scope that is not listed. Absent: the tools' own lists are the ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 64>")]
    pub scopes: Option<Vec<String>>,
    /// The longest life a token for it may have; an answer that lives longer is refused. 30s to 1h.
    #[serde(default = "default_max_token_lifetime")]
    #[x_kube(validation = Rule::new(LIFETIME_RULE).message(LIFETIME_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub max_token_lifetime: Duration,
}

/// How a downstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DownstreamType {
    /// HTTP over TLS.
    #[serde(rename = "HTTP")]
    Http,
}

/// Where an HTTP downstream is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpDownstream {
    /// https origin, with a base path where the API has one. Nothing outside that path is reached.
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(
        validation = Rule::new(HTTPS_RULE).message(HTTPS_MESSAGE).reason(Reason::FieldValueInvalid),
        validation = Rule::new("!self.matches('%|;|//.*//|/[.][.]?(/|$)')")
            .message("the base path holds no dot segment, empty segment, semicolon or percent-encoding").reason(Reason::FieldValueInvalid)
    )]
    pub origin: String,
    /// Certificates (PEM) of the authorities that may vouch for it; absent: the public web's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Pem>")]
    #[x_kube(validation = Rule::new(CA_RULE).message(CA_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub ca_bundle: Option<String>,
}

/// What the operator made of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopeCatalogStatus {
    /// The metadata.generation this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::counter")]
    pub observed_generation: Option<i64>,
    /// How much the catalogue holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CatalogCounts")]
    pub counts: Option<CatalogCounts>,
    /// Accepted and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::conditions")]
    pub conditions: Vec<Condition>,
}

/// How much a catalogue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogCounts {
    /// Scopes.
    #[schemars(schema_with = "bounds::count")]
    pub scopes: i64,
    /// Tools of all sets.
    #[schemars(schema_with = "bounds::count")]
    pub tools: i64,
    /// Downstreams.
    #[schemars(schema_with = "bounds::count")]
    pub downstreams: i64,
}
