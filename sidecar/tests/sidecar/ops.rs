//! Probes, metrics, drain.

use std::time::Duration;

use behalf_policy::probe::{Probe, Scheme};
use behalf_sidecar::app::App;
use behalf_sidecar::clock::Clock;
use behalf_sidecar::config::ProbeTable;
use http_body_util::BodyExt as _;

use crate::support::bundle::Operator;
use crate::support::world::{config, directory};
use crate::support::{Call, Reply, Server, World};

#[tokio::test]
async fn a_moved_probe_is_performed_as_declared_and_tells_its_status_only() {
    let server = Server::start().await;
    server.behave(|seen| {
        assert_eq!(seen.header("x-probe"), Some("1"));
        let status = if seen.target == "/healthz?full=1" { 204 } else { 500 };
        Some(Reply::new(status, "text/plain", "secret").header("x-secret", "1"))
    });
    let http = |path: &str, port| Probe::Http {
        port,
        path: path.to_owned(),
        scheme: Scheme::Http,
        headers: vec![("X-Probe".to_owned(), "1".to_owned())],
    };
    let mut config = config(&Operator::new(), directory());
    config.probes = ProbeTable(
        [
            ("mcp/readiness".to_owned(), http("/healthz?full=1", server.port)),
            ("mcp/liveness".to_owned(), http("/bad", server.port)),
            ("mcp/startup".to_owned(), Probe::Tcp { port: server.port }),
            ("away/startup".to_owned(), Probe::Tcp { port: 1 }),
            ("away/liveness".to_owned(), http("/", 1)),
        ]
        .into(),
    );
    let app = App::start(config, std::io::sink(), Clock::system()).await.unwrap();
    for (key, status) in [
        ("mcp/readiness", 204),
        ("mcp/liveness", 500),
        ("mcp/startup", 200),
        ("away/startup", 503),
        ("away/liveness", 503),
        ("mcp/other", 404),
        ("", 404),
    ] {
        let answer = Call::get(&format!("/probe/{key}")).send(app.addresses.probe).await;
        assert_eq!(answer.status, status, "{key}");
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("x-secret"), None);
    }
    assert_eq!(Call::get("/livez").send(app.addresses.probe).await.status, 200);
    assert_eq!(Call::get("/metrics").send(app.addresses.probe).await.status, 404);
    app.drain(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn metrics_count_what_records_say_and_name_nobody() {
    let world = World::start().await;
    world.send(Call::tool("directory.search").token(&world.alice())).await;
    world.send(Call::tool("salary.get").token(&world.bob())).await;
    world.records().await;
    let text = world.metrics().await;
    for line in [
        "behalf_sidecar_decisions_total{direction=\"Inbound\",decision=\"Permit\",reason=\"\"} 1",
        "behalf_sidecar_decisions_total{direction=\"Inbound\",decision=\"Refuse\",reason=\"NotEntitled\"} 1",
        "behalf_sidecar_bundle_serial 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for name in ["alice", "bob", "salary", "agent-ui", "localhost"] {
        assert!(!text.contains(name), "{name}");
    }
    world.stop().await;
}

#[tokio::test]
async fn c30_a_drain_lets_open_calls_end_and_takes_no_new_ones() {
    let world = World::start().await;
    let (sender, receiver) = std::sync::mpsc::channel();
    world.server.behave(move |_| {
        let (reply, events) = Reply::stream();
        sender.send(events).unwrap();
        Some(reply)
    });
    let (inbound, probe) = (world.app.addresses.inbound, world.app.addresses.probe);
    let answer = Call::tool("directory.search").token(&world.alice()).start(inbound).await;
    let events = receiver.recv().unwrap();
    let draining = tokio::spawn(world.app.drain(Duration::from_mins(1)));
    crate::support::eventually("not ready", async || {
        let answer = Call::get("/readyz").send(probe).await;
        (answer.status == 503 && answer.body.starts_with(b"pending: draining")).then_some(())
    })
    .await;
    crate::support::eventually("nothing is accepted", async || {
        tokio::net::TcpStream::connect(inbound).await.is_err().then_some(())
    })
    .await;
    assert!(!draining.is_finished());
    events.unbounded_send("data: last\n\n").unwrap();
    drop(events);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "data: last\n\n");
    draining.await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&Operator::new(), directory());
    config.inbound_address = taken.local_addr().unwrap();
    let error = App::start(config, std::io::sink(), Clock::system()).await.unwrap_err();
    assert!(error.to_string().starts_with("PortSquatted: inbound"), "{error}");
}
