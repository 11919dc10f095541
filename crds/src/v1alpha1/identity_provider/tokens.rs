//! What a provider's tokens have to look like, and when it is asked about them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HTTPS_MESSAGE, HTTPS_RULE, SenderConstraint};
use crate::v1alpha1::{Duration, bounds};

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
    /// Whether tokens have to be bound to whoever sends them (DPoP, mutual TLS). Absent: bound ones are taken when proved,
    /// and bearer tokens too. Not with flavors Kubernetes and SPIFFE, whose tokens are never bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SenderConstraint")]
    pub sender_constraint: Option<SenderConstraint>,
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
            sender_constraint: None,
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
