//! A catalogue, checked whole: every reference within it resolves, or nothing of it is used.

mod requirement;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use behalf_crds::v1alpha1::{
    self as crds, AcceptedReason, CatalogCounts, NamespaceAccess, ReadyReason, ScopeCatalog,
    ScopeCatalogStatus,
};
use behalf_policy::bundle::Denial;
use behalf_policy::bundle::document::{Assurance, ConditionDocument};
use behalf_policy::bundle::load::MAX_TOKEN_LIFETIME;
use behalf_policy::ids::{Audience, EntryName, Group, Scope, ScopeSet, ToolName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use rows::ToolSetRow;

use crate::conditions::ConditionIntent;
use crate::{net, pem};

type Problem = ConditionIntent<AcceptedReason>;

/// A catalogue that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Its scopes.
    pub scopes: BTreeMap<Scope, ScopeRow>,
    /// Its tool sets by name.
    pub tool_sets: BTreeMap<String, ToolSetRow>,
    /// Its downstreams.
    pub downstreams: BTreeMap<EntryName, DownstreamRow>,
}

/// One scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRow {
    /// Groups that hold it.
    pub groups: BTreeSet<Group>,
    /// What it implies, directly.
    pub implies: ScopeSet,
    /// How a caller must have logged in to use it.
    pub assurance: Option<Assurance>,
}

/// One tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRow {
    /// What a call needs.
    pub scopes: ScopeSet,
    /// How it is refused.
    pub denial: Denial,
    /// Where it may lead, and with which scopes.
    pub downstreams: BTreeMap<EntryName, ScopeSet>,
    /// What calls with certain arguments need besides, by name.
    pub conditions: Vec<ConditionDocument>,
}

/// One downstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamRow {
    /// Origin with base path.
    pub url: String,
    /// Authorities that may vouch for it.
    pub ca_bundle: Option<String>,
    /// The audience of its tokens.
    pub audience: Audience,
    /// Scopes that may be asked at most; none: what the tools name.
    pub ceiling: Option<ScopeSet>,
    /// Seconds.
    pub max_token_lifetime: u32,
}

/// Checks a catalogue.
///
/// # Errors
/// The first thing that cannot be right, with what to change.
pub fn check(catalog: &ScopeCatalog) -> Result<Catalog, Problem> {
    let spec = &catalog.spec;
    let scopes = collect(&spec.scopes, "spec.scopes", scope_row)?;
    for (name, row) in &scopes {
        if let Some(unknown) = row.implies.iter().find(|implied| !scopes.contains_key(*implied)) {
            return Err(unknown_scope(&format!("Scope {name} implies {unknown}"), unknown));
        }
    }
    if let Some(circle) = circle(&scopes) {
        return Err(Problem::new(
            AcceptedReason::ScopeCycle,
            format!("Scopes imply each other in a circle: {circle}. Remove one of these from implies."),
        ));
    }
    let downstreams = collect(&spec.downstreams, "spec.downstreams", downstream_row)?;
    let mut tool_sets = BTreeMap::new();
    for set in &spec.tool_sets {
        let at = format!("tool set {}", set.name);
        let tools = collect(&set.tools, &at, tool_row)?;
        for (name, tool) in &tools {
            let who = format!("Tool {name} of {at}");
            check_row(&who, &tool.scopes, &tool.downstreams, &scopes, &downstreams)?;
            requirement::check(&who, &tool.conditions, &scopes)?;
        }
        let rows = ToolSetRow { tools, ..rows::read(set, &at, &scopes, &downstreams)? };
        if tool_sets.insert(set.name.clone(), rows).is_some() {
            return Err(twice("spec.toolSets", &set.name));
        }
    }
    Ok(Catalog { scopes, tool_sets, downstreams })
}

/// What the catalogue's status says.
#[must_use]
pub fn catalog_status(
    catalog: &ScopeCatalog,
    previous: Option<&ScopeCatalogStatus>,
    now: &Time,
) -> ScopeCatalogStatus {
    let generation = catalog.metadata.generation;
    let spec = &catalog.spec;
    let (accepted, ready) = match check(catalog) {
        Ok(_) => {
            let message = if nobody_may_use(&spec.allowed_namespaces) {
                "Valid, but no namespace may use it. Set spec.allowedNamespaces."
            } else {
                "Valid."
            };
            let ready = ConditionIntent::new(ReadyReason::Ready, "Identities are judged by this catalogue.");
            (Problem::new(AcceptedReason::Accepted, message), ready)
        }
        Err(problem) => {
            let message = format!("{} Identities keep their last good bundle until then.", problem.message);
            let ready = ConditionIntent::new(ReadyReason::NotAccepted, message);
            (problem, ready)
        }
    };
    let mut conditions = previous.map(|status| status.conditions.clone()).unwrap_or_default();
    accepted.set(&mut conditions, generation, now);
    ready.set(&mut conditions, generation, now);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    ScopeCatalogStatus {
        observed_generation: generation,
        counts: Some(CatalogCounts {
            scopes: count(spec.scopes.len()),
            tools: count(spec.tool_sets.iter().map(|set| set.tools.len()).sum()),
            downstreams: count(spec.downstreams.len()),
        }),
        conditions,
    }
}

/// Whether access is closed for everyone.
pub(crate) fn nobody_may_use(access: &NamespaceAccess) -> bool {
    access.from == crds::NamespaceSource::None
}

/// Rows by name; the same name twice is a problem.
fn collect<T, K: Ord + std::fmt::Display, V>(
    rows: &[T],
    at: &str,
    read: impl Fn(&T, &str) -> Result<(K, V), Problem>,
) -> Result<BTreeMap<K, V>, Problem> {
    let mut found = BTreeMap::new();
    for row in rows {
        let (name, row) = read(row, at)?;
        if found.contains_key(&name) {
            return Err(twice(at, &name.to_string()));
        }
        found.insert(name, row);
    }
    Ok(found)
}

fn scope_row(scope: &crds::CatalogScope, at: &str) -> Result<(Scope, ScopeRow), Problem> {
    let name = scope_name(&scope.name, at)?;
    let groups =
        scope.holders.groups.iter().map(|group| Group::new(group.clone()).map_err(|_| unreadable(at, group)));
    let row = ScopeRow {
        groups: groups.collect::<Result<_, _>>()?,
        implies: scope_set(&scope.implies, at)?,
        assurance: scope.assurance.as_ref().map(requirement::assurance),
    };
    Ok((name, row))
}

fn tool_row(tool: &crds::Tool, at: &str) -> Result<(ToolName, ToolRow), Problem> {
    let name = ToolName::new(tool.name.clone()).map_err(|_| {
        invalid(format!(
            "Tool {} of {at} has a name that MCP does not allow. Use letters, digits, hyphen, underscore and dot.",
            tool.name
        ))
    })?;
    let at = format!("tool {name} of {at}");
    let row = ToolRow {
        scopes: some_scopes(&tool.scopes, &at)?,
        denial: denial(tool.denial),
        downstreams: leads(&tool.downstreams, &at)?,
        conditions: requirement::conditions(&tool.conditions, &at)?,
    };
    Ok((name, row))
}

fn denial(denial: crds::Denial) -> Denial {
    match denial {
        crds::Denial::Explain => Denial::Explain,
        crds::Denial::Hide => Denial::Hide,
    }
}

fn leads(rows: &[crds::ToolDownstream], at: &str) -> Result<BTreeMap<EntryName, ScopeSet>, Problem> {
    collect(rows, at, |downstream, at| {
        let name = entry_name(&downstream.name, at)?;
        Ok((name, some_scopes(&downstream.scopes, &format!("{at} at downstream {}", downstream.name))?))
    })
}

fn downstream_row(
    downstream: &crds::CatalogDownstream,
    at: &str,
) -> Result<(EntryName, DownstreamRow), Problem> {
    let name = entry_name(&downstream.name, at)?;
    let http = match (downstream.type_, &downstream.http) {
        (crds::DownstreamType::Http, Some(http)) => http,
        (crds::DownstreamType::Http, None) => {
            return Err(invalid(format!("Downstream {name} says not where it is. Set its http.origin.")));
        }
    };
    if let Err(cause) = net::destination(&http.origin) {
        return Err(invalid(format!(
            "Downstream {name}: {} {cause}. Set http.origin to an https URL outside the pod.",
            http.origin
        )));
    }
    if let Some(Err(cause)) = http.ca_bundle.as_deref().map(pem::check) {
        return Err(Problem::new(
            AcceptedReason::InvalidCABundle,
            format!("The http.caBundle of downstream {name} {cause}. Put the PEM of its authority there."),
        ));
    }
    let [audience] = downstream.audiences.as_slice() else {
        return Err(invalid(format!(
            "Downstream {name} has not exactly one audience. Leave the one its tokens are made for in audiences."
        )));
    };
    let audience = Audience::new(audience.clone()).map_err(|_| unreadable(at, audience))?;
    let ceiling = match &downstream.scopes {
        None => None,
        Some(scopes) => Some(some_scopes(scopes, &format!("downstream {name}"))?),
    };
    let row = DownstreamRow {
        url: http.origin.clone(),
        ca_bundle: http.ca_bundle.clone(),
        audience,
        ceiling,
        max_token_lifetime: lifetime(downstream.max_token_lifetime, &format!("downstream {name}"))?,
    };
    Ok((name, row))
}

fn check_row(
    who: &str,
    needs: &ScopeSet,
    leads: &BTreeMap<EntryName, ScopeSet>,
    scopes: &BTreeMap<Scope, ScopeRow>,
    downstreams: &BTreeMap<EntryName, DownstreamRow>,
) -> Result<(), Problem> {
    if let Some(unknown) = needs.iter().find(|scope| !scopes.contains_key(*scope)) {
        return Err(unknown_scope(&format!("{who} needs {unknown}"), unknown));
    }
    for (name, asked) in leads {
        let Some(downstream) = downstreams.get(name) else {
            return Err(Problem::new(
                AcceptedReason::UnknownDownstream,
                format!(
                    "{who} leads to {name}, which is not in spec.downstreams. Add it there, or remove it from the tool."
                ),
            ));
        };
        let above = downstream
            .ceiling
            .as_ref()
            .and_then(|ceiling| asked.iter().find(|scope| !ceiling.contains(*scope)));
        if let Some(above) = above {
            return Err(Problem::new(
                AcceptedReason::ScopeAboveCeiling,
                format!(
                    "{who} asks {above} at {name}, beyond the scopes of that downstream. Add it to its scopes, or remove it from the tool."
                ),
            ));
        }
    }
    Ok(())
}

/// A circle of implied scopes, written as `a -> b -> a`.
fn circle(scopes: &BTreeMap<Scope, ScopeRow>) -> Option<String> {
    let mut done = BTreeSet::new();
    scopes.keys().find_map(|start| walk(start, scopes, &mut Vec::new(), &mut done))
}

fn walk<'a>(
    at: &'a Scope,
    scopes: &'a BTreeMap<Scope, ScopeRow>,
    path: &mut Vec<&'a Scope>,
    done: &mut BTreeSet<&'a Scope>,
) -> Option<String> {
    if let Some(place) = path.iter().position(|seen| *seen == at) {
        let names = path.iter().skip(place).copied().chain([at]).map(Scope::as_str);
        return Some(names.collect::<Vec<_>>().join(" -> "));
    }
    if done.contains(at) {
        return None;
    }
    path.push(at);
    let found = scopes.get(at)?.implies.iter().find_map(|next| walk(next, scopes, path, done));
    path.pop();
    done.insert(at);
    found
}

pub(crate) fn scope_set(names: &[String], at: &str) -> Result<ScopeSet, Problem> {
    names.iter().map(|name| scope_name(name, at)).collect()
}

fn some_scopes(names: &[String], at: &str) -> Result<ScopeSet, Problem> {
    if names.is_empty() {
        return Err(invalid(format!("The list of scopes of {at} is empty. Name at least one.")));
    }
    scope_set(names, at)
}

fn scope_name(name: &str, at: &str) -> Result<Scope, Problem> {
    Scope::new(name).map_err(|_| unreadable(at, name))
}

pub(crate) fn entry_name(name: &str, at: &str) -> Result<EntryName, Problem> {
    EntryName::new(name).map_err(|_| unreadable(at, name))
}

/// Seconds of a token life, within what a sidecar takes.
pub(crate) fn lifetime(life: crds::Duration, at: &str) -> Result<u32, Problem> {
    match u32::try_from(life.as_secs()) {
        Ok(seconds) if (1..=MAX_TOKEN_LIFETIME).contains(&seconds) => Ok(seconds),
        _ => Err(invalid(format!("maxTokenLifetime of {at} is {life}. Set it between 30s and 1h."))),
    }
}

pub(crate) fn invalid(message: String) -> Problem {
    Problem::new(AcceptedReason::Invalid, message)
}

pub(crate) fn unreadable(at: &str, name: &str) -> Problem {
    invalid(format!(
        "{name:?} in {at} is too long, empty, or holds characters that are not allowed there. Correct it."
    ))
}

fn unknown_scope(who: &str, unknown: &Scope) -> Problem {
    Problem::new(
        AcceptedReason::UnknownScope,
        format!(
            "{who}, which is not in spec.scopes. Add {unknown} there with its holders, or remove it here."
        ),
    )
}

pub(crate) fn twice(at: &str, name: &str) -> Problem {
    invalid(format!("{name} is twice in {at}. Remove one of them."))
}
