//! The mounted directory: a Secret of the namespace, or what a CSI driver writes.

use std::path::{Path, PathBuf};

use behalf_policy::feed::{CertificateConcern, CertificateReason, ServedCertificate};
use behalf_policy::wire::{TLS_AUTHORITIES, TLS_CERTIFICATE, TLS_KEY};

use super::{Pair, Tls};
use crate::admin::{Block, Readiness};
use crate::bundle_source::{Mark, Source, mark};
use crate::clock::Clock;
use crate::feed::Facts;

/// Looks at the files and serves with what is in them.
///
/// A new pair is taken as a whole, or not at all: then the last good one is served on. Without any the sidecar is unready,
/// and every handshake fails. One that has ended is served on, and told: callers judge it themselves, and refusing them says
/// less. Whatever is wrong is told the operator as well, which may not look into Secrets.
#[derive(Debug)]
pub struct CertificateDirectory {
    dir: PathBuf,
    tls: Tls,
    clock: Clock,
    readiness: Readiness,
    facts: Facts,
    seen: Option<[Option<Mark>; 3]>,
    /// Why the newest files seen are not served with.
    rejected: Option<CertificateReason>,
    expired: bool,
    /// Unready until there is a certificate, by the name of what is wrong.
    pending: Option<(CertificateReason, Block)>,
}

impl CertificateDirectory {
    /// A directory that was not looked at yet; the sidecar is unready until it was, and something usable was in it.
    #[must_use]
    pub fn new(dir: &Path, tls: Tls, clock: Clock, readiness: Readiness, facts: Facts) -> Self {
        let mut new = Self {
            dir: dir.to_owned(),
            tls,
            clock,
            readiness,
            facts,
            seen: None,
            rejected: None,
            expired: false,
            pending: None,
        };
        new.block(CertificateReason::Missing);
        new
    }

    fn block(&mut self, reason: CertificateReason) {
        if self.pending.as_ref().is_none_or(|(told, _)| *told != reason) {
            let block = self.readiness.block(format!("tls ({})", reason.as_str()));
            self.pending = Some((reason, block));
        }
    }

    async fn take(&mut self) {
        let marks = self.marks().await;
        if self.seen.as_ref() == Some(&marks) {
            return;
        }
        let pair = Pair::read(&self.dir).await;
        // What changed while it was read is read again at the next look.
        self.seen = Some(marks);
        match pair {
            Ok(pair) => {
                tracing::info!(not_after = pair.not_after.0, "a certificate is served with");
                self.tls.0.metrics.tls.taken(pair.not_after);
                self.tls.0.served.0.store(Some(std::sync::Arc::new(pair)));
                (self.rejected, self.expired, self.pending) = (None, false, None);
            }
            Err(error) => {
                let (reason, in_use) = (error.reason(), self.tls.current().is_some());
                if self.rejected != Some(reason) {
                    tracing::warn!(%error, reason = reason.as_str(), in_use, dir = %self.dir.display(), "a certificate is not taken");
                }
                self.tls.0.metrics.tls.rejected(reason.as_str());
                self.rejected = Some(reason);
                if !in_use {
                    self.block(reason);
                }
            }
        }
    }

    async fn marks(&self) -> [Option<Mark>; 3] {
        let mut marks = [None; 3];
        for (to, name) in marks.iter_mut().zip([TLS_CERTIFICATE, TLS_KEY, TLS_AUTHORITIES]) {
            *to = mark(&self.dir.join(name)).await.ok();
        }
        marks
    }

    fn tell(&mut self) {
        let ended = self.tls.current().filter(|pair| self.clock.now() > pair.not_after);
        if let Some(pair) = &ended
            && !self.expired
        {
            tracing::error!(
                not_after = pair.not_after.0,
                "{}: the certificate that is served has ended",
                CertificateReason::Expired.as_str()
            );
        }
        self.expired = ended.is_some();
        let concern = self.concern();
        let served = concern.filter(|concern| concern.served != ServedCertificate::Nothing);
        self.tls.set_concern(served.map(|concern| concern.reason.as_str()));
        self.facts.certificate(concern);
        self.tls.0.metrics.tls.expired(self.expired);
    }

    fn concern(&self) -> Option<CertificateConcern> {
        let served = match (self.tls.current(), self.expired) {
            (None, _) => ServedCertificate::Nothing,
            (Some(_), false) => ServedCertificate::LastGood,
            (Some(_), true) => ServedCertificate::Ended,
        };
        let reason = self.rejected.or(self.expired.then_some(CertificateReason::Expired))?;
        Some(CertificateConcern { reason, served })
    }
}

impl Source for CertificateDirectory {
    async fn look(&mut self) {
        self.take().await;
        self.tell();
    }
}
