//! What a sidecar that terminates TLS tells of its certificate when something is wrong with it: closed words, and nothing of
//! what is in the files.

use serde::{Deserialize, Serialize};

/// What is wrong, and what callers meet meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateConcern {
    /// Why the newest files are not served with, or that what is served with has ended.
    pub reason: CertificateReason,
    /// What is served with meanwhile.
    pub served: ServedCertificate,
}

/// What can be wrong with a certificate. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CertificateReason {
    /// Certificate or key is not there, empty, or not for the sidecar to read.
    #[serde(rename = "CertificateMissing")]
    Missing,
    /// The certificate is no chain of certificates.
    #[serde(rename = "CertificateUnreadable")]
    Unreadable,
    /// The key is no private key.
    #[serde(rename = "CertificateKeyUnreadable")]
    KeyUnreadable,
    /// The key is that of another certificate.
    #[serde(rename = "CertificateKeyMismatch")]
    KeyMismatch,
    /// TLS does not take them.
    #[serde(rename = "CertificateUnusable")]
    Unusable,
    /// The authorities beside them cannot be read.
    #[serde(rename = "CertificateAuthoritiesUnreadable")]
    AuthoritiesUnreadable,
    /// It has ended.
    #[serde(rename = "CertificateExpired")]
    Expired,
}

impl CertificateReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::Unreadable,
        Self::KeyUnreadable,
        Self::KeyMismatch,
        Self::Unusable,
        Self::AuthoritiesUnreadable,
        Self::Expired,
    ];

    /// The word on the wire, which readiness and metrics have as well.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "CertificateMissing",
            Self::Unreadable => "CertificateUnreadable",
            Self::KeyUnreadable => "CertificateKeyUnreadable",
            Self::KeyMismatch => "CertificateKeyMismatch",
            Self::Unusable => "CertificateUnusable",
            Self::AuthoritiesUnreadable => "CertificateAuthoritiesUnreadable",
            Self::Expired => "CertificateExpired",
        }
    }
}

/// What callers are served with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServedCertificate {
    /// Nothing: the sidecar is not ready, and every handshake fails.
    Nothing,
    /// The last good one.
    LastGood,
    /// One that has ended.
    Ended,
}
