//! `Programmed`, the counts that go with it, and what `Ready` makes of the pods' own word.

use std::sync::Arc;

use behalf_crds::v1alpha1::{AgentIdentityStatus, ConditionType, find_condition};
use behalf_plan::{
    Applied, BundleFacts, EventKind, Gathered, PodFacts, Stand, Told, events, identity_status,
};
use behalf_policy::feed::Report;
use serde_json::json;

use crate::fixtures::*;

const NEWEST: &str = "sha256:0a";
const OLDER: &str = "sha256:0b";

pub(crate) fn applied() -> Applied {
    Applied { bundle: Some(BundleFacts { digest: NEWEST.to_owned(), serial: 7 }), failure: None }
}

fn says(report: Report) -> Told {
    Told { silent: false, report: Some(Arc::new(report)) }
}

/// One injected pod each, which tells this.
pub(crate) fn pods(told: &[(&str, Option<Told>)]) -> Gathered {
    let mut gathered = gathered();
    gathered.pods = told.iter().map(|(name, _)| pod_facts(name, true)).collect();
    for (name, told) in told {
        if let Some(told) = told {
            gathered.reports.pods.insert(format!("uid-{name}"), told.clone());
        }
    }
    gathered
}

pub(crate) fn status_after(
    gathered: &Gathered,
    applied: &Applied,
    previous: Option<&AgentIdentityStatus>,
) -> AgentIdentityStatus {
    identity_status(&plan(gathered), applied, previous, &at(2))
}

pub(crate) fn words(status: &AgentIdentityStatus, type_: ConditionType) -> (String, String, String) {
    let found = find_condition(&status.conditions, type_).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

pub(crate) fn with(change: impl FnOnce(&mut Report)) -> Told {
    let mut report = report("boot", NEWEST);
    change(&mut report);
    says(report)
}

fn counts(status: &AgentIdentityStatus) -> (Option<i64>, Option<i64>) {
    let pods = status.pods.unwrap();
    (pods.current, pods.stale)
}

#[test]
fn programmed_says_the_first_thing_that_is_not_so() {
    let newest = || Some(says(report("boot", NEWEST)));
    let older = || Some(says(report("boot", OLDER)));
    let silent = |report: Option<Report>| Some(Told { silent: true, report: report.map(Arc::new) });
    let none = || Some(with(|it| it.bundle = None));
    let rejects = |digest: &str| {
        let mut said = report("boot", digest);
        said.rejected = Some("BundleUnsigned".to_owned());
        Some(says(said))
    };
    for (told, status, reason, next, current) in [
        (vec![("a", newest())], "True", "Programmed", "The one pod", 1),
        (vec![("a", newest()), ("b", newest())], "True", "Programmed", "All 2 pods", 2),
        (vec![("a", newest()), ("b", older())], "False", "PodsBehind", "logs b -c behalf-sidecar", 1),
        (vec![("a", newest()), ("b", none())], "False", "PodsBehind", ": b.", 1),
        (vec![("a", older()), ("b", older())], "False", "PodsBehind", "a b", 0),
        (vec![("a", newest()), ("b", silent(None))], "False", "NotReporting", "delete pod b", 1),
        (
            vec![("a", silent(Some(report("boot", NEWEST))))],
            "False",
            "NotReporting",
            "Service behalf-feed in behalf-system",
            0,
        ),
        (vec![("a", older()), ("b", silent(None))], "False", "NotReporting", "from: b.", 0),
        (vec![("a", rejects(OLDER)), ("b", silent(None))], "False", "BundleRejected", "BundleUnsigned", 0),
        (vec![("a", rejects(NEWEST))], "True", "Programmed", "The one pod", 1),
        (vec![("a", newest()), ("b", None)], "Unknown", "Pending", "b", 1),
        (vec![("a", older()), ("b", None)], "False", "PodsBehind", ": a.", 0),
        (vec![], "Unknown", "NoPods", "No pod", 0),
    ] {
        let gathered = pods(&told);
        let after = status_after(&gathered, &applied(), None);
        let found = words(&after, ConditionType::Programmed);
        assert_eq!((found.0.as_str(), found.1.as_str()), (status, reason), "{told:?}");
        assert!(found.2.contains(next), "{reason}: {}", found.2);
        let injected = i64::try_from(told.len()).unwrap();
        assert_eq!(counts(&after), (Some(current), Some(injected - current)), "{told:?}");
        let digest = after.bundle.unwrap().programmed_digest;
        assert_eq!(digest.is_some(), status == "True", "{told:?}");
    }
}

#[test]
fn without_a_bundle_nothing_is_programmed() {
    let gathered = pods(&[("a", Some(says(report("boot", NEWEST))))]);
    let found = words(&status_after(&gathered, &Applied::default(), None), ConditionType::Programmed);
    assert_eq!((found.0.as_str(), found.1.as_str()), ("False", "BundleNotWritten"));
}

#[test]
fn pods_that_start_end_or_run_bare_are_not_waited_for() {
    let mut gathered = pods(&[("a", Some(says(report("boot", NEWEST))))]);
    gathered.pods.push(PodFacts { stand: Stand::Starting, ..pod_facts("starts", true) });
    gathered.pods.push(PodFacts { stand: Stand::Leaving, ..pod_facts("ends", true) });
    gathered.pods.push(pod_facts("bare", false));
    let after = status_after(&gathered, &applied(), None);
    assert_eq!(words(&after, ConditionType::Programmed).1, "Programmed");
    assert_eq!(counts(&after), (Some(1), Some(1)), "the one that starts does not say so yet");
}

#[test]
fn a_report_of_a_pod_that_was_made_again_counts_for_nobody() {
    let mut gathered = pods(&[("a", Some(says(report("boot", NEWEST))))]);
    gathered.pods[0].uid = "uid-of-the-next".to_owned();
    let found = words(&status_after(&gathered, &applied(), None), ConditionType::Programmed);
    assert_eq!(found.1, "Pending");
}

#[test]
fn the_last_programmed_bundle_is_named_until_the_next_one_is() {
    let first = status_after(&pods(&[("a", Some(says(report("boot", NEWEST))))]), &applied(), None);
    let next = Applied { bundle: Some(BundleFacts { digest: OLDER.to_owned(), serial: 8 }), failure: None };
    let second = status_after(&pods(&[("a", Some(says(report("boot", NEWEST))))]), &next, Some(&first));
    let bundle = second.bundle.clone().unwrap();
    assert_eq!((bundle.digest.as_str(), bundle.programmed_digest.as_deref()), (OLDER, Some(NEWEST)));
    assert_eq!(words(&second, ConditionType::Programmed).1, "PodsBehind");
    let third = status_after(&pods(&[("a", Some(says(report("boot", OLDER))))]), &next, Some(&second));
    assert_eq!(third.bundle.unwrap().programmed_digest.as_deref(), Some(OLDER));
}

#[test]
fn a_new_listener_keeps_what_was_known_of_the_same_bundle_and_no_more() {
    let newest = || Some(says(report("boot", NEWEST)));
    let known = status_after(&pods(&[("a", newest()), ("b", newest())]), &applied(), None);
    let mut nothing = pods(&[("a", None), ("b", None)]);
    nothing.reports.settling = true;
    assert_eq!(status_after(&nothing, &applied(), Some(&known)), known, "nothing to write");
    let mut some = pods(&[("a", newest()), ("b", None)]);
    some.reports.settling = true;
    assert_eq!(status_after(&some, &applied(), Some(&known)), known);

    let mut behind = pods(&[("a", Some(says(report("boot", OLDER)))), ("b", None)]);
    behind.reports.settling = true;
    let told = status_after(&behind, &applied(), Some(&known));
    assert_eq!(words(&told, ConditionType::Programmed).1, "PodsBehind", "what is known is said");
    let changed =
        Applied { bundle: Some(BundleFacts { digest: OLDER.to_owned(), serial: 8 }), failure: None };
    let after = status_after(&nothing, &changed, Some(&known));
    assert_eq!(words(&after, ConditionType::Programmed).1, "Pending", "another bundle");
    nothing.reports.settling = false;
    let after = status_after(&nothing, &applied(), Some(&known));
    assert_eq!(words(&after, ConditionType::Programmed).1, "Pending", "long enough");
    assert_eq!(counts(&after), (Some(0), Some(2)));
}

#[test]
fn ready_says_what_pods_complain_of() {
    let squatted = || with(|it| it.squatted = [15101].into());
    let rejected = || with(|it| it.rejected = Some("SerialWentBack".to_owned()));
    let missing = || with(|it| it.credentials_missing = object(json!(["corp"])));
    for (told, reason, next) in [
        (vec![("a", Some(squatted()))], "PortSquatted", "port 15101"),
        (vec![("a", Some(squatted()))], "PortSquatted", "kubectl -n hr delete pod a"),
        (vec![("a", Some(rejected()))], "BundleRejected", "SerialWentBack"),
        (vec![("a", Some(missing()))], "CredentialMissing", "(corp)"),
        (vec![("a", Some(missing()))], "CredentialMissing", "kubectl -n hr describe pod a"),
        (vec![("a", Some(missing())), ("b", Some(rejected()))], "BundleRejected", ": b."),
        (vec![("a", Some(rejected())), ("b", Some(squatted()))], "PortSquatted", ": b."),
    ] {
        let found = words(&status_after(&pods(&told), &applied(), None), ConditionType::Ready);
        assert_eq!((found.0.as_str(), found.1.as_str()), ("False", reason), "{told:?}");
        assert!(found.2.contains(next), "{}", found.2);
    }
    let found =
        words(&status_after(&pods(&[("a", Some(with(|_| ())))]), &applied(), None), ConditionType::Ready);
    assert_eq!(found.1, "Ready");
}

#[test]
fn a_new_listener_does_not_take_silence_for_the_end_of_trouble() {
    let known =
        status_after(&pods(&[("a", Some(with(|it| it.squatted = [15101].into())))]), &applied(), None);
    let mut nothing = pods(&[("a", None)]);
    nothing.reports.settling = true;
    let after = status_after(&nothing, &applied(), Some(&known));
    assert_eq!(words(&after, ConditionType::Ready), words(&known, ConditionType::Ready));
    nothing.reports.settling = false;
    assert_eq!(words(&status_after(&nothing, &applied(), Some(&known)), ConditionType::Ready).1, "Ready");
    let mut well = pods(&[("a", Some(with(|_| ())))]);
    well.reports.settling = true;
    assert_eq!(words(&status_after(&well, &applied(), Some(&known)), ConditionType::Ready).1, "Ready");
}

#[test]
fn events_tell_of_silence_and_its_end_but_not_of_every_change_on_its_way() {
    let newest = || Some(says(report("boot", NEWEST)));
    let none = status_after(&pods(&[("a", None)]), &applied(), None);
    let good = status_after(&pods(&[("a", newest())]), &applied(), Some(&none));
    assert!(events(&none.conditions, &good.conditions).is_empty(), "the first start is no news");
    let next = Applied { bundle: Some(BundleFacts { digest: OLDER.to_owned(), serial: 8 }), failure: None };
    let passing = status_after(&pods(&[("a", newest())]), &next, Some(&good));
    assert!(events(&good.conditions, &passing.conditions).is_empty());
    let silent = Some(Told { silent: true, report: None });
    let stuck = status_after(&pods(&[("a", silent)]), &applied(), Some(&good));
    let said = events(&good.conditions, &stuck.conditions);
    assert_eq!(
        said.iter().map(|it| (it.reason.as_str(), it.kind)).collect::<Vec<_>>(),
        [("NotReporting", EventKind::Warning)]
    );
    let back = events(&stuck.conditions, &good.conditions);
    assert_eq!(
        back.iter().map(|it| (it.reason.as_str(), it.kind)).collect::<Vec<_>>(),
        [("Programmed", EventKind::Normal)]
    );
}

#[test]
fn nothing_is_written_at_rest() {
    let gathered =
        pods(&[("a", Some(says(report("boot", NEWEST)))), ("b", Some(says(report("boot", OLDER))))]);
    let first = status_after(&gathered, &applied(), None);
    let later = identity_status(&plan(&gathered), &applied(), Some(&first), &at(50));
    assert_eq!(first, later);
}
