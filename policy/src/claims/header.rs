//! The protected header of a token (RFC 7515 §4.1, RFC 8725 §3.1, RFC 9068 §4).

use serde_json::{Map, Value};

use super::{TokenRefusal, read};
use crate::bundle::{Algorithm, Flavor, Provider, TokenProfile};

/// A key id longer than this many bytes is refused (D6).
const MAX_KEY_ID: usize = 512;

/// What the header says that key selection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFacts {
    /// An accepted algorithm.
    pub algorithm: Algorithm,
    /// Which key, when the issuer says so.
    pub key_id: Option<String>,
}

/// Judges a token's header. Embedded or referenced keys (`jwk`, `jku`, `x5u`, `x5c`) are never looked at.
///
/// # Errors
/// When the algorithm is not the issuer's, the token is of another kind, or an extension is asked for.
pub fn check_header(provider: &Provider, header: &Map<String, Value>) -> Result<HeaderFacts, TokenRefusal> {
    let facts = check_signed_header(provider, header)?;
    let kind = read::string(header, "typ")?.map(|t| t.to_ascii_lowercase());
    let access_token = match (provider.flavor, kind.as_deref()) {
        // Neither writes an access token's type, and neither issues any other kind of token.
        (Flavor::Kubernetes, kind) => matches!(kind, None | Some("jwt")),
        (Flavor::Spiffe, kind) => matches!(kind, None | Some("jwt" | "jose")),
        (_, Some("at+jwt" | "application/at+jwt")) => true,
        (_, None | Some("jwt")) => provider.profile == TokenProfile::Relaxed,
        (_, Some(_)) => false,
    };
    if access_token { Ok(facts) } else { Err(TokenRefusal::NotAnAccessToken) }
}

/// Judges what the header of any JWT of the provider must be, whatever kind of JWT it is.
///
/// # Errors
/// As [`check_header`], the kind of token apart.
pub fn check_signed_header(
    provider: &Provider,
    header: &Map<String, Value>,
) -> Result<HeaderFacts, TokenRefusal> {
    let algorithm = read::string(header, "alg")?.as_deref().and_then(Algorithm::from_jose);
    let algorithm = algorithm.ok_or(TokenRefusal::AlgorithmNotAllowed)?;
    if !provider.algorithms.contains(&algorithm) {
        return Err(TokenRefusal::AlgorithmNotAllowed);
    }
    if asks_for_more(header) {
        return Err(TokenRefusal::UnsupportedHeader);
    }
    let key_id = read::string(header, "kid")?;
    if key_id.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KEY_ID) {
        return Err(TokenRefusal::UnknownKey);
    }
    Ok(HeaderFacts { algorithm, key_id })
}

/// Whether a header asks for what is not done here (RFC 7515 §4.1.11, RFC 7797, RFC 7516 §4.1): whoever passed over it would
/// read another token than was meant.
pub(crate) fn asks_for_more(header: &Map<String, Value>) -> bool {
    ["crit", "b64", "zip", "enc", "cty"].iter().any(|member| header.contains_key(*member))
}
