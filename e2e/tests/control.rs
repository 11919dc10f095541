//! The control plane on a real cluster: kinds, admission, status, and what goes on with the operator away.
//!
//! Every test leaves the cluster as it found it, also when it fails: what it changes is put back by a guard.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod control {
    mod admission;
    mod api;
    mod audiences;
    mod bundle;
    mod bypass;
    mod catalog;
    mod cheats;
    mod dead;
    mod destinations;
    mod exempt;
    mod feed;
    mod feed_counts;
    mod feed_scene;
    mod further;
    mod golden;
    mod later;
    mod neighbours;
    mod operator;
    mod operator_audit;
    mod operator_certs;
    mod operator_gate;
    mod operator_host;
    mod operator_rest;
    mod operator_writes;
    mod passes;
    mod pods;
    mod probes;
    mod reach;
    mod roles;
    mod rows;
    mod scene;
    mod schema;
    mod squat;
    mod states;
    mod tenants;
}
