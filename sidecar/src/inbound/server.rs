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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Inbound;
use super::body::{AnswerBody, full};
use super::route::{Peer, request_id};
use crate::drain::Draining;
use crate::feed::Prover;
use crate::framed::Requests;

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
        let (inbound, prover, draining) = (Arc::clone(&inbound), Arc::clone(&prover), draining.clone());
        tokio::spawn(async move {
            serve_connection(stream, peer, inbound, prover, draining).await;
            drop(place);
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    inbound: Arc<Inbound>,
    prover: Arc<Prover>,
    mut draining: Draining,
) {
    // Small frames of an event stream must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let builder = builder();
    let (calls, ending) = (Arc::clone(&inbound), draining.clone());
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        request.extensions_mut().insert(ending.clone());
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
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.started() => {
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
