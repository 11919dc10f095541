//! The whole sidecar between a caller, a server that calls its downstream, a provider and the downstream.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::bundle::signed::seal;
use behalf_policy::ids::Timestamp;
use behalf_policy::record::SCHEMA;
use behalf_sidecar::app::App;
use behalf_sidecar::clock::ManualClock;
use behalf_sidecar::config::Config;
use bytes::Bytes;
use clap::{Args as _, Command, FromArgMatches as _};
use futures::channel::mpsc;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fake::Fake;
use crate::idp::{CLIENT, Idp, NOW};
use crate::world::{Lines, says_what_it_saw};

/// What the server makes of a call.
#[derive(Clone)]
pub(crate) struct Does {
    /// Content type of its answer.
    pub(crate) kind: &'static str,
    /// What it has sent before it calls anybody; empty: its head alone.
    pub(crate) early: Option<&'static str>,
    /// Paths it calls on the way out, one after the other.
    pub(crate) calls: &'static [&'static str],
    /// Status and body of its answer, after the statuses that it got.
    pub(crate) answers: fn(&[u16]) -> (u16, String),
}

pub(crate) const JSON: Does =
    Does { kind: "application/json", early: None, calls: &["/payroll/x"], answers: tool_error };
pub(crate) const EVENTS: Does = Does { kind: "text/event-stream", answers: event_error, ..JSON };

pub(crate) fn tool_error(_: &[u16]) -> (u16, String) {
    let result = json!({"isError": true, "content": [{"type": "text", "text": "payroll said no"}]});
    (200, json!({"jsonrpc": "2.0", "id": 7, "result": result}).to_string())
}

pub(crate) fn event_error(statuses: &[u16]) -> (u16, String) {
    (200, format!("event: message\ndata: {}\n\n", tool_error(statuses).1))
}

pub(crate) fn success(_: &[u16]) -> (u16, String) {
    (200, json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [], "isError": false}}).to_string())
}

/// A whole answer to the caller.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Told {
    pub(crate) fn challenge(&self) -> Option<&str> {
        self.headers.get("www-authenticate").map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) struct Whole {
    pub(crate) idp: Idp,
    pub(crate) payroll: Fake,
    pub(crate) clock: ManualClock,
    pub(crate) app: App,
    does: Arc<Mutex<Does>>,
    lines: Lines,
    server: JoinHandle<()>,
    dir: PathBuf,
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Whole {
    pub(crate) async fn start(change: impl FnOnce(&mut Value)) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("behalf-whole-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (idp, payroll) = (Idp::start().await, Fake::start(says_what_it_saw).await);
        let does = Arc::new(Mutex::new(JSON));
        let egress = Arc::new(Mutex::new(String::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, Arc::clone(&does), Arc::clone(&egress)));
        let signer = Ed25519KeyPair::generate().unwrap();
        let document = idp.document(|d| {
            d["serve"]["servers"][0]["port"] = json!(port);
            for downstream in [0, 1] {
                d["serve"]["downstreams"][downstream]["url"] = json!(payroll.url("/api"));
                d["serve"]["downstreams"][downstream]["caBundle"] = json!(payroll.ca);
            }
            change(d);
        });
        let payload = serde_json::to_vec(&document).unwrap();
        let sealed = seal(&payload, |input| vec![("a".to_owned(), signer.sign(input).as_ref().to_vec())]);
        let bundle = dir.join(behalf_policy::wire::BUNDLE_KEY);
        std::fs::write(bundle, serde_json::to_vec(&sealed).unwrap()).unwrap();
        let key = STANDARD.encode(signer.public_key());
        let (clock, lines) = (ManualClock::at(Timestamp(NOW)), Lines::default());
        let app = App::start(config(&dir, &key), lines.clone(), clock.clock()).await.unwrap();
        *egress.lock().unwrap() = format!("http://{}", app.addresses.egress);
        Self { idp, payroll, clock, app, does, lines, server, dir }
    }

    pub(crate) fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    /// A token that was made at this moment of the clock.
    pub(crate) fn token(&self, who: &str, at: i64) -> String {
        self.idp.key.sign(&json!({"iss": self.idp.issuer(), "sub": who, "aud": CLIENT, "azp": "agent-ui",
            "jti": format!("{who}-{at}"), "iat": NOW + at, "exp": NOW + 900, "groups": ["staff", "managers"],
            "scope": "hr:read hr:salary:read"}))
    }

    /// A `tools/call` of `salary.get`.
    pub(crate) async fn call(&self, token: &str) -> Told {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": "salary.get", "arguments": {}}});
        self.send(Method::POST, "/mcp", token, message.to_string()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, token: &str, body: String) -> Told {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.app.addresses.inbound))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Told { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Decisions so far, once there are so many.
    pub(crate) async fn records(&self, count: usize) -> Vec<Value> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let bytes = self.lines.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let records: Vec<_> = lines.filter(|line| line["schema"] == SCHEMA).collect();
            if records.len() >= count {
                return records;
            }
            assert!(tokio::time::Instant::now() < deadline, "never so many records: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The arguments that a run on one machine has.
fn config(dir: &Path, key: &str) -> Config {
    let dir = dir.to_str().unwrap();
    let key = format!("a={key}");
    let mut arguments = vec!["behalf-sidecar", "--namespace", "hr", "--identity", "hr-tools"];
    arguments.extend(["--bundle-dir", dir, "--deny-dir", "/nowhere", "--bundle-key", &key]);
    for socket in ["--inbound-address", "--egress-address", "--probe-address", "--metrics-address"] {
        arguments.extend([socket, "127.0.0.1:0"]);
    }
    arguments.push("--allow-loopback-destinations");
    let command = Config::augment_args(Command::new("sidecar"));
    Config::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

type Body = BoxBody<Bytes, Infallible>;

async fn serve(listener: TcpListener, does: Arc<Mutex<Does>>, egress: Arc<Mutex<String>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (does, egress) = (Arc::clone(&does), Arc::clone(&egress));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (does, egress) = (does.lock().unwrap().clone(), egress.lock().unwrap().clone());
                async move { Ok::<_, Infallible>(answer(request, does, egress).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, does: Does, egress: String) -> Response<Body> {
    let (head, body) = request.into_parts();
    body.collect().await.unwrap();
    let handle = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let call = async move {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut statuses = Vec::new();
        for path in does.calls {
            let request = Request::builder()
                .uri(format!("{egress}{path}"))
                .header("authorization", handle.clone().unwrap_or_default())
                .body(Full::default())
                .unwrap();
            let answer = client.request(request).await.unwrap();
            statuses.push(answer.status().as_u16());
            answer.into_body().collect().await.unwrap();
        }
        (does.answers)(&statuses)
    };
    let response = Response::builder().header("content-type", does.kind);
    let Some(early) = does.early else {
        let (status, body) = call.await;
        return response.status(status).body(Full::new(Bytes::from(body)).boxed()).unwrap();
    };
    let (sender, frames) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    if !early.is_empty() {
        sender.unbounded_send(Ok(Frame::data(Bytes::from_static(early.as_bytes())))).unwrap();
    }
    tokio::spawn(async move {
        let (_, body) = call.await;
        // The caller may have left.
        let _ = sender.unbounded_send(Ok(Frame::data(Bytes::from(body))));
    });
    response.body(BoxBody::new(StreamBody::new(frames))).unwrap()
}
