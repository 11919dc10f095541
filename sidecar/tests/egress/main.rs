//! The sidecar towards providers and downstreams: keys, exchange, the way out, the packet rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod answers;
mod audit_stage;
mod dns;
mod exchange;
mod fake;
mod handles;
mod idp;
mod lying;
mod outbound;
mod provider;
mod raw;
mod recorded;
mod redirect;
mod shapes;
mod streams;
mod tap;
mod told;
mod whole;
mod world;
