//! The feed over HTTPS: `POST /v1/feed` for sidecars, `POST /v1/relay` for other replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use behalf_policy::feed::{Answer, FORMAT, HOLD_SECONDS, LimitUse, Report, ReportError};
use behalf_policy::ids::EntryName;
use behalf_policy::wire::FEED_PATH;
use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::RELAY_PATH;
use super::allot::Given;
use super::board::Board;
use super::caller::{Reporter, Stranger, replica, reporter};
use super::desk::Desk;
use super::held::Held;
use super::relay::{self, Relay};
use crate::clock::Clock;
use crate::http_server::{Handler, respond};
use crate::kube_io::caches::Change;
use crate::kube_io::gather::Gather;
use crate::kube_io::lease::Leadership;
use crate::kube_io::tokens::{Bearer, TokenError, TokenRefusal, Tokens};
use crate::metrics::Metrics;
use tokio::time::Instant;

/// How long an answer waits for a change.
pub const HOLD: Duration = Duration::from_secs(HOLD_SECONDS);

/// Answers sidecars and other replicas.
#[derive(Clone)]
pub struct Feed {
    /// Says whose a token is.
    pub tokens: Tokens,
    /// Reads bundles, pods and identities.
    pub gather: Gather,
    /// Takes what is told, where this replica leads.
    pub desk: Arc<Desk>,
    /// Says when a bundle changed.
    pub board: Arc<Board>,
    /// Where requests wait.
    pub held: Arc<Held>,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// The way to the one that does.
    pub relay: Arc<Relay>,
    /// Hears which identity has to be looked at; none: nobody reconciles here.
    pub changes: Option<mpsc::Sender<Change>>,
    /// How long an answer waits for a change: [`HOLD`].
    pub hold: Duration,
    /// The operator's namespace.
    pub namespace: String,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Everybody is answered at once when it is over.
    pub stop: CancellationToken,
}

/// Why a request is not answered with what it asks.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no bearer token.
    #[error("send one bearer token")]
    NoToken,
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The API server cannot say whose token it is.
    #[error("the token cannot be reviewed now")]
    Unavailable,
    /// Whoever shows it is nobody of ours.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// What it tells is no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Too many wait already. The report was taken.
    #[error("too many requests wait; come back in a moment")]
    Busy,
    /// A last word did not reach the leader. Say it again.
    #[error("the report did not reach the replica that leads")]
    NotHandedOn,
    /// Relayed to a replica that does not lead.
    #[error("this replica does not lead")]
    NotLeading,
    /// No such path.
    #[error("not found")]
    NotFound,
    /// Another method than POST.
    #[error("send POST")]
    Method,
}

impl Refusal {
    /// Closed reason, for answers and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "TokenMissing",
            Self::Token(refusal) => refusal.reason(),
            Self::Unavailable => "TokenReviewUnavailable",
            Self::Stranger(stranger) => stranger.reason(),
            Self::Report(error) => error.reason(),
            Self::Busy => "Busy",
            Self::NotHandedOn => "NotHandedOn",
            Self::NotLeading => "NotLeading",
            Self::NotFound => "NotFound",
            Self::Method => "MethodNotAllowed",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Unavailable | Self::Busy | Self::NotHandedOn | Self::NotLeading => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Stranger(_) => StatusCode::FORBIDDEN,
            Self::Report(ReportError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Report(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn response(&self) -> Response<Bytes> {
        let body = json!({"reason": self.reason(), "message": self.to_string()}).to_string();
        let mut response = respond(self.status(), json_type(), body.into());
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(refusal) => Self::Token(refusal),
            TokenError::Api(error) => {
                tracing::warn!(reason = crate::kube_io::reason(&error), "cannot review a token");
                Self::Unavailable
            }
        }
    }
}

impl Handler for Feed {
    async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::POST, FEED_PATH) => self.feed(&request).await,
            (&Method::POST, RELAY_PATH) => self.relayed(&request).await,
            (_, FEED_PATH | RELAY_PATH) => Err(Refusal::Method),
            _ => Err(Refusal::NotFound),
        };
        let outcome = answer.as_ref().map_or_else(Refusal::reason, |_| "Ok");
        self.metrics.fed(outcome);
        match answer {
            Ok(body) => respond(StatusCode::OK, json_type(), body),
            Err(refusal) => refusal.response(),
        }
    }
}

impl Feed {
    /// A sidecar tells and asks.
    async fn feed(&self, request: &Request<Bytes>) -> Result<Bytes, Refusal> {
        let bearer = self.bearer(request.headers()).await?;
        let who = reporter(&bearer, self.gather.caches())?;
        let report = Report::parse(request.body())?;
        let (ended, running) = (report.ended, report.bundle.as_ref().map(|it| it.digest.clone()));
        let has = report.rate_limits.clone();
        self.deliver(&who, report, request.body()).await?;
        if ended { Ok(nothing()) } else { self.newest(&who, running.as_deref(), &has).await }
    }

    /// Another replica hands on what it was told.
    async fn relayed(&self, request: &Request<Bytes>) -> Result<Bytes, Refusal> {
        let bearer = self.bearer(request.headers()).await?;
        replica(&bearer, &self.namespace)?;
        let (who, report) = relay::parse(request.body())?;
        if !self.leadership.leads() {
            return Err(Refusal::NotLeading);
        }
        self.take(&who, report).await;
        Ok(relay::reply(self.desk.allotments().of(&who)))
    }

    async fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::NoToken) };
        let text = value.to_str().map_err(|_| Refusal::NoToken)?;
        let (scheme, token) = text.split_once(' ').ok_or(Refusal::NoToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(Refusal::NoToken);
        }
        Ok(self.tokens.review(token.trim()).await?)
    }

    /// To the desk, or on its way to it. Whether a last word arrived is waited for: nothing comes after it, so whoever says
    /// it has to know whether to say it again.
    async fn deliver(&self, who: &Reporter, report: Report, body: &Bytes) -> Result<(), Refusal> {
        if self.leadership.leads() {
            self.take(who, report).await;
            return Ok(());
        }
        let (relay, metrics) = (Arc::clone(&self.relay), Arc::clone(&self.metrics));
        let (who, body) = (who.clone(), body.clone());
        let (desk, board) = (Arc::clone(&self.desk), Arc::clone(&self.board));
        let hand_on = async move {
            let handed = relay.hand_on(&who, &body).await.map(|given| {
                if given.is_some_and(|given| desk.allotments().hear(&who, &given, Instant::now())) {
                    board.wake(&who.identity);
                }
            });
            metrics.relayed(handed.as_ref().map_or_else(relay::RelayError::reason, |()| "Ok"));
            handed.inspect_err(|error| {
                tracing::debug!(reason = error.reason(), error = %error, "a report did not reach the leader");
            })
        };
        if report.ended {
            return hand_on.await.map_err(|_| Refusal::NotHandedOn);
        }
        tokio::spawn(hand_on);
        Ok(())
    }

    async fn take(&self, who: &Reporter, report: Report) {
        self.divide(who, &report);
        let look = self.desk.report(who, report, &self.clock.now(), Instant::now());
        if let (true, Some(changes)) = (look, &self.changes) {
            let (namespace, name) = who.identity.clone();
            // Nobody listens only when everything ends.
            let _ = changes.send(Change::Learnt { namespace, name }).await;
        }
    }

    /// Divides the rate limits of the identity's bundle among its pods.
    fn divide(&self, who: &Reporter, report: &Report) {
        let shown = self.board.current(&self.gather, &who.identity);
        let limits = shown.map(|shown| shown.limits.clone()).unwrap_or_default();
        let pods = &self.gather.caches().pods;
        let alive = |uid: &str| pods.find(|pod| pod.metadata.uid.as_deref() == Some(uid)).is_some();
        if self.desk.allotments().report(who, report, &limits, Instant::now(), alive) {
            self.board.wake(&who.identity);
        }
    }

    /// The newest bundle as soon as it is another than the one that runs, or the pod's shares of rate limits as soon as they
    /// are others than it has; nothing after a while, or when it is over.
    async fn newest(
        &self,
        who: &Reporter,
        running: Option<&str>,
        has: &BTreeMap<EntryName, LimitUse>,
    ) -> Result<Bytes, Refusal> {
        let place = self.held.take(&who.uid).ok_or(Refusal::Busy)?;
        let mut word = self.board.watch(&who.identity);
        let end = Instant::now() + self.hold;
        loop {
            if let Some(shown) = self.board.current(&self.gather, &who.identity)
                && running != Some(shown.digest.as_str())
            {
                return Ok(shown.answer.clone());
            }
            if let Some(shares) = self.desk.allotments().news(who, has) {
                return Ok(answer(Some(shares)));
            }
            tokio::select! {
                changed = word.changed() => if changed.is_err() { return Ok(nothing()) },
                () = place.replaced() => return Ok(nothing()),
                () = self.stop.cancelled() => return Ok(nothing()),
                () = tokio::time::sleep_until(end) => return Ok(nothing()),
            }
        }
    }
}

/// There is no other bundle.
fn nothing() -> Bytes {
    answer(None)
}

fn answer(shares: Option<Given>) -> Bytes {
    serde_json::to_vec(&Answer { format: FORMAT, bundle: None, shares }).unwrap_or_default().into()
}

fn json_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}
