//! The sidecar's way out between a provider, a payroll API and raw requests, all over real sockets.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use behalf_policy::bundle::signed::{PublicKey, seal};
use behalf_policy::record::Mode;
use behalf_sidecar::admin::Readiness;
use behalf_sidecar::audit::{Audit, Options};
use behalf_sidecar::bundle_source::{BundleSource, Bundles, Expected, Source as _};
use behalf_sidecar::handles::{Handles, OpenHandle};
use behalf_sidecar::outbound::{Outbound, serve};
use behalf_sidecar::provider::dial::Network;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::fake::{Fake, Reply, Seen};
use crate::idp::{Asking, Idp, call, caller, claims, network};

#[derive(Clone, Default)]
pub(crate) struct Lines(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes so many writes, then none.
struct Breaking {
    lines: Lines,
    writes: usize,
}

impl Write for Breaking {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
        self.lines.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) idp: Idp,
    pub(crate) payroll: Fake,
    pub(crate) asking: Asking,
    pub(crate) handles: Handles,
    pub(crate) audit: Audit,
    pub(crate) lines: Lines,
    pub(crate) egress: SocketAddr,
    pub(crate) source: BundleSource,
    pub(crate) signer: Ed25519KeyPair,
    pub(crate) dir: PathBuf,
    pub(crate) serial: u64,
    pub(crate) server: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A change of the bundle.
pub(crate) type Change = fn(&mut Value);

/// The payroll API: says what it saw.
#[allow(clippy::needless_pass_by_value, reason = "the shape of a handler")]
pub(crate) fn says_what_it_saw(seen: Seen) -> Reply {
    let headers: serde_json::Map<String, Value> = seen
        .headers
        .iter()
        .filter(|(name, _)| *name != "authorization")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let authorization = seen.headers.get("authorization").map(|v| v.to_str().unwrap());
    let bearer =
        authorization.and_then(|v| v.strip_prefix("Bearer ")).filter(|t| t.matches('.').count() == 2);
    Reply::json(
        200,
        &json!({"method": seen.method.as_str(), "target": seen.target, "headers": headers,
        "claims": bearer.map(claims), "own": authorization.filter(|_| bearer.is_none()),
        "body": String::from_utf8_lossy(&seen.body)}),
    )
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The connection ended before the body did.
    pub(crate) cut: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl Fn(&mut Value)) -> Self {
        Self::on(&network(), change).await
    }

    /// With a way to the network of its own.
    pub(crate) async fn on(network: &Network, change: impl Fn(&mut Value)) -> Self {
        Self::recorded(network, Mode::Relaxed, usize::MAX, change).await
    }

    /// With records that are held to this, and a sink that breaks after so many writes.
    pub(crate) async fn recorded(
        network: &Network,
        mode: Mode,
        writes: usize,
        change: impl Fn(&mut Value),
    ) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("behalf-out-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (idp, payroll, asking) =
            (Idp::start().await, Fake::start(says_what_it_saw).await, Asking::by(network));
        let signer = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey { id: "a".into(), bytes: signer.public_key().as_ref().try_into().unwrap() };
        let expected = Expected { namespace: "hr".into(), identity: "hr-tools".into(), keys: vec![key] };
        let (bundles, handles, lines) = (Bundles::empty(), Handles::new(), Lines::default());
        let clock = asking.clock.clock();
        let metrics = Arc::clone(&asking.metrics);
        let options = Options { mode, ..Options::default() };
        let sink = Breaking { lines: lines.clone(), writes };
        let audit =
            Audit::with(&options, sink, "hr", "hr-tools", clock.clone(), Arc::clone(&metrics)).unwrap().audit;
        let pending = Readiness::new().block("bundle");
        let source = BundleSource::new(&dir, expected, bundles.clone(), metrics, pending);
        let outbound = Outbound::new(
            bundles,
            handles.clone(),
            asking.exchanger.clone(),
            asking.http.clone(),
            audit.clone(),
            clock,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let egress = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(outbound)));
        let mut world = Self {
            idp,
            payroll,
            asking,
            handles,
            audit,
            lines,
            egress,
            source,
            signer,
            dir,
            serial: 0,
            server,
        };
        world.publish(change).await;
        world
    }

    pub(crate) async fn publish(&mut self, change: impl Fn(&mut Value)) {
        self.serial += 1;
        let document = self.idp.document(|d| {
            d["serial"] = json!(self.serial);
            d["serve"]["downstreams"][0]["url"] = json!(self.payroll.url("/api"));
            d["serve"]["downstreams"][0]["caBundle"] = json!(self.payroll.ca);
            change(d);
        });
        let payload = serde_json::to_vec(&document).unwrap();
        let signed =
            seal(&payload, |input| vec![("a".to_owned(), self.signer.sign(input).as_ref().to_vec())]);
        let new = self.dir.join("new");
        std::fs::write(&new, serde_json::to_vec(&signed).unwrap()).unwrap();
        std::fs::rename(new, self.dir.join(behalf_policy::wire::BUNDLE_KEY)).unwrap();
        self.source.look().await;
    }

    pub(crate) fn open(&self, who: &str) -> OpenHandle {
        self.handles.open(call(&caller(who), &self.idp.login(who, 1))).unwrap()
    }

    pub(crate) async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.egress).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await;
        let broken = read.expect("an answer and the end of the connection").is_err();
        parse(&bytes, broken)
    }

    /// A request whose connection ends after the answer.
    pub(crate) async fn ask(&self, line: &str, headers: &str) -> Answer {
        self.raw(&format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:15102\r\nConnection: close\r\n{headers}\r\n"))
            .await
    }

    pub(crate) async fn get(&self, path: &str, handle: &str) -> Answer {
        self.ask(&format!("GET {path}"), &format!("Authorization: Bearer {handle}\r\n")).await
    }

    pub(crate) async fn records(&self) -> Vec<Value> {
        self.audit.flush().await;
        let bytes = self.lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|line| line["schema"] == behalf_policy::record::SCHEMA).collect()
    }

    pub(crate) async fn last(&self) -> Value {
        self.records().await.pop().expect("a record")
    }
}

pub(crate) fn parse(bytes: &[u8], broken: bool) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut rest = bytes.get(end + 4..).unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    let mut cut = broken;
    if lower.contains("transfer-encoding: chunked") {
        loop {
            let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else {
                cut = true;
                break;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            let Some(chunk) = rest.get(line + 2..line + 2 + size) else {
                cut = true;
                break;
            };
            body.extend_from_slice(chunk);
            rest = rest.get(line + 4 + size..).unwrap_or_default();
        }
    } else {
        body.extend_from_slice(rest);
        let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        cut |= length.is_some_and(|length| body.len() < length);
    }
    Answer { status, head, body, cut }
}
