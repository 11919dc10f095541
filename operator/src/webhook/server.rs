//! The webhook over HTTPS: `POST /mutate`, and the probes, so that whoever checks the Service learns both at once.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::mutate::Mutate;
use crate::health::Readiness;
use crate::http_server::{Handler, respond, text};
use crate::metrics::Metrics;
use std::sync::Arc;
use tokio::time::Instant;

/// Path of the mutating webhook.
pub const MUTATE: &str = "/mutate";

/// Answers the API server.
#[derive(Clone)]
pub struct Webhook {
    /// Answers reviews.
    pub mutate: Mutate,
    /// Answers probes.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Handler for Webhook {
    async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, MUTATE) if is_json(&request) => {
                let started = Instant::now();
                let answer = self.mutate.review(request.body()).await;
                self.metrics.admission_seconds.observe(started.elapsed().as_secs_f64());
                match answer {
                    Ok(body) => {
                        respond(StatusCode::OK, HeaderValue::from_static("application/json"), body.into())
                    }
                    Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
                }
            }
            (&Method::POST, MUTATE) => text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json\n"),
            (_, MUTATE) => text(StatusCode::METHOD_NOT_ALLOWED, "send POST\n"),
            _ => self.readiness.respond(&request),
        }
    }
}

fn is_json(request: &Request<Bytes>) -> bool {
    let media = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}
