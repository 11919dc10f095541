//! What a valid catalogue and valid providers let an identity have.

use behalf_crds::v1alpha1::{
    AcceptedReason, ClientAuthenticationType, NamespaceAccess, Protocol, ResolvedRefsReason,
};

use super::{Case, Forbidden};

/// In this order; each judges only by what is there and valid.
pub(super) const CHECKS: &[fn(&Case<'_>) -> Option<Forbidden>] = &[
    catalog_open,
    scopes_listed,
    tool_set_there,
    limited_tools_there,
    downstreams_there,
    providers_open,
    authentication_allowed,
    audiences_allowed,
    providers_named,
    providers_have_client,
];

fn admits(case: &Case<'_>, access: &NamespaceAccess) -> bool {
    let labels = case.gathered.namespace.metadata.labels.clone().unwrap_or_default();
    access.admits(&labels)
}

fn closed(case: &Case<'_>, kind: &str, name: &str) -> Forbidden {
    let namespace = case.namespace();
    Forbidden::by_reference(
        AcceptedReason::NamespaceNotAllowed,
        ResolvedRefsReason::NamespaceNotAllowed,
        format!(
            "{kind} {name} is not open to namespace {namespace}. Ask the platform team to let its spec.allowedNamespaces select the namespace's labels: kubectl get namespace {namespace} --show-labels"
        ),
    )
}

fn catalog_open(case: &Case<'_>) -> Option<Forbidden> {
    let catalog = case.resolved.catalog.as_ref().and(case.gathered.catalog.as_ref())?;
    let name = &case.identity().spec.catalog_ref.name;
    (!admits(case, &catalog.spec.allowed_namespaces)).then(|| closed(case, "ScopeCatalog", name))
}

fn scopes_listed(case: &Case<'_>) -> Option<Forbidden> {
    let catalog = case.resolved.catalog.as_ref()?;
    let spec = &case.identity().spec;
    let asked = spec.scopes.required.iter().chain(&spec.scopes.optional);
    let unknown = asked.into_iter().find(|scope| !catalog.scopes.contains_key(scope.as_str()))?;
    Some(Forbidden::because(
        AcceptedReason::ScopeNotInCatalog,
        format!(
            "spec.scopes lists {unknown}, which ScopeCatalog {name} does not have. Remove it, or see what there is: kubectl get scat {name} -o jsonpath='{{.spec.scopes[*].name}}'",
            name = spec.catalog_ref.name
        ),
    ))
}

fn tool_set_there(case: &Case<'_>) -> Option<Forbidden> {
    let catalog = case.resolved.catalog.as_ref()?;
    let spec = &case.identity().spec;
    let server = spec.servers.first()?;
    (!catalog.tool_sets.contains_key(&server.tool_set)).then(|| {
        Forbidden::by_reference(
            AcceptedReason::Invalid,
            ResolvedRefsReason::ToolSetNotFound,
            format!(
                "ScopeCatalog {name} has no tool set {}. Correct spec.servers[0].toolSet, or see what there is: kubectl get scat {name} -o jsonpath='{{.spec.toolSets[*].name}}'",
                server.tool_set,
                name = spec.catalog_ref.name
            ),
        )
    })
}

/// A limit of a tool that is not there counts nothing, and whoever wrote it relies on it.
fn limited_tools_there(case: &Case<'_>) -> Option<Forbidden> {
    let catalog = case.resolved.catalog.as_ref()?;
    let spec = &case.identity().spec;
    let server = spec.servers.first()?;
    let set = &server.tool_set;
    let rows = catalog.tool_sets.get(set)?;
    let (is_there, kind): (&dyn Fn(&str) -> bool, _) = match server.protocol {
        Protocol::Mcp => (&|name| rows.tools.contains_key(name), "tools"),
        Protocol::Http => (&|name| rows.routes.contains_key(name), "routes"),
    };
    let (limit, unknown) = spec.rate_limits.iter().find_map(|limit| {
        let unknown = limit.tools.iter().find(|name| !is_there(name))?;
        Some((&limit.name, unknown))
    })?;
    Some(Forbidden::by_reference(
        AcceptedReason::UnknownTool,
        ResolvedRefsReason::ToolNotFound,
        format!(
            "Rate limit {limit} counts calls of {unknown}, which tool set {set} of ScopeCatalog {name} does not have. Remove it from spec.rateLimits, or see what there is: kubectl get scat {name} -o jsonpath='{{.spec.toolSets[?(@.name==\"{set}\")].{kind}[*].name}}'",
            name = spec.catalog_ref.name
        ),
    ))
}

fn downstreams_there(case: &Case<'_>) -> Option<Forbidden> {
    let catalog = case.resolved.catalog.as_ref()?;
    let spec = &case.identity().spec;
    let unknown =
        spec.downstreams.iter().find(|entry| !catalog.downstreams.contains_key(entry.name.as_str()))?;
    Some(Forbidden::by_reference(
        AcceptedReason::UnknownDownstream,
        ResolvedRefsReason::DownstreamNotFound,
        format!(
            "ScopeCatalog {name} has no downstream {}. Remove it from spec.downstreams, or see what there is: kubectl get scat {name} -o jsonpath='{{.spec.downstreams[*].name}}'",
            unknown.name,
            name = spec.catalog_ref.name
        ),
    ))
}

fn providers_open(case: &Case<'_>) -> Option<Forbidden> {
    let valid =
        case.gathered.providers.iter().filter(|(name, _)| case.resolved.providers.contains_key(*name));
    let (name, _) =
        valid.into_iter().find(|(_, provider)| !admits(case, &provider.spec.allowed_namespaces))?;
    Some(closed(case, "IdentityProvider", name))
}

fn authentication_allowed(case: &Case<'_>) -> Option<Forbidden> {
    let denied = case.identity().spec.identity_providers.iter().find(|client| {
        let provider = case.gathered.providers.get(&client.name);
        case.resolved.providers.contains_key(&client.name)
            && provider.is_some_and(|provider| {
                !provider.spec.client_authentication.allowed.contains(&client.client.authentication.type_)
            })
    })?;
    Some(Forbidden::because(
        AcceptedReason::ClientAuthenticationNotAllowed,
        format!(
            "IdentityProvider {name} does not allow client authentication {:?}. Choose one of its spec.clientAuthentication.allowed: kubectl describe idp {name}",
            denied.client.authentication.type_,
            name = denied.name
        ),
    ))
}

fn providers_named(case: &Case<'_>) -> Option<Forbidden> {
    let spec = &case.identity().spec;
    let named = |name: &str| spec.identity_providers.iter().any(|client| client.name == name);
    let stray = spec.downstreams.iter().find(|entry| !named(&entry.identity_provider))?;
    Some(Forbidden::because(
        AcceptedReason::Invalid,
        format!(
            "Downstream {} names the provider {}, which is not in spec.identityProviders. Add it there, or name one that is.",
            stray.name, stray.identity_provider
        ),
    ))
}

fn audiences_allowed(case: &Case<'_>) -> Option<Forbidden> {
    let (client, audience) = case.identity().spec.identity_providers.iter().find_map(|client| {
        let provider = case.gathered.providers.get(&client.name)?;
        case.resolved.providers.get(&client.name)?;
        let allowed = &provider.spec.token_profile.allowed_audiences;
        let stray = client.audiences.iter().find(|audience| !allowed.contains(audience))?;
        Some((client, stray))
    })?;
    Some(Forbidden::because(
        AcceptedReason::AudienceNotAllowed,
        format!(
            "IdentityProvider {name} does not allow the audience {audience}. Remove it from spec.identityProviders, or choose one of its spec.tokenProfile.allowedAudiences: kubectl describe idp {name}",
            name = client.name
        ),
    ))
}

/// Where the server is no client, no token can be exchanged for it.
fn providers_have_client(case: &Case<'_>) -> Option<Forbidden> {
    let spec = &case.identity().spec;
    let none = |name: &str| {
        let entry = spec.identity_providers.iter().find(|client| client.name == name);
        entry.is_some_and(|client| client.client.authentication.type_ == ClientAuthenticationType::None)
    };
    let stray = spec.downstreams.iter().find(|entry| none(&entry.identity_provider))?;
    Some(Forbidden::because(
        AcceptedReason::Invalid,
        format!(
            "Downstream {} is to be reached by a token of {}, where this server is no client (client.authentication.type: None). Name another of spec.identityProviders there, or another authentication.",
            stray.name, stray.identity_provider
        ),
    ))
}
