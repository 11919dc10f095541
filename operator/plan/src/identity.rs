//! One identity: what its pods are to run by, and what its status says.

mod certificate;
mod heard;
mod programmed;
mod status;

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    self as crds, AcceptedReason, BypassClosedReason, ConditionType, DecisionCounts, PodCounts, ReadyReason,
    ResolvedRefsReason, State,
};
use behalf_policy::bundle::document::{FORMAT, FeedDocument, PolicyDocument};
use behalf_policy::bundle::{Bundle, Document, RefuseAllReason, Serve};

use k8s_openapi::api::core::v1::Namespace;

use crate::bypass;
use crate::compile::{self, Resolved, namespace_of};
use crate::conditions::ConditionIntent;
use crate::gathered::{Gathered, Settings};
use crate::inject;

pub use heard::Heard;
pub use status::identity_status;

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
    /// The pods, as far as it does not depend on what they run by.
    pub pods: PodCounts,
    /// What the injected pods say of themselves, in order of their names.
    pub heard: Vec<Heard>,
    /// Where the certificate of the pods' sidecar comes from; none: it does not terminate TLS.
    pub certificate: Option<crds::CertificateSource>,
    /// Nobody listened for long enough yet: what was known before still counts.
    pub settling: bool,
    /// What the pods have decided; none: nothing was told yet.
    pub decisions: Option<DecisionCounts>,
    /// The `BypassClosed` condition, as far as it does not depend on what was known before.
    pub bypass: ConditionIntent<BypassClosedReason>,
    /// Namespace of the identity.
    pub namespace: String,
    /// Namespace of the operator.
    pub system_namespace: String,
    /// Whether pods of the namespace may join at all.
    pub enrolled: bool,
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
        bundle: match (deleted, enrolled(&gathered.namespace) || gathered.last_bundle.is_some()) {
            // Nobody can join there, and admission lets the operator make no bundle there.
            (_, false) => BundleIntent::Keep,
            (true, true) => BundleIntent::Write(tombstone()),
            (false, true) => verdict.bundle,
        },
        enrolled: enrolled(&gathered.namespace),
        accepted: verdict.accepted,
        resolved_refs: verdict.resolved_refs,
        injection_revision: revision,
        pods,
        heard: heard::heard(gathered),
        certificate: certificate::source(&gathered.identity),
        settling: gathered.reports.settling,
        decisions: gathered.reports.decisions.clone(),
        bypass: bypass::verdict(&gathered.identity, &gathered.bypass, settings),
        namespace: namespace_of(gathered).to_owned(),
        system_namespace: settings.system_namespace.clone(),
        stage: gathered.identity.spec.rollout.stage,
        generation: gathered.identity.metadata.generation,
        suspended: gathered.identity.spec.state == State::Suspended,
        pods_problem,
    }
}

fn enrolled(namespace: &Namespace) -> bool {
    let label = namespace.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_INJECTION));
    label.is_some_and(|value| names::Injection::parse(value).is_some())
}

/// What the pods of a deleted identity run by: nothing is served.
#[must_use]
pub fn tombstone() -> Serve {
    Serve::RefuseAll { reason: RefuseAllReason::IdentityDeleted }
}

/// The document to sign and write; none if the last one says the same. `salt` is that of the installation, for records.
///
/// Its serial is the greater of the last one + 1 and the time in milliseconds: it never goes back, even if the clock does.
#[must_use]
pub fn next_document(
    namespace: &str,
    name: &str,
    serve: Serve,
    feed: Option<&FeedDocument>,
    salt: Option<&str>,
    last: Option<&Document>,
    now_ms: u64,
) -> Option<Document> {
    let unchanged = last.is_some_and(|last| {
        last.format == FORMAT
            && last.namespace == namespace
            && last.identity == name
            && last.feed.as_ref() == feed
            && last.record_salt.as_deref() == salt
            && last.serve == serve
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
        feed: feed.cloned(),
        record_salt: salt.map(str::to_owned),
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
    if compile::is_tls_elsewhere(&gathered.identity, settings) {
        let url =
            gathered.identity.spec.servers.first().map(|server| server.url.as_str()).unwrap_or_default();
        return ConditionIntent::new(
            AcceptedReason::AcceptedTLSElsewhere,
            format!(
                "Valid, and the server's url is https inside the cluster ({url}), where the sidecar takes plain http: something in front of the pod must terminate TLS. To let the sidecar do it: spec.servers[0].tls."
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
    let (mut followed, mut outdated) = (0_i64, 0_i64);
    let mut missing = Vec::new();
    let mut strays = Vec::new();
    let enrolled = enrolled(&gathered.namespace);
    for pod in gathered.pods.iter().filter(|pod| pod.is_counted()) {
        if !pod.labelled {
            // Where no pod can join, none is asked to.
            if enrolled && pod.service_account == *account {
                strays.push(pod.name.as_str());
            }
            continue;
        }
        counts.matched = counts.matched.saturating_add(1);
        if !pod.injected {
            missing.push(pod.name.as_str());
        } else if pod.revision.as_deref() == Some(revision) {
            followed = followed.saturating_add(1);
        } else {
            outdated = outdated.saturating_add(1);
        }
    }
    counts.injected = followed.saturating_add(outdated);
    counts.missing = counts.matched.saturating_sub(counts.injected);
    counts.outdated = Some(outdated);
    counts.stray = i64::try_from(strays.len()).ok().filter(|strays| *strays > 0);
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
    let bare = (!missing.is_empty()).then(|| {
        format!(
            "Of {} pods with the label, {} run without Behalf. Delete them, so that they come back with it: kubectl -n {namespace} delete pod {}",
            counts.matched,
            counts.missing,
            some(missing)
        )
    });
    let stray = (!strays.is_empty()).then(|| {
        format!(
            "Pods run as ServiceAccount {account} without the label {}={name}: {}. Only this identity's pods may run as it: add the label to their template, or give them another account, then delete them: kubectl -n {namespace} delete pod {}",
            names::LABEL_AGENT_IDENTITY,
            some(strays),
            some(strays)
        )
    });
    let wrong: Vec<_> = bare.into_iter().chain(stray).collect();
    if !wrong.is_empty() {
        return Some(ConditionIntent::new(ReadyReason::PodsMissing, wrong.join("\n")));
    }
    if counts.matched > 0 {
        return None;
    }
    let message = if enrolled(&gathered.namespace) {
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
