//! DPoP proofs (RFC 9449 §4): a JWT with which the sender of a token shows, for one request, that it holds the key the token
//! is bound to.
//!
//! Pure: what is cheap is judged first, by [`Proof::read`] and [`Proof::check`] in this order; the sidecar verifies the
//! signature with the proof's own key after that, and remembers the proof last. That the key is the token's is judged by
//! [`crate::claims::check_binding`]. Nothing here holds or repeats a token.

mod key;
mod target;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use key::PublicKey;
use serde_json::{Map, Value};
pub use target::same_target;

use crate::bundle::Algorithm;
use crate::claims::{asks_for_more, issued_at};
use crate::ids::Timestamp;
use crate::strict_json;

/// No proof is longer than this many bytes.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;
/// No `jti` and no nonce is longer than this many bytes.
const MAX_ID: usize = 256;
/// Algorithms that proofs may be signed by, as `algs` of a challenge and the metadata name them (RFC 9449 §7.1).
pub const ALGORITHMS: [&str; 10] =
    ["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// Why a proof was not taken. Closed; says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ProofRefusal {
    /// No `DPoP` header field.
    #[error("the request has no proof")]
    Missing,
    /// More than one `DPoP` header field.
    #[error("the request has several proofs")]
    Several,
    /// More than [`MAX_PROOF_BYTES`].
    #[error("the proof is too large")]
    TooLarge,
    /// Not three base64url segments, two of them JSON objects without duplicates.
    #[error("the proof is malformed")]
    Malformed,
    /// `typ` is not `dpop+jwt`.
    #[error("what came is not a proof")]
    NotAProof,
    /// `alg` is missing, `none`, symmetric or unknown.
    #[error("the proof's algorithm is not accepted")]
    AlgorithmNotAllowed,
    /// `crit`, `b64`, `zip`, `enc` or `cty` in the header.
    #[error("the proof's header asks for something that is not supported")]
    UnsupportedHeader,
    /// `jwk` is missing, malformed, weak, or not of the algorithm.
    #[error("the proof's key is not usable")]
    KeyNotUsable,
    /// `jwk` holds a private or a symmetric key.
    #[error("the proof shows a private key")]
    PrivateKey,
    /// A claim is missing, out of bounds or of the wrong type.
    #[error("a claim of the proof is missing or of the wrong type")]
    BadClaim,
    /// `htm` is another method.
    #[error("the proof is for another method")]
    OtherMethod,
    /// `htu` is another target.
    #[error("the proof is for another target")]
    OtherTarget,
    /// `ath` is not the hash of the token.
    #[error("the proof is for another token")]
    OtherToken,
    /// A nonce is demanded, and the proof has none of ours, or an old one (RFC 9449 §9).
    #[error("the proof needs a fresh nonce")]
    NonceNeeded,
    /// `iat` is outside the window, or the proof has ended or not begun by its own words.
    #[error("the proof is not of now")]
    NotFresh,
    /// The signature does not verify with `jwk`.
    #[error("the proof's signature does not verify")]
    BadSignature,
    /// The proof was seen before (RFC 9449 §11.1).
    #[error("the proof was used before")]
    Replayed,
}

impl ProofRefusal {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "ProofMissing",
            Self::Several => "SeveralProofs",
            Self::TooLarge => "ProofTooLarge",
            Self::Malformed => "ProofMalformed",
            Self::NotAProof => "NotAProof",
            Self::AlgorithmNotAllowed => "ProofAlgorithmNotAllowed",
            Self::UnsupportedHeader => "UnsupportedProofHeader",
            Self::KeyNotUsable => "ProofKeyNotUsable",
            Self::PrivateKey => "ProofKeyPrivate",
            Self::BadClaim => "ProofBadClaim",
            Self::OtherMethod => "ProofOfAnotherMethod",
            Self::OtherTarget => "ProofOfAnotherTarget",
            Self::OtherToken => "ProofOfAnotherToken",
            Self::NonceNeeded => "ProofNonceNeeded",
            Self::NotFresh => "ProofNotFresh",
            Self::BadSignature => "ProofBadSignature",
            Self::Replayed => "ProofReplayed",
        }
    }
}

/// A proof taken apart, whose header holds. Not yet believed.
pub struct Proof<'a> {
    /// By which it says to be signed.
    pub algorithm: Algorithm,
    /// The key it says to be signed with.
    pub key: PublicKey,
    /// What is signed: the first two segments with the dot between them.
    pub signing_input: &'a str,
    /// The third segment, base64url as it came, never empty.
    pub signature: &'a str,
    claims: Map<String, Value>,
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proof").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What a proof has to be for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Scheme and authority of the server, as its callers know it: never what the request says of it.
    pub origin: &'a str,
    /// The request's path.
    pub path: &'a str,
    /// SHA-256 of the token that came with it.
    pub token_hash: [u8; 32],
    /// How far a proof may be from now, either way, seconds.
    pub max_age: u32,
    /// Whether a nonce is demanded.
    pub nonce: Nonce,
}

/// What is known of the nonce of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonce {
    /// None is given out, so that none is looked at.
    NotDemanded,
    /// One is demanded; the proof's was given out at this moment, or is none of ours.
    Demanded(Option<Timestamp>),
}

/// What has to be remembered of a proof that was taken, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Its `jti`; unique for its key only.
    pub id: String,
    /// From this moment on it would not be taken any more.
    pub until: Timestamp,
}

impl<'a> Proof<'a> {
    /// Takes the proof of a request apart and judges its header. `lines` are its `DPoP` header fields; none for one that is
    /// no text.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn read(lines: impl IntoIterator<Item = Option<&'a str>>) -> Result<Self, ProofRefusal> {
        let mut lines = lines.into_iter();
        let line = lines.next().ok_or(ProofRefusal::Missing)?;
        if lines.next().is_some() {
            return Err(ProofRefusal::Several);
        }
        let text = line.ok_or(ProofRefusal::Malformed)?;
        if text.len() > MAX_PROOF_BYTES {
            return Err(ProofRefusal::TooLarge);
        }
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(ProofRefusal::Malformed);
        };
        let decode = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| ProofRefusal::Malformed);
        let object =
            |segment: &str| strict_json::object(&decode(segment)?).map_err(|_| ProofRefusal::Malformed);
        let signed = header.len().saturating_add(1).saturating_add(payload.len());
        let signing_input = text.get(..signed).ok_or(ProofRefusal::Malformed)?;
        let (header, claims) = (object(header)?, object(payload)?);
        let (algorithm, key) = check_header(&header)?;
        // Also of `none`, which was told apart before.
        if decode(signature)?.is_empty() {
            return Err(ProofRefusal::Malformed);
        }
        Ok(Self { algorithm, key, signing_input, signature, claims })
    }

    /// The nonce it carries, whoever gave it out.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.claims.get("nonce").and_then(Value::as_str)
    }

    /// Judges what the proof is for.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self, expected: &Expected<'_>, now: Timestamp) -> Result<Once, ProofRefusal> {
        let text = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(ProofRefusal::BadClaim),
        };
        let there = |name: &str| text(name)?.ok_or(ProofRefusal::BadClaim);
        let bounded = |id: &str| !id.is_empty() && id.len() <= MAX_ID;
        let id = there("jti")?;
        let made = issued_at(&self.claims).ok().flatten().ok_or(ProofRefusal::BadClaim)?;
        if !bounded(id) || text("nonce")?.is_some_and(|nonce| !bounded(nonce)) {
            return Err(ProofRefusal::BadClaim);
        }
        if there("htm")? != expected.method {
            return Err(ProofRefusal::OtherMethod);
        }
        if !same_target(there("htu")?, expected.origin, expected.path) {
            return Err(ProofRefusal::OtherTarget);
        }
        if there("ath")? != URL_SAFE_NO_PAD.encode(expected.token_hash) {
            return Err(ProofRefusal::OtherToken);
        }
        let until = match expected.nonce {
            Nonce::NotDemanded => {
                if made > now.plus(expected.max_age) || made.plus(expected.max_age) < now {
                    return Err(ProofRefusal::NotFresh);
                }
                made.plus(expected.max_age).plus(1)
            }
            // Our own word for when it was made at the earliest, so that the caller's clock does not count (§4.3, 11).
            Nonce::Demanded(Some(given)) if given <= now && now < given.plus(expected.max_age) => {
                given.plus(expected.max_age)
            }
            Nonce::Demanded(_) => return Err(ProofRefusal::NonceNeeded),
        };
        self.check_own_times(now)?;
        Ok(Once { id: id.to_owned(), until })
    }

    /// A proof need not say when it ends or begins; one that does is held to it (RFC 7519 §4.1.4, §4.1.5).
    fn check_own_times(&self, now: Timestamp) -> Result<(), ProofRefusal> {
        let date = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(Value::Number(date)) => date.as_i64().map(Some).ok_or(ProofRefusal::BadClaim),
            Some(_) => Err(ProofRefusal::BadClaim),
        };
        if date("exp")?.is_some_and(|end| end <= now.0) || date("nbf")?.is_some_and(|begin| begin > now.0) {
            return Err(ProofRefusal::NotFresh);
        }
        Ok(())
    }
}

/// The header of a proof (RFC 9449 §4.2, RFC 7515 §4.1). Other references to a key than `jwk` are never looked at.
fn check_header(header: &Map<String, Value>) -> Result<(Algorithm, PublicKey), ProofRefusal> {
    if header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
        return Err(ProofRefusal::NotAProof);
    }
    let named = header.get("alg").and_then(Value::as_str).ok_or(ProofRefusal::AlgorithmNotAllowed)?;
    let algorithm = Algorithm::from_jose(named).ok_or(ProofRefusal::AlgorithmNotAllowed)?;
    if asks_for_more(header) {
        return Err(ProofRefusal::UnsupportedHeader);
    }
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or(ProofRefusal::KeyNotUsable)?;
    let key = PublicKey::read(jwk, algorithm, named)?;
    Ok((algorithm, key))
}
