//! What the injected pods say of themselves, and what `Ready` makes of it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use behalf_crds::v1alpha1::ReadyReason;
use behalf_policy::feed::Report;

use super::{Desired, certificate};
use crate::conditions::ConditionIntent;
use crate::gathered::{Gathered, Stand};

/// One injected pod that has not ended, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its name.
    pub pod: String,
    /// Its containers run: it can tell.
    pub running: bool,
    /// Nothing was heard for too long.
    pub silent: bool,
    /// What it said last; none: nothing yet.
    pub report: Option<Arc<Report>>,
}

impl Heard {
    /// Whether it says that it runs by the bundle of this digest.
    #[must_use]
    pub fn runs(&self, digest: &str) -> bool {
        let running = self.report.as_ref().and_then(|report| report.bundle.as_ref());
        !self.silent && running.is_some_and(|bundle| bundle.digest == digest)
    }

    /// Whether it may still tell: nothing was heard yet, but not for long.
    #[must_use]
    pub fn awaited(&self) -> bool {
        self.running && self.unheard()
    }

    /// The same, also of a pod that starts: its sidecar may tell why it does not.
    #[must_use]
    pub fn unheard(&self) -> bool {
        !self.silent && self.report.is_none()
    }
}

pub(super) fn heard(gathered: &Gathered) -> Vec<Heard> {
    let mut heard: Vec<_> = gathered
        .pods
        .iter()
        .filter(|pod| pod.labelled && pod.injected && pod.is_counted())
        .map(|pod| {
            let told = gathered.reports.pods.get(&pod.uid);
            Heard {
                pod: pod.name.clone(),
                running: pod.stand == Stand::Running,
                silent: told.is_some_and(|told| told.silent),
                report: told.and_then(|told| told.report.clone()),
            }
        })
        .collect();
    heard.sort_by(|a, b| a.pod.cmp(&b.pod));
    heard
}

type Check = fn(&Desired) -> Option<ConditionIntent<ReadyReason>>;

/// In this order: the first that fails is what there is to do first.
const CHECKS: [Check; 6] = [
    port_squatted,
    bundle_rejected,
    certificate::not_usable,
    certificate::expired,
    credential_missing,
    certificate::not_renewed,
];

/// What is wrong in the pods, by their own word.
pub(super) fn problem(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    CHECKS.iter().find_map(|check| check(desired))
}

/// Whether [`problem`] gives this reason: it cannot be known before the pods were heard.
pub(super) fn is_told(reason: ReadyReason) -> bool {
    matches!(
        reason,
        ReadyReason::PortSquatted
            | ReadyReason::BundleRejected
            | ReadyReason::CertificateNotUsable
            | ReadyReason::CertificateExpired
            | ReadyReason::CredentialMissing
            | ReadyReason::CertificateNotRenewed
    )
}

/// The pods of which something is said, and all that is said.
pub(super) fn among<'a, T: Ord>(
    desired: &'a Desired,
    what: impl Fn(&'a Report) -> Vec<T>,
) -> Option<(Vec<&'a str>, BTreeSet<T>)> {
    let (mut pods, mut all) = (Vec::new(), BTreeSet::new());
    for heard in &desired.heard {
        let said = heard.report.as_deref().map(&what).unwrap_or_default();
        if !said.is_empty() {
            pods.push(heard.pod.as_str());
            all.extend(said);
        }
    }
    (!pods.is_empty()).then_some((pods, all))
}

fn list<T: Display>(values: &BTreeSet<T>) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn port_squatted(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let (pods, ports) = among(desired, |report| report.squatted.iter().copied().collect())?;
    let message = format!(
        "In pods of this identity something else holds a port that belongs to Behalf (port {}): {}. Their sidecar stays unready, and callers may reach what is not Behalf. Make the pod's own containers listen elsewhere, then delete the pods: kubectl -n {} delete pod {}",
        list(&ports),
        super::some(&pods),
        desired.namespace,
        super::some(&pods)
    );
    Some(ConditionIntent::new(ReadyReason::PortSquatted, message))
}

fn bundle_rejected(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let (pods, reasons) = rejected(desired)?;
    Some(ConditionIntent::new(ReadyReason::BundleRejected, rejection(desired, &pods, &reasons)))
}

/// The pods that did not take a bundle, and why.
pub(super) fn rejected(desired: &Desired) -> Option<(Vec<&str>, BTreeSet<&str>)> {
    among(desired, |report| report.rejected.iter().map(String::as_str).collect())
}

/// What is to be said of pods that did not take a bundle.
pub(super) fn rejection(desired: &Desired, pods: &[&str], reasons: &BTreeSet<&str>) -> String {
    format!(
        "Pods were given a bundle that they do not take ({}): {}. They keep the last good one, or refuse every call if they have none. Somebody may have written to the ConfigMap, or the pods trust older keys only; their log says which: kubectl -n {} logs {} -c {}",
        list(reasons),
        super::some(pods),
        desired.namespace,
        pods.first().copied().unwrap_or_default(),
        behalf_crds::names::CONTAINER_SIDECAR
    )
}

fn credential_missing(desired: &Desired) -> Option<ConditionIntent<ReadyReason>> {
    let (pods, providers) =
        among(desired, |report| report.credentials_missing.iter().map(ToString::to_string).collect())?;
    let message = format!(
        "In pods of this identity the credential for a provider is missing or empty ({}): {}. Calls that need a token from there are refused. Look at spec.identityProviders[].client.authentication and at what it names: kubectl -n {} describe pod {}",
        list(&providers),
        super::some(&pods),
        desired.namespace,
        pods.first().copied().unwrap_or_default()
    );
    Some(ConditionIntent::new(ReadyReason::CredentialMissing, message))
}
