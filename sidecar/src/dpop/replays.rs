//! Which proofs were taken already (RFC 9449 §11.1), for as long as they could be taken again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use behalf_policy::ids::Timestamp;

/// How many proofs are remembered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Of everybody.
    pub all: usize,
    /// Of them those of one principal, so that nobody fills the memory for everybody.
    pub of_one: usize,
}

impl Default for Capacity {
    /// About ten megabytes; of one principal more than fifty requests a second over the widest window.
    fn default() -> Self {
        Self { all: 65_536, of_one: 16_384 }
    }
}

/// There is no room for another proof. None that is remembered makes room before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forgetful {
    /// Of this principal.
    #[error("no further proof of this caller can be remembered now")]
    OfCaller,
    /// Of anybody.
    #[error("no further proof can be remembered now")]
    OfAll,
}

impl Forgetful {
    /// Stable name, for records.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::OfCaller => "ProofsOfCallerFull",
            Self::OfAll => "ProofsFull",
        }
    }
}

type Digest = [u8; 32];

/// The memory.
pub(super) struct Replays {
    seen: Mutex<Seen>,
    capacity: Capacity,
}

#[derive(Default)]
struct Seen {
    proofs: HashSet<Digest>,
    /// The next to be forgotten first: until when, which, whose.
    ends: BinaryHeap<Reverse<(Timestamp, Digest, Digest)>>,
    of: HashMap<Digest, usize>,
}

impl Replays {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { seen: Mutex::default(), capacity }
    }

    /// Whether a proof is taken for the first time. It is remembered until `until`.
    ///
    /// # Errors
    /// When it cannot be remembered: then it must not be taken.
    pub(super) fn first(
        &self,
        owner: Digest,
        proof: Digest,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Forgetful> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget(now);
        if seen.proofs.contains(&proof) {
            return Ok(false);
        }
        let own = seen.of.get(&owner).copied().unwrap_or_default();
        if own >= self.capacity.of_one {
            return Err(Forgetful::OfCaller);
        }
        if seen.proofs.len() >= self.capacity.all {
            return Err(Forgetful::OfAll);
        }
        seen.proofs.insert(proof);
        seen.ends.push(Reverse((until, proof, owner)));
        seen.of.insert(owner, own.saturating_add(1));
        Ok(true)
    }
}

impl Seen {
    /// Forgets what could not be taken any more.
    fn forget(&mut self, now: Timestamp) {
        while self.ends.peek().is_some_and(|Reverse((until, ..))| *until <= now) {
            let Some(Reverse((_, proof, owner))) = self.ends.pop() else { return };
            self.proofs.remove(&proof);
            if let Some(own) = self.of.get_mut(&owner) {
                *own = own.saturating_sub(1);
                if *own == 0 {
                    self.of.remove(&owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(replays: &Replays) -> bool {
        let seen = replays.seen.lock().unwrap();
        seen.proofs.is_empty() && seen.ends.is_empty() && seen.of.is_empty()
    }

    #[test]
    fn a26_a_proof_is_good_once_until_it_could_not_be_good_anyhow() {
        let replays = Replays::new(Capacity::default());
        let take =
            |proof: u8, until, now| replays.first([1; 32], [proof; 32], Timestamp(until), Timestamp(now));
        assert_eq!(take(1, 10, 0), Ok(true));
        assert_eq!(take(2, 5, 0), Ok(true));
        for now in [0, 5, 9] {
            assert_eq!(take(1, 10, now), Ok(false), "{now}");
        }
        assert_eq!(take(2, 20, 9), Ok(true), "its time was over");
        // One that was remembered makes no other's time longer.
        assert_eq!(take(1, 20, 10), Ok(true));
        replays.seen.lock().unwrap().forget(Timestamp(20));
        assert!(is_empty(&replays));
    }

    #[test]
    fn a26_a_full_memory_takes_nothing_more_and_forgets_nothing_early() {
        let replays = Replays::new(Capacity { all: 5, of_one: 3 });
        let take = |owner: u8, proof: u8, now| {
            replays.first([owner; 32], [proof; 32], Timestamp(10), Timestamp(now))
        };
        for proof in 0..3 {
            assert_eq!(take(1, proof, 0), Ok(true));
        }
        assert_eq!(take(1, 3, 0), Err(Forgetful::OfCaller));
        // What is remembered still is; and one caller does not fill the memory for others.
        assert_eq!(take(1, 0, 0), Ok(false));
        assert_eq!(take(2, 10, 0), Ok(true));
        assert_eq!(take(2, 11, 9), Ok(true));
        assert_eq!(take(2, 12, 9), Err(Forgetful::OfAll));
        assert_eq!(take(3, 13, 9), Err(Forgetful::OfAll));
        assert_eq!(take(2, 10, 9), Ok(false));
        assert_eq!(take(3, 13, 10), Ok(true), "the time of all of them is over");
        assert_eq!(take(1, 3, 10), Ok(true));
    }

    #[test]
    fn a26_of_many_at_once_one_is_the_first() {
        let replays = std::sync::Arc::new(Replays::new(Capacity::default()));
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let replays = std::sync::Arc::clone(&replays);
                std::thread::spawn(move || replays.first([1; 32], [1; 32], Timestamp(10), Timestamp(0)))
            })
            .collect();
        let first = tries.into_iter().map(|t| t.join().unwrap()).filter(|first| *first == Ok(true)).count();
        assert_eq!(first, 1);
    }
}
