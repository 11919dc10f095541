//! What the operator asks of the API server, request by request, and when it asks nothing.

#[cfg(test)]
#[path = "api_calls/bypass.rs"]
mod bypass;
#[cfg(test)]
#[path = "api_calls/certificates.rs"]
mod certificates;
#[cfg(test)]
#[path = "api_calls/concerns.rs"]
mod concerns;
#[cfg(test)]
#[path = "api_calls/feed.rs"]
mod feed;
#[cfg(test)]
#[path = "api_calls/keys.rs"]
mod keys;
#[cfg(test)]
#[path = "api_calls/killed.rs"]
mod killed;
#[cfg(test)]
#[path = "api_calls/lease.rs"]
mod lease;
#[cfg(test)]
#[path = "api_calls/providers.rs"]
mod providers;
#[cfg(test)]
#[path = "api_calls/replicas.rs"]
mod replicas;
#[cfg(test)]
#[path = "api_calls/server.rs"]
mod server;
#[cfg(test)]
#[path = "api_calls/strays.rs"]
mod strays;
#[cfg(test)]
#[path = "api_calls/webhook.rs"]
mod webhook;
#[cfg(test)]
#[path = "api_calls/world.rs"]
mod world;

use behalf_operator::kube_io::webhook_config::WebhookConfiguration;
use behalf_operator::metrics::Metrics;
use behalf_operator::reconcile;
use behalf_operator::reconcile::queue::Next;
use behalf_operator::reconcile::triggers::Key;
use behalf_policy::bundle::{RefuseAllReason, Serve};
use http::Method;
use serde_json::json;
use std::sync::Arc;
use world::{
    ACCOUNT, BUNDLE, BUNDLES, CATALOG, EVENTS, IDENTITY, NAMESPACE, PROVIDER, REST, World, key, reason,
    writes,
};

fn refused(serve: &Serve) -> Option<RefuseAllReason> {
    match serve {
        Serve::RefuseAll { reason } => Some(*reason),
        Serve::Policy(_) => None,
    }
}

#[tokio::test]
async fn a_new_identity_gets_bundle_then_status_then_events() {
    let world = World::new();
    let (next, calls) = world.identity().await;
    assert_eq!(next, REST);
    let status = format!("PATCH {IDENTITY}/status");
    let event = format!("POST {EVENTS}");
    let expected =
        [format!("GET {ACCOUNT}"), format!("POST {BUNDLES}"), status, event.clone(), event.clone(), event];
    assert_eq!(calls.iter().map(server::Call::brief).collect::<Vec<_>>(), expected);
    assert_eq!(calls[1].query, "&fieldManager=behalf%2Fbundle");
    assert_eq!(calls[2].query, "&force=true&fieldManager=behalf%2Fstatus");
    assert!(calls[2].body["metadata"]["uid"].is_string());
    assert_eq!(calls[2].body["status"]["observedGeneration"], 1);
    assert_eq!(world.bundle().serial, u64::try_from(world::NOW).unwrap() * 1000);
    assert!(refused(&world.bundle().serve).is_none());
    assert_eq!((world.reason("Accepted"), world.reason("Ready")), ("Accepted".into(), "NoPods".into()));
}

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let world = World::new();
    world.settle().await;
    let later = World { now: world.now + 86_400, ..world };
    for key in [key(), Key::Catalog { name: "corp".into() }, Key::Provider { name: "corp".into() }] {
        let (next, calls) = later.pass(&key).await;
        let rest = if matches!(key, Key::Identity { .. }) { REST } else { Next::AwaitChange };
        assert_eq!((next, writes(&calls)), (rest, vec![]));
    }
}

#[tokio::test]
async fn a_change_of_the_catalogue_is_one_fenced_apply_with_a_greater_serial() {
    let world = World::new();
    world.settle().await;
    let (before, held) = (world.bundle(), world.server.get(BUNDLE).unwrap());
    let mut catalog = world.server.get(CATALOG).unwrap();
    catalog["spec"]["toolSets"][0]["tools"][0]["name"] = json!("directory.find");
    world.server.put(CATALOG, catalog);
    let (_, calls) = world.identity().await;
    assert_eq!(writes(&calls), [format!("PATCH {BUNDLE}"), format!("PATCH {IDENTITY}/status")]);
    let apply = calls.iter().find(|call| call.path == BUNDLE).unwrap();
    assert_eq!(apply.query, "&force=true&fieldManager=behalf%2Fbundle");
    assert_eq!(apply.body["metadata"]["resourceVersion"], held["metadata"]["resourceVersion"]);
    assert_eq!(apply.body["metadata"]["uid"], held["metadata"]["uid"]);
    assert_eq!(world.bundle().serial, before.serial + 1, "the clock stands still, the serial does not");
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_take_the_serial_with_it() {
    let world = World::new();
    world.settle().await;
    let before = world.bundle().serial;
    world.server.remove(BUNDLE);
    let earlier = World { now: world.now - 3600, ..world };
    earlier.identity().await;
    assert_eq!(earlier.bundle().serial, before + 1, "the status still knows it");
}

#[tokio::test]
async fn a_stale_copy_is_noticed_by_the_fence_and_planned_again() {
    let world = World::new();
    world.settle().await;
    let mut catalog = world.server.get(CATALOG).unwrap();
    catalog["spec"]["toolSets"][0]["tools"][0]["name"] = json!("directory.find");
    world.server.put(CATALOG, catalog);
    let context = world.context(world.gather().await);
    world.server.put(BUNDLE, world.server.get(BUNDLE).unwrap());
    world.server.calls();
    assert_eq!(reconcile::pass(&context, &key()).await, REST);
    let calls: Vec<_> = world.server.calls().iter().map(server::Call::brief).collect();
    let (apply, look) = (format!("PATCH {BUNDLE}"), format!("GET {BUNDLE}"));
    let account = format!("GET {ACCOUNT}");
    let status = format!("PATCH {IDENTITY}/status");
    assert_eq!(calls, [account.clone(), apply.clone(), look, account, apply, status]);
}

#[tokio::test]
async fn one_that_is_there_although_the_copy_says_no_is_not_overwritten_unseen() {
    let world = World::new();
    let context = world.context(world.gather().await);
    world.settle().await;
    let held = world.server.get(BUNDLE).unwrap();
    reconcile::pass(&context, &key()).await;
    assert_eq!(world.server.get(BUNDLE).unwrap(), held);
}

#[tokio::test]
async fn foreign_content_and_lost_labels_are_repaired() {
    let world = World::new();
    world.settle().await;
    let good = world.bundle();
    let mut spoilt = world.server.get(BUNDLE).unwrap();
    spoilt["data"]["bundle.json"] = json!("{}");
    world.server.put(BUNDLE, spoilt);
    assert!(writes(&world.identity().await.1).contains(&format!("PATCH {BUNDLE}")));
    assert!(world.bundle().serial > good.serial);
    let (mut unlabelled, good) = (world.server.get(BUNDLE).unwrap(), world.bundle());
    unlabelled["metadata"]["labels"] = json!({});
    world.server.put(BUNDLE, unlabelled);
    assert!(writes(&world.identity().await.1).contains(&format!("PATCH {BUNDLE}")));
    assert_eq!(world.bundle(), good, "the same bundle");
    assert_eq!(writes(&world.identity().await.1), [""; 0]);
}

#[tokio::test]
async fn a_refused_write_is_said_in_the_status_and_tried_again() {
    for code in [403, 413, 422, 500] {
        let world = World::new();
        world.server.fail(Method::POST, BUNDLES, code);
        let (next, _) = world.identity().await;
        assert_eq!(next, Next::Retry, "{code}");
        assert_eq!(world.reason("Ready"), "BundleNotWritten");
        let said = world.server.get(IDENTITY).unwrap()["status"].to_string();
        assert!(!said.contains("scripted"), "what the server said is for the log: {said}");
        world.identity().await;
        assert_eq!(world.reason("Ready"), "NoPods");
    }
}

#[tokio::test]
async fn a_refused_status_is_tried_again_and_one_for_a_gone_object_is_not() {
    let world = World::new();
    world.server.fail(Method::PATCH, &format!("{IDENTITY}/status"), 500);
    assert_eq!(world.identity().await.0, Next::Retry);
    world.server.fail(Method::PATCH, &format!("{IDENTITY}/status"), 404);
    let (next, calls) = world.identity().await;
    assert_eq!(next, REST);
    assert!(!writes(&calls).contains(&format!("POST {EVENTS}")));
}

#[tokio::test]
async fn a_remade_object_does_not_get_the_status_of_the_one_before() {
    let world = World::new();
    let context = world.context(world.gather().await);
    world.server.remove(IDENTITY);
    world.server.put(IDENTITY, world::identity());
    assert_eq!(reconcile::pass(&context, &key()).await, Next::Retry);
    assert!(world.server.get(IDENTITY).unwrap()["status"].is_null());
}

#[tokio::test]
async fn a_deleted_identity_leaves_a_tombstone_and_then_silence() {
    let world = World::new();
    world.settle().await;
    let before = world.bundle().serial;
    world.server.remove(IDENTITY);
    let (_, calls) = world.identity().await;
    assert_eq!(
        calls.iter().map(server::Call::brief).collect::<Vec<_>>(),
        [format!("GET {IDENTITY}"), format!("PATCH {BUNDLE}")]
    );
    assert_eq!(refused(&world.bundle().serve), Some(RefuseAllReason::IdentityDeleted));
    assert!(world.bundle().serial > before);
    assert_eq!(world.identity().await.1.len(), 0, "not even a question");
    world.settle().await;
}

#[tokio::test]
async fn a_tombstone_needs_certainty() {
    let world = World::new();
    world.settle().await;
    let held = world.server.get(IDENTITY).unwrap();
    world.server.remove(IDENTITY);
    let context = world.context(world.gather().await);
    world.server.put(IDENTITY, held);
    assert_eq!(reconcile::pass(&context, &key()).await, Next::Retry);
    assert!(refused(&world.bundle().serve).is_none());
    world.server.remove(IDENTITY);
    world.server.fail(Method::GET, IDENTITY, 500);
    assert_eq!(reconcile::pass(&context, &key()).await, Next::Retry);
    assert!(refused(&world.bundle().serve).is_none());
}

#[tokio::test]
async fn without_identity_and_bundle_nothing_is_made() {
    let world = World::new();
    world.server.remove(IDENTITY);
    assert_eq!(world.identity().await.1.len(), 0);
    world.server.put(IDENTITY, world::identity());
    world.settle().await;
    world.server.remove(IDENTITY);
    let context = world.context(world.gather().await);
    world.server.remove(BUNDLE);
    assert_eq!(reconcile::pass(&context, &key()).await, Next::AwaitChange);
    assert!(world.server.get(BUNDLE).is_none(), "a namespace that goes takes the bundle with it");
}

#[tokio::test]
async fn an_unreadable_identity_refuses_all_and_says_so_once() {
    let world = World::new();
    world.settle().await;
    let mut odd = world.server.get(IDENTITY).unwrap();
    odd["spec"]["servers"] = json!("none");
    odd["metadata"]["generation"] = json!(2);
    world.server.put(IDENTITY, odd);
    assert_eq!(world.identity().await.0, Next::AwaitChange);
    assert_eq!(refused(&world.bundle().serve), Some(RefuseAllReason::IdentityNotAccepted));
    assert_eq!(world.reason("Accepted"), "Invalid");
    assert_eq!(writes(&world.identity().await.1), [""; 0]);
}

#[tokio::test]
async fn an_unreadable_catalogue_says_so_and_takes_no_last_good_bundle_away() {
    let world = World::new();
    world.settle().await;
    let good = world.bundle();
    let mut odd = world.server.get(CATALOG).unwrap();
    odd["spec"]["scopes"] = json!(7);
    world.server.put(CATALOG, odd);
    world.settle().await;
    assert_eq!(reason(&world.server.get(CATALOG).unwrap(), "Accepted"), "Invalid");
    assert_eq!(world.bundle(), good);
    assert_eq!(world.reason("Ready"), "RefsNotResolved");
}

#[tokio::test]
async fn a_namespace_that_loses_access_refuses_all() {
    let world = World::new();
    world.settle().await;
    let mut closed = world::namespace();
    closed["metadata"]["labels"]["tier"] = json!("test");
    world.server.put(NAMESPACE, closed);
    world.identity().await;
    assert_eq!(refused(&world.bundle().serve), Some(RefuseAllReason::IdentityNotAccepted));
}

#[tokio::test]
async fn a_missing_account_is_looked_for_again_by_itself() {
    let world = World::new();
    world.server.remove(ACCOUNT);
    assert!(matches!(world.identity().await.0, Next::After(_)));
    assert_eq!(world.reason("ResolvedRefs"), "ServiceAccountNotFound");
}

#[tokio::test]
async fn pods_are_counted_with_and_without_behalf() {
    let world = World::new();
    world.server.put("/api/v1/namespaces/hr/pods/bare", world::pod("bare"));
    world.identity().await;
    let status = world.server.get(IDENTITY).unwrap()["status"].clone();
    assert_eq!((&status["pods"]["matched"], &status["pods"]["missing"]), (&json!(1), &json!(1)));
    assert_eq!(world.reason("Ready"), "PodsMissing");
}

#[tokio::test]
async fn catalogue_and_provider_get_their_status_and_no_more() {
    let world = World::new();
    for (key, path) in
        [(Key::Catalog { name: "corp".into() }, CATALOG), (Key::Provider { name: "corp".into() }, PROVIDER)]
    {
        let writes = writes(&world.pass(&key).await.1);
        assert_eq!(writes.first(), Some(&format!("PATCH {path}/status")));
        assert!(writes[1..].iter().all(|it| it == "POST /apis/events.k8s.io/v1/namespaces/default/events"));
        assert_eq!(reason(&world.server.get(path).unwrap(), "Accepted"), "Accepted");
    }
}

#[tokio::test]
async fn our_webhook_configuration_is_repaired_and_no_other_touched() {
    let world = World::new();
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/behalf-injector";
    let configuration = |webhook: &str, ca: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "behalf-injector"},
            "webhooks": [{"name": webhook, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"caBundle": ca}}]})
    };
    let secrets =
        behalf_operator::kube_io::secrets::Secrets::new(world.server.client(), "behalf-system", "test");
    let metrics = Arc::new(Metrics::default());
    let ours = WebhookConfiguration::new(world.server.client(), "behalf-injector", secrets, metrics);
    let put = |object| {
        world.server.put(path, object);
        serde_json::from_value(world.server.get(path).unwrap()).unwrap()
    };
    let foreign = put(configuration("inject.example.com", "Zm9v"));
    assert!(!ours.repair(&foreign, "bar").await.unwrap());
    let right = put(configuration("inject.behalf.dev", "YmFy"));
    assert!(!ours.repair(&right, "bar").await.unwrap());
    assert_eq!(world.server.calls().len(), 0);
    let wrong = put(configuration("inject.behalf.dev", "Zm9v"));
    assert!(ours.repair(&wrong, "bar").await.unwrap());
    let calls = world.server.calls();
    assert_eq!(writes(&calls), [format!("PATCH {path}")]);
    assert_eq!(calls[0].query, "&force=true&fieldManager=behalf%2Fwebhook-certs");
    assert_eq!(
        calls[0].body["webhooks"],
        json!([{"name": "inject.behalf.dev", "clientConfig": {"caBundle": "YmFy"}}])
    );
    assert!(ours.repair(&wrong, "bar").await.is_err(), "seen before the last change");
    world.server.remove(path);
    assert!(ours.repair(&wrong, "bar").await.is_err(), "half a configuration is never created");
}
