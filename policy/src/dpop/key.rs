//! The public key of a proof (RFC 7517, RFC 7518 §6, RFC 8037 §2) and its thumbprint (RFC 7638).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::ProofRefusal;
use crate::bundle::Algorithm;

/// RSA moduli of fewer bytes are not taken (RFC 7518 §3.3).
const MIN_RSA: usize = 256;
/// RSA moduli of more bytes are not taken: anybody can make a key, and we would do the work.
const MAX_RSA: usize = 512;
/// The private parts of asymmetric keys, and the one of symmetric ones.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key that fits its algorithm. Members are base64url in their one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA, of 2048 to 4096 bits.
    Rsa {
        /// Modulus.
        n: String,
        /// Exponent.
        e: String,
    },
    /// A point of P-256 or P-384.
    Ec {
        /// The curve's name.
        curve: &'static str,
        /// X coordinate.
        x: String,
        /// Y coordinate.
        y: String,
    },
    /// An Ed25519 key.
    Ed25519 {
        /// The key.
        x: String,
    },
}

impl PublicKey {
    /// Reads a JWK for a proof that names `algorithm` as `named`.
    ///
    /// # Errors
    /// When it is private, symmetric, malformed, weak, or a key for something else.
    pub(super) fn read(
        jwk: &Map<String, Value>,
        algorithm: Algorithm,
        named: &str,
    ) -> Result<Self, ProofRefusal> {
        if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
            return Err(ProofRefusal::PrivateKey);
        }
        let is = |member: &str, text: &str| jwk.get(member).and_then(Value::as_str) == Some(text);
        let may_be = |member: &str, text: &str| !jwk.contains_key(member) || is(member, text);
        if !may_be("use", "sig") || !may_be("alg", named) {
            return Err(ProofRefusal::KeyNotUsable);
        }
        let read = |member: &str| {
            let text = jwk.get(member).and_then(Value::as_str)?;
            // The strict decoder takes one spelling only, so that a key has one thumbprint.
            Some((text.to_owned(), URL_SAFE_NO_PAD.decode(text).ok()?))
        };
        let of_length = |member: &str, length: usize| {
            let (text, bytes) = read(member)?;
            (bytes.len() == length).then_some(text)
        };
        let ec = |curve: &'static str, length: usize| {
            (is("kty", "EC") && is("crv", curve))
                .then(|| Some(Self::Ec { curve, x: of_length("x", length)?, y: of_length("y", length)? }))?
        };
        let key = match algorithm {
            Algorithm::ES256 => ec("P-256", 32),
            Algorithm::ES384 => ec("P-384", 48),
            Algorithm::EdDSA => (is("kty", "OKP") && is("crv", "Ed25519"))
                .then(|| Some(Self::Ed25519 { x: of_length("x", 32)? }))
                .flatten(),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => is("kty", "RSA").then(|| rsa(read("n")?, read("e")?)).flatten(),
        };
        key.ok_or(ProofRefusal::KeyNotUsable)
    }

    /// What its thumbprint is the SHA-256 of: the required members in the order of their names (RFC 7638 §3).
    #[must_use]
    pub fn thumbprint_input(&self) -> String {
        // Base64url and names of curves need no escaping.
        match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { curve, x, y } => format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        }
    }
}

/// In the fewest bytes (RFC 7518 §6.3.1): with leading zeros one key would have several thumbprints.
fn rsa((n, modulus): (String, Vec<u8>), (e, exponent): (String, Vec<u8>)) -> Option<PublicKey> {
    let shortest = |bytes: &[u8]| bytes.first().is_some_and(|first| *first != 0);
    // Full bytes: 2048 bits have the top one set.
    let strong = (MIN_RSA..=MAX_RSA).contains(&modulus.len())
        && (modulus.len() > MIN_RSA || modulus.first().is_some_and(|first| *first >= 0x80));
    let odd_and_small =
        (1..=4).contains(&exponent.len()) && exponent.last().is_some_and(|b| b % 2 == 1) && exponent != [1];
    (shortest(&modulus) && shortest(&exponent) && strong && odd_and_small).then_some(PublicKey::Rsa { n, e })
}
