//! From a caller to the server behind us, in the order of the design: envelope, authentication, session,
//! decision, record, forwarding. Every refusal happens before the first byte of an answer, and every
//! request leaves exactly one record.

mod api;
mod asked;
mod authenticate;
mod body;
mod connection;
mod cors;
mod forward;
mod head;
mod headers;
mod held;
mod judge;
mod lists;
mod owned;
mod respond;
mod route;
mod server;
mod sessions;
mod stream;

use std::sync::Arc;

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
pub use server::serve;

use crate::audit::Audit;
use crate::bundle_source::Bundles;
use crate::clock::Clock;
use crate::dpop::Proofs;
use crate::framed::ToAnswers;
use crate::handles::Handles;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::tls::Tls;
use crate::token::Verifier;

/// What the inbound side works with. It never holds a client credential and cannot exchange a token.
pub struct Inbound {
    bundles: Bundles,
    audit: Audit,
    metrics: Arc<Metrics>,
    clock: Clock,
    handles: Handles,
    limits: Limits,
    verifier: Verifier,
    proofs: Proofs,
    sessions: sessions::Sessions,
    owned: owned::Owned,
    mirrored: lists::Mirrored,
    asked: asked::Asked,
    tls: Option<Tls>,
    server: Client<ToAnswers<HttpConnector>, body::AnswerBody>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbound")
    }
}

impl Inbound {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        bundles: Bundles,
        audit: Audit,
        metrics: Arc<Metrics>,
        clock: Clock,
        handles: Handles,
        limits: Limits,
        (verifier, proofs): (Verifier, Proofs),
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let server =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(ToAnswers(connector));
        Self {
            bundles,
            audit,
            metrics,
            clock,
            handles,
            limits,
            verifier,
            proofs,
            sessions: sessions::Sessions::new(),
            owned: owned::Owned::new(),
            mirrored: lists::Mirrored::default(),
            asked: asked::Asked::new(),
            tls: None,
            server,
        }
    }

    /// The same, where callers come by TLS that is terminated here.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }
}
