//! A provider, checked: what a sidecar will trust of it, or nothing.

mod tokens;

use std::collections::BTreeSet;

use behalf_crds::v1alpha1::{
    self as crds, AcceptedReason, ClientAuthenticationType, IdentityProvider, IdentityProviderStatus,
    ReadyReason,
};
use behalf_policy::bundle::load::MAX_CLOCK_SKEW;
use behalf_policy::bundle::provider::ProviderDocument;
use behalf_policy::bundle::{
    Algorithm, ClientAuthentication, Flavor, Introspection, TokenProfile, TokenRules,
};
use behalf_policy::ids::{Audience, ClientId, EntryName, Issuer, ScopeSet};
use behalf_policy::wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::catalog::{entry_name, invalid, lifetime, nobody_may_use, scope_set, unreadable};
use crate::conditions::ConditionIntent;
use crate::{net, pem};

type Problem = ConditionIntent<AcceptedReason>;

/// A provider that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    name: EntryName,
    issuer: Issuer,
    ca_bundle: Option<String>,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
    flavor: Flavor,
    profile: TokenProfile,
    algorithms: BTreeSet<Algorithm>,
    clock_skew: u32,
    groups_claim: String,
    keys_max_staleness: u32,
    keys_cooldown: u32,
    ignored_scopes: ScopeSet,
    max_token_lifetime: u32,
    tokens: TokenRules,
    introspection: Introspection,
}

impl Provider {
    /// The provider as one identity's sidecars use it.
    #[must_use]
    pub fn document(
        &self,
        client_id: ClientId,
        authentication: ClientAuthenticationType,
        audiences: BTreeSet<Audience>,
    ) -> ProviderDocument {
        ProviderDocument {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            ca_bundle: self.ca_bundle.clone(),
            token_endpoint: self.token_endpoint.clone(),
            jwks_uri: self.jwks_uri.clone(),
            flavor: self.flavor,
            profile: self.profile,
            algorithms: self.algorithms.clone(),
            clock_skew: self.clock_skew,
            groups_claim: self.groups_claim.clone(),
            keys_max_staleness: self.keys_max_staleness,
            keys_cooldown: self.keys_cooldown,
            client_id,
            client_authentication: match authentication {
                ClientAuthenticationType::ServiceAccountToken => {
                    ClientAuthentication::ServiceAccountToken { file: wire::token_file(self.name.as_str()) }
                }
                ClientAuthenticationType::None => ClientAuthentication::None,
            },
            ignored_scopes: self.ignored_scopes.clone(),
            max_token_lifetime: self.max_token_lifetime,
            tokens: TokenRules { audiences, ..self.tokens.clone() },
            introspection: self.introspection.clone(),
        }
    }

    /// Its issuer.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
}

/// Audience of the pod's projected token for a provider: what it says, else its issuer. None where no server can be a
/// client by such a token: then there is none, and nothing is reserved.
#[must_use]
pub fn token_audience(provider: &IdentityProvider) -> Option<&str> {
    let clients = &provider.spec.client_authentication;
    let issuer = || provider.spec.issuer.as_str();
    let by_token = clients.allowed.contains(&ClientAuthenticationType::ServiceAccountToken);
    by_token.then(|| clients.service_account_token.audience.as_deref().unwrap_or_else(issuer))
}

/// Why a provider may not have the audience of its tokens: it is the operator's, or an older provider has it. None: it may.
///
/// Whoever receives a token for it could use it with the other, and admission could not tell whose volume it is in.
fn audience_taken(provider: &IdentityProvider, others: &[IdentityProvider]) -> Option<Problem> {
    let audience = token_audience(provider)?;
    let next = "Set spec.clientAuthentication.serviceAccountToken.audience (by default it is spec.issuer) to one that only this provider takes";
    if audience == wire::FEED_AUDIENCE {
        let message = format!("Tokens for {audience} are for Behalf's own operator. {next}.");
        return Some(Problem::new(AcceptedReason::AudienceTaken, message));
    }
    let rivals =
        others.iter().filter(|other| token_audience(other) == Some(audience) && age(other) < age(provider));
    let holder = rivals.min_by(|a, b| age(a).cmp(&age(b)))?;
    let message = format!(
        "IdentityProvider {}, which is older, takes the service-account tokens for {audience} already. {next}, or delete one of the two.",
        holder.metadata.name.as_deref().unwrap_or_default()
    );
    Some(Problem::new(AcceptedReason::AudienceTaken, message))
}

/// Order of age; an object without a time is the youngest. The name settles a tie.
fn age(provider: &IdentityProvider) -> (bool, Option<&Time>, Option<&str>) {
    let metadata = &provider.metadata;
    let created = metadata.creation_timestamp.as_ref();
    (created.is_none(), created, metadata.name.as_deref())
}

/// Checks a provider among `others`; itself among them does no harm.
///
/// # Errors
/// The first thing that cannot be right, with what to change. The audience comes first: whatever else is wrong with a
/// provider that has none of its own, admission must not take it for the one who has.
pub fn check(provider: &IdentityProvider, others: &[IdentityProvider]) -> Result<Provider, Problem> {
    if let Some(taken) = audience_taken(provider, others) {
        return Err(taken);
    }
    let spec = &provider.spec;
    let name = entry_name(provider.metadata.name.as_deref().unwrap_or_default(), "metadata.name")?;
    let endpoints = spec.endpoints.clone().unwrap_or_default();
    let urls = [
        ("spec.issuer", Some(&spec.issuer)),
        ("spec.endpoints.token", endpoints.token.as_ref()),
        ("spec.endpoints.jwks", endpoints.jwks.as_ref()),
        ("spec.introspection.endpoint", spec.introspection.endpoint.as_ref()),
    ];
    for (field, url) in urls.into_iter().filter_map(|(field, url)| url.map(|url| (field, url))) {
        if let Err(cause) = net::destination(url) {
            return Err(invalid(format!("{field}: {url} {cause}. Set it to an https URL outside the pod.")));
        }
    }
    if let Some(Err(cause)) = spec.ca_bundle.as_deref().map(pem::check) {
        return Err(Problem::new(
            AcceptedReason::InvalidCABundle,
            format!("spec.caBundle {cause}. Put the PEM of the provider's authority there."),
        ));
    }
    let profile = &spec.token_profile;
    if profile.algorithms.is_empty() {
        return Err(invalid("spec.tokenProfile.algorithms is empty. Name at least one.".to_owned()));
    }
    if !profile.groups_claim.starts_with('/') {
        return Err(invalid(
            "spec.tokenProfile.groupsClaim is no JSON pointer. Let it start with a slash.".to_owned(),
        ));
    }
    Ok(Provider {
        issuer: Issuer::new(spec.issuer.clone()).map_err(|_| unreadable("spec.issuer", &spec.issuer))?,
        ca_bundle: spec.ca_bundle.clone(),
        token_endpoint: endpoints.token,
        jwks_uri: endpoints.jwks,
        flavor: match spec.flavor {
            crds::Flavor::Generic => Flavor::Generic,
            crds::Flavor::Keycloak => Flavor::Keycloak,
            crds::Flavor::Entra => Flavor::Entra,
            crds::Flavor::Okta => Flavor::Okta,
            crds::Flavor::Auth0 => Flavor::Auth0,
            crds::Flavor::Kubernetes => Flavor::Kubernetes,
            crds::Flavor::Spiffe => Flavor::Spiffe,
        },
        profile: match profile.type_ {
            crds::TokenProfileType::Strict => TokenProfile::Strict,
            crds::TokenProfileType::Relaxed => TokenProfile::Relaxed,
        },
        algorithms: profile.algorithms.iter().copied().map(algorithm).collect(),
        clock_skew: seconds("spec.tokenProfile.clockSkew", profile.clock_skew, MAX_CLOCK_SKEW)?,
        groups_claim: profile.groups_claim.clone(),
        keys_max_staleness: seconds("spec.keys.maxStaleness", spec.keys.max_staleness, 86_400)?,
        keys_cooldown: seconds("spec.keys.refreshCooldown", spec.keys.refresh_cooldown, 3600)?,
        ignored_scopes: scope_set(&spec.exchange.ignored_scopes, "spec.exchange.ignoredScopes")?,
        max_token_lifetime: lifetime(spec.exchange.max_token_lifetime, "spec.exchange")?,
        tokens: tokens::rules(spec)?,
        introspection: tokens::introspection(spec)?,
        name,
    })
}

fn seconds(field: &str, value: crds::Duration, most: u32) -> Result<u32, Problem> {
    match u32::try_from(value.as_secs()) {
        Ok(seconds) if seconds <= most => Ok(seconds),
        _ => Err(invalid(format!("{field} is {value}. Set it to {most}s or less."))),
    }
}

/// What the provider's status says, seen among `others`.
#[must_use]
pub fn provider_status(
    provider: &IdentityProvider,
    others: &[IdentityProvider],
    previous: Option<&IdentityProviderStatus>,
    now: &Time,
) -> IdentityProviderStatus {
    let generation = provider.metadata.generation;
    let (accepted, ready) = match check(provider, others) {
        Ok(_) => {
            let message = if nobody_may_use(&provider.spec.allowed_namespaces) {
                "Valid, but no namespace may use it. Set spec.allowedNamespaces."
            } else {
                "Valid. Whether it answers is seen by the sidecars that use it."
            };
            let ready = ConditionIntent::new(ReadyReason::Ready, "Identities may use this provider.");
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
    IdentityProviderStatus { observed_generation: generation, conditions }
}

fn algorithm(algorithm: crds::Algorithm) -> Algorithm {
    match algorithm {
        crds::Algorithm::RS256 => Algorithm::RS256,
        crds::Algorithm::RS384 => Algorithm::RS384,
        crds::Algorithm::RS512 => Algorithm::RS512,
        crds::Algorithm::PS256 => Algorithm::PS256,
        crds::Algorithm::PS384 => Algorithm::PS384,
        crds::Algorithm::PS512 => Algorithm::PS512,
        crds::Algorithm::ES256 => Algorithm::ES256,
        crds::Algorithm::ES384 => Algorithm::ES384,
        crds::Algorithm::EdDsa => Algorithm::EdDSA,
    }
}
