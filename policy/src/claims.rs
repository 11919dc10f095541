//! The claims of an inbound access token, judged in the order of RFC 9068 §4 and RFC 8725.
//!
//! The signature is checked by the sidecar between [`check_header`] and [`check_claims`]; everything
//! else about a token is decided here. A claim of the wrong JSON type is a refusal, never "absent".

mod header;
mod read;

use std::collections::BTreeSet;

pub use header::{HeaderFacts, check_header};
use serde_json::{Map, Value};

use crate::bundle::document::CallerKind;
use crate::bundle::{Flavor, Policy, Provider, TokenProfile};
use crate::ids::{ClientId, EntryName, Group, Issuer, ScopeSet, Subject, Timestamp, parse_scopes};

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
    /// `client_id` or `azp`: the client the token was issued to.
    pub client: Option<ClientId>,
    /// Person or program.
    pub kind: CallerKind,
    /// Scopes presented.
    pub scopes: ScopeSet,
    /// Groups the provider says the caller is in.
    pub groups: BTreeSet<Group>,
    /// Depth of the token's `act` chain.
    pub actor_depth: u8,
    /// When the token ends; nothing made from it is used longer.
    pub expires: Timestamp,
    /// The token's `jti`, to be hashed before it is recorded.
    pub token_id: Option<String>,
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
    /// The provider replaced groups by a reference (A28).
    #[error("the token does not carry all groups of its subject")]
    GroupsOverage,
    /// The token is bound to a key that this request does not prove (A24).
    #[error("the token is bound to a key that was not proved")]
    BoundToken,
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
            Self::GroupsOverage => "GroupsOverage",
            Self::BoundToken => "BoundToken",
        }
    }
}

/// Picks the provider by the token's unverified `iss` (A31). Trusts nothing else of it.
///
/// # Errors
/// When `iss` is missing, no string, or of no configured provider.
pub fn select_provider<'a>(
    policy: &'a Policy,
    claims: &Map<String, Value>,
) -> Result<(&'a EntryName, &'a Provider), TokenRefusal> {
    let issuer = read::string(claims, "iss")?.ok_or(TokenRefusal::BadClaim)?;
    let issuer = Issuer::new(issuer).map_err(|_| TokenRefusal::BadClaim)?;
    let name = policy.issuers.get(&issuer).ok_or(TokenRefusal::UnknownIssuer)?;
    policy.providers.get_key_value(name).ok_or(TokenRefusal::UnknownIssuer)
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
    if read::string(claims, "iss")?.as_deref() != Some(provider.issuer.as_str()) {
        return Err(TokenRefusal::UnknownIssuer);
    }
    let audiences = read::string_or_array(claims, "aud")?.ok_or(TokenRefusal::WrongAudience)?;
    if !audiences.iter().any(|a| a == policy.server.url.as_str()) {
        return Err(TokenRefusal::WrongAudience);
    }
    let expires = check_times(claims, provider.clock_skew, now)?;
    check_kind_of_token(provider, claims)?;

    let subject = read::string(claims, "sub")?.ok_or(TokenRefusal::BadClaim)?;
    let subject = Subject::new(subject).map_err(|_| TokenRefusal::BadClaim)?;
    let client = client_of(claims)?;
    let token_id = read::string(claims, "jti")?;
    if provider.profile == TokenProfile::Strict
        && (client.is_none() || token_id.is_none() || !claims.contains_key("iat"))
    {
        return Err(TokenRefusal::BadClaim);
    }
    let scopes = match read::string(claims, "scope")? {
        Some(text) => parse_scopes(&text, MAX_SCOPES).map_err(|_| TokenRefusal::BadClaim)?,
        None => ScopeSet::new(),
    };
    // A workload's token names its own client as the subject (A13).
    let kind = match &client {
        Some(client) if client.as_str() == subject.as_str() => CallerKind::Workload,
        _ => CallerKind::User,
    };
    Ok(Caller {
        provider: provider_name.clone(),
        subject,
        client,
        kind,
        scopes,
        groups: groups_of(provider, claims)?,
        actor_depth: actor_depth(claims)?,
        expires,
        token_id,
    })
}

fn check_times(claims: &Map<String, Value>, skew: u32, now: Timestamp) -> Result<Timestamp, TokenRefusal> {
    let skew = i64::from(skew);
    let expires = read::numeric_date(claims, "exp")?.ok_or(TokenRefusal::BadClaim)?;
    if now.0 >= expires.saturating_add(skew) {
        return Err(TokenRefusal::Expired);
    }
    if read::numeric_date(claims, "nbf")?.is_some_and(|nbf| nbf > now.0.saturating_add(skew)) {
        return Err(TokenRefusal::NotYetValid);
    }
    let far = now.0.saturating_add(skew).saturating_add(FAR_FUTURE);
    if read::numeric_date(claims, "iat")?.is_some_and(|iat| iat > far) {
        return Err(TokenRefusal::NotYetValid);
    }
    Ok(Timestamp(expires))
}

/// Refuses what is known not to be an access token, whatever its header says (A8).
pub(crate) fn check_kind_of_token(
    provider: &Provider,
    claims: &Map<String, Value>,
) -> Result<(), TokenRefusal> {
    const ID_TOKEN_ONLY: [&str; 3] = ["nonce", "at_hash", "c_hash"];
    const LOGOUT_ONLY: &str = "events";
    if ID_TOKEN_ONLY.iter().any(|c| claims.contains_key(*c)) || claims.contains_key(LOGOUT_ONLY) {
        return Err(TokenRefusal::NotAnAccessToken);
    }
    // Keycloak says in the payload what a token is; a bound one says `DPoP`.
    match read::string(claims, "typ")?.as_deref() {
        None if provider.flavor == Flavor::Keycloak => return Err(TokenRefusal::NotAnAccessToken),
        None | Some("Bearer") => {}
        Some("DPoP") => return Err(TokenRefusal::BoundToken),
        Some(_) => return Err(TokenRefusal::NotAnAccessToken),
    }
    // Proof of possession comes with its own issue; a bound token is never taken as a bearer token.
    if claims.contains_key("cnf") {
        return Err(TokenRefusal::BoundToken);
    }
    Ok(())
}

fn client_of(claims: &Map<String, Value>) -> Result<Option<ClientId>, TokenRefusal> {
    let client_id = read::string(claims, "client_id")?;
    let azp = read::string(claims, "azp")?;
    if let (Some(a), Some(b)) = (&client_id, &azp)
        && a != b
    {
        return Err(TokenRefusal::BadClaim);
    }
    client_id.or(azp).map(ClientId::new).transpose().map_err(|_| TokenRefusal::BadClaim)
}

fn groups_of(provider: &Provider, claims: &Map<String, Value>) -> Result<BTreeSet<Group>, TokenRefusal> {
    if claims.contains_key("_claim_names") || claims.contains_key("hasgroups") {
        return Err(TokenRefusal::GroupsOverage);
    }
    let Some(values) = read::pointer_strings(claims, &provider.groups_claim)? else {
        return Ok(BTreeSet::new());
    };
    if values.len() > MAX_GROUPS {
        return Err(TokenRefusal::GroupsOverage);
    }
    values.into_iter().map(Group::new).collect::<Result<_, _>>().map_err(|_| TokenRefusal::BadClaim)
}

fn actor_depth(claims: &Map<String, Value>) -> Result<u8, TokenRefusal> {
    let mut depth = 0_u8;
    let mut at = claims.get("act");
    while let Some(actor) = at {
        let Value::Object(actor) = actor else { return Err(TokenRefusal::BadClaim) };
        depth = depth.checked_add(1).ok_or(TokenRefusal::BadClaim)?;
        at = actor.get("act");
    }
    Ok(depth)
}
