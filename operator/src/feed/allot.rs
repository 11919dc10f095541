//! Shares of rate limits: what each pod may let through of what all of them may together.
//!
//! The leader divides, by what pods tell it ([`behalf_plan::Shares`]); another replica passes on what the leader says to
//! the pods that ask it. A pod that hears nothing keeps what it has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use behalf_plan::Shares;
use behalf_policy::feed::{LimitUse, Report, Share};
use behalf_policy::ids::EntryName;
use tokio::time::Instant;

use super::IdentityKey;
use super::caller::Reporter;

/// What one pod is given, by name of the limit.
pub type Given = BTreeMap<EntryName, Share>;

/// What the leader said of a pod that was not heard for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// What is given to whom.
#[derive(Debug, Default)]
pub struct Allotments(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    tables: BTreeMap<IdentityKey, Shares>,
    /// By the leader's word, on another replica.
    told: HashMap<String, (Instant, Given)>,
}

impl Allotments {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A term begins.
    pub fn begin(&self, now: Instant) {
        *self.state() = State { since: Some(now), ..State::default() };
    }

    /// A term ended.
    pub fn end(&self) {
        *self.state() = State::default();
    }

    /// The identity is gone.
    pub fn forget(&self, identity: &IdentityKey) {
        self.state().tables.remove(identity);
    }

    /// Takes in a report, and divides anew if it is time to. `limits`: how large each limit of the identity's bundle is.
    /// `alive` is asked whether the pod of a UID is still there. True when others may be given something else than before.
    pub fn report(
        &self,
        who: &Reporter,
        report: &Report,
        limits: &BTreeMap<EntryName, u32>,
        now: Instant,
        alive: impl Fn(&str) -> bool,
    ) -> bool {
        let mut state = self.state();
        if limits.is_empty() {
            state.tables.remove(&who.identity);
            return false;
        }
        let since = *state.since.get_or_insert(now);
        let millis = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let table = state.tables.entry(who.identity.clone()).or_default();
        table.hear(&who.uid, report, millis);
        table.divide(limits, millis, alive)
    }

    /// What the leader says of a pod. True when it is something else than before.
    pub fn hear(&self, who: &Reporter, given: &Given, now: Instant) -> bool {
        let mut state = self.state();
        state.told.retain(|_, (heard, _)| now.saturating_duration_since(*heard) < FORGOTTEN);
        let before = state.told.insert(who.uid.clone(), (now, given.clone()));
        before.is_none_or(|(_, before)| before != *given)
    }

    /// What a pod is given; none while nobody can say.
    #[must_use]
    pub fn of(&self, who: &Reporter) -> Option<Given> {
        let state = self.state();
        let divided = state.tables.get(&who.identity).and_then(|table| table.of(&who.uid));
        divided.or_else(|| state.told.get(&who.uid).map(|(_, given)| given.clone()))
    }

    /// What a pod is given, if it is not what the pod has.
    #[must_use]
    pub fn news(&self, who: &Reporter, has: &BTreeMap<EntryName, LimitUse>) -> Option<Given> {
        if has.is_empty() {
            return None;
        }
        let given = self.of(who)?;
        let other =
            has.iter().any(|(name, it)| given.get(name).is_some_and(|share| it.share != Some(*share)));
        other.then_some(given)
    }
}
