//! Identity providers as the sidecar reads them: metadata, key sets, and whether a token is theirs.
//!
//! Used by the inbound side to verify callers' tokens and by [`crate::exchange`] to find the token
//! endpoint and to verify what it answers. A provider that is down is survived for a bounded time;
//! after that every token is refused.

pub mod address;
mod cached;
pub mod dial;
pub(crate) mod frame;
pub mod http;
pub(crate) mod introspection;
pub mod key_set;
mod metadata;
pub mod signature;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use behalf_policy::bundle::{Algorithm, Flavor, Provider};
use behalf_policy::claims::{HeaderFacts, TokenRefusal, check_header, check_signed_header};
use behalf_policy::ids::Timestamp;
use serde_json::{Map, Value};

pub use key_set::Key;
pub use metadata::MetadataError;

use crate::metrics::Metrics;
use cached::Cached;
use frame::Frame;
use http::{HttpClient, HttpError};
use key_set::{Found, KeySet};
use metadata::Metadata;
use signature::{Jws, verify};

/// Keys and metadata are fetched anew, behind the requests, when they are older than this, seconds.
const REFRESH_AFTER: u32 = 300;
/// While there is nothing to go on with, a provider is asked again after this many seconds.
const RETRY_AFTER: u32 = 2;
/// So many providers are remembered; a bundle names far fewer.
const MAX_PROVIDERS: usize = 64;

/// Why no key can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The provider's keys are not known, or not for long enough: nobody's fault who calls.
    #[error("the provider's keys are not available")]
    Unavailable,
    /// The provider has no such key.
    #[error("the provider has no such key")]
    NoSuchKey,
}

impl KeysError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unavailable => "KeysUnavailable",
            Self::NoSuchKey => "UnknownKey",
        }
    }
}

/// Why a token is not a provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token does not hold.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// It cannot be told at the moment.
    #[error("the provider's keys are not available")]
    KeysUnavailable,
}

impl VerifyError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Token(refusal) => refusal.as_str(),
            Self::KeysUnavailable => KeysError::Unavailable.reason(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the key set was answered with status {0}")]
    Status(u16),
    #[error("the key set is not one")]
    Malformed,
}

/// The providers of the current bundle, by issuer and by how they are reached. A cheap clone is the same.
#[derive(Clone)]
pub struct Providers(Arc<Inner>);

struct Inner {
    http: HttpClient,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<Cached<KeySet>>,
    metadata: Arc<Cached<Metadata>>,
}

impl Providers {
    /// Knows nothing yet; asks through `http`.
    #[must_use]
    pub fn new(http: HttpClient, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { http, metrics, known: Mutex::new(HashMap::new()) }))
    }

    /// The client the providers are asked with.
    #[must_use]
    pub fn http(&self) -> &HttpClient {
        &self.0.http
    }

    /// The keys that may have signed a token with this header: one when it names its key, else all of
    /// the algorithm.
    ///
    /// # Errors
    /// When the provider's keys are not known, or there is no such key. An unknown key id makes at most
    /// one fetch per [`Provider::keys_cooldown`].
    pub async fn keys(
        &self,
        provider: &Provider,
        key_id: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Vec<Arc<Key>>, KeysError> {
        let known = self.known(provider);
        let cooldown = provider.keys_cooldown.max(1);
        let held = known.keys.get(now, provider.keys_max_staleness);
        let least = match held {
            None => RETRY_AFTER.min(cooldown),
            Some((keys, age)) => match keys.find(key_id, algorithm) {
                Found::Keys(found) => {
                    if age >= i64::from(REFRESH_AFTER.min(provider.keys_max_staleness / 2)) {
                        known.keys.fetch_behind(now, cooldown, self.fetch_keys(&known, provider, now));
                    }
                    return Ok(found);
                }
                Found::OtherAlgorithm => return Err(KeysError::NoSuchKey),
                Found::Unknown => cooldown,
            },
        };
        let failed = known.keys.fetch(now, least, self.fetch_keys(&known, provider, now)).await;
        if let Some(error) = failed {
            tracing::warn!(issuer = %provider.issuer, %error, "the provider's keys could not be fetched");
        }
        let Some((keys, _)) = known.keys.get(now, provider.keys_max_staleness) else {
            return Err(KeysError::Unavailable);
        };
        match keys.find(key_id, algorithm) {
            Found::Keys(found) => Ok(found),
            Found::OtherAlgorithm | Found::Unknown => Err(KeysError::NoSuchKey),
        }
    }

    /// Verifies header and signature of a token with the provider's keys; its claims are for the caller
    /// to judge.
    ///
    /// # Errors
    /// When the token does not hold, or the keys are not available.
    pub async fn verify(
        &self,
        provider: &Provider,
        token: &str,
        now: Timestamp,
    ) -> Result<Map<String, Value>, VerifyError> {
        let jws = Jws::parse(token)?;
        let facts = check_header(provider, &jws.header)?;
        self.verify_signature(provider, &jws, &facts, now).await?;
        Ok(jws.claims)
    }

    /// Verifies the signature of whatever JWT, of whose header nothing but [`check_signed_header`] was judged; its kind and
    /// its claims are for the caller to judge.
    ///
    /// # Errors
    /// When it does not hold, or the keys are not available.
    pub async fn verify_any(
        &self,
        provider: &Provider,
        text: &str,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Map<String, Value>), VerifyError> {
        let jws = Jws::parse(text)?;
        let facts = check_signed_header(provider, &jws.header)?;
        self.verify_signature(provider, &jws, &facts, now).await?;
        Ok((jws.header, jws.claims))
    }

    async fn verify_signature(
        &self,
        provider: &Provider,
        jws: &Jws<'_>,
        facts: &HeaderFacts,
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        let keys = match self.keys(provider, facts.key_id.as_deref(), facts.algorithm, now).await {
            Ok(keys) => keys,
            Err(KeysError::NoSuchKey) => return Err(TokenRefusal::UnknownKey.into()),
            Err(KeysError::Unavailable) => return Err(VerifyError::KeysUnavailable),
        };
        let verified = keys.iter().any(|key| verify(key, facts.algorithm, jws.signing_input, jws.signature));
        if verified { Ok(()) } else { Err(TokenRefusal::BadSignature.into()) }
    }

    /// Where the provider gives tokens: as the bundle says, else as its validated metadata says.
    ///
    /// # Errors
    /// When neither says so.
    pub async fn token_endpoint(&self, provider: &Provider, now: Timestamp) -> Result<String, MetadataError> {
        if let Some(endpoint) = &provider.token_endpoint {
            return Ok(endpoint.clone());
        }
        let known = self.known(provider);
        let metadata = metadata(&known.metadata, self.0.http.clone(), provider.clone(), now).await?;
        metadata.token_endpoint.clone().ok_or(MetadataError::NoEndpoint)
    }

    /// Where the provider is asked about tokens: as the bundle says, else as its validated metadata says.
    ///
    /// # Errors
    /// When neither says so.
    pub async fn introspection_endpoint(
        &self,
        provider: &Provider,
        now: Timestamp,
    ) -> Result<String, MetadataError> {
        if let Some(endpoint) = &provider.introspection.endpoint {
            return Ok(endpoint.clone());
        }
        let known = self.known(provider);
        let metadata = metadata(&known.metadata, self.0.http.clone(), provider.clone(), now).await?;
        metadata.introspection_endpoint.clone().ok_or(MetadataError::NoEndpoint)
    }

    fn fetch_keys(
        &self,
        known: &Known,
        provider: &Provider,
        now: Timestamp,
    ) -> impl Future<Output = Result<KeySet, FetchError>> + Send + 'static {
        let (inner, known, provider) = (Arc::clone(&self.0), known.clone(), provider.clone());
        async move {
            let fetched = fetch_keys(&inner.http, &known, &provider, now).await;
            inner.metrics.keys_fetched(fetched.is_ok());
            fetched
        }
    }

    fn known(&self, provider: &Provider) -> Known {
        let mut frame = Frame::new("provider");
        frame
            .text(provider.issuer.as_str())
            .optional(provider.ca_bundle.as_deref())
            .optional(provider.token_endpoint.as_deref())
            .optional(provider.jwks_uri.as_deref())
            .number(u64::from(provider.flavor == Flavor::Spiffe));
        let key = frame.finish();
        let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_PROVIDERS && !all.contains_key(&key) {
            all.clear();
        }
        let new = || Known { keys: Arc::new(Cached::new()), metadata: Arc::new(Cached::new()) };
        all.entry(key).or_insert_with(new).clone()
    }
}

async fn fetch_keys(
    http: &HttpClient,
    known: &Known,
    provider: &Provider,
    now: Timestamp,
) -> Result<KeySet, FetchError> {
    let url = if let Some(url) = &provider.jwks_uri {
        url.clone()
    } else {
        let metadata = metadata(&known.metadata, http.clone(), provider.clone(), now).await?;
        metadata.jwks_uri.clone().ok_or(MetadataError::NoEndpoint)?
    };
    let reply = http.get(&url, provider.ca_bundle.as_deref()).await?;
    if reply.status.as_u16() != 200 {
        return Err(FetchError::Status(reply.status.as_u16()));
    }
    let found = if provider.flavor == Flavor::Spiffe {
        KeySet::parse_spiffe(&reply.body)
    } else {
        KeySet::parse(&reply.body)
    };
    found.ok_or(FetchError::Malformed)
}

async fn metadata(
    cached: &Arc<Cached<Metadata>>,
    http: HttpClient,
    provider: Provider,
    now: Timestamp,
) -> Result<Arc<Metadata>, MetadataError> {
    let max_age = provider.keys_max_staleness.max(REFRESH_AFTER);
    let fetch = async move { metadata::fetch(&http, &provider.issuer, provider.ca_bundle.as_deref()).await };
    if let Some((metadata, age)) = cached.get(now, max_age) {
        if age >= i64::from(REFRESH_AFTER) {
            cached.fetch_behind(now, RETRY_AFTER, fetch);
        }
        return Ok(metadata);
    }
    let failed = cached.fetch(now, RETRY_AFTER, fetch).await;
    match cached.get(now, max_age) {
        Some((metadata, _)) => Ok(metadata),
        None => Err(failed.unwrap_or(MetadataError::BackingOff)),
    }
}
