//! The claims of an inbound access token, judged in the order of RFC 9068 §4 and RFC 8725.
//!
//! The signature is checked by the sidecar between [`check_header`] and [`check_claims`]; everything
//! else about a token is decided here. A claim of the wrong JSON type is a refusal, never "absent".

mod actors;
mod audience;
mod binding;
mod groups;
mod header;
mod kind;
mod login;
mod read;
mod scopes;
mod workload;

use std::collections::BTreeSet;

pub use actors::{Actor, MAX_ACTORS};
pub use binding::{Binding, Presented, Scheme, Thumbprint, check_binding};
pub(crate) use header::asks_for_more;
pub use header::{HeaderFacts, check_header, check_signed_header};
pub(crate) use kind::check_kind_of_token;
pub use login::Login;
use serde_json::{Map, Value};
pub(crate) use workload::trust_domain as spiffe_trust_domain;

use crate::bundle::document::CallerKind;
use crate::bundle::{Flavor, Policy, Provider, TokenProfile};
use crate::ids::{ClientId, EntryName, Group, Issuer, ScopeSet, Subject, Timestamp};

/// No token is longer than this many bytes (D26).
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// A token carries at most this many scopes.
pub const MAX_SCOPES: usize = 256;
/// A token carries at most this many groups; more is a refusal, never a truncation.
pub const MAX_GROUPS: usize = 512;
/// An `iat` further ahead than skew plus this many seconds is refused.
const FAR_FUTURE: i64 = 60;

/// Who calls, from a token that was verified. Holds no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The provider that issued the token.
    pub provider: EntryName,
    /// `sub`: unique within that provider only.
    pub subject: Subject,
    /// The client the token was issued to, by whichever claim the provider says it; of a service account or a SPIFFE
    /// identity, itself.
    pub client: Option<ClientId>,
    /// Person or program.
    pub kind: CallerKind,
    /// Scopes presented.
    pub scopes: ScopeSet,
    /// Groups the provider says the caller is in.
    pub groups: BTreeSet<Group>,
    /// The token's `act` chain, outermost first.
    pub actors: Vec<Actor>,
    /// How the caller proved who it is, and what the provider says of it.
    pub login: Login,
    /// When the token ends here: its `exp` and the provider's clock skew. The one moment that counts, for the token and for
    /// whatever was made from it.
    pub expires: Timestamp,
    /// The token's `jti`, to be hashed before it is recorded.
    pub token_id: Option<String>,
    /// What the token is bound to. Whoever sends it has to prove it: see [`check_binding`].
    pub binding: Binding,
}

/// Why a token was not taken. Closed; says nothing of the token's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum TokenRefusal {
    /// More than [`MAX_TOKEN_BYTES`].
    #[error("the token is too large")]
    TooLarge,
    /// Not three base64url segments of JSON.
    #[error("the token is malformed")]
    Malformed,
    /// `alg` is missing, `none`, or not in the issuer's list.
    #[error("the token's algorithm is not accepted")]
    AlgorithmNotAllowed,
    /// `typ` is not that of an access token, or the payload is of another kind of token.
    #[error("the token is not an access token")]
    NotAnAccessToken,
    /// `crit`, `b64`, `zip`, `enc` or `cty` in the header.
    #[error("the token's header asks for something that is not supported")]
    UnsupportedHeader,
    /// No configured provider has this issuer.
    #[error("the token's issuer is not known here")]
    UnknownIssuer,
    /// No key of the issuer fits.
    #[error("no key of the issuer fits the token")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// `aud` does not name this server.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is missing or of the wrong type.
    #[error("a claim of the token is missing or of the wrong type")]
    BadClaim,
    /// A claim that the provider's row asks for is not there, or is something else (A28).
    #[error("the token does not say what its provider's tokens must say")]
    ClaimNotAsRequired,
    /// The provider says that it is not good, or no longer (RFC 7662 §2.2).
    #[error("the provider does not stand by the token any more")]
    Inactive,
    /// The provider replaced groups by a reference (A28).
    #[error("the token does not carry all groups of its subject")]
    GroupsOverage,
    /// The token is bound to a key or a certificate, and this request proves none (A24, A27).
    #[error("the token is bound to a key that was not proved")]
    BoundToken,
    /// The token is bound to another key than this request proves (A23).
    #[error("the token is bound to another key")]
    BoundToOtherKey,
    /// The token is bound to another certificate than this connection proves (A27).
    #[error("the token is bound to another certificate")]
    BoundToOtherCertificate,
    /// The token is bound to no key, and came as if it were (A24).
    #[error("the token is bound to no key")]
    NotBound,
    /// The token is not bound to what its provider's row demands.
    #[error("the token is not bound as its provider's tokens must be")]
    BindingRequired,
    /// What the token is bound to is not known here, or is not readable.
    #[error("what the token is bound to is not known here")]
    BindingUnknown,
}

impl TokenRefusal {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "TokenTooLarge",
            Self::Malformed => "TokenMalformed",
            Self::AlgorithmNotAllowed => "AlgorithmNotAllowed",
            Self::NotAnAccessToken => "NotAnAccessToken",
            Self::UnsupportedHeader => "UnsupportedTokenHeader",
            Self::UnknownIssuer => "UnknownIssuer",
            Self::UnknownKey => "UnknownKey",
            Self::BadSignature => "BadSignature",
            Self::WrongAudience => "WrongAudience",
            Self::Expired => "TokenExpired",
            Self::NotYetValid => "TokenNotYetValid",
            Self::BadClaim => "BadClaim",
            Self::ClaimNotAsRequired => "ClaimNotAsRequired",
            Self::Inactive => "TokenInactive",
            Self::GroupsOverage => "GroupsOverage",
            Self::BoundToken => "BoundToken",
            Self::BoundToOtherKey => "BoundToOtherKey",
            Self::BoundToOtherCertificate => "BoundToOtherCertificate",
            Self::NotBound => "TokenNotBound",
            Self::BindingRequired => "BindingRequired",
            Self::BindingUnknown => "BindingUnknown",
        }
    }
}

/// Picks the provider by the token's unverified `iss` (A31). Trusts nothing else of it.
///
/// A SPIFFE JWT-SVID need not have one; then the trust domain of its `sub` selects.
///
/// # Errors
/// When `iss` is missing, no string, or of no configured provider.
pub fn select_provider<'a>(
    policy: &'a Policy,
    claims: &Map<String, Value>,
) -> Result<(&'a EntryName, &'a Provider), TokenRefusal> {
    let Some(issuer) = read::string(claims, "iss")? else { return select_by_trust_domain(policy, claims) };
    let issuer = Issuer::new(issuer).map_err(|_| TokenRefusal::BadClaim)?;
    let name = policy.issuers.get(&issuer).ok_or(TokenRefusal::UnknownIssuer)?;
    policy.providers.get_key_value(name).ok_or(TokenRefusal::UnknownIssuer)
}

fn select_by_trust_domain<'a>(
    policy: &'a Policy,
    claims: &Map<String, Value>,
) -> Result<(&'a EntryName, &'a Provider), TokenRefusal> {
    let subject = read::string(claims, "sub")?.ok_or(TokenRefusal::BadClaim)?;
    let domain = workload::trust_domain(&subject).ok_or(TokenRefusal::BadClaim)?;
    let vouches = |provider: &Provider| {
        provider.flavor == Flavor::Spiffe && provider.tokens.trust_domain.as_deref() == Some(domain)
    };
    policy.providers.iter().find(|(_, provider)| vouches(provider)).ok_or(TokenRefusal::UnknownIssuer)
}

/// Judges the claims of a token whose signature has been verified with a key of `provider`.
///
/// # Errors
/// With the first thing that does not hold, in the order iss, aud, exp/nbf/iat, the rest (A7).
pub fn check_claims(
    policy: &Policy,
    provider_name: &EntryName,
    provider: &Provider,
    claims: &Map<String, Value>,
    now: Timestamp,
) -> Result<Caller, TokenRefusal> {
    match read::string(claims, "iss")? {
        Some(issuer) if issuer == provider.issuer.as_str() => {}
        None if provider.flavor == Flavor::Spiffe => {}
        _ => return Err(TokenRefusal::UnknownIssuer),
    }
    audience::check(policy, provider, claims)?;
    let expires = check_times(claims, provider.clock_skew, now)?;
    check_kind_of_token(provider, claims)?;
    kind::check_product(provider, claims)?;
    let binding = Binding::of(provider, claims)?;
    binding::check_says_key(claims, binding)?;

    let subject = read::string(claims, "sub")?.ok_or(TokenRefusal::BadClaim)?;
    let subject = Subject::new(subject).map_err(|_| TokenRefusal::BadClaim)?;
    let client = kind::client(provider, claims)?;
    let token_id = read::string(claims, "jti")?;
    let by_platform = matches!(provider.flavor, Flavor::Kubernetes | Flavor::Spiffe);
    if provider.profile == TokenProfile::Strict
        && !by_platform
        && (client.is_none() || token_id.is_none() || !claims.contains_key("iat"))
    {
        return Err(TokenRefusal::BadClaim);
    }
    groups::check_required(provider, claims)?;
    let kind = kind::caller(provider, claims, &subject, client.as_ref())?;
    let groups = groups::groups(provider, claims, &subject)?;
    let scopes = scopes::scopes(policy, provider, claims, kind, &groups)?;
    let client = if by_platform {
        Some(ClientId::new(subject.as_str()).map_err(|_| TokenRefusal::BadClaim)?)
    } else {
        client
    };
    Ok(Caller {
        provider: provider_name.clone(),
        subject,
        client,
        kind,
        scopes,
        groups,
        actors: actors::actors(claims)?,
        login: login::login(provider, claims)?,
        expires,
        token_id,
        binding,
    })
}

/// `exp`, without the skew.
pub(crate) fn expiry(claims: &Map<String, Value>) -> Result<Timestamp, TokenRefusal> {
    read::numeric_date(claims, "exp")?.map(Timestamp).ok_or(TokenRefusal::BadClaim)
}

/// `iat`.
pub(crate) fn issued_at(claims: &Map<String, Value>) -> Result<Option<Timestamp>, TokenRefusal> {
    Ok(read::numeric_date(claims, "iat")?.map(Timestamp))
}

/// One rule for the three times (A12): the skew is what the provider's clock may differ by, so a token begins that much
/// earlier and ends that much later than it says.
fn check_times(claims: &Map<String, Value>, skew: u32, now: Timestamp) -> Result<Timestamp, TokenRefusal> {
    let expires = expiry(claims)?.plus(skew);
    if now >= expires {
        return Err(TokenRefusal::Expired);
    }
    let ahead = now.plus(skew);
    if read::numeric_date(claims, "nbf")?.is_some_and(|nbf| nbf > ahead.0) {
        return Err(TokenRefusal::NotYetValid);
    }
    if issued_at(claims)?.is_some_and(|iat| iat.0 > ahead.0.saturating_add(FAR_FUTURE)) {
        return Err(TokenRefusal::NotYetValid);
    }
    Ok(expires)
}
