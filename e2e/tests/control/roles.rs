//! What the cluster's own roles may do with our kinds, and that an editor's identity never widens anything.
use behalf_e2e::SERVER;
use serde_json::{Value, json};

use super::api::Api;
use super::feed_scene::opened;
use super::pods::server;
use super::scene::{ENROLLED, as_editor, condition, identity, reason};

/// Who, verb, what, whether it is allowed: by the roles `view` and `edit`, bound in one namespace.
const MAY: &[(&str, &str, &str, bool)] = &[
    ("e2e-viewer", "list", "agentidentities", true),
    ("e2e-viewer", "create", "agentidentities", false),
    ("e2e-viewer", "patch", "agentidentities", false),
    ("e2e-dev", "deletecollection", "agentidentities", true),
    ("e2e-dev", "patch", "agentidentities/status", false),
    ("e2e-dev", "list", "scopecatalogs", false),
    ("e2e-dev", "update", "identityproviders", false),
];

/// The rows that the API server decides otherwise, and an identity of the next namespace that an editor may read.
pub fn rights(api: &Api) -> Vec<String> {
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "viewer", "namespace": ENROLLED},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "e2e-viewer"}],
    }));
    let asked = MAY.iter().filter_map(|(who, verb, what, wanted)| {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": who, "groups": ["system:authenticated"],
            "resourceAttributes": {
                "namespace": ENROLLED, "group": "behalf.dev", "verb": verb,
                "resource": what.split('/').next(), "subresource": what.split('/').nth(1),
            },
        }});
        let answer = api.ask(&["create", "-o", "json", "-f", "-"], &review.to_string()).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        (answer["status"]["allowed"] != *wanted)
            .then(|| format!("{who} may {verb} {what}: {}", answer["status"]))
    });
    let neighbours = as_editor(api, "hr", &["get", "aid", "hr-tools"], "");
    let neighbours = neighbours.ok().map(|said| format!("an identity of the next namespace: {said}"));
    asked.chain(neighbours).collect()
}

/// Identities that ask for more than policy gives: what is asked, and the operator's word for it.
fn greedy() -> Vec<(&'static str, Value)> {
    let with = |name: &'static str, pointer: &str, value: Value| {
        let mut greedy = identity(ENROLLED, name, name);
        *greedy.pointer_mut(pointer).unwrap() = value;
        greedy
    };
    let taken = identity(ENROLLED, "tools", "tools")["spec"]["servers"][0]["url"].clone();
    vec![
        ("ScopeNotInCatalog", with("scope", "/spec/scopes/optional", json!(["hr:everything"]))),
        ("UnknownDownstream", with("downstream", "/spec/downstreams/0/name", json!("vault"))),
        ("HostNotOwned", with("host", "/spec/servers/0/url", json!(SERVER))),
        ("AudienceTaken", with("audience", "/spec/servers/0/url", taken)),
        ("ServiceAccountTaken", with("account", "/spec/serviceAccountName", json!("tools"))),
    ]
}

/// What an editor writes ends in a refusal by the operator where it would widen, and works where it narrows.
pub fn widening(api: &Api) -> Vec<String> {
    let patch = |patch: &Value| {
        as_editor(api, ENROLLED, &["patch", "aid", "tools", "--type=merge", "-p", &patch.to_string()], "")
    };
    let mut wrong = Vec::new();
    match patch(&json!({"spec": {"serviceAccountName": "other"}})) {
        Err(said) if said.contains("serviceAccountName cannot be changed") => {}
        other => wrong.push(format!("another account of an identity: {other:?}")),
    }
    // New ones, all at once.
    let asked = greedy();
    let items: Vec<_> = asked.iter().map(|(_, object)| object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    as_editor(api, ENROLLED, &["create", "-f", "-"], &list).unwrap();
    for (wanted, object) in &asked {
        reason(api, ENROLLED, object["metadata"]["name"].as_str().unwrap(), "Accepted", wanted);
    }
    // One that was accepted: its pods are refused from now on, and those that run refuse all.
    let before = api.get(&["aid", "-n", ENROLLED, "tools"]);
    patch(&json!({"spec": {"scopes": {"optional": ["hr:everything"]}}})).unwrap();
    reason(api, ENROLLED, "tools", "Accepted", "ScopeNotInCatalog");
    let bundle = api.get(&["configmap", "-n", ENROLLED, "behalf-bundle-tools"]);
    let serve = opened(bundle["data"]["bundle.json"].as_str().unwrap()).0["serve"].clone();
    if serve != json!({"type": "RefuseAll", "reason": "IdentityNotAccepted"}) {
        wrong.push(format!("an identity that asks for too much: {serve}"));
    }
    match api.try_create(&server(api)) {
        Err(said) if said.contains("ScopeNotInCatalog") => {}
        other => wrong.push(format!("a pod of an identity that asks for too much: {other:?}")),
    }
    // Taking it back, and giving up more, is the team's own.
    patch(&json!({"spec": {"scopes": before["spec"]["scopes"], "state": "Suspended"}})).unwrap();
    reason(api, ENROLLED, "tools", "Ready", "Suspended");
    patch(&json!({"spec": {"state": "Active"}})).unwrap();
    reason(api, ENROLLED, "tools", "Accepted", "AcceptedPlainHTTP");
    as_editor(api, ENROLLED, &["delete", "aid", "scope", "downstream", "host", "audience", "account"], "")
        .unwrap();
    wrong
}

/// With nobody there to judge it, what an editor writes changes nothing.
pub fn unjudged(api: &Api) -> Vec<String> {
    let bundle = || api.get(&["configmap", "-n", ENROLLED, "behalf-bundle-tools"]);
    let before = bundle();
    let more =
        json!({"spec": {"scopes": {"optional": ["hr:leave:read", "hr:salary:read", "hr:salary:write"]}}});
    let words = ["patch", "aid", "tools", "--type=merge", "-p", &more.to_string()];
    as_editor(api, ENROLLED, &words, "").unwrap();
    let object = api.get(&["aid", "-n", ENROLLED, "tools"]);
    let mut wrong = Vec::new();
    if bundle() != before || condition(&object, "Accepted").is_some() {
        wrong.push(format!("a change that nobody judged: {}", object["status"]));
    }
    wrong
}
