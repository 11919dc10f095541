//! What kubelet and Prometheus ask.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::health::Readiness;
use crate::http_server::{Handler, respond, text};
use crate::metrics::Metrics;

pub(super) struct Probes(pub(super) Readiness);

impl Handler for Probes {
    async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.0.respond(&request)
    }
}

pub(super) struct Scrapes(pub(super) Arc<Metrics>);

impl Handler for Scrapes {
    async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        if request.method() != Method::GET || request.uri().path() != "/metrics" {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        let open_metrics =
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        match self.0.encode() {
            Ok(body) => respond(StatusCode::OK, open_metrics, body.into()),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot be written\n"),
        }
    }
}
