//! The probes that the webhook moved here: exactly the declared one, over loopback, status only.

use std::sync::Arc;
use std::time::Duration;

use behalf_policy::probe::{Probe, Scheme};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

use crate::config::ProbeTable;

/// Kubelet has its own, shorter bound; this one only keeps a forgotten probe from staying.
const BOUND: Duration = Duration::from_mins(1);

/// Why the probes cannot be performed.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// A declared path or header is not one.
    #[error("the probe {0} is not a request")]
    Declaration(String),
    /// TLS cannot be set up.
    #[error("TLS for probes cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Performs the declared probes.
pub struct Prober {
    probes: std::collections::BTreeMap<String, Declared>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

enum Declared {
    Http(Box<Request<()>>),
    Tcp(u16),
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("probes", &self.probes.keys()).finish_non_exhaustive()
    }
}

impl Prober {
    /// Reads the declarations.
    ///
    /// # Errors
    /// When one of them is no request, or TLS cannot be set up.
    pub fn new(table: &ProbeTable) -> Result<Self, ProberError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AsKubeletDoes(provider)))
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // Kubelet opens a connection for every probe; a kept one would hide a server that stopped accepting.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut probes = std::collections::BTreeMap::new();
        for (key, probe) in &table.0 {
            let declared = declared(probe).ok_or_else(|| ProberError::Declaration(key.clone()))?;
            probes.insert(key.clone(), declared);
        }
        Ok(Self { probes, client })
    }

    /// The status of a declared probe; 404 for one that was not declared.
    pub async fn probe(&self, key: &str) -> StatusCode {
        match self.probes.get(key) {
            None => StatusCode::NOT_FOUND,
            Some(Declared::Tcp(port)) => {
                let connected = TcpStream::connect(("127.0.0.1", *port));
                match tokio::time::timeout(BOUND, connected).await {
                    Ok(Ok(_)) => StatusCode::OK,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                }
            }
            Some(Declared::Http(request)) => {
                let request = (**request).clone().map(|()| Empty::new());
                match tokio::time::timeout(BOUND, self.client.request(request)).await {
                    Ok(Ok(response)) => response.status(),
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                }
            }
        }
    }
}

fn declared(probe: &Probe) -> Option<Declared> {
    let Probe::Http { port, path, scheme, headers } = probe else {
        let Probe::Tcp { port } = probe else { return None };
        return Some(Declared::Tcp(*port));
    };
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let uri: Uri = format!("{scheme}://127.0.0.1:{port}{slash}{path}").parse().ok()?;
    let mut request = Request::get(uri).body(()).ok()?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_str(value).ok()?;
        if name == header::HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    Some(Declared::Http(Box::new(request)))
}

/// Kubelet does not verify a container's certificate; a probe that is moved here must not either. Only
/// ever used towards 127.0.0.1, for probes.
#[derive(Debug)]
struct AsKubeletDoes(Arc<CryptoProvider>);

impl ServerCertVerifier for AsKubeletDoes {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
