//! The Lease: which replica may write.
//!
//! One replica holds `names::LEASE` and renews it; the others look at it and take it over when it was given back, or when
//! it stood still for its whole duration by *their* clock. Times in the record are never compared with a clock: they come
//! from other machines. The holder believes in itself for less time than the others wait, counted from just before its
//! last successful renewal was sent, on a clock that goes on while the machine or the process is frozen. So whoever wakes
//! up late knows it, before it writes. What it may have sent just before it froze is stopped by the resource version that
//! every write of an object carries.

mod leadership;

use std::sync::Arc;
use std::time::Duration;

use behalf_crds::names;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::leadership::{Leader, Leadership, holder};
use self::leadership::{Seen, Term};
use super::{is_conflict, is_not_found};
use crate::clock::{Clock, Monotonic};
use crate::metrics::Metrics;

/// How long a Lease has to stand still before another replica takes it.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a holder believes in itself after its last successful renewal.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews.
pub const RENEW: Duration = Duration::from_secs(5);
/// How often the others look, and how soon a failed renewal is repeated.
const POLL: Duration = Duration::from_secs(1);
/// The longest pause while the API server does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(3);
/// A longer duration in a record (of another release, say) is heeded up to here.
const LONGEST_DURATION: Duration = Duration::from_mins(1);
/// Field manager of the Lease.
const MANAGER: &str = "behalf/lease";

/// Keeps the Lease: see [`Election::keep`].
pub struct Election {
    api: Api<Lease>,
    holder: String,
    candidate: bool,
    wall: Clock,
    term: Arc<Term>,
    seen: watch::Sender<Seen>,
    metrics: Arc<Metrics>,
    state: State,
}

/// What is known of the record.
#[derive(Default)]
struct State {
    /// The Lease as we wrote it last, until somebody else is seen to have written it.
    held: Option<Lease>,
    /// When that was sent.
    renewed: Duration,
    /// What the record said when it was last seen to have changed, and when that was.
    observed: Option<Observed>,
    failures: u32,
}

/// A version of the record. Not its times tell whether it was renewed, but that it was written at all.
struct Observed {
    version: Option<String>,
    spec: LeaseSpec,
    since: Duration,
}

impl Observed {
    fn new(lease: &Lease, since: Duration) -> Self {
        let version = lease.metadata.resource_version.clone();
        Self { version, spec: lease.spec.clone().unwrap_or_default(), since }
    }
}

/// Who keeps the Lease, and how.
pub struct Candidate {
    /// How the Lease names us: [`holder`].
    pub holder: String,
    /// Whether we want to lead; else we only look who does.
    pub candidate: bool,
    /// The time written into the record, for people.
    pub wall: Clock,
    /// The clock by which everything is judged.
    pub clock: Monotonic,
}

impl Election {
    /// Of the Lease in `namespace`. The second value says how it stands.
    #[must_use]
    pub fn new(client: Client, namespace: &str, who: Candidate, metrics: Arc<Metrics>) -> (Self, Leadership) {
        let term = Arc::new(Term::new(who.clock));
        let (sender, leadership) = Leadership::follow(&term);
        let election = Self {
            api: Api::namespaced(client, namespace),
            holder: who.holder,
            candidate: who.candidate,
            wall: who.wall,
            term,
            seen: sender,
            metrics,
            state: State::default(),
        };
        (election, leadership)
    }

    /// Acquires the Lease whenever it is free and renews it, until told to stop; then gives it back. Whatever writes has to
    /// have stopped by then.
    pub async fn keep(mut self, stop: CancellationToken) {
        loop {
            let pause = self.step().await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.release().await;
    }

    /// Does what is due now; how long to wait for the next time.
    pub async fn step(&mut self) -> Duration {
        let now = self.now();
        let due = self.state.renewed + RENEW;
        if self.term.leads() && now < due {
            self.tell();
            return due.saturating_sub(now).min(POLL);
        }
        let left = self.term.until().checked_sub(now).filter(|left| !left.is_zero());
        let patience = left.map_or(REQUEST, |left| left.min(REQUEST));
        let outcome = tokio::time::timeout(patience, self.attempt()).await;
        let pause = match outcome {
            Ok(Ok(())) => {
                self.state.failures = 0;
                POLL
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("no answer in time"),
        };
        self.tell();
        pause
    }

    fn failed(&mut self, why: &str) -> Duration {
        let failures = self.state.failures;
        self.state.failures = failures.saturating_add(1);
        if failures == 0 {
            tracing::warn!(why, leads = self.term.leads(), "cannot read or renew the Lease");
        }
        // While we still lead there is no time to lose.
        if self.term.leads() { POLL } else { POLL.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE) }
    }

    async fn attempt(&mut self) -> Result<(), Error> {
        if let Some(held) = self.state.held.clone()
            && self.write(held, false).await?
        {
            return Ok(());
        }
        let found = self.api.get_opt(names::LEASE).await?;
        let Some(found) = found else {
            self.state.observed = None;
            if self.candidate {
                self.create().await?;
            }
            return Ok(());
        };
        let free = self.observe(&found);
        let ours = found.spec.as_ref().and_then(|it| it.holder_identity.as_ref()) == Some(&self.holder);
        if !ours {
            // Whoever wrote that: we do not wait for our time to run out.
            self.term.end();
        }
        if self.candidate && (free || ours) {
            self.write(found, !ours).await?;
        }
        Ok(())
    }

    /// Looks at the record; whether it may be taken.
    fn observe(&mut self, found: &Lease) -> bool {
        let now = self.now();
        let version = &found.metadata.resource_version;
        if self.state.observed.as_ref().is_none_or(|seen| seen.version != *version) {
            self.state.observed = Some(Observed::new(found, now));
        }
        let holder = found.spec.as_ref().and_then(|it| it.holder_identity.as_deref());
        holder.unwrap_or_default().is_empty() || self.stale(now)
    }

    /// Whether the record stood still for the whole of its duration, by our clock.
    fn stale(&self, now: Duration) -> bool {
        self.state.observed.as_ref().is_some_and(|seen| {
            let said = seen.spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
            now.saturating_sub(seen.since) >= Duration::from_secs(said).clamp(DURATION, LONGEST_DURATION)
        })
    }

    /// Makes the Lease; somebody else may be faster.
    async fn create(&mut self) -> Result<(), Error> {
        let labels = [(names::LABEL_PART_OF, names::PART_OF), (names::LABEL_MANAGED_BY, names::MANAGED_BY)];
        let metadata = ObjectMeta {
            name: Some(names::LEASE.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        };
        let lease = Lease { metadata, spec: Some(self.record(None, true)) };
        let sent = self.now();
        match self.api.create(&parameters(), &lease).await {
            Ok(written) => self.renewed(written, sent),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes ourselves into `lease` as it was read; whether nobody else had changed it.
    async fn write(&mut self, mut lease: Lease, taken: bool) -> Result<bool, Error> {
        lease.spec = Some(self.record(lease.spec.as_ref(), taken));
        let sent = self.now();
        match self.api.replace(names::LEASE, &parameters(), &lease).await {
            Ok(written) => {
                self.renewed(written, sent);
                Ok(true)
            }
            Err(error) if is_conflict(&error) || is_not_found(&error) => {
                self.state.held = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn renewed(&mut self, written: Lease, sent: Duration) {
        self.state.observed = Some(Observed::new(&written, self.now()));
        (self.state.held, self.state.renewed) = (Some(written), sent);
        self.term.extend(sent + DEADLINE);
    }

    fn record(&self, before: Option<&LeaseSpec>, taken: bool) -> LeaseSpec {
        let now = MicroTime(self.wall.timestamp());
        let transitions = before.and_then(|it| it.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if taken {
                Some(now.clone())
            } else {
                before.and_then(|it| it.acquire_time.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(if taken && before.is_some() {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that the next one need not wait. Nobody leads from now on.
    pub async fn release(&mut self) {
        let led = self.term.leads();
        self.term.end();
        self.tell();
        let Some(mut lease) = self.state.held.take().filter(|_| led) else { return };
        let spec = lease.spec.get_or_insert_default();
        (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
        spec.renew_time = Some(MicroTime(self.wall.timestamp()));
        match tokio::time::timeout(REQUEST, self.api.replace(names::LEASE, &parameters(), &lease)).await {
            Ok(Ok(_)) => tracing::info!("gave the Lease back"),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "cannot give the Lease back; it runs out by itself");
            }
            Err(_) => tracing::warn!("cannot give the Lease back in time; it runs out by itself"),
        }
    }

    /// Tells how it stands, if that is news.
    fn tell(&self) {
        let (leads, now) = (self.term.leads(), self.now());
        let leader = self
            .state
            .observed
            .as_ref()
            .filter(|_| !self.stale(now))
            .and_then(|seen| Leader::parse(seen.spec.holder_identity.as_deref().unwrap_or_default()));
        self.metrics.leader.set(i64::from(leads));
        self.seen.send_if_modified(|seen| {
            let next = Seen { leads, leader };
            let changed = *seen != next;
            if changed {
                tracing::info!(leads, leader = next.leader.as_ref().map(|it| it.name.as_str()), "leadership");
                *seen = next;
            }
            changed
        });
    }

    fn now(&self) -> Duration {
        self.term.now()
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_gives_up_well_before_another_takes_over() {
        assert!(RENEW < DEADLINE && DEADLINE < DURATION);
        assert!(DEADLINE + REQUEST <= DURATION);
    }
}
