//! The sidecar's side of the feed: it tells the operator what it runs and has counted, and is told of its newest bundle.
//!
//! It lives beside the calls and never before them: whatever is wrong with the feed, calls go on by the bundle in memory,
//! and the worst that happens here is a line in the log and a metric. The contract is `behalf_policy::feed`.

mod client;
mod credentials;
mod facts;
mod proof;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use behalf_policy::bundle::document::FeedDocument;
use behalf_policy::feed::{Answer, FORMAT, RecordsHead, Report, Running};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::client::{Client, FeedError};
pub use self::credentials::watch as watch_credentials;
pub use self::facts::{Facts, Squatted, Told};
pub use self::proof::{NoRandom, Prover};
use crate::audit::Audit;
use crate::bundle_source::{Intake, Offered, Way};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::provider::http::HttpClient;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause after a bundle that was not taken.
const AFTER_REJECTION: Duration = Duration::from_secs(2);
/// Answers that are not held come no faster than this.
const QUIET: Duration = Duration::from_secs(1);
/// So many answers in a row may offer what is older than the bundle in use, as a replica of the operator does that learns
/// of the newest a moment late; the next one is told as a rejection.
const LATE_ANSWERS: u32 = 2;
/// However much there is to tell, reports follow each other no faster than this.
const SPACING: Duration = Duration::from_millis(50);
/// The same failure is logged again after this time.
const LOGGED_EVERY: Duration = Duration::from_mins(5);
/// The last report is given up after this time, so that a pod does not linger because the operator is away.
const LAST_WITHIN: Duration = Duration::from_secs(10);

/// What the feed works with.
pub struct Parts {
    /// Names this start, and tells how far its records go.
    pub audit: Audit,
    /// File of the projected token for the feed.
    pub token_file: PathBuf,
    /// How the operator is reached.
    pub http: HttpClient,
    /// Where an answered bundle goes.
    pub intake: Arc<Intake>,
    /// What is told beside the bundle.
    pub facts: Facts,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Whose key is told.
    pub prover: Arc<Prover>,
    /// What is told of rate limits, and given shares of them.
    pub limits: Limits,
}

/// The running feed.
#[derive(Debug)]
pub struct Feed {
    ending: watch::Sender<Option<bool>>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Starts it. Without a feed in the bundle it waits for one.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (ending, asked_to_end) = watch::channel(None);
        let Parts { audit, token_file, http, intake, facts, metrics, prover, limits } = parts;
        let told = Loop {
            client: Client { http, token_file },
            bundle_changes: intake.bundles().changes(),
            fact_changes: facts.changes(),
            ending: asked_to_end,
            audit,
            sequence: 0,
            late: 0,
            intake,
            metrics,
            prover,
            limits,
            log: Log { said: None },
        };
        Self { ending, task: tokio::spawn(told.run()) }
    }

    /// Sends the last report, after everything was counted, and ends. `whole` when every request was ended.
    pub async fn end(self, whole: bool, within: Duration) {
        let Self { ending, mut task } = self;
        ending.send_replace(Some(whole));
        if timeout(within.min(LAST_WITHIN), &mut task).await.is_err() {
            tracing::warn!("the last report did not reach the operator");
            task.abort();
        }
    }
}

struct Loop {
    client: Client,
    bundle_changes: watch::Receiver<()>,
    fact_changes: watch::Receiver<Told>,
    ending: watch::Receiver<Option<bool>>,
    audit: Audit,
    sequence: u64,
    /// Answers in a row that offered something older.
    late: u32,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    prover: Arc<Prover>,
    limits: Limits,
    log: Log,
}

impl Loop {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            // What changes from here on is not in the report that is made now.
            self.fact_changes.mark_unchanged();
            self.bundle_changes.mark_unchanged();
            let ending = *self.ending.borrow_and_update();
            let Some(feed) = self.feed() else {
                if ending.is_some() {
                    return;
                }
                self.news().await;
                continue;
            };
            let asked = Instant::now();
            let report = self.report(ending);
            let (known, last) = (report.bundle.as_ref().map_or(0, |b| b.serial), ending.is_some());
            let answered = tokio::select! {
                answered = self.client.post(&feed, &report) => Some(answered),
                () = news(&mut self.bundle_changes, &mut self.fact_changes, &mut self.ending), if !last => None,
            };
            let Some(answered) = answered else {
                sleep_until(asked + SPACING).await;
                continue;
            };
            match answered.and_then(|answer| self.take(&answer, known)) {
                Ok(_) if last => return self.succeeded(),
                Ok(taken) => {
                    self.succeeded();
                    pause = FIRST_PAUSE;
                    if taken {
                        sleep_until(asked + SPACING).await;
                    } else {
                        self.rest(asked + QUIET).await;
                    }
                }
                Err(error) => {
                    self.failed(error);
                    let wait = match error {
                        _ if last => FIRST_PAUSE,
                        // The operator is there, and its next bundle may be a good one.
                        FeedError::BundleRejected => AFTER_REJECTION,
                        error => {
                            let wait = error.retry_after().unwrap_or(pause);
                            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                            wait.clamp(FIRST_PAUSE, LONGEST_PAUSE)
                        }
                    };
                    self.pause(Instant::now() + jittered(wait), last).await;
                }
            }
        }
    }

    fn feed(&self) -> Option<FeedDocument> {
        self.intake.bundles().current().and_then(|active| active.bundle.feed.clone())
    }

    fn report(&mut self, ending: Option<bool>) -> Report {
        self.sequence = self.sequence.saturating_add(1);
        let bundles = self.intake.bundles();
        let told = self.fact_changes.borrow().clone();
        let (decisions, scopes_used) = self.metrics.decisions();
        Report {
            format: FORMAT,
            boot: self.audit.boot().to_owned(),
            sequence: self.sequence,
            ended: ending == Some(true),
            bundle: bundles
                .current()
                .map(|active| Running { digest: active.bundle.digest.clone(), serial: active.bundle.serial }),
            rejected: bundles.rejection().map(|error| error.reason().to_owned()),
            squatted: told.squatted(),
            listeners: told.listeners,
            more_listeners: told.more_listeners,
            credentials_missing: told.credentials_missing,
            decisions,
            scopes_used,
            proof_key: self.prover.key(),
            records: self.audit.head().map(|(sequence, head)| RecordsHead { sequence, head }),
            rate_limits: bundles
                .current()
                .and_then(|active| active.bundle.policy().ok().map(|policy| self.limits.uses(policy)))
                .unwrap_or_default(),
            certificate: told.certificate,
        }
    }

    /// True when the answer's bundle or shares are in use from now on, so that there is something to tell. `known` is the serial that
    /// was reported.
    fn take(&mut self, answer: &Answer, known: u64) -> Result<bool, FeedError> {
        let allotted = answer.shares.as_ref().is_some_and(|shares| self.limits.allot(shares));
        let Some(bundle) = &answer.bundle else {
            self.late = 0;
            self.intake.nothing_offered(Way::Feed);
            return Ok(allotted);
        };
        let bytes = serde_json::to_vec(bundle).map_err(|_| FeedError::Answer)?;
        let floor = if self.late < LATE_ANSWERS { 0 } else { known };
        match self.intake.offer(Way::Feed, Some(&bytes), floor) {
            Offered::Rejected => Err(FeedError::BundleRejected),
            Offered::Behind(serial) if serial < known => {
                self.late = self.late.saturating_add(1);
                Ok(false)
            }
            offered => {
                self.late = 0;
                Ok(matches!(offered, Offered::Taken(_)))
            }
        }
    }

    fn succeeded(&mut self) {
        self.metrics.reported("Ok");
        self.log.succeeded();
    }

    fn failed(&mut self, error: FeedError) {
        self.metrics.reported(error.reason());
        self.log.failed(error);
    }

    async fn news(&mut self) {
        news(&mut self.bundle_changes, &mut self.fact_changes, &mut self.ending).await;
    }

    /// Until then, or until there is something to tell.
    async fn rest(&mut self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.news() => {}
        }
    }

    /// Until then, or until the bundle changed, which may say where the feed is, or the end is asked for. Anything else
    /// to tell waits: whoever could make it change could else make a failing feed be asked without a pause.
    async fn pause(&mut self, until: Instant, last: bool) {
        tokio::select! {
            () = sleep_until(until) => {}
            Ok(()) = self.bundle_changes.changed(), if !last => {}
            Ok(()) = self.ending.changed(), if !last => {}
        }
    }
}

/// Until the bundle, a fact or the end changes. What tells of them lives as long as the feed.
async fn news(
    bundle: &mut watch::Receiver<()>,
    facts: &mut watch::Receiver<Told>,
    ending: &mut watch::Receiver<Option<bool>>,
) {
    tokio::select! {
        Ok(()) = bundle.changed() => {}
        Ok(()) = facts.changed() => {}
        Ok(()) = ending.changed() => {}
        else => std::future::pending().await,
    }
}

/// Between a half and the whole of it, so that the sidecars of a cluster do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0_u8; 1];
    // Without a random source the pause is the whole.
    let part = if aws_lc_rs::rand::fill(&mut random).is_ok() { u32::from(random[0]) } else { 255 };
    let half = pause / 2;
    half.saturating_add(half.saturating_mul(part) / 255)
}

/// Says a failure once, and again when it is another or lasts.
struct Log {
    said: Option<(&'static str, Instant)>,
}

impl Log {
    fn failed(&mut self, error: FeedError) {
        let reason = error.reason();
        if self.said.is_some_and(|(said, at)| said == reason && at.elapsed() < LOGGED_EVERY) {
            tracing::debug!(reason, %error, "a report had no good answer");
            return;
        }
        self.said = Some((reason, Instant::now()));
        tracing::warn!(reason, %error, "the operator's feed cannot be used; calls go on by the bundle in memory");
    }

    fn succeeded(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("the operator's feed can be used again");
        }
    }
}
