//! What every test of the sidecar starts from.

pub(crate) mod bundle;
pub(crate) mod client;
pub(crate) mod client_tls;
pub(crate) mod disk;
pub(crate) mod feed;
pub(crate) mod holder;
pub(crate) mod issuer;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod world;

pub(crate) use client::{Answer, Call};
pub(crate) use feed::Feed;
pub(crate) use issuer::{Alg, Issuer};
pub(crate) use server::{Reply, Server};
pub(crate) use world::World;

/// Polls until `check` gives something; fails when that takes longer than any slow machine needs.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
