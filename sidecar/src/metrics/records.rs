//! How the writing of records goes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts what does not go as it should.
#[derive(Debug, Default)]
pub struct RecordMetrics {
    failing: Gauge,
    unrecorded: Counter,
    unanswered: Counter,
    reserve: Gauge,
    not_exported: Counter,
}

impl RecordMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "1 while records cannot be written and requests are refused";
        registry.register("records_failing", help, metrics.failing.clone());
        let help = "Decisions for whose records there was no room while they could not be written";
        registry.register("records_unrecorded", help, metrics.unrecorded.clone());
        let help = "Requests that got no answer because their records could not be written";
        registry.register("records_unanswered", help, metrics.unanswered.clone());
        let help = "Bytes held behind the end of the file of records, for decisions while the disk is full";
        registry.register("records_reserve_bytes", help, metrics.reserve.clone());
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

    /// A request gets no answer, because its record could not be written.
    pub fn unanswered(&self) {
        self.unanswered.inc();
    }

    /// So many bytes are held for decisions while the disk is full.
    pub fn reserve(&self, bytes: u64) {
        self.reserve.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many lines were not delivered as OTLP logs.
    pub fn not_exported(&self, lines: u64) {
        self.not_exported.inc_by(lines);
    }
}
