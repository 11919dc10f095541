//! What was found, for the reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use behalf_crds::v1alpha1::AgentIdentity;
use behalf_plan::bypass::{Facts, Standing, pod_reach};

use crate::kube_io::caches::Caches;

/// Namespace and name of an identity.
pub type IdentityName = (String, String);
/// What is known of pods, by UID, each with the identity that it joined.
pub type Standings = BTreeMap<String, (IdentityName, Standing)>;

/// What is known of the pods that run. Empty where nobody makes trials.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<Standings>>);

impl Findings {
    /// What is known of the pod of this UID.
    #[must_use]
    pub fn of(&self, pod_uid: &str) -> Standing {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(pod_uid).map(|(_, standing)| standing.clone()).unwrap_or_default()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes in what is known now. Returns the identities of whose pods something else is known than before.
    pub fn replace(&self, now: Standings) -> BTreeSet<IdentityName> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = |uid: &String| held.get(uid) != now.get(uid);
        let uids: BTreeSet<_> = held.keys().chain(now.keys()).filter(|uid| changed(uid)).collect();
        let concerned = uids.into_iter().flat_map(|uid| [held.get(uid), now.get(uid)]).flatten();
        let identities = concerned.map(|(identity, _)| identity.clone()).collect();
        *held = now;
        identities
    }
}

/// Everything that the verdict on an identity depends on.
#[must_use]
pub fn facts(caches: &Caches, findings: &Findings, identity: &AgentIdentity) -> Facts {
    let namespace = identity.metadata.namespace.as_ref();
    let pods = caches.pods.state_filter(|pod| pod.metadata.namespace.as_ref() == namespace);
    let mut pods: Vec<_> = pods.iter().filter_map(|pod| pod_reach(pod, identity)).collect();
    for pod in &mut pods {
        pod.standing = findings.of(&pod.uid);
    }
    Facts {
        pods,
        services: caches.services.state_filter(|it| it.metadata.namespace.as_ref() == namespace),
        slices: caches.slices.state_filter(|it| it.metadata.namespace.as_ref() == namespace),
    }
}
