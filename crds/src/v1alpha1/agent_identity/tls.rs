//! TLS at the sidecar: with which certificate, and what is asked of clients.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::bounds;
use crate::v1alpha1::identity_provider::{CA_MESSAGE, CA_RULE};

/// How the sidecar terminates TLS, for callers who come to the pod by https.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clientCertificates) || self.clientCertificates != 'Required' || has(self.clientValidation)")
        .message("Required needs clientValidation: a certificate that nobody vouches for says nothing of its holder")
        .field_path(".clientCertificates").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.clientValidation) || (has(self.clientCertificates) && self.clientCertificates != 'Ignored')")
        .message("clientValidation judges certificates that clients are asked for; set clientCertificates to Requested or Required")
        .field_path(".clientValidation").reason(Reason::FieldValueForbidden)
)]
pub struct ServerTls {
    /// Where the certificate and its key come from. Only the sidecar mounts it; pods of another source need a restart, and
    /// a renewed certificate is taken without one.
    pub certificate: CertificateSource,
    /// Whether clients are asked for a certificate (RFC 8705). Ignored: no. Requested: a token may be bound to the client's
    /// certificate, and clients without one may call. Required: a call without one is refused.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Who vouches for clients' certificates. Absent: nobody has to, and a certificate counts for tokens that are bound to
    /// it, self-signed ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClientValidation")]
    pub client_validation: Option<ClientValidation>,
}

/// Where a certificate and its key come from; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretName) != has(self.csi)")
    .message("name exactly one of secretName and csi").reason(Reason::FieldValueInvalid))]
pub struct CertificateSource {
    /// A Secret of type kubernetes.io/tls in the identity's namespace: tls.crt, tls.key, and ca.crt if clientValidation
    /// needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Subdomain>")]
    pub secret_name: Option<String>,
    /// A CSI driver that writes tls.crt, tls.key and ca.crt into an ephemeral volume, such as cert-manager's for SPIFFE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CsiCertificate")]
    pub csi: Option<CsiCertificate>,
}

/// A CSI driver that writes certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsiCertificate {
    /// Name of the driver, such as spiffe.csi.cert-manager.io.
    #[schemars(schema_with = "bounds::text::<bounds::CsiDriver>")]
    pub driver: String,
    /// What the driver is told. The files must be readable for group 15001, the sidecar's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounds::attributes")]
    pub volume_attributes: BTreeMap<String, String>,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificates {
    /// No.
    #[default]
    Ignored,
    /// Yes, and a client may have none.
    Requested,
    /// Yes, and a call without one is refused.
    Required,
}

/// Who vouches for clients' certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// Certificates (PEM) of the authorities that may vouch for clients. Absent: those in ca.crt beside the sidecar's own
    /// certificate, as SPIFFE has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Pem>")]
    #[x_kube(validation = Rule::new(CA_RULE).message(CA_MESSAGE).reason(Reason::FieldValueInvalid))]
    pub ca_bundle: Option<String>,
    /// The SPIFFE trust domain of clients: their certificate has exactly one URI, a SPIFFE ID of this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::TrustDomain>")]
    pub spiffe_trust_domain: Option<String>,
}
