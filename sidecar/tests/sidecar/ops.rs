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
    let (inbound, probe) = (world.app.addresses.inbound, world.app.addresses.probe);
    let (answer, events) = world.open(Call::tool("directory.search").token(&world.alice())).await;
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
async fn an_address_that_is_not_ours_ends_the_start_and_is_named() {
    let mut config = config(&Operator::new(), directory());
    config.metrics_addresses = vec!["192.0.2.1:0".parse().unwrap()];
    let error = App::start(config, std::io::sink(), Clock::system()).await.unwrap_err();
    assert_eq!(error.to_string(), "metrics cannot listen on 192.0.2.1:0");
}

/// A sidecar that performs these probes.
async fn probing(probes: impl IntoIterator<Item = (&'static str, Probe)>) -> App {
    let mut config = config(&Operator::new(), directory());
    config.probes = ProbeTable(probes.into_iter().map(|(key, probe)| (key.to_owned(), probe)).collect());
    App::start(config, std::io::sink(), Clock::system()).await.unwrap()
}

fn plain(port: u16, path: &str) -> Probe {
    Probe::Http { port, path: path.to_owned(), scheme: Scheme::Http, headers: Vec::new() }
}

#[tokio::test]
async fn a_probe_follows_redirects_within_the_pod_and_no_others() {
    let server = Server::start().await;
    let port = server.port;
    server.behave(move |seen| {
        assert_eq!(seen.header("accept"), Some("*/*"));
        assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("kube-probe/")));
        let to = match seen.target.as_str() {
            "/relative" => "/bad",
            "/absolute" => {
                return Some(
                    Reply::new(301, "", "").header("location", format!("http://127.0.0.1:{port}/good")),
                );
            }
            "/away" => "http://192.0.2.1/good",
            "/ours" => "http://127.0.0.1:15102/good",
            "/round" => "/round",
            "/scheme" => "ftp://127.0.0.1/good",
            "/nowhere" => return Some(Reply::new(302, "", "")),
            "/good" => return Some(Reply::new(200, "", "")),
            _ => return Some(Reply::new(500, "", "")),
        };
        Some(Reply::new(302, "", "").header("location", to))
    });
    let cases = [
        ("a/startup", "/relative", 500),
        ("a/readiness", "/absolute", 200),
        ("a/liveness", "/away", 302),
        ("b/startup", "/ours", 302),
        ("b/readiness", "/round", 503),
        ("b/liveness", "/scheme", 503),
        ("c/startup", "/nowhere", 302),
    ];
    let app = probing(cases.map(|(key, path, _)| (key, plain(port, path)))).await;
    for (key, path, status) in cases {
        let answer = Call::get(&format!("/probe/{key}")).send(app.addresses.probe).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("location"), None);
    }
    app.drain(Duration::from_secs(1)).await;
}

/// Answers health checks by the name of the service asked about; what `sent` got of them is the whole request.
async fn health_server() -> u16 {
    use bytes::Bytes;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    async fn check(
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<
        http::Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>,
        std::convert::Infallible,
    > {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!((request.method(), request.version()), (&http::Method::POST, http::Version::HTTP_2));
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let service =
            asked.get(7..).map(|name| String::from_utf8(name.to_vec()).unwrap()).unwrap_or_default();
        let (message, status): (&[u8], &str) = match service.as_str() {
            "" | "hr" => (&[0, 0, 0, 0, 2, 8, 1], "0"),
            "down" => (&[0, 0, 0, 0, 2, 8, 2], "0"),
            "silent" => (&[0, 0, 0, 0, 0], "0"),
            "failed" => (&[0, 0, 0, 0, 2, 8, 1], "13"),
            "cut" => (&[0, 0, 0, 0, 2, 8], "0"),
            _ => {
                let body = Full::new(Bytes::new()).boxed();
                return Ok(http::Response::builder().header("grpc-status", "5").body(body).unwrap());
            }
        };
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::copy_from_slice(message))), Ok(Frame::trailers(trailers))];
        Ok(http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed()))
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(check);
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

#[tokio::test]
async fn a_grpc_probe_asks_for_its_service_and_takes_nothing_but_serving() {
    let port = health_server().await;
    let plain_http = Server::start().await;
    let grpc = |port, service: &str| Probe::Grpc { port, service: service.to_owned() };
    let cases = [
        ("a/startup", grpc(port, ""), 200),
        ("a/readiness", grpc(port, "hr"), 200),
        ("a/liveness", grpc(port, "down"), 503),
        ("b/startup", grpc(port, "silent"), 503),
        ("b/readiness", grpc(port, "failed"), 503),
        ("b/liveness", grpc(port, "cut"), 503),
        ("c/startup", grpc(port, "unknown"), 503),
        ("c/readiness", grpc(plain_http.port, ""), 503),
        ("c/liveness", grpc(1, ""), 503),
    ];
    let app = probing(cases.clone().map(|(key, probe, _)| (key, probe))).await;
    for (key, probe, status) in cases {
        let answer = Call::get(&format!("/probe/{key}")).send(app.addresses.probe).await;
        assert_eq!(answer.status, status, "{probe:?}");
        assert!(answer.body.is_empty());
    }
    app.drain(Duration::from_secs(1)).await;
}

/// Kubelet minds no status of a hook, only whether there was an answer.
#[tokio::test]
async fn a_hook_that_gets_no_answer_gives_none() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let server = Server::start().await;
    server.behave(|_| Some(Reply::new(500, "text/plain", "secret")));
    let app = probing([
        ("mcp/pre-stop", plain(server.port, "/stop")),
        ("away/pre-stop", plain(1, "/stop")),
        ("away/post-start", plain(1, "/start")),
        ("away/liveness", plain(1, "/")),
    ])
    .await;
    for (key, answer) in [
        ("mcp/pre-stop", "HTTP/1.1 500"),
        ("away/liveness", "HTTP/1.1 503"),
        ("away/pre-stop", ""),
        ("away/post-start", ""),
    ] {
        let mut stream = tokio::net::TcpStream::connect(app.addresses.probe).await.unwrap();
        let request = format!("GET /probe/{key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said.get(..answer.len()), Some(answer), "{key}: {said}");
        assert_eq!(said.is_empty(), answer.is_empty(), "{key}: {said}");
    }
    app.drain(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_probe_of_our_own_ports_is_none() {
    for port in [0, 15101, 15102, 15103, 15104] {
        for probe in [Probe::Tcp { port }, plain(port, "/"), Probe::Grpc { port, service: String::new() }] {
            let mut config = config(&Operator::new(), directory());
            config.probes = ProbeTable([("mcp/liveness".to_owned(), probe)].into());
            let error = App::start(config, std::io::sink(), Clock::system()).await.unwrap_err();
            assert!(format!("{error:#} {error:?}").contains("mcp/liveness"), "{error:?}");
        }
    }
}
