//! A changed catalogue: calls follow, keep, or stop, without a restart of any pod.
use std::sync::atomic::{AtomicUsize, Ordering};

use behalf_e2e::keycloak::login;
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Answer, Undo, mcp};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::pods::Change;
use super::scene::{condition, reason};

/// Puts the catalogue back when it goes, and waits until calls follow.
fn changed(api: &Api, change: impl FnOnce(&mut Value)) -> Undo<'_> {
    let before = api.get(&["scat", "corp"])["spec"].clone();
    let mut after = before.clone();
    change(&mut after);
    let guard = Undo::new(move || {
        api.world.patch("default", "scat/corp", &json!({"spec": before}))?;
        follows(api, "bob reads his leave as ever", "bob", "leave.list", |answer| answer.status == 200);
        Ok(())
    });
    api.world.patch("default", "scat/corp", &json!({"spec": after})).unwrap();
    guard
}

/// kubelet looks at once what a pod mounts when the pod itself changes.
pub fn hurry(api: &Api) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mark =
        format!("e2e.behalf.dev/hurry={}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let words =
        ["-n", "hr", "annotate", "--overwrite", "pod", "-l", "app.kubernetes.io/name=hr-tools", &mark];
    api.kubectl(&words);
}

fn ask(api: &Api, user: &str, tool: &str) -> Answer {
    let token = login(api.world, "agent-test", user, ALL_SCOPES).unwrap();
    let arguments = if tool == "salary.get" { json!({"employee": "bob"}) } else { json!({}) };
    mcp::call(tool, &arguments).bearer(&token.text).send(api.world).unwrap()
}

fn follows(api: &Api, what: &str, user: &str, tool: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    eventually(what, FOLLOWED.as_secs(), || {
        hurry(api);
        let answer = ask(api, user, tool);
        if wanted(&answer) { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
}

/// The signed bundle as it stands in its `ConfigMap`.
fn bundle(api: &Api) -> Value {
    api.get(&["configmap", "-n", "hr", "behalf-bundle-hr-tools"])["data"].clone()
}

fn row<'a>(spec: &'a mut Value, tool: &str) -> &'a mut Value {
    let tools = spec["toolSets"][0]["tools"].as_array_mut().unwrap();
    tools.iter_mut().find(|row| row["name"] == tool).unwrap()
}

fn events(api: &Api, namespace: &str, kind: &str, reason: &str) -> Vec<String> {
    let selector = format!("involvedObject.kind={kind},reason={reason}");
    let list = api.get(&["events", "-n", namespace, "--field-selector", &selector]);
    let texts = list["items"].as_array().unwrap().iter();
    texts.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn calls_follow_a_changed_row_without_a_restart() {
    let api = Api::open();
    let pods = api.pods("hr", "app.kubernetes.io/name=hr-tools");
    assert_eq!(ask(&api, "bob", "leave.list").status, 200);
    let change = changed(&api, |spec| row(spec, "leave.list")["scopes"] = json!(["hr:salary:read"]));
    let answer = follows(&api, "bob may not read leave", "bob", "leave.list", |answer| answer.status == 403);
    assert_eq!(answer.reason().as_deref(), Some("NotEntitled"));
    assert_eq!(ask(&api, "alice", "leave.list").status, 200, "alice holds what it needs now");
    assert_ne!(ask(&api, "bob", "directory.search").status, 403, "other rows stay");
    drop(change);
    assert_eq!(ask(&api, "bob", "leave.list").status, 200);
    assert_eq!(api.pods("hr", "app.kubernetes.io/name=hr-tools"), pods, "the same pods");
}

#[test]
fn a_catalogue_that_does_not_compile_changes_nothing_and_says_why() {
    let api = Api::open();
    let pods = api.pods("hr", "app.kubernetes.io/name=hr-tools");
    let good = bundle(&api);
    let broken: [(&str, Change, &str); 2] = [
        ("UnknownScope", |spec| row(spec, "leave.list")["scopes"] = json!(["hr:nowhere"]), "hr:nowhere"),
        (
            "ScopeAboveCeiling",
            |spec| row(spec, "salary.get")["downstreams"][0]["scopes"] = json!(["payroll:root"]),
            "payroll:root",
        ),
    ];
    for (wanted, change, named) in broken {
        let change = changed(&api, change);
        let said = eventually("the catalogue is not accepted", 60, || {
            match condition(&api.get(&["scat", "corp"]), "Accepted") {
                Some((status, reason, message)) if status == "False" && reason == wanted => Ok(message),
                other => Err(format!("{other:?}")),
            }
        });
        assert!(said.contains(named) && said.contains("Add"), "cause and next step: {said}");
        let said = reason(&api, "hr", "hr-tools", "ResolvedRefs", "CatalogNotAccepted");
        for part in [named, "Pods keep the bundle of serial", "kubectl describe scat corp"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // Each transition has an Event with its own words, also where the reason is that of an earlier one.
        for (namespace, kind, reason) in
            [("default", "ScopeCatalog", wanted), ("hr", "AgentIdentity", "CatalogNotAccepted")]
        {
            eventually(&format!("an Event on the {kind}"), 30, || {
                let found = events(&api, namespace, kind, reason);
                if found.iter().any(|note| note.contains(named)) { Ok(()) } else { Err(format!("{found:?}")) }
            });
        }
        assert_eq!(bundle(&api), good, "{wanted}: the last good bundle stays");
        hurry(&api);
        assert_eq!(ask(&api, "bob", "leave.list").status, 200);
        assert_eq!(ask(&api, "alice", "salary.get").status, 200);
        assert_eq!(ask(&api, "bob", "salary.get").status, 403);
        drop(change);
        reason(&api, "hr", "hr-tools", "ResolvedRefs", "Resolved");
    }
    assert_eq!(api.pods("hr", "app.kubernetes.io/name=hr-tools"), pods, "the same pods");
}

#[test]
fn a_catalogue_that_forbids_the_identity_refuses_all() {
    let api = Api::open();
    let pods = api.pods("hr", "app.kubernetes.io/name=hr-tools");
    let change = changed(&api, |spec| spec["allowedNamespaces"] = json!({"from": "None", "selector": null}));
    let said = reason(&api, "hr", "hr-tools", "Accepted", "NamespaceNotAllowed");
    assert!(said.contains("is not open to namespace hr") && said.contains("--show-labels"), "{said}");
    let answer = follows(&api, "alice may nothing", "alice", "salary.get", |answer| answer.status >= 400);
    assert_eq!(answer.reason().as_deref(), Some("IdentityNotAccepted"), "{answer:?}");
    for (user, tool) in [("alice", "directory.search"), ("bob", "leave.list")] {
        let answer = ask(&api, user, tool);
        assert!(answer.status >= 400, "{user} {tool}: {answer:?}");
    }
    drop(change);
    assert_eq!(ask(&api, "alice", "salary.get").status, 200);
    assert_eq!(api.pods("hr", "app.kubernetes.io/name=hr-tools"), pods, "the same pods");
}
