//! The policy document of an identity that nothing forbids.

use std::collections::{BTreeMap, BTreeSet};

use behalf_crds::v1alpha1::{self as crds, AcceptedReason, AgentIdentity};
use behalf_policy::bundle::document::{
    CallerKind, CallersDocument, Carrier, DownstreamDocument, FORMAT, PolicyDocument, ScopeChallenge,
    ScopeDocument, ServerDocument, ToolDocument, ToolDownstream,
};
use behalf_policy::bundle::load::MAX_HANDLE_GRACE;
use behalf_policy::bundle::provider::ProviderDocument;
use behalf_policy::bundle::rows::{RouteDocument, Timeouts};
use behalf_policy::bundle::signed::MAX_BYTES;
use behalf_policy::bundle::tls::{ClientCertificates, ClientValidation, TlsRules};
use behalf_policy::bundle::{Bundle, Document, Host, Protocol, Serve, Stage, State};
use behalf_policy::ids::{Audience, ClientId, EntryName, Scope, ScopeSet, ToolName};

use super::Resolved;
use super::rate::rate_limits;
use crate::catalog::{Catalog, ScopeRow, ToolRow, ToolSetRow, entry_name, invalid, scope_set, unreadable};
use crate::conditions::ConditionIntent;
use crate::digest;

type Problem = ConditionIntent<AcceptedReason>;

/// Room for the envelope and its signatures around the payload.
const ENVELOPE_BYTES: usize = 8 * 1024;

/// Writes the policy of an identity whose references all resolved and that nothing forbids.
///
/// What comes out loads: it was loaded.
///
/// # Errors
/// Whatever a sidecar would not take, as something that is wrong with the identity.
pub fn policy(identity: &AgentIdentity, resolved: &Resolved) -> Result<PolicyDocument, Problem> {
    let catalog = resolved.catalog.as_ref().ok_or_else(|| invalid("There is no catalogue.".to_owned()))?;
    let spec = &identity.spec;
    let [server] = spec.servers.as_slice() else {
        return Err(invalid("An identity has exactly one server.".to_owned()));
    };
    let listed = spec.downstreams.iter().map(|entry| entry.name.as_str()).collect();
    let rows = catalog
        .tool_sets
        .get(&server.tool_set)
        .ok_or_else(|| invalid(format!("There is no tool set {}.", server.tool_set)))?;
    let server = server_document(server, rows, &listed)?;
    let required = scope_set(&spec.scopes.required, "spec.scopes.required")?;
    let optional = scope_set(&spec.scopes.optional, "spec.scopes.optional")?;
    let needed = scopes_of(&server).chain(&required).chain(&optional);
    let scopes = scopes(catalog, &needed.cloned().collect());
    let downstreams = downstreams(catalog, identity)?;
    let mut document = PolicyDocument {
        state: match spec.state {
            crds::State::Active => State::Active,
            crds::State::Suspended => State::Suspended,
        },
        stage: stage(spec.rollout.stage),
        authentication: stage(spec.rollout.authentication),
        catalog_revision: String::new(),
        servers: vec![server],
        providers: providers(identity, resolved)?,
        scopes,
        required_scopes: required,
        optional_scopes: optional,
        scope_challenge: match spec.scopes.challenge {
            crds::ScopeChallenge::Operation => ScopeChallenge::Operation,
            crds::ScopeChallenge::Cumulative => ScopeChallenge::Cumulative,
        },
        callers: callers(&spec.callers)?,
        downstreams,
        rate_limits: rate_limits(&spec.rate_limits)?,
    };
    let rows = document.servers.first().map(|s| (&s.tools, &s.prompts, &s.resources, &s.routes));
    document.catalog_revision = digest::short(&(rows, &document.scopes, &document.downstreams));
    check_loads(&document)?;
    Ok(document)
}

/// The scopes that the server's rows name.
fn scopes_of(server: &ServerDocument) -> impl Iterator<Item = &Scope> {
    let tools = server.tools.iter().map(|row| &row.scopes);
    let conditions = server.tools.iter().flat_map(|row| &row.conditions).map(|row| &row.scopes);
    let prompts = server.prompts.iter().map(|row| &row.scopes);
    let resources = server.resources.iter().map(|row| &row.scopes);
    let routes = server.routes.iter().map(|row| &row.scopes);
    tools.chain(conditions).chain(prompts).chain(resources).chain(routes).flatten()
}

/// A route of the set; where it leads is cut to what the identity lists.
fn route(row: &RouteDocument, listed: &BTreeSet<&str>) -> RouteDocument {
    let mut row = row.clone();
    row.downstreams.retain(|downstream| listed.contains(downstream.name.as_str()));
    row
}

fn tool(name: &ToolName, row: &ToolRow, listed: &BTreeSet<&str>) -> ToolDocument {
    let leads_to = row.downstreams.iter().filter(|(name, _)| listed.contains(name.as_str()));
    ToolDocument {
        name: name.clone(),
        scopes: row.scopes.clone(),
        denial: row.denial,
        downstreams: leads_to
            .map(|(name, scopes)| ToolDownstream { name: name.clone(), scopes: scopes.clone() })
            .collect(),
        conditions: row.conditions.clone(),
    }
}

/// The scopes that can bear on a decision: those needed, whatever implies one of them, and what all these imply.
///
/// The wider scope has to be there: a caller who presents only it presents the narrower one as well.
fn scopes(catalog: &Catalog, needed: &ScopeSet) -> Vec<ScopeDocument> {
    let mut above: BTreeMap<&Scope, Vec<&Scope>> = BTreeMap::new();
    for (wide, row) in &catalog.scopes {
        for narrow in &row.implies {
            above.entry(narrow).or_default().push(wide);
        }
    }
    let up = closure(needed, |scope| above.get(scope).cloned().unwrap_or_default());
    let all = closure(&up, |scope| {
        catalog.scopes.get(scope).map(|row| row.implies.iter().collect()).unwrap_or_default()
    });
    let rows = all.iter().filter_map(|name| catalog.scopes.get(name).map(|row| (name, row)));
    rows.map(|(name, row): (&Scope, &ScopeRow)| ScopeDocument {
        name: name.clone(),
        groups: row.groups.clone(),
        implies: row.implies.clone(),
        assurance: row.assurance.clone(),
    })
    .collect()
}

fn closure<'a>(start: &ScopeSet, next: impl Fn(&Scope) -> Vec<&'a Scope>) -> ScopeSet {
    let mut found = ScopeSet::new();
    let mut open: Vec<Scope> = start.iter().cloned().collect();
    while let Some(scope) = open.pop() {
        if found.insert(scope.clone()) {
            open.extend(next(&scope).into_iter().cloned());
        }
    }
    found
}

fn downstreams(catalog: &Catalog, identity: &AgentIdentity) -> Result<Vec<DownstreamDocument>, Problem> {
    let rows = identity.spec.downstreams.iter().map(|entry| {
        let name: EntryName = entry_name(&entry.name, "spec.downstreams")?;
        let row = catalog
            .downstreams
            .get(&name)
            .ok_or_else(|| invalid(format!("There is no downstream {name}.")))?;
        // As whom and by whom it is called has one meaning each so far; a new one must be written here.
        match (entry.subject, entry.actor) {
            (crds::Subject::Caller, crds::Actor::None) => {}
        }
        Ok(DownstreamDocument {
            provider: entry_name(&entry.identity_provider, "spec.downstreams")?,
            url: row.url.clone(),
            ca_bundle: row.ca_bundle.clone(),
            audience: row.audience.clone(),
            scope_ceiling: row.ceiling.clone().unwrap_or_default(),
            max_token_lifetime: row.max_token_lifetime,
            name,
        })
    });
    // The order of lists in objects means nothing, so it makes no new bundle either.
    let mut rows = rows.collect::<Result<Vec<_>, Problem>>()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn providers(identity: &AgentIdentity, resolved: &Resolved) -> Result<Vec<ProviderDocument>, Problem> {
    let rows = identity.spec.identity_providers.iter().map(|client| {
        let provider = resolved
            .providers
            .get(&client.name)
            .ok_or_else(|| invalid(format!("There is no provider {}.", client.name)))?;
        let id = &client.client.id;
        let id = ClientId::new(id.clone()).map_err(|_| unreadable("spec.identityProviders", id))?;
        let audiences = client.audiences.iter().map(|audience| {
            let at = "spec.identityProviders";
            Audience::new(audience.clone()).map_err(|_| unreadable(at, audience))
        });
        let audiences = audiences.collect::<Result<_, Problem>>()?;
        Ok(provider.document(id, client.client.authentication.type_, audiences))
    });
    let mut rows = rows.collect::<Result<Vec<_>, Problem>>()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// The server with the rows of its set; where they lead is cut to what the identity lists.
fn server_document(
    server: &crds::Server,
    rows: &ToolSetRow,
    listed: &BTreeSet<&str>,
) -> Result<ServerDocument, Problem> {
    Ok(ServerDocument {
        name: entry_name(&server.name, "spec.servers")?,
        url: Audience::new(server.url.clone()).map_err(|_| unreadable("spec.servers", &server.url))?,
        port: u16::try_from(server.port).map_err(|_| unreadable("spec.servers", &server.port.to_string()))?,
        host: match server.host {
            crds::HostHeader::Loopback => Host::Loopback,
            crds::HostHeader::Keep => Host::Keep,
        },
        carriers: server
            .handle
            .carriers
            .iter()
            .map(|carrier| match carrier {
                crds::Carrier::Authorization => Carrier::Authorization,
                crds::Carrier::Meta => Carrier::Meta,
                crds::Carrier::Header => Carrier::Header,
            })
            .collect(),
        handle_grace: handle_grace(server)?,
        protocol: match server.protocol {
            crds::Protocol::Mcp => Protocol::Mcp,
            crds::Protocol::Http => Protocol::Http,
        },
        allowed_origins: server.allowed_origins.iter().cloned().collect(),
        timeouts: timeouts(&server.timeouts)?,
        tls: server.tls.as_ref().map(tls),
        tools: rows.tools.iter().map(|(name, row)| tool(name, row, listed)).collect(),
        prompts: rows.prompts.values().cloned().collect(),
        resources: rows.resources.values().cloned().collect(),
        routes: rows.routes.values().map(|row| route(row, listed)).collect(),
    })
}

/// The part of it that sidecars are told by their bundle: a change of it needs no restart.
fn tls(tls: &crds::ServerTls) -> TlsRules {
    TlsRules {
        client_certificates: match tls.client_certificates {
            crds::ClientCertificates::Ignored => ClientCertificates::Ignored,
            crds::ClientCertificates::Requested => ClientCertificates::Requested,
            crds::ClientCertificates::Required => ClientCertificates::Required,
        },
        client_validation: tls.client_validation.as_ref().map(|validation| ClientValidation {
            ca_bundle: validation.ca_bundle.clone(),
            spiffe_trust_domain: validation.spiffe_trust_domain.clone(),
        }),
    }
}

/// Whole seconds; loading holds them to their bounds.
fn timeouts(timeouts: &crds::Timeouts) -> Result<Timeouts, Problem> {
    let seconds = |duration: crds::Duration| {
        u32::try_from(duration.as_secs()).map_err(|_| unreadable("spec.servers", &duration.to_string()))
    };
    let or_none = |duration: Option<crds::Duration>| duration.map_or(Ok(0), seconds);
    Ok(Timeouts {
        body: seconds(timeouts.body)?,
        response: seconds(timeouts.response)?,
        stream_idle: or_none(timeouts.stream_idle)?,
        stream: or_none(timeouts.stream)?,
    })
}

/// Whole seconds; the schema holds it to its bound, and so does this.
pub(super) fn handle_grace(server: &crds::Server) -> Result<u32, Problem> {
    let Some(grace) = server.handle.grace else { return Ok(0) };
    match u32::try_from(grace.as_secs()) {
        Ok(seconds) if seconds <= MAX_HANDLE_GRACE => Ok(seconds),
        _ => Err(invalid(format!(
            "handle.grace of server {} is {grace}. Set it to {MAX_HANDLE_GRACE}s or less.",
            server.name
        ))),
    }
}

/// An identity that says nothing of actors takes any client and nobody in between; one that lists none takes none.
fn callers(callers: &crds::Callers) -> Result<CallersDocument, Problem> {
    let kinds = callers.kinds.iter().map(|kind| match kind {
        crds::CallerKind::User => CallerKind::User,
        crds::CallerKind::Workload => CallerKind::Workload,
    });
    let at = "spec.callers.actors";
    let client = |id: &String| ClientId::new(id.clone()).map_err(|_| unreadable(at, id));
    let (clients, depth) = match &callers.actors {
        None => (None, 0),
        Some(actors) => {
            (Some(actors.allowed.iter().map(client).collect::<Result<_, _>>()?), actors.max_depth)
        }
    };
    let max_actor_depth = u8::try_from(depth).map_err(|_| unreadable(at, &depth.to_string()))?;
    Ok(CallersDocument { kinds: kinds.collect(), clients, max_actor_depth })
}

pub(super) fn stage(stage: crds::Stage) -> Stage {
    match stage {
        crds::Stage::Audit => Stage::Audit,
        crds::Stage::Enforce => Stage::Enforce,
    }
}

/// A sidecar would refuse what does not load, and a `ConfigMap` what does not fit.
fn check_loads(policy: &PolicyDocument) -> Result<(), Problem> {
    let document = Document {
        format: FORMAT,
        namespace: String::new(),
        identity: String::new(),
        serial: u64::MAX,
        feed: None,
        record_salt: None,
        serve: Serve::Policy(Box::new(policy.clone())),
    };
    let payload =
        serde_json::to_vec(&document).map_err(|_| invalid("The policy cannot be written.".to_owned()))?;
    let written = payload.len().div_ceil(3).saturating_mul(4).saturating_add(ENVELOPE_BYTES);
    if written > MAX_BYTES {
        return Err(Problem::new(
            AcceptedReason::TooLarge,
            format!(
                "The compiled policy would have {written} bytes, and a bundle has at most {MAX_BYTES}. Split the tool set, or shorten the CA bundles of its downstreams and providers."
            ),
        ));
    }
    Bundle::load(document, String::new()).map(drop).map_err(|error| {
        invalid(format!("What the objects say cannot be used by a sidecar: {error}. Correct it in the identity, its catalogue or its providers."))
    })
}
