//! The signing keys: rotated under bundles and pods, by one replica of several.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use behalf_operator::clock::{Clock, Monotonic};
use behalf_operator::kube_io::apply::Apply;
use behalf_operator::kube_io::caches::Change;
use behalf_operator::kube_io::lease::Leadership;
use behalf_operator::kube_io::secrets::Secrets;
use behalf_operator::live::Live;
use behalf_operator::signing::keep::{Around, Keeper, KeysError, load};
use behalf_operator::signing::pins::SETTLE;
use behalf_operator::signing::rotate::Rules;
use behalf_operator::signing::{MAX_KEYS, SigningKeys, verify};
use behalf_plan::Settings;
use behalf_policy::bundle::Document;
use behalf_policy::bundle::signed::{self, PublicKey};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{BUNDLE, NOW, World, pod, writes};

const SECRET: &str = "/api/v1/namespaces/behalf-system/secrets/behalf-signing-keys";
const TRUST: &str = "/api/v1/namespaces/behalf-system/configmaps/behalf-trust";
const POD: &str = "/api/v1/namespaces/hr/pods/hr-tools-0";
const MINUTE: i64 = 60;

/// One replica, as it starts.
struct Replica {
    keeper: Keeper,
    keys: Live<SigningKeys>,
    settings: Live<Settings>,
    clock: Arc<AtomicU64>,
    changes: mpsc::Receiver<Change>,
}

async fn replica(world: &World, leadership: Leadership) -> Replica {
    let (clock, client) = (Arc::new(AtomicU64::new(1)), world.server.client());
    let wall = Clock::Fixed(Timestamp::from_second(world.now).unwrap());
    let secrets = Secrets::new(client.clone(), "behalf-system", "test");
    let loaded = load(&secrets, wall).await.unwrap();
    let (sender, changes) = mpsc::channel(16);
    let around = Around {
        secrets,
        apply: Apply::new(client, leadership.clone(), Arc::default()),
        namespace: "behalf-system".into(),
        caches: world.gather().await.caches().clone(),
        leadership,
        rules: Rules { max_age: Duration::from_hours(2160), overlap: Duration::from_mins(10) },
        clock: wall,
        monotonic: Monotonic::Manual(Arc::clone(&clock)),
        changes: Some(sender),
        metrics: Arc::default(),
    };
    let (keeper, keys, settings) = Keeper::new(around, loaded, Settings::clone(&world.settings));
    Replica { keeper, keys, settings, clock, changes }
}

/// A world whose keys lie in the Secret, as the operator finds them.
fn stored() -> World {
    let world = World::new();
    put(&world, &world.keys.to_stored().unwrap());
    world
}

fn put(world: &World, keys: &[u8]) {
    use base64::Engine as _;
    let encode = |bytes| base64::engine::general_purpose::STANDARD.encode::<&[u8]>(bytes);
    let salt = world.keys.record_salt().unwrap();
    world.server.put(
        SECRET,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "behalf-signing-keys"},
        "data": {"keys.json": encode(keys), "record-salt": encode(salt.as_bytes())}}),
    );
}

/// Somebody asks for a new key.
fn ask(world: &World, value: &str) {
    let mut secret = world.server.get(SECRET).unwrap();
    secret["metadata"]["annotations"] = json!({"behalf.dev/rotate": value});
    world.server.put(SECRET, secret);
}

/// The parameters of the admission policies list these keys.
fn list(world: &World, keys: &[String]) {
    let data = json!({"bundleKeys": keys.join("\n")});
    world.server.put(
        TRUST,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "behalf-trust"}, "data": data}),
    );
}

/// A leader looks and everything follows: keys, parameters, pins, bundles.
async fn follow(world: &mut World) {
    let mut leader = replica(world, Leadership::always()).await;
    leader.keeper.look().await.unwrap();
    (world.keys, world.settings) = (leader.keys.current(), leader.settings.current());
    list(world, &world.keys.public_arguments());
    leader.keeper.look().await.unwrap();
    leader.clock.fetch_add(u64::try_from(SETTLE.as_millis()).unwrap(), Ordering::Release);
    leader.keeper.look().await.unwrap();
    (world.keys, world.settings) = (leader.keys.current(), leader.settings.current());
    world.settle().await;
}

fn injected(name: &str, keys: &[String]) -> Value {
    let mut pod = pod(name);
    let args: Vec<_> = keys.iter().map(|key| format!("--bundle-key={key}")).collect();
    pod["spec"]["initContainers"] =
        json!([{"name": "behalf-redirect"}, {"name": "behalf-sidecar", "args": args}]);
    pod
}

/// What a sidecar that pins these keys makes of the bundle that is there.
fn accepts(world: &World, pinned: &[String]) -> Option<Document> {
    let keys: Vec<_> = pinned.iter().map(|key| PublicKey::parse(key).unwrap()).collect();
    let object = world.server.get(BUNDLE).unwrap();
    signed::open(object["data"]["bundle.json"].as_str().unwrap().as_bytes(), &keys, verify)
        .ok()
        .map(|it| it.1)
}

fn change_a_row(world: &World, tool: &str) {
    let mut catalog = world.server.get(crate::world::CATALOG).unwrap();
    catalog["spec"]["toolSets"][0]["tools"][0]["name"] = json!(tool);
    world.server.put(crate::world::CATALOG, catalog);
}

#[tokio::test]
async fn two_rotations_under_a_pod_that_is_never_restarted() {
    let mut world = stored();
    follow(&mut world).await;
    let first = world.settings.bundle_keys.clone();
    assert_eq!(first, world.keys.public_arguments());
    world.server.put(POD, injected("hr-tools-0", &first));
    let mut serial = accepts(&world, &first).unwrap().serial;
    for (round, value) in ["one", "two"].into_iter().enumerate() {
        ask(&world, value);
        follow(&mut world).await;
        assert_eq!(world.keys.public_arguments().len(), round + 2);
        assert_eq!(accepts(&world, &first).unwrap().serial, serial, "the same bundle, signed anew");
        for key in world.keys.public_arguments() {
            assert!(accepts(&world, &[key]).is_some());
        }
        change_a_row(&world, value);
        follow(&mut world).await;
        let now = accepts(&world, &first).expect("a bundle that the old pod takes");
        assert!(now.serial > serial);
        serial = now.serial;
        // However long it takes.
        for _ in 0..4 {
            world.now += 20 * MINUTE;
            follow(&mut world).await;
            assert!(accepts(&world, &first).is_some());
        }
    }
    assert!(world.keys.public_arguments().contains(&first[0]), "a pod pins only it");
    assert_eq!(world.settings.bundle_keys, world.keys.public_arguments()[..1], "no new pod pins it");
    world.server.put(POD, injected("hr-tools-0", &world.settings.bundle_keys));
    follow(&mut world).await;
    assert_eq!(world.keys.public_arguments(), world.settings.bundle_keys);
    assert!(accepts(&world, &first).is_none(), "dropped, and the bundles are signed without it");
    let now = accepts(&world, &world.settings.bundle_keys).unwrap();
    assert_eq!(now.serial, serial, "the same bundle");
}

#[tokio::test]
async fn the_salt_for_records_stays_as_it_is_through_rotations_and_is_in_every_bundle() {
    let mut world = stored();
    let salt = world.keys.record_salt().unwrap().to_owned();
    for value in ["one", "two"] {
        follow(&mut world).await;
        let first = world.settings.bundle_keys.clone();
        assert_eq!(accepts(&world, &first).unwrap().record_salt.as_deref(), Some(salt.as_str()));
        ask(&world, value);
    }
    // A Secret of before there was a salt gets one with its next key, and so do the bundles.
    let mut secret = world.server.get(SECRET).unwrap();
    secret["data"].as_object_mut().unwrap().remove("record-salt");
    world.server.put(SECRET, secret);
    ask(&world, "three");
    follow(&mut world).await;
    let now = world.keys.record_salt().unwrap().to_owned();
    assert_ne!(now, salt);
    change_a_row(&world, "renamed");
    follow(&mut world).await;
    assert_eq!(accepts(&world, &world.settings.bundle_keys).unwrap().record_salt, Some(now));
}

#[tokio::test]
async fn a_pod_that_is_done_or_not_ours_holds_no_key() {
    let mut world = stored();
    follow(&mut world).await;
    let first = world.settings.bundle_keys.clone();
    ask(&world, "one");
    let mut done = injected("hr-tools-0", &first);
    done["status"] = json!({"phase": "Succeeded"});
    world.server.put(POD, done);
    world.server.put("/api/v1/namespaces/hr/pods/bare", pod("bare"));
    for _ in 0..4 {
        world.now += 20 * MINUTE;
        follow(&mut world).await;
    }
    assert_eq!(world.keys.public_arguments().len(), 1);
    assert_ne!(world.keys.public_arguments(), first);
}

#[tokio::test]
async fn a_pod_that_pins_the_old_key_is_outdated_and_one_that_pins_both_is_not_outdated_again() {
    let mut world = stored();
    follow(&mut world).await;
    let revision = |world: &World| {
        world.server.get(crate::world::IDENTITY).unwrap()["status"]["injection"]["revision"].clone()
    };
    let before = revision(&world);
    ask(&world, "one");
    follow(&mut world).await;
    let after = revision(&world);
    assert_ne!(before, after, "pods need a restart to pin the new key");
    for _ in 0..4 {
        world.now += 20 * MINUTE;
        follow(&mut world).await;
    }
    assert_eq!(
        (world.keys.public_arguments().len(), revision(&world)),
        (1, after),
        "and none to forget the old"
    );
}

#[tokio::test]
async fn of_two_that_believe_they_lead_one_makes_a_key() {
    for _ in 0..20 {
        let mut world = stored();
        follow(&mut world).await;
        ask(&world, "one");
        let mut a = replica(&world, Leadership::always()).await;
        let mut b = replica(&world, Leadership::always()).await;
        let (one, two) = tokio::join!(a.keeper.look(), b.keeper.look());
        one.unwrap();
        two.unwrap();
        // Either may have seen the other's write or not; the next look says the same.
        a.keeper.look().await.unwrap();
        b.keeper.look().await.unwrap();
        assert_eq!(a.keys.current().public_arguments().len(), 2);
        assert_eq!(a.keys.current().public_arguments(), b.keys.current().public_arguments());
    }
}

#[tokio::test]
async fn of_two_that_start_at_once_one_makes_the_first_key() {
    let world = World::new();
    let secrets = Secrets::new(world.server.client(), "behalf-system", "test");
    let clock = Clock::Fixed(Timestamp::from_second(NOW).unwrap());
    let (a, b) = tokio::join!(load(&secrets, clock), load(&secrets, clock));
    assert_eq!(a.unwrap().public_arguments(), b.unwrap().public_arguments());
}

#[tokio::test]
async fn a_follower_follows_and_writes_nothing() {
    let mut world = stored();
    follow(&mut world).await;
    let mut follower = replica(&world, Leadership::never()).await;
    follower.keeper.look().await.unwrap();
    ask(&world, "one");
    world.server.calls();
    follower.keeper.look().await.unwrap();
    assert_eq!(writes(&world.server.calls()), [""; 0]);
    assert_eq!(follower.keys.current().public_arguments().len(), 1);
    follow(&mut world).await;
    while follower.changes.try_recv().is_ok() {}
    world.server.calls();
    follower.keeper.look().await.unwrap();
    assert_eq!(follower.keys.current().public_arguments(), world.keys.public_arguments());
    assert!(matches!(follower.changes.try_recv(), Ok(Change::Everything)));
    world.server.remove(SECRET);
    assert!(matches!(follower.keeper.look().await, Err(KeysError::NotLeading(_))));
    assert_eq!(writes(&world.server.calls()), [""; 0]);
}

#[tokio::test]
async fn a_new_key_signs_at_once_and_is_pinned_when_admission_takes_it() {
    let mut world = stored();
    follow(&mut world).await;
    let old = world.settings.bundle_keys.clone();
    ask(&world, "one");
    let mut leader = replica(&world, Leadership::always()).await;
    let wait = leader.keeper.look().await.unwrap();
    assert!(wait <= Duration::from_secs(1), "it looks again soon");
    let all = leader.keys.current().public_arguments();
    assert_eq!((all.len(), leader.settings.current().bundle_keys.clone()), (2, old.clone()));
    list(&world, &all);
    leader.keeper.look().await.unwrap();
    assert_eq!(leader.settings.current().bundle_keys, old, "every API server needs a moment");
    leader.clock.fetch_add(u64::try_from(SETTLE.as_millis()).unwrap(), Ordering::Release);
    leader.keeper.look().await.unwrap();
    assert_eq!(leader.settings.current().bundle_keys, all);
}

#[tokio::test]
async fn at_rest_nothing_is_written_and_the_same_request_is_answered_once() {
    let mut world = stored();
    ask(&world, "one");
    follow(&mut world).await;
    follow(&mut world).await;
    assert_eq!(world.keys.public_arguments().len(), 2);
    world.now += 11 * MINUTE;
    follow(&mut world).await;
    let mut leader = replica(&world, Leadership::always()).await;
    world.server.calls();
    for _ in 0..5 {
        leader.keeper.look().await.unwrap();
    }
    assert_eq!(writes(&world.server.calls()), [""; 0]);
}

#[tokio::test]
async fn keys_of_the_first_release_are_read_and_age_from_now_on() {
    let mut world = stored();
    let before = world.keys.public_arguments();
    follow(&mut world).await;
    assert_eq!(world.keys.public_arguments(), before);
    let stored = String::from_utf8(world.keys.to_stored().unwrap().to_vec()).unwrap();
    assert!(stored.contains("created"));
    world.now += 2160 * 3600;
    follow(&mut world).await;
    assert_eq!(world.keys.public_arguments()[1..], before, "too old: there is a newer one");
}

#[tokio::test]
async fn what_cannot_be_read_changes_nothing() {
    let mut world = stored();
    follow(&mut world).await;
    let mut leader = replica(&world, Leadership::always()).await;
    let before = leader.keys.current().public_arguments();
    for rubbish in [b"".as_slice(), b"[]", b"{}", b"[{\"pkcs8\":\"AAAA\"}]"] {
        put(&world, rubbish);
        world.server.calls();
        assert!(matches!(leader.keeper.look().await, Err(KeysError::Signing(_))));
        assert_eq!(
            (writes(&world.server.calls()), leader.keys.current().public_arguments()),
            (vec![], before.clone())
        );
    }
    for code in [401, 403, 500] {
        world.server.fail(http::Method::GET, SECRET, code);
        assert!(matches!(leader.keeper.look().await, Err(KeysError::Api(_))));
        assert_eq!(leader.keys.current().public_arguments(), before);
    }
}

#[tokio::test]
async fn a_deleted_secret_is_put_back_with_the_same_keys() {
    let mut world = stored();
    follow(&mut world).await;
    let mut leader = replica(&world, Leadership::always()).await;
    let before = leader.keys.current().public_arguments();
    world.server.remove(SECRET);
    leader.keeper.look().await.unwrap();
    assert!(world.server.get(SECRET).is_some());
    assert_eq!(replica(&world, Leadership::never()).await.keys.current().public_arguments(), before);
}

#[tokio::test]
async fn there_are_never_more_keys_than_a_sidecar_pins() {
    let mut world = stored();
    follow(&mut world).await;
    for round in 0..MAX_KEYS + 2 {
        // A pod of each age is never restarted.
        let name = format!("hr-tools-{round}");
        let newest = world.settings.bundle_keys[..1].to_vec();
        world.server.put(&format!("/api/v1/namespaces/hr/pods/{name}"), injected(&name, &newest));
        ask(&world, &round.to_string());
        world.now += 11 * MINUTE;
        follow(&mut world).await;
        assert!(world.keys.public_arguments().len() <= MAX_KEYS);
    }
    assert_eq!(world.keys.public_arguments().len(), MAX_KEYS);
    let pinned: BTreeSet<_> = world.keys.public_arguments().into_iter().collect();
    world.server.remove("/api/v1/namespaces/hr/pods/hr-tools-0");
    for _ in 0..3 {
        world.now += 11 * MINUTE;
        follow(&mut world).await;
    }
    assert!(
        world.keys.public_arguments().iter().any(|key| !pinned.contains(key)),
        "the request was not forgotten"
    );
}
