//! A caller's token: verified and judged, in the order of RFC 9068 §4 and RFC 8725.
//!
//! Text, keys and signature are the matter of [`crate::provider`]; everything a token says is judged by
//! `behalf_policy::claims`. A token that was verified is remembered by its digest, so that a client's next
//! call costs a lookup; its end and its key are looked at again every time, and a new bundle makes it
//! judged anew.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use behalf_policy::bundle::Policy;
use behalf_policy::claims::{Caller, HeaderFacts, TokenRefusal, check_claims, check_header, select_provider};
use behalf_policy::ids::Timestamp;

use crate::bundle_source::Active;
use crate::metrics::Metrics;
use crate::provider::signature::{Jws, verify};
use crate::provider::{Key, KeysError, Providers};

/// Verified tokens that are remembered.
const REMEMBERED: u64 = 10_000;
/// How long an unused one is remembered; its own end comes first.
const IDLE: Duration = Duration::from_mins(5);

/// Why a token gave no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token was not taken.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// The issuer's keys cannot be had, which says nothing about the token.
    #[error("the keys of the token's issuer cannot be had")]
    KeysUnavailable,
}

impl From<KeysError> for TokenError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Unavailable => Self::KeysUnavailable,
            KeysError::NoSuchKey => Self::Refused(TokenRefusal::UnknownKey),
        }
    }
}

/// Turns tokens into callers.
pub struct Verifier {
    providers: Providers,
    verified: moka::sync::Cache<[u8; 32], Verified>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

#[derive(Clone)]
struct Verified {
    caller: Arc<Caller>,
    header: Arc<HeaderFacts>,
    /// The key that verified it: gone after a rotation, and then the token is verified anew.
    key: Arc<Key>,
    /// Digest of the bundle it was judged by.
    bundle: String,
}

impl Verifier {
    /// A verifier that remembers nothing yet.
    #[must_use]
    pub fn new(providers: Providers, metrics: Arc<Metrics>) -> Self {
        let verified = moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build();
        Self { providers, verified, metrics }
    }

    /// The caller that a token stands for.
    ///
    /// # Errors
    /// Why the token is not taken, or that its issuer's keys cannot be had.
    pub async fn caller(
        &self,
        active: &Active,
        policy: &Policy,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Caller>, TokenError> {
        let digest = digest_of(token);
        if let Some(caller) = self.remembered(&digest, active, policy, now).await? {
            self.metrics.token_looked_up(true);
            return Ok(caller);
        }
        self.metrics.token_looked_up(false);

        let jws = Jws::parse(token)?;
        let (name, provider) = select_provider(policy, &jws.claims)?;
        let header = check_header(provider, &jws.header)?;
        let keys = self.providers.keys(provider, header.key_id.as_deref(), header.algorithm, now).await?;
        let signed = |key: &&Arc<Key>| verify(key, header.algorithm, jws.signing_input, jws.signature);
        let key = Arc::clone(keys.iter().find(signed).ok_or(TokenRefusal::BadSignature)?);
        let caller = Arc::new(check_claims(policy, name, provider, &jws.claims, now)?);
        let bundle = active.bundle.digest.clone();
        let verified = Verified { caller: Arc::clone(&caller), header: Arc::new(header), key, bundle };
        self.verified.insert(digest, verified);
        Ok(caller)
    }

    async fn remembered(
        &self,
        digest: &[u8; 32],
        active: &Active,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Option<Arc<Caller>>, TokenError> {
        let Some(known) = self.verified.get(digest) else { return Ok(None) };
        let Some(provider) = policy.providers.get(&known.caller.provider) else { return Ok(None) };
        if known.bundle != active.bundle.digest {
            return Ok(None);
        }
        if now >= known.caller.expires {
            return Err(TokenRefusal::Expired.into());
        }
        let (id, algorithm) = (known.header.key_id.as_deref(), known.header.algorithm);
        let keys = self.providers.keys(provider, id, algorithm, now).await?;
        Ok(keys.iter().any(|key| Arc::ptr_eq(key, &known.key)).then_some(known.caller))
    }
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}
