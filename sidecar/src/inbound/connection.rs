//! What is known of the connection that a request came over. Travels as extensions of the request: never as headers, which
//! anybody can write.

use std::net::SocketAddr;
use std::sync::Arc;

use behalf_policy::bundle::{ClientCertificates, Policy};
use behalf_policy::claims::Thumbprint;
use behalf_policy::ids::Timestamp;
use http::Extensions;

use super::route::Peer;
use crate::bundle_source::Prepared;
use crate::drain::Draining;
use crate::tls::{Client, ClientRefusal, Tls};

/// It came in the clear to a port where the sidecar terminates TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct InTheClear;

/// The client of a connection by TLS that the sidecar terminates, with what it is judged by.
#[derive(Debug, Clone)]
struct Proved {
    client: Arc<Client>,
    tls: Tls,
}

/// How a connection is secured.
#[derive(Debug, Clone)]
pub(super) enum Security {
    /// By TLS that the sidecar terminates; the client, if it proved to be one.
    Tls(Tls, Option<Arc<Client>>),
    /// Not at all, where it would have to be.
    Lacking,
    /// By whatever stands in front of the pod.
    Elsewhere,
}

/// Marks every request of a connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) security: Security,
    pub(super) draining: Draining,
}

impl Connection {
    pub(super) fn mark(&self, extensions: &mut Extensions) {
        extensions.insert(Peer(self.peer.ip()));
        extensions.insert(self.draining.clone());
        match &self.security {
            Security::Tls(tls, Some(client)) => {
                extensions.insert(Proved { client: Arc::clone(client), tls: tls.clone() });
            }
            Security::Lacking => drop(extensions.insert(InTheClear)),
            Security::Tls(_, None) | Security::Elsewhere => {}
        }
    }
}

/// What the connection of a request proved of its client, if anything; a cheap clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionClient(Option<Proved>);

impl ConnectionClient {
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<Proved>().cloned())
    }

    /// SHA-256 over the DER of the certificate whose key the connection proved; none where it proved none.
    pub(super) fn thumbprint(&self) -> Option<Thumbprint> {
        self.0.as_ref().map(|proved| proved.client.thumbprint())
    }

    /// Whether the identity takes this client, as far as certificates go.
    ///
    /// Asked with each request, and while a stream is open: policy, authorities and certificates change and end while a
    /// connection goes on.
    pub(super) fn check(
        &self,
        policy: &Policy,
        prepared: &Prepared,
        now: Timestamp,
    ) -> Result<(), ClientRefusal> {
        let Some(rules) = &policy.server.tls else { return Ok(()) };
        let Some(Proved { client, tls }) = &self.0 else {
            let required = rules.client_certificates == ClientCertificates::Required;
            return if required { Err(ClientRefusal::Missing) } else { Ok(()) };
        };
        match &prepared.client_trust {
            Some(trust) if rules.asks() => tls.judge(client, trust, now),
            _ => Ok(()),
        }
    }
}
