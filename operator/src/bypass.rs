//! Trials from outside: who answers on the ports of injected pods, asked as any caller of the cluster could ask.
//!
//! Only the leader makes them. A pod is tried when its sidecar has reported for the first time in a boot, when its
//! listeners, squatted ports, addresses or revision change, sooner again after a trial that found fault, and otherwise every
//! [`EVERY`]. What was found lies in [`Findings`]; a change of it, and nothing else, has the identity reconciled.

mod ask;
mod findings;
mod schedule;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use behalf_crds::names;
use behalf_plan::bypass::{self, Life, Told, Trial};
use behalf_policy::feed::Report;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::kube_io::caches::{Caches, Change};
use crate::kube_io::lease::Leadership;

pub use ask::{Asker, Patience};
pub use findings::{Findings, facts};
pub use schedule::Schedule;
pub use trial::{Subject, trial};

/// How often a pod is tried at which nothing changes, give or take a tenth.
pub const EVERY: Duration = Duration::from_mins(10);
/// How soon a pod is tried again at which something was found, or which could not be tried.
pub const AGAIN: Duration = Duration::from_secs(30);
/// How soon a change of a report or a pod is noticed.
const SWEEP: Duration = Duration::from_secs(1);
/// Pods that are tried at a time. The tries themselves are bounded by the [`Asker`].
const TRIALS: usize = 16;

/// Where the reports of sidecars are found.
pub trait Reports: Send + Sync + 'static {
    /// What the pod of this UID told last.
    fn report(&self, pod_uid: &str) -> Option<Arc<Report>>;
}

impl<F> Reports for F
where
    F: Fn(&str) -> Option<Arc<Report>> + Send + Sync + 'static,
{
    fn report(&self, pod_uid: &str) -> Option<Arc<Report>> {
        self(pod_uid)
    }
}

/// Makes trials and keeps what they find.
#[derive(Clone)]
pub struct Trials {
    caches: Caches,
    reports: Arc<dyn Reports>,
    findings: Findings,
    asker: Asker,
    changes: mpsc::Sender<Change>,
}

impl Trials {
    /// Tries the pods of `caches` that `reports` tell of, puts what is found into `findings`, and says so to `changes`.
    pub fn new(
        caches: Caches,
        reports: impl Reports,
        findings: Findings,
        asker: Asker,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Self { caches, reports: Arc::new(reports), findings, asker, changes }
    }

    /// Makes trials while this replica leads, until told to stop. Ends before that if trials cannot be made any more: then
    /// the process has to end.
    pub async fn lead(self, mut leadership: Leadership, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.gained() => {}
            }
            // What is under way when the term ends is dropped: trials write nothing.
            tokio::select! {
                () = self.clone().run(stop.clone()) => return,
                () = leadership.lost() => {}
            }
        }
    }

    /// Makes trials until told to stop. What was found in an earlier term counts no more.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => return,
            filled = self.caches.filled() => if filled.is_err() { return },
        }
        self.findings.clear();
        let (mut schedule, mut trials) = (Schedule::default(), JoinSet::<(Subject, Option<Trial>)>::new());
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while trials.len() < TRIALS
                && let Some(subject) = schedule.take(Instant::now())
            {
                let asker = self.asker.clone();
                trials.spawn(async move {
                    let trial = trial(&asker, &subject).await;
                    (subject, trial)
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = trials.join_next() => match ended {
                    Ok((subject, trial)) => schedule.done(&subject, trial, jitter(), Instant::now()),
                    Err(error) => {
                        tracing::error!(error = %error, "a trial broke off");
                        return;
                    }
                },
                _ = sweeps.tick() => {
                    // A pod that ended during its trial is forgotten here, before what was found of it is told.
                    self.sweep(&mut schedule);
                    if !self.publish(&schedule, &stop).await { return }
                }
            }
        }
    }

    /// Looks at all pods: which of them run with Behalf inside, and what their sidecars told.
    fn sweep(&self, schedule: &mut Schedule) {
        let pods = self.caches.pods.state();
        let seen = pods.iter().filter_map(|pod| self.look_at(pod));
        schedule.see(seen, Instant::now());
    }

    /// A pod that runs; its report, if there is one.
    fn look_at(&self, pod: &Pod) -> Option<(Subject, Option<Told>)> {
        let name = pod.labels().get(names::LABEL_AGENT_IDENTITY)?;
        let namespace = pod.metadata.namespace.as_deref()?;
        let held = self.caches.identities.get(&ObjectRef::new(name).within(namespace))?;
        let identity = held.0.as_ref().ok()?;
        let reach = bypass::pod_reach(pod, identity).filter(|reach| reach.life == Life::Running)?;
        let report = self.reports.report(&reach.uid);
        let subject = Subject {
            namespace: namespace.to_owned(),
            identity: name.clone(),
            pod: reach.name,
            uid: reach.uid,
            addresses: reach.addresses,
            revision: pod.annotations().get(names::ANNOTATION_INJECTED).cloned(),
            server_port: bypass::server_port(identity)?,
            extra_ports: bypass::declared(identity),
            boot: report.as_ref().map(|report| report.boot.clone()).unwrap_or_default(),
            listeners: report.as_ref().map(|report| report.listeners.clone()).unwrap_or_default(),
            squatted: report.as_ref().map(|report| report.squatted.clone()).unwrap_or_default(),
            proof_key: report.as_ref().map(|report| report.proof_key.clone()),
        };
        let told = report
            .map(|report| Told { squatted: report.squatted.clone(), more_listeners: report.more_listeners });
        Some((subject, told))
    }

    /// Hands on what is known now, and says of which identities it is something else than before. Whether to go on.
    async fn publish(&self, schedule: &Schedule, stop: &CancellationToken) -> bool {
        for (namespace, name) in self.findings.replace(schedule.standings()) {
            tokio::select! {
                () = stop.cancelled() => return false,
                sent = self.changes.send(Change::Learnt { namespace, name }) => if sent.is_err() { return false },
            }
        }
        true
    }
}

/// A tenth less to a tenth more.
fn jitter() -> f64 {
    let mut byte = [0; 1];
    // Without randomness all are tried at once, which is still right.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    0.9 + f64::from(byte[0]) / 255.0 * 0.2
}
