//! From a document to a bundle: every reference resolved, every bound checked, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::document::{
    ConditionDocument, Document, DownstreamDocument, FORMAT, FeedDocument, PolicyDocument, Serve,
    ServerDocument, ToolDownstream,
};
use super::rows::{prompts_of, resources_of, routes_of};
use super::tokens::{MAX_PROOF_AGE, MIN_PROOF_AGE};
use super::{
    Bundle, Callers, ClientAuthentication, Condition, Downstream, Flavor, IntrospectionRule, Loaded, Policy,
    Provider, ScopeRule, Server, TlsRules, Tool,
};
use crate::condition::{ConditionError, Expression};
use crate::deny::DenyList;
use crate::ids::{EntryName, ScopeSet, ToolName};

/// Clock differences above this are refused, seconds (A12).
pub const MAX_CLOCK_SKEW: u32 = 60;
/// No exchanged token may be allowed to live longer than this, seconds.
pub const MAX_TOKEN_LIFETIME: u32 = 3600;
/// No answer of an introspection may be gone by for longer than this, seconds.
pub const MAX_INTROSPECTION_AGE: u32 = 300;
/// No handle may outlive the response of its call by more than this, seconds.
pub const MAX_HANDLE_GRACE: u32 = 30;

/// Why a document is not loaded. Names are the operator's own, never a caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A format this build does not read.
    #[error("format {0} is not {FORMAT}")]
    Format(u32),
    /// The identity or namespace is not the one this sidecar serves.
    #[error("the bundle is of another identity")]
    OtherIdentity,
    /// Not exactly one server.
    #[error("a bundle has exactly one server")]
    Servers,
    /// Two entries of one list have one name.
    #[error("two entries are named {0}")]
    Duplicate(String),
    /// An entry names one that is not there.
    #[error("{0} is not defined")]
    Undefined(String),
    /// A URL that cannot be used for what it is there for.
    #[error("{0} is not a usable URL")]
    Url(String),
    /// A row whose pattern names nothing, or more than it seems to.
    #[error("the pattern of {0} is not usable")]
    Pattern(String),
    /// A number outside its bounds.
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
    /// A list that must not be empty.
    #[error("{0} is empty")]
    Empty(String),
    /// A condition on arguments that cannot be read.
    #[error("condition {name}: {source}")]
    Condition {
        /// Its row.
        name: String,
        /// Why.
        source: ConditionError,
    },
    /// A tool asks more of a downstream than its ceiling.
    #[error("{0} asks a scope beyond the ceiling of its downstream")]
    BeyondCeiling(String),
}

impl LoadError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "BundleFormat",
            Self::OtherIdentity => "BundleOfAnotherIdentity",
            _ => "BundleInvalid",
        }
    }
}

impl Bundle {
    /// Resolves and indexes a document. `digest` names the signed bytes it came from.
    ///
    /// # Errors
    /// When anything in it is unresolved, doubled or out of bounds: then nothing of it is used.
    pub fn load(document: Document, digest: String) -> Result<Self, LoadError> {
        if document.format != FORMAT {
            return Err(LoadError::Format(document.format));
        }
        let serve = match document.serve {
            Serve::RefuseAll { reason } => Loaded::RefuseAll(reason),
            Serve::Policy(policy) => Loaded::Policy(Box::new(policy_of(*policy)?)),
        };
        Ok(Self {
            namespace: document.namespace,
            identity: document.identity,
            serial: document.serial,
            digest,
            feed: document.feed.map(feed_of).transpose()?,
            record_salt: document.record_salt.filter(|salt| !salt.is_empty()).map(Into::into),
            deny: DenyList::default(),
            serve,
        })
    }
}

fn feed_of(feed: FeedDocument) -> Result<FeedDocument, LoadError> {
    let usable = Url::parse(&feed.origin).is_ok_and(|url| {
        url.scheme() == "https" && url.host_str().is_some() && url.path() == "/" && url.query().is_none()
    });
    if usable { Ok(feed) } else { Err(LoadError::Url("feed".to_owned())) }
}

fn policy_of(document: PolicyDocument) -> Result<Policy, LoadError> {
    let mut scopes = BTreeMap::new();
    for scope in document.scopes {
        let rule = ScopeRule { groups: scope.groups, implies: scope.implies, assurance: scope.assurance };
        if scopes.insert(scope.name.clone(), rule).is_some() {
            return Err(LoadError::Duplicate(scope.name.to_string()));
        }
    }
    let mut providers = BTreeMap::new();
    let mut issuers = BTreeMap::new();
    let mut trust_domains = BTreeSet::new();
    for provider in document.providers {
        let name = provider.name.clone();
        check_provider(&provider)?;
        if let Some(domain) = &provider.tokens.trust_domain
            && !trust_domains.insert(domain.clone())
        {
            return Err(LoadError::Duplicate(domain.clone()));
        }
        if issuers.insert(provider.issuer.clone(), name.clone()).is_some() {
            return Err(LoadError::Duplicate(provider.issuer.to_string()));
        }
        if providers.insert(name.clone(), provider).is_some() {
            return Err(LoadError::Duplicate(name.to_string()));
        }
    }
    if providers.is_empty() {
        return Err(LoadError::Empty("providers".to_owned()));
    }
    let mut downstreams = BTreeMap::new();
    let mut ceilings = BTreeMap::new();
    for downstream in document.downstreams {
        let name = downstream.name.clone();
        if !providers.contains_key(&downstream.provider) {
            return Err(LoadError::Undefined(downstream.provider.to_string()));
        }
        ceilings.insert(name.clone(), downstream.scope_ceiling.clone());
        if downstreams.insert(name.clone(), downstream_of(downstream)?).is_some() {
            return Err(LoadError::Duplicate(name.to_string()));
        }
    }
    let defined = |set: &ScopeSet| match set.iter().find(|s| !scopes.contains_key(*s)) {
        Some(missing) => Err(LoadError::Undefined(missing.to_string())),
        None => Ok(()),
    };
    defined(&document.required_scopes)?;
    defined(&document.optional_scopes)?;
    for rule in scopes.values() {
        defined(&rule.implies)?;
    }
    let mut servers = document.servers.into_iter();
    let (Some(server), None) = (servers.next(), servers.next()) else { return Err(LoadError::Servers) };
    let server = server_of(server, &ceilings)?;
    let patterned =
        server.resources.iter().map(|row| &row.needs).chain(server.routes.iter().map(|r| &r.needs));
    for row in server.tools.values().chain(server.prompts.values()).chain(patterned) {
        defined(&row.scopes)?;
        for condition in &row.conditions {
            defined(&condition.scopes)?;
        }
    }
    let offered = document.required_scopes.union(&document.optional_scopes).cloned().collect();
    if document.callers.kinds.is_empty() {
        return Err(LoadError::Empty("callers".to_owned()));
    }
    crate::rate::check(&document.rate_limits)?;
    Ok(Policy {
        state: document.state,
        stage: document.stage,
        authentication: document.authentication,
        catalog_revision: document.catalog_revision,
        server,
        providers,
        issuers,
        scopes,
        required: document.required_scopes,
        offered,
        scope_challenge: document.scope_challenge,
        callers: Callers {
            kinds: document.callers.kinds,
            clients: document.callers.clients,
            max_actor_depth: document.callers.max_actor_depth,
        },
        downstreams,
        rate_limits: document.rate_limits,
    })
}

fn check_provider(p: &Provider) -> Result<(), LoadError> {
    https(p.issuer.as_str())?;
    for endpoint in [&p.token_endpoint, &p.jwks_uri].into_iter().flatten() {
        https(endpoint)?;
    }
    if p.clock_skew > MAX_CLOCK_SKEW {
        return Err(LoadError::Bounds("clockSkew"));
    }
    if p.max_token_lifetime == 0 || p.max_token_lifetime > MAX_TOKEN_LIFETIME {
        return Err(LoadError::Bounds("maxTokenLifetime"));
    }
    if p.algorithms.is_empty() {
        return Err(LoadError::Empty("algorithms".to_owned()));
    }
    if !p.groups_claim.starts_with('/') {
        return Err(LoadError::Bounds("groupsClaim"));
    }
    check_rules(p)
}

/// What a provider's row says of its tokens can be read in one way only.
fn check_rules(p: &Provider) -> Result<(), LoadError> {
    let rules = &p.tokens;
    let pointers =
        rules.scopes.iter().map(|s| &s.claim).chain(rules.required_claims.iter().map(|c| &c.claim));
    if pointers.into_iter().any(|pointer| !pointer.starts_with('/')) {
        return Err(LoadError::Bounds("claim"));
    }
    if (p.flavor == Flavor::Spiffe) != rules.trust_domain.is_some() {
        return Err(LoadError::Bounds("trustDomain"));
    }
    if !(MIN_PROOF_AGE..=MAX_PROOF_AGE).contains(&rules.sender_constraint.max_age) {
        return Err(LoadError::Bounds("senderConstraint.dpop.maxAge"));
    }
    let introspection = &p.introspection;
    if let Some(endpoint) = &introspection.endpoint {
        https(endpoint)?;
    }
    if introspection.cache_ttl > MAX_INTROSPECTION_AGE {
        return Err(LoadError::Bounds("introspection.cacheTTL"));
    }
    let asks = introspection.rule != IntrospectionRule::Never;
    if asks && p.client_authentication == ClientAuthentication::None {
        return Err(LoadError::Empty(format!("client authentication at {}", p.name)));
    }
    Ok(())
}

fn downstream_of(d: DownstreamDocument) -> Result<Downstream, LoadError> {
    let url = https(&d.url)?;
    if d.max_token_lifetime == 0 || d.max_token_lifetime > MAX_TOKEN_LIFETIME {
        return Err(LoadError::Bounds("maxTokenLifetime"));
    }
    if crate::raw_path::check(url.path()).is_err() {
        return Err(LoadError::Url(d.url));
    }
    Ok(Downstream {
        origin: url.origin().ascii_serialization(),
        base_path: url.path().trim_end_matches('/').to_owned(),
        ca_bundle: d.ca_bundle,
        audience: d.audience,
        provider: d.provider,
        max_token_lifetime: d.max_token_lifetime,
    })
}

fn server_of(s: ServerDocument, ceilings: &BTreeMap<EntryName, ScopeSet>) -> Result<Server, LoadError> {
    let url = plain_url(s.url.as_str()).ok_or_else(|| LoadError::Url(s.url.to_string()))?;
    if s.port == 0 {
        return Err(LoadError::Bounds("port"));
    }
    if s.handle_grace > MAX_HANDLE_GRACE {
        return Err(LoadError::Bounds("handleGrace"));
    }
    if s.carriers.is_empty() {
        return Err(LoadError::Empty("carriers".to_owned()));
    }
    let mut tools = BTreeMap::new();
    for tool in s.tools {
        let name = tool.name.clone();
        if tool.scopes.is_empty() {
            return Err(LoadError::Empty(format!("scopes of {name}")));
        }
        let downstreams = downstreams_of(name.as_str(), tool.downstreams, ceilings)?;
        let conditions = conditions_of(&name, tool.conditions)?;
        let tool = Tool { scopes: tool.scopes, denial: tool.denial, downstreams, conditions };
        if tools.insert(name.clone(), tool).is_some() {
            return Err(LoadError::Duplicate(name.to_string()));
        }
    }
    if let Some(origin) = s.allowed_origins.iter().find(|origin| !is_origin(origin)) {
        return Err(LoadError::Url(origin.clone()));
    }
    Ok(Server {
        name: s.name,
        protocol: s.protocol,
        path: url.path().to_owned(),
        origin: url.origin().ascii_serialization(),
        url: s.url,
        port: s.port,
        host: s.host,
        carriers: s.carriers,
        handle_grace: s.handle_grace,
        allowed_origins: s.allowed_origins,
        timeouts: s.timeouts.check()?,
        tls: s.tls.map(|tls| tls_of(tls, &url)).transpose()?,
        tools,
        prompts: prompts_of(s.prompts)?,
        resources: resources_of(s.resources)?,
        routes: routes_of(s.routes, ceilings)?,
    })
}

/// TLS is for callers who come by https.
fn tls_of(tls: TlsRules, url: &Url) -> Result<TlsRules, LoadError> {
    if url.scheme() != "https" {
        return Err(LoadError::Url(url.to_string()));
    }
    tls.check()
}

/// Every expression is read here, once.
fn conditions_of(tool: &ToolName, rows: Vec<ConditionDocument>) -> Result<Vec<Condition>, LoadError> {
    let mut conditions: Vec<Condition> = Vec::with_capacity(rows.len());
    for row in rows {
        if conditions.iter().any(|known| known.name == row.name) {
            return Err(LoadError::Duplicate(format!("{} of {tool}", row.name)));
        }
        let when = Expression::compile(&row.when)
            .map_err(|source| LoadError::Condition { name: row.name.to_string(), source })?;
        conditions.push(Condition { name: row.name, when, scopes: row.scopes, groups: row.groups });
    }
    Ok(conditions)
}

/// Where a row may lead, within the ceilings.
pub(super) fn downstreams_of(
    row: &str,
    leads: Vec<ToolDownstream>,
    ceilings: &BTreeMap<EntryName, ScopeSet>,
) -> Result<BTreeMap<EntryName, ScopeSet>, LoadError> {
    let mut downstreams = BTreeMap::new();
    for d in leads {
        let Some(ceiling) = ceilings.get(&d.name) else {
            return Err(LoadError::Undefined(d.name.to_string()));
        };
        if d.scopes.is_empty() {
            return Err(LoadError::Empty(format!("scopes of {row} at {}", d.name)));
        }
        if !ceiling.is_empty() && !d.scopes.is_subset(ceiling) {
            return Err(LoadError::BeyondCeiling(row.to_owned()));
        }
        if downstreams.insert(d.name.clone(), d.scopes).is_some() {
            return Err(LoadError::Duplicate(d.name.to_string()));
        }
    }
    Ok(downstreams)
}

/// Scheme and authority exactly as browsers write them in `Origin` (RFC 6454 §6.2): never `null`, never a wildcard.
fn is_origin(text: &str) -> bool {
    let exact = |url: Url| url.path() == "/" && url.origin().ascii_serialization() == text;
    !text.contains('*') && plain_url(text).is_some_and(exact)
}

/// An `https` URL without user info, query or fragment.
fn https(text: &str) -> Result<Url, LoadError> {
    plain_url(text).filter(|url| url.scheme() == "https").ok_or_else(|| LoadError::Url(text.to_owned()))
}

fn plain_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    usable.then_some(url)
}
