//! Which keys new pods pin: those that admission takes.
//!
//! Admission compares a pod's keys to the parameters of its policies, which lag behind the list: the leader writes them
//! after it saw the list, and every API server reads them a moment later. A key is therefore pinned when the parameters
//! have listed it for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use super::SigningKeys;

/// How long an API server may take to follow its parameters.
pub const SETTLE: Duration = Duration::from_secs(5);
/// Keys that were this old when the process started were listed long ago.
pub const OLD: Duration = Duration::from_mins(2);

/// What was seen of the parameters.
#[derive(Debug)]
pub struct Pins {
    /// Each listed key, and since when: milliseconds of any clock that only goes forward.
    listed: BTreeMap<String, Duration>,
    /// Keys that count as listed all along when they are first seen there.
    old: Vec<String>,
}

impl Pins {
    /// Of a process that starts, which finds `old` keys.
    #[must_use]
    pub fn new(old: Vec<String>) -> Self {
        Self { listed: BTreeMap::new(), old }
    }

    /// The parameters list these keys now.
    pub fn saw(&mut self, listed: &[String], now: Duration) {
        self.listed.retain(|key, _| listed.contains(key));
        for key in listed {
            let since = if self.old.contains(key) { Duration::ZERO } else { now };
            self.listed.entry(key.clone()).or_insert(since);
        }
    }

    /// What to pin of `keys`, as [`SigningKeys::to_pin`] orders them. None: nothing that admission would take, so that no
    /// choice is better than the one before.
    #[must_use]
    pub fn choose(&self, keys: &SigningKeys, now: Duration) -> Option<Vec<String>> {
        let settled = |key: &String| {
            self.listed.get(key).is_some_and(|since| since.is_zero() || now.saturating_sub(*since) >= SETTLE)
        };
        let chosen: Vec<_> = keys.to_pin().into_iter().filter(settled).collect();
        (!chosen.is_empty()).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::signing::rotate::{Facts, Rules, Turn, turn};

    fn two() -> SigningKeys {
        let (now, day) = (Timestamp::UNIX_EPOCH, Duration::from_hours(24));
        let facts = Facts { asked: Some("x"), answered: None, pods: &[] };
        let rules = Rules { max_age: day, overlap: day };
        match turn(&SigningKeys::generate().unwrap().dated(now), facts, rules, now).unwrap() {
            Turn::Write { keys, .. } => keys,
            other => panic!("{other:?}"),
        }
    }

    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn a_new_key_is_pinned_when_admission_had_time_to_learn_it() {
        let keys = two();
        let [new, old] = <[String; 2]>::try_from(keys.public_arguments()).unwrap();
        let mut pins = Pins::new(vec![old.clone()]);
        assert_eq!(pins.choose(&keys, START), None, "nothing was seen yet");
        pins.saw(std::slice::from_ref(&old), START);
        assert_eq!(pins.choose(&keys, START), Some(vec![old.clone()]));
        pins.saw(&[new.clone(), old.clone()], START);
        pins.saw(&[new.clone(), old.clone()], START + SETTLE / 2);
        assert_eq!(pins.choose(&keys, START + SETTLE / 2), Some(vec![old.clone()]));
        assert_eq!(pins.choose(&keys, START + SETTLE), Some(vec![new.clone(), old.clone()]));
        pins.saw(std::slice::from_ref(&new), START + 2 * SETTLE);
        assert_eq!(pins.choose(&keys, START + 2 * SETTLE), Some(vec![new]), "taken out by hand");
        pins.saw(&[], START + 3 * SETTLE);
        assert_eq!(pins.choose(&keys, START + 3 * SETTLE), None);
    }
}
