//! The webhook's serving certificate: made in the process, shared by all replicas, rotated before it expires.
//!
//! One Secret holds the authority and the certificate. Whoever comes first creates it; the others read it, and if two
//! come at once the API server lets one win and the other reads. Nobody hands out a certificate that is not in the
//! Secret, so replicas always serve under the same authority.

pub mod issue;
pub mod rotate;
pub mod serving;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certs::issue::{IssueError, Material};
use crate::certs::rotate::Due;
use crate::certs::serving::{Serving, ServingError};
use crate::clock::Clock;
use crate::health::Pending;
use crate::kube_io::secrets::{Found, Secrets};
use crate::metrics::Metrics;

/// How often the Secret is read again: how long another replica's rotation may go unnoticed.
const RECHECK: Duration = Duration::from_mins(10);
/// How soon a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(5);
/// How often two replicas may get in each other's way before it counts as a failure.
const ATTEMPTS: usize = 5;

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
    /// The time.
    pub clock: Clock,
    /// What the TLS server asks for its certificate.
    pub serving: Arc<Serving>,
    /// Receives the authorities (PEM) the API server has to trust.
    pub authorities: watch::Sender<Option<String>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Certificates {
    /// Keeps a valid certificate loaded until told to stop. `pending` is done with the first one.
    pub async fn keep(self, pending: Pending, stop: CancellationToken) {
        let mut pending = Some(pending);
        loop {
            let wait = match self.ensure().await {
                Ok(()) => {
                    pending.take();
                    RECHECK
                }
                Err(error) => {
                    tracing::error!(reason = error.reason(), error = %error, "no new certificate");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads the Secret, makes or rotates what is due, and loads the result.
    ///
    /// # Errors
    /// The API server refuses, or what it holds cannot be repaired.
    pub async fn ensure(&self) -> Result<(), CertificateError> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.date_time();
            let found = self.secrets.get(&self.secret).await?;
            let current = found.as_ref().and_then(|found| Material::from_data(&found.data).ok());
            let due = current.as_ref().map_or(Due::Authority, |it| rotate::due(it, &self.names, now));
            let material = match (due, current) {
                (Due::Nothing, Some(current)) => current,
                (due, current) => {
                    let next = rotate::rotate(current.as_ref(), due, &self.names, now)?;
                    if !self.store(found, &next).await? {
                        continue;
                    }
                    tracing::info!(?due, "made a certificate");
                    next
                }
            };
            let expiry = self.serving.load(&material)?;
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
