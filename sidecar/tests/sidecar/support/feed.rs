//! The operator's feed, as far as a sidecar can tell: TLS, reports taken, answers held.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::bundle::signed::SignedBundle;
use behalf_policy::feed::{Answer, FORMAT, Report, Share};
use behalf_policy::ids::EntryName;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{World, eventually};

/// One report as it came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) authorization: Option<String>,
    pub(crate) report: Report,
}

/// What the feed answers.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// Offered to whoever reports another.
    offer: Option<SignedBundle>,
    /// Told to whoever reports that it has others.
    shares: Option<BTreeMap<EntryName, Share>>,
    /// Instead of any answer.
    status: Option<u16>,
    /// Instead of an answer with status 200.
    body: Option<&'static str>,
}

pub(crate) struct Feed {
    pub(crate) origin: String,
    pub(crate) ca: String,
    posts: Arc<Mutex<Vec<Post>>>,
    answers: watch::Sender<Answers>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    pub(crate) async fn start() -> Self {
        let (ca, acceptor) = super::tls::localhost();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let posts = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen) = watch::channel(Answers::default());
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&posts), seen));
        Self { origin, ca, posts, answers, task }
    }

    /// A document that names this feed.
    pub(crate) fn document(&self, serial: u64, world: &World) -> Value {
        let mut document = super::bundle::document(serial, &world.issuer, world.server.port);
        document["feed"] = serde_json::json!({"origin": self.origin, "caBundle": self.ca});
        document
    }

    /// Offers these bytes from now on, at once also to whoever waits.
    pub(crate) fn offer(&self, bytes: &[u8]) {
        let offer = serde_json::from_slice(bytes).unwrap();
        self.answers.send_modify(|answers| answers.offer = Some(offer));
    }

    /// Offers nothing from now on.
    pub(crate) fn offer_nothing(&self) {
        self.answers.send_modify(|answers| answers.offer = None);
    }

    /// Gives these shares of rate limits from now on, at once also to whoever waits.
    pub(crate) fn share(&self, shares: Option<BTreeMap<EntryName, Share>>) {
        self.answers.send_modify(|answers| answers.shares = shares);
    }

    /// Answers with this status from now on; `None` for as usual.
    pub(crate) fn status(&self, status: Option<u16>) {
        self.answers.send_modify(|answers| answers.status = status);
    }

    /// Answers with this body from now on; `None` for as usual.
    pub(crate) fn body(&self, body: Option<&'static str>) {
        self.answers.send_modify(|answers| answers.body = body);
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Option<Report> {
        self.posts().pop().map(|post| post.report)
    }

    /// Waits until the latest report is one of which this holds.
    pub(crate) async fn says(&self, what: &str, check: impl Fn(&Report) -> bool) -> Report {
        eventually(what, async || self.last().filter(|report| check(report))).await
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    posts: Arc<Mutex<Vec<Post>>>,
    answers: watch::Receiver<Answers>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, posts, answers) = (acceptor.clone(), Arc::clone(&posts), answers.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let (posts, answers) = (Arc::clone(&posts), answers.clone());
                async move { Ok::<_, Infallible>(answered(request, &posts, answers).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answered(
    request: Request<Incoming>,
    posts: &Mutex<Vec<Post>>,
    mut answers: watch::Receiver<Answers>,
) -> Response<Full<Bytes>> {
    let (parts, incoming) = request.into_parts();
    assert_eq!((parts.method, parts.uri.path()), (Method::POST, "/v1/feed"));
    assert_eq!(parts.headers["content-type"], "application/json");
    let Ok(body) = incoming.collect().await else { return Response::default() };
    // Whatever a test does, a report is within its bounds.
    let report = Report::parse(&body.to_bytes()).expect("a report within its bounds");
    let authorization = parts.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
    let runs = report.bundle.as_ref().map(|running| running.digest.clone());
    let (ended, has) = (report.ended, report.rate_limits.clone());
    let other = |shares: &BTreeMap<EntryName, Share>| {
        has.iter().any(|(name, it)| shares.contains_key(name) && it.share.as_ref() != shares.get(name))
    };
    posts.lock().unwrap().push(Post { authorization, report });
    let news = |answers: &Answers| {
        let offer = answers.offer.as_ref().filter(|offer| Some(digest_of(offer)) != runs);
        answers.status.is_some()
            || answers.body.is_some()
            || offer.is_some()
            || ended
            || answers.shares.as_ref().is_some_and(other)
    };
    let until = tokio::time::timeout(Duration::from_secs(2), answers.wait_for(news)).await;
    let now = until.ok().and_then(Result::ok).map(|answers| answers.clone()).unwrap_or_default();
    if let Some(status) = now.status {
        return Response::builder().status(status).body(Full::default()).unwrap();
    }
    if let Some(body) = now.body {
        return Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    }
    let bundle = now.offer.filter(|offer| Some(digest_of(offer)) != runs);
    let answer = serde_json::to_vec(&Answer { format: FORMAT, bundle, shares: now.shares }).unwrap();
    Response::new(Full::new(Bytes::from(answer)))
}

fn digest_of(offer: &SignedBundle) -> String {
    let payload = STANDARD.decode(&offer.payload).unwrap_or_default();
    digest(&SHA256, &payload).as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
