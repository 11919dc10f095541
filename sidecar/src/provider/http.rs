//! The HTTP client of the sidecar: TLS only, HTTP/1.1 only, no redirects, no proxies, no compression.
//!
//! Every connection goes through [`super::dial`]; trust roots are those that catalogue or provider
//! name, one client (and so one pool of connections) per purpose and trust root.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use behalf_policy::framing::FramingRefusal;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;
use zeroize::Zeroizing;

use super::dial::{DialError, Dialer, Network};
use crate::framed::{ToAnswers, framing_refusal};

/// No answer of a provider is longer than this many bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;
/// What is asked for unless something else is.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// So many clients are kept; a bundle names far fewer purposes and trust roots.
const MAX_CLIENTS: usize = 64;

/// What a body may fail with.
pub type BoxError = Box<dyn StdError + Send + Sync>;
/// Body of a request that leaves the sidecar.
pub type OutgoingBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why a request had no usable answer. Says nothing of what the other side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not an https URL without user info and fragment.
    #[error("the URL is not usable")]
    Url,
    /// The CA is no PEM of certificates.
    #[error("the CA is not usable")]
    Ca,
    /// There is no connection.
    #[error(transparent)]
    Dial(DialError),
    /// The answer does not have one reading.
    #[error("the framing of the answer is not taken")]
    Framing(FramingRefusal),
    /// The connection broke, TLS did not hold, or the answer is not HTTP.
    #[error("the connection or its TLS failed")]
    Transport,
    /// It took too long.
    #[error("the answer took too long")]
    Timeout,
    /// The answer is longer than [`MAX_ANSWER`].
    #[error("the answer is too long")]
    TooLarge,
    /// The answer is compressed, which was not asked for.
    #[error("the answer is compressed")]
    Encoding,
}

impl HttpError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Url | Self::Dial(DialError::Host) => "UrlNotUsable",
            Self::Ca => "CaNotUsable",
            Self::Dial(DialError::NotResolved) => "NameNotResolved",
            Self::Dial(DialError::AddressRefused(_)) => "AddressRefused",
            Self::Dial(DialError::NotConnected) => "NotConnected",
            Self::Dial(DialError::Timeout) | Self::Timeout => "Timeout",
            Self::Framing(refusal) => refusal.reason(),
            Self::Transport => "TransportFailed",
            Self::TooLarge => "AnswerTooLarge",
            Self::Encoding => "AnswerCompressed",
        }
    }
}

/// A whole answer of a provider.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// `Retry-After` in seconds, when it says so.
    pub retry_after: Option<u32>,
    /// Its body, at most [`MAX_ANSWER`] bytes. May hold a token.
    pub body: Zeroizing<Vec<u8>>,
}

/// A client for one purpose and trust root. A cheap clone shares its connections.
pub type Pool = Client<ToAnswers<Connector>, OutgoingBody>;

/// The client of the sidecar. A cheap clone shares everything.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    handshake_timeout: Duration,
    total_timeout: Duration,
    clients: Mutex<HashMap<[u8; 32], Pool>>,
}

impl HttpClient {
    /// A client that reaches the network as told.
    ///
    /// # Errors
    /// When no resolver can be made for the nameservers.
    pub fn new(network: &Network) -> Result<Self, DialError> {
        Ok(Self(Arc::new(Inner {
            dialer: Dialer::new(network)?,
            handshake_timeout: network.connect_timeout,
            total_timeout: network.total_timeout,
            clients: Mutex::new(HashMap::new()),
        })))
    }

    /// Gets a document.
    ///
    /// # Errors
    /// When there is no whole answer within the time and size limits. Any status is an answer.
    pub async fn get(&self, url: &str, ca: Option<&str>) -> Result<Reply, HttpError> {
        let body = Full::new(Bytes::new()).map_err(BoxError::from).boxed_unsync();
        self.ask(Method::GET, url, ca, None, JSON, body).await
    }

    /// Posts a form.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post_form(
        &self,
        url: &str,
        ca: Option<&str>,
        authorization: Option<HeaderValue>,
        form: Zeroizing<String>,
    ) -> Result<Reply, HttpError> {
        self.post_form_for(url, ca, authorization, form, JSON).await
    }

    /// Posts a form whose answer is asked for in another form than JSON.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post_form_for(
        &self,
        url: &str,
        ca: Option<&str>,
        authorization: Option<HeaderValue>,
        form: Zeroizing<String>,
        accept: HeaderValue,
    ) -> Result<Reply, HttpError> {
        // The owner wipes the form when the last reference to the bytes is gone.
        let bytes = Bytes::from_owner(Wiped(form));
        let body = Full::new(bytes).map_err(BoxError::from).boxed_unsync();
        self.ask(Method::POST, url, ca, authorization, accept, body).await
    }

    /// The client for one purpose and trust root.
    ///
    /// # Errors
    /// When the CA is no PEM of certificates.
    pub fn pool(&self, purpose: &str, ca: Option<&str>) -> Result<Pool, HttpError> {
        let key = client_key(purpose, ca);
        let lock = || self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = lock().get(&key) {
            return Ok(pool.clone());
        }
        let pool = self.new_pool(ca)?;
        let mut clients = lock();
        if clients.len() >= MAX_CLIENTS {
            // Trust roots of bundles that are gone; connections in use are not cut.
            clients.clear();
        }
        Ok(clients.entry(key).or_insert(pool).clone())
    }

    fn new_pool(&self, ca: Option<&str>) -> Result<Pool, HttpError> {
        let mut https = HttpsConnector::new(
            self.0.dialer.clone(),
            tls_config(ca)?,
            true,
            Arc::new(DefaultServerNameResolver::default()),
        );
        https.enforce_https();
        let connector = Connector { https, timeout: self.0.handshake_timeout };
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
            .build(ToAnswers(connector)))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        ca: Option<&str>,
        authorization: Option<HeaderValue>,
        accept: HeaderValue,
        body: OutgoingBody,
    ) -> Result<Reply, HttpError> {
        let uri: Uri = usable_url(url).ok_or(HttpError::Url)?;
        let mut request = Request::builder().method(&method).uri(uri).header(ACCEPT, accept);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(body).map_err(|_| HttpError::Url)?;
        let pool = self.pool("provider", ca)?;
        let answer = async {
            let response = pool.request(request).await.map_err(|e| http_error(&e))?;
            read(response).await
        };
        tokio::time::timeout(self.0.total_timeout, answer).await.map_err(|_| HttpError::Timeout)?
    }
}

/// The connection that a request goes over, to be given up when its answer is not to be trusted.
#[derive(Debug, Clone)]
pub struct Carried(CaptureConnection);

impl Carried {
    /// Learns the connection of a request that is about to be sent.
    pub fn of<B>(request: &mut Request<B>) -> Self {
        Self(capture_connection(request))
    }

    /// No further request goes over it.
    pub fn give_up(&self) {
        if let Some(connected) = self.0.connection_metadata().as_ref() {
            connected.poison();
        }
    }
}

/// An https URL without user info and fragment; D9 and B26.
#[must_use]
pub fn usable_url(text: &str) -> Option<Uri> {
    let url = url::Url::parse(text).ok()?;
    let usable = url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    if !usable {
        return None;
    }
    url.as_str().parse().ok()
}

async fn read(response: Response<Incoming>) -> Result<Reply, HttpError> {
    let (head, body) = response.into_parts();
    if head.headers.get(CONTENT_ENCODING).is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(HttpError::Encoding);
    }
    let retry_after =
        head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { HttpError::TooLarge } else { HttpError::Transport }
    })?;
    Ok(Reply { status: head.status, retry_after, body: Zeroizing::new(body.to_bytes().to_vec()) })
}

/// What a failed request of a pool comes down to.
#[must_use]
pub fn http_error(error: &(dyn StdError + 'static)) -> HttpError {
    let mut at = Some(error);
    while let Some(link) = at {
        if let Some(error) = link.downcast_ref::<DialError>() {
            return HttpError::Dial(*error);
        }
        at = link.source();
    }
    framing_refusal(error).map_or(HttpError::Transport, HttpError::Framing)
}

fn client_key(purpose: &str, ca: Option<&str>) -> [u8; 32] {
    let mut frame = super::frame::Frame::new("client");
    frame.text(purpose).optional(ca);
    frame.finish()
}

fn tls_config(ca: Option<&str>) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.map_err(|_| HttpError::Ca)?).map_err(|_| HttpError::Ca)?;
            }
            if roots.is_empty() {
                return Err(HttpError::Ca);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| HttpError::Ca)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// A connector that bounds the whole of connecting, TLS included.
#[derive(Clone)]
pub struct Connector {
    https: HttpsConnector<Dialer>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let timeout = self.timeout;
        Box::pin(async move {
            // The dialer has a limit of its own; this one leaves as much again for the handshake.
            tokio::time::timeout(timeout.saturating_mul(2), connecting)
                .await
                .map_err(|_| DialError::Timeout)?
        })
    }
}

struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
