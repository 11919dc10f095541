//! What is due, judged from the certificates and the time.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::KeyPair;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::issue::{IssueError, Material};

/// An authority is renewed when less than this is left; until then its certificates outlive no authority.
const AUTHORITY_LEFT: Duration = Duration::days(90);
/// A serving certificate is renewed when less than this is left.
const CERTIFICATE_LEFT: Duration = Duration::days(10);

/// What has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A new serving certificate.
    Certificate,
    /// A new authority and a new serving certificate.
    Authority,
}

/// What of `material` has to be made anew to serve `names` at `now`. Whatever cannot be read is due.
#[must_use]
pub fn due(material: &Material, names: &[String], now: OffsetDateTime) -> Due {
    let Some(authority) = pems(&material.authorities).into_iter().next() else { return Due::Authority };
    let Ok(authority) = authority.parse_x509() else { return Due::Authority };
    if left(&authority, now) < AUTHORITY_LEFT || !is_key_of(&material.authority_key, &authority) {
        return Due::Authority;
    }
    let Some(certificate) = pems(&material.certificate).into_iter().next() else { return Due::Certificate };
    let Ok(certificate) = certificate.parse_x509() else { return Due::Certificate };
    let good = left(&certificate, now) >= CERTIFICATE_LEFT
        && certificate.issuer() == authority.subject()
        && covers(&certificate, names)
        && is_key_of(&material.certificate_key, &certificate);
    if good { Due::Nothing } else { Due::Certificate }
}

/// `material` with what is due made anew. Authorities that have not expired stay trusted beside a new one.
///
/// # Errors
/// Something cannot be made.
pub fn rotate(
    material: Option<&Material>,
    due: Due,
    names: &[String],
    now: OffsetDateTime,
) -> Result<Material, IssueError> {
    match (material, due) {
        (Some(material), Due::Nothing) => Ok(material.clone()),
        (Some(material), Due::Certificate) => {
            let mut next = material.clone();
            next.issue(names, now)?;
            Ok(next)
        }
        (material, _) => {
            let previous =
                material.map(|material| still_trusted(&material.authorities, now)).unwrap_or_default();
            Material::new(names, &previous, now)
        }
    }
}

/// The newest of the authorities that are valid: one is enough, a rotation takes much longer than a certificate lives.
fn still_trusted(authorities: &str, now: OffsetDateTime) -> String {
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
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::certs::issue::{AUTHORITY_LIFE, CERTIFICATE_LIFE};

    fn names() -> Vec<String> {
        vec!["behalf-webhook.behalf-system.svc".to_owned(), "198.18.0.1".to_owned()]
    }

    fn start() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
    }

    fn made() -> Material {
        rotate(None, Due::Authority, &names(), start()).unwrap()
    }

    #[test]
    fn a_new_one_is_due_for_nothing_until_its_last_days() {
        let material = made();
        assert_eq!(due(&material, &names(), start()), Due::Nothing);
        assert_eq!(due(&material, &names(), start() + CERTIFICATE_LIFE - Duration::days(11)), Due::Nothing);
        assert_eq!(
            due(&material, &names(), start() + CERTIFICATE_LIFE - Duration::days(9)),
            Due::Certificate
        );
        assert_eq!(due(&material, &names(), start() + AUTHORITY_LIFE - Duration::days(89)), Due::Authority);
        assert_eq!(due(&material, &names(), start() + AUTHORITY_LIFE * 2), Due::Authority);
        assert_eq!(due(&material, &names(), start() - Duration::days(2)), Due::Authority, "not valid yet");
    }

    #[test]
    fn other_names_foreign_keys_and_rubbish_are_due() {
        let material = made();
        let other = [names(), vec!["elsewhere.svc".to_owned()]].concat();
        assert_eq!(due(&material, &other, start()), Due::Certificate);
        assert_eq!(due(&material, &names()[..1], start()), Due::Nothing);
        let with = |change: fn(&mut Material, Material)| {
            let mut changed = made();
            change(&mut changed, made());
            due(&changed, &names(), start())
        };
        assert_eq!(with(|it, other| it.certificate_key = other.certificate_key), Due::Certificate);
        assert_eq!(with(|it, other| it.certificate = other.certificate), Due::Certificate);
        assert_eq!(with(|it, _| it.certificate.clear()), Due::Certificate);
        assert_eq!(with(|it, _| it.certificate_key = Zeroizing::new("no key".into())), Due::Certificate);
        assert_eq!(with(|it, other| it.authority_key = other.authority_key), Due::Authority);
        assert_eq!(with(|it, _| it.authorities = "no certificate".into()), Due::Authority);
        assert_eq!(with(|it, _| it.authorities.clear()), Due::Authority);
    }

    #[test]
    fn a_new_certificate_keeps_the_authority() {
        let material = made();
        let next = rotate(Some(&material), Due::Certificate, &names(), start() + Duration::days(25)).unwrap();
        assert_eq!(next.authorities, material.authorities);
        assert_ne!(next.certificate, material.certificate);
        assert_ne!(*next.certificate_key, *material.certificate_key);
        assert_eq!(due(&next, &names(), start() + Duration::days(25)), Due::Nothing);
    }

    #[test]
    fn a_new_authority_leaves_the_last_one_trusted_and_only_that() {
        let mut material = made();
        let mut now = start();
        for _ in 0..4 {
            let last = pems(&material.authorities)[0].contents.clone();
            now += AUTHORITY_LIFE - Duration::days(60);
            assert_eq!(due(&material, &names(), now), Due::Authority);
            material = rotate(Some(&material), Due::Authority, &names(), now).unwrap();
            let trusted = pems(&material.authorities);
            assert_eq!(trusted.len(), 2);
            assert_eq!(trusted[1].contents, last);
            assert_eq!(due(&material, &names(), now), Due::Nothing);
        }
        now += AUTHORITY_LIFE * 2;
        let fresh = rotate(Some(&material), Due::Authority, &names(), now).unwrap();
        assert_eq!(pems(&fresh.authorities).len(), 1, "an expired authority is not kept");
    }

    #[test]
    fn the_secret_gives_back_what_was_put_in() {
        let material = made();
        let again = Material::from_data(&material.to_data()).unwrap();
        assert_eq!(again.to_data(), material.to_data());
        for key in material.to_data().keys() {
            let mut data = material.to_data();
            data.remove(key);
            assert!(Material::from_data(&data).is_err(), "{key}");
        }
    }

    #[test]
    fn no_output_shows_a_private_key() {
        assert!(!format!("{:?}", made()).contains("PRIVATE"));
    }
}
