//! What the operator wants, computed from what it gathered: pure, so that every answer can be replayed.
//!
//! Called by the reconciler (`identity`, `catalog_status`, `provider_status`, `next_document`, `events`) and by the
//! admission webhook (`plan_injection`). Nothing here reads a clock, a file, a socket or the environment: time comes in
//! as an argument and what was written comes back as [`Applied`].

pub mod bundle_object;
pub mod bypass;
pub mod catalog;
pub mod compile;
pub mod conditions;
mod digest;
pub mod gathered;
pub mod identity;
pub mod inject;
mod net;
mod pem;
pub mod provider;
pub mod records;
pub mod reports;
pub mod shares;

pub use catalog::catalog_status;
pub use conditions::{ConditionIntent, EventIntent, EventKind, events};
pub use gathered::{
    Applied, BundleFacts, Gathered, LastBundle, PodFacts, Settings, Stand, pod_facts, pod_facts_for,
};
pub use identity::{BundleIntent, Desired, identity, identity_status, next_document, tombstone};
pub use inject::{Injection, Plan, Refusal, RefusalReason, SkipReason, Warning, plan_injection};
pub use provider::provider_status;
pub use records::{Records, RecordsError};
pub use reports::{Ledger, Reports, Told};
pub use shares::Shares;
