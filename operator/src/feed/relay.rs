//! From one replica to the one that leads: what a sidecar told, handed on as it came.
//!
//! What does not arrive is dropped: reports are cumulative, the next one says it again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use behalf_policy::bundle::document::FeedDocument;
use behalf_policy::feed::{MAX_REPORT_BYTES, Report, ReportError};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;

use super::allot::Given;
use super::caller::Reporter;
use super::{RELAY_PATH, host};
use crate::certs::serving::provider;
use crate::kube_io::lease::{Leader, Leadership};

/// How long handing on one report may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reports that are handed on at a time; more are dropped.
const PLACES: usize = 256;
/// The format this build reads and writes; any other is refused.
const FORMAT: u32 = 1;
/// No relayed report is larger: names and UID around the report.
pub const MAX_RELAY_BYTES: usize = MAX_REPORT_BYTES + 2048;

/// No answer to it is larger.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// What a replica hands on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Relayed {
    format: u32,
    namespace: String,
    identity: String,
    pod: String,
    uid: String,
    report: Box<RawValue>,
}

/// What the leader answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<Given>,
}

/// Writes the answer to what was handed on.
#[must_use]
pub fn reply(shares: Option<Given>) -> Bytes {
    serde_json::to_vec(&Reply { shares }).unwrap_or_default().into()
}

/// Reads what another replica handed on.
///
/// # Errors
/// It is no report of a pod.
pub fn parse(bytes: &[u8]) -> Result<(Reporter, Report), ReportError> {
    if bytes.len() > MAX_RELAY_BYTES {
        return Err(ReportError::TooLarge);
    }
    let Relayed { format, namespace, identity, pod, uid, report } =
        serde_json::from_slice(bytes).map_err(|_| ReportError::Malformed)?;
    if format != FORMAT {
        return Err(ReportError::Format);
    }
    if [&namespace, &identity, &pod, &uid].into_iter().any(|it| it.is_empty() || it.len() > 253) {
        return Err(ReportError::Bounds("names"));
    }
    Ok((Reporter { identity: (namespace, identity), pod, uid }, Report::parse(report.get().as_bytes())?))
}

/// Writes what is handed on; none if the report is not JSON.
#[must_use]
pub fn print(who: &Reporter, report: &[u8]) -> Option<Bytes> {
    let report = RawValue::from_string(std::str::from_utf8(report).ok()?.to_owned()).ok()?;
    let relayed = Relayed {
        format: FORMAT,
        namespace: who.identity.0.clone(),
        identity: who.identity.1.clone(),
        pod: who.pod.clone(),
        uid: who.uid.clone(),
        report,
    };
    serde_json::to_vec(&relayed).ok().map(Bytes::from)
}

/// Why a report was not handed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nobody leads, or nobody says where.
    #[error("there is no leader that could be reached")]
    NoLeader,
    /// Too many are under way.
    #[error("too many reports are under way to the leader")]
    Busy,
    /// Our own token cannot be read.
    #[error("the operator's own token cannot be read: {0}")]
    Token(#[source] std::io::Error),
    /// The report is not one.
    #[error("the report cannot be handed on")]
    Unprintable,
    /// There is no certificate yet, or none that can be read.
    #[error("the authorities of the feed are not known")]
    Authorities,
    /// The leader cannot be reached.
    #[error("cannot connect to the leader: {0}")]
    Connect(#[from] std::io::Error),
    /// HTTP does not work.
    #[error("HTTP with the leader: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("the leader did not answer in time")]
    Slow,
    /// The leader did not take it.
    #[error("the leader answered {0}")]
    Refused(StatusCode),
}

impl RelayError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoLeader => "NoLeader",
            Self::Busy => "RelayBusy",
            Self::Token(_) => "OwnTokenMissing",
            Self::Unprintable => "RelayUnprintable",
            Self::Authorities => "AuthoritiesUnknown",
            Self::Connect(_) => "LeaderUnreachable",
            Self::Http(_) => "LeaderHttp",
            Self::Slow => "LeaderSlow",
            Self::Refused(_) => "LeaderRefused",
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// The way to the leader: one connection for all.
pub struct Relay {
    leadership: Leadership,
    feed: watch::Receiver<Option<FeedDocument>>,
    token: PathBuf,
    host: String,
    port: u16,
    places: Semaphore,
    open: Mutex<Option<(Leader, Sender)>>,
}

impl Relay {
    /// To whoever leads, on the port on which all replicas listen, trusting the authorities of `feed`, with the token in
    /// the file `token`.
    #[must_use]
    pub fn new(
        leadership: Leadership,
        feed: watch::Receiver<Option<FeedDocument>>,
        token: PathBuf,
        system_namespace: &str,
        port: u16,
    ) -> Self {
        let host = host(system_namespace);
        let places = Semaphore::new(PLACES);
        Self { leadership, feed, token, host, port, places, open: Mutex::default() }
    }

    /// Hands on a report, and gives what its pod is given of rate limits, if the leader says.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn hand_on(&self, who: &Reporter, report: &[u8]) -> Result<Option<Given>, RelayError> {
        let _place = self.places.try_acquire().map_err(|_| RelayError::Busy)?;
        let leader = self.leadership.leader().ok_or(RelayError::NoLeader)?;
        let body = print(who, report).ok_or(RelayError::Unprintable)?;
        tokio::time::timeout(PATIENCE, self.send(leader, body)).await.map_err(|_| RelayError::Slow)?
    }

    async fn send(&self, leader: Leader, body: Bytes) -> Result<Option<Given>, RelayError> {
        let token = tokio::fs::read_to_string(&self.token).await.map_err(RelayError::Token)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|error| RelayError::Token(std::io::Error::other(error)))?;
        bearer.set_sensitive(true);
        let mut sender = self.sender(leader).await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            format!("https://{}{RELAY_PATH}", self.host).parse().map_err(|_| RelayError::Unprintable)?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(RelayError::Refused(response.status()));
        }
        // It was taken; what cannot be read of the answer is as if it were not said.
        let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await;
        let reply = body.ok().and_then(|body| serde_json::from_slice::<Reply>(&body.to_bytes()).ok());
        Ok(reply.and_then(|reply| reply.shares))
    }

    /// The open connection, if it leads to this leader, else a new one.
    async fn sender(&self, leader: Leader) -> Result<Sender, RelayError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, sender)) = open.filter(|(to, sender)| *to == leader && !sender.is_closed()) {
            return Ok(sender);
        }
        let sender = self.connect(SocketAddr::new(leader.ip, self.port)).await?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = Some((leader, sender.clone()));
        Ok(sender)
    }

    async fn connect(&self, leader: SocketAddr) -> Result<Sender, RelayError> {
        let config = self.trust()?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| RelayError::Authorities)?;
        let stream = TcpStream::connect(leader).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PATIENCE).keep_alive_timeout(PATIENCE);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the connection to the leader ended");
            }
        });
        Ok(sender)
    }

    fn trust(&self) -> Result<ClientConfig, RelayError> {
        let feed = self.feed.borrow().clone().ok_or(RelayError::Authorities)?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(feed.ca_bundle.as_bytes()) {
            let authority = authority.map_err(|_| RelayError::Authorities)?;
            roots.add(authority).map_err(|_| RelayError::Authorities)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| RelayError::Authorities)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
