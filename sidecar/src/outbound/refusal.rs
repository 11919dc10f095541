//! Why the server behind us gets no answer of its downstream, and what it is told.

use behalf_policy::decision::Reason;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::request::RequestRefusal;
use crate::exchange::ExchangeError;
use crate::handles::HandleRefusal;
use crate::provider::dial::DialError;
use crate::provider::http::HttpError;

/// Why a request on the way out is refused or failed. Closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// By its head.
    #[error(transparent)]
    Request(#[from] RequestRefusal),
    /// By its handle.
    #[error(transparent)]
    Handle(#[from] HandleRefusal),
    /// By policy.
    #[error("policy does not permit this call")]
    Policy(Reason),
    /// There is no downstream token.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// No bundle was ever taken.
    #[error("the sidecar has no policy")]
    NoBundle,
    /// Decisions cannot be recorded.
    #[error("the sidecar cannot record its decisions")]
    NotRecorded,
    /// The downstream could not be reached.
    #[error("the downstream could not be reached")]
    Downstream(HttpError),
    /// The downstream did not answer in time.
    #[error("the downstream did not answer in time")]
    DownstreamTimeout,
    /// The downstream's answer cannot be passed on.
    #[error("the downstream's answer cannot be passed on")]
    DownstreamAnswer,
    /// The downstream's answer is encoded, which was not asked for and hides what it carries.
    #[error("the downstream's answer is encoded")]
    EncodedAnswer,
    /// The downstream's answer carries the token that was attached.
    #[error("the downstream's answer carries a credential")]
    TokenInAnswer,
}

impl Refusal {
    /// Stable name, for records, metrics and answers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Request(refusal) => refusal.reason(),
            Self::Handle(refusal) => refusal.reason(),
            Self::Policy(reason) => reason.as_str(),
            Self::Exchange(error) => error.reason(),
            Self::NoBundle => "NoBundle",
            Self::NotRecorded => "RecordsUnavailable",
            Self::Downstream(HttpError::Dial(DialError::AddressRefused(_))) => "AddressRefused",
            Self::Downstream(HttpError::Ca) => "CaNotUsable",
            Self::Downstream(HttpError::Framing(refusal)) => refusal.reason(),
            Self::Downstream(_) => "DownstreamUnreachable",
            Self::DownstreamTimeout => "DownstreamTimeout",
            Self::DownstreamAnswer => "DownstreamAnswerUnusable",
            Self::EncodedAnswer => "DownstreamAnswerEncoded",
            Self::TokenInAnswer => "TokenInAnswer",
        }
    }

    /// The HTTP status the server gets.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Request(refusal) => refusal.status(),
            Self::Handle(_) | Self::Policy(_) => 403,
            Self::Exchange(error) => error.status(),
            Self::NoBundle | Self::NotRecorded => 503,
            Self::Downstream(_) | Self::DownstreamAnswer | Self::EncodedAnswer | Self::TokenInAnswer => 502,
            Self::DownstreamTimeout => 504,
        }
    }

    /// True when the decision to permit stands and only the way failed.
    pub(super) fn after_permit(self) -> bool {
        matches!(
            self,
            Self::Downstream(_) | Self::DownstreamTimeout | Self::DownstreamAnswer | Self::EncodedAnswer
        )
    }

    /// What the server is told: the reason, and nothing that anybody else sent.
    pub(super) fn response(self) -> Response<Bytes> {
        let body = json!({"error": {"reason": self.reason(), "message": self.to_string()}});
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::Exchange(error) = self
            && let Some(seconds) = error.retry_after()
        {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
