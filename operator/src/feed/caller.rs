//! Who reports: a pod that Behalf was put into, as the API server and our copies know it, never as it says itself.

use behalf_crds::names;
use behalf_plan::{Stand, pod_facts_for};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::IdentityKey;
use crate::kube_io::caches::Caches;
use crate::kube_io::tokens::Bearer;

/// A pod with Behalf inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// Its namespace and the identity it joined.
    pub identity: IdentityKey,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
}

/// Why nobody of ours shows this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The token is not bound to a pod.
    #[error("the token is not bound to a pod")]
    NotBound,
    /// There is no such pod, or not this one any more.
    #[error("there is no such pod")]
    PodUnknown,
    /// The pod carries no label of ours.
    #[error("the pod joined no identity")]
    PodUnlabelled,
    /// The pod came in without Behalf.
    #[error("the pod runs without Behalf")]
    PodNotInjected,
    /// The pod does not run as its identity's account.
    #[error("the pod does not run as its identity's service account")]
    PodAccount,
    /// The pod has ended.
    #[error("the pod has ended")]
    PodEnded,
    /// The token is not the operator's own.
    #[error("only another replica of the operator may relay")]
    NotReplica,
}

impl Stranger {
    /// Closed reason, for answers and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotBound => "TokenNotBound",
            Self::PodUnknown => "PodUnknown",
            Self::PodUnlabelled => "PodUnlabelled",
            Self::PodNotInjected => "PodNotInjected",
            Self::PodAccount => "PodAccount",
            Self::PodEnded => "PodEnded",
            Self::NotReplica => "NotReplica",
        }
    }
}

/// The pod whose token it is, if it may have a bundle.
///
/// # Errors
/// It may not, and why.
pub fn reporter(bearer: &Bearer, caches: &Caches) -> Result<Reporter, Stranger> {
    let bound = bearer.pod.as_ref().ok_or(Stranger::NotBound)?;
    let pod = caches.pods.get(&ObjectRef::new(&bound.name).within(&bearer.namespace));
    let pod = pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&bound.uid)).ok_or(Stranger::PodUnknown)?;
    let identity = pod.labels().get(names::LABEL_AGENT_IDENTITY).ok_or(Stranger::PodUnlabelled)?;
    let facts = pod_facts_for(&pod, identity);
    if !facts.injected {
        return Err(Stranger::PodNotInjected);
    }
    if facts.stand == Stand::Ended {
        return Err(Stranger::PodEnded);
    }
    let held = caches.identities.get(&ObjectRef::new(identity).within(&bearer.namespace));
    // Of an identity that is gone or cannot be read every pod refuses all; it may know that.
    let account =
        held.as_deref().and_then(|held| held.0.as_ref().ok()).map(|it| &it.spec.service_account_name);
    if facts.service_account != bearer.account || account.is_some_and(|account| *account != bearer.account) {
        return Err(Stranger::PodAccount);
    }
    Ok(Reporter {
        identity: (bearer.namespace.clone(), identity.clone()),
        pod: bound.name.clone(),
        uid: bound.uid.clone(),
    })
}

/// Whether it is another replica of the operator: its account in its namespace, in a pod.
///
/// # Errors
/// It is not.
pub fn replica(bearer: &Bearer, namespace: &str) -> Result<(), Stranger> {
    let ours = bearer.namespace == namespace && bearer.account == names::OPERATOR && bearer.pod.is_some();
    if ours { Ok(()) } else { Err(Stranger::NotReplica) }
}
