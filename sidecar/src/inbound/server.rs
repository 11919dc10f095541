//! The socket of the inbound side: HTTP/1.1 and HTTP/2, bounded in every direction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use behalf_policy::framing::FramingRefusal;
use behalf_policy::record::Direction;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Inbound;
use super::body::{AnswerBody, full};
use super::connection::{Connection, Security};
use super::route::request_id;
use crate::drain::Draining;
use crate::feed::Prover;
use crate::framed::Requests;
use crate::tls::{Accepted, Secured, Tls};

/// Connections at once; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// The head of a request arrives within this time.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The header block of a request is no larger than this many bytes (D26).
const MAX_HEADERS: usize = 64 * 1024;

/// Serves callers of one socket until the drain starts; connections then end with their open calls.
///
/// A challenge to prove who answers here is answered before anything else: see [`Prover`].
pub async fn serve(
    listener: TcpListener,
    inbound: Arc<Inbound>,
    prover: Arc<Prover>,
    mut draining: Draining,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = draining.started() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: one that is freed lets the next be accepted.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small frames of an event stream must not wait for each other.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (inbound, prover, draining) = (Arc::clone(&inbound), Arc::clone(&prover), draining.clone());
        tokio::spawn(async move {
            let tls = inbound.tls.clone();
            let service = Served { inbound, prover, peer, draining };
            match tls {
                None => {
                    service.connection(stream, Security::Elsewhere, builder(), std::future::pending()).await;
                }
                Some(tls) => service.secured(stream, tls).await,
            }
            drop(place);
        });
    }
}

/// What serves one connection.
struct Served {
    inbound: Arc<Inbound>,
    prover: Arc<Prover>,
    peer: SocketAddr,
    draining: Draining,
}

impl Served {
    /// Performs the handshake and serves by the protocol that was agreed on. What comes in the clear is told so; only who
    /// answers here is said there, too, which the operator asks without a certificate of its own.
    async fn secured(mut self, stream: TcpStream, tls: Tls) {
        let asked = tls.asks();
        let accepted = tokio::select! {
            accepted = tls.accept(stream, asked) => accepted,
            () = self.draining.started() => return,
        };
        match accepted {
            Ok(Accepted::Secured(secured)) => {
                let Secured { stream, protocol, client } = *secured;
                let builder = match protocol.as_deref() {
                    Some(b"h2") => builder().http2_only(),
                    Some(b"http/1.1") => builder().http1_only(),
                    _ => builder(),
                };
                let otherwise = tls.clone();
                let stale = async move { otherwise.asks_otherwise(asked).await };
                self.connection(stream, Security::Tls(tls, client), builder, stale).await;
            }
            Ok(Accepted::Plain(stream)) => {
                let mut builder = builder().http1_only();
                builder.http1().keep_alive(false);
                self.connection(stream, Security::Lacking, builder, std::future::pending()).await;
            }
            Err(error) => tracing::debug!(%error, "a caller's connection did not come about"),
        }
    }

    /// Serves the requests of a connection until it ends, the drain starts, or it is `stale`; then those that are open.
    async fn connection<S>(
        self,
        stream: S,
        security: Security,
        builder: Builder<TokioExecutor>,
        stale: impl Future<Output = ()> + Send,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { inbound, prover, peer, mut draining } = self;
        let known = Connection { peer, security, draining: draining.clone() };
        let calls = Arc::clone(&inbound);
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            known.mark(request.extensions_mut());
            let inbound = Arc::clone(&calls);
            let proof = prover.answer(&request, peer);
            async move {
                match proof {
                    Some((status, proof)) => Ok(plain(status, proof)),
                    None => inbound.handle(request).await,
                }
            }
        });
        let stream = Requests::or_http2(stream);
        let why = stream.why();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let over = async {
            tokio::select! {
                () = draining.started() => {}
                () = stale => {}
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            let malformed = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
            if malformed {
                inbound.record_malformed(why.get()).await;
            }
            tracing::debug!(%error, "a caller's connection ended early");
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEADERS)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(64 * 1024)
        .max_pending_accept_reset_streams(Some(20))
        .max_local_error_reset_streams(Some(100))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

impl Inbound {
    /// What is no HTTP request is answered by the HTTP library, and recorded here.
    async fn record_malformed(&self, why: Option<FramingRefusal>) {
        let id = request_id().unwrap_or_default();
        let mut record = self.audit.blank(Direction::Inbound, &id);
        record.reason = Some(why.map_or("HttpMalformed", FramingRefusal::reason));
        record.status = 400;
        if self.audit.record(record).await.is_err() {
            tracing::error!("a decision record was lost with its sink");
        }
    }
}
