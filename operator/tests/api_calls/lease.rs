//! Which replica writes: the Lease, request by request, and that two never lead at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use behalf_operator::clock::{Clock, Monotonic};
use behalf_operator::kube_io::WriteError;
use behalf_operator::kube_io::apply::Apply;
use behalf_operator::kube_io::lease::{
    Candidate, DEADLINE, DURATION, Election, Leader, Leadership, RENEW, holder,
};
use behalf_operator::metrics::Metrics;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use crate::server::Server;
use crate::world::{NOW, World, writes};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/behalf-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/behalf-system/leases/behalf-operator";
const SECOND: Duration = Duration::from_secs(1);

/// A replica with a clock of its own.
struct Replica {
    election: Election,
    leadership: Leadership,
    clock: Arc<AtomicU64>,
}

impl Replica {
    fn of(client: Client, name: &str, candidate: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let who = Candidate {
            holder: holder(name, Some("10.0.0.7".parse().unwrap())),
            candidate,
            wall: Clock::Fixed(Timestamp::from_second(NOW).unwrap()),
            clock: Monotonic::Manual(Arc::clone(&clock)),
        };
        let (election, leadership) = Election::new(client, "behalf-system", who, Arc::default());
        Self { election, leadership, clock }
    }

    fn new(server: &Server, name: &str) -> Self {
        Self::of(server.client(), name, true)
    }

    /// Time goes by, and the replica is not scheduled.
    fn pass(&self, time: Duration) {
        self.clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Release);
    }

    /// Time goes by and the replica does what is due, second by second.
    async fn live(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.pass(SECOND);
            self.election.step().await;
        }
    }
}

fn holds(server: &Server) -> String {
    let lease = server.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_first_one_makes_the_lease_and_says_who_it_is() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    assert!(!a.leadership.leads() && a.leadership.leader().is_none());
    a.election.step().await;
    let calls = server.calls();
    assert_eq!(writes(&calls), [format!("POST {LEASES}")]);
    let spec = &calls.last().unwrap().body["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!("a/10.0.0.7"), &json!(15)));
    assert!(a.leadership.leads());
    assert_eq!(a.leadership.leader(), Some(Leader { name: "a".into(), ip: "10.0.0.7".parse().unwrap() }));
}

#[tokio::test]
async fn the_holder_renews_in_time_over_what_it_wrote_and_asks_nothing_else() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    a.election.step().await;
    let version = server.get(LEASE).unwrap()["metadata"]["resourceVersion"].clone();
    server.calls();
    a.live(RENEW.saturating_sub(SECOND)).await;
    assert_eq!(server.calls().len(), 0, "not before it is time");
    a.live(SECOND).await;
    let calls = server.calls();
    assert_eq!(calls.iter().map(crate::server::Call::brief).collect::<Vec<_>>(), [format!("PUT {LEASE}")]);
    assert_eq!(calls[0].body["metadata"]["resourceVersion"], version);
    a.live(Duration::from_mins(1)).await;
    assert!(a.leadership.leads());
    assert_eq!(server.get(LEASE).unwrap()["spec"]["leaseTransitions"], 0);
}

#[tokio::test]
async fn the_other_waits_for_its_own_clock_whatever_the_record_says() {
    for renewed in ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        let server = Server::default();
        server.put(LEASE, lease("gone/10.0.0.9", renewed));
        let mut b = Replica::new(&server, "b");
        b.election.step().await;
        b.live(DURATION.saturating_sub(SECOND)).await;
        assert!(!b.leadership.leads() && writes(&server.calls()).is_empty(), "{renewed}");
        assert_eq!(b.leadership.leader().unwrap().name, "gone");
        b.live(SECOND).await;
        assert!(b.leadership.leads());
        assert_eq!(holds(&server), "b/10.0.0.7");
        assert_eq!(server.get(LEASE).unwrap()["spec"]["leaseTransitions"], 4);
    }
}

fn lease(holder: &str, renewed: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "behalf-operator"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3, "renewTime": renewed}})
}

#[tokio::test]
async fn a_record_that_moves_is_alive() {
    let server = Server::default();
    let mut b = Replica::new(&server, "b");
    for second in 0..60 {
        server.put(LEASE, lease("a/10.0.0.9", &format!("2026-01-01T00:00:{second:02}.000000Z")));
        b.live(DURATION.saturating_sub(SECOND)).await;
        assert!(!b.leadership.leads());
    }
    assert_eq!(writes(&server.calls()), [""; 0]);
}

#[tokio::test]
async fn a_given_back_lease_is_taken_at_once() {
    let server = Server::default();
    let (mut a, mut b) = (Replica::new(&server, "a"), Replica::new(&server, "b"));
    a.election.step().await;
    b.election.step().await;
    assert!(!b.leadership.leads());
    a.election.release().await;
    assert_eq!((a.leadership.leads(), holds(&server)), (false, String::new()));
    b.election.step().await;
    assert!(b.leadership.leads());
    a.election.release().await;
    assert_eq!(holds(&server), "b/10.0.0.7", "who does not hold it gives nothing back");
}

#[tokio::test]
async fn without_a_successful_renewal_it_stops_well_before_another_starts() {
    let server = Server::default();
    let (mut a, mut b) = (Replica::new(&server, "a"), Replica::new(&server, "b"));
    a.election.step().await;
    b.election.step().await;
    for second in 1..=DURATION.as_secs() {
        server.fail(Method::PUT, LEASE, 500);
        a.live(SECOND).await;
        let writes = server.get(LEASE);
        b.live(SECOND).await;
        assert_eq!(a.leadership.leads(), second < DEADLINE.as_secs(), "{second}");
        assert_eq!(b.leadership.leads(), second >= DURATION.as_secs(), "{second}");
        if !b.leadership.leads() {
            assert_eq!(server.get(LEASE), writes);
        }
        // The failures that nobody met.
        server.heal();
    }
}

#[tokio::test]
async fn a_frozen_one_knows_it_before_it_does_anything_else() {
    let world = World::new();
    let server = &world.server;
    let (mut a, mut b) = (Replica::new(server, "a"), Replica::new(server, "b"));
    a.election.step().await;
    let apply = Apply::new(server.client(), a.leadership.clone(), Arc::default());
    apply.admission_parameters("behalf-system", [("a".to_owned(), "1".to_owned())].into()).await.unwrap();
    b.election.step().await;
    // Neither timers nor tasks of the frozen one run; only time goes by.
    a.pass(Duration::from_mins(1));
    b.live(DURATION).await;
    assert!(b.leadership.leads());
    assert!(!a.leadership.leads(), "thawed: the clock is asked, nobody has to have noticed");
    server.calls();
    let write = apply.admission_parameters("behalf-system", [("a".to_owned(), "2".to_owned())].into()).await;
    assert!(matches!(write, Err(WriteError::NotLeading(_))));
    assert!(matches!(apply.bundle("hr", "x", "{}".into(), None).await, Err(WriteError::NotLeading(_))));
    assert_eq!(writes(&server.calls()), [""; 0]);
    // Its renewal is refused since it is not over the last version; it reads and follows.
    a.election.step().await;
    assert_eq!(writes(&server.calls()), [format!("PUT {LEASE}")]);
    assert_eq!((a.leadership.leads(), holds(server)), (false, "b/10.0.0.7".to_owned()));
    assert_eq!(a.leadership.leader().unwrap().name, "b");
}

#[tokio::test]
async fn whoever_finds_another_in_its_place_stops_at_once() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    a.election.step().await;
    server.put(LEASE, lease("b/10.0.0.9", "2026-01-01T00:00:00.000000Z"));
    a.live(RENEW).await;
    assert!(!a.leadership.leads());
    assert_eq!(holds(&server), "b/10.0.0.9");
}

#[tokio::test]
async fn a_frozen_one_that_nobody_replaced_goes_on() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    a.election.step().await;
    a.pass(Duration::from_hours(1));
    assert!(!a.leadership.leads());
    a.election.step().await;
    assert!(a.leadership.leads());
}

#[tokio::test]
async fn an_answer_that_comes_too_late_makes_nobody_leader() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    // The request was sent before the freeze, the answer is read after it.
    let clock = Arc::clone(&a.clock);
    server.on(Method::POST, LEASES, move || {
        clock.fetch_add(60_000, Ordering::Release);
    });
    a.election.step().await;
    assert_eq!(holds(&server), "a/10.0.0.7");
    assert!(!a.leadership.leads());
}

#[tokio::test]
async fn one_of_two_that_come_at_once_wins() {
    for found in [None, Some(lease("", "2026-01-01T00:00:00.000000Z"))] {
        let server = Server::default();
        if let Some(found) = found {
            server.put(LEASE, found);
        }
        let (mut a, mut b) = (Replica::new(&server, "a"), Replica::new(&server, "b"));
        tokio::join!(a.election.step(), b.election.step());
        assert!(a.leadership.leads() != b.leadership.leads());
    }
}

#[tokio::test]
async fn who_is_no_candidate_only_looks() {
    let server = Server::default();
    let mut observer = Replica::of(server.client(), "o", false);
    observer.live(DURATION).await;
    server.put(LEASE, lease("a/10.0.0.9", "2026-01-01T00:00:00.000000Z"));
    observer.live(SECOND).await;
    assert_eq!(observer.leadership.leader().unwrap().name, "a");
    observer.live(2 * DURATION).await;
    assert!(observer.leadership.leader().is_none(), "nobody, as far as one sees");
    assert_eq!((observer.leadership.leads(), writes(&server.calls())), (false, vec![]));
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_by_whoever_comes_first() {
    let server = Server::default();
    let mut a = Replica::new(&server, "a");
    a.election.step().await;
    server.remove(LEASE);
    a.live(RENEW).await;
    assert_eq!(holds(&server), "a/10.0.0.7");
    assert!(a.leadership.leads());
}

#[tokio::test]
async fn an_api_server_that_never_answers_holds_nobody_up() {
    let client = Client::new(
        tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        }),
        "default",
    );
    let mut a = Replica::of(client, "a", true);
    let step = tokio::time::timeout(Duration::from_secs(30), a.election.step());
    assert!(step.await.is_ok(), "it gives up by itself");
    assert!(!a.leadership.leads());
}

/// Freezes, failures and hand-overs as they come: whatever happens, two never lead at once.
#[tokio::test]
async fn two_never_lead_at_once() {
    let server = Server::default();
    let mut replicas = [Replica::new(&server, "a"), Replica::new(&server, "b"), Replica::new(&server, "c")];
    let (mut frozen, mut random, mut led) = ([0_u64; 3], 42_u64, [0; 3]);
    for _ in 0..4000 {
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        for replica in &replicas {
            replica.pass(Duration::from_millis(500));
        }
        for at in 0..3 {
            if frozen[at] > 0 {
                frozen[at] -= 1;
                continue;
            }
            match next(200) {
                0 => frozen[at] = next(120),
                1 => replicas[at].election.release().await,
                2..20 => server.fail(Method::PUT, LEASE, 500),
                _ => {
                    replicas[at].election.step().await;
                }
            }
            server.heal();
            server.calls();
        }
        let leads: Vec<_> = (0..3).filter(|at| replicas[*at].leadership.leads()).collect();
        assert!(leads.len() <= 1, "{leads:?}");
        for at in leads {
            led[at] += 1;
        }
    }
    assert!(led.iter().all(|times| *times > 100), "each had its turn: {led:?}");
}

#[tokio::test]
async fn parameters_are_created_once_and_then_applied_over_what_was_read() {
    let world = World::new();
    let apply = Apply::new(world.server.client(), Leadership::always(), Arc::new(Metrics::default()));
    let data = |value: &str| [("bundleKeys".to_owned(), value.to_owned())].into();
    let path = "/api/v1/namespaces/behalf-system/configmaps/behalf-trust";
    assert!(apply.admission_parameters("behalf-system", data("1")).await.unwrap());
    assert!(!apply.admission_parameters("behalf-system", data("1")).await.unwrap());
    assert_eq!(writes(&world.server.calls()), ["POST /api/v1/namespaces/behalf-system/configmaps"]);
    let version = world.server.get(path).unwrap()["metadata"]["resourceVersion"].clone();
    assert!(apply.admission_parameters("behalf-system", data("2")).await.unwrap());
    let calls = world.server.calls();
    assert_eq!(writes(&calls), [format!("PATCH {path}")]);
    assert_eq!(calls.last().unwrap().body["metadata"]["resourceVersion"], version);
    // Somebody else writes between our look and our write.
    let (server, between) = (world.server.clone(), path.to_owned());
    world.server.on(Method::PATCH, path, move || {
        let held = server.get(&between).unwrap();
        server.put(&between, held);
    });
    let refused = apply.admission_parameters("behalf-system", data("3")).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
}
