//! Whether every pod runs by the bundle that was written last: by their own word, never assumed.

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    AgentIdentityStatus, ConditionReason as _, ConditionType, PodCounts, ProgrammedReason, find_condition,
};

use super::{Desired, heard, some};
use crate::conditions::ConditionIntent;
use crate::gathered::Applied;
use crate::reports::REPORT_MAX_AGE_SECONDS;

/// What `Programmed` says, and the counts that go with it.
pub(super) struct Programming {
    /// The condition.
    pub(super) condition: ConditionIntent<ProgrammedReason>,
    /// The pods.
    pub(super) pods: PodCounts,
}

pub(super) fn programming(
    desired: &Desired,
    applied: &Applied,
    previous: Option<&AgentIdentityStatus>,
) -> Programming {
    let digest = applied.bundle.as_ref().map(|bundle| bundle.digest.as_str());
    let awaited = desired.heard.iter().any(heard::Heard::awaited);
    let kept = previous.filter(|_| awaited && desired.settling).and_then(|it| kept(desired, it, digest));
    let condition = judge(desired, digest);
    match kept {
        // What is known already cannot be hidden by what is not known yet.
        Some(kept) if !condition.is_false() => kept,
        _ => Programming { condition, pods: counted(desired, digest, None) },
    }
}

/// Who has just begun to listen takes what was known of the same bundle for what it was.
fn kept(desired: &Desired, previous: &AgentIdentityStatus, digest: Option<&str>) -> Option<Programming> {
    let same = previous.bundle.as_ref().map(|bundle| bundle.digest.as_str()) == digest;
    let condition = find_condition(&previous.conditions, ConditionType::Programmed).filter(|_| same)?;
    let reason = ProgrammedReason::ALL.iter().copied().find(|it| it.as_str() == condition.reason)?;
    Some(Programming {
        condition: ConditionIntent::new(reason, condition.message.clone()),
        pods: counted(desired, digest, previous.pods.and_then(|pods| pods.current)),
    })
}

/// With a count that was known before, or by what was heard.
fn counted(desired: &Desired, digest: Option<&str>, before: Option<i64>) -> PodCounts {
    let injected = desired.pods.injected;
    let run = desired.heard.iter().filter(|heard| digest.is_some_and(|digest| heard.runs(digest))).count();
    let current = before.unwrap_or(i64::try_from(run).unwrap_or(i64::MAX)).min(injected);
    PodCounts { current: Some(current), stale: Some(injected.saturating_sub(current)), ..desired.pods }
}

fn judge(desired: &Desired, digest: Option<&str>) -> ConditionIntent<ProgrammedReason> {
    let Some(digest) = digest else {
        let message =
            "There is no bundle yet, so pods cannot start. It is written as soon as it can be; see Ready.";
        return ConditionIntent::new(ProgrammedReason::BundleNotWritten, message);
    };
    let behind: Vec<_> = desired.heard.iter().filter(|heard| !heard.runs(digest)).collect();
    let rejecting: Vec<_> = behind
        .iter()
        .filter(|heard| heard.report.as_ref().is_some_and(|report| report.rejected.is_some()))
        .map(|heard| heard.pod.as_str())
        .collect();
    if let Some((_, reasons)) = heard::rejected(desired).filter(|_| !rejecting.is_empty()) {
        let message = heard::rejection(desired, &rejecting, &reasons);
        return ConditionIntent::new(ProgrammedReason::BundleRejected, message);
    }
    let names = |concerns: fn(&heard::Heard) -> bool| -> Vec<_> {
        behind.iter().filter(|heard| concerns(heard)).map(|heard| heard.pod.as_str()).collect()
    };
    let silent = names(|heard| heard.silent);
    if !silent.is_empty() {
        return ConditionIntent::new(ProgrammedReason::NotReporting, not_reporting(desired, &silent));
    }
    let older = names(|heard| heard.report.is_some());
    if !older.is_empty() {
        let message = format!(
            "The newest bundle is on its way to: {}. That takes about a second; if it lasts, ask the sidecar: kubectl -n {} logs {} -c {}",
            some(&older),
            desired.namespace,
            older.first().copied().unwrap_or_default(),
            names::CONTAINER_SIDECAR
        );
        return ConditionIntent::new(ProgrammedReason::PodsBehind, message);
    }
    let awaited = names(heard::Heard::awaited);
    if !awaited.is_empty() {
        let message =
            format!("Not heard yet what they run by: {}. They tell within seconds.", some(&awaited));
        return ConditionIntent::new(ProgrammedReason::Pending, message);
    }
    // What is left starts up, and reads the newest bundle when it does.
    match desired.heard.iter().filter(|heard| heard.runs(digest)).count() {
        0 => ConditionIntent::new(ProgrammedReason::NoPods, "No pod runs yet that could tell."),
        1 => ConditionIntent::new(
            ProgrammedReason::Programmed,
            "The one pod that runs says that it runs by the newest bundle.",
        ),
        pods => ConditionIntent::new(
            ProgrammedReason::Programmed,
            format!("All {pods} pods that run say that they run by the newest bundle."),
        ),
    }
}

fn not_reporting(desired: &Desired, silent: &[&str]) -> String {
    format!(
        "Nothing was heard for {REPORT_MAX_AGE_SECONDS} seconds from: {}. They judge calls by the last bundle they have and follow no change. They have to reach port 443 of the Service {} in {} (NetworkPolicies for egress?); a pod that is stuck comes back when it is deleted: kubectl -n {} delete pod {}",
        some(silent),
        names::FEED_SERVICE,
        desired.system_namespace,
        desired.namespace,
        some(silent)
    )
}
