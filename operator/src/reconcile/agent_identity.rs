//! `AgentIdentity`: its bundle and its status, and when it is gone, its tombstone.

use std::time::Duration;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, AgentIdentityStatus, ResolvedRefsReason};
use behalf_plan::{Applied, BundleIntent, Desired, identity, identity_status, tombstone};
use behalf_policy::bundle::{RefuseAllReason, Serve};

use tokio::time::Instant;

use super::bundle::{self, Written};
use super::queue::Next;
use super::{Context, counts, unreadable};
use crate::error::ReconcileError;
use crate::feed::IdentityKey;
use crate::kube_io::gather::SeenBundle;

/// How often what was seen may be out of date before the pass is given up for now.
const ATTEMPTS: usize = 3;
/// When to look again for what is not watched and should change soon: a service account that is missing, pods outside that
/// run as it, and those that came in while admission did not know the identity yet.
const SOON: Duration = Duration::from_secs(15);
/// For how long pods may still come in that admission, which learns of an identity later, did not hold against it.
const YOUNG: Duration = Duration::from_mins(1);
/// When to look again for such pods where nothing points to any: by admission they cannot be.
const LATER: Duration = Duration::from_mins(10);

/// One pass over one identity.
pub(super) async fn reconcile(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Next, ReconcileError> {
    let Some(held) = context.gather.identity(namespace, name) else {
        return bury(context, namespace, name).await;
    };
    match &held.0 {
        Ok(identity) => serve(context, namespace, name, identity).await,
        Err(invalid) => {
            let refusal = Serve::RefuseAll { reason: RefuseAllReason::IdentityNotAccepted };
            // Said even if it cannot be written, in a namespace that is not enrolled for example.
            let put = put(context, namespace, name, &BundleIntent::Write(refusal)).await;
            unreadable::report(context, held.as_ref(), invalid, "Until then every call is refused.").await?;
            put?;
            Ok(Next::AwaitChange)
        }
    }
}

/// Gather, plan, apply; and once the server answered, the counts and the status.
async fn serve(
    context: &Context,
    namespace: &str,
    name: &str,
    object: &AgentIdentity,
) -> Result<Next, ReconcileError> {
    let told = object.status.as_ref().and_then(|it| it.bundle.as_ref()).and_then(|it| it.serial);
    let told = told.and_then(|serial| u64::try_from(serial).ok());
    let mut seen = context.gather.bundle(namespace, name).after(told);
    let key = (namespace.to_owned(), name.to_owned());
    // Without its counts an identity is served all the same.
    let loaded = counts::load(context, &key, object).await;
    for _ in 0..ATTEMPTS {
        let gathered = context.gather.everything(object, seen.last.clone()).await;
        let mut gathered = gathered.map_err(ReconcileError::api("gather"))?;
        gathered.reports = context.desk.reports(&key, &gathered.pods, Instant::now());
        let desired = identity(&gathered, &context.settings.current());
        match bundle::write(context, namespace, name, &desired.bundle, &seen).await {
            Ok(Written::Applied(applied)) => {
                let waits = report(context, &key, object, &desired, &applied).await?;
                return loaded.map(|()| next(&desired, waits, is_young(context, object)));
            }
            // What to write may depend on what is there, so it is planned again.
            Ok(Written::OutOfDate(now)) => seen = now.after(told),
            Err(error) => {
                report(context, &key, object, &desired, &failed(&seen, &error)).await?;
                return Err(error);
            }
        }
    }
    Err(ReconcileError::Contended)
}

fn failed(seen: &SeenBundle, error: &ReconcileError) -> Applied {
    Applied { failure: Some(error.reason()), ..bundle::applied(seen.last.as_ref()) }
}

/// `waits`: until when counts wait that merely moved.
fn next(desired: &Desired, waits: Option<Duration>, young: bool) -> Next {
    let account = desired.resolved_refs.reason == ResolvedRefsReason::ServiceAccountNotFound;
    let look = if account || young || desired.pods.stray.is_some() { SOON } else { LATER };
    Next::After(waits.map_or(look, |waits| waits.min(look)))
}

fn is_young(context: &Context, object: &AgentIdentity) -> bool {
    let made = object.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| context.clock.now().0.duration_since(made.0).unsigned_abs() < YOUNG)
}

/// Writes the counts, then the status that shows them. If nothing but counts moved they may wait: until when.
async fn report(
    context: &Context,
    key: &IdentityKey,
    object: &AgentIdentity,
    desired: &Desired,
    applied: &Applied,
) -> Result<Option<Duration>, ReconcileError> {
    let before = object.status.as_ref();
    let after = identity_status(desired, applied, before, &context.clock.now());
    let Some(unwritten) = context.desk.unwritten(key, Instant::now()) else {
        tell(context, object, before, &after).await?;
        return Ok(None);
    };
    let decisions = before.and_then(|before| before.decisions.clone());
    let without = AgentIdentityStatus { decisions, ..after.clone() };
    if unwritten.waits.is_some() && before == Some(&without) {
        return Ok(unwritten.waits);
    }
    let written = counts::write(context, key, &unwritten).await;
    // What is not stored is not shown: the next leader would not know it.
    tell(context, object, before, if written.is_ok() { &after } else { &without }).await?;
    written.map(|()| None)
}

async fn tell(
    context: &Context,
    object: &AgentIdentity,
    before: Option<&AgentIdentityStatus>,
    after: &AgentIdentityStatus,
) -> Result<(), ReconcileError> {
    let wrote = context.statuses.write(object, before, after).await;
    if wrote.map_err(ReconcileError::write("write the status"))? {
        let before = before.map(|it| it.conditions.as_slice()).unwrap_or_default();
        unreadable::announce(context, object, before, &after.conditions).await;
    }
    Ok(())
}

/// The identity is gone: its pods, if any are left, refuse all from now on. The tombstone stays, since nobody can tell when
/// the last pod, or the last one that comes back with its node, has read it.
async fn bury(context: &Context, namespace: &str, name: &str) -> Result<Next, ReconcileError> {
    let seen = context.gather.bundle(namespace, name);
    context.desk.forget(&(namespace.to_owned(), name.to_owned()));
    let feed = context.feed.borrow().clone();
    let buried = seen.last.as_ref().is_some_and(|last| {
        last.document.serve == tombstone() && (last.document.feed == feed || feed.is_none())
    });
    let buried = buried && seen.intact;
    if seen.object.is_none() || buried {
        return Ok(Next::AwaitChange);
    }
    // The copy of the identities may lag behind that of the bundles, and a tombstone ends all calls.
    let now = context.gather.identity_now(namespace, name).await;
    if now.map_err(ReconcileError::api("read the identity"))?.is_some() {
        return Err(ReconcileError::Lagging);
    }
    put(context, namespace, name, &BundleIntent::Write(tombstone())).await?;
    tracing::info!(
        namespace,
        name,
        label = names::LABEL_AGENT_IDENTITY,
        "the identity is gone; its pods refuse all"
    );
    Ok(Next::AwaitChange)
}

async fn put(
    context: &Context,
    namespace: &str,
    name: &str,
    intent: &BundleIntent,
) -> Result<(), ReconcileError> {
    let mut seen = context.gather.bundle(namespace, name);
    for _ in 0..ATTEMPTS {
        match bundle::write(context, namespace, name, intent, &seen).await? {
            Written::Applied(_) => return Ok(()),
            // It was deleted as well, with its namespace perhaps: nothing is left to say.
            Written::OutOfDate(now)
                if now.object.is_none() && *intent == BundleIntent::Write(tombstone()) =>
            {
                return Ok(());
            }
            Written::OutOfDate(now) => seen = *now,
        }
    }
    Err(ReconcileError::Contended)
}
