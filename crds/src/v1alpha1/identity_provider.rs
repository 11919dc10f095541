//! `IdentityProvider`: an issuer, how it is reached and trusted, and who may use it. Written by the platform team.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod sender_constraint;
mod tokens;

pub use sender_constraint::*;
pub use tokens::*;

use super::bounds;
use super::{Duration, NamespaceAccess};

/// What is trusted of one issuer, and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "behalf.dev",
    version = "v1alpha1",
    kind = "IdentityProvider",
    plural = "identityproviders",
    shortname = "idp",
    category = "behalf",
    status = "IdentityProviderStatus",
    derive = "PartialEq",
    doc = "An issuer of tokens: how it is reached and trusted, what its tokens look like, and which namespaces may use it.",
    printcolumn(name = "Issuer", type_ = "string", json_path = ".spec.issuer"),
    printcolumn(name = "Flavor", type_ = "string", json_path = ".spec.flavor"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of an IdentityProvider has at most 52 characters: a-z, 0-9 and inner hyphens (it becomes part of a volume name)")
        .reason(Reason::FieldValueInvalid)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.flavor) && self.flavor == 'SPIFFE') == (has(self.tokenProfile) && has(self.tokenProfile.trustDomain))")
        .message("flavor SPIFFE needs tokenProfile.trustDomain, and no other flavor takes it")
        .field_path(".tokenProfile").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!(has(self.flavor) && self.flavor in ['Kubernetes', 'SPIFFE']) || !has(self.tokenProfile) || !has(self.tokenProfile.senderConstraint)")
        .message("tokens of Kubernetes and SPIFFE are never bound; leave tokenProfile.senderConstraint out")
        .field_path(".tokenProfile").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!(has(self.flavor) && self.flavor in ['Kubernetes', 'SPIFFE']) || (has(self.clientAuthentication) && has(self.clientAuthentication.allowed) && self.clientAuthentication.allowed == ['None'])")
        .message("nobody is a client of Kubernetes or SPIFFE; set clientAuthentication.allowed to [None]")
        .field_path(".clientAuthentication").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.introspection) || self.introspection.rule == 'Never' || !has(self.clientAuthentication) || !has(self.clientAuthentication.allowed) || !('None' in self.clientAuthentication.allowed)")
        .message("whoever asks for introspection authenticates; take None out of clientAuthentication.allowed")
        .field_path(".introspection").reason(Reason::FieldValueInvalid)
)]
pub struct IdentityProviderSpec {
    /// The issuer, exactly as it stands in the iss claim and the provider's metadata: an https URL with lower-case host
    /// and without user, query or fragment. It cannot be changed; make another IdentityProvider instead.
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(
        validation = Rule::new(HTTPS_RULE).message(HTTPS_MESSAGE).reason(Reason::FieldValueInvalid),
        validation = Rule::new("self == oldSelf").message("issuer cannot be changed; make another IdentityProvider")
            .reason(Reason::FieldValueForbidden)
    )]
    pub issuer: String,
    /// Certificates (PEM) of the authorities that may vouch for the provider's https; absent: the public web's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Pem>")]
    #[x_kube(validation = Rule::new(CA_RULE).message(CA_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub ca_bundle: Option<String>,
    /// Endpoints by hand; what is absent is read from the issuer's metadata (RFC 8414, OpenID Connect Discovery).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Endpoints")]
    pub endpoints: Option<Endpoints>,
    /// What the provider is: Generic (the RFCs to the letter), Keycloak, Entra, Okta, Auth0; or Kubernetes or SPIFFE, which
    /// vouch for workloads. It says which claims hold client, scopes and kind of caller.
    #[serde(default)]
    pub flavor: Flavor,
    /// What a caller's token has to look like.
    #[serde(default)]
    pub token_profile: TokenProfile,
    /// When the provider is asked whether a token is still good.
    #[serde(default)]
    pub introspection: Introspection,
    /// How the provider's signing keys are kept, in particular while it is down.
    #[serde(default)]
    pub keys: KeyPolicy,
    /// How servers may authenticate as clients of the provider.
    #[serde(default)]
    pub client_authentication: ClientAuthenticationPolicy,
    /// What the provider's answers to an exchange may be.
    #[serde(default)]
    pub exchange: ExchangePolicy,
    /// Which namespaces may use this provider. None by default.
    #[serde(default)]
    pub allowed_namespaces: NamespaceAccess,
}

/// An https URL with lower-case host and nothing but host, port and path.
pub(super) const HTTPS_RULE: &str = r"self.matches('^https://([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\\[[0-9a-f:.]+\\])(:[1-9][0-9]{0,4})?(/[-A-Za-z0-9._~!$&()*+,;=:@%/]*)?$')";
/// What [`HTTPS_RULE`] asks.
pub(super) const HTTPS_MESSAGE: &str = "must be an https URL with a lower-case host and without user, query or fragment, such as https://idp.example.com/realms/corp";
/// Certificates and nothing secret.
pub(in crate::v1alpha1) const CA_RULE: &str =
    "self.contains('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')";
/// What [`CA_RULE`] asks.
pub(in crate::v1alpha1) const CA_MESSAGE: &str = "must hold certificates in PEM, and no private key";

/// Endpoints of the provider, by hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.token) || has(self.jwks)")
    .message("name at least one endpoint, or leave endpoints out to have them discovered").reason(Reason::FieldValueRequired))]
pub struct Endpoints {
    /// The token endpoint (RFC 6749 §3.2), where tokens are exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(validation = Rule::new(HTTPS_RULE).message(HTTPS_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub token: Option<String>,
    /// Where the signing keys are (RFC 7517 key set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(validation = Rule::new(HTTPS_RULE).message(HTTPS_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub jwks: Option<String>,
}

/// What a provider is: which parameters it wants and what is known about its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Flavor {
    /// RFC 8693 to the letter.
    #[default]
    Generic,
    /// Keycloak: its tokens and its standard token exchange.
    Keycloak,
    /// Microsoft Entra ID: scopes in scp; those of a program in roles.
    Entra,
    /// Okta: client in cid, scopes in the list scp.
    Okta,
    /// Auth0: scopes also in the list permissions.
    Auth0,
    /// Service-account tokens of a Kubernetes cluster. Their callers are workloads; their groups are those that
    /// Kubernetes derives, and the subject itself.
    Kubernetes,
    /// SPIFFE JWT-SVIDs. Their callers are workloads; their groups are the SPIFFE ID itself and its trust domain.
    #[serde(rename = "SPIFFE")]
    Spiffe,
}

/// How the provider's signing keys are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.refreshCooldown) <= duration(self.maxStaleness)")
    .message("refreshCooldown may not exceed maxStaleness").field_path(".refreshCooldown").reason(Reason::FieldValueInvalid))]
pub struct KeyPolicy {
    /// How long keys are used when the provider cannot be reached; then its tokens are refused. 1m to 24h.
    #[serde(default = "default_max_staleness")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("maxStaleness is between 1m and 24h").reason(Reason::FieldValueInvalid))]
    pub max_staleness: Duration,
    /// The shortest time between two fetches that unknown key ids cause. 1s to 1h.
    #[serde(default = "default_refresh_cooldown")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')")
        .message("refreshCooldown is between 1s and 1h").reason(Reason::FieldValueInvalid))]
    pub refresh_cooldown: Duration,
}

fn default_max_staleness() -> Duration {
    Duration::from_mins(60)
}

fn default_refresh_cooldown() -> Duration {
    Duration::from_secs(30)
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self { max_staleness: default_max_staleness(), refresh_cooldown: default_refresh_cooldown() }
    }
}

/// A way to authenticate as a client of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuthenticationType {
    /// The pod's projected service-account token as client assertion (RFC 7523): there is no secret to keep.
    ServiceAccountToken,
    /// Not at all: the provider's callers are taken, and nothing is exchanged or asked there.
    None,
}

/// How servers may authenticate as clients of the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientAuthenticationPolicy {
    /// Ways that are allowed.
    #[serde(default = "default_allowed_authentication")]
    #[schemars(schema_with = "bounds::choices::<ClientAuthenticationType, 1, 8>")]
    pub allowed: Vec<ClientAuthenticationType>,
    /// What the projected service-account token is made for.
    #[serde(default)]
    pub service_account_token: ServiceAccountToken,
}

fn default_allowed_authentication() -> Vec<ClientAuthenticationType> {
    vec![ClientAuthenticationType::ServiceAccountToken]
}

impl Default for ClientAuthenticationPolicy {
    fn default() -> Self {
        Self {
            allowed: default_allowed_authentication(),
            service_account_token: ServiceAccountToken::default(),
        }
    }
}

/// What the projected service-account token is made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountToken {
    /// Audience of the token; absent: the issuer. It is reserved: no container but ours may ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Identifier>")]
    pub audience: Option<String>,
    /// Life of the token in seconds; kubelet renews it at four fifths. A fifth of it is how long calls surely go on while
    /// the API server is away: 6 minutes by default.
    #[serde(default = "default_expiration_seconds")]
    #[schemars(schema_with = "bounds::whole::<600, 3600>")]
    pub expiration_seconds: i64,
}

fn default_expiration_seconds() -> i64 {
    1800
}

impl Default for ServiceAccountToken {
    fn default() -> Self {
        Self { audience: None, expiration_seconds: default_expiration_seconds() }
    }
}

/// What the provider's answers to an exchange may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExchangePolicy {
    /// Scopes that an answer may carry beyond the asked ones, because the provider always adds them. Any other is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 0, 32>")]
    pub ignored_scopes: Vec<String>,
    /// The longest life an exchanged token may have; an answer that lives longer is refused. 30s to 1h.
    #[serde(default = "default_max_token_lifetime")]
    #[x_kube(validation = Rule::new(LIFETIME_RULE).message(LIFETIME_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub max_token_lifetime: Duration,
}

/// Bounds of every token life.
pub(super) const LIFETIME_RULE: &str =
    "duration(self) >= duration('30s') && duration(self) <= duration('1h')";
/// What [`LIFETIME_RULE`] asks.
pub(super) const LIFETIME_MESSAGE: &str = "maxTokenLifetime is between 30s and 1h";

pub(super) fn default_max_token_lifetime() -> Duration {
    Duration::from_mins(10)
}

impl Default for ExchangePolicy {
    fn default() -> Self {
        Self { ignored_scopes: Vec::new(), max_token_lifetime: default_max_token_lifetime() }
    }
}

/// What the operator made of the provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityProviderStatus {
    /// The metadata.generation this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::counter")]
    pub observed_generation: Option<i64>,
    /// Accepted and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::conditions")]
    pub conditions: Vec<Condition>,
}
