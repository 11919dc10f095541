//! What a client proves by its certificate: first that it has the key, which every handshake shows; then, if the bundle asks
//! for that, that somebody who may vouches for it.
//!
//! The first holds for the life of a connection. The second is asked with each request: bundles and authorities change and
//! certificates end while a connection goes on.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use behalf_policy::bundle::ClientValidation;
use behalf_policy::claims::Thumbprint;
use behalf_policy::ids::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;

use super::pair::certificates;
use super::provider;

/// For so long a chain counts as it was judged, seconds; the end of the client's own certificate counts to the second.
const JUDGED_FOR: i64 = 60;

/// Why a client is not taken. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientRefusal {
    /// It has no certificate, and must have one.
    #[error("a client certificate is required")]
    Missing,
    /// Its certificate has ended, or one above it.
    #[error("the client certificate has expired")]
    Expired,
    /// No authority that may vouches for it.
    #[error("the client certificate is not trusted")]
    Untrusted,
    /// It is not the one SPIFFE ID of the trust domain.
    #[error("the client certificate is not of the trust domain")]
    OtherTrustDomain,
    /// There are no authorities to judge it by.
    #[error("there are no authorities to judge client certificates by")]
    NoAuthorities,
}

impl ClientRefusal {
    /// Stable name, for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "ClientCertificateMissing",
            Self::Expired => "ClientCertificateExpired",
            Self::Untrusted => "ClientCertificateUntrusted",
            Self::OtherTrustDomain => "ClientCertificateOfOtherTrustDomain",
            Self::NoAuthorities => "ClientAuthoritiesMissing",
        }
    }
}

/// Certificates that are no authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authorities of clients cannot be read")]
pub struct TrustError;

/// Who may vouch for clients, by the bundle. Made once when it is taken.
#[derive(Debug, Clone)]
pub struct Trust {
    validation: ClientValidation,
    /// None: the authorities beside the sidecar's own certificate.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
}

impl Trust {
    /// Reads the authorities.
    ///
    /// # Errors
    /// They are none.
    pub fn new(validation: &ClientValidation) -> Result<Self, TrustError> {
        let roots = validation.ca_bundle.as_ref().map(|text| certificates(text.as_bytes()).ok_or(TrustError));
        let authorities = roots.transpose()?.map(verifier).transpose()?;
        Ok(Self { validation: validation.clone(), authorities })
    }
}

/// Judges chains by these roots: path, times, and that it is for clients where it says what it is for.
pub(super) fn verifier(
    roots: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TrustError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|_| TrustError)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::new(provider()));
    builder.build().map_err(|_| TrustError)
}

/// A client's certificate, whose key the handshake proved.
pub struct Client {
    chain: Vec<CertificateDer<'static>>,
    thumbprint: Thumbprint,
    not_after: Timestamp,
    uris: Vec<String>,
    judged: Mutex<Option<Judged>>,
}

/// What was found last.
struct Judged {
    by: Arc<dyn ClientCertVerifier>,
    at: Timestamp,
    found: Result<(), ClientRefusal>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// None when there is no certificate, or one that cannot be read: then nothing was proved.
    pub(super) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (rest, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let names = parsed.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        let thumbprint = digest(&SHA256, leaf).as_ref().try_into().ok().map(Thumbprint)?;
        rest.is_empty().then(|| Self {
            thumbprint,
            not_after: Timestamp(parsed.validity().not_after.timestamp()),
            uris: names.filter_map(uri).collect(),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            judged: Mutex::default(),
        })
    }

    /// SHA-256 of the certificate (RFC 8705 §3.1).
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Whether it is trusted now. `beside`: who vouches by the authorities beside the sidecar's own certificate.
    pub(super) fn judge(
        &self,
        trust: &Trust,
        beside: Option<&Arc<dyn ClientCertVerifier>>,
        now: Timestamp,
    ) -> Result<(), ClientRefusal> {
        let by = trust.authorities.as_ref().or(beside).ok_or(ClientRefusal::NoAuthorities)?;
        if now > self.not_after {
            return Err(ClientRefusal::Expired);
        }
        self.by_authorities(by, now)?;
        let uris: Vec<_> = self.uris.iter().map(String::as_str).collect();
        trust.validation.takes_names(&uris).then_some(()).ok_or(ClientRefusal::OtherTrustDomain)
    }

    fn by_authorities(&self, by: &Arc<dyn ClientCertVerifier>, now: Timestamp) -> Result<(), ClientRefusal> {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |last: &&Judged| {
            let age = now.0.saturating_sub(last.at.0);
            Arc::ptr_eq(&last.by, by) && (0..JUDGED_FOR).contains(&age)
        };
        if let Some(last) = judged.as_ref().filter(fresh) {
            return last.found;
        }
        let found = self.by_path(by, now);
        *judged = Some(Judged { by: Arc::clone(by), at: now, found });
        found
    }

    fn by_path(&self, by: &Arc<dyn ClientCertVerifier>, now: Timestamp) -> Result<(), ClientRefusal> {
        let (leaf, others) = self.chain.split_first().ok_or(ClientRefusal::Missing)?;
        let now = u64::try_from(now.0).map_err(|_| ClientRefusal::Untrusted)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        by.verify_client_cert(leaf, others, now).map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => ClientRefusal::Expired,
            _ => ClientRefusal::Untrusted,
        })
    }
}

/// Asks clients for a certificate, takes none for an answer, and holds those who show one to proving its key.
pub(super) fn possession() -> Arc<dyn ClientCertVerifier> {
    Arc::new(Possession { algorithms: provider().signature_verification_algorithms })
}

#[derive(Debug)]
struct Possession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Possession {
    /// A request without one is refused by its bundle and leaves a record, which a failed handshake does not; and the
    /// operator has none, which asks who answers here.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Any.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Who vouches for it is asked with each request.
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
