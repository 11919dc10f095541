//! What kubelet and Prometheus ask of the sidecar, on ports of their own: readiness, liveness, the moved
//! probes of the pod's containers, metrics. Nothing here is reachable through the inbound port.

mod probe;
mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use behalf_policy::wire::PROBE_PATH_PREFIX;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
pub use probe::{NoAnswer, Prober, ProberError};
pub use readiness::{Block, Readiness};
use tokio::net::TcpListener;

use crate::bundle_source::Bundles;
use crate::feed::Prover;
use crate::metrics::Metrics;
use crate::tls::Tls;

/// What the probe port answers from.
#[derive(Debug)]
pub struct Probes {
    /// What is pending.
    pub readiness: Readiness,
    /// Whether the newest bundle seen was rejected.
    pub bundles: Bundles,
    /// TLS of the inbound port, where the sidecar terminates it.
    pub tls: Option<Tls>,
    /// The moved probes.
    pub prober: Prober,
    /// Proves that it is this sidecar who answers.
    pub prover: Arc<Prover>,
}

/// Serves the probe port until the process ends.
pub async fn serve_probes(listener: TcpListener, probes: Arc<Probes>) {
    serve(listener, move |request, peer| {
        let probes = Arc::clone(&probes);
        async move { probes.answer(&request, peer).await }
    })
    .await;
}

/// Serves the metrics port until the process ends.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>) {
    serve(listener, move |request, _| {
        let metrics = Arc::clone(&metrics);
        async move {
            Ok(match (request.method(), request.uri().path()) {
                (&Method::GET, "/metrics") => {
                    let mut response = text(StatusCode::OK, metrics.text());
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                    response
                }
                _ => text(StatusCode::NOT_FOUND, String::new()),
            })
        }
    })
    .await;
}

impl Probes {
    async fn answer(
        &self,
        request: &Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, NoAnswer> {
        if let Some((status, proof)) = self.prover.answer(request, peer) {
            return Ok(text(status, proof));
        }
        if request.method() != Method::GET {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, String::new()));
        }
        Ok(match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            path => match path.strip_prefix(PROBE_PATH_PREFIX) {
                Some(key) => text(self.prober.probe(key).await?, String::new()),
                None => text(StatusCode::NOT_FOUND, String::new()),
            },
        })
    }

    /// A rejected bundle does not make the sidecar unready while it serves by an older one; it is named, and so is what
    /// the namespace denies, without a name of anybody.
    fn ready(&self) -> Response<Full<Bytes>> {
        let pending = self.readiness.pending();
        let mut body = String::new();
        for name in &pending {
            body.push_str("pending: ");
            body.push_str(name);
            body.push('\n');
        }
        if let Some(error) = self.bundles.rejection() {
            body.push_str("BundleRejected: ");
            body.push_str(error.reason());
            body.push('\n');
        }
        if let Some(concern) = self.tls.as_ref().and_then(Tls::concern) {
            body.push_str("tls: ");
            body.push_str(concern);
            body.push('\n');
        }
        if let Some(active) = self.bundles.current().filter(|active| !active.bundle.deny.is_empty()) {
            body.push_str("denied by namespace: ");
            body.push_str(&active.bundle.deny.to_string());
            body.push('\n');
        }
        if pending.is_empty() {
            body.push_str("ready\n");
            text(StatusCode::OK, body)
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, NoAnswer>> + Send + 'static,
{
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            // An error ends the connection without an answer.
            let service = service_fn(move |request| answer(request, peer));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to an admin port ended early");
            }
        });
    }
}
