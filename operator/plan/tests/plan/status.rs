//! Conditions, counts and Events.

use behalf_crds::v1alpha1::{AgentIdentityStatus, ConditionType, find_condition};
use behalf_plan::{
    Applied, BundleFacts, EventKind, Gathered, PodFacts, Stand, events, identity_status,
    pod_facts as facts_of,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use crate::fixtures::*;

fn applied() -> Applied {
    Applied { bundle: Some(BundleFacts { digest: "sha256:0a".to_owned(), serial: 7 }), failure: None }
}

fn status(gathered: &Gathered, applied: &Applied) -> AgentIdentityStatus {
    identity_status(&plan(gathered), applied, None, &at(1))
}

fn ready(status: &AgentIdentityStatus) -> &Condition {
    find_condition(&status.conditions, ConditionType::Ready).unwrap()
}

#[test]
fn a_healthy_identity_is_ready_and_says_what_runs() {
    let status = status(&gathered(), &applied());
    let types: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect();
    assert_eq!(
        types,
        [
            ("Accepted", "True"),
            ("BypassClosed", "Unknown"),
            ("Programmed", "Unknown"),
            ("Ready", "True"),
            ("ResolvedRefs", "True")
        ]
    );
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(4)));
    assert_eq!(status.observed_generation, Some(4));
    let bundle = status.bundle.unwrap();
    assert_eq!(
        (bundle.digest.as_str(), bundle.serial, bundle.programmed_digest),
        ("sha256:0a", Some(7), None)
    );
}

#[test]
fn ready_names_the_first_thing_to_do() {
    let failed = Applied { failure: Some("ApiForbidden"), ..Applied::default() };
    let mut suspended = gathered();
    suspended.identity.spec.state = behalf_crds::v1alpha1::State::Suspended;
    let mut bare = gathered();
    bare.pods.push(pod_facts("hr-2", false));
    let mut empty = gathered();
    empty.pods.clear();
    let mut unenrolled = empty.clone();
    unenrolled.namespace.metadata.labels = Some([("tier".to_owned(), "prod".to_owned())].into());
    let mut stray = gathered();
    stray.pods.push(PodFacts { labelled: false, ..pod_facts("job-1", false) });
    let mut ended = empty.clone();
    ended.pods.push(PodFacts { stand: Stand::Leaving, ..pod_facts("hr-0", false) });
    let mut no_catalog = gathered();
    no_catalog.catalog = None;
    let mut forbidden = gathered();
    forbidden.identity.spec.scopes.optional = vec!["nope".to_owned()];
    for (gathered, applied, reason, next) in [
        (&gathered(), &failed, "BundleNotWritten", "kubectl -n behalf-system logs"),
        (&gathered(), &Applied::default(), "BundleNotWritten", "tried again"),
        (&suspended, &applied(), "Suspended", "Set it to Active"),
        (&bare, &applied(), "PodsMissing", "kubectl -n hr delete pod hr-2"),
        (&stray, &applied(), "PodsMissing", "job-1"),
        (&empty, &applied(), "NoPods", "behalf.dev/agent-identity: hr-tools"),
        (&ended, &applied(), "NoPods", "serviceAccountName: hr-mcp"),
        (
            &unenrolled,
            &Applied::default(),
            "NoPods",
            "kubectl label namespace hr behalf.dev/injection=Optional",
        ),
        (&no_catalog, &applied(), "RefsNotResolved", "spec.catalogRef.name"),
        (&forbidden, &applied(), "NotAccepted", "kubectl get scat corp"),
    ] {
        let status = status(gathered, applied);
        assert_eq!((ready(&status).status.as_str(), ready(&status).reason.as_str()), ("False", reason));
        assert!(ready(&status).message.contains(next), "{reason}: {}", ready(&status).message);
    }
}

#[test]
fn pods_are_counted_by_what_they_carry() {
    let mut gathered = gathered();
    let revision = plan(&gathered).injection_revision;
    gathered.pods = vec![
        PodFacts { revision: Some(revision), ..pod_facts("a", true) },
        PodFacts { revision: Some("older".to_owned()), ..pod_facts("b", true) },
        pod_facts("c", false),
        PodFacts { stand: Stand::Leaving, ..pod_facts("d", true) },
        PodFacts { labelled: false, ..pod_facts("e", false) },
    ];
    let pods = plan(&gathered).pods;
    assert_eq!(
        (pods.matched, pods.injected, pods.missing, pods.outdated, pods.current),
        (3, 2, 1, Some(1), None)
    );
}

#[test]
fn pods_outside_that_run_as_the_account_are_counted_named_and_an_event() {
    let stray = |name: &str| PodFacts { labelled: false, ..pod_facts(name, false) };
    let healthy = status(&gathered(), &applied());
    let mut wrong = gathered();
    wrong.pods.extend([
        stray("job-2"),
        stray("job-1"),
        PodFacts { stand: Stand::Leaving, ..stray("leaving") },
        PodFacts { stand: Stand::Ended, ..stray("ended") },
        PodFacts { service_account: "another".to_owned(), ..stray("another") },
    ]);
    let found = status(&wrong, &applied());
    assert_eq!(found.pods.unwrap().stray, Some(2));
    assert_eq!(found.pods.unwrap().matched, 1, "they have not joined");
    let message = &ready(&found).message;
    for part in [
        "ServiceAccount hr-mcp",
        "behalf.dev/agent-identity=hr-tools",
        "kubectl -n hr delete pod job-1 job-2",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(
        !message.contains("leaving") && !message.contains("ended") && !message.contains("another:"),
        "{message}"
    );
    let told = events(&healthy.conditions, &found.conditions);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].reason.as_str(), told[0].kind), ("PodsMissing", EventKind::Warning));
    assert_eq!(&told[0].note, message);

    wrong.pods.push(pod_facts("bare", false));
    let both = status(&wrong, &applied());
    assert!(["delete pod bare", "delete pod job-1 job-2"].iter().all(|it| ready(&both).message.contains(it)));
    wrong.pods.extend((0..40).map(|number| stray(&format!("many-{number}"))));
    let many = status(&wrong, &applied());
    assert!(
        many.pods.unwrap().stray == Some(42) && ready(&many).message.len() < 1000,
        "{}",
        ready(&many).message
    );

    wrong.namespace.metadata.labels = Some([("tier".to_owned(), "prod".to_owned())].into());
    let outside = status(&wrong, &applied());
    assert_eq!(outside.pods.unwrap().stray, None, "where no pod can join, none has to");
}

#[test]
fn what_the_api_server_said_does_not_get_into_the_status() {
    let failed = Applied { failure: Some("ApiForbidden"), ..applied() };
    let found = status(&gathered(), &failed);
    assert_eq!(ready(&found).reason, "BundleNotWritten");
    assert!(ready(&found).message.starts_with("The bundle could not be written (ApiForbidden)."));
}

#[test]
fn a_pod_that_only_claims_to_be_injected_is_missing() {
    let identity = object(identity_value());
    let mut value = pod_value();
    value["metadata"]["annotations"] = json!({"behalf.dev/injected": "abc"});
    assert!(!facts_of(&pod(value.clone()), &identity).injected);
    let sidecar = |args: serde_json::Value| json!([{"name": "behalf-redirect"}, {"name": "behalf-sidecar", "restartPolicy": "Always", "args": args}]);
    value["spec"]["initContainers"] = sidecar(json!(["run", "--identity=other"]));
    assert!(!facts_of(&pod(value.clone()), &identity).injected, "another identity's");
    value["spec"]["initContainers"] = sidecar(json!(["run", "--identity=hr-tools"]));
    assert!(facts_of(&pod(value.clone()), &identity).injected);
    value["metadata"]["annotations"] = json!({});
    assert!(!facts_of(&pod(value), &identity).injected, "without the annotation");
}

#[test]
fn times_move_only_when_something_flips() {
    let first = status(&gathered(), &applied());
    let mut changed = gathered();
    changed.identity.metadata.generation = Some(5);
    let second = identity_status(&plan(&changed), &applied(), Some(&first), &at(2));
    assert!(
        second.conditions.iter().all(|c| c.last_transition_time == at(1) && c.observed_generation == Some(5))
    );
    assert_eq!(second.rollout.as_ref().map(|rollout| rollout.since.clone()), Some(at(1)));
    changed.identity.spec.rollout.stage = behalf_crds::v1alpha1::Stage::Audit;
    changed.pods.clear();
    let third = identity_status(&plan(&changed), &applied(), Some(&second), &at(3));
    assert_eq!(third.rollout.as_ref().map(|rollout| rollout.since.clone()), Some(at(3)));
    assert_eq!(ready(&third).last_transition_time, at(3));
    let same = identity_status(&plan(&changed), &applied(), Some(&third), &at(4));
    assert_eq!(same, third, "nothing to write at rest");
}

#[test]
fn events_come_with_transitions_only_and_say_a_thing_once() {
    let healthy = status(&gathered(), &applied());
    let mut gathered = gathered();
    gathered.catalog = None;
    gathered.last_bundle = Some(last_good());
    gathered.identity.status = Some(healthy.clone());
    let broken = identity_status(&plan(&gathered), &applied(), Some(&healthy), &at(2));
    let found = events(&healthy.conditions, &broken.conditions);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].reason.as_str(), found[0].kind, found[0].action.as_str()),
        ("CatalogNotFound", EventKind::Warning, "ResolvedRefs")
    );
    assert!(found[0].note.contains("Pods keep the bundle of serial 7"), "{}", found[0].note);
    assert!(events(&broken.conditions, &broken.conditions).is_empty());
    let back = events(&broken.conditions, &healthy.conditions);
    assert!(back.iter().all(|event| event.kind == EventKind::Normal) && back.len() == 2, "{back:?}");
    let first = events(
        &[],
        &status(
            &{
                let mut g = crate::fixtures::gathered();
                g.catalog = None;
                g
            },
            &applied(),
        )
        .conditions,
    );
    assert_eq!(first.len(), 1, "what is not known yet is no event: {first:?}");
}
