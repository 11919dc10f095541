//! Making certificates: an authority of our own, and the serving certificate it signs (ECDSA P-256).

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// Key of the authorities in the Secret.
pub const KEY_AUTHORITIES: &str = "ca.crt";
/// Key of the authority's private key in the Secret.
pub const KEY_AUTHORITY_KEY: &str = "ca.key";
/// Key of the serving certificate in the Secret.
pub const KEY_CERTIFICATE: &str = "tls.crt";
/// Key of the serving certificate's private key in the Secret.
pub const KEY_CERTIFICATE_KEY: &str = "tls.key";

/// How long an authority lives.
pub const AUTHORITY_LIFE: Duration = Duration::days(365);
/// How long a serving certificate lives.
pub const CERTIFICATE_LIFE: Duration = Duration::days(30);
/// How far clocks may differ: certificates start to be valid this much earlier.
const BACKDATE: Duration = Duration::hours(1);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was stored is not what this module writes.
    #[error("the stored certificate cannot be read: {0} is missing or unreadable")]
    Stored(&'static str),
}

impl IssueError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Make(_) => "CertificateNotMade",
            Self::Stored(_) => "CertificateUnreadable",
        }
    }
}

/// An authority and the certificate it signed, as they lie in the Secret. All parts are PEM.
#[derive(Clone)]
pub struct Material {
    /// The authorities to trust, the one that signs first; after a rotation also the one before.
    pub authorities: String,
    /// Private key of the first authority.
    pub authority_key: Zeroizing<String>,
    /// The serving certificate.
    pub certificate: String,
    /// Private key of the serving certificate.
    pub certificate_key: Zeroizing<String>,
}

/// Shows no private key.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("authorities", &self.authorities)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Material {
    /// A new authority and a certificate for `names`. `previous` authorities stay trusted.
    ///
    /// # Errors
    /// A name is none, or the system gives no randomness.
    pub fn new(names: &[String], previous: &str, now: OffsetDateTime) -> Result<Self, IssueError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name =
            common_name(&format!("Behalf webhook authority {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - BACKDATE, now + AUTHORITY_LIFE);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let mut material = Self {
            authorities: format!("{authority}{previous}"),
            authority_key: Zeroizing::new(key.serialize_pem()),
            certificate: String::new(),
            certificate_key: Zeroizing::default(),
        };
        material.issue(names, now)?;
        Ok(material)
    }

    /// Signs a new serving certificate with the first authority, with a new key.
    ///
    /// # Errors
    /// A name is none, the authority is unreadable, or the system gives no randomness.
    pub fn issue(&mut self, names: &[String], now: OffsetDateTime) -> Result<(), IssueError> {
        let issuer = Issuer::from_ca_cert_pem(&self.authorities, KeyPair::from_pem(&self.authority_key)?)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = common_name("Behalf webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (now - BACKDATE, now + CERTIFICATE_LIFE);
        let key = KeyPair::generate()?;
        self.certificate = params.signed_by(&key, &issuer)?.pem();
        self.certificate_key = Zeroizing::new(key.serialize_pem());
        Ok(())
    }

    /// The data of the Secret.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        [
            (KEY_AUTHORITIES, self.authorities.as_str()),
            (KEY_AUTHORITY_KEY, &self.authority_key),
            (KEY_CERTIFICATE, &self.certificate),
            (KEY_CERTIFICATE_KEY, &self.certificate_key),
        ]
        .map(|(key, pem)| (key.to_owned(), ByteString(pem.as_bytes().to_vec())))
        .into()
    }

    /// Reads what [`Material::to_data`] wrote.
    ///
    /// # Errors
    /// A part is missing or no text.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, IssueError> {
        let part = |key: &'static str| {
            let bytes = &data.get(key).ok_or(IssueError::Stored(key))?.0;
            String::from_utf8(bytes.clone()).map_err(|_| IssueError::Stored(key))
        };
        Ok(Self {
            authorities: part(KEY_AUTHORITIES)?,
            authority_key: Zeroizing::new(part(KEY_AUTHORITY_KEY)?),
            certificate: part(KEY_CERTIFICATE)?,
            certificate_key: Zeroizing::new(part(KEY_CERTIFICATE_KEY)?),
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
