//! Rows of a tool set that are no tools: prompts, resources, and the routes of a plain HTTP API.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Denial, ToolDownstream};
use crate::v1alpha1::bounds;

/// A prompt and what getting it needs. Completing its arguments needs the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    /// The prompt's name, exactly.
    #[schemars(schema_with = "bounds::text::<bounds::Prompt>")]
    pub name: String,
    /// Scopes of this catalogue that getting it needs, all of them.
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 16>")]
    pub scopes: Vec<String>,
    /// What a caller learns who may not have it. Explain: which scope is missing. Hide: that there is no such prompt.
    #[serde(default)]
    pub denial: Denial,
}

/// Resources and what reading them needs. Subscribing to them and completing their templates need the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Name of the row.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Which URIs. The narrowest row that matches a URI is its row.
    pub uri: TextMatch,
    /// Scopes of this catalogue that reading needs, all of them.
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 16>")]
    pub scopes: Vec<String>,
    /// What a caller learns who may not read it. Explain: which scope is missing. Hide: that there is no such resource.
    #[serde(default)]
    pub denial: Denial,
}

/// Requests of a plain HTTP API, what they need and where they may lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Name of the row; records name it.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Which methods. HEAD is not part of GET.
    #[schemars(schema_with = "bounds::choices::<HttpMethod, 1, 7>")]
    pub methods: Vec<HttpMethod>,
    /// Which paths, below the path of the server's URL. The narrowest row that matches a method and path is its row.
    pub path: TextMatch,
    /// Scopes of this catalogue that a request needs, all of them.
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 1, 16>")]
    pub scopes: Vec<String>,
    /// What a caller learns who may not. Explain: which scope is missing. Hide: that there is no such path.
    #[serde(default)]
    pub denial: Denial,
    /// Downstreams of this catalogue that a request may lead to, and with which scopes. None: it leads nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<ToolDownstream, 0, 16>")]
    pub downstreams: Vec<ToolDownstream>,
}

/// Which URIs or paths a row is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextMatch {
    /// Exact: the value. Prefix: the value and what stands below it, by whole segments. Template: the value, in which
    /// each {name} stands for some characters of one segment.
    #[serde(default, rename = "type")]
    pub type_: TextMatchType,
    /// What is matched, in normal form: no dot segments, no empty segments, nothing encoded without need.
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    pub value: String,
}

/// How a URI or path is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TextMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// The value and what stands below it.
    Prefix,
    /// Literal text with variables.
    Template,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS, other than a browser's preflight.
    Options,
}
