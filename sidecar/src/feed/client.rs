//! One report and its answer, over TLS that trusts nothing but what the signed bundle names.

use std::path::PathBuf;
use std::time::Duration;

use behalf_policy::bundle::document::FeedDocument;
use behalf_policy::feed::{Answer, FORMAT, HOLD_SECONDS, Report};
use behalf_policy::wire::FEED_PATH;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use zeroize::Zeroizing;

use crate::provider::http::{BoxError, HttpClient, HttpError, MAX_ANSWER, http_error, usable_url};

/// A held answer that is this late does not come any more.
const WITHIN: Duration = Duration::from_secs(3 * HOLD_SECONDS);

/// Why a report had no good answer. Says nothing of what the other side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FeedError {
    /// The file of the token is missing or holds none.
    #[error("the token for the feed is missing")]
    TokenMissing,
    /// The report cannot be written.
    #[error("the report cannot be written")]
    Report,
    /// The operator could not be asked.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The operator knows this pod not, or not as one of ours.
    #[error("the operator does not take reports of this pod")]
    NotAuthorized,
    /// Another status than 200.
    #[error("the operator answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// Not an answer of the format this build reads.
    #[error("the operator's answer cannot be read")]
    Answer,
    /// The answered bundle was not taken, which is reported as well.
    #[error("the answered bundle was not taken")]
    BundleRejected,
}

impl FeedError {
    /// Stable name, for metrics and logs.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TokenMissing => "FeedTokenMissing",
            Self::Report => "ReportUnwritable",
            Self::Http(error) => error.reason(),
            Self::NotAuthorized => "NotAuthorized",
            Self::Status { .. } => "StatusNotOk",
            Self::Answer => "AnswerMalformed",
            Self::BundleRejected => "BundleRejected",
        }
    }

    /// How long the other side asked to be left alone.
    pub(super) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => retry_after.map(Duration::from_secs),
            _ => None,
        }
    }
}

/// Posts reports.
pub(super) struct Client {
    pub(super) http: HttpClient,
    /// File of the projected token, read again each time: kubelet renews it.
    pub(super) token_file: PathBuf,
}

impl Client {
    /// Posts one report and waits for the answer, which the operator may hold.
    pub(super) async fn post(&self, feed: &FeedDocument, report: &Report) -> Result<Answer, FeedError> {
        let url = format!("{}{FEED_PATH}", feed.origin.trim_end_matches('/'));
        let uri = usable_url(&url).ok_or(HttpError::Url)?;
        let body = serde_json::to_vec(report).map_err(|_| FeedError::Report)?;
        let request = Request::post(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.bearer().await?)
            .body(Full::new(Bytes::from(body)).map_err(BoxError::from).boxed_unsync())
            .map_err(|_| HttpError::Url)?;
        // Never the public roots: only what the bundle names speaks for the operator.
        let pool = self.http.pool("feed", Some(&feed.ca_bundle))?;
        let answered = async {
            let response = pool.request(request).await.map_err(|error| http_error(&error))?;
            let status = response.status();
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                return Err(FeedError::NotAuthorized);
            }
            if status != StatusCode::OK {
                let retry_after = response.headers().get(RETRY_AFTER);
                let retry_after =
                    retry_after.and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
                return Err(FeedError::Status { status, retry_after });
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { HttpError::TooLarge } else { HttpError::Transport }
            })?;
            let answer: Answer = serde_json::from_slice(&body.to_bytes()).map_err(|_| FeedError::Answer)?;
            if answer.format == FORMAT { Ok(answer) } else { Err(FeedError::Answer) }
        };
        tokio::time::timeout(WITHIN, answered).await.map_err(|_| HttpError::Timeout)?
    }

    async fn bearer(&self) -> Result<HeaderValue, FeedError> {
        let missing = |_| FeedError::TokenMissing;
        let bytes = Zeroizing::new(tokio::fs::read(&self.token_file).await.map_err(missing)?);
        let token = std::str::from_utf8(&bytes).map_err(|_| FeedError::TokenMissing)?.trim();
        if token.is_empty() {
            return Err(FeedError::TokenMissing);
        }
        let text = Zeroizing::new(format!("Bearer {token}"));
        let mut value = HeaderValue::from_str(&text).map_err(|_| FeedError::TokenMissing)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
