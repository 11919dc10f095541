//! Pods that run as an identity's account without its label.

use std::time::Duration;

use behalf_operator::reconcile::queue::Next;
use http::Method;
use serde_json::{Value, json};

use crate::server::Call;
use crate::world::{EVENTS, IDENTITY, NAMESPACE, REST, World, injected, pod, writes};

const SOON: Next = Next::After(Duration::from_secs(15));
const PODS: &str = "/api/v1/namespaces/hr/pods";

/// One that nobody refused, since there was no identity then.
fn stray(name: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!({"app": name});
    pod["status"] = json!({"phase": "Running"});
    pod
}

fn put(world: &World, pod: Value) {
    let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
    world.server.put(&path, pod);
}

fn status(world: &World) -> Value {
    world.server.get(IDENTITY).unwrap()["status"].clone()
}

fn ready(world: &World) -> String {
    let conditions = status(world)["conditions"].as_array().cloned().unwrap();
    conditions.iter().find(|it| it["type"] == "Ready").unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pod_outside_that_runs_as_the_account_is_found_named_and_looked_for_until_it_is_gone() {
    let world = World::new();
    put(&world, injected("hr-1"));
    world.settle().await;
    put(&world, stray("old"));
    let (next, calls) = world.identity().await;
    assert_eq!(next, SOON);
    assert_eq!(status(&world)["pods"]["stray"], 1);
    assert_eq!(
        (&status(&world)["pods"]["matched"], &status(&world)["pods"]["missing"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(world.reason("Ready"), "PodsMissing");
    assert!(ready(&world).contains("kubectl -n hr delete pod old"), "{}", ready(&world));
    let event = calls.iter().find(|call| call.brief() == format!("POST {EVENTS}")).unwrap();
    assert_eq!((&event.body["reason"], &event.body["type"]), (&json!("PodsMissing"), &json!("Warning")));
    let (next, calls) = world.identity().await;
    assert_eq!((next, writes(&calls)), (SOON, vec![]), "said once");

    world.server.remove(&format!("{PODS}/old"));
    assert_eq!(world.identity().await.0, REST);
    assert!(status(&world)["pods"]["stray"].is_null() && world.reason("Ready") != "PodsMissing");
}

#[tokio::test]
async fn what_is_no_stray_is_not_taken_for_one() {
    let world = World::new();
    let mut other_account = stray("other-account");
    other_account["spec"]["serviceAccountName"] = json!("default");
    let (mut succeeded, mut failed) = (stray("succeeded"), stray("failed"));
    succeeded["status"] = json!({"phase": "Succeeded"});
    failed["status"] = json!({"phase": "Failed"});
    let mut leaving = stray("leaving");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for pod in [injected("ours"), other_account, succeeded, failed, leaving] {
        put(&world, pod);
    }
    let mut elsewhere = stray("elsewhere");
    elsewhere["metadata"]["namespace"] = json!("it");
    world.server.put("/api/v1/namespaces/it/pods/elsewhere", elsewhere);
    assert_eq!(world.identity().await.0, REST);
    assert!(status(&world)["pods"]["stray"].is_null(), "{}", status(&world));
    assert_eq!(status(&world)["pods"]["matched"], 1);
}

#[tokio::test]
async fn one_that_is_labelled_for_another_identity_is_a_stray_of_the_one_whose_account_it_has_and_counted_once()
 {
    let world = World::new();
    let mut borrowed = stray("borrowed");
    borrowed["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("other");
    put(&world, borrowed);
    assert_eq!(world.identity().await.0, SOON);
    assert_eq!(status(&world)["pods"]["stray"], 1);
}

#[tokio::test]
async fn where_no_pod_can_join_none_is_a_stray() {
    let world = World::new();
    let mut outside = world.server.get(NAMESPACE).unwrap();
    outside["metadata"]["labels"] = json!({"tier": "prod"});
    world.server.put(NAMESPACE, outside);
    put(&world, stray("old"));
    assert_eq!(world.identity().await.0, REST);
    assert_eq!(world.reason("Ready"), "NoPods");
    assert!(status(&world)["pods"]["stray"].is_null());
}

#[tokio::test]
async fn a_young_identity_is_looked_at_again_soon() {
    let world = World::new();
    let made = k8s_openapi::jiff::Timestamp::from_second(world.now).unwrap().to_string();
    let mut young = world.server.get(IDENTITY).unwrap();
    young["metadata"]["creationTimestamp"] = json!(made);
    world.server.put(IDENTITY, young);
    assert_eq!(world.identity().await.0, SOON);
    let (later, older) = (World { now: world.now + 59, ..world }, 61);
    assert_eq!(later.identity().await.0, SOON);
    assert_eq!(World { now: later.now - 59 + older, ..later }.identity().await.0, REST);
}

#[tokio::test]
async fn the_question_is_narrow_and_of_the_servers_own_copy() {
    let world = World::new();
    let context = world.context(world.gather().await);
    world.server.lists();
    behalf_operator::reconcile::pass(&context, &crate::world::key()).await;
    let lists: Vec<Call> = world.server.lists();
    let [list] = lists.as_slice() else { panic!("{lists:?}") };
    assert_eq!((&list.method, list.path.as_str()), (&Method::GET, PODS));
    let asked: Vec<_> = url::form_urlencoded::parse(list.query.as_bytes()).into_owned().collect();
    let asked = |name: &str| asked.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(
        asked("fieldSelector"),
        Some("spec.serviceAccountName=hr-mcp,status.phase!=Succeeded,status.phase!=Failed")
    );
    assert_eq!(asked("labelSelector"), Some("!behalf.dev/agent-identity"));
    assert_eq!(asked("resourceVersion"), Some("0"));
}
