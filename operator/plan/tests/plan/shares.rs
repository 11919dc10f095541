//! One limit divided among pods: laws of the division, and who is given what when.

use std::collections::BTreeMap;

use behalf_plan::Shares;
use behalf_plan::shares::divide;
use behalf_policy::feed::{Report, Share};
use behalf_policy::ids::EntryName;
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{object, report};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares_add_up_to_the_limit_and_nobody_is_left_out(
        limit in prop_oneof![0..200_u32, any::<u32>()],
        demand in proptest::collection::vec(prop_oneof![0..50_u64, any::<u64>()], 0..60),
    ) {
        let shares = divide(limit, &demand);
        prop_assert_eq!(shares.len(), demand.len());
        let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
        prop_assert_eq!(sum, if demand.is_empty() { 0 } else { u64::from(limit) });
        if limit as usize >= demand.len() {
            prop_assert!(shares.iter().all(|share| *share > 0));
        } else {
            prop_assert!(shares.iter().all(|share| *share <= 1));
        }
    }

    #[test]
    fn who_asks_more_gets_no_less_and_nobody_else_gains(
        limit in prop_oneof![0..200_u32, any::<u32>()],
        demand in proptest::collection::vec(prop_oneof![0..50_u64, any::<u64>()], 1..30),
        who in any::<prop::sample::Index>(),
        more in prop_oneof![0..50_u64, any::<u64>()],
    ) {
        let who = who.index(demand.len());
        let before = divide(limit, &demand);
        let mut asking = demand.clone();
        asking[who] = asking[who].saturating_add(more);
        let after = divide(limit, &asking);
        prop_assert!(after[who] >= before[who], "{before:?} {after:?}");
    }

    #[test]
    fn of_two_pods_the_one_that_asks_more_gets_no_less(
        limit in any::<u32>(), demand in proptest::collection::vec(0..1000_u64, 2..20),
    ) {
        let shares = divide(limit, &demand);
        for (a, share_a) in demand.iter().zip(&shares) {
            for (b, share_b) in demand.iter().zip(&shares) {
                prop_assert!(a <= b || share_a >= share_b);
            }
        }
    }
}

#[test]
fn pods_that_nobody_asks_anything_share_evenly() {
    assert_eq!(divide(60, &[0, 0, 0]), [20, 20, 20]);
    assert_eq!(divide(61, &[0, 0, 0]), [21, 20, 20]);
    assert_eq!(divide(60, &[999, 0, 0]), [58, 1, 1]);
    assert_eq!(divide(60, &[u64::MAX; 2]), [30, 30]);
    assert_eq!(divide(2, &[1, 5, 3]), [0, 1, 1]);
    assert_eq!(divide(0, &[1]), [0]);
    assert_eq!(divide(7, &[0]), [7]);
}

fn name() -> EntryName {
    EntryName::new("burst").unwrap()
}

fn limits(of: u32) -> BTreeMap<EntryName, u32> {
    [(name(), of)].into()
}

/// What a pod says: its boot, the number of the report, how often the limit was asked, and the share it has.
fn said(boot: &str, sequence: u64, asked: u64, share: Option<(u32, u32)>) -> Report {
    let mut said = report(boot, "sha256:0a");
    said.sequence = sequence;
    let share = share.map(|(requests, of)| json!({"requests": requests, "of": of}));
    said.rate_limits = object(json!({"burst": {"asked": asked, "share": share}}));
    said
}

fn given(shares: &Shares, uid: &str) -> Option<u32> {
    shares.of(uid)?.get(&name()).map(|share| share.requests)
}

/// From this moment on it is clear who is there.
const SETTLED: u64 = 10_000;

#[test]
fn nothing_is_given_before_every_pod_could_tell_what_it_has() {
    let mut shares = Shares::default();
    shares.hear("a", &said("x", 1, 0, Some((20, 60))), 0);
    assert!(!shares.divide(&limits(60), 0, |_| true));
    assert_eq!(shares.of("a"), None, "it keeps what it has");
    shares.hear("b", &said("y", 1, 0, Some((40, 60))), SETTLED - 1);
    assert!(!shares.divide(&limits(60), SETTLED - 1, |_| true));
    assert!(shares.divide(&limits(60), SETTLED, |_| true));
    assert_eq!((given(&shares, "a"), given(&shares, "b")), (Some(30), Some(30)));
    assert_eq!(shares.of("a").unwrap()[&name()], Share { requests: 30, of: 60 });
    assert_eq!(shares.of("nobody"), None);
}

#[test]
fn shares_follow_pods_at_once_and_demand_in_rounds() {
    let mut shares = Shares::default();
    let all = |_: &str| true;
    shares.hear("a", &said("x", 1, 100, None), SETTLED);
    assert!(shares.divide(&limits(60), SETTLED, all));
    assert_eq!(given(&shares, "a"), Some(60));
    shares.hear("b", &said("y", 1, 0, None), SETTLED + 10);
    assert!(shares.divide(&limits(60), SETTLED + 10, all), "a pod that comes is given its share at once");
    let (a, b) = (given(&shares, "a").unwrap(), given(&shares, "b").unwrap());
    assert!(a > b && b >= 1 && a + b == 60, "{a} {b}");

    for (sequence, asked) in [(2, 500), (3, 900)] {
        shares.hear("b", &said("y", sequence, asked, None), SETTLED + 100);
        assert!(!shares.divide(&limits(60), SETTLED + 4999, all), "not before the round");
    }
    assert!(shares.divide(&limits(60), SETTLED + 5000, all));
    assert!(given(&shares, "b") > given(&shares, "a"), "who is asked now counts more than who was");

    // The same again, late, or of an earlier boot's end changes nothing.
    shares.hear("b", &said("y", 3, 9_000_000, None), SETTLED + 5001);
    let before = (given(&shares, "a"), given(&shares, "b"));
    shares.divide(&limits(60), SETTLED + 10_000, all);
    assert!(given(&shares, "b") <= before.1);

    // Another size of the limit, a pod that ends.
    assert!(shares.divide(&limits(6), SETTLED + 10_001, all));
    assert_eq!(given(&shares, "a").unwrap() + given(&shares, "b").unwrap(), 6);
    let mut ended = said("y", 4, 900, None);
    ended.ended = true;
    shares.hear("b", &ended, SETTLED + 10_002);
    assert!(shares.divide(&limits(6), SETTLED + 10_002, all));
    assert_eq!((given(&shares, "a"), given(&shares, "b")), (Some(6), None));
}

#[test]
fn what_a_silent_pod_may_still_use_is_given_to_nobody_until_it_is_gone() {
    let mut shares = Shares::default();
    let at = SETTLED;
    shares.hear("a", &said("x", 1, 0, None), at);
    shares.hear("b", &said("y", 1, 0, None), at);
    shares.divide(&limits(60), at, |_| true);
    assert_eq!(given(&shares, "b"), Some(30));
    let late = at + 31_000;
    shares.hear("a", &said("x", 2, 1000, Some((30, 60))), late);
    shares.divide(&limits(60), late, |_| true);
    assert_eq!(given(&shares, "a"), Some(30), "b was not heard, and serves");
    shares.hear("a", &said("x", 3, 2000, Some((30, 60))), late + 5000);
    assert!(shares.divide(&limits(60), late + 5000, |uid| uid == "a"));
    assert_eq!(given(&shares, "a"), Some(60));
}

#[test]
fn a_pod_that_starts_again_counts_anew() {
    let mut shares = Shares::default();
    shares.hear("a", &said("x", 9, 1000, None), SETTLED);
    shares.hear("b", &said("y", 1, 1000, None), SETTLED);
    shares.divide(&limits(62), SETTLED, |_| true);
    assert_eq!(given(&shares, "a"), Some(31));
    shares.hear("a", &said("z", 1, 1000, None), SETTLED + 1);
    shares.hear("b", &said("y", 2, 2000, None), SETTLED + 1);
    shares.divide(&limits(62), SETTLED + 5000, |_| true);
    assert_eq!(given(&shares, "a"), Some(31), "as much as the other one since");
}
