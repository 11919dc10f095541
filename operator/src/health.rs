//! Whether the process is ready, and if not, what it waits for.
//!
//! Each part of the process holds a [`Pending`] until it can do its work; dropping it says so. Liveness is a different
//! question with its own path: a process that waits for something must not be restarted for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};

use crate::http_server::text;

/// What the process still waits for.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// Something the process waits for, until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the part is ready"]
pub struct Pending {
    readiness: Readiness,
    part: &'static str,
}

impl Readiness {
    /// Not ready before the returned value is dropped.
    pub fn wait_for(&self, part: &'static str) -> Pending {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(part);
        Pending { readiness: self.clone(), part }
    }

    /// What is waited for; empty: ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<&'static str> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Answers the probes: `/livez`, `/readyz`.
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str) -> Response<Bytes> {
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/livez") => text(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => {
                let waiting = self.waiting();
                if waiting.is_empty() {
                    text(StatusCode::OK, "ok\n")
                } else {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", ")))
                }
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// The same, for a request.
    #[must_use]
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        self.answer(request.method(), request.uri().path())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_waited_for_and_alive_all_along() {
        let readiness = Readiness::default();
        let caches = readiness.wait_for("caches");
        let certificate = readiness.wait_for("certificate");
        let answer = readiness.answer(&Method::GET, "/readyz");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.body(), "waiting for: caches, certificate\n");
        assert_eq!(readiness.answer(&Method::GET, "/livez").status(), StatusCode::OK);
        drop(caches);
        assert_eq!(readiness.answer(&Method::GET, "/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(certificate);
        assert_eq!(readiness.answer(&Method::GET, "/readyz").status(), StatusCode::OK);
        assert_eq!(readiness.answer(&Method::GET, "/other").status(), StatusCode::NOT_FOUND);
        assert_eq!(readiness.answer(&Method::POST, "/readyz").status(), StatusCode::NOT_FOUND);
    }
}
