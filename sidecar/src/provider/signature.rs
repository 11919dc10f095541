//! The signature of a token, and nothing but the signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::bundle::Algorithm;
use behalf_policy::claims::{MAX_TOKEN_BYTES, TokenRefusal};
use behalf_policy::dpop::{Proof, PublicKey};
use behalf_policy::strict_json;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::key_set::Key;

/// A compact JWS taken apart, not yet believed (RFC 7515 §3.1).
pub struct Jws<'a> {
    /// The protected header.
    pub header: Map<String, Value>,
    /// The payload.
    pub claims: Map<String, Value>,
    /// What is signed: the first two segments with the dot between them.
    pub signing_input: &'a str,
    /// The third segment, base64url as it came, never empty.
    pub signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Takes a token apart: exactly three segments of strict base64url, two of them JSON objects without
    /// duplicate members.
    ///
    /// # Errors
    /// When it is too large or anything else.
    pub fn parse(token: &'a str) -> Result<Self, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::TooLarge);
        }
        let mut segments = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(TokenRefusal::Malformed);
        };
        let decode = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenRefusal::Malformed);
        let object = |bytes: &[u8]| strict_json::object(bytes).map_err(|_| TokenRefusal::Malformed);
        if decode(signature)?.is_empty() {
            return Err(TokenRefusal::Malformed);
        }
        let signed = header.len().saturating_add(1).saturating_add(payload.len());
        Ok(Self {
            header: object(&decode(header)?)?,
            claims: object(&decode(payload)?)?,
            signing_input: token.get(..signed).ok_or(TokenRefusal::Malformed)?,
            signature,
        })
    }
}

/// Whether `signature` (base64url) over `signing_input` was made with the private part of `key`. False
/// when the key is not one for this algorithm.
#[must_use]
pub fn verify(key: &Key, algorithm: Algorithm, signing_input: &str, signature: &str) -> bool {
    key.serves(algorithm) && verify_with(key.decoding(), algorithm, signing_input, signature)
}

/// Whether a DPoP proof was signed with the private part of the key it shows (RFC 9449 §4.3, 7). Whose key that is, it does
/// not say.
#[must_use]
pub fn verify_by_own_key(proof: &Proof<'_>) -> bool {
    let key = match &proof.key {
        PublicKey::Rsa { n, e } => DecodingKey::from_rsa_components(n, e),
        PublicKey::Ec { x, y, .. } => DecodingKey::from_ec_components(x, y),
        PublicKey::Ed25519 { x } => DecodingKey::from_ed_components(x),
    };
    key.is_ok_and(|key| verify_with(&key, proof.algorithm, proof.signing_input, proof.signature))
}

fn verify_with(key: &DecodingKey, algorithm: Algorithm, signing_input: &str, signature: &str) -> bool {
    let algorithm = match algorithm {
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    };
    // An error is a malformed signature or key, hence no proof.
    jsonwebtoken::crypto::verify(signature, signing_input.as_bytes(), key, algorithm).unwrap_or(false)
}
