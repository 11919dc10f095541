//! `AgentIdentity`: its bundle and its status, and when it is gone, its tombstone.

use std::time::Duration;

use behalf_crds::names;
use behalf_crds::v1alpha1::{AgentIdentity, ResolvedRefsReason};
use behalf_plan::{Applied, BundleIntent, Desired, identity, identity_status, tombstone};
use behalf_policy::bundle::{RefuseAllReason, Serve};

use super::bundle::{self, Written};
use super::queue::Next;
use super::{Context, unreadable};
use crate::error::ReconcileError;
use crate::kube_io::gather::SeenBundle;

/// How often what was seen may be out of date before the pass is given up for now.
const ATTEMPTS: usize = 3;
/// When to look again for a service account that is missing; they are not watched.
const ACCOUNT_RECHECK: Duration = Duration::from_secs(15);

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
            put(context, namespace, name, &BundleIntent::Write(refusal)).await?;
            unreadable::report(context, held.as_ref(), invalid, "Until then every call is refused.").await?;
            Ok(Next::AwaitChange)
        }
    }
}

/// Gather, plan, apply; and once the server answered, the status.
async fn serve(
    context: &Context,
    namespace: &str,
    name: &str,
    object: &AgentIdentity,
) -> Result<Next, ReconcileError> {
    let told = object.status.as_ref().and_then(|it| it.bundle.as_ref()).and_then(|it| it.serial);
    let told = told.and_then(|serial| u64::try_from(serial).ok());
    let mut seen = context.gather.bundle(namespace, name).after(told);
    for _ in 0..ATTEMPTS {
        let gathered = context.gather.everything(object, seen.last.clone()).await;
        let desired =
            identity(&gathered.map_err(ReconcileError::api("gather"))?, &context.settings.current());
        match bundle::write(context, namespace, name, &desired.bundle, &seen).await {
            Ok(Written::Applied(applied)) => {
                report(context, object, &desired, &applied).await?;
                return Ok(next(&desired));
            }
            // What to write may depend on what is there, so it is planned again.
            Ok(Written::OutOfDate(now)) => seen = now.after(told),
            Err(error) => {
                report(context, object, &desired, &failed(&seen, &error)).await?;
                return Err(error);
            }
        }
    }
    Err(ReconcileError::Contended)
}

fn failed(seen: &SeenBundle, error: &ReconcileError) -> Applied {
    Applied { failure: Some(error.to_string()), ..bundle::applied(seen.last.as_ref()) }
}

fn next(desired: &Desired) -> Next {
    if desired.resolved_refs.reason == ResolvedRefsReason::ServiceAccountNotFound {
        Next::After(ACCOUNT_RECHECK)
    } else {
        Next::AwaitChange
    }
}

async fn report(
    context: &Context,
    object: &AgentIdentity,
    desired: &Desired,
    applied: &Applied,
) -> Result<(), ReconcileError> {
    let before = object.status.as_ref();
    let after = identity_status(desired, applied, before, &context.clock.now());
    let wrote = context.statuses.write(object, before, &after).await;
    if wrote.map_err(ReconcileError::api("write the status"))? {
        let before = before.map(|it| it.conditions.as_slice()).unwrap_or_default();
        unreadable::announce(context, object, before, &after.conditions).await;
    }
    Ok(())
}

/// The identity is gone: its pods, if any are left, refuse all from now on. The tombstone stays, since nobody can tell when
/// the last pod, or the last one that comes back with its node, has read it.
async fn bury(context: &Context, namespace: &str, name: &str) -> Result<Next, ReconcileError> {
    let seen = context.gather.bundle(namespace, name);
    let buried = seen.last.as_ref().is_some_and(|last| last.document.serve == tombstone()) && seen.intact;
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
