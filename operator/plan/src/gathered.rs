//! What the reconciler reads before it plans, and what it learns after it wrote.

use std::collections::BTreeMap;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_policy::bundle::Document;
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceRequirements, ServiceAccount};

use crate::bypass;
use crate::records::Records;
use crate::reports::Reports;

/// Everything one identity's plan depends on, as it was read.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The identity itself.
    pub identity: AgentIdentity,
    /// Its namespace.
    pub namespace: Namespace,
    /// The catalogue it names, if there is one of that name.
    pub catalog: Option<ScopeCatalog>,
    /// The providers it names, by name, as far as they exist.
    pub providers: BTreeMap<String, IdentityProvider>,
    /// All other providers that take tokens for an audience of these; these among them do no harm.
    pub rival_providers: Vec<IdentityProvider>,
    /// All other identities of the cluster; the identity itself among them does no harm.
    pub siblings: Vec<AgentIdentity>,
    /// The service account it names, if there is one.
    pub service_account: Option<ServiceAccount>,
    /// Pods of the namespace that carry the identity's label or run as its service account.
    pub pods: Vec<PodFacts>,
    /// The bundle in its `ConfigMap`, if it is there and a key of ours signed it.
    pub last_bundle: Option<LastBundle>,
    /// What the pods tell of themselves.
    pub reports: Reports,
    /// What was found from outside.
    pub bypass: bypass::Facts,
}

/// A bundle read back from its `ConfigMap` and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBundle {
    /// What it says.
    pub document: Document,
    /// Digest of the signed bytes, `sha256:…`.
    pub digest: String,
}

impl LastBundle {
    /// What the status says of it.
    #[must_use]
    pub fn facts(&self) -> BundleFacts {
        BundleFacts { digest: self.digest.clone(), serial: self.document.serial }
    }
}

/// What the plan needs to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// It carries the identity's label.
    pub labelled: bool,
    /// Behalf is inside, for this identity.
    pub injected: bool,
    /// The service account it runs as.
    pub service_account: String,
    /// Revision of what was injected.
    pub revision: Option<String>,
    /// Where it stands in its life.
    pub stand: Stand,
}

/// Where a pod stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Its containers do not run yet.
    Starting,
    /// They do: it can tell what it runs by.
    Running,
    /// It is about to end, and may still tell its last word. It is not counted any more.
    Leaving,
    /// It ended: it will tell nothing more.
    Ended,
}

impl PodFacts {
    /// Whether it is counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(self.stand, Stand::Starting | Stand::Running)
    }
}

/// What the server answered when the bundle was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The bundle that is in the `ConfigMap` now, whoever wrote it last; none if there is none.
    pub bundle: Option<BundleFacts>,
    /// The closed reason why the write failed; none if it did not (or there was nothing to write). What the API server said
    /// may hold anything, and is for the log alone.
    pub failure: Option<&'static str>,
}

/// A bundle by its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFacts {
    /// Digest of the signed bytes, `sha256:…`.
    pub digest: String,
    /// Its serial.
    pub serial: u64,
}

/// What the operator is configured with, as far as plans depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Image of the sidecar and of the redirect, best by digest.
    pub sidecar_image: String,
    /// `imagePullPolicy` of both; `IfNotPresent` is right for an image by digest.
    pub sidecar_pull_policy: String,
    /// Public keys that sidecars pin, each `<id>=<base64 of 32 bytes>`.
    pub bundle_keys: Vec<String>,
    /// Nameservers, since the sidecar does not read `resolv.conf`.
    pub nameservers: Vec<String>,
    /// Domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Namespace of the operator.
    pub system_namespace: String,
    /// Resources of the sidecar and of the redirect.
    pub resources: ResourceRequirements,
    /// Where the sidecars write their decision records.
    pub records: Records,
}

/// Reads off a pod what the plan needs, as seen from `identity`.
#[must_use]
pub fn pod_facts(pod: &Pod, identity: &AgentIdentity) -> PodFacts {
    pod_facts_for(pod, identity.metadata.name.as_deref().unwrap_or_default())
}

/// The same, as seen from the identity called `wanted` in the pod's namespace, whether it is still there or not.
#[must_use]
pub fn pod_facts_for(pod: &Pod, wanted: &str) -> PodFacts {
    let label = pod.metadata.labels.iter().flatten().find(|(key, _)| *key == names::LABEL_AGENT_IDENTITY);
    let annotation =
        pod.metadata.annotations.iter().flatten().find(|(key, _)| *key == names::ANNOTATION_INJECTED);
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    PodFacts {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        labelled: label.is_some_and(|(_, value)| value == wanted),
        injected: annotation.is_some() && carries_sidecar(pod, wanted),
        service_account: spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        revision: annotation.map(|(_, value)| value.clone()),
        stand: match phase {
            Some("Succeeded" | "Failed") => Stand::Ended,
            _ if pod.metadata.deletion_timestamp.is_some() => Stand::Leaving,
            Some("Running") => Stand::Running,
            _ => Stand::Starting,
        },
    }
}

/// The redirect first, then the sidecar as a native one, made for this identity.
fn carries_sidecar(pod: &Pod, identity: &str) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let [redirect, sidecar, ..] = containers else { return false };
    let wanted = crate::inject::identity_argument(identity);
    redirect.name == names::CONTAINER_REDIRECT
        && sidecar.name == names::CONTAINER_SIDECAR
        && sidecar.restart_policy.as_deref() == Some("Always")
        && sidecar.args.iter().flatten().any(|argument| *argument == wanted)
}
