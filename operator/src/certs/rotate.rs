//! What is due, judged from the certificates and the time.
//!
//! A new authority takes three steps, so that no handshake fails on the way. It is *staged*: it lies in the Secret and
//! everybody is told to trust it (the webhook configuration, the bundles), but the authority before signs on. When that has
//! been read back from the webhook configuration for a while it is *promoted*: it signs, and every replica serves what it
//! signed. The one before stays trusted until its last certificate expired, since a replica may be late; then it is
//! *forgotten*.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::KeyPair;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::issue::{Authority, IssueError, Lifetimes, Material};

/// Part of an authority's life at the end of which the next one is staged.
const AUTHORITY_PART: i32 = 4;
/// Part of a certificate's life at the end of which it is renewed.
const CERTIFICATE_PART: i32 = 3;
/// Part of an authority's life for which it is trusted before it signs.
const SETTLE_PART: i32 = 20;
/// The least and the most of that.
const SETTLE: (Duration, Duration) = (Duration::seconds(2), Duration::minutes(10));

/// What has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A new serving certificate.
    Certificate,
    /// A new authority to trust, beside the one that signs.
    Stage,
    /// The next authority signs from now on.
    Promote,
    /// The authority before need not be trusted any more.
    Forget,
    /// A new authority that signs at once: there is none that could.
    Authority,
}

impl Lifetimes {
    /// How long everybody has to have trusted the next authority before it signs.
    #[must_use]
    pub fn settle(&self) -> Duration {
        (self.authority / SETTLE_PART).clamp(SETTLE.0, SETTLE.1)
    }
}

/// What of `material` has to be made anew to serve `names` at `now`. Whatever cannot be read is due. `settled`: everybody
/// has trusted the next authority for long enough.
#[must_use]
pub fn due(
    material: &Material,
    names: &[String],
    life: Lifetimes,
    now: OffsetDateTime,
    settled: bool,
) -> Due {
    let next = material.next.as_ref().filter(|next| is_authority(&next.certificate, &next.key, now));
    let signs = is_authority(&material.authorities, &material.authority_key, now);
    match (signs, next) {
        (false, Some(_)) => return Due::Promote,
        (false, None) => return Due::Authority,
        (true, Some(_)) if settled => return Due::Promote,
        (true, _) => {}
    }
    let Some(end) = end_of_first(&material.authorities) else { return Due::Authority };
    if !serves(material, names, life, now, end) {
        return Due::Certificate;
    }
    // A next one that cannot be used is replaced at once.
    if next.is_none() && (material.next.is_some() || end - now < life.authority / AUTHORITY_PART) {
        return Due::Stage;
    }
    if material.previous_until.is_some_and(|until| until <= now.unix_timestamp()) {
        return Due::Forget;
    }
    Due::Nothing
}

/// `material` with what is due made anew.
///
/// # Errors
/// Something cannot be made.
pub fn rotate(
    material: Option<&Material>,
    due: Due,
    names: &[String],
    life: Lifetimes,
    now: OffsetDateTime,
) -> Result<Material, IssueError> {
    let Some(material) = material else { return Material::new(names, "", life, now) };
    let mut next = material.clone();
    let signs = pems(&material.authorities).first().map(encode).unwrap_or_default();
    match (due, &material.next) {
        (Due::Nothing, _) => {}
        (Due::Certificate, _) => next.issue(names, life, now)?,
        (Due::Stage, _) => {
            let authority = Authority::new(life, now)?;
            next.authorities = format!("{signs}{}", authority.certificate);
            (next.next, next.previous_until) = (Some(authority), None);
        }
        (Due::Promote, Some(authority)) => {
            next.authorities = format!("{}{}", authority.certificate, trusted(&signs, now));
            next.authority_key.clone_from(&authority.key);
            (next.next, next.previous_until) =
                (None, end_of_first(&material.certificate).map(OffsetDateTime::unix_timestamp));
            next.issue(names, life, now)?;
        }
        (Due::Forget, staged) => {
            let staged = staged.as_ref().map(|it| it.certificate.as_str()).unwrap_or_default();
            next.authorities = format!("{signs}{staged}");
            next.previous_until = None;
        }
        (Due::Authority | Due::Promote, _) => {
            return Material::new(names, &trusted(&material.authorities, now), life, now);
        }
    }
    Ok(next)
}

/// Whether `text` holds the authority `wanted` (both PEM).
#[must_use]
pub fn holds(text: &str, wanted: &str) -> bool {
    let wanted = pems(wanted);
    let held = pems(text);
    !wanted.is_empty() && wanted.iter().all(|one| held.iter().any(|it| it.contents == one.contents))
}

/// When the first certificate of a PEM text expires.
#[must_use]
pub fn end_of_first(text: &str) -> Option<OffsetDateTime> {
    Some(pems(text).first()?.parse_x509().ok()?.validity().not_after.to_datetime())
}

/// Whether the first certificate of `text` is valid and `key` is its private key.
fn is_authority(text: &str, key: &str, now: OffsetDateTime) -> bool {
    let pems = pems(text);
    let Some(Ok(authority)) = pems.first().map(Pem::parse_x509) else { return false };
    left(&authority, now) > Duration::ZERO && is_key_of(key, &authority)
}

/// Whether the certificate is good for a while; one that ends with its authority cannot be bettered by another of it.
fn serves(
    material: &Material,
    names: &[String],
    life: Lifetimes,
    now: OffsetDateTime,
    end: OffsetDateTime,
) -> bool {
    let (authorities, pems) = (pems(&material.authorities), pems(&material.certificate));
    let (Some(Ok(authority)), Some(Ok(certificate))) =
        (authorities.first().map(Pem::parse_x509), pems.first().map(Pem::parse_x509))
    else {
        return false;
    };
    let left = left(&certificate, now);
    let lasts = left >= life.certificate / CERTIFICATE_PART
        || left > Duration::ZERO && certificate.validity().not_after.to_datetime() >= end;
    lasts
        && certificate.issuer() == authority.subject()
        && covers(&certificate, names)
        && is_key_of(&material.certificate_key, &certificate)
}

/// The first of the authorities that is valid.
fn trusted(authorities: &str, now: OffsetDateTime) -> String {
    let valid = |pem: &&Pem| pem.parse_x509().is_ok_and(|it| left(&it, now) > Duration::ZERO);
    pems(authorities).iter().find(valid).map(encode).unwrap_or_default()
}

fn encode(pem: &Pem) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(&pem.contents);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The readable certificates of a PEM text, up to the first that is not.
fn pems(text: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(text.as_bytes())
        .map_while(Result::ok)
        .filter(|pem| pem.label == "CERTIFICATE")
        .collect()
}

/// How long a certificate is still valid; nothing if it is not valid yet.
fn left(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Duration {
    let validity = certificate.validity();
    if validity.not_before.to_datetime() > now {
        return Duration::ZERO;
    }
    validity.not_after.to_datetime() - now
}

fn is_key_of(key: &str, certificate: &X509Certificate<'_>) -> bool {
    KeyPair::from_pem(key)
        .is_ok_and(|key| key.public_key_raw() == certificate.public_key().subject_public_key.data.as_ref())
}

fn covers(certificate: &X509Certificate<'_>, names: &[String]) -> bool {
    let Ok(Some(held)) = certificate.subject_alternative_name() else { return false };
    let held: BTreeSet<String> = held
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    names.iter().all(|name| held.contains(name))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
#[path = "rotate/tests.rs"]
mod tests;
