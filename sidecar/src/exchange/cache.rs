//! Checked tokens, kept as long as they may be used. One flight per key; failures are never kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use behalf_policy::bundle::{Bundle, ClientAuthentication, Flavor, Policy, Provider};
use behalf_policy::decision::ExchangeOrder;
use behalf_policy::ids::{Scope, Timestamp};
use behalf_policy::record::Exchange;
use futures::TryFutureExt as _;
use futures::future::{BoxFuture, ready};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;
use secrecy::SecretString;

use super::error::{ExchangeError, Failure};
use crate::provider::frame::Frame;
use crate::provider::http::sha256;

/// So many tokens are kept.
const CAPACITY: u64 = 10_000;
/// Two requests may read the clock in another order than they come here, seconds.
const CLOCK_ORDER: u32 = 60;

/// Digest of everything that the token depends on.
pub(super) type Key = [u8; 32];

/// A token that passed the check of its answer. Has no `Debug`.
pub(super) struct Checked {
    pub(super) token: SecretString,
    pub(super) made: Timestamp,
    pub(super) until: Timestamp,
}

impl Checked {
    /// Judged again at every use. A clock that was set back revives nothing (D11).
    fn is_good(&self, order: &ExchangeOrder, now: Timestamp) -> bool {
        now < self.until && self.until <= order.subject_expires() && now.plus(CLOCK_ORDER) >= self.made
    }
}

struct Life;

impl Expiry<Key, Arc<Checked>> for Life {
    fn expire_after_create(&self, _: &Key, value: &Arc<Checked>, _: Instant) -> Option<Duration> {
        // Frees memory and wipes the token; whether it is still good is judged by the clock of the rest.
        let seconds = value.until.0.saturating_sub(value.made.0);
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

#[derive(Clone)]
pub(super) struct Tokens(Cache<Key, Arc<Checked>>);

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).expire_after(Life).build())
    }

    /// The kept token of this key, or the one that `exchange` gets. Concurrent callers of one key share
    /// one exchange and its outcome; nothing is shared between keys.
    pub(super) async fn get<'a>(
        &self,
        key: Key,
        order: &ExchangeOrder,
        now: Timestamp,
        exchange: impl Fn() -> BoxFuture<'a, Result<Checked, Failure>>,
    ) -> Result<(Arc<Checked>, Exchange), Failure> {
        for _ in 0..2 {
            let entry = self.0.entry(key).or_try_insert_with(exchange().map_ok(Arc::new)).await;
            let entry = entry.map_err(|failure| Failure::clone(&failure))?;
            let how = if entry.is_fresh() { Exchange::Made } else { Exchange::Cached };
            let checked = entry.into_value();
            if checked.is_good(order, now) {
                return Ok((checked, how));
            }
            self.remove(key, &checked).await;
        }
        Err(ExchangeError::Answer(behalf_policy::answer::AnswerRefusal::Expired).into())
    }

    /// Removes this very token, not one that has replaced it.
    pub(super) async fn remove(&self, key: Key, gone: &Arc<Checked>) {
        self.0
            .entry(key)
            .and_compute_with(|entry| {
                ready(match entry {
                    Some(entry) if Arc::ptr_eq(entry.value(), gone) => Op::Remove,
                    _ => Op::Nop,
                })
            })
            .await;
    }
}

/// The key of an order: every input framed by its length, lists by their count. The revision of the
/// catalogue is one, so that a new one leaves the tokens of the old behind.
pub(super) fn key(
    bundle: &Bundle,
    policy: &Policy,
    provider: &Provider,
    order: &ExchangeOrder,
    subject_token: &str,
) -> Key {
    let mut frame = Frame::new("exchange");
    frame
        .text(&bundle.namespace)
        .text(&bundle.identity)
        .text(&policy.catalog_revision)
        .bytes(&sha256(subject_token.as_bytes()))
        .text(order.subject().as_str())
        .text(provider.issuer.as_str())
        .optional(provider.ca_bundle.as_deref())
        .optional(provider.token_endpoint.as_deref())
        .optional(provider.jwks_uri.as_deref())
        .number(match provider.flavor {
            Flavor::Generic => 0,
            Flavor::Keycloak => 1,
            Flavor::Entra => 2,
            Flavor::Okta => 3,
            Flavor::Auth0 => 4,
            Flavor::Kubernetes => 5,
            Flavor::Spiffe => 6,
        })
        .text(provider.client_id.as_str());
    match &provider.client_authentication {
        ClientAuthentication::ServiceAccountToken { file } => frame.number(0).text(file),
        ClientAuthentication::ClientSecretFile { file } => frame.number(1).text(file),
        ClientAuthentication::None => frame.number(2),
    };
    frame
        .list(provider.ignored_scopes.iter().map(Scope::as_str))
        .text(order.downstream().as_str())
        .list(std::iter::once(order.audience().as_str()))
        .list(order.scopes().iter().map(Scope::as_str))
        .number(u64::from(order.max_lifetime()));
    frame.finish()
}
