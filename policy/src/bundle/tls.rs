//! TLS at the sidecar, as far as policy has a say: whether clients are asked for a certificate, and who vouches for it.
//!
//! That a client has the key of its certificate is shown by every handshake, whatever stands here; tokens are bound to a
//! certificate by its thumbprint alone (RFC 8705 §3), which needs nobody to vouch for it.

use serde::{Deserialize, Serialize};

use super::LoadError;
use crate::claims::spiffe_trust_domain;

/// How connections of callers are secured where the sidecar terminates TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRules {
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// Who vouches for it. None: nobody has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Ignored,
    /// They are asked, and may have none.
    Requested,
    /// A request over a connection without one is refused.
    Required,
}

/// Who vouches for clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientValidation {
    /// PEM of the authorities. None: those beside the sidecar's own certificate (`ca.crt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// The SPIFFE trust domain that clients have to be of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_trust_domain: Option<String>,
}

impl TlsRules {
    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.client_certificates != ClientCertificates::Ignored
    }

    /// # Errors
    /// A certificate is required that nobody vouches for, or one is judged that nobody is asked for.
    pub(super) fn check(self) -> Result<Self, LoadError> {
        match (&self.client_validation, self.client_certificates) {
            (None, ClientCertificates::Required) => Err(LoadError::Empty("tls.clientValidation".to_owned())),
            (Some(_), ClientCertificates::Ignored) => Err(LoadError::Bounds("tls.clientCertificates")),
            (Some(validation), _) if validation.domain_is_odd() => {
                Err(LoadError::Bounds("tls.clientValidation.spiffeTrustDomain"))
            }
            _ => Ok(self),
        }
    }
}

impl ClientValidation {
    fn domain_is_odd(&self) -> bool {
        let odd = |domain: &str| spiffe_trust_domain(&format!("spiffe://{domain}/x")) != Some(domain);
        self.spiffe_trust_domain.as_deref().is_some_and(odd)
    }

    /// Whether a certificate with these URIs among its names is of the trust domain, if there has to be one. An X.509-SVID
    /// has exactly one URI, which is its SPIFFE ID (X.509-SVID §2).
    #[must_use]
    pub fn takes_names(&self, uris: &[&str]) -> bool {
        let Some(domain) = self.spiffe_trust_domain.as_deref() else { return true };
        matches!(uris, [id] if spiffe_trust_domain(id) == Some(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(asks: ClientCertificates, client_validation: Option<ClientValidation>) -> TlsRules {
        TlsRules { client_certificates: asks, client_validation }
    }

    fn of_domain(domain: &str) -> ClientValidation {
        ClientValidation { ca_bundle: None, spiffe_trust_domain: Some(domain.to_owned()) }
    }

    #[test]
    fn a_required_certificate_needs_somebody_who_vouches_and_nothing_is_judged_unasked() {
        use ClientCertificates::{Ignored, Requested, Required};
        for good in [
            rules(Ignored, None),
            rules(Requested, None),
            rules(Requested, Some(ClientValidation::default())),
            rules(Required, Some(ClientValidation::default())),
            rules(Required, Some(of_domain("example.org"))),
        ] {
            assert_eq!(good.clone().check(), Ok(good.clone()));
            assert_eq!(good.asks(), good.client_certificates != Ignored);
        }
        for bad in [
            rules(Required, None),
            rules(Ignored, Some(ClientValidation::default())),
            rules(Required, Some(of_domain(""))),
            rules(Required, Some(of_domain("Example.org"))),
            rules(Required, Some(of_domain("example.org/x"))),
            rules(Requested, Some(of_domain("spiffe://example.org"))),
        ] {
            assert!(bad.clone().check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a27_a_spiffe_client_has_exactly_one_uri_and_it_is_of_the_trust_domain() {
        let spiffe =
            ClientValidation { ca_bundle: None, spiffe_trust_domain: Some("example.org".to_owned()) };
        assert!(spiffe.takes_names(&["spiffe://example.org/ns/hr/sa/agent"]));
        for bad in [
            &[][..],
            &["spiffe://example.org/a", "spiffe://example.org/a"],
            &["spiffe://example.org/a", "https://example.org"],
            &["spiffe://example.org"],
            &["spiffe://example.org/"],
            &["spiffe://example.com/a"],
            &["spiffe://example.org.evil.com/a"],
            &["spiffe://Example.org/a"],
            &["https://example.org/a"],
            &["spiffe://example.org/a/../b"],
            &["spiffe://example.org:8080/a"],
            &["spiffe://user@example.org/a"],
            &["spiffe://example.org/a?b"],
            &["spiffe://example.org\0.evil.com/a"],
            &["spiffe://example.org/a\0b"],
        ] {
            assert!(!spiffe.takes_names(bad), "{bad:?}");
        }
        assert!(
            ClientValidation::default().takes_names(&["https://a", "https://b"]),
            "no domain is asked for"
        );
    }
}
