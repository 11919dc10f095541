//! Why an envelope was refused, and what the caller is told.

use std::fmt;

use super::message::{Era, FIRST_MODERN, Message, SUPPORTED_VERSIONS};

/// A version asked for that is longer than this is not given back.
const MAX_ECHO: usize = 64;

/// The closed set of reasons for which an envelope is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnvelopeReason {
    /// The body is larger than the limit.
    BodyTooLarge,
    /// Not UTF-8, or it starts with a byte order mark.
    BodyNotUtf8,
    /// Not exactly one JSON value.
    BodyNotJson,
    /// Arrays and objects nested too deeply.
    BodyTooDeep,
    /// Too many object members.
    TooManyMembers,
    /// An object with two equal members, at any depth.
    DuplicateMember,
    /// A JSON array: batches are not taken.
    Batch,
    /// A JSON value that is neither an object nor an array.
    NotAnObject,
    /// A member whose name some parsers take for a reserved one.
    LookAlikeMember,
    /// A top-level member that JSON-RPC 2.0 does not have.
    UnknownMember,
    /// `jsonrpc` is missing or not exactly `"2.0"`.
    NotJsonRpc,
    /// `id` is neither a string nor a safe integer, or too long.
    BadId,
    /// `method` is not a string in the grammar of method names.
    BadMethod,
    /// Both a call and an answer, or neither.
    AmbiguousMessage,
    /// `params`, or a member of it that the method needs, has the wrong shape.
    BadParams,
    /// `_meta` has the wrong shape.
    BadMeta,
    /// A request of the stateless era without its protocol version in `_meta`.
    MissingMeta,
    /// A tool name outside `[A-Za-z0-9_.-]{1,128}`.
    BadToolName,
    /// A prompt name, resource URI or task id that is empty, too long or holds control characters.
    BadTargetName,
    /// `requestState` is larger than the limit.
    RequestStateTooLarge,
    /// A method that needs an answer, sent without an `id`.
    RequestWithoutId,
    /// A JSON-RPC response posted in the stateless era.
    ResponseNotAllowed,
    /// A mirrored header that this request needs is missing.
    HeaderMissing,
    /// A mirrored header occurs more than once.
    HeaderRepeated,
    /// A mirrored header is not readable, or its base64 form is not valid.
    HeaderMalformed,
    /// A mirrored header disagrees with the body.
    HeaderMismatch,
    /// A protocol version that is not spoken here.
    UnsupportedVersion,
    /// `Content-Type` is not `application/json` in UTF-8.
    UnsupportedMediaType,
    /// The body is compressed or otherwise encoded.
    UnsupportedEncoding,
    /// `Accept` does not list both answer types.
    NotAcceptable,
}

/// JSON-RPC codes of our own, outside the range JSON-RPC and MCP reserve (-32768…-32000).
const OWN_TOO_LARGE: i64 = -31_413;
const OWN_MEDIA: i64 = -31_415;
const OWN_ACCEPT: i64 = -31_406;

impl EnvelopeReason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 30] = [
        Self::BodyTooLarge,
        Self::BodyNotUtf8,
        Self::BodyNotJson,
        Self::BodyTooDeep,
        Self::TooManyMembers,
        Self::DuplicateMember,
        Self::Batch,
        Self::NotAnObject,
        Self::LookAlikeMember,
        Self::UnknownMember,
        Self::NotJsonRpc,
        Self::BadId,
        Self::BadMethod,
        Self::AmbiguousMessage,
        Self::BadParams,
        Self::BadMeta,
        Self::MissingMeta,
        Self::BadToolName,
        Self::BadTargetName,
        Self::RequestStateTooLarge,
        Self::RequestWithoutId,
        Self::ResponseNotAllowed,
        Self::HeaderMissing,
        Self::HeaderRepeated,
        Self::HeaderMalformed,
        Self::HeaderMismatch,
        Self::UnsupportedVersion,
        Self::UnsupportedMediaType,
        Self::UnsupportedEncoding,
        Self::NotAcceptable,
    ];

    /// The name used in records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyNotUtf8 => "BodyNotUtf8",
            Self::BodyNotJson => "BodyNotJson",
            Self::BodyTooDeep => "BodyTooDeep",
            Self::TooManyMembers => "TooManyMembers",
            Self::DuplicateMember => "DuplicateMember",
            Self::Batch => "Batch",
            Self::NotAnObject => "NotAnObject",
            Self::LookAlikeMember => "LookAlikeMember",
            Self::UnknownMember => "UnknownMember",
            Self::NotJsonRpc => "NotJsonRpc",
            Self::BadId => "BadId",
            Self::BadMethod => "BadMethod",
            Self::AmbiguousMessage => "AmbiguousMessage",
            Self::BadParams => "BadParams",
            Self::BadMeta => "BadMeta",
            Self::MissingMeta => "MissingMeta",
            Self::BadToolName => "BadToolName",
            Self::BadTargetName => "BadTargetName",
            Self::RequestStateTooLarge => "RequestStateTooLarge",
            Self::RequestWithoutId => "RequestWithoutId",
            Self::ResponseNotAllowed => "ResponseNotAllowed",
            Self::HeaderMissing => "HeaderMissing",
            Self::HeaderRepeated => "HeaderRepeated",
            Self::HeaderMalformed => "HeaderMalformed",
            Self::HeaderMismatch => "HeaderMismatch",
            Self::UnsupportedVersion => "UnsupportedVersion",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::UnsupportedEncoding => "UnsupportedEncoding",
            Self::NotAcceptable => "NotAcceptable",
        }
    }

    /// What the caller is told; the same words for every caller, nothing of the request in them.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "the body is larger than the limit",
            Self::BodyNotUtf8 => "the body is not UTF-8 without a byte order mark",
            Self::BodyNotJson => "the body is not exactly one JSON value",
            Self::BodyTooDeep => "the body is nested too deeply",
            Self::TooManyMembers => "the body has too many object members",
            Self::DuplicateMember => "an object in the body has a duplicate member",
            Self::Batch => "JSON-RPC batches are not accepted",
            Self::NotAnObject => "the body is not a JSON-RPC object",
            Self::LookAlikeMember => "a member name can be taken for a reserved one",
            Self::UnknownMember => "the message has a member that JSON-RPC 2.0 does not define",
            Self::NotJsonRpc => "jsonrpc must be exactly \"2.0\"",
            Self::BadId => "id must be a short string or a safe integer",
            Self::BadMethod => "method is not a method name",
            Self::AmbiguousMessage => "the message must be either a call or an answer",
            Self::BadParams => "params do not have the shape the method needs",
            Self::BadMeta => "_meta does not have the shape it needs",
            Self::MissingMeta => "_meta lacks io.modelcontextprotocol/protocolVersion",
            Self::BadToolName => "the tool name is not 1 to 128 of A-Z a-z 0-9 _ . -",
            Self::BadTargetName => "a name, URI or task id in params is empty, too long or unprintable",
            Self::RequestStateTooLarge => "requestState is larger than the limit",
            Self::RequestWithoutId => "this method needs an id",
            Self::ResponseNotAllowed => "responses are not accepted in this protocol version",
            Self::HeaderMissing => "a required MCP header is missing",
            Self::HeaderRepeated => "an MCP header occurs more than once",
            Self::HeaderMalformed => "an MCP header has an invalid value",
            Self::HeaderMismatch => "an MCP header does not match the body",
            Self::UnsupportedVersion => "unsupported protocol version",
            Self::UnsupportedMediaType => "Content-Type must be application/json in UTF-8",
            Self::UnsupportedEncoding => "Content-Encoding is not accepted",
            Self::NotAcceptable => "Accept must list application/json and text/event-stream",
        }
    }

    /// The HTTP status of the refusal.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::BodyTooLarge | Self::RequestStateTooLarge => 413,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => 415,
            Self::NotAcceptable => 406,
            _ => 400,
        }
    }

    /// The JSON-RPC error code (JSON-RPC 2.0 §5.1, MCP 2026-07-28 basic, Error Codes).
    #[must_use]
    pub fn jsonrpc_code(self) -> i64 {
        match self {
            Self::BodyNotUtf8 | Self::BodyNotJson | Self::BodyTooDeep => -32_700,
            Self::BadParams | Self::BadMeta | Self::MissingMeta | Self::BadToolName | Self::BadTargetName => {
                -32_602
            }
            Self::HeaderMissing | Self::HeaderRepeated | Self::HeaderMalformed | Self::HeaderMismatch => {
                -32_020
            }
            Self::UnsupportedVersion => -32_022,
            Self::BodyTooLarge | Self::RequestStateTooLarge => OWN_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => OWN_MEDIA,
            Self::NotAcceptable => OWN_ACCEPT,
            _ => -32_600,
        }
    }
}

/// A refused envelope. Its text is one of a fixed set.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.message())]
pub struct EnvelopeError {
    reason: EnvelopeReason,
    id: Option<String>,
    requested: Option<String>,
    stateless: bool,
}

/// Shows why, and nothing of what was sent.
impl fmt::Debug for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl EnvelopeError {
    pub(crate) fn with_id(mut self, id: Option<&str>) -> Self {
        self.id = id.map(str::to_owned);
        self
    }

    /// `requested` is given back to the caller, who wrote it, unless it is long.
    pub(crate) fn version(requested: &str, era: Era) -> Self {
        let echoed = (requested.len() <= MAX_ECHO).then(|| requested.to_owned());
        let stateless = era == Era::Modern;
        Self { requested: echoed, stateless, ..Self::from(EnvelopeReason::UnsupportedVersion) }
    }

    /// The same of this message, so that it carries its `id`.
    #[must_use]
    pub fn of(self, message: &Message) -> Self {
        self.with_id(message.id_text())
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> EnvelopeReason {
        self.reason
    }

    /// The HTTP status to answer with.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.reason.http_status()
    }

    /// The JSON-RPC error code to answer with.
    #[must_use]
    pub fn jsonrpc_code(&self) -> i64 {
        self.reason.jsonrpc_code()
    }

    /// JSON text of the request's `id`, when it was read.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The version asked for, when it is not spoken here; the answer carries it as `data.requested` (MCP
    /// 2026-07-28 basic/versioning).
    #[must_use]
    pub fn requested_version(&self) -> Option<&str> {
        self.requested.as_deref()
    }

    /// The versions that the same request could be made in, newest first, for `data.supported`: a stateless one
    /// cannot be made in a version that begins with `initialize`.
    #[must_use]
    pub fn supported_versions(&self) -> Vec<&'static str> {
        let same = |v: &&&str| !self.stateless || ***v >= *FIRST_MODERN;
        SUPPORTED_VERSIONS.iter().filter(same).copied().collect()
    }
}

impl From<EnvelopeReason> for EnvelopeError {
    fn from(reason: EnvelopeReason) -> Self {
        Self { reason, id: None, requested: None, stateless: false }
    }
}

/// `YYYY-MM-DD`, the shape of MCP protocol versions.
pub(crate) fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() })
}
