//! The serving certificate of webhook and feed: made in the process, shared by all replicas, rotated before it expires.
//!
//! One Secret holds the authority and the certificate. Whoever comes first creates it; the others read it, and if two
//! come at once the API server lets one win and the other reads. Nobody hands out a certificate that is not in the
//! Secret, and every replica follows it within a second. Any of them may rotate: the Secret is replaced only in the version
//! that was read.

pub mod issue;
pub mod rotate;
pub mod serving;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certs::issue::{IssueError, Lifetimes, Material};
use crate::certs::rotate::Due;
use crate::certs::serving::{Serving, ServingError};
use crate::clock::{Clock, Monotonic};
use crate::health::Pending;
use crate::kube_io::secrets::{Found, Secrets};
use crate::metrics::{Metrics, Object};

/// How often the Secret is read again, should its watch miss something.
const RECHECK: Duration = Duration::from_mins(10);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the certificate at hand is judged.
const JUDGE: Duration = Duration::from_secs(1);
/// How soon a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(5);
/// How often two replicas may get in each other's way before it counts as a failure.
const ATTEMPTS: usize = 8;

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The Secret cannot be read or written.
    #[error("cannot use the certificate Secret: {0}")]
    Secret(#[from] kube::Error),
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A certificate cannot be served with.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The API server does not answer.
    #[error("no answer in time about the certificate Secret")]
    Slow,
    /// Somebody else kept changing the Secret.
    #[error("the certificate Secret kept changing while it was written")]
    Contended,
}

impl CertificateError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Secret(_) => "CertificateSecret",
            Self::Issue(error) => error.reason(),
            Self::Serving(error) => error.reason(),
            Self::Slow => "CertificateSecretSlow",
            Self::Contended => "CertificateContended",
        }
    }
}

/// What keeps the certificate: see [`Certificates::keep`].
pub struct Certificates {
    /// Where the Secret is.
    pub secrets: Secrets,
    /// Name of the Secret.
    pub secret: String,
    /// DNS names and addresses the certificate is for.
    pub names: Vec<String>,
    /// How long certificates live.
    pub life: Lifetimes,
    /// The time of day.
    pub clock: Clock,
    /// The time by which an authority has been trusted for a while.
    pub monotonic: Monotonic,
    /// What the TLS server asks for its certificate.
    pub serving: Arc<Serving>,
    /// Receives the authorities (PEM) that everybody has to trust.
    pub authorities: watch::Sender<Option<String>>,
    /// The authorities (PEM) that the API server trusts, as read back from the webhook configuration.
    pub installed: watch::Receiver<Option<String>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// What is known between two looks at the Secret.
#[derive(Debug, Default)]
pub struct Known {
    material: Option<Material>,
    /// The next authority, and since when the API server has trusted it.
    trusted: Option<(String, Duration)>,
}

impl Certificates {
    /// Keeps a valid certificate loaded until told to stop. `pending` is done with the first one.
    ///
    /// Between two looks at the Secret (when it changes, and from time to time) the certificate at hand is judged again
    /// and again: the clock may have jumped.
    pub async fn keep(self, pending: Pending, stop: CancellationToken) {
        let mut changes = self.secrets.changes(&self.secret);
        let (mut pending, mut known) = (Some(pending), Known::default());
        loop {
            let result = match tokio::time::timeout(PATIENCE, self.look(&mut known)).await {
                Ok(result) => result,
                Err(_) => Err(CertificateError::Slow),
            };
            match &result {
                Ok(()) => drop(pending.take()),
                Err(error) => {
                    tracing::error!(reason = error.reason(), error = %error, "no new certificate");
                }
            }
            let looked = self.monotonic.now();
            loop {
                let pause = if result.is_err() { RETRY } else { JUDGE };
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(()) = changes.next() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                let old = self.monotonic.now().saturating_sub(looked) >= RECHECK;
                if result.is_err() || old || self.judge(&mut known) != Due::Nothing {
                    break;
                }
            }
        }
    }

    /// Reads the Secret, makes or rotates what is due, and loads the result.
    ///
    /// # Errors
    /// The API server refuses, or what it holds cannot be repaired.
    pub async fn ensure(&self) -> Result<(), CertificateError> {
        self.look(&mut Known::default()).await
    }

    /// The same, with what was known before: how long an authority has been trusted.
    ///
    /// # Errors
    /// As [`Certificates::ensure`].
    pub async fn look(&self, known: &mut Known) -> Result<(), CertificateError> {
        for _ in 0..ATTEMPTS {
            let found = self.secrets.get(&self.secret).await?;
            known.material = found.as_ref().and_then(|found| Material::from_data(&found.data).ok());
            let due = self.judge(known);
            let (Due::Nothing, Some(material)) = (due, &known.material) else {
                let now = self.clock.date_time();
                let next = rotate::rotate(known.material.as_ref(), due, &self.names, self.life, now)?;
                if self.store(found, &next).await? {
                    self.metrics.wrote(Object::Certificates);
                    tracing::info!(?due, "changed the certificate or its authorities");
                }
                // What is served is what was read back.
                continue;
            };
            let expiry = self.serving.load(material)?;
            self.metrics.certificate_expiry.set(expiry);
            let authorities = material.authorities.clone();
            self.authorities.send_if_modified(|held| {
                let changed = held.as_deref() != Some(authorities.as_str());
                *held = Some(authorities);
                changed
            });
            return Ok(());
        }
        Err(CertificateError::Contended)
    }

    /// What is due by now.
    fn judge(&self, known: &mut Known) -> Due {
        let Some(material) = &known.material else { return Due::Authority };
        let settled = Self::settled(material, &mut known.trusted, &self.installed, &self.monotonic)
            .is_some_and(|since| since >= self.life.settle());
        rotate::due(material, &self.names, self.life, self.clock.date_time(), settled)
    }

    /// For how long the API server has trusted the next authority, as far as we saw.
    fn settled(
        material: &Material,
        trusted: &mut Option<(String, Duration)>,
        installed: &watch::Receiver<Option<String>>,
        monotonic: &Monotonic,
    ) -> Option<Duration> {
        let now = monotonic.now();
        let next = material.next.as_ref().map(|next| next.certificate.as_str());
        let holds = |next: &&str| installed.borrow().as_deref().is_some_and(|held| rotate::holds(held, next));
        let Some(next) = next.filter(holds) else {
            *trusted = None;
            return None;
        };
        match trusted {
            Some((seen, since)) if seen == next => Some(now.saturating_sub(*since)),
            _ => {
                *trusted = Some((next.to_owned(), now));
                Some(Duration::ZERO)
            }
        }
    }

    /// Whether it was us who wrote; `false`: somebody else did, read again.
    async fn store(&self, found: Option<Found>, material: &Material) -> Result<bool, kube::Error> {
        let data = material.to_data();
        match found {
            None => self.secrets.create(&self.secret, data).await,
            Some(found) => self.secrets.replace(&self.secret, found, data).await,
        }
    }
}

/// The DNS names of a Service inside the cluster.
#[must_use]
pub fn service_names(service: &str, namespace: &str, cluster_domain: &str) -> Vec<String> {
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{cluster_domain}"),
        format!("{service}.{namespace}"),
    ]
}
