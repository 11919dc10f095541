//! A certificate with its key and the authorities beside it, as three files say it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use behalf_policy::feed::CertificateReason;
use behalf_policy::ids::Timestamp;
use behalf_policy::wire::{TLS_AUTHORITIES, TLS_CERTIFICATE, TLS_KEY};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::client::verifier;
use super::provider;

/// No file of these is larger, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the sidecar serves with.
pub struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// When the certificate ends.
    pub not_after: Timestamp,
    /// Who vouches for clients by the authorities that stand beside it; none without any.
    pub(super) authorities: Option<Arc<dyn ClientCertVerifier>>,
}

/// Shows nothing of the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why a certificate is not served with. Holds nothing of the files.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// Certificate or key is not there, or empty.
    #[error("there is no certificate or no key")]
    Missing,
    /// No chain of certificates.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No private key.
    #[error("the private key cannot be read")]
    KeyUnreadable,
    /// The key is that of another certificate: one of them is newer than the other, perhaps.
    #[error("the private key is not that of the certificate")]
    KeyMismatch,
    /// TLS does not take them.
    #[error("the certificate cannot be used: {0}")]
    Unusable(rustls::Error),
    /// The authorities beside them are not readable.
    #[error("the authorities beside the certificate cannot be read")]
    AuthoritiesUnreadable,
}

impl CertificateError {
    /// As it is told: in readiness, metrics and reports.
    #[must_use]
    pub fn reason(&self) -> CertificateReason {
        match self {
            Self::Missing => CertificateReason::Missing,
            Self::Unreadable => CertificateReason::Unreadable,
            Self::KeyUnreadable => CertificateReason::KeyUnreadable,
            Self::KeyMismatch => CertificateReason::KeyMismatch,
            Self::Unusable(_) => CertificateReason::Unusable,
            Self::AuthoritiesUnreadable => CertificateReason::AuthoritiesUnreadable,
        }
    }
}

impl Pair {
    /// Reads the three files of a directory.
    ///
    /// # Errors
    /// Why nothing can be served with them.
    pub async fn read(dir: &Path) -> Result<Self, CertificateError> {
        let certificate = file(dir, TLS_CERTIFICATE).await.ok_or(CertificateError::Missing)?;
        let key = file(dir, TLS_KEY).await.ok_or(CertificateError::Missing)?;
        // Issuers of the public web write it, and leave it empty.
        let authorities = file(dir, TLS_AUTHORITIES).await;
        Self::parse(&certificate, &key, authorities.as_deref().map(Vec::as_slice))
    }

    fn parse(certificate: &[u8], key: &[u8], authorities: Option<&[u8]>) -> Result<Self, CertificateError> {
        let chain = certificates(certificate).ok_or(CertificateError::Unreadable)?;
        let leaf = chain.first().ok_or(CertificateError::Unreadable)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::Unreadable)?;
        let not_after = Timestamp(parsed.validity().not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::KeyUnreadable)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::KeyMismatch,
            // The library says so of a key of no kind that it knows.
            rustls::Error::General(_) => CertificateError::KeyUnreadable,
            other => CertificateError::Unusable(other),
        })?;
        let authorities = match authorities {
            None => None,
            Some(text) => {
                let roots = certificates(text).ok_or(CertificateError::AuthoritiesUnreadable)?;
                Some(verifier(roots).map_err(|_| CertificateError::AuthoritiesUnreadable)?)
            }
        };
        Ok(Self { certified: Arc::new(certified), not_after, authorities })
    }
}

/// All of them, at least one.
pub(super) fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

/// What is in a file; none when it is not there, too large, or holds nothing.
async fn file(dir: &Path, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let path = dir.join(name);
    let length = tokio::fs::metadata(&path).await.ok()?.len();
    let bytes = if length <= MAX_FILE { tokio::fs::read(&path).await.ok()? } else { return None };
    let bytes = Zeroizing::new(bytes);
    bytes.iter().any(|byte| !byte.is_ascii_whitespace()).then_some(bytes)
}
