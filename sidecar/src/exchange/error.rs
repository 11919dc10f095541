//! Why there is no downstream token, and whose turn it is to change something.

use behalf_policy::answer::AnswerRefusal;
use behalf_policy::bundle::Flavor;
use behalf_policy::interaction::Interaction;
use serde_json::{Map, Value};

use crate::metrics::ExchangeOutcome;
use crate::provider::MetadataError;
use crate::provider::http::HttpError;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller: another login, another token, another right.
    Caller,
    /// Us: catalogue, provider object, client registration or credential.
    Configuration,
    /// The provider: it is down, overloaded or answers what was not asked.
    Provider,
}

/// Why there is no downstream token. Closed; repeats nothing that the provider sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The order is not for the caller of this call or for this bundle.
    #[error("the order does not fit the call or the bundle")]
    OrderMismatch,
    /// The order asks for no scope; some providers take that for all of them.
    #[error("the order asks for no scope")]
    EmptyScope,
    /// The caller's token is nearly over (B30).
    #[error("the caller's token has too little life left")]
    SubjectNearExpiry,
    /// Our own credential is not there.
    #[error("the client's credential is missing")]
    CredentialMissing,
    /// The token endpoint is not known.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The provider could not be asked.
    #[error("the provider could not be asked: {0}")]
    Unreachable(HttpError),
    /// The provider answered with a server error.
    #[error("the provider answered with a server error")]
    ServerError,
    /// The provider asked us to wait.
    #[error("the provider is overloaded")]
    Overloaded {
        /// Seconds until it may be asked again.
        retry_after: u32,
    },
    /// Neither an answer nor an error of the protocol: a redirect, a page, wrong JSON.
    #[error("the provider answered what is not an answer")]
    NotAnAnswer,
    /// The provider refused.
    #[error(transparent)]
    Refused(#[from] ProviderRefusal),
    /// The provider's answer was discarded.
    #[error(transparent)]
    Answer(#[from] AnswerRefusal),
    /// The answered token cannot be verified at the moment.
    #[error("the provider's keys are not available")]
    KeysUnavailable,
}

/// What a provider's error says (RFC 6749 §5.2, RFC 8693 §2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProviderRefusal {
    /// The caller's token: expired, revoked, its session over.
    #[error("the provider does not take the caller's token")]
    Subject,
    /// The caller's token is bound to a key that is the caller's, and the provider exchanges it for its own client alone.
    #[error("the provider does not exchange a token that is bound to its sender")]
    BoundSubject,
    /// The caller has to do something at the provider: log in again, consent.
    #[error("the provider wants to see the caller")]
    Interaction,
    /// Policy of the provider.
    #[error("the provider denies access")]
    Access,
    /// The scope.
    #[error("the provider does not give the scope")]
    Scope,
    /// The audience.
    #[error("the provider does not serve the audience")]
    Target,
    /// Our client: unknown, wrong credential, not enabled.
    #[error("the provider does not take the client")]
    Client,
    /// The grant.
    #[error("the provider does not support the grant")]
    Grant,
    /// Anything else about the request.
    #[error("the provider does not take the request")]
    Request,
}

/// Why an exchange failed, and what is wanted of the caller where that is why.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) error: ExchangeError,
    pub(super) wants: Option<Interaction>,
}

impl<E: Into<ExchangeError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), wants: None }
    }
}

impl Failure {
    /// Reads an answer that is not a 200.
    pub(super) fn read(status: u16, retry_after: Option<u32>, body: &[u8], flavor: Flavor) -> Self {
        /// No provider makes us wait longer than this by one answer, seconds.
        const LONGEST_WAIT: u32 = 60;
        let retry_after = retry_after.unwrap_or(1).clamp(1, LONGEST_WAIT);
        let overloaded = ExchangeError::Overloaded { retry_after };
        if status == 429 || status == 503 {
            return overloaded.into();
        }
        if (500..600).contains(&status) {
            return ExchangeError::ServerError.into();
        }
        if !(400..500).contains(&status) {
            return ExchangeError::NotAnAnswer.into();
        }
        let Ok(answer) = behalf_policy::strict_json::object(body) else {
            return ExchangeError::NotAnAnswer.into();
        };
        match answer.get("error").and_then(Value::as_str) {
            Some("temporarily_unavailable" | "slow_down") => return overloaded.into(),
            Some("server_error") => return ExchangeError::ServerError.into(),
            _ => {}
        }
        let wants = Interaction::of_error(&answer);
        let refusal = match wants {
            Some(_) => Some(ProviderRefusal::Interaction),
            None => ProviderRefusal::read(&answer, flavor),
        };
        Self { error: refusal.map_or(ExchangeError::NotAnAnswer, ExchangeError::Refused), wants }
    }
}

impl ProviderRefusal {
    fn reason(self) -> &'static str {
        match self {
            Self::Subject => "SubjectRefused",
            Self::BoundSubject => "BoundTokenNotExchanged",
            Self::Interaction => "InteractionRequired",
            Self::Access => "AccessDenied",
            Self::Scope => "ScopeRefused",
            Self::Target => "TargetRefused",
            Self::Client => "ClientRefused",
            Self::Grant => "GrantRefused",
            Self::Request => "RequestRefused",
        }
    }

    /// Reads an error answer (B6). A description is looked at only where one code stands for several
    /// causes at one product; it goes no further.
    fn read(answer: &Map<String, Value>, flavor: Flavor) -> Option<Self> {
        let description = answer.get("error_description").and_then(Value::as_str).unwrap_or_default();
        Some(match (answer.get("error")?.as_str()?, flavor) {
            ("invalid_request", Flavor::Keycloak) => match description {
                "Invalid token" => Self::Subject,
                d if d.starts_with("Requested audience not available") => Self::Target,
                d if d.starts_with("Sender-constrained token exchange rejected") => Self::BoundSubject,
                _ => Self::Request,
            },
            ("invalid_client", Flavor::Keycloak) if description == "Audience not found" => Self::Target,
            // RFC 8693 §2.2.2 has `invalid_request` for a bad subject token; some say `invalid_grant`.
            ("invalid_request" | "invalid_grant" | "invalid_token", _) => Self::Subject,
            ("access_denied", _) => Self::Access,
            ("invalid_scope" | "insufficient_scope", _) => Self::Scope,
            ("invalid_target", _) => Self::Target,
            ("invalid_client" | "unauthorized_client", _) => Self::Client,
            ("unsupported_grant_type" | "unsupported_token_type", _) => Self::Grant,
            _ => Self::Request,
        })
    }
}

impl ExchangeError {
    /// Stable name, for records, metrics and answers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::OrderMismatch => "OrderMismatch",
            Self::EmptyScope => "EmptyScope",
            Self::SubjectNearExpiry => "SubjectNearExpiry",
            Self::CredentialMissing => "CredentialMissing",
            Self::Metadata(error) => error.reason(),
            Self::Unreachable(HttpError::Timeout) => "ProviderTimeout",
            Self::Unreachable(_) => "ProviderUnreachable",
            Self::ServerError => "ProviderServerError",
            Self::Overloaded { .. } => "ProviderOverloaded",
            Self::NotAnAnswer => "ProviderAnswerUnreadable",
            Self::Refused(refusal) => refusal.reason(),
            Self::Answer(refusal) => refusal.as_str(),
            Self::KeysUnavailable => "KeysUnavailable",
        }
    }

    /// Whose turn it is.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::SubjectNearExpiry
            | Self::Refused(
                ProviderRefusal::Subject | ProviderRefusal::BoundSubject | ProviderRefusal::Interaction,
            )
            // Less than was asked is a caller who may not have more (B5).
            | Self::Answer(AnswerRefusal::ScopeNarrower) => Side::Caller,
            Self::OrderMismatch | Self::EmptyScope | Self::CredentialMissing | Self::Refused(_) => {
                Side::Configuration
            }
            Self::Metadata(_)
            | Self::Unreachable(_)
            | Self::ServerError
            | Self::Overloaded { .. }
            | Self::NotAnAnswer
            | Self::Answer(_)
            | Self::KeysUnavailable => Side::Provider,
        }
    }

    /// The HTTP status the server gets, which asked for a downstream call and gets none.
    #[must_use]
    pub fn status(self) -> u16 {
        match (self.side(), self) {
            (Side::Caller, _) => 403,
            (Side::Configuration, _) | (_, Self::Answer(_) | Self::NotAnAnswer) => 502,
            (Side::Provider, _) => 503,
        }
    }

    /// Seconds after which it is worth trying again, when that is known.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::Overloaded { retry_after } => Some(retry_after),
            _ => None,
        }
    }

    pub(super) fn outcome(self) -> ExchangeOutcome {
        match self {
            Self::Answer(_) => ExchangeOutcome::AnswerRefused,
            Self::Refused(_) => ExchangeOutcome::ProviderRefused,
            _ => ExchangeOutcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str, flavor: Flavor) -> (&'static str, Side, u16) {
        let error = Failure::read(status, None, body.as_bytes(), flavor).error;
        (error.reason(), error.side(), error.status())
    }

    #[test]
    fn b6_errors_of_keycloak() {
        let table = [
            (400, "invalid_request", "Invalid token", "SubjectRefused", Side::Caller),
            (
                400,
                "invalid_request",
                "Sender-constrained token exchange rejected as the token was not issued for the requesting client",
                "BoundTokenNotExchanged",
                Side::Caller,
            ),
            (
                400,
                "invalid_request",
                "Standard token exchange is not enabled for the requested client",
                "RequestRefused",
                Side::Configuration,
            ),
            (
                403,
                "access_denied",
                "Client is not within the token audience",
                "AccessDenied",
                Side::Configuration,
            ),
            (400, "invalid_client", "Audience not found", "TargetRefused", Side::Configuration),
            (
                400,
                "invalid_request",
                "Requested audience not available: payroll",
                "TargetRefused",
                Side::Configuration,
            ),
            (400, "invalid_scope", "Invalid scopes: x", "ScopeRefused", Side::Configuration),
            (
                401,
                "unauthorized_client",
                "Invalid client or Invalid client credentials",
                "ClientRefused",
                Side::Configuration,
            ),
            (
                401,
                "invalid_client",
                "Invalid client or Invalid client credentials",
                "ClientRefused",
                Side::Configuration,
            ),
        ];
        for (status, error, description, reason, side) in table {
            let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
            let (got, got_side, _) = read(status, &body, Flavor::Keycloak);
            assert_eq!((got, got_side), (reason, side), "{body}");
        }
    }

    #[test]
    fn b6_errors_of_the_standards() {
        for (error, reason) in [
            ("invalid_request", "SubjectRefused"),
            ("invalid_grant", "SubjectRefused"),
            ("invalid_target", "TargetRefused"),
            ("invalid_scope", "ScopeRefused"),
            ("invalid_client", "ClientRefused"),
            ("unauthorized_client", "ClientRefused"),
            ("unsupported_grant_type", "GrantRefused"),
            ("access_denied", "AccessDenied"),
            ("interaction_required", "InteractionRequired"),
            ("consent_required", "InteractionRequired"),
            ("insufficient_user_authentication", "InteractionRequired"),
            ("temporarily_unavailable", "ProviderOverloaded"),
            ("server_error", "ProviderServerError"),
            ("something_new", "RequestRefused"),
        ] {
            let (got, _, _) = read(400, &format!(r#"{{"error":"{error}"}}"#), Flavor::Generic);
            assert_eq!(got, reason, "{error}");
        }
    }

    #[test]
    fn b6_what_is_no_answer_at_all() {
        for (status, body, reason, answered) in [
            (302, "", "ProviderAnswerUnreadable", 502),
            (204, "", "ProviderAnswerUnreadable", 502),
            (400, "<html>", "ProviderAnswerUnreadable", 502),
            (400, "{}", "ProviderAnswerUnreadable", 502),
            (400, r#"{"error":7}"#, "ProviderAnswerUnreadable", 502),
            (400, r#"{"error":"a","error":"b"}"#, "ProviderAnswerUnreadable", 502),
            (500, "{}", "ProviderServerError", 503),
            (503, "", "ProviderOverloaded", 503),
            (429, "", "ProviderOverloaded", 503),
        ] {
            let (got, side, status_out) = read(status, body, Flavor::Generic);
            assert_eq!((got, side, status_out), (reason, Side::Provider, answered), "{status} {body}");
        }
    }

    #[test]
    fn b6_retry_after_is_kept_within_bounds() {
        for (said, waits) in [(None, 1), (Some(0), 1), (Some(7), 7), (Some(u32::MAX), 60)] {
            let error = Failure::read(429, said, b"", Flavor::Generic).error;
            assert_eq!(error.retry_after(), Some(waits));
        }
    }
}
