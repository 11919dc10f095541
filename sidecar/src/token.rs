//! A caller's token: verified and judged, in the order of RFC 9068 §4 and RFC 8725.
//!
//! Text, keys and signature are the matter of [`crate::provider`]; everything a token says is judged by
//! `behalf_policy::claims`. A token that was verified is remembered by its digest, so that a client's next
//! call costs a lookup; its end and its key are looked at again every time, and a new bundle makes it
//! judged anew. Where the provider's row asks for it, the provider has to stand by the token still.

mod watch;

use std::sync::Arc;
use std::time::Duration;

use behalf_policy::bundle::{Policy, Provider};
use behalf_policy::claims::{Caller, HeaderFacts, TokenRefusal, check_claims, check_header, select_provider};
use behalf_policy::ids::{EntryName, Timestamp};
use behalf_policy::introspection::{asks_about, is_opaque, takes_opaque};
use serde_json::{Map, Value};

pub use watch::Watch;

use crate::bundle_source::Active;
use crate::metrics::Metrics;
use crate::provider::http::sha256;
use crate::provider::introspection::{Introspector, Question, Unanswered};
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
    /// The issuer cannot be asked whether it stands by the token, which says nothing about it either.
    #[error("the token's issuer cannot be asked about it")]
    NotAnswered,
}

impl From<KeysError> for TokenError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Unavailable => Self::KeysUnavailable,
            KeysError::NoSuchKey => Self::Refused(TokenRefusal::UnknownKey),
        }
    }
}

impl From<Unanswered> for TokenError {
    fn from(_: Unanswered) -> Self {
        Self::NotAnswered
    }
}

/// Turns tokens into callers. A cheap clone remembers the same.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    providers: Providers,
    introspector: Introspector,
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
    /// What it says, where its provider has to be asked about it.
    asked: Option<Arc<Map<String, Value>>>,
}

impl Verifier {
    /// A verifier that remembers nothing yet.
    #[must_use]
    pub fn new(providers: Providers, metrics: Arc<Metrics>) -> Self {
        let verified = moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build();
        let introspector = Introspector::new(providers.clone());
        Self(Arc::new(Inner { providers, introspector, verified, metrics }))
    }

    /// The caller that a token stands for, whoever sends it: whether the request proves what the token is bound to is asked
    /// with each one ([`behalf_policy::claims::check_binding`]).
    ///
    /// # Errors
    /// Why the token is not taken, or that its issuer's keys or its issuer's word cannot be had.
    pub async fn caller(
        &self,
        active: &Active,
        policy: &Policy,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Caller>, TokenError> {
        let digest = sha256(token.as_bytes());
        if let Some((name, provider)) = opaque_taker(policy, token) {
            let question = question(active, policy, (name, provider), token, &digest, None);
            return Ok(self.0.introspector.caller(&question, now).await??);
        }
        let known = self.0.remembered(&digest, active, policy, now).await?;
        self.0.metrics.token_looked_up(known.is_some());
        let verified = match known {
            Some(verified) => verified,
            None => self.0.verify(&digest, active, policy, token, now).await?,
        };
        let Some(claims) = &verified.asked else { return Ok(verified.caller) };
        let named = policy.providers.get_key_value(&verified.caller.provider);
        let provider = named.ok_or(TokenRefusal::UnknownIssuer)?;
        let signed = Some((&*verified.caller, &**claims));
        let question = question(active, policy, provider, token, &digest, signed);
        Ok(self.0.introspector.caller(&question, now).await??)
    }

    /// How often a token that was just taken has to be asked about, seconds; none when it is judged by itself alone.
    #[must_use]
    pub fn asked_every(&self, policy: &Policy, token: &str) -> Option<u32> {
        let every = |provider: &Provider| provider.introspection.cache_ttl.max(1);
        if let Some((_, provider)) = opaque_taker(policy, token) {
            return Some(every(provider));
        }
        let verified = self.0.verified.get(&sha256(token.as_bytes()))?;
        verified.asked.as_ref()?;
        policy.providers.get(&verified.caller.provider).map(every)
    }
}

impl Inner {
    async fn verify(
        &self,
        digest: &[u8; 32],
        active: &Active,
        policy: &Policy,
        token: &str,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        let jws = Jws::parse(token)?;
        let (name, provider) = select_provider(policy, &jws.claims)?;
        let header = check_header(provider, &jws.header)?;
        let keys = self.providers.keys(provider, header.key_id.as_deref(), header.algorithm, now).await?;
        let signed = |key: &&Arc<Key>| verify(key, header.algorithm, jws.signing_input, jws.signature);
        let key = Arc::clone(keys.iter().find(signed).ok_or(TokenRefusal::BadSignature)?);
        let caller = Arc::new(check_claims(policy, name, provider, &jws.claims, now)?);
        let asked = asks_about(&provider.introspection, &jws.claims)?;
        let verified = Verified {
            caller,
            header: Arc::new(header),
            key,
            bundle: active.bundle.digest.clone(),
            asked: asked.then(|| Arc::new(jws.claims)),
        };
        self.verified.insert(*digest, verified.clone());
        Ok(verified)
    }

    async fn remembered(
        &self,
        digest: &[u8; 32],
        active: &Active,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Option<Verified>, TokenError> {
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
        Ok(keys.iter().any(|key| Arc::ptr_eq(key, &known.key)).then_some(known))
    }
}

/// The provider that is asked about a token that is no JWT, if there is one.
fn opaque_taker<'a>(policy: &'a Policy, token: &str) -> Option<(&'a EntryName, &'a Provider)> {
    let taker = takes_opaque(policy)?;
    let fits = token.len() <= behalf_policy::claims::MAX_TOKEN_BYTES;
    (fits && is_opaque(token)).then_some(taker)
}

fn question<'a>(
    active: &'a Active,
    policy: &'a Policy,
    (name, provider): (&'a EntryName, &'a Provider),
    token: &'a str,
    digest: &'a [u8; 32],
    signed: Option<(&'a Caller, &'a Map<String, Value>)>,
) -> Question<'a> {
    Question { bundle: &active.bundle.digest, policy, name, provider, token, digest, signed }
}
