//! How a provider's tokens are read and checked again, as the bundle says it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::Audience;

/// What is asked of a provider's tokens beyond what every token must have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRules {
    /// Audiences that are taken beside the server's URL.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub audiences: BTreeSet<Audience>,
    /// Where the scopes stand; all of these that are there count. Empty: where the flavour has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeClaim>,
    /// What else a token must say; all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_claims: Vec<RequiredClaim>,
    /// What else is read of a token, by the name that conditions on arguments know it by: JSON pointers to strings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The SPIFFE trust domain whose workloads are taken; only where the flavour is SPIFFE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// What its tokens must be bound to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sender_constraint: SenderConstraint,
}

/// Whether tokens have to be bound to their sender, and how proofs are judged (RFC 9449, RFC 8705).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SenderConstraint {
    /// Which tokens are taken. One that is bound is never taken without proof.
    pub mode: SenderConstraintMode,
    /// How far the time of a DPoP proof may be off, either way, seconds; also how long a nonce is good.
    pub max_age: u32,
    /// Whether a DPoP proof has to carry a nonce of ours.
    pub nonce: NonceRule,
}

impl Default for SenderConstraint {
    fn default() -> Self {
        Self { mode: SenderConstraintMode::default(), max_age: MAX_PROOF_AGE, nonce: NonceRule::default() }
    }
}

/// Proofs further off than this are never taken, seconds.
pub const MAX_PROOF_AGE: u32 = 300;
/// No window for proofs is narrower than this, seconds.
pub const MIN_PROOF_AGE: u32 = 10;

/// Which tokens are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SenderConstraintMode {
    /// Bound ones and bearer tokens.
    #[default]
    Accepted,
    /// Only those bound to a key or to a certificate.
    Required,
    /// Only those bound to a key (`cnf.jkt`).
    #[serde(rename = "DPoPRequired")]
    DpopRequired,
}

/// Whether a proof needs a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NonceRule {
    /// None is given out, and one that comes is not looked at.
    #[default]
    Never,
    /// A proof without one of ours is not taken (RFC 9449 §9).
    Required,
}

/// A claim that carries scopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScopeClaim {
    /// JSON pointer to it.
    pub claim: String,
    /// Its one form; another is a refusal.
    pub form: ScopeForm,
}

/// How a claim carries scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScopeForm {
    /// One string, scopes separated by spaces (RFC 9068 §2.2.3).
    SpaceDelimited,
    /// An array of strings.
    Array,
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredClaim {
    /// JSON pointer to the claim.
    pub claim: String,
    /// What it must be.
    pub rule: ClaimRule,
}

/// What a required claim must be. Compared code point by code point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimRule {
    /// This string.
    Equals(String),
    /// An array of strings with this one among them.
    Contains(String),
    /// This boolean.
    Boolean(bool),
}

/// When a provider is asked whether a token is still good (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Introspection {
    /// For which tokens.
    pub rule: IntrospectionRule,
    /// `LongLived` asks about tokens that live longer than this, seconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub long_lived_over: u32,
    /// Where, else as the provider's validated metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How long an answer is gone by, seconds: within this a revoked token stops. 0 asks at each use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache_ttl: u32,
    /// In which form the answer is asked for; another is refused.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response: IntrospectionResponse,
}

/// Which tokens a provider is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IntrospectionRule {
    /// None; opaque tokens are refused.
    #[default]
    Never,
    /// Opaque ones.
    OpaqueOnly,
    /// All.
    Always,
    /// JWTs whose whole life is long; opaque tokens are refused.
    LongLived,
}

impl IntrospectionRule {
    /// Whether tokens that are no JWT are taken.
    #[must_use]
    pub fn takes_opaque(self) -> bool {
        matches!(self, Self::OpaqueOnly | Self::Always)
    }
}

/// The form of an introspection answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IntrospectionResponse {
    /// RFC 7662: plain JSON, believed because of the connection it came over.
    #[default]
    Json,
    /// RFC 9701: a JWT signed by the provider.
    Jwt,
}

/// Whether a member is left out of a document.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
