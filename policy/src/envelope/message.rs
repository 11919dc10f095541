//! One JSON-RPC message of an MCP client, as it is judged and as it is forwarded.

use std::fmt;

use super::error::{EnvelopeError, EnvelopeReason, is_date};
use super::headers::{HeaderView, check_headers};
use super::json::{self, Duplicates, JsonError, Limits, Member, Node};
use super::names;
use super::target::{self, Target};
use crate::wire::META_HANDLE;

/// The protocol versions spoken here, newest first.
pub const SUPPORTED_VERSIONS: &[&str] =
    &["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// First version without sessions; what carries it, or a later one, belongs to [`Era::Modern`].
pub(super) const FIRST_MODERN: &str = "2026-07-28";
/// What a request without `MCP-Protocol-Version` speaks (streamable-http, Protocol Version Header).
const ASSUMED: &str = "2025-03-26";

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const MAX_ID: usize = 256;
const MAX_METHOD: usize = 128;
const MAX_REQUEST_STATE: usize = 64 * 1024;
/// Largest integer that every JSON parser keeps (2^53 − 1).
const MAX_SAFE_INTEGER: u64 = 9_007_199_254_740_991;

/// Which rules a request follows; the request chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28 and later: every request stands alone.
    Modern,
    /// Up to 2025-11-25: `initialize`, sessions, answers of the client.
    Legacy,
}

/// What JSON-RPC calls the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call that is answered.
    Request,
    /// A call without an `id`.
    Notification,
    /// An answer to a request of the server.
    Response,
}

/// A message that was read; all of it is judged or passed on as it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    era: Era,
    version: String,
    id: Option<String>,
    method: Option<String>,
    target: Target,
    /// Members of `params` but for `_meta`, as decoded name and compact JSON.
    params: Option<Vec<Part>>,
    /// Members of `params._meta` that are not under our prefix.
    meta: Option<Vec<Part>>,
    /// `result` or `error` of a response.
    outcome: Option<Part>,
}

#[derive(Clone, PartialEq, Eq)]
struct Part {
    key: String,
    json: String,
}

impl Part {
    /// Strings are written anew, so that what was compared is what is sent.
    fn of(member: &Member<'_>) -> Self {
        let mut json = String::new();
        match member.node.as_str() {
            Some(text) => json::quote_into(text, &mut json),
            None => json::compact_into(member.node.raw, &mut json),
        }
        Self { key: member.key.as_ref().to_owned(), json }
    }

    fn write(&self, out: &mut String) {
        json::quote_into(&self.key, out);
        out.push(':');
        out.push_str(&self.json);
    }
}

/// Shows what policy sees; never arguments or `_meta`.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("era", &self.era)
            .field("version", &self.version)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Message {
    /// Reads the body of a POST together with the headers that mirror it.
    ///
    /// # Errors
    /// Everything that is not plainly one JSON-RPC 2.0 message of a known era whose headers agree
    /// with its body. The error carries the `id` when it could be read.
    pub fn read(body: &[u8], headers: &HeaderView<'_>, limits: &Limits) -> Result<Self, EnvelopeError> {
        let root = json::read(body, limits, Duplicates::Refused).map_err(reason_of)?;
        if root.is_array() {
            return Err(EnvelopeReason::Batch.into());
        }
        let members = root.members().ok_or(EnvelopeReason::NotAnObject)?;
        let id = root.get("id").map(read_id);
        let id_text = id.clone().and_then(Result::ok);
        let named = |error: EnvelopeError| error.with_id(id_text.as_deref());
        check_top(members).map_err(|reason| named(reason.into()))?;
        let id = id.transpose().map_err(EnvelopeError::from)?;
        let message = match (root.get("method"), root.get("result"), root.get("error")) {
            (Some(method), None, None) => Self::call(&root, method, id, headers),
            (None, Some(_), None) | (None, None, Some(_)) => Self::response(members, id, headers),
            _ => Err(EnvelopeReason::AmbiguousMessage.into()),
        };
        let message = message.map_err(named)?;
        check_headers(headers, &message)?;
        Ok(message)
    }

    fn call(
        root: &Node<'_>,
        method: &Node<'_>,
        id: Option<String>,
        headers: &HeaderView<'_>,
    ) -> Result<Self, EnvelopeError> {
        let method = read_method(method)?;
        let kind = if id.is_some() { Kind::Request } else { Kind::Notification };
        let params = root.get("params");
        let members = match params {
            Some(node) => Some(node.members().ok_or(EnvelopeReason::BadParams)?),
            None => None,
        };
        if members.is_some_and(names::has_look_alike) {
            return Err(EnvelopeReason::LookAlikeMember.into());
        }
        let meta = match params.and_then(|p| p.get("_meta")) {
            Some(node) => Some(node.members().ok_or(EnvelopeReason::BadMeta)?),
            None => None,
        };
        if meta.is_some_and(names::has_meta_look_alike) {
            return Err(EnvelopeReason::LookAlikeMember.into());
        }
        check_retry(params)?;
        let stated = match params.and_then(|p| p.get("_meta")).and_then(|m| m.get(META_VERSION)) {
            Some(node) => Some(node.as_str().ok_or(EnvelopeReason::BadMeta)?),
            None => None,
        };
        let (era, version) = read_era(stated, headers)?;
        let target = target::of_call(method, params, kind == Kind::Notification, era)?;
        if era == Era::Modern && kind == Kind::Request && stated.is_none() {
            return Err(EnvelopeReason::MissingMeta.into());
        }
        Ok(Self {
            kind,
            era,
            version: version.to_owned(),
            id,
            method: Some(method.to_owned()),
            target,
            params: members.map(|m| m.iter().filter(|m| m.key != "_meta").map(Part::of).collect()),
            meta: meta.map(|m| m.iter().filter(|m| !names::is_ours(&m.key)).map(Part::of).collect()),
            outcome: None,
        })
    }

    fn response(
        members: &[Member<'_>],
        id: Option<String>,
        headers: &HeaderView<'_>,
    ) -> Result<Self, EnvelopeError> {
        let id = Some(id.ok_or(EnvelopeReason::BadId)?);
        let (era, version) = read_era(None, headers)?;
        if era == Era::Modern {
            return Err(EnvelopeReason::ResponseNotAllowed.into());
        }
        let outcome = members.iter().find(|m| matches!(m.key.as_ref(), "result" | "error"));
        let outcome = outcome.filter(|m| m.node.members().is_some());
        if outcome.is_none() || members.iter().any(|m| m.key == "params") {
            return Err(EnvelopeReason::AmbiguousMessage.into());
        }
        Ok(Self {
            kind: Kind::Response,
            era,
            version: version.to_owned(),
            id,
            method: None,
            target: Target::Response,
            params: None,
            meta: None,
            outcome: outcome.map(Part::of),
        })
    }

    /// Request, notification or response.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The rules this message follows.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// The protocol version it states, or the one assumed when it states none.
    #[must_use]
    pub fn protocol_version(&self) -> &str {
        &self.version
    }

    /// JSON text of `id`; absent on notifications.
    #[must_use]
    pub fn id_text(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// `method`; absent on responses.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// What it asks for.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// JSON text of a member of `params` other than `_meta`, compact.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.as_ref()?.iter().find(|p| p.key == name).map(|p| p.json.as_str())
    }

    /// JSON text of `params.arguments`, compact; an object when present on `tools/call`.
    #[must_use]
    pub fn arguments(&self) -> Option<&str> {
        self.param("arguments")
    }

    /// The message to forward: the judged one written anew, never the bytes that came in.
    ///
    /// Members of `_meta` under our prefix are gone in every spelling. With a handle,
    /// `params._meta["behalf.dev/handle"]` holds it; `params` and `_meta` are made when absent.
    /// A response has no `params` and never carries a handle.
    #[must_use]
    pub fn forward_body(&self, handle: Option<&str>) -> Vec<u8> {
        let mut out = String::from("{\"jsonrpc\":\"2.0\"");
        if let Some(id) = &self.id {
            out.push_str(",\"id\":");
            out.push_str(id);
        }
        if let Some(method) = &self.method {
            out.push_str(",\"method\":");
            json::quote_into(method, &mut out);
            self.write_params(handle, &mut out);
        }
        if let Some(outcome) = &self.outcome {
            out.push(',');
            outcome.write(&mut out);
        }
        out.push('}');
        out.into_bytes()
    }

    fn write_params(&self, handle: Option<&str>, out: &mut String) {
        if self.params.is_none() && handle.is_none() {
            return;
        }
        out.push_str(",\"params\":{");
        let params = self.params.as_deref().unwrap_or_default();
        write_parts(params, out);
        if self.meta.is_some() || handle.is_some() {
            if !params.is_empty() {
                out.push(',');
            }
            out.push_str("\"_meta\":{");
            let meta = self.meta.as_deref().unwrap_or_default();
            write_parts(meta, out);
            if let Some(handle) = handle {
                if !meta.is_empty() {
                    out.push(',');
                }
                json::quote_into(META_HANDLE, out);
                out.push(':');
                json::quote_into(handle, out);
            }
            out.push('}');
        }
        out.push('}');
    }
}

fn write_parts(parts: &[Part], out: &mut String) {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        part.write(out);
    }
}

fn reason_of(error: JsonError) -> EnvelopeReason {
    match error {
        JsonError::TooLarge => EnvelopeReason::BodyTooLarge,
        JsonError::NotUtf8 => EnvelopeReason::BodyNotUtf8,
        JsonError::Malformed => EnvelopeReason::BodyNotJson,
        JsonError::TooDeep => EnvelopeReason::BodyTooDeep,
        JsonError::TooManyKeys => EnvelopeReason::TooManyMembers,
        JsonError::Duplicate => EnvelopeReason::DuplicateMember,
    }
}

fn check_top(members: &[Member<'_>]) -> Result<(), EnvelopeReason> {
    if names::has_look_alike(members) {
        return Err(EnvelopeReason::LookAlikeMember);
    }
    let known = |key: &str| matches!(key, "jsonrpc" | "id" | "method" | "params" | "result" | "error");
    if !members.iter().all(|m| known(&m.key)) {
        return Err(EnvelopeReason::UnknownMember);
    }
    let version = members.iter().find(|m| m.key == "jsonrpc");
    if version.and_then(|m| m.node.as_str()) != Some("2.0") {
        return Err(EnvelopeReason::NotJsonRpc);
    }
    Ok(())
}

/// The `id` as canonical JSON text. An integer that some parser would round is refused, because
/// its answer would come back under another `id`.
pub(crate) fn read_id(node: &Node<'_>) -> Result<String, EnvelopeReason> {
    if let Some(text) = node.as_str() {
        if text.len() > MAX_ID {
            return Err(EnvelopeReason::BadId);
        }
        let mut out = String::new();
        json::quote_into(text, &mut out);
        return Ok(out);
    }
    let digits = node.raw.strip_prefix('-').unwrap_or(node.raw);
    let integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let safe = digits.parse::<u64>().is_ok_and(|n| n <= MAX_SAFE_INTEGER);
    if integer && safe && node.raw != "-0" { Ok(node.raw.to_owned()) } else { Err(EnvelopeReason::BadId) }
}

fn read_method<'n>(node: &'n Node<'_>) -> Result<&'n str, EnvelopeReason> {
    let method = node.as_str().ok_or(EnvelopeReason::BadMethod)?;
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.' | b'$');
    if method.is_empty() || method.len() > MAX_METHOD || !method.bytes().all(valid) {
        return Err(EnvelopeReason::BadMethod);
    }
    Ok(method)
}

/// A retry carries answers to the server's questions (MCP 2026-07-28 basic/patterns/mrtr).
fn check_retry(params: Option<&Node<'_>>) -> Result<(), EnvelopeReason> {
    if params.and_then(|p| p.get("inputResponses")).is_some_and(|n| n.members().is_none()) {
        return Err(EnvelopeReason::BadParams);
    }
    match params.and_then(|p| p.get("requestState")).map(Node::as_str) {
        Some(None) => Err(EnvelopeReason::BadParams),
        Some(Some(state)) if state.len() > MAX_REQUEST_STATE => Err(EnvelopeReason::RequestStateTooLarge),
        _ => Ok(()),
    }
}

/// The era and version of a message from what its `_meta` states and its header.
fn read_era<'n>(stated: Option<&'n str>, headers: &HeaderView<'n>) -> Result<(Era, &'n str), EnvelopeError> {
    let header = headers.protocol_version.read()?;
    let (era, version) = match (stated, header) {
        (Some(_), None) => return Err(EnvelopeReason::HeaderMissing.into()),
        (Some(stated), Some(header)) if stated != header => {
            return Err(EnvelopeReason::HeaderMismatch.into());
        }
        (Some(stated), Some(_)) => (Era::Modern, stated),
        (None, None) => (Era::Legacy, ASSUMED),
        // Versions are dates, so that their text order is their order in time.
        (None, Some(header)) if is_date(header) && header >= FIRST_MODERN => (Era::Modern, header),
        (None, Some(header)) => (Era::Legacy, header),
    };
    let of_era = |v: &&str| (**v >= *FIRST_MODERN) == (era == Era::Modern);
    if SUPPORTED_VERSIONS.iter().any(|v| of_era(v) && *v == version) {
        Ok((era, version))
    } else {
        Err(EnvelopeError::version(version, era))
    }
}
