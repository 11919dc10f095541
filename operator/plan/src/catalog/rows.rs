//! Rows of a tool set that are no tools.

use std::collections::BTreeMap;

use behalf_crds::v1alpha1 as crds;
use behalf_policy::bundle::HttpMethod;
use behalf_policy::bundle::document::ToolDownstream;
use behalf_policy::bundle::rows::{PromptDocument, ResourceDocument, RouteDocument};
use behalf_policy::ids::{EntryName, PromptName, Scope, ScopeSet, ToolName};
use behalf_policy::pattern::{Pattern, PatternDocument, PatternType, Space};

use super::{DownstreamRow, ScopeRow};
use super::{
    Problem, ToolRow, check_row, collect, denial, entry_name, invalid, leads, some_scopes, unreadable,
};

/// One kind of server: what it may serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolSetRow {
    /// Tools by name.
    pub tools: BTreeMap<ToolName, ToolRow>,
    /// Prompts by name.
    pub prompts: BTreeMap<PromptName, PromptDocument>,
    /// Resources by name of their row.
    pub resources: BTreeMap<EntryName, ResourceDocument>,
    /// Routes by name of their row.
    pub routes: BTreeMap<EntryName, RouteDocument>,
}

/// Checks the rows of a set that are no tools.
pub(super) fn read(
    set: &crds::ToolSet,
    at: &str,
    scopes: &BTreeMap<Scope, ScopeRow>,
    downstreams: &BTreeMap<EntryName, DownstreamRow>,
) -> Result<ToolSetRow, Problem> {
    let prompts = collect(&set.prompts, at, prompt)?;
    let resources = collect(&set.resources, at, resource)?;
    let routes = collect(&set.routes, at, route)?;
    let none = BTreeMap::new();
    let check = |kind: &str, name: &str, needs: &ScopeSet, leads: &BTreeMap<EntryName, ScopeSet>| {
        check_row(&format!("{kind} {name} of {at}"), needs, leads, scopes, downstreams)
    };
    for (name, row) in &prompts {
        check("Prompt", name.as_str(), &row.scopes, &none)?;
    }
    for (name, row) in &resources {
        check("Resource", name.as_str(), &row.scopes, &none)?;
    }
    for (name, row) in &routes {
        let leads = row.downstreams.iter().map(|d| (d.name.clone(), d.scopes.clone())).collect();
        check("Route", name.as_str(), &row.scopes, &leads)?;
    }
    Ok(ToolSetRow { tools: BTreeMap::new(), prompts, resources, routes })
}

fn prompt(row: &crds::Prompt, at: &str) -> Result<(PromptName, PromptDocument), Problem> {
    let name = PromptName::new(row.name.clone()).map_err(|_| unreadable(at, &row.name))?;
    let scopes = some_scopes(&row.scopes, &format!("prompt {name} of {at}"))?;
    Ok((name.clone(), PromptDocument { name, scopes, denial: denial(row.denial) }))
}

fn resource(row: &crds::Resource, at: &str) -> Result<(EntryName, ResourceDocument), Problem> {
    let name = entry_name(&row.name, at)?;
    let of = format!("resource {name} of {at}");
    let document = ResourceDocument {
        name: name.clone(),
        uri: pattern(&row.uri, Space::Uri, &of, "A URI has a scheme, such as hr://reports/2026")?,
        scopes: some_scopes(&row.scopes, &of)?,
        denial: denial(row.denial),
    };
    Ok((name, document))
}

fn route(row: &crds::Route, at: &str) -> Result<(EntryName, RouteDocument), Problem> {
    let name = entry_name(&row.name, at)?;
    let of = format!("route {name} of {at}");
    if row.methods.is_empty() {
        return Err(invalid(format!("The list of methods of {of} is empty. Name at least one.")));
    }
    let leads = leads(&row.downstreams, &of)?;
    let document = RouteDocument {
        name: name.clone(),
        methods: row.methods.iter().map(|method| http_method(*method)).collect(),
        path: pattern(&row.path, Space::Path, &of, "A path starts with a slash, such as /v1/items/{id}")?,
        scopes: some_scopes(&row.scopes, &of)?,
        denial: denial(row.denial),
        downstreams: leads.into_iter().map(|(name, scopes)| ToolDownstream { name, scopes }).collect(),
    };
    Ok((name, document))
}

fn pattern(text: &crds::TextMatch, space: Space, of: &str, hint: &str) -> Result<PatternDocument, Problem> {
    let document = PatternDocument {
        type_: match text.type_ {
            crds::TextMatchType::Exact => PatternType::Exact,
            crds::TextMatchType::Prefix => PatternType::Prefix,
            crds::TextMatchType::Template => PatternType::Template,
        },
        value: text.value.clone(),
    };
    if Pattern::new(space, &document).is_none() {
        return Err(invalid(format!(
            "{:?} of {of} cannot be matched. {hint}; there are no dot segments, empty segments or needless encodings in it, \
             and variables are written {{name}}, not side by side, in type Template only.",
            text.value
        )));
    }
    Ok(document)
}

fn http_method(method: crds::HttpMethod) -> HttpMethod {
    match method {
        crds::HttpMethod::Get => HttpMethod::Get,
        crds::HttpMethod::Head => HttpMethod::Head,
        crds::HttpMethod::Post => HttpMethod::Post,
        crds::HttpMethod::Put => HttpMethod::Put,
        crds::HttpMethod::Patch => HttpMethod::Patch,
        crds::HttpMethod::Delete => HttpMethod::Delete,
        crds::HttpMethod::Options => HttpMethod::Options,
    }
}
