//! Rows of a tool set that are no tools: prompts, resources, and the routes of a plain HTTP API.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::document::{Denial, ToolDownstream};
use super::load::{LoadError, downstreams_of};
use super::{Server, Tool};
use crate::ids::{EntryName, PromptName, Scope, ScopeSet};
use crate::pattern::{Pattern, PatternDocument, Space, find, find_template};

/// One prompt, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptDocument {
    /// Exact name.
    pub name: PromptName,
    /// Scopes that getting it needs; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Whether a refusal says what is missing.
    pub denial: Denial,
}

/// One resource or kind of resources, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceDocument {
    /// Name of the row.
    pub name: EntryName,
    /// Which URIs.
    pub uri: PatternDocument,
    /// Scopes that reading one needs; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Whether a refusal says what is missing.
    pub denial: Denial,
}

/// One route of a plain HTTP API, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteDocument {
    /// Name of the row.
    pub name: EntryName,
    /// Which methods; at least one.
    pub methods: BTreeSet<HttpMethod>,
    /// Which paths, below that of the server's URL.
    pub path: PatternDocument,
    /// Scopes that a request needs; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Whether a refusal says what is missing.
    pub denial: Denial,
    /// Downstreams a permit names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstreams: Vec<ToolDownstream>,
}

/// A method of HTTP that a route can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// RFC 9110 §9.3.1.
    Get,
    /// RFC 9110 §9.3.2.
    Head,
    /// RFC 9110 §9.3.3.
    Post,
    /// RFC 9110 §9.3.4.
    Put,
    /// RFC 5789.
    Patch,
    /// RFC 9110 §9.3.5.
    Delete,
    /// RFC 9110 §9.3.7, other than a browser's preflight.
    Options,
}

impl HttpMethod {
    /// The method of this exact name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => return None,
        })
    }
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// MCP over streamable HTTP.
    #[default]
    #[serde(rename = "MCP")]
    Mcp,
    /// Any HTTP API; calls are told apart by method and path.
    #[serde(rename = "HTTP")]
    Http,
}

/// How long a server and its callers may take, seconds (C30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// Until the body of a request has arrived.
    pub body: u32,
    /// Until the server's answer begins.
    pub response: u32,
    /// Between two pieces of an event stream; zero: any time.
    pub stream_idle: u32,
    /// Until an event stream has ended; zero: as long as its caller may.
    pub stream: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { body: 30, response: 600, stream_idle: 0, stream: 0 }
    }
}

impl Timeouts {
    /// As it is when nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Within bounds that keep a handle's own from being passed.
    pub(super) fn check(self) -> Result<Self, LoadError> {
        let day = 24 * 60 * 60;
        let bounded = (1..=600).contains(&self.body)
            && (1..=600).contains(&self.response)
            && self.stream_idle <= day
            && self.stream <= day;
        if bounded { Ok(self) } else { Err(LoadError::Bounds("timeouts")) }
    }
}

/// Resources of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Name of the row.
    pub name: EntryName,
    /// Which URIs.
    pub uri: Pattern,
    /// What reading needs.
    pub needs: Tool,
}

/// A route of a plain HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Name of the row.
    pub name: EntryName,
    /// Which methods.
    pub methods: BTreeSet<HttpMethod>,
    /// Which paths.
    pub path: Pattern,
    /// What a request needs and where it may lead.
    pub needs: Tool,
}

impl Server {
    /// The row for a resource.
    #[must_use]
    pub fn resource(&self, uri: &str) -> Option<&Resource> {
        find(&self.resources, |row| &row.uri, uri)
    }

    /// The row for a URI template, as the server lists it.
    #[must_use]
    pub fn resource_template(&self, template: &str) -> Option<&Resource> {
        find_template(&self.resources, |row| &row.uri, template)
    }

    /// The row for a request of a plain HTTP API, by its method and the path below that of the server's URL.
    #[must_use]
    pub fn route(&self, method: HttpMethod, path: &str) -> Option<&HttpRoute> {
        let rows: Vec<&HttpRoute> = self.routes.iter().filter(|row| row.methods.contains(&method)).collect();
        find(&rows, |row| &row.path, path).copied()
    }
}

type Ceilings = BTreeMap<EntryName, ScopeSet>;

pub(super) fn prompts_of(rows: Vec<PromptDocument>) -> Result<BTreeMap<PromptName, Tool>, LoadError> {
    let mut prompts = BTreeMap::new();
    for row in rows {
        let needs = needs_of(row.name.as_str(), row.scopes, row.denial)?;
        if prompts.insert(row.name.clone(), needs).is_some() {
            return Err(LoadError::Duplicate(row.name.to_string()));
        }
    }
    Ok(prompts)
}

pub(super) fn resources_of(rows: Vec<ResourceDocument>) -> Result<Vec<Resource>, LoadError> {
    let mut names = BTreeSet::new();
    let rows = rows.into_iter().map(|row| {
        distinct(&mut names, &row.name)?;
        let uri =
            Pattern::new(Space::Uri, &row.uri).ok_or_else(|| LoadError::Pattern(row.name.to_string()))?;
        let needs = needs_of(row.name.as_str(), row.scopes, row.denial)?;
        Ok(Resource { name: row.name, uri, needs })
    });
    rows.collect()
}

pub(super) fn routes_of(rows: Vec<RouteDocument>, ceilings: &Ceilings) -> Result<Vec<HttpRoute>, LoadError> {
    let mut names = BTreeSet::new();
    let rows = rows.into_iter().map(|row| {
        distinct(&mut names, &row.name)?;
        let path =
            Pattern::new(Space::Path, &row.path).ok_or_else(|| LoadError::Pattern(row.name.to_string()))?;
        if row.methods.is_empty() {
            return Err(LoadError::Empty(format!("methods of {}", row.name)));
        }
        let mut needs = needs_of(row.name.as_str(), row.scopes, row.denial)?;
        needs.downstreams = downstreams_of(row.name.as_str(), row.downstreams, ceilings)?;
        Ok(HttpRoute { name: row.name, methods: row.methods, path, needs })
    });
    rows.collect()
}

fn distinct(names: &mut BTreeSet<EntryName>, name: &EntryName) -> Result<(), LoadError> {
    if names.insert(name.clone()) { Ok(()) } else { Err(LoadError::Duplicate(name.to_string())) }
}

fn needs_of(name: &str, scopes: ScopeSet, denial: Denial) -> Result<Tool, LoadError> {
    if scopes.is_empty() {
        return Err(LoadError::Empty(format!("scopes of {name}")));
    }
    Ok(Tool { scopes, denial, downstreams: BTreeMap::new(), conditions: Vec::new() })
}
