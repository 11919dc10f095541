//! The reconciler: gather → plan → apply → status, for one object at a time.
//!
//! Everything decided here is decided by the plan; this module knows the order of the steps, what depends on what, and
//! when to try again. It is the only writer of bundles and statuses: only the replica that holds the Lease runs it. The
//! caller of [`run`] starts it when the Lease was gained and stops it when it was lost.

pub mod agent_identity;
mod bundle;
mod counts;
pub mod identity_provider;
pub mod queue;
pub mod scope_catalog;
pub mod triggers;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use behalf_plan::Settings;
use behalf_policy::bundle::document::FeedDocument;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::ReconcileError;
use crate::feed::desk::Desk;
use crate::kube_io::apply::Apply;
use crate::kube_io::caches::Change;
use crate::kube_io::counts::Counts;
use crate::kube_io::events::Events;
use crate::kube_io::gather::Gather;
use crate::kube_io::lease::Leadership;
use crate::kube_io::status::Statuses;
use crate::live::Live;
use crate::metrics::{Kind, Metrics, Reconciled};
use crate::signing::SigningKeys;
use queue::{Next, Queue};
use triggers::Key;

/// Passes at a time.
const CONCURRENCY: usize = 8;

/// What a pass works with.
pub struct Context {
    /// Reads.
    pub gather: Gather,
    /// Writes objects.
    pub apply: Apply,
    /// Reads and writes counts.
    pub counts: Counts,
    /// Writes statuses.
    pub statuses: Statuses,
    /// Writes Events.
    pub events: Events,
    /// Signs bundles.
    pub keys: Live<SigningKeys>,
    /// What plans depend on.
    pub settings: Live<Settings>,
    /// What pods told.
    pub desk: Arc<Desk>,
    /// How pods reach the feed; none until there is a certificate.
    pub feed: watch::Receiver<Option<FeedDocument>>,
    /// Whether this replica may write. Writers ask it themselves, immediately before they send.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// How long a pass that has begun may go on when it is told to stop: to end its write.
const GRACE: Duration = Duration::from_secs(3);

/// Reconciles whatever changes, and everything at first, until told to stop or until nobody tells of changes any more.
/// When it returns nothing is written any more.
pub async fn run(context: Arc<Context>, changes: &mut mpsc::Receiver<Change>, stop: CancellationToken) {
    let mut feed = context.feed.clone();
    if !filled(&context, &mut feed, changes, &stop).await {
        return;
    }
    context.desk.begin(Instant::now());
    let (mut queue, mut passes) = (Queue::default(), JoinSet::new());
    let caches = context.gather.caches().clone();
    for key in triggers::keys(&caches, &Change::Everything) {
        queue.changed(key, Instant::now());
    }
    loop {
        while passes.len() < CONCURRENCY
            && let Some(key) = queue.take(Instant::now())
        {
            let context = Arc::clone(&context);
            passes.spawn(async move {
                let next = pass(&context, &key).await;
                (key, next)
            });
        }
        context.metrics.queue.set(u64::try_from(queue.len()).unwrap_or(u64::MAX));
        let due = if passes.len() < CONCURRENCY { queue.next_due() } else { None };
        tokio::select! {
            () = stop.cancelled() => break,
            change = changes.recv() => match change {
                Some(change) => for key in triggers::keys(&caches, &change) {
                    queue.changed(key, Instant::now());
                },
                None => break,
            },
            // Every bundle names the authorities.
            Ok(()) = feed.changed() => for key in triggers::keys(&caches, &Change::Everything) {
                queue.changed(key, Instant::now());
            },
            Some(ended) = passes.join_next() => match ended {
                Ok((key, next)) => queue.done(key, next, Instant::now()),
                Err(error) => {
                    tracing::error!(error = %error, "a reconciliation broke off");
                    break;
                }
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
    let ended = async { while passes.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        passes.shutdown().await;
    }
    context.desk.end();
}

/// Takes word of changes while the copies fill up and the feed gets its certificate, since those who bring it wait for us.
/// All of it is looked at later. Without the certificate every bundle would be written twice.
async fn filled(
    context: &Context,
    feed: &mut watch::Receiver<Option<FeedDocument>>,
    changes: &mut mpsc::Receiver<Change>,
    stop: &CancellationToken,
) -> bool {
    let filled = async {
        context.gather.caches().filled().await.is_ok() && feed.wait_for(Option::is_some).await.is_ok()
    };
    let mut filled = std::pin::pin!(filled);
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            filled = &mut filled => return filled,
            change = changes.recv() => if change.is_none() { return false },
        }
    }
}

/// One pass over one object.
pub async fn pass(context: &Context, key: &Key) -> Next {
    let started = Instant::now();
    let (kind, result) = match key {
        Key::Identity { namespace, name } => {
            (Kind::AgentIdentity, agent_identity::reconcile(context, namespace, name).await)
        }
        Key::Catalog { name } => (Kind::ScopeCatalog, scope_catalog::reconcile(context, name).await),
        Key::Provider { name } => (Kind::IdentityProvider, identity_provider::reconcile(context, name).await),
    };
    context.metrics.reconcile_seconds.observe(started.elapsed().as_secs_f64());
    let outcome = result.as_ref().map_or_else(ReconcileError::reason, |_| "Ok");
    context.metrics.reconciles.get_or_create(&Reconciled { kind, outcome }).inc();
    match result {
        Ok(next) => next,
        Err(error) => {
            let next = error.next();
            tracing::warn!(%key, reason = error.reason(), error = %error, ?next, "not reconciled");
            next
        }
    }
}
