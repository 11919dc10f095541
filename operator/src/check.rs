//! Whether Behalf is installed and answers, asked from inside the cluster: the chart's test.
//!
//! Reads: the API group of our kinds (every account may), our webhook configuration, and the admission policies and their
//! bindings by label. It writes nothing; the one admission review it sends is for a pod that does not exist.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::Client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::args::CheckArgs;
use crate::certs::serving::provider;
use crate::kube_io::installed::{Installed, Policy};
use crate::webhook::server::MUTATE;

/// How long one conversation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions while the operator is not reachable yet.
const BETWEEN: Duration = Duration::from_millis(500);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 1024 * 1024;
/// The kinds that must be served.
const KINDS: [&str; 3] = ["AgentIdentity", "IdentityProvider", "ScopeCatalog"];

/// Why a check failed: cause and next step.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The API server cannot be asked.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// The webhook cannot be reached.
    #[error("cannot connect: {0}. Look at the operator's pods and the Service's endpoints")]
    Connect(#[from] std::io::Error),
    /// The webhook's certificate is no PEM.
    #[error(
        "the caBundle of the webhook configuration cannot be read; the operator writes it within seconds of its start"
    )]
    Authority,
    /// The Service has no DNS name.
    #[error("the Service's name is no DNS name: {0}")]
    Name(#[from] InvalidDnsNameError),
    /// TLS does not work.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP does not work.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {PATIENCE:?}")]
    Slow,
    /// Something else answered than should.
    #[error("{0}")]
    Wrong(String),
}

/// Checks everything, a line each; whether all is well.
pub async fn check(args: &CheckArgs, client: Client) -> bool {
    let installed = Installed::new(client);
    let mut all_well = true;
    let mut say = |what: &str, result: Result<String, CheckError>| {
        let line = match &result {
            Ok(detail) => format!("ok    {what}: {detail}"),
            Err(error) => format!("FAIL  {what}: {error}"),
        };
        all_well &= result.is_ok();
        // Nobody listens: the exit code still says it.
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    say("kinds", kinds(&installed).await);
    say("admission policies", policies(&installed).await);
    say("operator ready", reachable(args, &installed).await);
    match installed.authorities(&args.webhook_configuration).await {
        Ok(authorities) => say("webhook", webhook(args, authorities.as_deref()).await),
        Err(error) => say("webhook configuration", Err(error.into())),
    }
    all_well
}

/// Asks until it is ready or the time is up; the last answer counts.
async fn reachable(args: &CheckArgs, installed: &Installed) -> Result<String, CheckError> {
    let deadline = Instant::now() + Duration::from_secs(args.wait_seconds);
    loop {
        let authorities = installed.authorities(&args.webhook_configuration).await?;
        match ready(args, authorities.as_deref()).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(BETWEEN).await,
            last => return last,
        }
    }
}

async fn kinds(installed: &Installed) -> Result<String, CheckError> {
    let served = installed.kinds().await?;
    let missing: Vec<_> = KINDS.iter().filter(|kind| !served.iter().any(|it| it == *kind)).collect();
    if missing.is_empty() {
        return Ok(KINDS.join(", "));
    }
    Err(CheckError::Wrong(format!("{missing:?} are not served. Install the chart behalf-crds")))
}

async fn policies(installed: &Installed) -> Result<String, CheckError> {
    let policies = installed.policies().await?;
    if policies.is_empty() {
        return Err(CheckError::Wrong(
            "there are none, so nothing keeps bare pods out. Install the chart behalf whole".into(),
        ));
    }
    let wrong =
        |of: fn(&&Policy) -> bool| policies.iter().filter(of).map(|it| it.name.as_str()).collect::<Vec<_>>();
    let unbound = wrong(|it| !it.bound);
    let doubtful = wrong(|it| it.warnings > 0);
    if !unbound.is_empty() {
        return Err(CheckError::Wrong(format!(
            "without a binding, hence without effect: {}",
            unbound.join(", ")
        )));
    }
    if !doubtful.is_empty() {
        return Err(CheckError::Wrong(format!(
            "the API server warns about expressions of: {}",
            doubtful.join(", ")
        )));
    }
    Ok(format!("{} bound", policies.len()))
}

async fn ready(args: &CheckArgs, authorities: Option<&str>) -> Result<String, CheckError> {
    let (status, body) = ask(args, authorities, Method::GET, "/readyz", Bytes::new()).await?;
    if status == StatusCode::OK {
        return Ok("it says so over TLS, with a certificate of the caBundle's authority".into());
    }
    Err(CheckError::Wrong(format!("it says {}: {}", status, String::from_utf8_lossy(&body).trim())))
}

async fn webhook(args: &CheckArgs, authorities: Option<&str>) -> Result<String, CheckError> {
    let uid = "00000000-0000-0000-0000-000000000000";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "check"}, "spec": {"containers": [{"name": "check", "image": "check"}]}});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "dryRun": true, "namespace": args.namespace, "name": "check", "userInfo": {},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": pod, "oldObject": null,
    }});
    let (status, body) = ask(args, authorities, Method::POST, MUTATE, review.to_string().into()).await?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = &answer["response"];
    if status == StatusCode::OK
        && response["uid"] == uid
        && response["allowed"] == true
        && response["patch"].is_null()
    {
        return Ok("it lets a pod without our label pass untouched".into());
    }
    Err(CheckError::Wrong(format!("it answers a pod without our label with {status}: {answer}")))
}

async fn ask(
    args: &CheckArgs,
    authorities: Option<&str>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), CheckError> {
    let conversation = converse(args, authorities, method, path, body);
    tokio::time::timeout(PATIENCE, conversation).await.map_err(|_| CheckError::Slow)?
}

async fn converse(
    args: &CheckArgs,
    authorities: Option<&str>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), CheckError> {
    let host = format!("{}.{}.svc", args.webhook_service, args.namespace);
    let tls = TlsConnector::from(Arc::new(trust(authorities)?));
    let stream = match args.webhook_address {
        Some(address) => connect(address).await?,
        None => TcpStream::connect((host.as_str(), 443)).await?,
    };
    let stream = tls.connect(ServerName::try_from(host.clone())?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| CheckError::Wrong(error.to_string()))?;
    let response: Response<_> = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    driver.abort();
    let body = body.map_err(|error| CheckError::Wrong(error.to_string()))?;
    Ok((status, body.to_bytes()))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, CheckError> {
    Ok(TcpStream::connect(address).await?)
}

/// Trusts the authorities of the webhook configuration, as the API server does, and nobody else.
fn trust(authorities: Option<&str>) -> Result<ClientConfig, CheckError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.unwrap_or_default().as_bytes()) {
        roots.add(authority.map_err(|_| CheckError::Authority)?)?;
    }
    if roots.is_empty() {
        return Err(CheckError::Authority);
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
