//! The sidecar as a whole, in this process: a real issuer with real keys over TLS, a server behind, a
//! bundle on disk, real sockets on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod api;
mod audience_and_scope;
mod audit_stage;
mod authentication;
mod bundles;
mod cli;
mod conformance;
mod deny;
mod dpop;
mod durable;
mod feed;
mod forwarding;
mod full_disk;
mod handles;
mod http2;
mod introspection;
mod issuers;
mod limits;
mod listing;
mod metadata;
mod methods;
mod nonces;
mod not_there;
mod ops;
mod others_bugs;
mod params;
mod records;
mod requests;
mod sessions;
mod squatted;
mod step_up;
mod streams;
mod support;
mod tls;
mod tls_clients;
mod tls_told;
