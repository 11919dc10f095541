//! Services and their endpoints: what is held of them, whom a change of one concerns, and what is made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use behalf_operator::kube_io::caches::{Caches, Change, Was};
use behalf_operator::live::Live;
use behalf_operator::metrics::Metrics;
use behalf_operator::reconcile::triggers::{Key, keys};
use behalf_operator::webhook::mutate::Mutate;
use serde_json::{Value, json};

use super::world;
use crate::world::{World, key, pod};

const SERVICE: &str = "/api/v1/namespaces/hr/services/hr";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/hr/endpointslices/hr-a";

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hr", "namespace": "hr"},
        "spec": {"selector": {"app": "hr"}, "clusterIP": "10.96.0.7", "ports": [{"port": 80, "targetPort": 8000}, {"name": "m", "port": 9090}]}})
}

fn slice(service: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hr-a", "namespace": "hr", "labels": {"kubernetes.io/service-name": service, "other": "x"}},
        "ports": [{"name": "", "port": 8000, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": "n", "zone": "z",
            "targetRef": {"kind": "Pod", "name": "stray"}}]})
}

#[tokio::test]
async fn a_foreign_endpoint_is_seen_in_the_copies_which_hold_no_more_than_that_takes() {
    let world = world(8000);
    world.server.put(SERVICE, service());
    world.server.put(SLICE, slice("hr", "10.0.0.9"));
    let (_, _) = world.identity().await;
    assert_eq!(
        (world.reason("BypassClosed"), world.reason("Ready")),
        ("ForeignEndpoint".into(), "BypassOpen".into())
    );
    let caches = world.gather().await.caches().clone();
    let held = serde_json::to_value(&*caches.slices.state()[0]).unwrap();
    let (labels, endpoint) = (&held["metadata"]["labels"], &held["endpoints"][0]);
    assert_eq!(*labels, json!({"kubernetes.io/service-name": "hr"}));
    assert_eq!((&endpoint["nodeName"], &endpoint["zone"]), (&Value::Null, &Value::Null));
    assert_eq!(endpoint["targetRef"]["name"], "stray");
    let held = serde_json::to_value(&*caches.services.state()[0]).unwrap();
    assert_eq!(
        (&held["spec"]["clusterIP"], &held["spec"]["selector"]),
        (&Value::Null, &json!({"app": "hr"}))
    );
}

fn was<K: serde::de::DeserializeOwned>(old: Option<Value>, new: Option<Value>) -> Was<K> {
    let read = |it: Option<Value>| it.map(|it| Arc::new(serde_json::from_value(it).unwrap()));
    Was { old: read(old), new: read(new) }
}

#[tokio::test]
async fn services_and_endpoints_concern_the_identities_whose_pods_are_behind_them() {
    let world = world(8000);
    let none = [].into();
    let ours: BTreeSet<Key> = [key()].into();
    let of_service = |caches: &Caches, old, new| keys(caches, &Change::Service(was(old, new)));
    let of_slice = |caches: &Caches, old, new| keys(caches, &Change::Slice(was(old, new)));
    let bare = world.gather().await.caches().clone();
    let mut elsewhere = service();
    elsewhere["metadata"]["namespace"] = json!("it");
    let mut others = service();
    others["spec"]["selector"] = json!({"app": "crm"});
    assert_eq!(of_service(&bare, None, Some(service())), ours);
    assert_eq!(of_service(&bare, Some(service()), None), ours);
    assert_eq!(of_service(&bare, Some(service()), Some(service())), none, "nothing changed");
    assert_eq!(of_service(&bare, Some(service()), Some(others.clone())), ours, "it was in front");
    assert_eq!(of_service(&bare, None, Some(others)), none);
    assert_eq!(of_service(&bare, None, Some(elsewhere)), none);
    assert_eq!(of_slice(&bare, None, Some(slice("hr", "10.0.0.9"))), none, "nothing leads to our pods");
    assert_eq!(of_slice(&bare, None, Some(slice("hr", "127.0.0.1"))), ours);
    assert_eq!(of_slice(&bare, Some(slice("hr", "127.0.0.1")), None), ours);
    world.server.put(SERVICE, service());
    let held = world.gather().await.caches().clone();
    assert_eq!(
        of_slice(&held, None, Some(slice("hr", "10.0.0.9"))),
        ours,
        "of a Service that selects our pods"
    );
    assert_eq!(of_slice(&held, None, Some(slice("other", "10.0.0.9"))), none);
    let same = slice("hr", "10.0.0.9");
    assert_eq!(of_slice(&held, Some(same.clone()), Some(same)), none);
    let learnt = Change::Learnt { namespace: "hr".into(), name: "hr-tools".into() };
    assert_eq!(keys(&bare, &learnt), ours);
}

#[tokio::test]
async fn the_webhook_warns_of_ports_that_services_of_the_namespace_target() {
    let world = World::new();
    world.server.put(SERVICE, service());
    let mut other = service();
    other["metadata"]["namespace"] = json!("it");
    other["spec"]["ports"] = json!([{"port": 7070}]);
    world.server.put("/api/v1/namespaces/it/services/hr", other);
    world.settle().await;
    let mut object = pod("p");
    object["metadata"]["labels"]["app"] = json!("hr");
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "dryRun": false, "namespace": "hr", "name": "p", "userInfo": {},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": object, "oldObject": null,
    }});
    let settings = Live::fixed(Arc::clone(&world.settings));
    let webhook = Mutate::new(world.gather().await, settings, Arc::new(Metrics::default()));
    let answer = webhook.review(review.to_string().as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let warnings = answer["response"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let warning = warnings[0].as_str().unwrap();
    assert!(warning.contains("port 9090/TCP (targeted by Service hr) is closed"), "{warning}");
}
