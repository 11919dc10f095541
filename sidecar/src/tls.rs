//! TLS in front of the inbound port: with the certificate of a mounted directory, replaced without a restart, and with what
//! clients prove.
//!
//! Sessions are never resumed and nothing is taken before a handshake has ended (RFC 8446 §2.3): each connection proves its
//! client's key by itself, under the certificate that is served then. Callers keep their connections, so that it costs one
//! handshake more when they do not.

mod client;
mod directory;
mod pair;

use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use behalf_policy::bundle::TlsRules;
use behalf_policy::ids::Timestamp;
pub use client::{Client, ClientRefusal, Trust, TrustError};
pub use directory::CertificateDirectory;
pub use pair::{CertificateError, Pair};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::bundle_source::Bundles;
use crate::metrics::Metrics;

/// A handshake is over within this time, the wait for its first byte and for its turn included.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes at once; further ones wait for their turn.
const HANDSHAKES: usize = 256;
/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// RFC 8446 and RFC 5246. What is older is refused (RFC 8996).
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A connection as it came.
#[derive(Debug)]
pub enum Accepted {
    /// By TLS.
    Secured(Box<Secured>),
    /// In the clear; a request on it is not served.
    Plain(TcpStream),
}

/// A connection by TLS.
#[derive(Debug)]
pub struct Secured {
    /// What is read from it was encrypted.
    pub stream: TlsStream<TcpStream>,
    /// The application protocol that was agreed on (RFC 7301).
    pub protocol: Option<Vec<u8>>,
    /// What the client proved to be, if it has a certificate.
    pub client: Option<Arc<Client>>,
}

/// Why a connection did not come about. Closed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Nothing to serve with yet.
    #[error("there is no certificate to serve with")]
    NoCertificate,
    /// It took longer than a handshake may.
    #[error("the handshake took too long")]
    TimedOut,
    /// The client left, or offered nothing that is taken here.
    #[error("the handshake failed: {0}")]
    Failed(#[source] std::io::Error),
}

impl HandshakeError {
    /// Stable name, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "NoCertificate",
            Self::TimedOut => "TimedOut",
            Self::Failed(_) => "Failed",
        }
    }
}

/// TLS of the inbound port; a cheap clone is the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    served: Arc<Served>,
    asking: Arc<ServerConfig>,
    not_asking: Arc<ServerConfig>,
    places: Semaphore,
    within: Duration,
    bundles: Bundles,
    metrics: Arc<Metrics>,
    /// What is wrong with the newest certificate seen, or with the one that is served.
    concern: Mutex<Option<&'static str>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.current().is_some()).finish_non_exhaustive()
    }
}

/// The certificate in use. None at first: a handshake then fails.
#[derive(Default)]
struct Served(ArcSwapOption<Pair>);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| Arc::clone(&pair.certified))
    }
}

impl Tls {
    /// No certificate yet. Whether clients are asked for theirs stands in the bundle. A handshake is over `within` this time.
    ///
    /// # Errors
    /// The TLS library offers no protocol version; never with ours.
    pub fn new(bundles: Bundles, metrics: Arc<Metrics>, within: Duration) -> Result<Self, rustls::Error> {
        let served = Arc::<Served>::default();
        Ok(Self(Arc::new(Inner {
            asking: Arc::new(config(&served, true)?),
            not_asking: Arc::new(config(&served, false)?),
            served,
            places: Semaphore::new(HANDSHAKES),
            within,
            bundles,
            metrics,
            concern: Mutex::default(),
        })))
    }

    /// The certificate that is served with, if there is one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Pair>> {
        self.0.served.0.load_full()
    }

    /// What is wrong with the newest certificate seen, or with the one that is served, for readiness.
    #[must_use]
    pub fn concern(&self) -> Option<&'static str> {
        *self.0.concern.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_concern(&self, concern: Option<&'static str>) {
        *self.0.concern.lock().unwrap_or_else(PoisonError::into_inner) = concern;
    }

    /// Whether clients are asked for their certificate now.
    #[must_use]
    pub fn asks(&self) -> bool {
        let active = self.0.bundles.current();
        let policy = active.as_deref().and_then(|active| active.bundle.policy().ok());
        policy.and_then(|policy| policy.server.tls.as_ref()).is_some_and(TlsRules::asks)
    }

    /// Resolves when clients are asked otherwise than `asked`: a connection from before cannot be asked any more.
    pub async fn asks_otherwise(&self, asked: bool) {
        let mut changes: watch::Receiver<()> = self.0.bundles.changes();
        while self.asks() == asked {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Performs the handshake of a connection that was just accepted. `asks` as [`Tls::asks`] had it.
    ///
    /// # Errors
    /// Why it did not come about. It is counted.
    pub async fn accept(&self, stream: TcpStream, asks: bool) -> Result<Accepted, HandshakeError> {
        let accepted = tokio::time::timeout(self.0.within, self.handshake(stream, asks)).await;
        let accepted = accepted.unwrap_or(Err(HandshakeError::TimedOut));
        self.0.metrics.tls.handshake(match &accepted {
            Ok(Accepted::Secured(_)) => "Secured",
            Ok(Accepted::Plain(_)) => "Plain",
            Err(error) => error.reason(),
        });
        accepted
    }

    async fn handshake(&self, stream: TcpStream, asks: bool) -> Result<Accepted, HandshakeError> {
        let mut first = [0];
        // Nobody takes a place among the handshakes who has not begun one.
        if stream.peek(&mut first).await.map_err(HandshakeError::Failed)? == 0 {
            return Err(HandshakeError::Failed(ErrorKind::UnexpectedEof.into()));
        }
        if first != [HANDSHAKE_RECORD] {
            return Ok(Accepted::Plain(stream));
        }
        if self.current().is_none() {
            return Err(HandshakeError::NoCertificate);
        }
        let config = if asks { &self.0.asking } else { &self.0.not_asking };
        // It is never closed.
        let _place = self.0.places.acquire().await.map_err(|_| HandshakeError::TimedOut)?;
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let stream = acceptor.accept(stream).await.map_err(HandshakeError::Failed)?;
        let (_, connection) = stream.get_ref();
        let client = connection.peer_certificates().and_then(Client::new).map(Arc::new);
        let protocol = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Accepted::Secured(Box::new(Secured { stream, protocol, client })))
    }

    /// Whether somebody who may vouches for the client, as far as the bundle asks for that.
    ///
    /// # Errors
    /// Why nobody does.
    pub fn judge(&self, client: &Client, trust: &Trust, now: Timestamp) -> Result<(), ClientRefusal> {
        let pair = self.current();
        client.judge(trust, pair.as_ref().and_then(|pair| pair.authorities.as_ref()), now)
    }
}

fn config(served: &Arc<Served>, asking: bool) -> Result<ServerConfig, rustls::Error> {
    let builder =
        ServerConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&VERSIONS)?;
    let builder = if asking {
        builder.with_client_cert_verifier(client::possession())
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::<Served>::clone(served));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The one cryptography of the process.
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}
