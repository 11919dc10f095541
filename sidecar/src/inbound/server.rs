//! The socket of the inbound side: HTTP/1.1 and HTTP/2, bounded in every direction.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use behalf_policy::record::Direction;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Inbound;
use super::route::request_id;
use crate::drain::Draining;

/// Connections at once; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// The head of a request arrives within this time.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The header block of a request is no larger than this many bytes (D26).
const MAX_HEADERS: usize = 64 * 1024;

/// Serves callers until the drain starts; connections then end with their open calls.
pub async fn serve(listener: TcpListener, inbound: Arc<Inbound>, mut draining: Draining) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = draining.started() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: one that is freed lets the next be accepted.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (inbound, draining) = (Arc::clone(&inbound), draining.clone());
        tokio::spawn(async move {
            serve_connection(stream, inbound, draining).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: TcpStream, inbound: Arc<Inbound>, mut draining: Draining) {
    // Small frames of an event stream must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let builder = builder();
    let calls = Arc::clone(&inbound);
    let service = service_fn(move |request| {
        let inbound = Arc::clone(&calls);
        async move { Ok::<_, Infallible>(inbound.handle(request).await) }
    });
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
            inbound.record_malformed().await;
        }
        tracing::debug!(%error, "a caller's connection ended early");
    }
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
    async fn record_malformed(&self) {
        let id = request_id().unwrap_or_default();
        let mut record = self.audit.blank(Direction::Inbound, &id);
        record.reason = Some("HttpMalformed");
        record.status = 400;
        if self.audit.record(record).await.is_err() {
            tracing::error!("a decision record was lost with its sink");
        }
    }
}
