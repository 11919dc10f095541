//! Asking a provider whether a token is still good (RFC 7662, RFC 9701), as the identity's own client.
//!
//! What an answer means is judged by `behalf_policy::introspection`. An answer is kept for the time the provider's row
//! allows, by the digest of the token; concurrent calls with one token share one question. A question without an answer
//! says nothing of the token and is never kept.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use behalf_policy::bundle::{IntrospectionResponse, Policy, Provider};
use behalf_policy::claims::{Caller, TokenRefusal};
use behalf_policy::ids::{EntryName, Timestamp};
use behalf_policy::introspection::{
    Answer, IntrospectionError, caller_of_opaque, narrowed, read, read_signed,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::frame::Frame;
use super::http::HttpError;
use super::{MetadataError, Providers, VerifyError};
use crate::exchange::client_auth::{ASSERTION_TYPE, ClientProof, prove};

/// So many answers are kept.
const CAPACITY: u64 = 10_000;
/// That a token is not good is kept no longer than this, seconds: a provider may have been hasty.
const REFUSED_FOR: u32 = 5;
/// Questions that may be open at once; with a provider that does not answer, further calls fail without waiting.
const OPEN_QUESTIONS: usize = 64;
/// Two requests may read the clock in another order than they come here, seconds.
const CLOCK_ORDER: u32 = 60;

/// Why there is no answer, which says nothing about the token (A21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Where to ask is not known.
    #[error("it is not known where to ask: {0}")]
    Endpoint(#[from] MetadataError),
    /// Our own credential is not there.
    #[error("the client's credential is missing")]
    CredentialMissing,
    /// The provider cannot be reached, or its answer is none.
    #[error("the provider did not answer: {0}")]
    Unreachable(#[from] HttpError),
    /// It answers with another status than 200.
    #[error("the provider answered with status {0}")]
    Status(u16),
    /// It answers with something that is no answer to this.
    #[error(transparent)]
    Answer(#[from] IntrospectionError),
    /// The signature of its answer does not hold, or cannot be checked.
    #[error("the answer does not verify: {0}")]
    NotVerified(#[from] VerifyError),
    /// Too many questions are open.
    #[error("too many questions to the provider are open")]
    Busy,
}

impl Unanswered {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Endpoint(error) => error.reason(),
            Self::CredentialMissing => "CredentialMissing",
            Self::Unreachable(error) => error.reason(),
            Self::Status(_) => "IntrospectionStatus",
            Self::Answer(error) => error.reason(),
            Self::NotVerified(error) => error.reason(),
            Self::Busy => "IntrospectionBusy",
        }
    }
}

/// What a token is asked about, and by what its answer is judged.
pub(crate) struct Question<'a> {
    /// Digest of the bundle it is judged by.
    pub(crate) bundle: &'a str,
    pub(crate) policy: &'a Policy,
    pub(crate) name: &'a EntryName,
    pub(crate) provider: &'a Provider,
    pub(crate) token: &'a str,
    /// SHA-256 of the token.
    pub(crate) digest: &'a [u8; 32],
    /// What a signed token says by itself; none for an opaque one.
    pub(crate) signed: Option<(&'a Caller, &'a Map<String, Value>)>,
}

/// What came of it. Has no token.
struct Kept {
    verdict: Result<Arc<Caller>, TokenRefusal>,
    made: Timestamp,
    until: Timestamp,
}

impl Kept {
    /// Judged at every use. A clock that was set back revives nothing (D11).
    fn is_good(&self, now: Timestamp) -> bool {
        let fresh = now < self.until || now <= self.made;
        let ended = self.verdict.as_ref().is_ok_and(|caller| now >= caller.expires);
        fresh && !ended && now.plus(CLOCK_ORDER) >= self.made
    }
}

struct Life;

impl Expiry<[u8; 32], Arc<Kept>> for Life {
    fn expire_after_create(&self, _: &[u8; 32], value: &Arc<Kept>, _: Instant) -> Option<Duration> {
        // Frees memory; whether it is still good is judged by the clock of the rest.
        let seconds = value.until.0.saturating_sub(value.made.0).saturating_add(1);
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// Asks, and remembers. A cheap clone is the same.
#[derive(Clone)]
pub(crate) struct Introspector(Arc<Inner>);

struct Inner {
    providers: Providers,
    kept: Cache<[u8; 32], Arc<Kept>>,
    open: Semaphore,
}

impl Introspector {
    pub(crate) fn new(providers: Providers) -> Self {
        let kept = Cache::builder().max_capacity(CAPACITY).expire_after(Life).build();
        Self(Arc::new(Inner { providers, kept, open: Semaphore::new(OPEN_QUESTIONS) }))
    }

    /// The caller, as far as the provider still stands by the token.
    ///
    /// # Errors
    /// There is no answer (outer), or it is a refusal (inner).
    pub(crate) async fn caller(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Result<Arc<Caller>, TokenRefusal>, Unanswered> {
        let key = key(question);
        for _ in 0..2 {
            let ask: BoxFuture<'_, _> = self.find(question, now).boxed();
            let entry = self.0.kept.entry(key).or_try_insert_with(ask).await.map_err(|error| *error)?;
            let kept = entry.into_value();
            if kept.is_good(now) {
                return Ok(kept.verdict.clone());
            }
            self.remove(key, &kept).await;
        }
        Ok(Err(TokenRefusal::Expired))
    }

    async fn remove(&self, key: [u8; 32], gone: &Arc<Kept>) {
        self.0
            .kept
            .entry(key)
            .and_compute_with(|entry| {
                ready(match entry {
                    Some(entry) if Arc::ptr_eq(entry.value(), gone) => Op::Remove,
                    _ => Op::Nop,
                })
            })
            .await;
    }

    async fn find(&self, question: &Question<'_>, now: Timestamp) -> Result<Arc<Kept>, Unanswered> {
        let Question { policy, name, provider, .. } = *question;
        let verdict = match self.ask(question, now).await {
            Ok(Answer::Inactive) => Err(TokenRefusal::Inactive),
            Ok(Answer::Active(members)) => match question.signed {
                None => caller_of_opaque(policy, name, provider, members, now),
                Some((signed, claims)) => narrowed(policy, provider, signed, claims, &members, now)?,
            },
            Err(error) => {
                tracing::warn!(issuer = %provider.issuer, %error, "the provider could not be asked about a token");
                return Err(error);
            }
        };
        // From when the question was asked: what the provider learnt while it answered is not known.
        let until = match &verdict {
            Ok(caller) => now.plus(provider.introspection.cache_ttl).min(caller.expires),
            Err(_) => now.plus(provider.introspection.cache_ttl.min(REFUSED_FOR)),
        };
        Ok(Arc::new(Kept { verdict: verdict.map(Arc::new), made: now, until }))
    }

    async fn ask(&self, question: &Question<'_>, now: Timestamp) -> Result<Answer, Unanswered> {
        let Question { policy, provider, .. } = *question;
        let _open = self.0.open.try_acquire().map_err(|_| Unanswered::Busy)?;
        let endpoint = self.0.providers.introspection_endpoint(provider, now).await?;
        let proof = prove(provider).await.map_err(|_| Unanswered::CredentialMissing)?;
        let form = form(question.token, &proof);
        let authorization = match proof {
            ClientProof::Assertion(_) => None,
            ClientProof::Basic(value) => Some(value),
        };
        let accept = HeaderValue::from_static(match provider.introspection.response {
            IntrospectionResponse::Json => "application/json",
            IntrospectionResponse::Jwt => "application/token-introspection+jwt",
        });
        let http = self.0.providers.http();
        let ca = provider.ca_bundle.as_deref();
        let reply = http.post_form_for(&endpoint, ca, authorization, form, accept).await?;
        if reply.status.as_u16() != 200 {
            return Err(Unanswered::Status(reply.status.as_u16()));
        }
        match provider.introspection.response {
            IntrospectionResponse::Json => Ok(read(&reply.body)?),
            IntrospectionResponse::Jwt => {
                let text = std::str::from_utf8(&reply.body).map_err(|_| IntrospectionError::Malformed)?;
                let (header, claims) = self.0.providers.verify_any(provider, text.trim(), now).await?;
                Ok(read_signed(policy, provider, &header, claims, now)?)
            }
        }
    }
}

/// The form of RFC 7662 §2.1. Holds a token; wiped when dropped.
fn form(token: &str, proof: &ClientProof) -> Zeroizing<String> {
    let assertion = match proof {
        ClientProof::Assertion(assertion) => assertion.as_str(),
        ClientProof::Basic(_) => "",
    };
    // Enough for all of it at once: a string that grows leaves copies behind.
    let capacity = 3 * (token.len() + assertion.len()) + 512;
    let mut form = Serializer::new(String::with_capacity(capacity));
    form.append_pair("token", token).append_pair("token_type_hint", "access_token");
    if !assertion.is_empty() {
        form.append_pair("client_assertion_type", ASSERTION_TYPE).append_pair("client_assertion", assertion);
    }
    Zeroizing::new(form.finish())
}

/// Whatever the verdict depends on, each framed by its length: nothing of one issuer, bundle or token is another's (D12).
fn key(question: &Question<'_>) -> [u8; 32] {
    let mut frame = Frame::new("introspection");
    frame
        .bytes(question.digest)
        .text(question.provider.issuer.as_str())
        .text(question.provider.client_id.as_str())
        .text(question.bundle);
    frame.finish()
}
