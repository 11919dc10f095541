//! What the operator counts. Labels come from closed lists, never from objects.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Prefix of every name.
const PREFIX: &str = "behalf_operator";

/// A kind that is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Kind {
    /// `AgentIdentity`.
    AgentIdentity,
    /// `ScopeCatalog`.
    ScopeCatalog,
    /// `IdentityProvider`.
    IdentityProvider,
}

/// What the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Object {
    /// A bundle.
    Bundle,
    /// Counts.
    Counts,
    /// A status.
    Status,
    /// An Event.
    Event,
    /// The webhook configuration's authority.
    WebhookConfiguration,
    /// The parameters of the admission policies.
    AdmissionParameters,
    /// The keys that sign bundles.
    SigningKeys,
    /// The serving certificate and its authority.
    Certificates,
}

/// How an admission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verdict {
    /// Behalf was put in.
    Injected,
    /// The pod does not concern us.
    Skipped,
    /// The pod was refused.
    Refused,
    /// The question could not be read.
    Unreadable,
}

/// Labels of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconciled {
    /// What was reconciled.
    pub kind: Kind,
    /// `Ok`, or the reason of the error.
    pub outcome: &'static str,
}

/// Labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Written {
    /// What was written.
    pub object: Object,
}

/// Labels of an admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Admitted {
    /// How it ended.
    pub verdict: Verdict,
}

/// Labels of a request to the feed, or of a report handed on to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Fed {
    /// `Ok`, or the reason of the refusal.
    pub outcome: &'static str,
}

/// The counts of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciliations.
    pub reconciles: Family<Reconciled, Counter>,
    /// Seconds a reconciliation took.
    pub reconcile_seconds: Histogram,
    /// Writes to the API server.
    pub writes: Family<Written, Counter>,
    /// Admissions.
    pub admissions: Family<Admitted, Counter>,
    /// Seconds an admission took.
    pub admission_seconds: Histogram,
    /// When the serving certificate expires, in seconds since 1970.
    pub certificate_expiry: Gauge,
    /// Requests to the feed.
    pub feed: Family<Fed, Counter>,
    /// Reports handed on to the leader.
    pub relays: Family<Fed, Counter>,
    /// Objects waiting to be reconciled.
    pub queue: Gauge<u64, AtomicU64>,
    /// Watches that failed and were started again.
    pub watch_failures: Counter,
    /// Whether this replica holds the Lease: 1 or 0.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]);
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            reconciles: Family::default(),
            reconcile_seconds: seconds(),
            writes: Family::default(),
            admissions: Family::default(),
            admission_seconds: seconds(),
            certificate_expiry: Gauge::default(),
            feed: Family::default(),
            relays: Family::default(),
            queue: Gauge::default(),
            watch_failures: Counter::default(),
            leader: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("reconciles", "Reconciliations by kind and outcome", metrics.reconciles.clone());
        registry.register_with_unit(
            "reconcile",
            "Time a reconciliation took",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register("writes", "Writes to the API server", metrics.writes.clone());
        registry.register("admissions", "Admissions by verdict", metrics.admissions.clone());
        registry.register_with_unit(
            "admission",
            "Time an admission took",
            Unit::Seconds,
            metrics.admission_seconds.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the serving certificate expires",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        registry.register("feed_requests", "Requests to the feed by outcome", metrics.feed.clone());
        registry.register(
            "feed_relays",
            "Reports handed on to the leader by outcome",
            metrics.relays.clone(),
        );
        registry.register("queue_length", "Objects waiting to be reconciled", metrics.queue.clone());
        registry.register("watch_failures", "Watches that failed", metrics.watch_failures.clone());
        registry.register("leader", "Whether this replica holds the Lease", metrics.leader.clone());
        metrics
    }
}

impl Metrics {
    /// Counts a write.
    pub fn wrote(&self, object: Object) {
        self.writes.get_or_create(&Written { object }).inc();
    }

    /// Counts a request to the feed.
    pub fn fed(&self, outcome: &'static str) {
        self.feed.get_or_create(&Fed { outcome }).inc();
    }

    /// Counts a report handed on to the leader.
    pub fn relayed(&self, outcome: &'static str) {
        self.relays.get_or_create(&Fed { outcome }).inc();
    }

    /// Counts an admission.
    pub fn admitted(&self, verdict: Verdict) {
        self.admissions.get_or_create(&Admitted { verdict }).inc();
    }

    /// Everything as `OpenMetrics` text.
    ///
    /// # Errors
    /// A value cannot be written; none of ours.
    pub fn encode(&self) -> Result<String, Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_prefix_and_unit_and_labels_are_words() {
        let metrics = Metrics::default();
        metrics.wrote(Object::Bundle);
        metrics.admitted(Verdict::Refused);
        metrics.reconciles.get_or_create(&Reconciled { kind: Kind::AgentIdentity, outcome: "Ok" }).inc();
        let text = metrics.encode().unwrap();
        for line in [
            "behalf_operator_writes_total{object=\"Bundle\"} 1",
            "behalf_operator_admissions_total{verdict=\"Refused\"} 1",
            "behalf_operator_reconciles_total{kind=\"AgentIdentity\",outcome=\"Ok\"} 1",
            "# UNIT behalf_operator_certificate_expiry_timestamp_seconds seconds",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
