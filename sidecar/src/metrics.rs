//! Metrics of the sidecar, in OpenMetrics text. Every label value comes from a closed enum of ours:
//! never a name of a person, a tool, a path or an object.

mod counts;
mod records;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use behalf_policy::bundle::Bundle;
use behalf_policy::feed::Decisions;
use behalf_policy::ids::{Scope, Timestamp};
use behalf_policy::record::{Direction, Record};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
pub use records::RecordMetrics;
pub use tls::TlsMetrics;

/// What became of asking a provider for a downstream token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// The provider was asked and its answer passed the check.
    Made,
    /// A checked token of the same order was still good.
    Cached,
    /// The provider answered, and its answer was discarded.
    AnswerRefused,
    /// The provider refused.
    ProviderRefused,
    /// The provider could not be asked.
    Failed,
}

impl ExchangeOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Made => "Made",
            Self::Cached => "Cached",
            Self::AnswerRefused => "AnswerRefused",
            Self::ProviderRefused => "ProviderRefused",
            Self::Failed => "Failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    direction: &'static str,
    decision: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Handed down from the root, so that a test reads its own.
pub struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    exchanges: Family<OutcomeLabel, Counter>,
    exchange_seconds: Histogram,
    key_fetches: Family<OutcomeLabel, Counter>,
    token_cache: Family<OutcomeLabel, Counter>,
    bundle_rejected: Family<ReasonLabel, Counter>,
    bundle_serial: Gauge<u64, AtomicU64>,
    bundle_stale: Gauge,
    counts: counts::Counts,
    deny_list_changes: Counter,
    deny_list_entries: Gauge,
    feed_reports: Family<OutcomeLabel, Counter>,
    feed_connected: Gauge,
    challenges: Family<OutcomeLabel, Counter>,
    inbound_seconds: Histogram,
    /// Inbound requests whose answer has not ended.
    pub open_requests: Gauge,
    /// How the writing of records goes.
    pub records: RecordMetrics,
    /// How TLS at the inbound port goes.
    pub tls: TlsMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Metrics {
    /// A fresh registry with every metric in it.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("behalf_sidecar");
        let decisions = Family::default();
        registry.register("decisions", "Decision records written", decisions.clone());
        let exchanges = Family::default();
        registry.register("exchanges", "Orders for a downstream token", exchanges.clone());
        let exchange_seconds = Histogram::new(SECONDS);
        let help = "Time providers took to answer an exchange";
        registry.register_with_unit("exchange_duration", help, Unit::Seconds, exchange_seconds.clone());
        let key_fetches = Family::default();
        registry.register("key_fetches", "Fetches of providers' key sets", key_fetches.clone());
        let token_cache = Family::default();
        registry.register("token_cache_lookups", "Lookups of verified tokens", token_cache.clone());
        let bundle_rejected = Family::default();
        registry.register("bundle_rejections", "Bundles that were not taken", bundle_rejected.clone());
        let bundle_serial = Gauge::default();
        registry.register(
            "bundle_serial",
            "Serial of the bundle in use, 0 without one",
            bundle_serial.clone(),
        );
        let bundle_stale = Gauge::default();
        let help = "1 while the newest bundle seen was rejected and an older one is in use";
        registry.register("bundle_stale", help, bundle_stale.clone());
        let deny_list_changes = Counter::default();
        let help = "Changes of the namespace's deny list";
        registry.register("deny_list_changes", help, deny_list_changes.clone());
        let deny_list_entries = Gauge::default();
        let help = "Lines by which the namespace's deny list refuses something";
        registry.register("deny_list_entries", help, deny_list_entries.clone());
        let feed_reports = Family::default();
        registry.register("feed_reports", "Reports to the operator's feed", feed_reports.clone());
        let feed_connected = Gauge::default();
        let help = "1 while the last report to the operator's feed was answered";
        registry.register("feed_connected", help, feed_connected.clone());
        let challenges = Family::default();
        let help = "Challenges to prove who answers on a port; they are no calls and leave no record";
        registry.register("challenges", help, challenges.clone());
        let inbound_seconds = Histogram::new(SECONDS);
        let help = "Time from the head of a request to the head of its answer";
        registry.register_with_unit("inbound_duration", help, Unit::Seconds, inbound_seconds.clone());
        let open_requests = Gauge::default();
        registry.register("open_requests", "Inbound requests in progress", open_requests.clone());
        let records = RecordMetrics::register(&mut registry);
        let tls = TlsMetrics::register(&mut registry);
        Self {
            registry,
            decisions,
            exchanges,
            exchange_seconds,
            key_fetches,
            token_cache,
            bundle_rejected,
            bundle_serial,
            bundle_stale,
            counts: counts::Counts::default(),
            deny_list_changes,
            deny_list_entries,
            feed_reports,
            feed_connected,
            challenges,
            inbound_seconds,
            open_requests,
            records,
            tls,
        }
    }

    /// The exposition as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail; a metric that cannot be encoded leaves the rest readable.
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("a metric could not be encoded");
        }
        text
    }

    /// Counts a decision record. Called by the audit writer, so that counts and records agree.
    pub fn decided(&self, record: &Record, now: Timestamp) {
        self.counts.count(record, now);
        let direction = match record.direction {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        };
        let reason = record.reason.unwrap_or("");
        self.decisions.get_or_create(&DecisionLabels { direction, decision: record.decision, reason }).inc();
    }

    /// Inbound decisions since the start, and when a scope was last needed by a permitted call, to the hour.
    #[must_use]
    pub fn decisions(&self) -> (Decisions, BTreeMap<Scope, Timestamp>) {
        self.counts.so_far()
    }

    /// Counts an exchange.
    pub fn exchanged(&self, outcome: ExchangeOutcome) {
        self.exchanges.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// How long a provider took to answer, seconds.
    pub fn exchange_took(&self, seconds: f64) {
        self.exchange_seconds.observe(seconds);
    }

    /// Counts a fetch of keys.
    pub fn keys_fetched(&self, ok: bool) {
        self.key_fetches.get_or_create(&OutcomeLabel { outcome: if ok { "Ok" } else { "Failed" } }).inc();
    }

    /// Counts a lookup of a verified token.
    pub fn token_looked_up(&self, hit: bool) {
        self.token_cache.get_or_create(&OutcomeLabel { outcome: if hit { "Hit" } else { "Miss" } }).inc();
    }

    /// Calls are judged by this bundle in a moment: what is counted by name is a name of it.
    pub fn learn(&self, bundle: &Bundle) {
        self.counts.learn(bundle);
    }

    /// A bundle was taken.
    pub fn bundle_taken(&self, serial: u64) {
        self.bundle_serial.set(serial);
    }

    /// A bundle was not taken, for a closed reason.
    pub fn bundle_rejected(&self, reason: &'static str) {
        self.bundle_rejected.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Whether the newest bundle seen is another than the one in use.
    pub fn bundle_stale(&self, stale: bool) {
        self.bundle_stale.set(i64::from(stale));
    }

    /// The namespace's deny list is another, of so many entries.
    pub fn deny_list_changed(&self, entries: usize) {
        self.deny_list_changes.inc();
        self.deny_list_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// What became of a report: `Ok`, or a closed reason.
    pub fn reported(&self, outcome: &'static str) {
        self.feed_reports.get_or_create(&OutcomeLabel { outcome }).inc();
        self.feed_connected.set(i64::from(outcome == "Ok"));
    }

    /// Counts a challenge, answered or not.
    pub fn challenged(&self, answered: bool) {
        let outcome = if answered { "Answered" } else { "TooMany" };
        self.challenges.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// How long the head of an answer took, seconds.
    pub fn answered(&self, seconds: f64) {
        self.inbound_seconds.observe(seconds);
    }
}
