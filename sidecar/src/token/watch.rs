//! A token that something long stands on, asked about for as long as that is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;

use super::Verifier;
use crate::bundle_source::Bundles;
use crate::clock::Clock;

/// How often the clock is looked at; the questions themselves come as seldom as the provider's row allows.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tells when the token behind an open stream is no longer good. Dropped, it asks no more.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Whether the provider no longer stands by the token, or has not said so for longer than its row allows. Cheap; stays
    /// true.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Verifier {
    /// Watches a token that was just taken. None when it is one that nobody is asked about: its own end is known.
    ///
    /// Within the row's `cacheTTL` of a revocation, [`Watch::ended`] is true. While the provider cannot be asked it becomes
    /// true as well, as any further call would be refused.
    #[must_use]
    pub fn watch(&self, bundles: &Bundles, clock: &Clock, token: &SecretString) -> Option<Watch> {
        let active = bundles.current()?;
        let every = self.asked_every(active.policy()?.0, token.expose_secret())?;
        let (verifier, bundles, clock, token) = (self.clone(), bundles.clone(), clock.clone(), token.clone());
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let mut due = clock.now().plus(every);
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let now = clock.now();
                if now < due {
                    continue;
                }
                if !verifier.still_good(&bundles, &token, now).await {
                    told.store(true, Ordering::Release);
                    return;
                }
                due = now.plus(every);
            }
        });
        Some(Watch { ended, task })
    }

    /// Whether a call with the token would be taken now, by the bundle of now.
    async fn still_good(
        &self,
        bundles: &Bundles,
        token: &SecretString,
        now: behalf_policy::ids::Timestamp,
    ) -> bool {
        let Some(active) = bundles.current() else { return false };
        let Some((policy, _)) = active.policy() else { return false };
        self.caller(&active, policy, token.expose_secret(), now).await.is_ok()
    }
}
