//! The Behalf operator: reconciler and admission webhook.
//!
//! A library with a thin binary, so that tests can drive each part, and so that the local run without Kubernetes signs
//! its bundles with the same code ([`signing`]).

pub mod app;
pub mod args;
pub mod bypass;
pub mod certs;
pub mod check;
pub mod clock;
pub mod error;
pub mod feed;
pub mod health;
pub mod http_server;
pub mod kube_io;
pub mod live;
pub mod metrics;
pub mod reconcile;
pub mod resolv_conf;
pub mod signing;
pub mod telemetry;
pub mod webhook;
