//! The egress listener: HTTP/1.1 on loopback, with limits.

use std::sync::Arc;
use std::time::Duration;

use behalf_policy::framing::FramingRefusal;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::refusal::Refusal;
use super::request::MAX_HEAD;
use super::{Outbound, request_id};
use crate::framed::Requests;
use crate::provider::http::{BoxError, OutgoingBody};
use crate::recording::{NotRecorded, Recording, Unanswered, verb};

/// So many connections are open at once.
const MAX_CONNECTIONS: usize = 1024;
/// No head has more header fields than this.
const MAX_FIELDS: usize = 128;
/// A head must be whole within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the way out until it is dropped; then its connections end. The listener must be on loopback.
pub async fn serve(listener: TcpListener, outbound: Arc<Outbound>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Whoever is not of this pod has no business here, whatever the listener was bound to.
                Ok((_, peer)) if !peer.ip().is_loopback() => {}
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {
                    tracing::warn!("a connection of the server was dropped: too many are open");
                }
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&outbound)))),
                Err(error) => {
                    tracing::warn!(%error, "a connection of the server could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, outbound: Arc<Outbound>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let outbound = Arc::clone(&outbound);
        async move { answer(outbound, request).await }
    });
    let stream = Requests::new(stream);
    let why = stream.why();
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served
        && error.is_parse()
    {
        // It was answered by the parser; it is recorded here, as every request is.
        let mut recording = Recording::outbound(&outbound.audit, &request_id());
        let reason = why.get().map_or("MalformedRequest", FramingRefusal::reason);
        recording.decision("Refuse", Some(reason));
        let too_large = error.is_parse_too_large();
        let status =
            if too_large { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        if recording.finish(status).await.is_err() {
            tracing::error!("a decision record was lost with its sink");
        }
    }
}

async fn answer(
    outbound: Arc<Outbound>,
    request: Request<Incoming>,
) -> Result<Response<OutgoingBody>, Unanswered> {
    // Whatever follows a chunked body on this connection is not trusted to be a request of its own.
    let mut last = request.headers().contains_key(TRANSFER_ENCODING);
    let mut recording = Recording::outbound(&outbound.audit, &request_id());
    recording.trace(request.headers());
    recording.method(format!("HTTP {}", verb(request.method())), None);
    let mut response = match outbound.answer(request, &mut recording).await {
        Ok(response) => response,
        Err(refusal) => {
            if refusal.after_permit() {
                recording.reason(refusal.reason());
            } else {
                recording.decision("Refuse", Some(refusal.reason()));
            }
            // After a request that was no good in itself, nothing on its connection is taken for another.
            last |= matches!(refusal, Refusal::Request(_));
            whole(refusal)
        }
    };
    match recording.finish(response.status()).await {
        Ok(()) => {}
        Err(NotRecorded::Told) => response = whole(Refusal::NotRecorded),
        Err(NotRecorded::Unanswered(none)) => return Err(none),
    }
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn whole(refusal: Refusal) -> Response<OutgoingBody> {
    refusal.response().map(|bytes| Full::new(bytes).map_err(BoxError::from).boxed_unsync())
}
