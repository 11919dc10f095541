//! The ledger of what pods have counted: laws, and what it says when something is lost.

use behalf_crds::v1alpha1::DecisionVerdict;
use behalf_plan::Ledger;
use behalf_plan::reports::Absorbed;
use behalf_policy::feed::{RecordsHead, Report, Tally, Verdict};
use proptest::prelude::*;

use crate::fixtures::{at, object, report};

const TOOLS: [&str; 3] = ["directory.search", "salary.get", "salary.update"];
const REASONS: [&str; 2] = ["GroupMissing", "ScopeMissing"];

/// What a pod said.
type Said = (String, Report);

/// The reports of one boot, each with what was counted until then; the last one may end it.
fn history(pod: usize, boot: usize, steps: &[(u64, u64, usize, usize)], ends: bool) -> Vec<Said> {
    let mut said = report(&format!("boot-{boot}"), "sha256:0a");
    let mut reports = Vec::new();
    for (index, (allowed, denied, tool, reason)) in steps.iter().enumerate() {
        said.sequence = u64::try_from(index).unwrap() + 1;
        said.decisions.allowed += allowed;
        said.decisions.denied += denied;
        let (tool, reason) = (Some(object(serde_json::json!(TOOLS[*tool]))), REASONS[*reason].to_owned());
        let tallies = &mut said.decisions.tallies;
        match tallies.iter_mut().find(|it| it.tool == tool && it.reason == reason) {
            Some(held) => held.count += denied,
            None => tallies.push(Tally { tool, verdict: Verdict::Denied, reason, count: *denied }),
        }
        said.ended = ends && index + 1 == steps.len();
        reports.push((format!("pod-{pod}"), said.clone()));
    }
    reports
}

fn histories() -> impl Strategy<Value = Vec<Vec<Said>>> {
    let step = (0..50_u64, 0..20_u64, 0..TOOLS.len(), 0..REASONS.len());
    let boot = (0..3_usize, prop::collection::vec(step, 1..6), any::<bool>());
    prop::collection::vec(boot, 1..8).prop_map(|boots| {
        let each = boots.into_iter().enumerate();
        each.map(|(boot, (pod, steps, ends))| history(pod, boot, &steps, ends)).collect()
    })
}

/// All reports in some order, some of them several times.
fn shuffled() -> impl Strategy<Value = (Vec<Vec<Said>>, Vec<Said>)> {
    histories().prop_flat_map(|histories| {
        let all: Vec<_> = histories.iter().flatten().cloned().collect();
        let again = prop::collection::vec(prop::sample::select(all.clone()), 0..all.len());
        let order = again.prop_flat_map(move |again| {
            Just(all.iter().cloned().chain(again).collect::<Vec<_>>()).prop_shuffle()
        });
        (Just(histories), order)
    })
}

fn ledger(reports: &[Said]) -> Ledger {
    let mut ledger = Ledger::new("uid-1", at(0));
    for (pod, said) in reports {
        ledger.absorb(pod, said);
    }
    ledger
}

/// What the histories add up to, counted the simple way: the last report of each boot.
fn expected(histories: &[Vec<Said>]) -> (i64, i64) {
    let last = histories.iter().map(|history| &history.last().unwrap().1.decisions);
    last.fold((0, 0), |(allowed, denied), it| {
        (allowed + i64::try_from(it.allowed).unwrap(), denied + i64::try_from(it.denied).unwrap())
    })
}

fn sums(ledger: &Ledger) -> (i64, i64) {
    let decisions = ledger.decisions();
    (decisions.allowed, decisions.denied)
}

proptest! {
    #[test]
    fn order_and_repetition_change_nothing((histories, reports) in shuffled()) {
        let ledger = ledger(&reports);
        prop_assert_eq!(sums(&ledger), expected(&histories));
        let plain: Vec<_> = histories.concat();
        prop_assert_eq!(&ledger, &self::ledger(&plain));
    }

    #[test]
    fn once_is_enough((_, reports) in shuffled()) {
        let once = ledger(&reports);
        let mut twice = once.clone();
        for (pod, said) in &reports {
            prop_assert_eq!(twice.absorb(pod, said), Absorbed::Nothing);
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn counts_never_go_back((_, reports) in shuffled(), folds in prop::collection::vec(any::<bool>(), 64)) {
        let mut ledger = Ledger::new("uid-1", at(0));
        let mut before = sums(&ledger);
        for ((pod, said), fold) in reports.iter().zip(folds) {
            ledger.absorb(pod, said);
            if fold {
                ledger.fold();
            }
            let now = sums(&ledger);
            prop_assert!(now.0 >= before.0 && now.1 >= before.1);
            before = now;
        }
    }

    #[test]
    fn folding_what_has_ended_changes_no_sum((histories, reports) in shuffled()) {
        let mut ledger = Ledger::new("uid-1", at(0));
        for (pod, said) in &reports {
            ledger.absorb(pod, said);
            let before = ledger.decisions();
            ledger.fold();
            prop_assert_eq!(before, ledger.decisions());
        }
        prop_assert_eq!(sums(&ledger), expected(&histories));
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent((_, reports) in shuffled(), cuts in (0..100_usize, 0..100_usize)) {
        let (first, second) = (cuts.0 % (reports.len() + 1), cuts.1 % (reports.len() + 1));
        let (a, b) = (first.min(second), first.max(second));
        let (x, y, z) = (ledger(&reports[..a]), ledger(&reports[a..b]), ledger(&reports[b..]));
        prop_assert_eq!(x.clone().join(y.clone()), y.clone().join(x.clone()));
        prop_assert_eq!(x.clone().join(y.clone()).join(z.clone()), x.clone().join(y.join(z)));
        prop_assert_eq!(x.clone().join(x.clone()), x);
    }

    #[test]
    fn two_that_began_with_the_same_store_lose_nothing_and_count_nothing_twice((histories, reports) in shuffled(), cut in 0..100_usize, fold in any::<bool>()) {
        let cut = cut % (reports.len() + 1);
        let stored = ledger(&reports[..cut]);
        let (mut one, mut other) = (stored.clone(), stored);
        one.fold();
        for (pod, said) in &reports[cut..] {
            one.absorb(pod, said);
        }
        if fold {
            other.fold();
        }
        prop_assert_eq!(sums(&other.join(one)), expected(&histories));
    }

    #[test]
    fn what_is_written_is_read_back((_, reports) in shuffled(), fold in any::<bool>()) {
        let mut ledger = ledger(&reports);
        ledger.settle(|pod, _| pod != "pod-1");
        if fold {
            ledger.fold();
        }
        prop_assert_eq!(Ledger::from_text(&ledger.to_text().unwrap()).unwrap(), ledger);
    }
}

#[test]
fn a_boot_that_ends_without_a_last_word_makes_the_counts_incomplete() {
    let mut ledger =
        ledger(&[history(1, 1, &[(3, 1, 0, 0)], true), history(2, 2, &[(5, 0, 0, 0)], false)].concat());
    assert!(ledger.complete());
    assert!(!ledger.settle(|_, _| true), "both are there");
    assert!(!ledger.settle(|pod, _| pod != "pod-1"), "the one that said its last word may go");
    assert!(ledger.complete());
    assert!(ledger.settle(|pod, _| pod != "pod-2"));
    assert!(!ledger.complete());
    assert!(!ledger.settle(|pod, _| pod != "pod-2"), "said once");
    assert_eq!(sums(&ledger), (8, 1), "what it told still counts");
    let (_, last) = history(2, 2, &[(5, 0, 0, 0), (1, 0, 0, 0)], true).pop().unwrap();
    assert_eq!(ledger.absorb("pod-2", &last), Absorbed::Boot);
    assert!(ledger.complete(), "the last word came late");
    assert_eq!(sums(&ledger), (9, 1));
}

#[test]
fn a_boot_replaced_in_its_own_pod_is_gone_too() {
    let mut ledger =
        ledger(&[history(1, 1, &[(3, 0, 0, 0)], false), history(1, 2, &[(4, 0, 0, 0)], false)].concat());
    assert!(ledger.settle(|pod, boot| pod == "pod-1" && boot == "boot-2"));
    assert!(!ledger.complete());
    assert_eq!(sums(&ledger), (7, 0));
}

#[test]
fn no_pod_writes_into_another_pods_boot() {
    let mut ledger = ledger(&history(1, 1, &[(3, 0, 0, 0)], true));
    ledger.fold();
    let (_, squatter) = history(2, 1, &[(100, 0, 0, 0)], true).pop().unwrap();
    ledger.absorb("pod-2", &squatter);
    assert_eq!(sums(&ledger), (103, 0), "its own boot, whatever it calls it");
    let (_, late) = history(1, 1, &[(3, 0, 0, 0), (50, 0, 0, 0)], true).pop().unwrap();
    assert_eq!(ledger.absorb("pod-1", &late), Absorbed::Nothing, "nothing comes after the last word");
}

#[test]
fn what_changed_says_how_urgent_it_is_to_write() {
    let mut ledger = Ledger::new("uid-1", at(0));
    assert!(ledger.is_empty());
    let reports = history(1, 1, &[(0, 0, 0, 0), (2, 0, 0, 0), (0, 0, 0, 0)], true);
    let changes: Vec<_> = reports.iter().map(|(pod, said)| ledger.absorb(pod, said)).collect();
    assert_eq!(changes, [Absorbed::Boot, Absorbed::Counts, Absorbed::Boot]);
    let mut idle = reports[0].1.clone();
    idle.sequence = 9;
    assert_eq!(ledger.absorb("pod-1", &idle), Absorbed::Nothing);
}

#[test]
fn the_most_frequent_come_first_and_no_more_than_ten() {
    let mut said = report("boot", "sha256:0a");
    said.decisions.would_deny = 30;
    for count in 1..=30_u64 {
        said.decisions.tallies.push(Tally {
            tool: None,
            verdict: Verdict::WouldDeny,
            reason: format!("Reason{count}"),
            count,
        });
    }
    let decisions = ledger(&[("pod-1".to_owned(), said)]).decisions();
    assert_eq!(decisions.top.len(), 10);
    assert_eq!((decisions.top[0].reason.as_str(), decisions.top[0].count), ("Reason30", 30));
    assert!(decisions.top.iter().all(|it| it.verdict == DecisionVerdict::WouldDeny));
    assert_eq!((decisions.since, decisions.would_deny), (at(0), 30));
}

#[test]
fn more_boots_than_fit_are_said_to_be_missing_and_the_text_stays_bounded() {
    let mut ledger = Ledger::new("uid-1", at(0));
    for pod in 0..1_100_usize {
        for (pod, said) in history(pod, pod, &[(1, 1, 0, 0), (0, 1, 1, 1)], false) {
            ledger.absorb(&pod, &said);
        }
    }
    assert!(!ledger.complete());
    assert_eq!(sums(&ledger).0, 1024);
    assert!(ledger.to_text().unwrap().len() < 900 * 1024);
    ledger.settle(|_, _| false);
    ledger.fold();
    assert_eq!(sums(&ledger).0, 1024, "folded, not forgotten");
}

#[test]
fn what_is_no_ledger_is_not_taken_for_one() {
    let good = ledger(&history(1, 1, &[(1, 1, 0, 0)], false)).to_text().unwrap();
    assert!(Ledger::from_text(&good).is_ok());
    for bad in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        good.replace("\"format\":1", "\"format\":2"),
        good.replace("\"lost\":false", "\"lost\":0"),
        good.replace("\"lost\":false", "\"lost\":false,\"more\":1"),
        good.replace("[[0,1]]", "[[7,1]]"),
        good.replace("\"since\"", "\"until\""),
    ] {
        assert!(Ledger::from_text(&bad).is_err(), "{bad}");
    }
}

/// The report of a boot whose records go so far.
fn with_head(boot: &str, sequence: u64, records: Option<(u64, char)>) -> Report {
    let mut said = report(boot, "sha256:0a");
    said.sequence = sequence;
    said.records = records.map(|(sequence, digit)| RecordsHead {
        sequence,
        head: format!("sha256:{}", digit.to_string().repeat(64)),
    });
    said
}

fn heads(ledger: &Ledger) -> Vec<(String, u64, char)> {
    ledger
        .heads()
        .map(|(boot, sequence, head)| (boot.to_owned(), sequence, head.chars().last().unwrap()))
        .collect()
}

#[test]
fn the_highest_head_of_each_boot_stands_and_is_never_replaced_by_another_of_its_sequence() {
    let mut ledger = Ledger::new("uid-1", at(0));
    for (sequence, records, absorbed) in [
        (1, None, Absorbed::Boot),
        (2, Some((4, 'a')), Absorbed::Counts),
        (3, Some((4, 'a')), Absorbed::Nothing),
        (4, Some((4, 'b')), Absorbed::Nothing),
        (5, Some((3, 'c')), Absorbed::Nothing),
        (6, None, Absorbed::Nothing),
        (7, Some((9, 'd')), Absorbed::Counts),
    ] {
        assert_eq!(ledger.absorb("pod", &with_head("boot-1", sequence, records)), absorbed, "{sequence}");
    }
    ledger.absorb("other", &with_head("boot-2", 1, Some((2, 'e'))));
    let told = [("boot-2".to_owned(), 2, 'e'), ("boot-1".to_owned(), 9, 'd')];
    assert_eq!(heads(&ledger), told);
    assert_eq!(heads(&Ledger::from_text(&ledger.to_text().unwrap()).unwrap()), told);
    let newer = {
        let mut newer = Ledger::new("uid-1", at(0));
        newer.absorb("pod", &with_head("boot-1", 8, Some((12, 'f'))));
        newer
    };
    assert_eq!(heads(&ledger.clone().join(newer.clone())), heads(&newer.join(ledger)));
}

#[test]
fn a_boot_that_has_ended_keeps_its_head_and_one_that_is_forgotten_does_not() {
    let mut ledger = Ledger::new("uid-1", at(0));
    for boot in 0..300 {
        let mut said = with_head(&format!("boot-{boot:03}"), 1, Some((boot, 'a')));
        said.ended = true;
        ledger.absorb("pod", &said);
        ledger.fold();
        // Somebody who comes late with another head adds nothing.
        ledger.absorb("pod", &with_head(&format!("boot-{boot:03}"), 2, Some((1000, 'b'))));
    }
    let heads = heads(&ledger);
    assert_eq!((heads.len(), heads[0].1, heads[255].1), (256, 44, 299));
    assert!(heads.iter().all(|(_, _, digit)| *digit == 'a'));
}
