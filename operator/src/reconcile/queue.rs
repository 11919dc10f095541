//! What has to be reconciled, and when: every key once, never twice at a time, with pauses that grow after failures.
//!
//! A value, driven by [`super::run`], that takes the time as an argument. Unlike `kube`'s controller it also takes keys whose
//! object is gone: a deleted identity still has work to do (its tombstone).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Changes come in bursts (a rollout touches every pod several times): one pass serves them all.
const SETTLE: Duration = Duration::from_millis(100);
/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What is left to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    AwaitChange,
    /// Look again after this time, whatever happens.
    After(Duration),
    /// It failed; try again.
    Retry,
}

/// Keys by when they are due.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Instant>,
    running: BTreeSet<K>,
    failures: BTreeMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), running: BTreeSet::new(), failures: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Something that the key depends on changed. A change also ends a pause: it may be what was missing.
    pub fn changed(&mut self, key: K, now: Instant) {
        self.put(key, now + SETTLE);
    }

    /// The earliest due key that is not being worked on; from now on it is.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let key = self.waiting().filter(|(_, due)| *due <= now).min_by_key(|(_, due)| *due)?.0.clone();
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When [`Queue::take`] will give something, if nothing changes until then.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting().map(|(_, due)| due).min()
    }

    /// A pass over the key ended.
    pub fn done(&mut self, key: K, next: Next, now: Instant) {
        self.running.remove(&key);
        match next {
            Next::AwaitChange => {
                self.failures.remove(&key);
            }
            Next::After(pause) => {
                self.failures.remove(&key);
                self.put(key, now + pause);
            }
            Next::Retry => {
                let failures = self.failures.entry(key.clone()).or_default();
                let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LONGEST_PAUSE);
                *failures = failures.saturating_add(1);
                self.put(key, now + pause);
            }
        }
    }

    /// How many keys wait or are being worked on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len() + self.running.iter().filter(|key| !self.due.contains_key(key)).count()
    }

    /// Whether nothing waits and nothing is being worked on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> impl Iterator<Item = (&K, Instant)> {
        self.due.iter().filter(|(key, _)| !self.running.contains(key)).map(|(key, due)| (key, *due))
    }

    fn put(&mut self, key: K, due: Instant) {
        self.due.entry(key).and_modify(|held| *held = (*held).min(due)).or_insert(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_one_pass() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..10 {
            queue.changed("a", now);
        }
        assert_eq!(queue.take(now), None, "settling");
        assert_eq!(queue.take(now + SECOND), Some("a"));
        assert_eq!(queue.take(now + SECOND), None);
        queue.done("a", Next::AwaitChange, now + SECOND);
        assert!(queue.is_empty());
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_key_is_never_worked_on_twice_at_a_time_and_no_change_is_lost() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.changed("a", now);
        assert_eq!(queue.take(now + SECOND), Some("a"));
        queue.changed("a", now + SECOND);
        assert_eq!(queue.take(now + 2 * SECOND), None);
        assert_eq!(queue.next_due(), None);
        queue.done("a", Next::AwaitChange, now + 2 * SECOND);
        assert_eq!(queue.take(now + 2 * SECOND), Some("a"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_success_forgets_them() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.changed("a", now);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            now = queue.next_due().unwrap();
            assert_eq!(queue.take(now), Some("a"));
            queue.done("a", Next::Retry, now);
            pauses.push(queue.next_due().unwrap() - now);
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]);
        assert_eq!(pauses[19], LONGEST_PAUSE);
        now = queue.next_due().unwrap();
        queue.take(now);
        queue.done("a", Next::AwaitChange, now);
        queue.changed("a", now);
        now += SECOND;
        queue.take(now);
        queue.done("a", Next::Retry, now);
        assert_eq!(queue.next_due().unwrap() - now, FIRST_PAUSE);
    }

    #[test]
    fn a_change_ends_a_pause() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.changed("a", now);
        queue.take(now + SECOND);
        queue.done("a", Next::After(3600 * SECOND), now + SECOND);
        assert_eq!(queue.take(now + 2 * SECOND), None);
        queue.changed("a", now + 2 * SECOND);
        assert_eq!(queue.take(now + 3 * SECOND), Some("a"));
    }

    #[test]
    fn the_longest_waiting_comes_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.changed("b", now);
        queue.changed("a", now + SECOND);
        assert_eq!(queue.take(now + 2 * SECOND), Some("b"));
        assert_eq!(queue.take(now + 2 * SECOND), Some("a"));
    }
}
