//! One identity: what its pods are to run by, and what its status says.

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    self as crds, AcceptedReason, AgentIdentityStatus, BundleStatus, ConditionType, InjectionStatus,
    PodCounts, ReadyReason, ResolvedRefsReason, RolloutReason, RolloutStatus, State,
};
use behalf_policy::bundle::document::{FORMAT, PolicyDocument};
use behalf_policy::bundle::{Bundle, Document, RefuseAllReason, Serve};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::compile::{self, Resolved, namespace_of};
use crate::conditions::ConditionIntent;
use crate::gathered::{Applied, Gathered, Settings};
use crate::inject;

/// What an identity's pods are to run by, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// What becomes of the bundle.
    pub bundle: BundleIntent,
    /// The `Accepted` condition.
    pub accepted: ConditionIntent<AcceptedReason>,
    /// The `ResolvedRefs` condition.
    pub resolved_refs: ConditionIntent<ResolvedRefsReason>,
    /// Revision of what new pods are given; an older one needs a restart to follow.
    pub injection_revision: String,
    /// The pods.
    pub pods: PodCounts,
    /// The stage in effect.
    pub stage: crds::Stage,
    /// The `metadata.generation` all this was computed from.
    pub generation: Option<i64>,
    /// Whether the identity is suspended.
    pub suspended: bool,
    /// What `Ready` says about the pods, if something is wrong with them.
    pub pods_problem: Option<ConditionIntent<ReadyReason>>,
}

/// What becomes of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleIntent {
    /// Write this, unless it stands there already (see [`next_document`]).
    Write(Serve),
    /// Leave the last good one as it is.
    Keep,
}

/// Plans one identity.
#[must_use]
pub fn identity(gathered: &Gathered, settings: &Settings) -> Desired {
    let resolved = compile::resolve(gathered);
    let verdict = judge(gathered, settings, &resolved);
    let deleted = gathered.identity.metadata.deletion_timestamp.is_some();
    let revision = revision(gathered, settings, &resolved);
    let (pods, pods_problem) = pods(gathered, &revision);
    Desired {
        bundle: if deleted { BundleIntent::Write(tombstone()) } else { verdict.bundle },
        accepted: verdict.accepted,
        resolved_refs: verdict.resolved_refs,
        injection_revision: revision,
        pods,
        stage: gathered.identity.spec.rollout.stage,
        generation: gathered.identity.metadata.generation,
        suspended: gathered.identity.spec.state == State::Suspended,
        pods_problem,
    }
}

/// What the pods of a deleted identity run by: nothing is served.
#[must_use]
pub fn tombstone() -> Serve {
    Serve::RefuseAll { reason: RefuseAllReason::IdentityDeleted }
}

/// The document to sign and write; none if the last one says the same.
///
/// Its serial is the greater of the last one + 1 and the time in milliseconds: it never goes back, even if the clock does.
#[must_use]
pub fn next_document(
    namespace: &str,
    name: &str,
    serve: Serve,
    last: Option<&Document>,
    now_ms: u64,
) -> Option<Document> {
    let unchanged = last.is_some_and(|last| {
        last.format == FORMAT && last.namespace == namespace && last.identity == name && last.serve == serve
    });
    if unchanged {
        return None;
    }
    let after_last = last.map_or(0, |last| last.serial.saturating_add(1));
    Some(Document {
        format: FORMAT,
        namespace: namespace.to_owned(),
        identity: name.to_owned(),
        serial: after_last.max(now_ms),
        serve,
    })
}

struct Verdict {
    bundle: BundleIntent,
    accepted: ConditionIntent<AcceptedReason>,
    resolved_refs: ConditionIntent<ResolvedRefsReason>,
}

/// Refuse or keep. In this order, so that what is known to be forbidden never hides behind what is not known.
fn judge(gathered: &Gathered, settings: &Settings, resolved: &Resolved) -> Verdict {
    if let Some(forbidden) = compile::forbidden(gathered, settings, resolved) {
        let refs = forbidden.refs.unwrap_or_else(|| refs_of(resolved, "Until then every call is refused."));
        return refuse(RefuseAllReason::IdentityNotAccepted, forbidden.accepted, refs);
    }
    if resolved.missing.is_some() {
        return keep_or_refuse(gathered, settings, resolved);
    }
    let refs = refs_of(resolved, "");
    match compile::policy(&gathered.identity, resolved) {
        Ok(policy) => Verdict {
            bundle: BundleIntent::Write(Serve::Policy(Box::new(policy))),
            accepted: accepted(gathered, settings),
            resolved_refs: refs,
        },
        Err(problem) => refuse(RefuseAllReason::IdentityNotAccepted, problem, refs),
    }
}

fn refuse(
    reason: RefuseAllReason,
    accepted: ConditionIntent<AcceptedReason>,
    resolved_refs: ConditionIntent<ResolvedRefsReason>,
) -> Verdict {
    Verdict { bundle: BundleIntent::Write(Serve::RefuseAll { reason }), accepted, resolved_refs }
}

/// The catalogue or a provider is gone or invalid: the last good bundle stays, narrowed by what the identity says now.
fn keep_or_refuse(gathered: &Gathered, settings: &Settings, resolved: &Resolved) -> Verdict {
    let Some((serial, last)) = last_good(gathered) else {
        let refs = refs_of(resolved, "Until then every call is refused.");
        let message = "It is judged as soon as everything it names is there and valid; see ResolvedRefs.";
        let accepted = ConditionIntent::new(AcceptedReason::Pending, message);
        return refuse(RefuseAllReason::ReferencesNotResolved, accepted, refs);
    };
    let kept = compile::narrow(last, &gathered.identity);
    Verdict {
        bundle: if kept == *last {
            BundleIntent::Keep
        } else {
            BundleIntent::Write(Serve::Policy(Box::new(kept)))
        },
        accepted: accepted_before(gathered, settings),
        resolved_refs: refs_of(resolved, &format!("Pods keep the bundle of serial {serial}.")),
    }
}

/// The last bundle, if it is this identity's, serves calls, and a sidecar of this build would take it.
fn last_good(gathered: &Gathered) -> Option<(u64, &PolicyDocument)> {
    let last = &gathered.last_bundle.as_ref()?.document;
    let own = last.namespace == namespace_of(gathered)
        && Some(&last.identity) == gathered.identity.metadata.name.as_ref();
    let Serve::Policy(policy) = &last.serve else { return None };
    (own && Bundle::load(last.clone(), String::new()).is_ok()).then_some((last.serial, policy))
}

fn accepted(gathered: &Gathered, settings: &Settings) -> ConditionIntent<AcceptedReason> {
    if compile::is_plain_http(&gathered.identity, settings) {
        let url =
            gathered.identity.spec.servers.first().map(|server| server.url.as_str()).unwrap_or_default();
        return ConditionIntent::new(
            AcceptedReason::AcceptedPlainHTTP,
            format!(
                "Valid, and the server is called by plain http ({url}): tokens cross the cluster's network unprotected. Give the server an https url to end that."
            ),
        );
    }
    ConditionIntent::new(
        AcceptedReason::Accepted,
        "Valid, and within what its catalogue and providers allow.",
    )
}

/// With a reference gone, an identity counts as accepted only as it was when it was last judged.
fn accepted_before(gathered: &Gathered, settings: &Settings) -> ConditionIntent<AcceptedReason> {
    let identity = &gathered.identity;
    let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if crds::is_true(conditions, ConditionType::Accepted, identity.metadata.generation) {
        let reason = accepted(gathered, settings).reason;
        return ConditionIntent::new(
            reason,
            "Valid as it was last judged. What it names now cannot be used; see ResolvedRefs.",
        );
    }
    let message = "The object changed and is judged as soon as everything it names is there and valid; see ResolvedRefs.";
    ConditionIntent::new(AcceptedReason::Pending, message)
}

fn refs_of(resolved: &Resolved, consequence: &str) -> ConditionIntent<ResolvedRefsReason> {
    match (&resolved.missing, &resolved.account) {
        (Some(missing), _) => {
            let parts = [missing.cause.as_str(), consequence, missing.next.as_str()];
            let message = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            ConditionIntent::new(missing.reason, message)
        }
        (None, Some(account)) => {
            ConditionIntent::new(account.reason, format!("{} {}", account.cause, account.next))
        }
        (None, None) => {
            ConditionIntent::new(ResolvedRefsReason::Resolved, "Everything it names is there and valid.")
        }
    }
}

/// With a provider gone the revision cannot be computed, and a restart would not help: it stays what it was.
fn revision(gathered: &Gathered, settings: &Settings, resolved: &Resolved) -> String {
    let identity = &gathered.identity;
    let before = identity.status.as_ref().and_then(|status| status.injection.as_ref());
    match before {
        Some(before) if resolved.missing.is_some() => before.revision.clone(),
        _ => inject::revision(identity, &gathered.providers, settings),
    }
}

fn pods(gathered: &Gathered, revision: &str) -> (PodCounts, Option<ConditionIntent<ReadyReason>>) {
    let account = &gathered.identity.spec.service_account_name;
    let mut counts = PodCounts::default();
    let (mut current, mut stale) = (0_i64, 0_i64);
    let mut missing = Vec::new();
    let mut strays = Vec::new();
    for pod in gathered.pods.iter().filter(|pod| !pod.finished) {
        if !pod.labelled {
            if pod.service_account == *account {
                strays.push(pod.name.as_str());
            }
            continue;
        }
        counts.matched = counts.matched.saturating_add(1);
        if !pod.injected {
            missing.push(pod.name.as_str());
        } else if pod.revision.as_deref() == Some(revision) {
            current = current.saturating_add(1);
        } else {
            stale = stale.saturating_add(1);
        }
    }
    counts.injected = current.saturating_add(stale);
    counts.missing = counts.matched.saturating_sub(counts.injected);
    counts.current = Some(current);
    counts.stale = Some(stale);
    missing.sort_unstable();
    strays.sort_unstable();
    (counts, pods_problem(gathered, &counts, &missing, &strays))
}

/// A list of pods as the end of a command, at most so many.
fn some(names: &[&str]) -> String {
    const MOST: usize = 8;
    let rest = if names.len() > MOST { " …" } else { "" };
    format!("{}{rest}", names.iter().take(MOST).copied().collect::<Vec<_>>().join(" "))
}

fn pods_problem(
    gathered: &Gathered,
    counts: &PodCounts,
    missing: &[&str],
    strays: &[&str],
) -> Option<ConditionIntent<ReadyReason>> {
    let namespace = namespace_of(gathered);
    let name = gathered.identity.metadata.name.as_deref().unwrap_or_default();
    let account = &gathered.identity.spec.service_account_name;
    if !missing.is_empty() {
        let message = format!(
            "Of {} pods with the label, {} run without Behalf. Delete them, so that they come back with it: kubectl -n {namespace} delete pod {}",
            counts.matched,
            counts.missing,
            some(missing)
        );
        return Some(ConditionIntent::new(ReadyReason::PodsMissing, message));
    }
    if !strays.is_empty() {
        let message = format!(
            "Pods run as ServiceAccount {account} without the label {}={name}: {}. Only this identity's pods may run as it: add the label to their template, or give them another account.",
            names::LABEL_AGENT_IDENTITY,
            some(strays)
        );
        return Some(ConditionIntent::new(ReadyReason::PodsMissing, message));
    }
    if counts.matched > 0 {
        return None;
    }
    let labels = gathered.namespace.metadata.labels.as_ref();
    let enrolled = labels.and_then(|labels| labels.get(names::LABEL_INJECTION));
    let message = if enrolled.is_some_and(|value| names::Injection::parse(value).is_some()) {
        format!(
            "No pod joined yet. Put the label {}: {name} and serviceAccountName: {account} into the pod template.",
            names::LABEL_AGENT_IDENTITY
        )
    } else {
        format!(
            "No pod can join: the namespace is not enrolled. kubectl label namespace {namespace} {}=Optional",
            names::LABEL_INJECTION
        )
    };
    Some(ConditionIntent::new(ReadyReason::NoPods, message))
}

struct Summary<'a> {
    desired: &'a Desired,
    applied: &'a Applied,
}

/// What the identity's status says, once the server answered for the bundle.
#[must_use]
pub fn identity_status(
    desired: &Desired,
    applied: &Applied,
    previous: Option<&AgentIdentityStatus>,
    now: &Time,
) -> AgentIdentityStatus {
    let mut conditions = previous.map(|status| status.conditions.clone()).unwrap_or_default();
    let ready = ready(&Summary { desired, applied });
    desired.accepted.set(&mut conditions, desired.generation, now);
    desired.resolved_refs.set(&mut conditions, desired.generation, now);
    ready.set(&mut conditions, desired.generation, now);
    let before =
        previous.and_then(|status| status.rollout.as_ref()).filter(|before| before.stage == desired.stage);
    let programmed =
        previous.and_then(|status| status.bundle.as_ref()).and_then(|b| b.programmed_digest.clone());
    AgentIdentityStatus {
        observed_generation: desired.generation,
        rollout: Some(RolloutStatus {
            stage: desired.stage,
            since: before.map_or_else(|| now.clone(), |before| before.since.clone()),
            reason: RolloutReason::AsSpecified,
        }),
        bundle: applied.bundle.as_ref().map(|bundle| BundleStatus {
            digest: bundle.digest.clone(),
            serial: i64::try_from(bundle.serial).ok(),
            programmed_digest: programmed,
        }),
        injection: Some(InjectionStatus { revision: desired.injection_revision.clone() }),
        pods: Some(desired.pods),
        conditions,
    }
}

type ReadyCheck = fn(&Summary<'_>) -> Option<ConditionIntent<ReadyReason>>;

/// In this order: the first that fails is what there is to do first.
const READY_CHECKS: [ReadyCheck; 6] =
    [not_accepted, refs_not_resolved, not_judged, bundle_not_written, suspended, pods_not_right];

fn ready(summary: &Summary<'_>) -> ConditionIntent<ReadyReason> {
    READY_CHECKS.iter().find_map(|check| check(summary)).unwrap_or_else(|| {
        let pods = summary.desired.pods;
        let run = if pods.injected == 1 { "1 pod runs".to_owned() } else { format!("{} pods run", pods.injected) };
        let hint = match pods.stale {
            None | Some(0) => String::new(),
            Some(stale) => {
                format!(" Injected before the last change: {stale}. Restart them to follow: kubectl rollout restart")
            }
        };
        ConditionIntent::new(ReadyReason::Ready, format!("{run} behind Behalf.{hint}"))
    })
}

fn not_accepted(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let accepted = &summary.desired.accepted;
    let message = || format!("Every call is refused. {}", accepted.message);
    accepted.is_false().then(|| ConditionIntent::new(ReadyReason::NotAccepted, message()))
}

fn refs_not_resolved(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let refs = &summary.desired.resolved_refs;
    (!refs.is_true()).then(|| ConditionIntent::new(ReadyReason::RefsNotResolved, refs.message.clone()))
}

fn not_judged(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let accepted = &summary.desired.accepted;
    (!accepted.is_true()).then(|| ConditionIntent::new(ReadyReason::Pending, accepted.message.clone()))
}

fn bundle_not_written(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let message = match (&summary.applied.failure, &summary.applied.bundle) {
        (Some(cause), _) => format!(
            "The bundle could not be written: {cause}. Pods keep what they have; it is tried again. The operator's log says more: kubectl -n {} logs deployment/{}",
            names::SYSTEM_NAMESPACE,
            names::OPERATOR
        ),
        (None, None) => "The bundle was not written yet, so pods cannot start; it is tried again.".to_owned(),
        (None, Some(_)) => return None,
    };
    Some(ConditionIntent::new(ReadyReason::BundleNotWritten, message))
}

fn suspended(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let message = "Every call is refused, because spec.state is Suspended. Set it to Active to serve again.";
    summary.desired.suspended.then(|| ConditionIntent::new(ReadyReason::Suspended, message))
}

fn pods_not_right(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    summary.desired.pods_problem.clone()
}
