//! A fetched document that is kept: fetched by one task at a time, never more often than allowed, and
//! used for a bounded time after the last good fetch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use behalf_policy::ids::Timestamp;
use tokio::sync::OwnedMutexGuard;

/// Two requests may read the clock in another order than they come here, seconds.
const CLOCK_ORDER: i64 = 60;

pub(super) struct Cached<T> {
    held: Mutex<Held<T>>,
    fetching: Arc<tokio::sync::Mutex<()>>,
}

struct Held<T> {
    good: Option<(Arc<T>, Timestamp)>,
    tried: Option<Timestamp>,
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(super) fn new() -> Self {
        Self {
            held: Mutex::new(Held { good: None, tried: None }),
            fetching: Arc::new(tokio::sync::Mutex::new(())),
        }
    }

    /// What was last fetched, with its age in seconds, when it is not older than `max_age`.
    pub(super) fn get(&self, now: Timestamp, max_age: u32) -> Option<(Arc<T>, i64)> {
        let held = self.lock();
        let (value, fetched) = held.good.as_ref()?;
        let age = age(*fetched, now)?;
        (age <= i64::from(max_age)).then(|| (Arc::clone(value), age))
    }

    /// Fetches unless the last try, good or not, is less than `least` seconds ago. Returns after the
    /// fetch that was due, whoever started it. A caller that goes away does not stop it.
    pub(super) async fn fetch<E: Send + 'static>(
        self: &Arc<Self>,
        now: Timestamp,
        least: u32,
        fetch: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Option<E> {
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        self.start(turn, now, least, fetch)?.await.ok()?
    }

    /// Starts the same in the background, unless one is on its way.
    pub(super) fn fetch_behind<E: Send + 'static>(
        self: &Arc<Self>,
        now: Timestamp,
        least: u32,
        fetch: impl Future<Output = Result<T, E>> + Send + 'static,
    ) {
        if let Ok(turn) = Arc::clone(&self.fetching).try_lock_owned() {
            drop(self.start(turn, now, least, fetch));
        }
    }

    fn start<E: Send + 'static>(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
        now: Timestamp,
        least: u32,
        fetch: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Option<tokio::task::JoinHandle<Option<E>>> {
        {
            let mut held = self.lock();
            let due = held.tried.and_then(|tried| age(tried, now)).is_none_or(|age| age >= i64::from(least));
            if !due {
                return None;
            }
            held.tried = Some(now);
        }
        let this = Arc::clone(self);
        Some(tokio::spawn(async move {
            let _turn = turn;
            match fetch.await {
                Ok(value) => {
                    this.lock().good = Some((Arc::new(value), now));
                    None
                }
                Err(error) => Some(error),
            }
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since then; none when the clock has gone back, so that nothing is young for that.
fn age(then: Timestamp, now: Timestamp) -> Option<i64> {
    let age = now.0.saturating_sub(then.0);
    (age >= -CLOCK_ORDER).then(|| age.max(0))
}
