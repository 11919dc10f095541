//! What the sidecar knows of its own standing, from several parts of it, and tells when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use behalf_policy::feed::{CertificateConcern, Listener, MAX_LISTENERS, MAX_PROVIDERS};
use behalf_policy::ids::EntryName;
use tokio::sync::watch;

/// A cheap clone tells the same.
#[derive(Debug, Clone, Default)]
pub struct Facts(Arc<watch::Sender<Told>>);

/// What is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Sockets of a port of ours that somebody else holds.
    squatted: BTreeMap<u16, u32>,
    /// What listens beyond loopback, ours aside.
    pub listeners: BTreeSet<Listener>,
    /// There are more than are named, or it could not be seen whether there are.
    pub more_listeners: bool,
    /// Providers whose credential file is missing or empty.
    pub credentials_missing: BTreeSet<EntryName>,
    /// What is wrong with the certificate that TLS is to be terminated with.
    pub certificate: Option<CertificateConcern>,
}

impl Told {
    /// Ports of ours that somebody else holds.
    #[must_use]
    pub fn squatted(&self) -> BTreeSet<u16> {
        self.squatted.keys().copied().collect()
    }
}

/// A port of ours is somebody else's while this lives.
#[derive(Debug)]
#[must_use = "dropping it says that the port is ours"]
pub struct Squatted {
    port: u16,
    facts: Facts,
}

impl Facts {
    /// Nothing told yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Told {
        self.0.borrow().clone()
    }

    /// Tells of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Told> {
        self.0.subscribe()
    }

    /// Somebody else holds a port of ours.
    pub fn squatted(&self, port: u16) -> Squatted {
        self.change(|told| {
            let sockets = told.squatted.entry(port).or_default();
            *sockets = sockets.saturating_add(1);
        });
        Squatted { port, facts: self.clone() }
    }

    /// What listens, and whether that is not all.
    pub fn listeners(&self, found: &BTreeSet<Listener>, more: bool) {
        let listeners = found.iter().take(MAX_LISTENERS).copied().collect();
        self.change(|told| {
            told.more_listeners = more || found.len() > MAX_LISTENERS;
            told.listeners = listeners;
        });
    }

    /// Whose credentials are missing.
    pub fn credentials_missing(&self, providers: BTreeSet<EntryName>) {
        self.change(|told| told.credentials_missing = providers.into_iter().take(MAX_PROVIDERS).collect());
    }

    /// What is wrong with the certificate, if anything is.
    pub fn certificate(&self, concern: Option<CertificateConcern>) {
        self.change(|told| told.certificate = concern);
    }

    fn change(&self, change: impl FnOnce(&mut Told)) {
        self.0.send_if_modified(|told| {
            let before = told.clone();
            change(told);
            *told != before
        });
    }
}

impl Drop for Squatted {
    fn drop(&mut self) {
        let port = self.port;
        self.facts.change(|told| match told.squatted.get_mut(&port) {
            Some(sockets) if *sockets > 1 => *sockets = sockets.saturating_sub(1),
            _ => {
                told.squatted.remove(&port);
            }
        });
    }
}
