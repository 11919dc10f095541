//! No answer without its record: mixed requests against a real sidecar in strict mode, whose process is killed and whose
//! disk is filled in between, counted by joining what clients, the server and the records say.
//!
//! Needs root, for a disk of its own. `BEHALF_RECORDS_CALLS` says how many requests are made.

mod joined;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use self::joined::judge;
use crate::support::bundle::{IDENTITY, NAMESPACE, Operator, SERVER, document};
use crate::support::disk::Disk;
use crate::support::world::directory;
use crate::support::{Alg, Issuer, eventually, issuer};

/// Requests without the variable.
const CALLS: usize = 5_000;
/// Requests under way at the same time.
const AT_ONCE: usize = 16;
/// Requests between two disturbances.
const BETWEEN: usize = 500;
/// Small, so that it is used up now and then.
const RESERVE: u64 = 64 * 1024;

/// What a client knows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// This status, and the request id that came with it.
    Answer(u16, String),
    /// The same, and that the disk of the records is full.
    Full(String),
    /// The connection ended without an answer.
    Nothing,
}

struct Run {
    inbound: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
    disk: Disk,
    seen: Mutex<BTreeMap<usize, Seen>>,
    next: AtomicUsize,
    calls: usize,
    /// Requests that ended, and among them those that were refused because the disk is full.
    ended: AtomicUsize,
    refused: AtomicUsize,
    tokens: [String; 2],
}

impl Run {
    fn start_sidecar(&self) -> Child {
        let log = std::fs::File::options().append(true).create(true).open(&self.log).unwrap();
        Command::new(env!("CARGO_BIN_EXE_behalf-sidecar"))
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// The n-th request: seven kinds, by turns.
    fn request(&self, n: usize) -> Request<Full<Bytes>> {
        let [alice, bob] = &self.tokens;
        let call = |tool: &str| {
            json!({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
                .to_string()
        };
        let (method, path, token, body) = match n % 7 {
            0 => (Method::POST, "/mcp", Some(alice), call("salary.get")),
            1 => (Method::POST, "/mcp", Some(alice), call("directory.search")),
            2 => (Method::POST, "/mcp", Some(bob), call("salary.get")),
            3 => (Method::POST, "/mcp", None, call("directory.search")),
            4 => (Method::POST, "/mcp", Some(alice), "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\"".to_owned()),
            5 => (Method::GET, "/nothing", None, String::new()),
            _ => (Method::POST, "/mcp", Some(bob), call("leave.list")),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.inbound))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("traceparent", format!("00-{}-00f067aa0ba902b7-01", trace(n)));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    }

    async fn client(&self) {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        loop {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            if n >= self.calls {
                return;
            }
            let seen = loop {
                let answer = match client.request(self.request(n)).await {
                    Ok(answer) => answer,
                    // Nothing was sent: the sidecar is not there.
                    Err(error) if error.is_connect() => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    Err(_) => {
                        // As a client does that comes back later.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        break Seen::Nothing;
                    }
                };
                let status = answer.status().as_u16();
                let id = answer.headers().get("behalf-request-id").map(|id| id.to_str().unwrap().to_owned());
                let Ok(body) = answer.into_body().collect().await else { break Seen::Nothing };
                let (id, body): (_, Value) =
                    (id.unwrap(), serde_json::from_slice(&body.to_bytes()).unwrap_or_default());
                if body["error"]["data"]["reason"] == "RecordsUnavailable" {
                    assert_eq!(status, 503);
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    // As a client does that is told to come back.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    break Seen::Full(id);
                }
                break Seen::Answer(status, id);
            };
            self.seen.lock().unwrap().insert(n, seen);
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Kills and fills by turns, until all requests are made. Gives how often each was done.
    async fn disturb(&self, mut sidecar: Child) -> (Child, [usize; 3]) {
        let mut done = [0; 3];
        for turn in 1..self.calls.div_ceil(BETWEEN) {
            eventually_long("requests go on", || self.next.load(Ordering::SeqCst) >= turn * BETWEEN).await;
            let (kill, fill) = [(true, false), (false, true), (true, true)][turn % 3];
            done[turn % 3] += 1;
            if fill {
                self.disk.fill();
                let before = self.refused.load(Ordering::SeqCst);
                let goes_on = || self.next.load(Ordering::SeqCst) < self.calls;
                eventually_long("requests are refused", || {
                    self.refused.load(Ordering::SeqCst) >= before + 20 || !goes_on()
                })
                .await;
            }
            if kill {
                // SIGKILL: nothing is flushed, nothing is told.
                sidecar.kill().await.unwrap();
                sidecar = self.start_sidecar();
                let before = self.ended.load(Ordering::SeqCst);
                eventually_long("requests go on", || {
                    self.ended.load(Ordering::SeqCst) >= before + 20
                        || self.next.load(Ordering::SeqCst) >= self.calls
                })
                .await;
            }
            if fill {
                self.disk.free();
            }
        }
        (sidecar, done)
    }
}

async fn eventually_long(what: &str, check: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The trace id of the n-th request.
fn trace(n: usize) -> String {
    format!("{:032x}", n + 1)
}

/// Remembers which requests it was sent.
async fn server(listener: TcpListener, seen: Arc<Mutex<Vec<String>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        stream.set_nodelay(true).unwrap();
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let trace = request.headers()["traceparent"].to_str().unwrap()[3..35].to_owned();
                    seen.lock().unwrap().push(trace);
                    let Ok(body) = request.into_body().collect().await else {
                        return Ok::<_, Infallible>(Response::new(Full::default()));
                    };
                    let message: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
                    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": {}}).to_string();
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
                    Ok(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_no_request_is_lost_or_doubled_by_kills_and_a_full_disk() {
    let calls = std::env::var("BEHALF_RECORDS_CALLS").map_or(CALLS, |n| n.parse().unwrap());
    let (issuer, operator, dir) = (Issuer::start().await, Operator::new(), directory());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let reached = Arc::new(Mutex::new(Vec::new()));
    let serving = tokio::spawn(server(listener, Arc::clone(&reached)));
    operator.publish(&dir, &document(1, &issuer, port));
    let inbound = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let disk = Disk::new(dir.join("disk"));
    let file = disk.0.join("records.jsonl");
    let token = |change: fn(&mut Value)| {
        let mut claims = issuer.claims(SERVER);
        claims["exp"] = (issuer::now() + 3600).into();
        change(&mut claims);
        issuer.sign(Alg::EdDsa, &claims)
    };
    let bob = token(|claims| {
        claims["sub"] = "bob".into();
        claims["groups"] = json!(["staff"]);
    });
    let run = Arc::new(Run {
        inbound,
        arguments: [
            "run".to_owned(),
            format!("--namespace={NAMESPACE}"),
            format!("--identity={IDENTITY}"),
            format!("--bundle-key={}", operator.public().to_argument()),
            format!("--bundle-dir={}", dir.display()),
            format!("--inbound-address={inbound}"),
            "--egress-address=127.0.0.1:0".to_owned(),
            "--probe-address=127.0.0.1:0".to_owned(),
            "--metrics-address=127.0.0.1:0".to_owned(),
            "--allow-loopback-destinations".to_owned(),
            "--record-mode=strict".to_owned(),
            "--record-stdout=false".to_owned(),
            format!("--record-file={}", file.display()),
            "--record-file-bytes=4000000".to_owned(),
            "--record-files=999".to_owned(),
            format!("--record-reserve-bytes={RESERVE}"),
        ]
        .into(),
        log: dir.join("sidecar.log"),
        disk,
        seen: Mutex::default(),
        next: AtomicUsize::new(0),
        calls,
        ended: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        tokens: [token(|_| {}), bob],
    });
    let began = std::time::Instant::now();
    let sidecar = run.start_sidecar();
    let clients: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let run = Arc::clone(&run);
            tokio::spawn(async move { run.client().await })
        })
        .collect();
    let (mut sidecar, done) = run.disturb(sidecar).await;
    for client in clients {
        client.await.unwrap();
    }
    let took = began.elapsed();
    // A clean end.
    let pid = rustix::process::Pid::from_raw(i32::try_from(sidecar.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(sidecar.wait().await.unwrap().success());
    serving.abort();

    let reached = reached.lock().unwrap().clone();
    judge(&run, &reached, took, done);
    drop(run);
    eventually("the disk is gone", async || std::fs::remove_dir_all(&dir).ok()).await;
}
