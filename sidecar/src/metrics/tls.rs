//! How TLS at the inbound port goes.

use behalf_policy::ids::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{OutcomeLabel, ReasonLabel};

/// Tells of the certificate and counts handshakes.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    not_after: Gauge,
    expired: Gauge,
    rejections: Family<ReasonLabel, Counter>,
    handshakes: Family<OutcomeLabel, Counter>,
}

impl TlsMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "When the certificate that is served ends, in seconds since 1970; 0 without one";
        registry.register_with_unit(
            "tls_certificate_not_after",
            help,
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        let help = "1 while the certificate that is served has ended";
        registry.register("tls_certificate_expired", help, metrics.expired.clone());
        let help = "Certificates that were not taken";
        registry.register("tls_certificate_rejections", help, metrics.rejections.clone());
        let help = "Connections to the inbound port where the sidecar terminates TLS";
        registry.register("tls_handshakes", help, metrics.handshakes.clone());
        metrics
    }

    /// Another certificate is served with.
    pub fn taken(&self, not_after: Timestamp) {
        self.not_after.set(not_after.0);
    }

    /// Whether it has ended.
    pub fn expired(&self, expired: bool) {
        self.expired.set(i64::from(expired));
    }

    /// One was not taken, for a closed reason.
    pub fn rejected(&self, reason: &'static str) {
        self.rejections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// What became of a connection: a closed word.
    pub fn handshake(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
