use serde_json::json;

use super::*;

fn at() -> Time {
    serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()
}

fn who(uid: &str) -> Reporter {
    Reporter { identity: ("hr".into(), "hr-tools".into()), pod: format!("pod-{uid}"), uid: uid.into() }
}

fn key() -> IdentityKey {
    who("").identity
}

fn report(boot: &str, sequence: u64, allowed: u64) -> Report {
    serde_json::from_value(json!({
        "format": 1, "boot": boot, "sequence": sequence, "ended": false,
        "bundle": {"digest": "sha256:0a", "serial": 7}, "rejected": null, "squatted": [], "listeners": [],
        "moreListeners": false, "credentialsMissing": [],
        "decisions": {"allowed": allowed, "denied": 0, "wouldDeny": 0, "tallies": []},
        "scopesUsed": {}, "proofKey": "k",
    }))
    .unwrap()
}

fn pod(uid: &str) -> PodFacts {
    PodFacts {
        name: format!("pod-{uid}"),
        uid: uid.into(),
        labelled: true,
        injected: true,
        service_account: "hr-mcp".into(),
        revision: None,
        stand: Stand::Running,
    }
}

fn desk() -> Desk {
    Desk::new(Duration::from_secs(5))
}

fn write(desk: &Desk, now: Instant) -> String {
    let unwritten = desk.unwritten(&key(), now).unwrap();
    desk.written(&key(), &unwritten, reports::config_map("hr", "hr-tools", unwritten.text.clone()), now);
    unwritten.text
}

#[test]
fn what_is_new_wakes_at_once_and_counts_once_until_they_are_written() {
    let (desk, now) = (desk(), Instant::now());
    let say = |report| desk.report(&who("a"), report, &at(), now);
    assert!(say(report("x", 1, 0)), "the first word");
    assert!(!say(report("x", 2, 0)), "nothing new");
    desk.load(&key(), "uid-1", None, false, &at());
    write(&desk, now);
    assert!(say(report("x", 3, 5)));
    assert!(!say(report("x", 4, 6)), "it is looked at already");
    let mut other = report("x", 5, 6);
    other.bundle.as_mut().unwrap().digest = "sha256:0b".into();
    assert!(say(other));
    let mut rejected = report("x", 6, 6);
    rejected.rejected = Some("BundleUnsigned".into());
    assert!(say(rejected));
    let concerned = |sequence, served: &str| {
        let mut concerned = report("x", sequence, 6);
        let concern = json!({"reason": "CertificateKeyMismatch", "served": served});
        concerned.certificate = serde_json::from_value(concern).unwrap();
        concerned
    };
    assert!(say(concerned(7, "LastGood")));
    assert!(!say(concerned(8, "LastGood")), "nothing new");
    assert!(say(concerned(9, "Nothing")), "it is worse");
    assert!(say(report("x", 10, 6)), "it is well again");
    let mut ended = report("x", 11, 6);
    ended.ended = true;
    assert!(say(ended));
}

#[test]
fn counts_that_move_wait_and_a_boot_does_not() {
    let (desk, now) = (desk(), Instant::now());
    desk.report(&who("a"), report("x", 1, 0), &at(), now);
    assert!(desk.unwritten(&key(), now).is_none(), "not before it was loaded");
    assert!(desk.wants(&key(), "uid-1", false));
    desk.load(&key(), "uid-1", None, false, &at());
    assert!(!desk.wants(&key(), "uid-1", true));
    assert_eq!(desk.unwritten(&key(), now).unwrap().waits, None);
    write(&desk, now);
    assert!(desk.unwritten(&key(), now).is_none());
    desk.report(&who("a"), report("x", 2, 9), &at(), now);
    let waits = |now| desk.unwritten(&key(), now).unwrap().waits;
    assert_eq!(waits(now + Duration::from_secs(2)), Some(Duration::from_secs(3)));
    assert_eq!(waits(now + Duration::from_secs(5)), None);
    desk.report(&who("b"), report("y", 1, 0), &at(), now);
    assert_eq!(waits(now), None, "a boot is written down at once");
}

#[test]
fn what_is_told_while_it_is_written_is_written_next() {
    let (desk, now) = (desk(), Instant::now());
    desk.report(&who("a"), report("x", 1, 1), &at(), now);
    desk.load(&key(), "uid-1", None, false, &at());
    let unwritten = desk.unwritten(&key(), now).unwrap();
    desk.report(&who("a"), report("x", 2, 2), &at(), now);
    desk.written(&key(), &unwritten, ConfigMap::default(), now);
    assert!(desk.unwritten(&key(), now).is_some());
}

#[test]
fn a_new_leader_goes_on_from_what_is_stored() {
    let (first, now) = (desk(), Instant::now());
    let mut last = report("x", 2, 7);
    last.ended = true;
    first.report(&who("a"), last.clone(), &at(), now);
    first.report(&who("b"), report("y", 1, 3), &at(), now);
    first.load(&key(), "uid-1", None, false, &at());
    let text = write(&first, now);
    let second = desk();
    assert!(second.wants(&key(), "uid-1", true));
    assert!(!second.wants(&key(), "uid-1", false), "nothing is known and nothing was told");
    second.report(&who("b"), report("y", 2, 4), &at(), now);
    second.report(&who("a"), last, &at(), now);
    let stored = |text: &str| Some(reports::config_map("hr", "hr-tools", text.to_owned()));
    second.load(&key(), "uid-1", stored(&text), true, &at());
    let facts = [pod("b")];
    let found = second.reports(&key(), &facts, now).decisions.unwrap();
    assert_eq!((found.allowed, found.complete), (11, true));
    let found = second.reports(&key(), &[], now).decisions.unwrap();
    assert_eq!((found.allowed, found.complete), (11, false), "b went without a last word");

    let remade = desk();
    remade.report(&who("b"), report("y", 2, 4), &at(), now);
    remade.load(&key(), "uid-2", stored(&text), false, &at());
    let found = remade.reports(&key(), &facts, now).decisions.unwrap();
    assert_eq!((found.allowed, found.complete), (4, true), "another identity of the same name");
    for lost in [None, stored("{}"), Some(ConfigMap::default())] {
        let desk = desk();
        desk.load(&key(), "uid-1", lost, true, &at());
        assert!(!desk.reports(&key(), &facts, now).decisions.unwrap().complete);
    }
}

#[test]
fn a_pod_that_says_nothing_falls_silent_once_and_is_news_when_it_speaks_again() {
    let (desk, now) = (desk(), Instant::now());
    desk.begin(now);
    let facts = [pod("a"), PodFacts { stand: Stand::Starting, ..pod("b") }];
    let silent = |at| desk.reports(&key(), &facts, at).pods.get("a").unwrap().silent;
    assert!(!silent(now) && desk.reports(&key(), &facts, now).settling);
    assert!(!desk.reports(&key(), &facts, now).pods.contains_key("b"), "it does not run yet");
    let (none, next) = desk.silence(now + Duration::from_secs(1));
    assert!(none.is_empty() && next == now + Duration::from_secs(1) + MAX_AGE);
    assert!(desk.silence(next).0.is_empty(), "it was not heard yet at all, and may have to find us");
    let next = desk.silence(next).1;
    assert_eq!(next, now + FIRST);
    assert_eq!(desk.silence(next).0, [key()].into());
    assert!(desk.silence(next).0.is_empty(), "said once");
    assert!(silent(next) && !desk.reports(&key(), &facts, next).settling);
    assert!(desk.report(&who("a"), report("x", 1, 0), &at(), next));
    assert!(!silent(next));
    assert!(!silent(next + MAX_AGE / 2) && silent(next + MAX_AGE), "it was heard, and is not any more");
}

#[test]
fn a_late_last_word_does_not_hide_the_boot_that_came_after() {
    let (desk, now) = (desk(), Instant::now());
    desk.load(&key(), "uid-1", None, false, &at());
    desk.report(&who("a"), report("x", 1, 1), &at(), now);
    desk.report(&who("a"), report("y", 1, 0), &at(), now);
    let decisions = |desk: &Desk| desk.reports(&key(), &[pod("a")], now).decisions.unwrap();
    assert!(!decisions(&desk).complete);
    let mut ended = report("x", 2, 2);
    ended.ended = true;
    desk.report(&who("a"), ended, &at(), now);
    assert_eq!(desk.last("a").unwrap().boot, "y");
    assert_eq!((decisions(&desk).complete, decisions(&desk).allowed), (true, 2));
}

#[test]
fn nothing_is_kept_of_who_is_gone() {
    let (desk, now) = (desk(), Instant::now());
    desk.report(&who("a"), report("x", 1, 1), &at(), now);
    let _ = desk.reports(&key(), &[], now);
    assert!(desk.last("a").is_none() && desk.state().pods.is_empty());
    desk.report(&who("a"), report("x", 1, 1), &at(), now);
    desk.forget(&key());
    assert!(desk.state().pods.is_empty() && desk.state().tables.is_empty());
    desk.report(&who("a"), report("x", 1, 1), &at(), now);
    desk.end();
    assert!(desk.state().pods.is_empty() && desk.state().tables.is_empty());
}
