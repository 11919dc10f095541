//! Issuer, server and sidecar, wired together.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_policy::ids::Timestamp;
use behalf_policy::record::{Options, SCHEMA, Source, verify};
use behalf_sidecar::app::App;
use behalf_sidecar::clock::ManualClock;
use behalf_sidecar::config::{Config, ProbeTable};
use behalf_sidecar::provider::http::sha256;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::bundle::{IDENTITY, NAMESPACE, Operator, SERVER, document};
use super::server::Events;
use super::{Alg, Answer, Call, Feed, Issuer, Server, eventually, issuer};

/// Where the sidecar writes its records.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) server: Server,
    pub(crate) operator: Operator,
    pub(crate) dir: PathBuf,
    pub(crate) app: App,
    pub(crate) clock: ManualClock,
    sink: Sink,
    sent: AtomicUsize,
}

impl World {
    /// Everything up, in stage `Enforce`.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Everything up, with a change to the policy part of the bundle.
    pub(crate) async fn with(change: impl FnOnce(&mut Value)) -> Self {
        let world = Self::without_bundle().await;
        let mut document = document(1, &world.issuer, world.server.port);
        change(&mut document["serve"]);
        world.publish(&document).await;
        world
    }

    /// Everything up, with a feed in the bundle.
    pub(crate) async fn with_feed(feed: &Feed) -> Self {
        let world = Self::without_bundle().await;
        world.give_feed_token("feed-token-1");
        world.publish(&feed.document(1, &world)).await;
        world
    }

    /// Puts the token for the feed where kubelet would.
    pub(crate) fn give_feed_token(&self, token: &str) {
        let new = self.dir.join("feed-token-new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(&new, self.dir.join("feed-token")).unwrap();
    }

    /// Puts a key of the deny list where kubelet would; `None` takes it away.
    pub(crate) fn deny(&self, key: &str, value: Option<&[u8]>) {
        let dir = self.dir.join("deny");
        std::fs::create_dir_all(&dir).unwrap();
        let Some(value) = value else { return std::fs::remove_file(dir.join(key)).unwrap() };
        std::fs::write(dir.join(".new"), value).unwrap();
        std::fs::rename(dir.join(".new"), dir.join(key)).unwrap();
    }

    /// No bundle yet.
    pub(crate) async fn without_bundle() -> Self {
        Self::configured(|_| {}).await
    }

    /// No bundle yet, and other arguments than usual.
    pub(crate) async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let issuer = Issuer::start().await;
        let server = Server::start().await;
        let operator = Operator::new();
        let dir = directory();
        let sink = Sink::default();
        let clock = ManualClock::at(Timestamp(issuer::now()));
        let mut config = config(&operator, dir.clone());
        change(&mut config);
        let app = App::start(config, sink.clone(), clock.clock()).await.unwrap();
        Self { issuer, server, operator, dir, app, clock, sink, sent: AtomicUsize::new(0) }
    }

    /// Another process in the place of this one, with the same bundle.
    pub(crate) async fn restart(&mut self) {
        let config = config(&self.operator, self.dir.clone());
        self.app = App::start(config, self.sink.clone(), self.clock.clock()).await.unwrap();
    }

    /// Publishes a bundle and waits until the sidecar runs by it.
    pub(crate) async fn publish(&self, document: &Value) {
        self.operator.publish(&self.dir, document);
        let serial = document["serial"].as_u64().unwrap();
        let line = format!("behalf_sidecar_bundle_serial {serial}");
        eventually("the bundle is taken", async || self.metrics().await.contains(&line).then_some(())).await;
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = Call::get("/metrics").send(self.app.addresses.metrics).await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    pub(crate) async fn ready(&self) -> (u16, String) {
        let answer = Call::get("/readyz").send(self.app.addresses.probe).await;
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }

    pub(crate) async fn send(&self, call: Call) -> Answer {
        self.sent.fetch_add(1, Ordering::SeqCst);
        call.send(self.app.addresses.inbound).await
    }

    /// One more request was sent, by another way.
    pub(crate) fn count_one(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// A call whose answer is an event stream that goes on until what feeds it is dropped.
    pub(crate) async fn open(&self, call: Call) -> (Response<Incoming>, Events) {
        let streams = self.server.stream_next();
        let call = tokio::spawn(call.start(self.app.addresses.inbound));
        let events = eventually("the server has the request", async || streams.try_recv().ok()).await;
        // The head of a call's stream waits for the first bytes.
        events.unbounded_send(": open\n\n").unwrap();
        let mut answer = call.await.unwrap();
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, ": open\n\n");
        (answer, events)
    }

    /// A call whose answer is slow and no event stream: it goes on until what feeds it is dropped.
    pub(crate) async fn open_slow(&self, call: Call) -> (Response<Incoming>, Events) {
        let answers = self.server.slow_next();
        let answer = call.start(self.app.addresses.inbound).await;
        (answer, answers.recv().unwrap())
    }

    /// A token of alice, who is a manager.
    pub(crate) fn alice(&self) -> String {
        self.token(|_| {})
    }

    /// A token of bob, who is not.
    pub(crate) fn bob(&self) -> String {
        self.token(|claims| {
            claims["sub"] = "bob".into();
            claims["jti"] = "token-2".into();
            claims["groups"] = serde_json::json!(["staff"]);
        })
    }

    pub(crate) fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.issuer.claims(SERVER);
        change(&mut claims);
        self.issuer.sign(Alg::Es256, &claims)
    }

    /// Records so far, once there are as many as requests were sent.
    pub(crate) async fn records(&self) -> Vec<Value> {
        let sent = self.sent.load(Ordering::SeqCst);
        self.records_of(sent).await
    }

    /// Records so far, once there are at least so many.
    pub(crate) async fn records_of(&self, count: usize) -> Vec<Value> {
        eventually("the records are written", async || {
            let records = self.lines();
            (records.len() >= count).then_some(records)
        })
        .await
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.sink.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        decisions(whole)
    }

    pub(crate) async fn last_record(&self) -> Value {
        self.records().await.pop().unwrap()
    }

    /// Ends the sidecar and checks what must hold whatever a test did: one record for each request, in
    /// sequence, and no secret in any of them.
    pub(crate) async fn stop(self) -> Vec<Value> {
        let sent = self.sent.load(Ordering::SeqCst);
        let whole = self.app.drain(Duration::from_secs(20)).await;
        assert!(whole, "no call was open any more, and the drain did not end");
        let text = self.sink.text();
        assert!(!text.contains(".eyJ") && !text.contains("behalf_"), "a secret was recorded");
        let bytes = text.as_bytes();
        let verdict = verify(&[Source { name: "log", bytes }], &[], Options::default(), sha256);
        assert!(verdict.holds() && verdict.chains.iter().all(|chain| chain.ended), "{verdict:?}");
        let records = decisions(&text);
        assert_eq!(records.len(), sent, "one record for each request: {text}");
        for (at, record) in records.iter().enumerate() {
            assert_eq!(record["sequence"], at + 1);
            assert_eq!(record["boot"], records[0]["boot"]);
            assert_eq!(record["schema"], "behalf.dev/record/v1");
            assert_eq!(record["direction"], "Inbound");
            assert_ne!(record["status"], 0);
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
        records
    }
}

/// The decisions among the lines of a log.
pub(crate) fn decisions(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["schema"] == SCHEMA).collect()
}

/// A directory of its own under the target directory.
pub(crate) fn directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("sidecar-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub(crate) fn config(operator: &Operator, bundle_dir: PathBuf) -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    Config {
        namespace: NAMESPACE.to_owned(),
        identity: IDENTITY.to_owned(),
        pod_name: String::new(),
        pod_addresses: Vec::new(),
        deny_dir: bundle_dir.join("deny"),
        feed_token_file: bundle_dir.join("feed-token"),
        tls_dir: None,
        bundle_dir,
        bundle_keys: vec![operator.public()],
        nameservers: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        probes: ProbeTable::default(),
        inbound_addresses: vec![any],
        egress_addresses: vec![any],
        probe_addresses: vec![any],
        metrics_addresses: vec![any],
        records: behalf_sidecar::audit::Options::default(),
        proofs: behalf_sidecar::dpop::Capacity::default(),
        drain_seconds: 20,
        allow_loopback_destinations: true,
        log: "info".to_owned(),
    }
}
