//! What is known of the connection that a request came over. Travels as extensions of the request: never as headers, which
//! anybody can write.

use behalf_policy::claims::Thumbprint;

/// SHA-256 over the DER of the certificate whose key the connection proved. Absent where it proved none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientCertificate(pub(super) Thumbprint);
