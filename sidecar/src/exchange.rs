//! From a caller's token to a token for one downstream, by a provider.
//!
//! Called by the outbound side with an order that only a permit can give. What comes back was checked
//! against the order; an answer that is not exactly what was asked is discarded, and nothing is tried
//! in its place: not another grant (B7), not the caller's own token.

mod cache;
pub(crate) mod client_auth;
mod error;
mod grant;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use behalf_policy::answer::{AnswerRefusal, EXPIRY_MARGIN, check_response, check_token};
use behalf_policy::bundle::{Bundle, Provider};
use behalf_policy::decision::ExchangeOrder;
use behalf_policy::ids::Timestamp;
use behalf_policy::record::Exchange;
use behalf_policy::strict_json;
use futures::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use error::Failure;
pub use error::{ExchangeError, ProviderRefusal, Side};

use crate::clock::Clock;
use crate::handles::OpenCall;
use crate::metrics::{ExchangeOutcome, Metrics};
use crate::provider::{Providers, VerifyError};
use cache::{Checked, Key, Tokens};
use client_auth::ClientProof;
use grant::TokenExchange;

/// A token for a downstream, and how it came. Has no `Debug`.
pub struct Exchanged {
    checked: Arc<Checked>,
    key: Key,
    how: Exchange,
}

impl Exchanged {
    /// The token, for the one header it goes into.
    #[must_use]
    pub fn token(&self) -> &SecretString {
        &self.checked.token
    }

    /// Until when it may be used.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.checked.until
    }

    /// Whether the provider was asked.
    #[must_use]
    pub fn how(&self) -> Exchange {
        self.how
    }
}

/// Gets downstream tokens. A cheap clone shares the cache.
#[derive(Clone)]
pub struct Exchanger(Arc<Inner>);

struct Inner {
    providers: Providers,
    clock: Clock,
    metrics: Arc<Metrics>,
    tokens: Tokens,
    /// Until when each overloaded issuer is left alone.
    resting: Mutex<HashMap<String, Timestamp>>,
}

impl Exchanger {
    /// With an empty cache.
    #[must_use]
    pub fn new(providers: Providers, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let tokens = Tokens::new();
        Self(Arc::new(Inner { providers, clock, metrics, tokens, resting: Mutex::new(HashMap::new()) }))
    }

    /// The token for an order of this call: kept, or exchanged now.
    ///
    /// # Errors
    /// When there is none that passed every check.
    pub async fn token(
        &self,
        bundle: &Bundle,
        order: &ExchangeOrder,
        call: &OpenCall,
        now: Timestamp,
    ) -> Result<Exchanged, ExchangeError> {
        let result = self.find(bundle, order, call, now).await.map_err(|failure| {
            // Whoever waited for the same exchange is told the same.
            if let Some(interaction) = failure.wants {
                call.wanted.put(order.downstream(), interaction, &call.token);
            }
            failure.error
        });
        self.0.metrics.exchanged(match &result {
            Ok(exchanged) if exchanged.how == Exchange::Made => ExchangeOutcome::Made,
            Ok(_) => ExchangeOutcome::Cached,
            Err(error) => error.outcome(),
        });
        result
    }

    /// Forgets a token that its downstream did not take.
    pub async fn evict(&self, exchanged: &Exchanged) {
        self.0.tokens.remove(exchanged.key, &exchanged.checked).await;
    }

    async fn find(
        &self,
        bundle: &Bundle,
        order: &ExchangeOrder,
        call: &OpenCall,
        now: Timestamp,
    ) -> Result<Exchanged, Failure> {
        let policy = bundle.policy().map_err(|_| ExchangeError::OrderMismatch)?;
        let provider = policy.providers.get(order.provider()).ok_or(ExchangeError::OrderMismatch)?;
        let caller = &call.caller;
        if caller.provider != *order.provider()
            || caller.subject != *order.subject()
            || caller.expires != order.subject_expires()
        {
            return Err(ExchangeError::OrderMismatch.into());
        }
        if order.scopes().is_empty() {
            return Err(ExchangeError::EmptyScope.into());
        }
        if order.subject_expires().minus(EXPIRY_MARGIN) <= now {
            return Err(ExchangeError::SubjectNearExpiry.into());
        }
        let key = cache::key(bundle, policy, provider, order, call.token.expose_secret());
        let exchange = || self.exchange(provider, order, &call.token, now).boxed();
        let (checked, how) = self.0.tokens.get(key, order, now, exchange).await?;
        Ok(Exchanged { checked, key, how })
    }

    async fn exchange(
        &self,
        provider: &Provider,
        order: &ExchangeOrder,
        subject_token: &SecretString,
        now: Timestamp,
    ) -> Result<Checked, Failure> {
        self.rested(provider, now)?;
        let endpoint = self.0.providers.token_endpoint(provider, now).await?;
        let proof = client_auth::prove(provider).await.map_err(|_| ExchangeError::CredentialMissing)?;
        let subject_token = subject_token.expose_secret();
        let grant = TokenExchange { subject_token, audience: order.audience(), scopes: order.scopes() };
        let form = grant.form(&proof);
        let authorization = match proof {
            ClientProof::Assertion(_) => None,
            ClientProof::Basic(value) => Some(value),
        };
        let asked = Instant::now();
        let http = self.0.providers.http();
        let reply = http.post_form(&endpoint, provider.ca_bundle.as_deref(), authorization, form).await;
        self.0.metrics.exchange_took(asked.elapsed().as_secs_f64());
        let reply = reply.map_err(ExchangeError::Unreachable)?;
        // Asking took time: what the answer says is judged by the clock of now.
        let now = self.0.clock.now().max(now);
        let status = reply.status.as_u16();
        if status != 200 {
            let failure = Failure::read(status, reply.retry_after, &reply.body, provider.flavor);
            self.rest(provider, failure.error, now);
            return Err(failure);
        }
        let mut answer = strict_json::object(&reply.body).map_err(|_| ExchangeError::NotAnAnswer)?;
        let response = check_response(&answer, order, provider, subject_token)?;
        let claims = match self.0.providers.verify(provider, response.access_token, now).await {
            Ok(claims) => claims,
            Err(VerifyError::Token(_)) => return Err(AnswerRefusal::NotVerified.into()),
            Err(VerifyError::KeysUnavailable) => return Err(ExchangeError::KeysUnavailable.into()),
        };
        let until = check_token(&claims, response, order, provider, now)?;
        let Some(Value::String(token)) = answer.remove("access_token") else {
            return Err(AnswerRefusal::Malformed.into());
        };
        Ok(Checked { token: SecretString::from(token), made: now, until })
    }

    /// Fails while the provider has asked to be left alone.
    fn rested(&self, provider: &Provider, now: Timestamp) -> Result<(), ExchangeError> {
        let mut resting = self.resting();
        match resting.get(provider.issuer.as_str()) {
            Some(until) if *until > now => {
                let wait = u32::try_from(until.0.saturating_sub(now.0)).unwrap_or(1);
                Err(ExchangeError::Overloaded { retry_after: wait })
            }
            Some(_) => {
                resting.remove(provider.issuer.as_str());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rest(&self, provider: &Provider, error: ExchangeError, now: Timestamp) {
        /// A bundle names far fewer issuers.
        const MOST: usize = 64;
        if let Some(seconds) = error.retry_after() {
            let mut resting = self.resting();
            if resting.len() < MOST {
                resting.insert(provider.issuer.to_string(), now.plus(seconds));
            }
        }
    }

    fn resting(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
