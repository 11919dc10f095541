//! Which objects a change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use behalf_operator::kube_io::caches::{Caches, Change, Was};
use behalf_operator::reconcile::triggers::{Key, keys};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::{CATALOG, IDENTITY, World, catalog, identity, key, namespace, pod, provider};

fn was<K: DeserializeOwned>(old: Option<Value>, new: Option<Value>) -> Was<K> {
    let read = |it: Option<Value>| it.map(|it| Arc::new(serde_json::from_value(it).unwrap()));
    Was { old: read(old), new: read(new) }
}

fn set<const N: usize>(keys: [Key; N]) -> BTreeSet<Key> {
    keys.into()
}

fn other() -> Key {
    Key::Identity { namespace: "hr".into(), name: "other".into() }
}

/// `hr-tools`, and `other` with its own catalogue, provider and account; it waits for the URL of `hr-tools`.
async fn two() -> Caches {
    let world = World::new();
    let mut second = identity();
    second["metadata"]["name"] = json!("other");
    second["spec"]["catalogRef"]["name"] = json!("own");
    second["spec"]["serviceAccountName"] = json!("own");
    second["spec"]["identityProviders"][0]["name"] = json!("own");
    second["status"] = json!({"conditions": [{"type": "Accepted", "status": "False", "reason": "AudienceTaken",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    world.server.put(&IDENTITY.replace("hr-tools", "other"), second);
    world.gather().await.caches().clone()
}

#[tokio::test]
async fn catalogue_and_provider_concern_those_who_name_them() {
    let caches = two().await;
    for (old, new) in [(None, Some(())), (Some(()), Some(())), (Some(()), None)] {
        let change = Change::Catalog(was(old.map(|()| catalog()), new.map(|()| catalog())));
        assert_eq!(keys(&caches, &change), set([Key::Catalog { name: "corp".into() }, key()]));
        let change = Change::Provider(was(old.map(|()| provider()), new.map(|()| provider())));
        assert_eq!(keys(&caches, &change), set([Key::Provider { name: "corp".into() }, key()]));
    }
}

#[tokio::test]
async fn an_identity_concerns_itself_and_who_waits_for_what_it_gives_up() {
    let caches = two().await;
    let mut moved = identity();
    moved["spec"]["servers"][0]["url"] = json!("https://elsewhere.example.com/mcp");
    let mut touched = identity();
    touched["status"] = json!({"observedGeneration": 1});
    let of = |old, new| keys(&caches, &Change::Identity(was(old, new)));
    assert_eq!(of(Some(identity()), Some(touched)), set([key()]));
    assert_eq!(of(Some(identity()), Some(moved)), set([key(), other()]));
    assert_eq!(of(Some(identity()), None), set([key(), other()]));
    let mut odd = identity();
    odd["spec"]["servers"] = json!(1);
    assert_eq!(of(Some(identity()), Some(odd)), set([key(), other()]));
}

#[tokio::test]
async fn a_namespace_concerns_its_identities_when_its_labels_or_exemptions_change() {
    let caches = two().await;
    let mut closed = namespace();
    closed["metadata"]["labels"]["tier"] = json!("test");
    let mut annotated = namespace();
    annotated["metadata"]["annotations"] = json!({"a": "b"});
    let of = |new| keys(&caches, &Change::Namespace(was(Some(namespace()), Some(new))));
    assert_eq!(of(closed), set([key(), other()]));
    assert_eq!(of(annotated), set([]));
    let mut exempting = namespace();
    exempting["metadata"]["annotations"] = json!({"behalf.dev/exempt-service-accounts": "batch"});
    assert_eq!(of(exempting), set([key(), other()]));
}

#[tokio::test]
async fn a_pod_concerns_the_identity_it_joins_or_joined_and_whose_account_it_takes() {
    let caches = two().await;
    let of = |old, new| keys(&caches, &Change::Pod(was(old, new)));
    let mut running = pod("p");
    running["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
    let mut moved_on = running.clone();
    moved_on["status"]["podIP"] = json!("10.0.0.2");
    let mut ended = pod("p");
    ended["status"] = json!({"phase": "Failed"});
    let mut moved = pod("p");
    moved["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("other");
    let mut thief = pod("p");
    thief["spec"]["serviceAccountName"] = json!("own");
    assert_eq!(of(None, Some(pod("p"))), set([key()]));
    assert_eq!(of(Some(pod("p")), None), set([key()]));
    assert_eq!(of(Some(pod("p")), Some(running.clone())), set([key()]), "it can tell what it runs by");
    assert_eq!(of(Some(running), Some(moved_on)), set([]), "most changes of a pod are none to us");
    assert_eq!(of(Some(pod("p")), Some(ended)), set([key()]));
    assert_eq!(of(Some(pod("p")), Some(moved)), set([key(), other()]));
    assert_eq!(of(None, Some(thief)), set([key(), other()]));
}

#[tokio::test]
async fn a_bundle_concerns_its_identity_even_if_that_is_gone() {
    let world = World::new();
    world.settle().await;
    world.server.remove(IDENTITY);
    world.server.remove(CATALOG);
    let caches = world.gather().await.caches().clone();
    let object = world.server.get(crate::world::BUNDLE);
    assert_eq!(keys(&caches, &Change::Bundle(was(object, None))), set([key()]));
    let everything = set([key(), Key::Provider { name: "corp".into() }]);
    assert_eq!(keys(&caches, &Change::Everything), everything);
    let foreign = json!({"metadata": {"name": "settings", "namespace": "hr"}});
    assert_eq!(keys(&caches, &Change::Bundle(was(None, Some(foreign)))), set([]));
}
