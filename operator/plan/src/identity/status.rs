//! What the identity's status says once the server answered, and when the identity is ready.

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    AgentIdentityStatus, BundleStatus, BypassClosedReason, ConditionReason as _, ConditionType,
    InjectionStatus, ReadyReason, RolloutReason, RolloutStatus, find_condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Desired, heard, programmed};
use crate::bypass;
use crate::conditions::ConditionIntent;
use crate::gathered::Applied;

struct Summary<'a> {
    desired: &'a Desired,
    applied: &'a Applied,
    previous: Option<&'a AgentIdentityStatus>,
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
    let ready = ready(&Summary { desired, applied, previous });
    let programming = programmed::programming(desired, applied, previous);
    desired.accepted.set(&mut conditions, desired.generation, now);
    bypass_closed(desired, previous).set(&mut conditions, desired.generation, now);
    programming.condition.set(&mut conditions, desired.generation, now);
    desired.resolved_refs.set(&mut conditions, desired.generation, now);
    ready.set(&mut conditions, desired.generation, now);
    let before =
        previous.and_then(|status| status.rollout.as_ref()).filter(|before| before.stage == desired.stage);
    let before_that =
        previous.and_then(|status| status.bundle.as_ref()).and_then(|b| b.programmed_digest.clone());
    let everywhere = programming.condition.is_true();
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
            programmed_digest: if everywhere { Some(bundle.digest.clone()) } else { before_that },
        }),
        injection: Some(InjectionStatus { revision: desired.injection_revision.clone() }),
        pods: Some(programming.pods),
        decisions: desired.decisions.clone().or_else(|| previous.and_then(|status| status.decisions.clone())),
        conditions,
    }
}

type ReadyCheck = fn(&Summary<'_>) -> Option<ConditionIntent<ReadyReason>>;

/// In this order: the first that fails is what there is to do first.
const READY_CHECKS: [ReadyCheck; 9] = [
    not_accepted,
    refs_not_resolved,
    not_judged,
    bundle_not_written,
    suspended,
    pods_not_right,
    pods_complain,
    pods_complained,
    bypass_open,
];

fn ready(summary: &Summary<'_>) -> ConditionIntent<ReadyReason> {
    READY_CHECKS.iter().find_map(|check| check(summary)).unwrap_or_else(|| {
        let pods = summary.desired.pods;
        let run = if pods.injected == 1 { "1 pod runs".to_owned() } else { format!("{} pods run", pods.injected) };
        let hint = match pods.outdated {
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
        (Some(reason), _) => format!(
            "The bundle could not be written ({reason}). Pods keep what they have; it is tried again. The operator's log says more: kubectl -n {} logs deployment/{}",
            names::SYSTEM_NAMESPACE,
            names::OPERATOR
        ),
        // Then nothing is to be written, and what there is to do is said with the pods.
        (None, None) if !summary.desired.enrolled => return None,
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

fn pods_complain(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    heard::problem(summary.desired)
}

/// Who has just begun to listen does not take silence for an end of the trouble.
fn pods_complained(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    let Summary { desired, previous, .. } = summary;
    let awaited = desired.settling && desired.heard.iter().any(heard::Heard::unheard);
    let before = previous.filter(|_| awaited)?;
    let ready = find_condition(&before.conditions, ConditionType::Ready)?;
    let reason = ReadyReason::ALL.iter().copied().find(|it| it.as_str() == ready.reason)?;
    heard::is_told(reason).then(|| ConditionIntent::new(reason, ready.message.clone()))
}

fn bypass_closed(
    desired: &Desired,
    previous: Option<&AgentIdentityStatus>,
) -> ConditionIntent<BypassClosedReason> {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    bypass::settled(&desired.bypass, desired.settling, before)
}

fn bypass_open(summary: &Summary<'_>) -> Option<ConditionIntent<ReadyReason>> {
    bypass::ready_problem(&bypass_closed(summary.desired, summary.previous))
}
