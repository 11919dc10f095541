//! What the leader was told: by each pod its last report, for each identity one ledger.
//!
//! A value without I/O that takes the time as an argument. The feed puts reports in; the reconciler takes out what its
//! plan needs, writes the ledger, and says that it did. Empty at the beginning of each term.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use behalf_plan::reports::{self, Absorbed, FIRST_REPORT_SECONDS, REPORT_MAX_AGE_SECONDS};
use behalf_plan::{Ledger, PodFacts, Reports, Stand, Told};
use behalf_policy::feed::Report;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::IdentityKey;
use super::allot::Allotments;
use super::caller::Reporter;
use crate::kube_io::caches::Change;

/// A pod that was not heard for so long is silent.
const MAX_AGE: Duration = Duration::from_secs(REPORT_MAX_AGE_SECONDS);
/// The same for one that was not heard at all yet.
const FIRST: Duration = Duration::from_secs(FIRST_REPORT_SECONDS);

/// What was told.
#[derive(Debug)]
pub struct Desk {
    /// Counts that merely move are written no more often than this.
    interval: Duration,
    state: Mutex<State>,
    allotments: Allotments,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    pods: HashMap<String, Pod>,
    tables: BTreeMap<IdentityKey, Table>,
}

/// What one pod told.
#[derive(Debug)]
struct Pod {
    identity: IdentityKey,
    heard: Instant,
    silent: bool,
    report: Option<Arc<Report>>,
}

/// What the pods of one identity told.
#[derive(Debug, Default)]
struct Table {
    pods: BTreeSet<String>,
    ledger: Option<Ledger>,
    /// The ledger goes on from what was stored.
    loaded: bool,
    object: Option<Arc<ConfigMap>>,
    unwritten: Option<Absorbed>,
    version: u64,
    written: Option<Instant>,
}

/// A ledger to be written.
#[derive(Debug)]
pub struct Unwritten {
    /// Its text.
    pub text: String,
    /// What it takes the place of.
    pub seen: Option<Arc<ConfigMap>>,
    /// Until when it may wait, unless something else is to be written as well; none: it may not.
    pub waits: Option<Duration>,
    version: u64,
}

impl Pod {
    /// When it falls silent.
    fn due(&self) -> Instant {
        self.heard + if self.report.is_some() { MAX_AGE } else { FIRST }
    }
}

impl Table {
    fn note(&mut self, absorbed: Absorbed) {
        if absorbed > Absorbed::Nothing {
            self.version = self.version.wrapping_add(1);
            self.unwritten = self.unwritten.max(Some(absorbed));
        }
    }
}

impl Desk {
    /// An empty one. Counts that merely move are to be written no more often than every `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default(), allotments: Allotments::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A term begins: from now on silence counts.
    pub fn begin(&self, now: Instant) {
        self.state().since = Some(now);
        self.allotments.begin(now);
    }

    /// A term ended: somebody else is told from now on.
    pub fn end(&self) {
        *self.state() = State::default();
        self.allotments.end();
    }

    /// What pods are given of rate limits, which lies here as well.
    #[must_use]
    pub fn allotments(&self) -> &Allotments {
        &self.allotments
    }

    /// Takes in a report. Whether the identity has to be looked at.
    pub fn report(&self, who: &Reporter, report: Report, at: &Time, now: Instant) -> bool {
        let mut state = self.state();
        let State { pods, tables, .. } = &mut *state;
        let table = tables.entry(who.identity.clone()).or_default();
        table.pods.insert(who.uid.clone());
        let ledger = table.ledger.get_or_insert_with(|| Ledger::new("", at.clone()));
        let absorbed = ledger.absorb(&who.uid, &report);
        let waiting = table.unwritten.is_some();
        table.note(absorbed);
        let pod = pods.entry(who.uid.clone()).or_insert_with(|| Pod {
            identity: who.identity.clone(),
            heard: now,
            silent: false,
            report: None,
        });
        pod.heard = now;
        let silent = std::mem::take(&mut pod.silent);
        let news = silent || pod.report.as_ref().is_none_or(|before| is_news(before, &report));
        if pod.report.as_ref().is_none_or(|before| replaces(before, &report)) {
            pod.report = Some(Arc::new(report));
        }
        news || absorbed == Absorbed::Boot || (absorbed == Absorbed::Counts && !waiting)
    }

    /// What the pod of this UID said last.
    #[must_use]
    pub fn last(&self, uid: &str) -> Option<Arc<Report>> {
        self.state().pods.get(uid)?.report.clone()
    }

    /// What is known of an identity's pods, which are these. From now on each that runs is listened for.
    #[must_use]
    pub fn reports(&self, identity: &IdentityKey, facts: &[PodFacts], now: Instant) -> Reports {
        let mut state = self.state();
        let settling = state.since.is_some_and(|since| now.saturating_duration_since(since) < FIRST);
        let State { pods, tables, .. } = &mut *state;
        let ours: BTreeMap<&str, &PodFacts> =
            facts.iter().filter(|it| it.labelled && it.injected).map(|it| (it.uid.as_str(), it)).collect();
        if ours.is_empty() && !tables.contains_key(identity) {
            return Reports { settling, ..Reports::default() };
        }
        let table = tables.entry(identity.clone()).or_default();
        for gone in table.pods.iter().filter(|uid| !ours.contains_key(uid.as_str())) {
            pods.remove(gone);
        }
        table.pods.retain(|uid| ours.contains_key(uid.as_str()));
        for (uid, _) in ours.iter().filter(|(_, facts)| facts.stand == Stand::Running) {
            table.pods.insert((*uid).to_owned());
            pods.entry((*uid).to_owned()).or_insert_with(|| Pod {
                identity: identity.clone(),
                heard: now,
                silent: false,
                report: None,
            });
        }
        let speaks = |uid: &str, boot: &str| {
            let there = ours.get(uid).is_some_and(|facts| facts.stand != Stand::Ended);
            let last = pods.get(uid).and_then(|pod| pod.report.as_ref());
            there && last.is_none_or(|last| last.boot == boot)
        };
        if table.loaded && table.ledger.as_mut().is_some_and(|ledger| ledger.settle(speaks)) {
            table.note(Absorbed::Counts);
        }
        let told = table.pods.iter().filter_map(|uid| {
            let pod = pods.get(uid)?;
            let silent = pod.silent || pod.due() <= now;
            Some((uid.clone(), Told { silent, report: pod.report.clone() }))
        });
        let ledger = table.ledger.as_ref().filter(|ledger| table.loaded && !ledger.is_empty());
        Reports { pods: told.collect(), settling, decisions: ledger.map(Ledger::decisions) }
    }

    /// Whether what is stored of the identity with this UID has to be loaded first. `known`: there was something.
    #[must_use]
    pub fn wants(&self, identity: &IdentityKey, uid: &str, known: bool) -> bool {
        let state = self.state();
        let Some(table) = state.tables.get(identity) else { return known };
        let current = table.loaded && table.ledger.as_ref().is_some_and(|ledger| ledger.identity() == uid);
        !current && (known || table.ledger.is_some())
    }

    /// Goes on from what is stored. What was told since is added to it.
    pub fn load(&self, identity: &IdentityKey, uid: &str, stored: Option<ConfigMap>, known: bool, at: &Time) {
        let text = stored.as_ref().and_then(reports::text);
        let read = text.map(Ledger::from_text);
        if let Some(Err(error)) = &read {
            tracing::error!(
                namespace = identity.0,
                name = identity.1,
                reason = error.reason(),
                "counts begin anew"
            );
        }
        let unreadable = matches!(read, Some(Err(_))) || (stored.is_some() && text.is_none());
        // Counts of an identity that was deleted and made again are another's.
        let own = read.and_then(Result::ok).filter(|ledger| ledger.identity() == uid);
        let lost = own.is_none() && (known || unreadable);
        let mut state = self.state();
        let table = state.tables.entry(identity.clone()).or_default();
        let told = table.ledger.take().filter(|told| told.identity().is_empty() || told.identity() == uid);
        let ledger = match (own, told) {
            (Some(own), Some(told)) => own.join(told),
            (Some(own), None) => own,
            // What went on from it already is all there, and stored again.
            (None, Some(told)) if told.identity() == uid => told,
            (None, told) => {
                let new = Ledger::new(uid, at.clone());
                let new = if lost { new.incomplete() } else { new };
                told.into_iter().fold(new, Ledger::join)
            }
        };
        table.ledger = Some(ledger);
        table.loaded = true;
        table.object = stored.map(Arc::new);
        if lost {
            table.note(Absorbed::Counts);
        }
    }

    /// The ledger of an identity, if it has to be written.
    #[must_use]
    pub fn unwritten(&self, identity: &IdentityKey, now: Instant) -> Option<Unwritten> {
        let state = self.state();
        let table = state.tables.get(identity).filter(|table| table.loaded)?;
        let unwritten = table.unwritten?;
        let due = table.written.map(|written| written + self.interval).filter(|due| *due > now);
        Some(Unwritten {
            text: table.ledger.as_ref()?.to_text().ok()?,
            seen: table.object.clone(),
            waits: due.filter(|_| unwritten < Absorbed::Boot).map(|due| due - now),
            version: table.version,
        })
    }

    /// It was written: this is what the server has now.
    pub fn written(&self, identity: &IdentityKey, unwritten: &Unwritten, object: ConfigMap, now: Instant) {
        let mut state = self.state();
        let Some(table) = state.tables.get_mut(identity) else { return };
        (table.object, table.written) = (Some(Arc::new(object)), Some(now));
        if table.version == unwritten.version {
            table.unwritten = None;
            if let Some(ledger) = &mut table.ledger {
                ledger.fold();
            }
        }
    }

    /// Somebody else wrote: what is stored has to be loaded again.
    pub fn outdated(&self, identity: &IdentityKey) {
        if let Some(table) = self.state().tables.get_mut(identity) {
            table.loaded = false;
        }
    }

    /// The identity is gone.
    pub fn forget(&self, identity: &IdentityKey) {
        self.allotments.forget(identity);
        let mut state = self.state();
        if let Some(table) = state.tables.remove(identity) {
            for uid in table.pods {
                state.pods.remove(&uid);
            }
        }
    }

    /// Says which identities have a pod that fell silent, as it happens.
    pub async fn listen(self: Arc<Self>, changes: mpsc::Sender<Change>, stop: CancellationToken) {
        loop {
            let (silent, next) = self.silence(Instant::now());
            for (namespace, name) in silent {
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = changes.send(Change::Learnt { namespace, name }) => if sent.is_err() { return },
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Identities of which a pod fell silent since the last call, and when to call again.
    fn silence(&self, now: Instant) -> (BTreeSet<IdentityKey>, Instant) {
        let (mut silent, mut next) = (BTreeSet::new(), now + MAX_AGE);
        for pod in self.state().pods.values_mut().filter(|pod| !pod.silent) {
            let due = pod.due();
            if due <= now {
                pod.silent = true;
                silent.insert(pod.identity.clone());
            } else {
                next = next.min(due);
            }
        }
        (silent, next)
    }
}

/// Whether a report says something, counts aside, that the one before did not.
fn is_news(before: &Report, now: &Report) -> bool {
    let digest = |it: &Report| it.bundle.as_ref().map(|bundle| bundle.digest.clone());
    before.boot != now.boot
        || digest(before) != digest(now)
        || before.rejected != now.rejected
        || before.squatted != now.squatted
        || before.credentials_missing != now.credentials_missing
        || before.certificate != now.certificate
}

/// Whether a report is newer than the one before; the last word of an earlier boot is not.
fn replaces(before: &Report, now: &Report) -> bool {
    if before.boot == now.boot { now.sequence > before.sequence } else { !now.ended }
}

#[cfg(test)]
mod tests;
