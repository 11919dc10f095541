//! A TLS server on loopback that answers as a test tells it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Collected, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a test answers.
pub enum Reply {
    Whole(Response<Bytes>),
    /// Chunks, each sent by itself.
    Chunks(Vec<Bytes>),
    /// One byte, and then nothing more.
    Trickle,
    /// Nothing, ever.
    Hang,
}

impl Reply {
    pub fn text(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let response = Response::builder().status(status).header("content-type", kind);
        Self::Whole(response.body(body.into()).unwrap())
    }

    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Whole(response) if response.status() == 200)
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }
}

/// A certificate for the names that tests use, and who serves it.
pub fn tls() -> (String, TlsAcceptor) {
    let names = ["localhost", "payroll.hr.svc"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

type Handler = Arc<dyn Fn(Seen) -> Reply + Send + Sync>;

/// The server; ends when dropped.
pub struct Fake {
    pub port: u16,
    pub ca: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Mutex<Handler>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(handler: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        let (ca, tls) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Arc::new(handler)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, tls, Arc::clone(&handler), Arc::clone(&seen)));
        Self { port, ca, seen, handler, task }
    }

    pub fn answer_with(&self, handler: impl Fn(Seen) -> Reply + Send + Sync + 'static) {
        *self.handler.lock().unwrap() = Arc::new(handler);
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Requests of this path so far.
    pub fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|s| s.target == path).count()
    }

    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    handler: Arc<Mutex<Handler>>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    // Connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, handler, seen) = (tls.clone(), Arc::clone(&handler), Arc::clone(&seen));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                async move { Ok::<_, Infallible>(answer(request, handler, seen).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Mutex<Handler>>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        body: body.collect().await.map(Collected::to_bytes).unwrap_or_default(),
    };
    log.lock().unwrap().push(seen.clone());
    let handler = Arc::clone(&handler.lock().unwrap());
    match handler(seen) {
        Reply::Whole(response) => response.map(|b| Full::new(b).boxed_unsync()),
        Reply::Chunks(chunks) => {
            let stream = futures::stream::iter(chunks).then(|chunk| async move {
                // Another turn for the connection, so that chunks leave one by one.
                tokio::task::yield_now().await;
                Ok(Frame::data(chunk))
            });
            let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
            *response.status_mut() = StatusCode::OK;
            response
        }
        Reply::Trickle => {
            let first = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"{"))) });
            Response::new(StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync())
        }
        Reply::Hang => std::future::pending().await,
    }
}
