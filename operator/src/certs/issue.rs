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

use super::rotate;

/// Key of the authorities in the Secret.
pub const KEY_AUTHORITIES: &str = "ca.crt";
/// Key of the authority's private key in the Secret.
pub const KEY_AUTHORITY_KEY: &str = "ca.key";
/// Key of the serving certificate in the Secret.
pub const KEY_CERTIFICATE: &str = "tls.crt";
/// Key of the serving certificate's private key in the Secret.
pub const KEY_CERTIFICATE_KEY: &str = "tls.key";
/// Key of the next authority in the Secret.
pub const KEY_NEXT: &str = "next.crt";
/// Key of the next authority's private key in the Secret.
pub const KEY_NEXT_KEY: &str = "next.key";
/// Key of the Secret for when the last certificate of the authority before expires, in seconds since 1970.
pub const KEY_PREVIOUS_UNTIL: &str = "previous-until";

/// How far clocks may differ: certificates start to be valid this much earlier.
const BACKDATE: Duration = Duration::hours(1);

/// How long certificates live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// An authority.
    pub authority: Duration,
    /// A serving certificate.
    pub certificate: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { authority: Duration::days(365), certificate: Duration::days(30) }
    }
}

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

/// An authority with its private key, both PEM.
#[derive(Clone)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

/// Authorities and the certificate that the first one signed, as they lie in the Secret. All parts are PEM.
#[derive(Clone)]
pub struct Material {
    /// The authorities to trust: the one that signs first, then the next one or the one before.
    pub authorities: String,
    /// Private key of the first authority.
    pub authority_key: Zeroizing<String>,
    /// The serving certificate.
    pub certificate: String,
    /// Private key of the serving certificate.
    pub certificate_key: Zeroizing<String>,
    /// The authority that will sign when everybody trusts it; until then no certificate of it is served.
    pub next: Option<Authority>,
    /// When the last certificate that the authority before signed expires, in seconds since 1970.
    pub previous_until: Option<i64>,
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

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(life: Lifetimes, now: OffsetDateTime) -> Result<Self, IssueError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(&format!("Behalf authority {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - BACKDATE, now + life.authority);
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }
}

impl Material {
    /// A certificate for `names` of an authority that nobody trusts yet. `previous` authorities stay trusted.
    ///
    /// # Errors
    /// A name is none, or the system gives no randomness.
    pub fn new(
        names: &[String],
        previous: &str,
        life: Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Self, IssueError> {
        let authority = Authority::new(life, now)?;
        let mut material = Self {
            authorities: format!("{}{previous}", authority.certificate),
            authority_key: authority.key,
            certificate: String::new(),
            certificate_key: Zeroizing::default(),
            next: None,
            previous_until: None,
        };
        material.issue(names, life, now)?;
        Ok(material)
    }

    /// Signs a new serving certificate with the first authority, with a new key. It does not outlive its authority.
    ///
    /// # Errors
    /// A name is none, the authority is unreadable, or the system gives no randomness.
    pub fn issue(
        &mut self,
        names: &[String],
        life: Lifetimes,
        now: OffsetDateTime,
    ) -> Result<(), IssueError> {
        let issuer = Issuer::from_ca_cert_pem(&self.authorities, KeyPair::from_pem(&self.authority_key)?)?;
        let end = rotate::end_of_first(&self.authorities).ok_or(IssueError::Stored(KEY_AUTHORITIES))?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = common_name("Behalf operator");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (now - BACKDATE, end.min(now + life.certificate));
        let key = KeyPair::generate()?;
        self.certificate = params.signed_by(&key, &issuer)?.pem();
        self.certificate_key = Zeroizing::new(key.serialize_pem());
        Ok(())
    }

    /// The data of the Secret.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let next = self.next.as_ref();
        let until = self.previous_until.map(|it| it.to_string());
        [
            (KEY_AUTHORITIES, Some(self.authorities.as_str())),
            (KEY_AUTHORITY_KEY, Some(self.authority_key.as_str())),
            (KEY_CERTIFICATE, Some(self.certificate.as_str())),
            (KEY_CERTIFICATE_KEY, Some(self.certificate_key.as_str())),
            (KEY_NEXT, next.map(|it| it.certificate.as_str())),
            (KEY_NEXT_KEY, next.map(|it| it.key.as_str())),
            (KEY_PREVIOUS_UNTIL, until.as_deref()),
        ]
        .into_iter()
        .filter_map(|(key, text)| Some((key.to_owned(), ByteString(text?.as_bytes().to_vec()))))
        .collect()
    }

    /// Reads what [`Material::to_data`] wrote.
    ///
    /// # Errors
    /// A part is missing or no text.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, IssueError> {
        let text = |key: &'static str| {
            let text = data.get(key).map(|bytes| String::from_utf8(bytes.0.clone()));
            text.transpose().map_err(|_| IssueError::Stored(key))
        };
        let part = |key: &'static str| text(key)?.ok_or(IssueError::Stored(key));
        let next = match (text(KEY_NEXT)?, text(KEY_NEXT_KEY)?) {
            (Some(certificate), Some(key)) => Some(Authority { certificate, key: Zeroizing::new(key) }),
            _ => None,
        };
        Ok(Self {
            authorities: part(KEY_AUTHORITIES)?,
            authority_key: Zeroizing::new(part(KEY_AUTHORITY_KEY)?),
            certificate: part(KEY_CERTIFICATE)?,
            certificate_key: Zeroizing::new(part(KEY_CERTIFICATE_KEY)?),
            next,
            previous_until: text(KEY_PREVIOUS_UNTIL)?.and_then(|it| it.parse().ok()),
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
