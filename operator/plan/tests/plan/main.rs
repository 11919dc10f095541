//! What the plan promises: refuse or keep, injection, laws, and the same meaning as the objects.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test ends where it fails, and objects are written where they are used"
)]

mod bypass;
mod catalog;
mod certificate;
mod chart;
mod differential;
mod fixtures;
mod golden;
mod identity;
mod injection;
mod injection_newcomer;
mod injection_ours;
mod injection_ports;
mod kept;
mod laws;
mod ledger;
mod programmed;
mod provider_tokens;
mod random;
mod rate;
mod records;
mod shares;
mod status;
mod tls;
mod tool_sets;
