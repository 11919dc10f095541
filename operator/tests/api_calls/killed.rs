//! Killed at every write, before and after the API server has it: whoever comes next ends where an undisturbed one does.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_operator::feed::desk::Desk;
use behalf_operator::kube_io::apply::Apply;
use behalf_operator::kube_io::counts::Counts;
use behalf_operator::kube_io::events::Events;
use behalf_operator::kube_io::lease::Leadership;
use behalf_operator::kube_io::status::Statuses;
use behalf_operator::reconcile;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::world::{CATALOG, IDENTITY, World, key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// A way to the server that goes no further at its n-th write.
struct Trap {
    write: usize,
    moment: Moment,
    seen: AtomicUsize,
    sprung: Notify,
    at: Mutex<String>,
}

impl Trap {
    fn set(write: usize, moment: Moment) -> Arc<Self> {
        let (seen, sprung, at) = (AtomicUsize::new(0), Notify::new(), Mutex::default());
        Arc::new(Self { write, moment, seen, sprung, at })
    }

    fn client(self: &Arc<Self>, world: &World) -> Client {
        let (trap, server) = (Arc::clone(self), world.server.client());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (trap, server) = (Arc::clone(&trap), server.clone());
            async move {
                let counts = request.method() != Method::GET
                    && trap.seen.fetch_add(1, Ordering::SeqCst) + 1 == trap.write;
                if counts {
                    *trap.at.lock().unwrap() = format!("{} {}", request.method(), request.uri().path());
                    if trap.moment == Moment::After {
                        server.send(request).await.unwrap();
                    }
                    trap.sprung.notify_one();
                    return std::future::pending().await;
                }
                Ok::<_, Infallible>(server.send(request).await.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// One pass of a process that dies in the trap; where it died.
    async fn pass(self: &Arc<Self>, world: &World) -> Option<String> {
        let mut context = world.context(world.gather().await);
        let (client, metrics) = (self.client(world), Arc::clone(&context.metrics));
        context.apply = Apply::new(client.clone(), Leadership::always(), Arc::clone(&metrics));
        context.counts = Counts::new(client.clone(), Leadership::always(), Arc::clone(&metrics));
        context.statuses = Statuses::new(client.clone(), Leadership::always(), Arc::clone(&metrics));
        context.events = Events::new(client, Some("operator-0".into()), metrics);
        let key = key();
        tokio::select! {
            _ = reconcile::pass(&context, &key) => None,
            () = self.sprung.notified() => Some(self.at.lock().unwrap().clone()),
        }
    }
}

/// What somebody does, and how it is called.
type Change = (&'static str, fn(&World));

/// What has to be reconciled; the world before it is at rest.
const CHANGES: [Change; 4] = [
    ("a changed row", |world| {
        let mut catalog = world.server.get(CATALOG).unwrap();
        catalog["spec"]["toolSets"][0]["tools"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "leave.list", "scopes": ["hr:read"]}));
        catalog["metadata"]["generation"] = json!(2);
        world.server.put(CATALOG, catalog);
    }),
    ("a suspended identity", |world| {
        let mut identity = world.server.get(IDENTITY).unwrap();
        identity["spec"]["state"] = json!("Suspended");
        identity["metadata"]["generation"] = json!(2);
        world.server.put(IDENTITY, identity);
    }),
    ("a catalogue that is not open any more", |world| {
        let mut catalog = world.server.get(CATALOG).unwrap();
        catalog["spec"]["allowedNamespaces"] = json!({"from": "None"});
        catalog["metadata"]["generation"] = json!(2);
        world.server.put(CATALOG, catalog);
    }),
    ("a deleted identity", |world| world.server.remove(IDENTITY)),
];

/// What the API server holds in the end.
fn outcome(world: &World) -> (Value, Value) {
    let status = world.server.get(IDENTITY).map(|identity| identity["status"].clone());
    (serde_json::to_value(world.bundle()).unwrap(), status.unwrap_or_default())
}

/// A process that starts anew knows nothing of what the one before was told.
fn restarted(mut world: World) -> World {
    world.desk = Arc::new(Desk::new(Duration::from_secs(5)));
    world
}

/// As `like`, with nothing reconciled yet, or at rest.
async fn alike(like: &World, change: Option<fn(&World)>) -> World {
    let mut world = World::new();
    (world.keys, world.settings) = (Arc::clone(&like.keys), Arc::clone(&like.settings));
    if let Some(change) = change {
        world.settle().await;
        change(&world);
    }
    world
}

#[tokio::test]
async fn killed_at_every_write_the_next_one_ends_where_an_undisturbed_one_does() {
    let like = World::new();
    let all =
        [("a new identity", None)].into_iter().chain(CHANGES.map(|(what, change)| (what, Some(change))));
    for (what, change) in all {
        let undisturbed = alike(&like, change).await;
        undisturbed.settle().await;
        let expected = outcome(&undisturbed);
        for moment in [Moment::Before, Moment::After] {
            let mut deaths = Vec::new();
            loop {
                let world = alike(&like, change).await;
                let trap = Trap::set(deaths.len() + 1, moment);
                let Some(death) = trap.pass(&world).await else { break };
                let world = restarted(world);
                world.settle().await;
                assert_eq!(outcome(&world), expected, "{what}: killed {moment:?} {death}");
                deaths.push(death);
                assert!(deaths.len() < 20, "{what}: it writes for ever: {deaths:?}");
            }
            assert!(!deaths.is_empty(), "{what}: nothing was written");
            assert!(deaths.iter().any(|death| death.contains("configmaps")), "{what}: {deaths:?}");
        }
    }
}
