//! The one place that turns reasons into answers: status, challenge, JSON-RPC error.
//!
//! A caller without a valid token is told no more than that; which of our reasons it was stands in the
//! record, which names the same request id.

use behalf_policy::bundle::{Policy, Protocol, RefuseAllReason};
use behalf_policy::challenge::{self, Beside};
use behalf_policy::claims::{Scheme, TokenRefusal};
use behalf_policy::decision::{Reason, Refusal};
use behalf_policy::dpop::ProofRefusal;
use behalf_policy::envelope::{EnvelopeError, EnvelopeReason, Era, Message, Target};
use behalf_policy::listing::ListingError;
use behalf_policy::raw_path::PathRefusal;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json, value::RawValue};

use super::body::{AnswerBody, full};
use super::sessions::SessionRefusal;
use crate::bundle_source::Active;
use crate::dpop::Forgetful;
use crate::handles::OpenError;
use crate::limits::{LimitReason, Limited};
use crate::tls::ClientRefusal;

/// The method does not exist (JSON-RPC 2.0 §5.1).
const METHOD_NOT_FOUND: i64 = -32_601;
/// There is no such resource (MCP 2026-07-28 server/resources, Error Handling).
const RESOURCE_NOT_FOUND: i64 = -32_602;
/// The same up to 2025-11-25.
const RESOURCE_NOT_FOUND_LEGACY: i64 = -32_002;

/// A nonce for the caller's next proof (RFC 9449 §8.2).
pub(super) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// Names the record of a request to its caller.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("behalf-request-id");

/// Why a request is refused, or could not be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denial {
    #[error("no policy has been loaded yet")]
    NoBundle,
    #[error("the policy refuses every request")]
    RefuseAll(RefuseAllReason),
    #[error("requests cannot be recorded")]
    NotRecorded,
    #[error("nothing is served at this path")]
    UnknownPath,
    #[error("this HTTP method is not served here")]
    VerbNotAllowed,
    #[error("the request target or the host is not usable")]
    BadTarget,
    #[error("the host is not one of this server")]
    HostNotAllowed,
    #[error("the origin is not allowed")]
    OriginNotAllowed,
    #[error("protocol upgrades are not served")]
    UpgradeNotAllowed,
    #[error("a query is not taken here")]
    QueryNotAllowed,
    #[error("the request path is not usable")]
    Path(PathRefusal),
    #[error("the request body is too large")]
    BodyTooLarge,
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    #[error("the request body could not be read")]
    BodyUnreadable,
    #[error("{0}")]
    Envelope(EnvelopeError),
    #[error("this is an https port")]
    TlsRequired,
    #[error("{0}")]
    Client(ClientRefusal),
    #[error("authentication is required")]
    NoCredentials,
    #[error("authentication is required")]
    SchemeNotSupported,
    #[error("the credentials are malformed")]
    CredentialsMalformed,
    #[error("more than one credential was sent")]
    SeveralCredentials,
    #[error("a token is not taken from the query")]
    TokenInQuery,
    #[error("the access token is not valid here")]
    Token(TokenRefusal),
    #[error("the proof of possession is not valid here")]
    Proof(ProofRefusal),
    #[error("{0}")]
    Forgetful(Forgetful),
    #[error("the access token cannot be checked now")]
    KeysUnavailable,
    #[error("the state or task is not known; start the call anew")]
    NotOwned,
    #[error("the access token cannot be checked now")]
    IntrospectionUnavailable,
    #[error("the session is not known")]
    Session(SessionRefusal),
    #[error("the request is not permitted")]
    Policy(Refusal),
    #[error("the method is not known")]
    NoSuchMethod(Refusal),
    #[error("the resource is not known")]
    NoSuchResource { refusal: Refusal, uri: String, era: Era },
    #[error("too many requests")]
    TooMany(Limited),
    #[error("no further call can be opened now")]
    Open(OpenError),
    #[error("a downstream of this call, or its provider, asks for something of the caller")]
    Interaction(Option<SecretString>),
    #[error("the server cannot be reached")]
    ServerUnavailable,
    #[error("the server did not answer in time")]
    ServerTimeout,
    #[error("the server's answer is not usable")]
    ServerSession,
    #[error("the server's answer is not usable")]
    Listing(ListingError),
}

impl Denial {
    /// Stable name, for the record.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoBundle => "NoBundle",
            Self::RefuseAll(reason) => reason.as_str(),
            Self::NotRecorded => "RecordsUnavailable",
            Self::UnknownPath => "UnknownPath",
            Self::VerbNotAllowed => "VerbNotAllowed",
            Self::BadTarget => "RequestTargetMalformed",
            Self::HostNotAllowed => "HostNotAllowed",
            Self::OriginNotAllowed => "OriginNotAllowed",
            Self::UpgradeNotAllowed => "UpgradeNotAllowed",
            Self::QueryNotAllowed => "QueryNotAllowed",
            Self::Path(refusal) => refusal.reason(),
            Self::BodyTooLarge => EnvelopeReason::BodyTooLarge.as_str(),
            Self::BodyTimeout => "BodyTimeout",
            Self::BodyUnreadable => "BodyUnreadable",
            Self::Envelope(error) => error.reason().as_str(),
            Self::TlsRequired => "TLSRequired",
            Self::Client(refusal) => refusal.as_str(),
            Self::NoCredentials => "NoCredentials",
            Self::SchemeNotSupported => "SchemeNotSupported",
            Self::CredentialsMalformed => "CredentialsMalformed",
            Self::SeveralCredentials => "SeveralCredentials",
            Self::TokenInQuery => "TokenInQuery",
            Self::Token(refusal) => refusal.as_str(),
            Self::Proof(refusal) => refusal.as_str(),
            Self::Forgetful(full) => full.reason(),
            Self::KeysUnavailable => "KeysUnavailable",
            Self::IntrospectionUnavailable => "IntrospectionUnavailable",
            Self::NotOwned => "StateNotOfPrincipal",
            Self::Session(SessionRefusal::Unknown) => "SessionUnknown",
            Self::Session(SessionRefusal::Foreign) => "SessionOfAnotherPrincipal",
            Self::Session(SessionRefusal::Malformed) => "SessionMalformed",
            Self::Policy(refusal) | Self::NoSuchMethod(refusal) | Self::NoSuchResource { refusal, .. } => {
                refusal.reason.as_str()
            }
            Self::TooMany(limited) => limited.reason.as_str(),
            Self::Open(error) => error.reason(),
            Self::Interaction(Some(_)) => "InteractionRequired",
            Self::Interaction(None) => "InteractionRepeated",
            Self::ServerUnavailable => "ServerUnavailable",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServerSession => "ServerSessionReused",
            Self::Listing(error) => error.reason(),
        }
    }

    /// Whether nobody is known to have asked: what came with the request proves nothing.
    pub(super) fn is_of_nobody(&self) -> bool {
        matches!(
            self,
            Self::NoCredentials
                | Self::Client(_)
                | Self::SchemeNotSupported
                | Self::CredentialsMalformed
                | Self::SeveralCredentials
                | Self::Token(_)
        ) || matches!(self, Self::Proof(refusal) if *refusal != ProofRefusal::NonceNeeded)
    }

    /// The same in the protocol's own words, where it has some for what is not there: a method that the modern era
    /// does not know (C13), and a resource. One that is hidden is told in the same words as one that no row
    /// names (D35).
    pub(super) fn in_words_of(self, message: Option<&Message>) -> Self {
        let (Self::Policy(refusal), Some(message)) = (&self, message) else { return self };
        let hidden = !refusal.explain && refusal.hidden_as == Reason::ResourceUnknown;
        match message.target() {
            _ if refusal.reason == Reason::MethodNotAllowed && message.era() == Era::Modern => {
                Self::NoSuchMethod(refusal.clone())
            }
            Target::ReadResource { uri } if hidden => {
                Self::NoSuchResource { refusal: refusal.clone(), uri: uri.clone(), era: message.era() }
            }
            _ => self,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoBundle
            | Self::RefuseAll(_)
            | Self::NotRecorded
            | Self::Forgetful(_)
            | Self::KeysUnavailable
            | Self::IntrospectionUnavailable
            | Self::Open(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownPath
            | Self::NoSuchMethod(_)
            | Self::Session(SessionRefusal::Unknown | SessionRefusal::Foreign) => StatusCode::NOT_FOUND,
            Self::VerbNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HostNotAllowed => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // A path that is hidden and one that does not exist are told in the same words (D35).
            Self::Policy(refusal) if !refusal.explain && refusal.hidden_as == Reason::RouteUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::Envelope(error) => {
                StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Self::BadTarget
            | Self::TlsRequired
            | Self::UpgradeNotAllowed
            | Self::QueryNotAllowed
            | Self::Path(_)
            | Self::BodyUnreadable
            | Self::NotOwned
            | Self::CredentialsMalformed
            | Self::SeveralCredentials
            | Self::TokenInQuery
            | Self::Session(SessionRefusal::Malformed) => StatusCode::BAD_REQUEST,
            Self::NoCredentials | Self::SchemeNotSupported | Self::Token(_) | Self::Proof(_) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Policy(refusal) if refusal.reason == Reason::SubjectExpired => StatusCode::UNAUTHORIZED,
            // A login that nobody is asked for again is simply not enough.
            Self::Policy(refusal) if refusal.log_in.is_some() => StatusCode::UNAUTHORIZED,
            Self::Interaction(Some(_)) => StatusCode::UNAUTHORIZED,
            // Whoever is not asked again is simply refused (D32).
            Self::Interaction(None) => StatusCode::FORBIDDEN,
            Self::Policy(_) | Self::NoSuchResource { .. } | Self::OriginNotAllowed | Self::Client(_) => {
                StatusCode::FORBIDDEN
            }
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ServerUnavailable | Self::ServerSession | Self::Listing(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the caller is told in place of [`Denial::reason`].
    fn told(&self) -> &'static str {
        match self {
            Self::NoCredentials | Self::SchemeNotSupported => "NoCredentials",
            Self::CredentialsMalformed | Self::SeveralCredentials | Self::TokenInQuery => "InvalidRequest",
            Self::Token(_) => "InvalidToken",
            Self::Proof(ProofRefusal::NonceNeeded) => "UseNonce",
            Self::Proof(_) => "InvalidProof",
            Self::Session(SessionRefusal::Unknown | SessionRefusal::Foreign) => "SessionUnknown",
            Self::ServerSession | Self::Listing(_) => "ServerAnswerUnusable",
            Self::TooMany(_) => LimitReason::RateLimited.as_str(),
            // What is hidden and what does not exist are told in the same words (D35).
            Self::Policy(refusal) | Self::NoSuchResource { refusal, .. } if !refusal.explain => {
                refusal.hidden_as.as_str()
            }
            Self::Policy(refusal) if refusal.reason == Reason::SubjectExpired => "InvalidToken",
            _ => self.reason(),
        }
    }

    /// The challenge in the scheme that was used, and what other scheme would do. Those that depend on the bundle only were
    /// made when it was taken.
    fn challenges(&self, active: Option<&Active>, used: Option<Scheme>) -> Vec<HeaderValue> {
        let Some((policy, prepared)) = active.and_then(Active::policy) else { return Vec::new() };
        let made = match self {
            Self::NoCredentials | Self::SchemeNotSupported => &prepared.challenge_none,
            Self::Token(_) => &prepared.challenge_invalid_token,
            Self::Proof(ProofRefusal::NonceNeeded) => &prepared.challenge_use_nonce,
            Self::Proof(_) => &prepared.challenge_invalid_proof,
            Self::CredentialsMalformed | Self::TokenInQuery => &prepared.challenge_invalid_request,
            Self::SeveralCredentials => &prepared.challenge_several,
            _ => {
                let bearer = self.challenge(policy);
                let lines = bearer.map(|bearer| challenge::schemes(policy, used, &bearer, Beside::Nothing));
                let lines = lines.unwrap_or_default().into_iter();
                return lines.filter_map(|line| HeaderValue::from_str(&line).ok()).collect();
            }
        };
        made.lines(used).to_vec()
    }

    /// The challenge of what depends on the call, as it is for a bearer token.
    fn challenge(&self, policy: &Policy) -> Option<String> {
        match self {
            Self::Policy(refusal) if refusal.reason == Reason::SubjectExpired => {
                Some(challenge::unauthorized(policy, Some("invalid_token")))
            }
            Self::Policy(Refusal { log_in: Some(log_in), .. }) => {
                Some(challenge::insufficient_user_authentication(policy, log_in))
            }
            Self::Interaction(challenge) => Some(challenge.as_ref()?.expose_secret().to_owned()),
            // What the caller could not obtain is not asked for (D32).
            Self::Policy(refusal) if refusal.explain && !refusal.challenge.is_empty() => {
                Some(challenge::insufficient_scope(policy, &refusal.challenge))
            }
            _ => None,
        }
    }

    /// JSON-RPC codes of our own stand outside the range that JSON-RPC and MCP reserve (C12).
    fn code(&self) -> i64 {
        match self {
            Self::Envelope(error) => error.jsonrpc_code(),
            Self::NoSuchMethod(_) => METHOD_NOT_FOUND,
            Self::NoSuchResource { era: Era::Modern, .. } => RESOURCE_NOT_FOUND,
            Self::NoSuchResource { era: Era::Legacy, .. } => RESOURCE_NOT_FOUND_LEGACY,
            _ => (-31_000_i64).saturating_sub(i64::from(self.status().as_u16())),
        }
    }
}

/// The answer to a refused request, in the scheme it `used`. `id` is the JSON text of the request's id, when it was read.
pub(super) fn refuse(
    denial: &Denial,
    active: Option<&Active>,
    used: Option<Scheme>,
    id: Option<&str>,
    request_id: &str,
) -> Response<AnswerBody> {
    let mut data = Map::new();
    data.insert("reason".to_owned(), json!(denial.told()));
    data.insert("requestId".to_owned(), json!(request_id));
    if let Denial::Envelope(error) = denial
        && error.reason() == EnvelopeReason::UnsupportedVersion
    {
        data.insert("supported".to_owned(), json!(error.supported_versions()));
        if let Some(requested) = error.requested_version() {
            data.insert("requested".to_owned(), json!(requested));
        }
    }
    if let Denial::NoSuchResource { uri, .. } = denial {
        data.insert("uri".to_owned(), json!(uri));
    }
    let error = json!({"code": denial.code(), "message": denial.to_string(), "data": Value::Object(data)});
    // The id is JSON that the envelope wrote itself; text that is not JSON would not be one.
    let id = id.filter(|id| serde_json::from_str::<&RawValue>(id).is_ok()).unwrap_or("null");
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}");
    let server = active.and_then(Active::policy).map(|(policy, _)| &policy.server);
    let (kind, body) = match server.map(|server| server.protocol) {
        Some(Protocol::Http) => ("application/problem+json", problem(denial, request_id)),
        Some(Protocol::Mcp) | None => ("application/json", body),
    };
    let mut response = Response::new(full(Bytes::from(body)));
    *response.status_mut() = denial.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for challenge in denial.challenges(active, used) {
        headers.append(WWW_AUTHENTICATE, challenge);
    }
    if let Denial::TooMany(limited) = denial {
        headers.insert(RETRY_AFTER, HeaderValue::from(limited.retry_after));
    }
    if matches!(denial, Denial::VerbNotAllowed) {
        headers.insert(ALLOW, HeaderValue::from_static(server.map_or("POST", super::api::methods)));
    }
    response
}

/// The same to callers of a plain HTTP API (RFC 9457).
fn problem(denial: &Denial, request_id: &str) -> String {
    json!({
        "type": "about:blank",
        "title": denial.status().canonical_reason().unwrap_or_default(),
        "status": denial.status().as_u16(),
        "detail": denial.to_string(),
        "reason": denial.told(),
        "requestId": request_id,
    })
    .to_string()
}

/// The protected-resource metadata (RFC 9728 §3.2).
pub(super) fn metadata(document: &Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(full(document.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The scopes in it follow the catalogue, which changes within seconds.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
