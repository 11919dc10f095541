//! Callers by TLS: authorities, certificates as a Secret would mount them, and connections that are kept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Answer, Call, World};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// Of a client with these URIs.
    pub(crate) fn with_uris(&self, uris: &[&str]) -> Leaf {
        self.leaf(|params| {
            params.subject_alt_names =
                uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        })
    }
}

impl Leaf {
    /// Vouched for by nobody, as one that a client makes for itself.
    pub(crate) fn self_signed() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        // What common tools write.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    pub(crate) fn thumbprint(&self) -> String {
        B64.encode(digest(&SHA256, self.certificate.der()))
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Puts files where kubelet would, all at once: the names lead through a link that is swapped.
pub(crate) fn mount(dir: &Path, files: &[(&str, &str)]) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let version = format!("..{}", NEXT.fetch_add(1, Ordering::SeqCst));
    std::fs::create_dir_all(dir.join(&version)).unwrap();
    for (name, text) in files {
        std::fs::write(dir.join(&version).join(name), text).unwrap();
        let _ = std::os::unix::fs::symlink(Path::new("..data").join(name), dir.join(name));
    }
    std::os::unix::fs::symlink(&version, dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

/// The server's certificate in a directory, with the authorities of clients beside it.
pub(crate) fn mount_leaf(dir: &Path, leaf: &Leaf, beside: &str) {
    mount(dir, &[("tls.crt", &leaf.pem()), ("tls.key", &leaf.key_pem()), ("ca.crt", beside)]);
}

/// A sidecar that terminates TLS, and who signed its certificate.
pub(crate) struct Secured {
    pub(crate) world: World,
    pub(crate) authority: Authority,
}

impl Secured {
    /// With `tls` in the bundle's server, and `beside` as `ca.crt`.
    pub(crate) async fn start(tls: Value, beside: &str) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf(|_| {});
        let world = World::configured(|config| {
            let dir = config.bundle_dir.join("tls");
            mount_leaf(&dir, &leaf, beside);
            config.tls_dir = Some(dir);
        })
        .await;
        let secured = Self { world, authority };
        secured.publish(1, tls).await;
        secured
    }

    pub(crate) async fn publish(&self, serial: u64, tls: Value) {
        let mut document = super::bundle::document(serial, &self.world.issuer, self.world.server.port);
        document["serve"]["servers"][0]["tls"] = tls;
        self.world.publish(&document).await;
    }

    pub(crate) async fn connect(&self, client: Option<&Leaf>) -> Connection {
        self.dial(client, b"http/1.1").await.unwrap()
    }

    pub(crate) async fn connect_h2(&self, client: Option<&Leaf>) -> Connection {
        self.dial(client, b"h2").await.unwrap()
    }

    pub(crate) async fn dial(&self, client: Option<&Leaf>, protocol: &[u8]) -> std::io::Result<Connection> {
        let config = self.client(client, &[protocol]);
        let stream = handshake(self.world.app.addresses.inbound, config).await?;
        Ok(Connection::over(stream).await)
    }

    pub(crate) fn client(&self, client: Option<&Leaf>, protocols: &[&[u8]]) -> ClientConfig {
        client_config(&self.authority.pem(), client, protocols)
    }

    /// Sends over a connection, and counts.
    pub(crate) async fn send(&self, over: &mut Connection, call: Call) -> Answer {
        self.world.count_one();
        over.send(call).await
    }

    /// A token of alice that is bound to a certificate.
    pub(crate) fn bound_to(&self, leaf: &Leaf) -> String {
        let thumbprint = leaf.thumbprint();
        self.world.token(|claims| claims["cnf"] = serde_json::json!({"x5t#S256": thumbprint}))
    }
}

pub(crate) fn client_config(ca: &str, client: Option<&Leaf>, protocols: &[&[u8]]) -> ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let key = PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into());
            builder.with_client_auth_cert(vec![leaf.certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

pub(crate) async fn handshake(to: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A connection that is kept.
pub(crate) enum Connection {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::H1(sender)
        }
    }

    pub(crate) async fn try_start(&mut self, call: Call) -> hyper::Result<http::Response<Incoming>> {
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        match self {
            Self::H1(sender) => {
                *request.uri_mut() = call.path.parse().unwrap();
                request.headers_mut().insert("host", "hr.example.com".parse().unwrap());
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                *request.uri_mut() = format!("https://hr.example.com{}", call.path).parse().unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub(crate) async fn send(&mut self, call: Call) -> Answer {
        let (parts, body) = self.try_start(call).await.unwrap().into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }
}
