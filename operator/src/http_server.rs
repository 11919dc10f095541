//! An HTTP server with bounds: one listener, optional TLS, bodies up to a limit, a graceful end.
//!
//! Used for the webhook, the feed, the probes and the metrics; what they answer is theirs.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The API server sends objects of at most 3 MiB, and with an update the old one too.
const MAX_BODY: usize = 7 * 1024 * 1024;
/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a request may take to arrive.
const READ: Duration = Duration::from_secs(10);
/// How long open requests may take after the stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The answer. The body was read already.
    fn handle(&self, request: Request<Bytes>) -> impl Future<Output = Response<Bytes>> + Send;
}

/// A listener that is bound already, so that a taken port is noticed at start.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
}

/// What a server takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one request's body, bytes.
    pub body: usize,
    /// Connections at a time; more wait.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: MAX_BODY, connections: MAX_CONNECTIONS }
    }
}

impl Server {
    /// Binds a port without TLS.
    ///
    /// # Errors
    /// The port is taken or not ours to take.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, tls: None, limits: Limits::default() })
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(mut self, config: ServerConfig) -> Self {
        self.tls = Some(Arc::new(config));
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop, then lets open requests end.
    pub async fn serve<H: Handler>(self, handler: H, stop: CancellationToken) {
        let (handler, acceptor) = (Arc::new(handler), self.tls.map(TlsAcceptor::from));
        let (limits, places) = (self.limits, Arc::new(Semaphore::new(self.limits.connections)));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else { continue };
            let (handler, acceptor, watcher) = (Arc::clone(&handler), acceptor.clone(), graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                match acceptor {
                    None => connection(stream, handler, limits, watcher).await,
                    Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => connection(stream, handler, limits, watcher).await,
                        Ok(Err(error)) => tracing::debug!(error = %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    },
                }
            });
        }
        drop(self.listener);
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(error = %error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_RETRY).await;
            None
        }
    }
}

async fn connection<S, H>(
    stream: S,
    handler: Arc<H>,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(request, &*handler, limits).await.map(Full::new)) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(READ);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
    let serving = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!(error = %error, "connection ended");
    }
}

async fn answer<H: Handler>(request: Request<Incoming>, handler: &H, limits: Limits) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(READ, Limited::new(body, limits.body).collect()).await {
        Ok(Ok(body)) => handler.handle(Request::from_parts(head, body.to_bytes())).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large\n")
        }
        Ok(Err(_)) => text(StatusCode::BAD_REQUEST, "the request could not be read\n"),
        Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
    }
}

/// A plain text answer.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    respond(status, HeaderValue::from_static("text/plain; charset=utf-8"), body.into())
}

/// An answer with one content type.
#[must_use]
pub fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
