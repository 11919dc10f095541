//! What a provider's answer to an introspection says of a token (RFC 7662 §2.2, RFC 9701 §5), and for whom it counts.
//!
//! Pure: the sidecar asks, and for a signed answer verifies header and signature; everything said is judged here. An answer
//! may end or narrow what a signed token says and never widen it; of an opaque token it is all there is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::bundle::{Flavor, Introspection, IntrospectionRule, Policy, Provider, TokenProfile};
use crate::claims::{Binding, Caller, MAX_SCOPES, TokenRefusal, check_claims, expiry, issued_at};
use crate::ids::{EntryName, ScopeSet, Timestamp, parse_scopes};
use crate::strict_json;

/// An answer older than this is not taken, beside the clock skew, seconds (RFC 9701 §5: `iat`).
const MAX_ANSWER_AGE: u32 = 60;

/// What our handles begin with; one of them is shown to no provider.
const HANDLE_PREFIX: &str = "behalf_";

/// Why an answer says nothing of the token: nobody's fault who calls, so the call is answered 503 (A21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum IntrospectionError {
    /// Not an introspection answer: no JSON object, `active` not a boolean, or a member of the wrong type.
    #[error("the answer is not an introspection answer")]
    Malformed,
    /// A signed answer that is another kind of token, or of another issuer.
    #[error("the answer is not one of the provider")]
    NotTheProviders,
    /// A signed answer that is for somebody else, or of another time.
    #[error("the answer is not for this question")]
    NotForUs,
    /// It speaks of another token than it was asked about.
    #[error("the answer is about another token")]
    AnotherToken,
}

impl IntrospectionError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "IntrospectionMalformed",
            Self::NotTheProviders => "IntrospectionNotSigned",
            Self::NotForUs => "IntrospectionNotForUs",
            Self::AnotherToken => "IntrospectionOfAnotherToken",
        }
    }
}

/// What the provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The token is good; these members describe it.
    Active(Map<String, Value>),
    /// It is not, whatever the cause.
    Inactive,
}

/// Reads a JSON answer (RFC 7662 §2.2).
///
/// # Errors
/// When it is no object without duplicates, or `active` is not literally a boolean.
pub fn read(body: &[u8]) -> Result<Answer, IntrospectionError> {
    let members = strict_json::object(body).map_err(|_| IntrospectionError::Malformed)?;
    answer(members)
}

/// Reads the claims of a signed answer (RFC 9701 §5), whose signature was verified with a key of the provider.
///
/// # Errors
/// When it is not of this provider, not for this client or server, not of now, or holds no answer.
pub fn read_signed(
    policy: &Policy,
    provider: &Provider,
    header: &Map<String, Value>,
    mut claims: Map<String, Value>,
    now: Timestamp,
) -> Result<Answer, IntrospectionError> {
    let kind = header.get("typ").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let right_kind =
        matches!(kind.as_deref(), Some("token-introspection+jwt" | "application/token-introspection+jwt"));
    if !right_kind || claims.get("iss").and_then(Value::as_str) != Some(provider.issuer.as_str()) {
        return Err(IntrospectionError::NotTheProviders);
    }
    let ours = [provider.client_id.as_str(), policy.server.url.as_str()];
    let for_us = match claims.get("aud") {
        Some(Value::String(one)) => ours.contains(&one.as_str()),
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str().is_some_and(|one| ours.contains(&one))),
        _ => false,
    };
    let made = issued_at(&claims).map_err(|_| IntrospectionError::Malformed)?;
    let recent = made.is_some_and(|made| {
        made <= now.plus(provider.clock_skew) && made.plus(provider.clock_skew).plus(MAX_ANSWER_AGE) >= now
    });
    if !for_us || !recent {
        return Err(IntrospectionError::NotForUs);
    }
    match claims.remove("token_introspection") {
        Some(Value::Object(members)) => answer(members),
        _ => Err(IntrospectionError::Malformed),
    }
}

fn answer(members: Map<String, Value>) -> Result<Answer, IntrospectionError> {
    match members.get("active") {
        Some(Value::Bool(true)) => Ok(Answer::Active(members)),
        Some(Value::Bool(false)) => Ok(Answer::Inactive),
        _ => Err(IntrospectionError::Malformed),
    }
}

/// Whether a provider is asked about a JWT with these claims, by its rule.
///
/// # Errors
/// When the claims that say how long it lives are missing or of the wrong type.
pub fn asks_about(rule: &Introspection, claims: &Map<String, Value>) -> Result<bool, TokenRefusal> {
    match rule.rule {
        IntrospectionRule::Never | IntrospectionRule::OpaqueOnly => Ok(false),
        IntrospectionRule::Always => Ok(true),
        IntrospectionRule::LongLived => {
            let expires = expiry(claims)?;
            // One that does not say since when it lives may live for long.
            Ok(issued_at(claims)?.is_none_or(|made| made.plus(rule.long_lived_over) < expires))
        }
    }
}

/// The one provider whose tokens may be opaque. None where there is none, or several: nothing in such a token says whose it
/// is, and it is shown to nobody who did not issue it.
#[must_use]
pub fn takes_opaque(policy: &Policy) -> Option<(&EntryName, &Provider)> {
    let mut takers =
        policy.providers.iter().filter(|(_, provider)| provider.introspection.rule.takes_opaque());
    match (takers.next(), takers.next()) {
        (taker, None) => taker,
        _ => None,
    }
}

/// Whether a token is opaque: no JWT of any kind, damaged or not, and nothing of ours.
#[must_use]
pub fn is_opaque(token: &str) -> bool {
    // A JSON header followed by anything is a JWT, a JWE or a damaged one: judged by it, or not at all (D3, D5).
    let headed = || {
        let (header, _) = token.split_once('.')?;
        strict_json::object(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()
    };
    !(token.split('.').count() == 3 || token.starts_with(HANDLE_PREFIX) || headed().is_some())
}

/// The caller that an opaque token stands for: the answer is judged as the claims of a JWT are (A21).
///
/// # Errors
/// The first thing that does not hold.
pub fn caller_of_opaque(
    policy: &Policy,
    name: &EntryName,
    provider: &Provider,
    mut answer: Map<String, Value>,
    now: Timestamp,
) -> Result<Caller, TokenRefusal> {
    // Optional in an answer (RFC 7662 §2.2): it came from the issuer's own endpoint.
    answer.entry("iss").or_insert_with(|| Value::String(provider.issuer.as_str().to_owned()));
    check_type(&answer, None)?;
    // The members of an answer are those of RFC 7662, whatever the product writes into its JWTs; and of a token that has no
    // claims none can be missing, so that what RFC 9068 asks of a JWT is not asked here.
    let mut reading = provider.clone();
    reading.profile = TokenProfile::Relaxed;
    if provider.flavor != Flavor::Keycloak {
        reading.flavor = Flavor::Generic;
    }
    let caller = check_claims(policy, name, &reading, &answer, now)?;
    check_type(&answer, Some(caller.binding))?;
    Ok(caller)
}

/// What is left of the caller of a signed token after its provider was asked about it: scopes and groups that both say, the
/// earlier end. Groups are kept where the answer does not speak of them.
///
/// # Errors
/// A refusal when the answer ends the token; an error of the answer when it is about another one.
pub fn narrowed(
    policy: &Policy,
    provider: &Provider,
    signed: &Caller,
    claims: &Map<String, Value>,
    answer: &Map<String, Value>,
    now: Timestamp,
) -> Result<Result<Caller, TokenRefusal>, IntrospectionError> {
    // Where both say it, both say the same.
    for member in ["iss", "sub", "jti", "client_id", "azp", "cid", "appid", "cnf", "act"] {
        if let (Some(said), Some(had)) = (answer.get(member), claims.get(member))
            && said != had
        {
            return Err(IntrospectionError::AnotherToken);
        }
    }
    if let Err(refusal) = check_type(answer, None) {
        return Ok(Err(refusal));
    }
    // The token's own claims with those of the answer in their place: judged as any token.
    let mut both = claims.clone();
    for (member, value) in answer {
        if member != "active" && member != "token_type" && member != "username" {
            both.insert(member.clone(), value.clone());
        }
    }
    let fresh = match check_claims(policy, &signed.provider, provider, &both, now) {
        Ok(fresh) => fresh,
        // By itself the token was right, so this is the answer's fault.
        Err(TokenRefusal::BadClaim) => return Err(IntrospectionError::Malformed),
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = check_type(answer, Some(fresh.binding)) {
        return Ok(Err(refusal));
    }
    let mut left = signed.clone();
    left.scopes = signed.scopes.intersection(&fresh.scopes).cloned().collect();
    // The standard member counts whatever form the token's own claim has.
    if let Some(scope) = answer.get("scope") {
        let said: ScopeSet = match scope {
            Value::String(text) => {
                parse_scopes(text, MAX_SCOPES).map_err(|_| IntrospectionError::Malformed)?
            }
            _ => return Err(IntrospectionError::Malformed),
        };
        left.scopes.retain(|scope| said.contains(scope));
    }
    left.groups = signed.groups.intersection(&fresh.groups).cloned().collect();
    left.expires = signed.expires.min(fresh.expires);
    // That of the token, or one that only the answer tells of; where both speak of it, they say the same.
    left.binding = fresh.binding;
    if fresh.kind != signed.kind {
        return Err(IntrospectionError::AnotherToken);
    }
    Ok(Ok(left))
}

/// `token_type` (RFC 6749 §5.1): `DPoP` of a token that is bound to a key and of no other (RFC 9449 §6.2), and what is neither
/// that nor `Bearer` is no access token.
fn check_type(answer: &Map<String, Value>, binding: Option<Binding>) -> Result<(), TokenRefusal> {
    let bound = |to_key: bool| binding.is_none_or(|binding| binding.key.is_some() == to_key);
    let agreed = match answer.get("token_type") {
        None => true,
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => bound(false),
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("dpop") => bound(true),
        // RFC 8693 names kinds of token by URN; some write that here.
        Some(Value::String(kind)) if kind == crate::answer::ACCESS_TOKEN_TYPE => true,
        Some(Value::String(_)) => return Err(TokenRefusal::NotAnAccessToken),
        Some(_) => return Err(TokenRefusal::BadClaim),
    };
    if agreed { Ok(()) } else { Err(TokenRefusal::BindingUnknown) }
}
