//! Whole processes of the operator beside each other.

use std::time::Duration;

use behalf_operator::app;
use behalf_operator::args::{Args, Command};
use clap::Parser as _;
use http::Method;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::server::Server;
use crate::world::{BUNDLE, IDENTITY, World, reason};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/behalf-system/leases/behalf-operator";
const KEYS: &str = "/api/v1/namespaces/behalf-system/secrets/behalf-signing-keys";
/// No wait for something takes longer than this, else the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running process.
struct Process {
    end: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Process {
    fn start(server: &Server, name: &str) -> Self {
        let flags = [
            "--roles=reconcile",
            "--sidecar-image=registry.test/sidecar@sha256:00",
            "--nameserver=10.96.0.10",
            "--cluster-domain=cluster.local",
            "--health-address=127.0.0.1:0",
            "--metrics-address=127.0.0.1:0",
            "--pod-ip=10.0.0.7",
            "--pod-name",
            name,
        ];
        let args = match Args::parse_from(["behalf-operator", "run"].iter().chain(&flags)).command {
            Command::Run(args) => *args,
            Command::Check(_) => unreachable!(),
        };
        let (end, ended) = oneshot::channel();
        let client = server.client();
        let task = tokio::spawn(app::run(args, client, async move {
            let _ = ended.await;
        }));
        Self { end, task }
    }

    async fn stop(self) {
        self.end.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waited = async {
        let mut often = tokio::time::interval(Duration::from_millis(20));
        while !done() {
            often.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

fn holder(server: &Server) -> String {
    let lease = server.get(LEASE).unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_second_writes_when_the_first_has_ended_and_not_before() {
    let world = World::new();
    let server = &world.server;
    // The API server is away at first: the process waits for it.
    server.fail(Method::GET, KEYS, 503);
    let first = Process::start(server, "first");
    until("the first has reconciled", || {
        server.get(BUNDLE).is_some() && reason(&server.get(IDENTITY).unwrap(), "Accepted") == "Accepted"
    })
    .await;
    assert_eq!(holder(server), "first/10.0.0.7");
    // Its watches do not tell it; whoever begins to lead would see it.
    server.remove(BUNDLE);
    let second = Process::start(server, "second");
    server.calls();
    until("the second has looked at the Lease some times", || {
        let state = server.peek();
        state.iter().filter(|call| call.method == Method::GET && call.path == LEASE).count() >= 3
    })
    .await;
    assert!(server.get(BUNDLE).is_none(), "it only looks");
    first.stop().await;
    until("the second leads", || holder(server) == "second/10.0.0.7").await;
    until("the second has reconciled", || server.get(BUNDLE).is_some()).await;
    second.stop().await;
    assert_eq!(holder(server), "", "given back");
}

#[tokio::test]
async fn a_process_that_never_reached_the_api_server_can_be_stopped() {
    let server = Server::default();
    for _ in 0..1000 {
        server.fail(Method::GET, KEYS, 503);
    }
    let process = Process::start(&server, "first");
    until("it has asked", || !server.peek().is_empty()).await;
    assert!(!process.task.is_finished());
    process.stop().await;
}
