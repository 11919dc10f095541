//! The sidecar as a whole, in this process: a real issuer with real keys over TLS, a server behind, a
//! bundle on disk, real sockets on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod audience_and_scope;
mod audit_stage;
mod authentication;
mod bundles;
mod cli;
mod deny;
mod feed;
mod forwarding;
mod handles;
mod listing;
mod metadata;
mod ops;
mod requests;
mod sessions;
mod squatted;
mod support;
