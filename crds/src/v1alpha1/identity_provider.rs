//! `IdentityProvider`: an issuer, how it is reached and trusted, and who may use it. Written by the platform team.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
pub(super) const CA_RULE: &str =
    "self.contains('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')";
/// What [`CA_RULE`] asks.
pub(super) const CA_MESSAGE: &str = "must hold certificates in PEM, and no private key";

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

/// What a caller's token has to look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenProfile {
    /// Strict: an RFC 9068 access token, typ at+jwt. Relaxed: also providers that do not write that typ; an ID token
    /// is still refused. Tokens of Kubernetes and SPIFFE have a form of their own.
    #[serde(default, rename = "type")]
    pub type_: TokenProfileType,
    /// Signature algorithms that are taken; nothing else is, whatever the token says.
    #[serde(default = "default_algorithms")]
    #[schemars(schema_with = "bounds::choices::<Algorithm, 1, 9>")]
    pub algorithms: Vec<Algorithm>,
    /// How far the provider's clock may be off: a token begins that much earlier and ends that much later than it
    /// says. At most 60s.
    #[serde(default = "default_clock_skew")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('60s')").message("clockSkew is at most 60s").reason(Reason::FieldValueInvalid))]
    pub clock_skew: Duration,
    /// Where the token names the caller's groups: a JSON pointer (RFC 6901) to a list of strings.
    #[serde(default = "default_groups_claim")]
    #[schemars(schema_with = "bounds::text::<bounds::Pointer>")]
    pub groups_claim: String,
    /// Where the token has its scopes; those of all these claims count. Absent: where the flavor has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::entries::<ScopeClaim, 4>")]
    pub scope_claims: Vec<ScopeClaim>,
    /// What else a token must say to be taken; all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::entries::<RequiredClaim, 16>")]
    pub required_claims: Vec<RequiredClaim>,
    /// What else is read of a token, for conditions on arguments (caller.attributes). Each is a string; none may decide
    /// who the caller is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::named::<Attribute, 0, 16>")]
    pub attributes: Vec<Attribute>,
    /// Audiences that identities may take beside their server's URL, for a provider that cannot issue tokens for a URL
    /// (api://… at Entra, the one audience of an Okta authorization server). Whoever shares an audience takes the same
    /// tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Identifier, 0, 32>")]
    pub allowed_audiences: Vec<String>,
    /// The SPIFFE trust domain whose workloads are taken, such as example.org. Only with flavor SPIFFE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::TrustDomain>")]
    pub trust_domain: Option<String>,
}

/// A claim that carries scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopeClaim {
    /// JSON pointer (RFC 6901) to the claim.
    #[schemars(schema_with = "bounds::text::<bounds::Pointer>")]
    pub claim: String,
    /// Its form; a claim of another form makes the token refused.
    pub form: ScopeForm,
}

/// How a claim carries scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScopeForm {
    /// One string, scopes separated by spaces.
    SpaceDelimited,
    /// A list of strings.
    Array,
}

/// What a token must say. Exactly one of equals, contains and boolean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.equals) ? 1 : 0) + (has(self.contains) ? 1 : 0) + (has(self.boolean) ? 1 : 0) == 1")
    .message("set exactly one of equals, contains and boolean").reason(Reason::FieldValueInvalid))]
pub struct RequiredClaim {
    /// JSON pointer (RFC 6901) to the claim.
    #[schemars(schema_with = "bounds::text::<bounds::Pointer>")]
    pub claim: String,
    /// The claim is exactly this string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Group>")]
    pub equals: Option<String>,
    /// The claim is a list of strings with exactly this one among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Group>")]
    pub contains: Option<String>,
    /// The claim is this boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub boolean: Option<bool>,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

fn default_clock_skew() -> Duration {
    Duration::from_secs(30)
}

fn default_groups_claim() -> String {
    "/groups".to_owned()
}

impl Default for TokenProfile {
    fn default() -> Self {
        Self {
            type_: TokenProfileType::default(),
            algorithms: default_algorithms(),
            clock_skew: default_clock_skew(),
            groups_claim: default_groups_claim(),
            scope_claims: Vec::new(),
            required_claims: Vec::new(),
            attributes: Vec::new(),
            allowed_audiences: Vec::new(),
            trust_domain: None,
        }
    }
}

/// A claim that conditions on arguments may look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attribute {
    /// Its name in caller.attributes: lower-case letters, digits and underscores.
    #[schemars(schema_with = "bounds::text::<bounds::AttributeName>")]
    pub name: String,
    /// Where it stands: a JSON pointer (RFC 6901) to a string.
    #[schemars(schema_with = "bounds::text::<bounds::Pointer>")]
    pub claim: String,
}

/// How strictly a token's header is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TokenProfileType {
    /// An RFC 9068 access token.
    #[default]
    Strict,
    /// Also access tokens without `typ: at+jwt`.
    Relaxed,
}

/// A signature algorithm (RFC 7518, RFC 8037). There is no name for an unsigned or symmetric one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// The JOSE name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// When the provider is asked whether a token is still good (RFC 7662), as the identity's own client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.rule) && self.rule == 'LongLived') == has(self.longLivedOver)")
    .message("longLivedOver belongs to rule LongLived, which needs it").field_path(".longLivedOver").reason(Reason::FieldValueInvalid))]
pub struct Introspection {
    /// Which tokens it is asked about. While it cannot be asked, these are refused with 503.
    #[serde(default)]
    pub rule: IntrospectionRule,
    /// With rule LongLived: JWTs that live longer than this from their iat, or do not say since when. 1m to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("longLivedOver is between 1m and 24h").reason(Reason::FieldValueInvalid))]
    pub long_lived_over: Option<Duration>,
    /// The introspection endpoint; absent: as the issuer's metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Url>")]
    #[x_kube(validation = Rule::new(HTTPS_RULE).message(HTTPS_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub endpoint: Option<String>,
    /// How long an answer is gone by: a revoked token stops within this time, open streams included. 0s to 5m.
    #[serde(default = "default_cache_ttl", rename = "cacheTTL")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('5m')").message("cacheTTL is at most 5m").reason(Reason::FieldValueInvalid))]
    pub cache_ttl: Duration,
    /// In which form it answers; another is not believed.
    #[serde(default)]
    pub response: IntrospectionResponse,
}

fn default_cache_ttl() -> Duration {
    Duration::from_secs(10)
}

impl Default for Introspection {
    fn default() -> Self {
        Self {
            rule: IntrospectionRule::default(),
            long_lived_over: None,
            endpoint: None,
            cache_ttl: default_cache_ttl(),
            response: IntrospectionResponse::default(),
        }
    }
}

/// Which tokens a provider is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntrospectionRule {
    /// None. Tokens that are no JWT are refused.
    #[default]
    Never,
    /// Those that are no JWT. At most one provider of an identity may take such tokens, or none is taken.
    OpaqueOnly,
    /// All.
    Always,
    /// JWTs that live longer than longLivedOver. Tokens that are no JWT are refused.
    LongLived,
}

/// The form of an introspection answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntrospectionResponse {
    /// RFC 7662: JSON.
    #[default]
    #[serde(rename = "JSON")]
    Json,
    /// RFC 9701: a JWT that the provider signed for this client.
    #[serde(rename = "JWT")]
    Jwt,
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
