//! The check of a token-exchange answer: it must be what was asked, or it is discarded.
//!
//! Providers are honest but careless: they ignore parameters, add scopes, drop audiences and issue
//! tokens that outlive what they were made from. Nothing of an answer is used before it passed here.

use serde_json::{Map, Value};

use crate::bundle::Provider;
use crate::claims::{MAX_SCOPES, MAX_TOKEN_BYTES, check_kind_of_token};
use crate::decision::ExchangeOrder;
use crate::ids::{ScopeSet, Timestamp, parse_scopes};

/// The only token type asked for and taken (RFC 8693 §3).
pub const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// A token is no longer used when it has less than this many seconds to live.
pub const EXPIRY_MARGIN: u32 = 5;

/// Why an answer was discarded. Closed; repeats nothing of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum AnswerRefusal {
    /// A member is missing or of the wrong type.
    #[error("the answer is not an RFC 8693 answer")]
    Malformed,
    /// `issued_token_type` is not an access token.
    #[error("the answer is not an access token")]
    WrongTokenType,
    /// `token_type` is not Bearer.
    #[error("the token is not a bearer token")]
    NotBearer,
    /// The subject token came back.
    #[error("the provider echoed the subject token")]
    SubjectTokenEchoed,
    /// The token is of another issuer.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// The signature, header or kind of the token does not hold.
    #[error("the token does not verify")]
    NotVerified,
    /// `aud` is not exactly the target.
    #[error("the token's audience is not exactly the target")]
    WrongAudience,
    /// `sub` is not the caller.
    #[error("the token is for another subject")]
    WrongSubject,
    /// The token was issued to another client.
    #[error("the token was issued to another client")]
    WrongClient,
    /// Scopes beyond the asked set.
    #[error("the token carries scopes that were not asked for")]
    ScopeBeyondAsked,
    /// Less than what was asked.
    #[error("the token lacks scopes that were asked for")]
    ScopeNarrower,
    /// Lives longer than the absolute bound.
    #[error("the token lives longer than allowed")]
    LivesTooLong,
    /// Already over, or nearly.
    #[error("the token has no usable life left")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Bound to a key that was not asked for.
    #[error("the token is bound to a key")]
    UnexpectedBinding,
}

impl AnswerRefusal {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "AnswerMalformed",
            Self::WrongTokenType => "AnswerWrongTokenType",
            Self::NotBearer => "AnswerNotBearer",
            Self::SubjectTokenEchoed => "AnswerEchoesSubjectToken",
            Self::WrongIssuer => "AnswerWrongIssuer",
            Self::NotVerified => "AnswerNotVerified",
            Self::WrongAudience => "AnswerWrongAudience",
            Self::WrongSubject => "AnswerWrongSubject",
            Self::WrongClient => "AnswerWrongClient",
            Self::ScopeBeyondAsked => "AnswerScopeBeyondAsked",
            Self::ScopeNarrower => "AnswerScopeNarrower",
            Self::LivesTooLong => "AnswerLivesTooLong",
            Self::Expired => "AnswerExpired",
            Self::NotYetValid => "AnswerNotYetValid",
            Self::UnexpectedBinding => "AnswerUnexpectedBinding",
        }
    }
}

/// What the token endpoint said, before the token itself is looked at. Borrows the token.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// The token; never logged.
    pub access_token: &'a str,
    /// Seconds it lives, when the provider said so.
    pub expires_in: Option<u32>,
}

/// Judges the members of the token response (RFC 8693 §2.2.1).
///
/// # Errors
/// When it is not an access token, not a bearer token, echoes `subject_token`, or its `scope` is not
/// what was asked.
pub fn check_response<'a>(
    answer: &'a Map<String, Value>,
    order: &ExchangeOrder,
    provider: &Provider,
    subject_token: &str,
) -> Result<Response<'a>, AnswerRefusal> {
    let text = |name: &str| match answer.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(AnswerRefusal::Malformed),
    };
    if text("issued_token_type")? != Some(ACCESS_TOKEN_TYPE) {
        return Err(AnswerRefusal::WrongTokenType);
    }
    if !text("token_type")?.is_some_and(|t| t.eq_ignore_ascii_case("bearer")) {
        return Err(AnswerRefusal::NotBearer);
    }
    let access_token = text("access_token")?.ok_or(AnswerRefusal::Malformed)?;
    if access_token.is_empty() || access_token.len() > MAX_TOKEN_BYTES {
        return Err(AnswerRefusal::Malformed);
    }
    if access_token == subject_token {
        return Err(AnswerRefusal::SubjectTokenEchoed);
    }
    if let Some(scope) = text("scope")? {
        check_scopes(scope, order, provider)?;
    }
    let expires_in = match answer.get("expires_in") {
        None => None,
        Some(Value::Number(n)) => {
            Some(n.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or(AnswerRefusal::Malformed)?)
        }
        Some(_) => return Err(AnswerRefusal::Malformed),
    };
    Ok(Response { access_token, expires_in })
}

/// Judges the claims of the answered token, whose signature was verified with a key of `provider`.
/// Returns until when it may be used: never longer than its subject token lives.
///
/// # Errors
/// When issuer, audience, subject, client, scope or life are not what was asked.
pub fn check_token(
    claims: &Map<String, Value>,
    response: Response<'_>,
    order: &ExchangeOrder,
    provider: &Provider,
    now: Timestamp,
) -> Result<Timestamp, AnswerRefusal> {
    let text = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(AnswerRefusal::Malformed),
    };
    if text("iss")? != Some(provider.issuer.as_str()) {
        return Err(AnswerRefusal::WrongIssuer);
    }
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => Some(one.as_str()),
        Some(Value::Array(items)) => match items.as_slice() {
            [Value::String(one)] => Some(one.as_str()),
            _ => None,
        },
        _ => None,
    };
    if audience != Some(order.audience().as_str()) {
        return Err(AnswerRefusal::WrongAudience);
    }
    if text("sub")? != Some(order.subject().as_str()) {
        return Err(AnswerRefusal::WrongSubject);
    }
    for member in ["client_id", "azp"] {
        if text(member)?.is_some_and(|client| client != provider.client_id.as_str()) {
            return Err(AnswerRefusal::WrongClient);
        }
    }
    // We hold no key that it could be bound to.
    if claims.contains_key("cnf") || text("typ")? == Some("DPoP") {
        return Err(AnswerRefusal::UnexpectedBinding);
    }
    check_kind_of_token(provider, claims).map_err(|_| AnswerRefusal::NotVerified)?;
    // The token itself must say its scopes; what the response says of it is no proof.
    check_scopes(text("scope")?.ok_or(AnswerRefusal::ScopeNarrower)?, order, provider)?;
    check_life(claims, response, order, provider, now)
}

fn check_life(
    claims: &Map<String, Value>,
    response: Response<'_>,
    order: &ExchangeOrder,
    provider: &Provider,
    now: Timestamp,
) -> Result<Timestamp, AnswerRefusal> {
    let date = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(n)) => n.as_i64().filter(|n| *n >= 0).map(Some).ok_or(AnswerRefusal::Malformed),
        Some(_) => Err(AnswerRefusal::Malformed),
    };
    let expires = date("exp")?.ok_or(AnswerRefusal::Malformed)?;
    let ahead = now.plus(provider.clock_skew);
    if date("nbf")?.is_some_and(|nbf| nbf > ahead.0) || date("iat")?.is_some_and(|iat| iat > ahead.0) {
        return Err(AnswerRefusal::NotYetValid);
    }
    if expires > ahead.plus(order.max_lifetime()).0 {
        return Err(AnswerRefusal::LivesTooLong);
    }
    let mut until = Timestamp(expires).min(order.subject_expires());
    if let Some(seconds) = response.expires_in {
        until = until.min(now.plus(seconds));
    }
    let until = until.minus(EXPIRY_MARGIN);
    if until <= now {
        return Err(AnswerRefusal::Expired);
    }
    Ok(until)
}

fn check_scopes(text: &str, order: &ExchangeOrder, provider: &Provider) -> Result<(), AnswerRefusal> {
    let granted: ScopeSet = parse_scopes(text, MAX_SCOPES).map_err(|_| AnswerRefusal::Malformed)?;
    if granted.iter().any(|s| !order.scopes().contains(s) && !provider.ignored_scopes.contains(s)) {
        return Err(AnswerRefusal::ScopeBeyondAsked);
    }
    if !order.scopes().is_subset(&granted) {
        return Err(AnswerRefusal::ScopeNarrower);
    }
    Ok(())
}
