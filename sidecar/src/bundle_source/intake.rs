//! The one place where a bundle is taken or not, whichever way it came.

use std::sync::{Arc, Mutex, PoisonError};

use behalf_policy::deny::DenyList;

use super::{BundleError, Bundles, Expected, Way};
use crate::admin::Block;
use crate::metrics::Metrics;

/// Judges what is offered, one after the other, and swaps the bundle.
pub struct Intake {
    expected: Expected,
    bundles: Bundles,
    metrics: Arc<Metrics>,
    /// Held while one is judged: two that came at once must not both be judged beside the older one.
    state: Mutex<State>,
}

struct State {
    /// Held until the first bundle is taken.
    pending: Option<Block>,
    deny: DenyList,
}

/// What became of an offered bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is in use from now on; its serial.
    Taken(u64),
    /// It was in use already; its serial.
    InUse(u64),
    /// It is older than the one in use, and no older than its way may still be; its serial.
    Behind(u64),
    /// It is not taken, which is told.
    Rejected,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intake")
    }
}

impl Intake {
    /// Nothing taken yet. `pending` keeps the sidecar unready until something was.
    #[must_use]
    pub fn new(expected: Expected, bundles: Bundles, metrics: Arc<Metrics>, pending: Block) -> Self {
        let state = State { pending: Some(pending), deny: DenyList::default() };
        Self { expected, bundles, metrics, state: Mutex::new(state) }
    }

    /// The bundle in use, for who reports it.
    #[must_use]
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// Offers a signed bundle; `None` when there is none where one should be. A serial behind the one in use is not
    /// taken; below `floor`, the serial that this way is known to have reached, it is told as well.
    pub fn offer(&self, way: Way, bytes: Option<&[u8]>, floor: u64) -> Offered {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.bundles.current();
        let judged = match bytes {
            Some(bytes) => self.expected.judge(bytes, current.as_deref()),
            None => Err(BundleError::Unreadable),
        };
        let offered = match judged {
            Ok(Some(mut active)) => {
                active.bundle.deny.clone_from(&state.deny);
                let (serial, digest) = (active.bundle.serial, active.bundle.digest.as_str());
                tracing::info!(serial, digest, way = way.as_str(), "bundle taken");
                self.metrics.learn(&active.bundle);
                self.bundles.take(active);
                state.pending = None;
                self.metrics.bundle_taken(serial);
                Offered::Taken(serial)
            }
            Ok(None) => {
                self.bundles.settle(way);
                Offered::InUse(current.as_ref().map_or(0, |active| active.bundle.serial))
            }
            Err(BundleError::SerialWentBack { offered, .. }) if offered >= floor => {
                self.bundles.settle(way);
                Offered::Behind(offered)
            }
            Err(error) => {
                let (reason, kept) = (error.reason(), current.is_some());
                tracing::error!(reason, %error, kept, way = way.as_str(), "BundleRejected");
                self.metrics.bundle_rejected(reason);
                self.bundles.reject(way, error);
                Offered::Rejected
            }
        };
        self.metrics.bundle_stale(self.bundles.rejection().is_some());
        offered
    }

    /// Nothing was offered by this way, hence nothing is wrong with it.
    pub fn nothing_offered(&self, way: Way) {
        self.bundles.settle(way);
        self.metrics.bundle_stale(self.bundles.rejection().is_some());
    }

    /// Refuses by this list from now on, beside whatever bundle.
    pub fn deny(&self, list: DenyList) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.deny == list {
            return;
        }
        tracing::warn!(denied = %list, "the deny list of the namespace is another");
        self.metrics.deny_list_changed(list.len());
        if let Some(current) = self.bundles.current() {
            self.bundles.replace(current.with_deny(list.clone()));
        }
        state.deny = list;
    }
}
