//! How and when the caller proved to the provider who it is, and what the provider says of it beyond groups.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{TokenRefusal, issued_at, read};
use crate::bundle::Provider;
use crate::ids::Timestamp;

/// The longest attribute or `acr` that is taken, bytes.
const MAX_TEXT: usize = 256;

/// How the caller logged in, as far as the token says so; absent claims are absent, never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// `auth_time`: when the person last proved who they are (OpenID Connect Core §2).
    pub at: Option<Timestamp>,
    /// `iat`: when the token was made, which tells whether it can be the answer to a challenge.
    pub issued: Option<Timestamp>,
    /// `acr`: the class of that proof (RFC 9470 §2).
    pub acr: Option<String>,
    /// Further claims that the provider's configuration names, for conditions on arguments.
    pub attributes: BTreeMap<String, String>,
}

/// Reads it from verified claims.
///
/// # Errors
/// A claim that is there is of the wrong type or too long.
pub(super) fn login(provider: &Provider, claims: &Map<String, Value>) -> Result<Login, TokenRefusal> {
    let short = |text: String| if text.len() > MAX_TEXT { Err(TokenRefusal::BadClaim) } else { Ok(text) };
    let mut attributes = BTreeMap::new();
    for (name, pointer) in &provider.tokens.attributes {
        if let Some(value) = read::pointer(claims, pointer)? {
            let Value::String(text) = value else { return Err(TokenRefusal::BadClaim) };
            attributes.insert(name.clone(), short(text.clone())?);
        }
    }
    Ok(Login {
        at: read::numeric_date(claims, "auth_time")?.map(Timestamp),
        issued: issued_at(claims)?,
        acr: read::string(claims, "acr")?.map(short).transpose()?,
        attributes,
    })
}
