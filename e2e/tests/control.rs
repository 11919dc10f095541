//! The control plane on a real cluster: kinds, admission, status, and what goes on with the operator away.
//!
//! Every test leaves the cluster as it found it, also when it fails: what it changes is put back by a guard.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod control {
    mod admission;
    mod api;
    mod catalog;
    mod dead;
    mod golden;
    mod later;
    mod neighbours;
    mod pods;
    mod rows;
    mod scene;
    mod schema;
}
