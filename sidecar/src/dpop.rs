//! DPoP at the sidecar (RFC 9449): proofs verified, remembered so that each is good once, and the nonces they may need.
//!
//! What a proof says is judged by `behalf_policy::dpop`. In this order: what it is for, its signature, whether its key is
//! the one the token is bound to, and only then is it remembered: what nobody with a good token and its key sent takes no
//! memory. All of it is of this replica and of this start: see `docs/adr/0012-bound-tokens.md`.

mod nonces;
mod replays;

use behalf_policy::bundle::{NonceRule, Provider};
use behalf_policy::claims::{Caller, Presented, Scheme, Thumbprint, TokenRefusal, check_binding};
use behalf_policy::dpop::{Expected, Nonce, Proof, ProofRefusal};
use behalf_policy::ids::Timestamp;
use http::HeaderValue;

use self::nonces::Nonces;
use self::replays::Replays;
pub use self::replays::{Capacity, Forgetful};
use crate::feed::NoRandom;
use crate::provider::frame::Frame;
use crate::provider::http::sha256;
use crate::provider::signature::verify_by_own_key;

/// Why a proof, or the token it came with, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DpopError {
    /// The proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofRefusal),
    /// It holds, and is not what the token is bound to.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// It could not be remembered, so that it might be good twice. Says nothing about it.
    #[error(transparent)]
    Forgetful(#[from] Forgetful),
}

impl DpopError {
    /// Stable name, for records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Proof(refusal) => refusal.as_str(),
            Self::Token(refusal) => refusal.as_str(),
            Self::Forgetful(full) => full.reason(),
        }
    }
}

/// The request that a proof came with.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Its method.
    pub method: &'a str,
    /// Scheme and authority of the server, by the bundle.
    pub origin: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Its token; never logged.
    pub token: &'a str,
    /// The certificate that its connection proved.
    pub certificate: Option<Thumbprint>,
}

/// What is known of proofs.
pub struct Proofs {
    nonces: Nonces,
    replays: Replays,
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proofs")
    }
}

impl Proofs {
    /// Nothing is remembered yet, and nonces of an earlier start are worth nothing.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn new(capacity: Capacity) -> Result<Self, NoRandom> {
        Ok(Self { nonces: Nonces::new()?, replays: Replays::new(capacity) })
    }

    /// A nonce of now, for a `DPoP-Nonce` header.
    #[must_use]
    pub fn nonce(&self, now: Timestamp) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.nonces.give(now)).ok()
    }

    /// Takes a proof for the one request it was made for. The nonce that comes back is for the answer: the one that was
    /// used grows old.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn take(
        &self,
        proof: &Proof<'_>,
        shown: &Shown<'_>,
        provider: &Provider,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, DpopError> {
        let rules = &provider.tokens.sender_constraint;
        let given = proof.nonce().and_then(|nonce| self.nonces.given(nonce));
        let nonce = match rules.nonce {
            NonceRule::Never => Nonce::NotDemanded,
            NonceRule::Required => Nonce::Demanded(given),
        };
        let expected = Expected {
            method: shown.method,
            origin: shown.origin,
            path: shown.path,
            token_hash: sha256(shown.token.as_bytes()),
            max_age: rules.max_age,
            nonce,
        };
        let once = proof.check(&expected, now)?;
        if !verify_by_own_key(proof) {
            return Err(ProofRefusal::BadSignature.into());
        }
        let key = Thumbprint(sha256(proof.key.thumbprint_input().as_bytes()));
        let certificate = shown.certificate;
        check_binding(provider, caller, &Presented { scheme: Scheme::Dpop, key: Some(key), certificate })?;
        let mut owner = Frame::new("dpop-owner");
        owner.text(caller.provider.as_str()).text(caller.subject.as_str());
        let mut proof = Frame::new("dpop-proof");
        proof.bytes(&key.0).text(&once.id);
        if !self.replays.first(owner.finish(), proof.finish(), once.until, now)? {
            return Err(ProofRefusal::Replayed.into());
        }
        let Nonce::Demanded(Some(given)) = nonce else { return Ok(None) };
        Ok(if given.plus(rules.max_age / 2) <= now { self.nonce(now) } else { None })
    }
}
