//! The newest bundle of each identity, ready to be sent, and word of its change to those who wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use behalf_plan::{LastBundle, bundle_object};
use behalf_policy::bundle::Serve;
use behalf_policy::feed::{Answer, FORMAT};
use behalf_policy::ids::EntryName;
use bytes::Bytes;
use kube::ResourceExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::IdentityKey;
use crate::kube_io::caches::Change;
use crate::kube_io::gather::Gather;

/// A bundle as the feed answers it.
#[derive(Debug)]
pub struct Shown {
    /// Digest of the signed bytes.
    pub digest: String,
    /// The answer that carries it.
    pub answer: Bytes,
    /// The rate limits in it, and how large each is.
    pub limits: BTreeMap<EntryName, u32>,
    version: Option<String>,
}

/// What everybody waits for.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<IdentityKey, watch::Sender<()>>,
    shown: BTreeMap<IdentityKey, Arc<Shown>>,
}

impl State {
    fn wake(&mut self, identity: &IdentityKey) {
        if self.waiting.get(identity).is_some_and(|sender| sender.send(()).is_err()) {
            self.waiting.remove(identity);
        }
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every later change of the identity's bundle. Look at it after this call.
    #[must_use]
    pub fn watch(&self, identity: &IdentityKey) -> watch::Receiver<()> {
        let mut state = self.state();
        match state.waiting.get(identity) {
            Some(sender) => sender.subscribe(),
            None => state.waiting.entry(identity.clone()).or_default().subscribe(),
        }
    }

    /// The bundle that stands in the identity's `ConfigMap`, if a key of ours signed it.
    #[must_use]
    pub fn current(&self, gather: &Gather, identity: &IdentityKey) -> Option<Arc<Shown>> {
        let seen = gather.bundle_object(&identity.0, &identity.1)?;
        let version = seen.metadata.resource_version.clone();
        let held = self.state().shown.get(identity).cloned();
        if let Some(held) = held.filter(|held| held.version.is_some() && held.version == version) {
            return Some(held);
        }
        let signed = bundle_object::signed(&seen).and_then(|text| serde_json::from_str(text).ok());
        let LastBundle { document, digest } = gather.see(Some(seen)).last?;
        let limits = match document.serve {
            Serve::Policy(policy) => {
                policy.rate_limits.into_iter().map(|it| (it.name, it.requests)).collect()
            }
            Serve::RefuseAll { .. } => BTreeMap::new(),
        };
        let answer =
            serde_json::to_vec(&Answer { format: FORMAT, bundle: Some(signed?), shares: None }).ok()?;
        let shown = Arc::new(Shown { digest, answer: answer.into(), limits, version });
        self.state().shown.insert(identity.clone(), Arc::clone(&shown));
        Some(shown)
    }

    /// Whoever waits for something of this identity is to look again.
    pub fn wake(&self, identity: &IdentityKey) {
        self.state().wake(identity);
    }

    /// Tells those whom a change concerns.
    pub fn tell(&self, change: &Change) {
        let mut state = self.state();
        match change {
            Change::Everything => {
                state.shown.clear();
                state.waiting.retain(|_, sender| sender.send(()).is_ok());
            }
            Change::Bundle(was) => {
                let concerned = was.both().filter_map(|object| {
                    Some((object.namespace()?, bundle_object::identity_of(object)?.to_owned()))
                });
                for identity in concerned {
                    state.shown.remove(&identity);
                    state.wake(&identity);
                }
            }
            _ => {}
        }
    }

    /// Takes word of changes until nobody brings any, and hands it on to whoever else wants it.
    pub async fn follow(
        self: Arc<Self>,
        mut changes: mpsc::Receiver<Change>,
        onwards: Option<mpsc::Sender<Change>>,
        stop: CancellationToken,
    ) {
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => return,
                change = changes.recv() => change,
            };
            let Some(change) = change else { return };
            self.tell(&change);
            let Some(onwards) = &onwards else { continue };
            tokio::select! {
                () = stop.cancelled() => return,
                sent = onwards.send(change) => if sent.is_err() { return },
            }
        }
    }
}
