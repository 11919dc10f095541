//! Which keys there should be: one change at a time, decided from the list, the pods and the time.
//!
//! A key goes through three steps. It *signs* as soon as it is in the list, so that nobody who pins it later waits for a
//! bundle. New pods *pin* it as soon as admission takes it. It is *retired* when its successor has been there for a while:
//! no new pod pins it any more, but it signs on. It is *dropped* when every pod of the cluster that still runs and pins it
//! pins another that stays: until then a pod that was never restarted goes on taking bundles.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{Key, MAX_KEYS, SigningError, SigningKeys, since};

/// How long keys live.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A new key is made when the newest is older.
    pub max_age: Duration,
    /// A key is retired when its successor is older: by then every replica knows it and admission takes it. It is dropped
    /// at the earliest when it has been retired for as long.
    pub overlap: Duration,
}

/// What is asked for and what is so, besides the list itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The value of `names::ANNOTATION_ROTATE` at the Secret.
    pub asked: Option<&'a str>,
    /// The value that was answered with a new key already.
    pub answered: Option<&'a str>,
    /// What each pod that still runs pins, as [`SigningKeys::public_arguments`] has it.
    pub pods: &'a [BTreeSet<String>],
}

/// What to do.
#[derive(Debug)]
pub enum Turn {
    /// Nothing.
    Rest,
    /// A new key is due, but there are as many as a sidecar pins: pods have to be restarted first.
    Full,
    /// Put this list in place.
    Write {
        /// The list.
        keys: SigningKeys,
        /// What is new.
        why: Why,
    },
}

/// What is new about a list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Keys of unknown age got one.
    Dated,
    /// A key nobody needs was dropped.
    Dropped,
    /// A key was retired.
    Retired,
    /// A new key was made, because the newest is old.
    Aged,
    /// A new key was made, because somebody asked.
    Asked,
}

/// What to do now.
///
/// # Errors
/// The system gives no randomness.
pub fn turn(
    list: &SigningKeys,
    facts: Facts<'_>,
    rules: Rules,
    now: Timestamp,
) -> Result<Turn, SigningError> {
    let keys = &list.keys;
    let salt = &list.record_salt;
    let write = |keys, why| Ok(Turn::Write { keys: SigningKeys { keys, record_salt: salt.clone() }, why });
    if keys.iter().any(|key| key.created.is_none()) {
        return write(list.clone().dated(now).keys, Why::Dated);
    }
    if let Some(at) = (1..keys.len()).rev().find(|at| droppable(keys, *at, facts.pods, rules, now)) {
        let mut rest = keys.clone();
        rest.remove(at);
        return write(rest, Why::Dropped);
    }
    if let Some(at) = (1..keys.len()).find(|at| retirable(keys, *at, rules, now)) {
        let mut next = keys.clone();
        if let Some(key) = next.get_mut(at) {
            key.retired = Some(now);
        }
        return write(next, Why::Retired);
    }
    let asked = facts.asked.is_some_and(|asked| !asked.is_empty() && facts.answered != Some(asked));
    let aged = keys.first().is_none_or(|key| age(key, now) >= rules.max_age);
    if !asked && !aged {
        return Ok(Turn::Rest);
    }
    if keys.len() >= MAX_KEYS {
        return Ok(Turn::Full);
    }
    let mut next = vec![Key { created: Some(now), ..Key::generate()? }];
    next.extend(keys.iter().cloned());
    write(next, if asked { Why::Asked } else { Why::Aged })
}

fn age(key: &Key, now: Timestamp) -> Duration {
    key.created.map(|created| since(created, now)).unwrap_or_default()
}

fn retirable(keys: &[Key], at: usize, rules: Rules, now: Timestamp) -> bool {
    let (Some(key), Some(successor)) = (keys.get(at), at.checked_sub(1).and_then(|at| keys.get(at))) else {
        return false;
    };
    key.retired.is_none() && age(successor, now) >= rules.overlap
}

fn droppable(keys: &[Key], at: usize, pods: &[BTreeSet<String>], rules: Rules, now: Timestamp) -> bool {
    let Some(key) = keys.get(at) else { return false };
    let itself = key.argument();
    let others: Vec<_> = keys.iter().map(Key::argument).filter(|it| *it != itself).collect();
    let needs = |pinned: &BTreeSet<String>| {
        pinned.contains(&itself) && !others.iter().any(|other| pinned.contains(other))
    };
    key.retired.is_some_and(|retired| since(retired, now) >= rules.overlap) && !pods.iter().any(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { max_age: Duration::from_hours(1000), overlap: Duration::from_mins(10) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + i64::try_from(seconds).unwrap()).unwrap()
    }

    const NOBODY: Facts<'_> = Facts { asked: None, answered: None, pods: &[] };

    fn written(turn: Turn) -> (SigningKeys, Why) {
        match turn {
            Turn::Write { keys, why } => (keys, why),
            other => panic!("{other:?}"),
        }
    }

    fn next(list: &SigningKeys, facts: Facts<'_>, seconds: u64) -> (SigningKeys, Why) {
        written(turn(list, facts, RULES, at(seconds)).unwrap())
    }

    fn rests(list: &SigningKeys, facts: Facts<'_>, seconds: u64) -> bool {
        matches!(turn(list, facts, RULES, at(seconds)).unwrap(), Turn::Rest)
    }

    fn first() -> SigningKeys {
        SigningKeys::generate().unwrap().dated(at(0))
    }

    #[test]
    fn a_list_of_the_first_release_is_dated_and_then_rests() {
        let (dated, why) = next(&SigningKeys::generate().unwrap(), NOBODY, 0);
        assert_eq!(why, Why::Dated);
        assert!(rests(&dated, NOBODY, 1));
    }

    #[test]
    fn an_old_key_gets_a_successor_in_front_and_both_sign() {
        let list = first();
        assert!(rests(&list, NOBODY, 1000 * 3600 - 1));
        let (two, why) = next(&list, NOBODY, 1000 * 3600);
        assert_eq!(why, Why::Aged);
        assert_eq!(two.public_arguments()[1..], list.public_arguments());
        assert_eq!(two.to_pin().len(), 2);
        assert!(rests(&two, NOBODY, 1000 * 3600 + 599), "its successor is too young");
    }

    #[test]
    fn whoever_asks_is_answered_once() {
        let list = first();
        let ask = |asked, answered| Facts { asked, answered, pods: &[] };
        assert_eq!(next(&list, ask(Some("1"), None), 1).1, Why::Asked);
        assert_eq!(next(&list, ask(Some("2"), Some("1")), 1).1, Why::Asked);
        for (asked, answered) in [(None, None), (None, Some("1")), (Some("1"), Some("1")), (Some(""), None)] {
            assert!(rests(&list, ask(asked, answered), 1), "{asked:?}");
        }
    }

    #[test]
    fn a_key_is_retired_then_dropped_but_not_while_a_pod_pins_only_it() {
        let old = first();
        let ask = Facts { asked: Some("x"), ..NOBODY };
        let (two, _) = next(&old, ask, 0);
        let pin = |keys: &[String]| keys.iter().cloned().collect::<BTreeSet<_>>();
        let (only_old, both) = (pin(&old.public_arguments()), pin(&two.public_arguments()));
        let pods = [both.clone(), only_old.clone()];
        let facts = Facts { pods: &pods, ..NOBODY };
        let (retired, why) = next(&two, facts, 600);
        assert_eq!((why, retired.to_pin().len(), retired.public_arguments().len()), (Why::Retired, 1, 2));
        assert_eq!(retired.to_pin(), two.public_arguments()[..1]);
        for seconds in [601, 1200, 999 * 3600] {
            assert!(rests(&retired, facts, seconds), "{seconds}");
        }
        let foreign = [only_old, pin(&["other=AAAA".to_owned()])];
        assert!(rests(&retired, Facts { pods: &foreign, ..NOBODY }, 1200));
        let restarted = [both.clone(), both];
        let facts = Facts { pods: &restarted, ..NOBODY };
        assert!(rests(&retired, facts, 1199), "not retired for long enough");
        let (one, why) = next(&retired, facts, 1200);
        assert_eq!((why, one.public_arguments()), (Why::Dropped, two.public_arguments()[..1].to_vec()));
        assert!(rests(&one, facts, 1300), "the last one stays");
    }

    #[test]
    fn a_full_list_is_refused_until_a_pod_lets_go() {
        let mut list = first();
        for asked in ["a", "b", "c"] {
            list = next(&list, Facts { asked: Some(asked), ..NOBODY }, 1).0;
        }
        assert_eq!(list.public_arguments().len(), MAX_KEYS);
        let pods: Vec<_> = list.public_arguments().into_iter().map(|key| BTreeSet::from([key])).collect();
        let facts = Facts { asked: Some("d"), answered: Some("c"), pods: &pods };
        assert!(matches!(turn(&list, facts, RULES, at(2)).unwrap(), Turn::Full));
        let mut seconds = 2;
        for _ in 1..MAX_KEYS {
            seconds += 600;
            let (next, why) = next(&list, facts, seconds);
            assert_eq!(why, Why::Retired);
            list = next;
        }
        let pinned = turn(&list, facts, RULES, at(seconds + 600)).unwrap();
        assert!(matches!(pinned, Turn::Full), "each is pinned");
        for free in 1..MAX_KEYS {
            let mut pods = pods.clone();
            pods.remove(free);
            let (rest, why) = next(&list, Facts { pods: &pods, ..facts }, seconds + 600);
            assert_eq!(why, Why::Dropped);
            let gone = &list.public_arguments()[free];
            assert!(rest.public_arguments().len() == MAX_KEYS - 1 && !rest.public_arguments().contains(gone));
        }
    }

    #[test]
    fn a_clock_that_goes_back_drops_nothing() {
        let (two, _) = next(&first(), Facts { asked: Some("x"), ..NOBODY }, 10_000);
        assert!(rests(&two, NOBODY, 0));
    }
}
