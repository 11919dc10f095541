//! Probes and hooks of the pod's own containers, moved by the webhook to our probe port.
//!
//! The webhook writes the declared probes as one JSON argument of the sidecar; kubelet asks
//! `/probe/<container>/<kind>` on [`crate::wire::PROBE_PORT`] and the sidecar performs exactly the declared
//! one over loopback and returns its status, nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The declared probes by `<container>/<kind>`.
pub type Probes = BTreeMap<String, Probe>;

/// One declared probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// An HTTP GET.
    Http {
        /// Port on loopback.
        port: u16,
        /// Path and query as declared.
        path: String,
        /// `HTTP` or `HTTPS`; as kubelet does, a certificate is not verified.
        scheme: Scheme,
        /// Declared headers.
        headers: Vec<(String, String)>,
    },
    /// A TCP connect.
    Tcp {
        /// Port on loopback.
        port: u16,
    },
    /// The standard health check of gRPC (`grpc.health.v1.Health/Check`), without TLS, as kubelet performs it.
    Grpc {
        /// Port on loopback.
        port: u16,
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
}

impl Probe {
    /// The port that is asked.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } | Self::Grpc { port, .. } => *port,
        }
    }
}

/// Scheme of an HTTP probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS, certificate not verified.
    Https,
}

/// What the probe is for; part of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `startupProbe`.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
    /// `lifecycle.postStart.httpGet`.
    PostStart,
    /// `lifecycle.preStop.httpGet`.
    PreStop,
}

impl Kind {
    /// As it stands in the path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
            Self::PostStart => "post-start",
            Self::PreStop => "pre-stop",
        }
    }
}

/// Whether what stands in [`Probes`] under `key` is a lifecycle hook. Of its answer kubelet minds no status, only whether
/// there was one.
#[must_use]
pub fn is_hook(key: &str) -> bool {
    let kind = key.rsplit_once('/').map(|(_, kind)| kind);
    [Kind::PostStart, Kind::PreStop].into_iter().any(|hook| kind == Some(hook.as_str()))
}

/// Key of a probe in [`Probes`].
#[must_use]
pub fn key(container: &str, kind: Kind) -> String {
    format!("{container}/{}", kind.as_str())
}

/// Path kubelet asks for it.
#[must_use]
pub fn path(container: &str, kind: Kind) -> String {
    format!("{}{}", crate::wire::PROBE_PATH_PREFIX, key(container, kind))
}
