//! The certificate the TLS server hands out: replaced without closing a connection.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::issue::Material;

/// Why a certificate cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// It cannot be read.
    #[error("the serving certificate cannot be read")]
    Unreadable,
    /// TLS does not take it.
    #[error("the serving certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl ServingError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable => "CertificateUnreadable",
            Self::Tls(_) => "CertificateUnusable",
        }
    }
}

/// The certificate in use. Empty at first: a handshake then fails.
#[derive(Default)]
pub struct Serving {
    current: ArcSwapOption<CertifiedKey>,
}

/// Shows only whether there is one.
impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("loaded", &self.current.load().is_some()).finish()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

impl Serving {
    /// Hands out `material` from now on. Returns when it expires, in seconds since 1970.
    ///
    /// # Errors
    /// It cannot be read, or its key is not the certificate's.
    pub fn load(&self, material: &Material) -> Result<i64, ServingError> {
        let chain = CertificateDer::pem_slice_iter(material.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ServingError::Unreadable)?;
        let leaf = chain.first().ok_or(ServingError::Unreadable)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| ServingError::Unreadable)?;
        let expiry = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(material.certificate_key.as_bytes())
            .map_err(|_| ServingError::Unreadable)?;
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        self.current.store(Some(Arc::new(certified)));
        Ok(expiry)
    }

    /// A TLS server that hands out whatever is loaded at the moment of a handshake.
    ///
    /// # Errors
    /// The TLS library offers no protocol version; never with ours.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The one cryptography of the process.
#[must_use]
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}
