//! Admission reviews in, answers out.

use std::sync::Arc;

use behalf_operator::live::Live;
use behalf_operator::metrics::Metrics;
use behalf_operator::webhook::mutate::Mutate;
use http::Method;
use serde_json::{Value, json};

use crate::world::{IDENTITY, NAMESPACE, World, pod};

fn review(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "dryRun": false, "namespace": "hr", "name": "p",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": object, "oldObject": null,
    }})
}

async fn webhook(world: &World) -> Mutate {
    Mutate::new(world.gather().await, Live::fixed(Arc::clone(&world.settings)), Arc::new(Metrics::default()))
}

async fn ask(webhook: &Mutate, review: &Value) -> Value {
    let answer = webhook.review(review.to_string().as_bytes()).await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&review["apiVersion"], &review["kind"]));
    assert_eq!(answer["response"]["uid"], "u-1");
    answer["response"].take()
}

fn patched(object: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: Vec<u8> = match &response["patch"] {
        Value::String(text) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        }
        other => panic!("a patch travels as base64 text, not as {other}"),
    };
    let mut object = object.clone();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut pod = pod("p");
    change(&mut pod);
    pod
}

#[tokio::test]
async fn refused_with_cause_and_next_step() {
    let world = World::new();
    world.settle().await;
    let webhook = webhook(&world).await;
    let label = "behalf.dev/agent-identity";
    let cases = [
        ("IdentityNotFound", 403, with(|it| it["metadata"]["labels"][label] = json!("nobody"))),
        ("ServiceAccountMismatch", 403, with(|it| it["spec"]["serviceAccountName"] = json!("default"))),
        ("ServiceAccountMismatch", 403, with(|it| it["spec"]["serviceAccountName"] = Value::Null)),
        ("SharedNamespace", 403, with(|it| it["spec"]["hostNetwork"] = json!(true))),
        ("SharedNamespace", 403, with(|it| it["spec"]["shareProcessNamespace"] = json!(true))),
        ("ReservedName", 403, with(|it| it["spec"]["containers"][0]["name"] = json!("behalf-mine"))),
        ("cannot be read", 422, with(|it| it["spec"]["containers"] = json!("none"))),
        (
            "cannot be read",
            422,
            with(|it| it["spec"]["containers"][0]["ports"] = json!([{"containerPort": "x"}])),
        ),
    ];
    for (cause, code, object) in cases {
        let response = ask(&webhook, &review(&object)).await;
        let message = response["status"]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(code)),
            "{cause}"
        );
        assert!(message.starts_with("behalf: ") && message.contains(cause), "{cause}: {message}");
        assert!(response["patch"].is_null(), "{cause}");
    }
}

#[tokio::test]
async fn refused_while_its_surroundings_are_not_right() {
    let label = json!({"metadata": {"name": "hr", "labels": {"tier": "prod"}}, "apiVersion": "v1", "kind": "Namespace"});
    let unjudged = World::new();
    let answer = ask(&webhook(&unjudged).await, &review(&pod("p"))).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("IdentityNotAccepted"));

    let bare = World::new();
    bare.settle().await;
    bare.server.put(NAMESPACE, label);
    let answer = ask(&webhook(&bare).await, &review(&pod("p"))).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("NamespaceNotEnrolled"));

    let mute = World::new();
    let webhook = webhook(&mute).await;
    mute.server.fail(Method::GET, IDENTITY, 500);
    let answer = ask(&webhook, &review(&pod("p"))).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(503)));
}

#[tokio::test]
async fn what_is_no_review_gets_no_answer() {
    let world = World::new();
    let webhook = webhook(&world).await;
    let mut beta = review(&pod("p"));
    beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut other = review(&pod("p"));
    other["kind"] = json!("ConversionReview");
    let mut empty = review(&pod("p"));
    empty.as_object_mut().unwrap().remove("request");
    for body in ["", "{}", "[]", "null", &beta.to_string(), &other.to_string(), &empty.to_string()] {
        assert!(webhook.review(body.as_bytes()).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn what_is_none_of_ours_passes_untouched_and_without_a_question() {
    let world = World::new();
    world.settle().await;
    let webhook = webhook(&world).await;
    world.server.calls();
    let mut update = review(&pod("p"));
    update["request"]["operation"] = json!("UPDATE");
    let mut status = review(&pod("p"));
    status["request"]["subResource"] = json!("status");
    let mut other = review(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p", "labels": pod("p")["metadata"]["labels"]}}),
    );
    other["request"]["kind"]["kind"] = json!("ConfigMap");
    let unlabelled = review(&with(|it| it["metadata"]["labels"] = Value::Null));
    let odd = review(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": "none"}}),
    );
    for asked in [update, status, other, unlabelled, odd] {
        let response = ask(&webhook, &asked).await;
        assert_eq!(response["allowed"], true);
        assert!(response["patch"].is_null() && response["warnings"].is_null());
    }
    assert_eq!(world.server.calls().len(), 0);
}

#[tokio::test]
async fn an_enrolled_pod_is_injected_and_a_second_time_changes_nothing() {
    let world = World::new();
    world.settle().await;
    let webhook = webhook(&world).await;
    world.server.calls();
    // As a ReplicaSet makes it: no namespace, no name; with fields this build has never heard of.
    let object = with(|it| {
        it["metadata"] = json!({"generateName": "hr-tools-", "labels": it["metadata"]["labels"]});
        it["spec"]["containers"][0]["fieldOfTomorrow"] = json!({"a": 1});
        it["spec"]["initContainers"] = json!([{"name": "setup", "image": "setup", "fieldOfTomorrow": 2}]);
        it["spec"]["futureOfPods"] = json!(true);
    });
    let response = ask(&webhook, &review(&object)).await;
    assert_eq!(response["allowed"], true, "{response}");
    assert_eq!(world.server.calls().len(), 0, "the copies suffice");
    let injected = patched(&object, &response);
    let names: Vec<_> =
        injected["spec"]["initContainers"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["behalf-redirect", "behalf-sidecar", "setup"]);
    assert_eq!(injected["spec"]["initContainers"][2]["fieldOfTomorrow"], 2);
    assert!(injected["spec"]["initContainers"][0]["fieldOfTomorrow"].is_null());
    assert_eq!(injected["spec"]["containers"][0]["fieldOfTomorrow"], json!({"a": 1}));
    assert_eq!(injected["spec"]["futureOfPods"], true);
    let again = ask(&webhook, &review(&injected)).await;
    assert_eq!(again["allowed"], true, "{again}");
    assert!(again["patch"].is_null(), "{again}");
}

#[tokio::test]
async fn a_pod_that_comes_with_its_identity_does_not_suffer_from_a_copy_that_lags() {
    let world = World::new();
    world.server.remove(IDENTITY);
    let webhook = webhook(&world).await;
    world.server.put(IDENTITY, crate::world::identity());
    world.settle().await;
    assert_eq!(ask(&webhook, &review(&pod("p"))).await["allowed"], true);
}

#[tokio::test]
async fn a_port_that_the_rules_close_is_said_with_the_line_to_add() {
    let world = World::new();
    world.settle().await;
    let service = |namespace: &str, name: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {
            "selector": pod("p")["metadata"]["labels"], "ports": [{"name": "m", "port": port}],
        }})
    };
    world.server.put("/api/v1/namespaces/hr/services/metrics", service("hr", "metrics", 9100));
    world.server.put("/api/v1/namespaces/it/services/metrics", service("it", "metrics", 9200));
    let webhook = webhook(&world).await;
    let response = ask(&webhook, &review(&pod("p"))).await;
    assert_eq!(response["allowed"], true, "{response}");
    let warnings = response["warnings"].as_array().expect("there is a warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let said = warnings[0].as_str().unwrap();
    assert!(said.starts_with("behalf: port 9100/TCP (targeted by Service metrics) is closed"), "{said}");
    assert!(
        said.ends_with("spec.servers[0].interception.extraPorts: - {port: 9100, protocol: TCP}"),
        "{said}"
    );
}
