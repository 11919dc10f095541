//! The probes and hooks that the webhook moved here: exactly the declared one, over loopback, status only.
//!
//! Whoever reaches the probe port can have them performed, as whoever reached the server's port could before; what they
//! get to see is a number.

mod grpc;

use std::sync::Arc;
use std::time::Duration;

use behalf_policy::probe::{self, Probe, Scheme};
use behalf_policy::wire::{INBOUND_PORT, METRICS_PORT};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use url::Url;

use crate::config::ProbeTable;

/// Kubelet ends a probe when its own bound is reached, by closing the connection; this one only keeps a forgotten one from
/// staying. A hook has none of its own but the pod's grace period.
const BOUND: Duration = Duration::from_mins(10);
const BOUND_OF_HOOKS: Duration = Duration::from_hours(1);
/// How often kubelet follows a redirect.
const REDIRECTS: usize = 10;
/// What kubelet says of itself, but for the rest of its version, which is not known here.
const USER_AGENT: &str = "kube-probe/1";

/// Why the probes cannot be performed.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// A declared path or header is not one.
    #[error("the probe {0} is not a request to a port of the container")]
    Declaration(String),
    /// TLS cannot be set up.
    #[error("TLS for probes cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// A hook got no answer. Kubelet minds no status of a hook, so it must get no answer either.
#[derive(Debug, thiserror::Error)]
#[error("the hook got no answer")]
pub struct NoAnswer;

/// Performs the declared probes.
pub struct Prober {
    probes: std::collections::BTreeMap<String, Declared>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

enum Declared {
    Http(Box<Request<()>>),
    Tcp(u16),
    Grpc { port: u16, service: String },
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
    ///
    /// # Errors
    /// It is a hook that got no answer.
    pub async fn probe(&self, key: &str) -> Result<StatusCode, NoAnswer> {
        let Some(declared) = self.probes.get(key) else { return Ok(StatusCode::NOT_FOUND) };
        let is_hook = probe::is_hook(key);
        let bound = if is_hook { BOUND_OF_HOOKS } else { BOUND };
        match tokio::time::timeout(bound, self.perform(declared)).await.ok().flatten() {
            Some(status) => Ok(status),
            None if is_hook => Err(NoAnswer),
            None => Ok(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    async fn perform(&self, declared: &Declared) -> Option<StatusCode> {
        match declared {
            Declared::Http(request) => self.get(request).await,
            Declared::Tcp(port) => {
                TcpStream::connect(("127.0.0.1", *port)).await.ok().map(|_| StatusCode::OK)
            }
            Declared::Grpc { port, service } => {
                grpc::is_serving(*port, service).await.then_some(StatusCode::OK)
            }
        }
    }

    /// The status at the end of all redirects that stay on this host, as kubelet follows them.
    async fn get(&self, declared: &Request<()>) -> Option<StatusCode> {
        let mut request = declared.clone();
        for _ in 0..REDIRECTS {
            let response = self.client.request(request.clone().map(|()| Empty::new())).await.ok()?;
            match redirected(request, &response)? {
                Ok(next) => request = next,
                Err(status) => return Some(status),
            }
        }
        None
    }
}

/// The request that a redirect within the container leads to, or else the status that stands; none if it leads nowhere.
fn redirected(
    mut request: Request<()>,
    response: &Response<Incoming>,
) -> Option<Result<Request<()>, StatusCode>> {
    let status = response.status();
    let location = response.headers().get(header::LOCATION);
    let (301..=303 | 307 | 308, Some(location)) = (status.as_u16(), location) else {
        return Some(Err(status));
    };
    let location = location.to_str().ok()?;
    let next = Url::parse(&request.uri().to_string()).ok()?.join(location).ok()?;
    let port = next.port_or_known_default()?;
    if next.host_str() != Some("127.0.0.1") || is_ours(port) {
        return Some(Err(status));
    }
    if Url::parse(location).is_ok() {
        request.headers_mut().remove(header::HOST);
    }
    let next = next.as_str().split('#').next().unwrap_or_default();
    *request.uri_mut() = next.parse().ok()?;
    Some(Ok(request))
}

fn is_ours(port: u16) -> bool {
    (INBOUND_PORT..=METRICS_PORT).contains(&port)
}

/// What is performed; none if that is no request, or one to ourselves.
fn declared(probe: &Probe) -> Option<Declared> {
    if is_ours(probe.port()) || probe.port() == 0 {
        return None;
    }
    match probe {
        Probe::Http { port, path, scheme, headers } => {
            let request = http_request(*port, path, *scheme, headers)?;
            Some(Declared::Http(Box::new(request)))
        }
        Probe::Tcp { port } => Some(Declared::Tcp(*port)),
        Probe::Grpc { port, service } => Some(Declared::Grpc { port: *port, service: service.clone() }),
    }
}

fn http_request(port: u16, path: &str, scheme: Scheme, headers: &[(String, String)]) -> Option<Request<()>> {
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
    // Kubelet says these by itself, and leaves them out where they are declared to be empty.
    for (name, usual) in [(header::USER_AGENT, USER_AGENT), (header::ACCEPT, "*/*")] {
        match request.headers().get(&name) {
            None => {
                request.headers_mut().insert(name, HeaderValue::from_static(usual));
            }
            Some(said) if said.is_empty() => {
                request.headers_mut().remove(name);
            }
            Some(_) => {}
        }
    }
    Some(request)
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
