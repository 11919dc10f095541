//! The feed: a change is where it belongs before kubelet could bring it, and what cannot be said of a pod is not said.
use std::time::{Duration, Instant};

use behalf_e2e::{Undo, until};
use serde_json::json;

use super::api::{Api, EDITOR, eventually};
use super::feed_scene::{
    PODS, People, addresses, bob_may_not, call, data, editor, follows, identity, leave_taken, lives, newer,
    programmed, refused, says, serial, verdict,
};
use super::operator_host::{in_container, of_node};
use super::scene::{condition, without_operator};

/// The soonest that kubelet brings a changed `ConfigMap` in an ordinary cluster: once in a sync period, whose default it is.
const KUBELET: Duration = Duration::from_mins(1);

/// The catalogue's row as somebody with kubectl changes it, without waiting for anything.
fn leave(api: &Api, scope: &str) {
    let mut sets = api.get(&["scat", "corp"])["spec"]["toolSets"].clone();
    let rows = sets[0]["tools"].as_array_mut().unwrap();
    rows.iter_mut().find(|row| row["name"] == "leave.list").unwrap()["scopes"] = json!([scope]);
    api.world.patch("default", "scat/corp", &json!({"spec": {"toolSets": sets}})).unwrap();
}

#[test]
fn a_changed_row_is_followed_in_every_pod_once_programmed_and_a_frozen_sidecar_keeps_that_false() {
    let api = Api::open();
    let _three = api.world.replicas(3).unwrap();
    let people = People::of(&api);
    followed(&api, &people);
    not_programmed(&api, &people);
}

/// kubelet, which would bring the change by the mounted `ConfigMap`, is frozen all the time: what pods follow came by the feed.
fn followed(api: &Api, people: &People) {
    let (before, pods) = (programmed(api), addresses(api));
    assert_eq!(pods.len(), 3);
    let lived = lives(api);
    for (name, address) in &pods {
        let answer = call("leave.list", &people.bob, Some(address)).send(api.world).unwrap();
        assert_eq!(verdict(&answer), (200, None), "{name}");
    }
    let kubelet = of_node(api, "kubelet").freeze().unwrap();
    let back = Undo::new(|| {
        leave(api, "hr:leave:read");
        Ok(())
    });
    let mut last = serial(api);
    for (scope, wanted) in [("hr:salary:read", bob_may_not()), ("hr:leave:read", (200, None))] {
        let began = Instant::now();
        leave(api, scope);
        last = newer(api, last);
        let digest = programmed(api);
        let took = began.elapsed();
        for (name, address) in &pods {
            let answer = call("leave.list", &people.bob, Some(address)).send(api.world).unwrap();
            assert_eq!(verdict(&answer), wanted, "{name}: the very next call");
            let answer = call("leave.list", &people.alice, Some(address)).send(api.world).unwrap();
            assert_eq!(verdict(&answer), (200, None), "{name}: alice holds either scope");
        }
        let all = began.elapsed();
        assert!(all < KUBELET, "{all:?}");
        eprintln!(
            "the row asks for {scope}: Programmed=True in 3 pods {:.2} s after the change, each pod's next call follows, seen {:.2} s after it",
            took.as_secs_f64(),
            all.as_secs_f64()
        );
        assert_ne!(digest, before, "another serial, another digest");
    }
    back.now().unwrap();
    drop(kubelet);
    let object = identity(api);
    let counts = &object["status"]["pods"];
    assert_eq!((&counts["current"], &counts["stale"]), (&json!(3), &json!(0)), "{counts}");
    api.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(lives(api), lived, "the same pods, none started again");
}

/// One frozen sidecar is named.
fn not_programmed(api: &Api, people: &People) {
    programmed(api);
    let pods = addresses(api);
    let (name, address) = &pods[1];
    // kubelet would soon start a container again that does not answer.
    let kubelet = of_node(api, "kubelet").freeze().unwrap();
    let frozen = in_container(api, "hr", name, "behalf-sidecar").freeze().unwrap();
    let change = leave_taken(api);
    // The others follow; the status does not say that all do, however often it is looked at.
    for (other, address) in pods.iter().filter(|pod| pod.0 != *name) {
        eventually(&format!("{other} follows"), 30, || {
            let answer = call("leave.list", &people.bob, Some(address)).send(api.world).unwrap();
            if verdict(&answer) == bob_may_not() { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        let said = condition(&identity(api), "Programmed");
        assert!(said.as_ref().is_none_or(|(status, _, _)| status != "True"), "{said:?}");
    }
    let message = until("Programmed is False and names the pod", Duration::from_mins(1), || {
        let said = condition(&identity(api), "Programmed");
        Ok(said.filter(|(status, _, message)| status == "False" && message.contains(name)))
    })
    .unwrap();
    eprintln!("one frozen sidecar: {message:?}");
    assert!(["PodsBehind", "NotReporting"].contains(&message.1.as_str()), "{message:?}");
    for (other, _) in pods.iter().filter(|pod| pod.0 != *name) {
        assert!(!message.2.contains(other), "{other} is well: {message:?}");
    }
    let counts = identity(api)["status"]["pods"].clone();
    assert_eq!((&counts["current"], &counts["stale"]), (&json!(2), &json!(1)), "{counts}");
    frozen.now().unwrap();
    programmed(api);
    let answer = call("leave.list", &people.bob, Some(address)).send(api.world).unwrap();
    assert_eq!(verdict(&answer), bob_may_not(), "{name} follows as soon as it can");
    drop(change);
    drop(kubelet);
    api.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
}

/// What the namespace's own people can do when nobody of the platform is there: refuse, and nothing else.
#[test]
fn with_the_operator_away_a_namespace_editor_can_refuse_and_take_it_back() {
    let api = Api::open();
    let people = People::of(&api);
    let _editor = editor(&api);
    let (lived, bundle) = (lives(&api), data(&api, "hr", "behalf-bundle-hr-tools"));
    let _away = without_operator(&api);
    let as_editor = |words: &[&str], input: &str| {
        let words = [&["-n", "hr"], &EDITOR[..], words].concat();
        api.ask(&words, input).unwrap_or_else(|said| panic!("{said}"))
    };
    let gone = Undo::new(|| {
        api.world.kubectl(&["-n", "hr", "delete", "configmap", "behalf-deny", "--ignore-not-found"]).map(drop)
    });
    let deny = |data: serde_json::Value| {
        let metadata = json!({"name": "behalf-deny", "namespace": "hr"});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        as_editor(&["apply", "-f", "-"], &object.to_string());
    };
    let by = |tool, token| call(tool, token, None);
    let bob = people.bob.subject().unwrap();
    let none = (200, None);
    let denied = refused("DeniedByNamespace");
    let rows = [
        ("a tool", json!({"hr-tools": "tool salary.get"}), &denied, &none, &none),
        (
            "a person, of any identity",
            json!({"_all": format!("# left today\nsubject {bob}\n")}),
            &none,
            &none,
            &denied,
        ),
        ("everything", json!({"hr-tools": "*"}), &denied, &denied, &denied),
        ("what cannot be read", json!({"hr-tools": "allow salary.get"}), &denied, &denied, &denied),
        ("another identity", json!({"payroll-tools": "*"}), &none, &none, &none),
    ];
    let ask = |salary: &(u16, Option<String>), search: &_, leave: &_| {
        follows(&api, &by("salary.get", &people.alice), salary);
        follows(&api, &by("directory.search", &people.alice), search);
        follows(&api, &by("leave.list", &people.bob), leave);
    };
    for (what, data, salary, search, leave) in rows {
        eprintln!("denied: {what}");
        deny(data);
        ask(salary, search, leave);
        // Nothing here lets anybody through whom policy refuses.
        let answer = by("salary.get", &people.bob).send(api.world).unwrap();
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
    }
    deny(json!({"hr-tools": "*"}));
    follows(&api, &by("salary.get", &people.alice), &denied);
    as_editor(&["delete", "configmap", "behalf-deny"], "");
    ask(&none, &none, &none);
    drop(gone);
    assert_eq!(data(&api, "hr", "behalf-bundle-hr-tools"), bundle);
    assert_eq!(lives(&api), lived, "the same pods, none started again");
}

/// Who stops answering for longer than a report may take is not counted as running the newest bundle, change or no change.
#[test]
fn a_pod_that_does_not_report_is_not_said_to_be_current() {
    let api = Api::open();
    programmed(&api);
    let (name, _) = addresses(&api).pop().unwrap();
    let frozen = in_container(&api, "hr", &name, "behalf-sidecar").freeze().unwrap();
    let message = says(&api, "Programmed", "NotReporting");
    assert!(message.contains(&name), "{message}");
    frozen.now().unwrap();
    programmed(&api);
    api.kubectl(&["-n", "hr", "wait", "pod", "-l", PODS, "--for=condition=Ready", "--timeout=60s"]);
}
