//! Two providers that take tokens for one audience.

use behalf_operator::kube_io::caches::{Change, Was};
use behalf_operator::reconcile::triggers::{Key, keys};
use behalf_policy::bundle::Serve;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::world::{IDENTITY, PROVIDER, World, identity, key, provider, reason};

/// `corp`, from before, and `twin` of that age.
fn twin(created: &str) -> Value {
    let mut twin = provider();
    twin["metadata"] = json!({"name": "twin", "generation": 1, "creationTimestamp": created});
    twin
}

fn path(name: &str) -> String {
    PROVIDER.replace("corp", name)
}

fn key_of(name: &str) -> Key {
    Key::Provider { name: name.into() }
}

/// With an identity of each: `hr-tools` names `corp`, `other` names `twin`.
fn two(created: &str) -> World {
    let world = World::new();
    let mut corp = provider();
    corp["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
    world.server.put(PROVIDER, corp);
    world.server.put(&path("twin"), twin(created));
    let mut other = identity();
    other["metadata"]["name"] = json!("other");
    other["spec"]["identityProviders"][0]["name"] = json!("twin");
    other["spec"]["serviceAccountName"] = json!("other");
    other["spec"]["servers"][0]["url"] = json!("https://other.example.com/mcp");
    world.server.put(&IDENTITY.replace("hr-tools", "other"), other);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": "hr"}});
    world.server.put("/api/v1/namespaces/hr/serviceaccounts/other", account);
    world
}

fn said(world: &World, path: &str, type_: &str) -> String {
    reason(&world.server.get(path).unwrap(), type_)
}

#[tokio::test]
async fn the_younger_is_not_accepted_nor_who_names_it_and_the_older_and_its_own_do_not_notice() {
    let world = two("2026-01-03T00:00:00Z");
    world.settle().await;
    assert_eq!(said(&world, &path("twin"), "Accepted"), "AudienceTaken");
    assert_eq!(said(&world, &path("corp"), "Accepted"), "Accepted");
    let other = IDENTITY.replace("hr-tools", "other");
    assert_eq!(said(&world, &other, "ResolvedRefs"), "IdentityProviderNotAccepted");
    assert_eq!(
        (world.reason("ResolvedRefs"), world.reason("Accepted")),
        ("Resolved".into(), "Accepted".into())
    );
    assert!(matches!(world.bundle().serve, Serve::Policy(_)));
}

#[tokio::test]
async fn when_the_older_goes_the_younger_is_accepted() {
    let world = two("2026-01-01T00:00:00Z");
    world.settle().await;
    assert_eq!(said(&world, &path("corp"), "Accepted"), "AudienceTaken");
    assert_eq!(world.reason("ResolvedRefs"), "IdentityProviderNotAccepted");
    let gone = world.server.get(&path("twin")).unwrap();
    world.server.remove(&path("twin"));
    let caches = world.gather().await.caches().clone();
    let change =
        Change::Provider(Was { old: Some(Arc::new(serde_json::from_value(gone).unwrap())), new: None });
    let concerned = keys(&caches, &change);
    assert!(concerned.contains(&key_of("corp")) && concerned.contains(&key()), "{concerned:?}");
    for key in concerned {
        world.pass(&key).await;
    }
    assert_eq!(said(&world, &path("corp"), "Accepted"), "Accepted");
    assert_eq!(world.reason("ResolvedRefs"), "Resolved");
    assert!(matches!(world.bundle().serve, Serve::Policy(_)));
}

#[tokio::test]
async fn a_provider_concerns_those_of_the_audience_it_has_or_had_when_that_changes() {
    let world = two("2026-01-01T00:00:00Z");
    let caches = world.gather().await.caches().clone();
    let read = |it: Value| Some(Arc::new(serde_json::from_value(it).unwrap()));
    let of =
        |old: Value, new: Value| keys(&caches, &Change::Provider(Was { old: read(old), new: read(new) }));
    let created = "2026-01-01T00:00:00Z";
    let other = Key::Identity { namespace: "hr".into(), name: "other".into() };
    let own = BTreeSet::from([key_of("twin"), other]);
    let both: BTreeSet<_> = own.iter().cloned().chain([key_of("corp"), key()]).collect();
    let mut moved = twin(created);
    moved["spec"]["clientAuthentication"]["serviceAccountToken"] = json!({"audience": "elsewhere"});
    assert_eq!(of(twin(created), moved.clone()), both, "it gives the audience up");
    assert_eq!(of(moved, twin(created)), both, "it takes it");
    assert_eq!(of(twin("2026-02-01T00:00:00Z"), twin(created)), both, "it was made anew");
    let mut touched = twin(created);
    touched["status"] = json!({"observedGeneration": 1});
    assert_eq!(of(twin(created), touched), own);
}

#[tokio::test]
async fn the_audience_of_the_feed_is_taken() {
    let world = World::new();
    let mut greedy = provider();
    greedy["spec"]["clientAuthentication"]["serviceAccountToken"] = json!({"audience": "behalf.dev/feed"});
    world.server.put(PROVIDER, greedy);
    world.settle().await;
    assert_eq!(said(&world, PROVIDER, "Accepted"), "AudienceTaken");
    assert_eq!(world.reason("ResolvedRefs"), "IdentityProviderNotAccepted");
}
