//! How the writing of records goes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts what does not go as it should.
#[derive(Debug, Default)]
pub struct RecordMetrics {
    failing: Gauge,
    unrecorded: Counter,
    not_exported: Counter,
}

impl RecordMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "1 while records cannot be written and requests are refused";
        registry.register("records_failing", help, metrics.failing.clone());
        let help = "Decisions for whose records there was no room while they could not be written";
        registry.register("records_unrecorded", help, metrics.unrecorded.clone());
        let help = "Records that were not delivered as OTLP logs";
        registry.register("records_not_exported", help, metrics.not_exported.clone());
        metrics
    }

    /// Records cannot be written, or can again.
    pub fn failing(&self, failing: bool) {
        self.failing.set(i64::from(failing));
    }

    /// There was no room for a record.
    pub fn unrecorded(&self) {
        self.unrecorded.inc();
    }

    /// So many lines were not delivered as OTLP logs.
    pub fn not_exported(&self, lines: u64) {
        self.not_exported.inc_by(lines);
    }
}
