//! The answer to a list (tools, prompts, resources, resource templates) without what its caller may not use.
//!
//! Order, `nextCursor` and every other member stay as the server wrote them; only entries are taken
//! out. An answer that cannot be read is refused as a whole, because it may show what it should not.
//! A filtered page is one caller's, so that a modern one is always `cacheScope: private` (MCP
//! 2026-07-28 server/utilities/caching).

mod sse;

pub use sse::SseFilter;

use crate::envelope::json::{self, Duplicates, JsonError, Limits, Node};
use crate::envelope::{AnnotationError, Era, ListKind, MirroredParams};

/// Why an answer could not be filtered. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Larger, deeper or with more members than the limits allow.
    #[error("the server's answer is over a limit")]
    TooLarge,
    /// Not one JSON value, or an object outside the list has a duplicate member.
    #[error("the server's answer is not JSON without duplicate members")]
    NotJson,
    /// An array of answers.
    #[error("the server's answer is a batch")]
    Batch,
    /// Not a JSON-RPC response whose result has the array that was asked for.
    #[error("the server's answer is not the list that was asked for")]
    Shape,
}

impl ListingError {
    /// The name used in records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "ListTooLarge",
            Self::NotJson => "ListNotJson",
            Self::Batch => "ListBatch",
            Self::Shape => "ListShape",
        }
    }
}

impl From<JsonError> for ListingError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooLarge | JsonError::TooDeep | JsonError::TooManyKeys => Self::TooLarge,
            JsonError::NotUtf8 | JsonError::Malformed | JsonError::Duplicate => Self::NotJson,
        }
    }
}

/// Who looks at every entry of a list as it passes.
pub trait Onlooker {
    /// Whether the entry of this name stays in.
    fn keeps(&self, kind: ListKind, name: &str) -> bool;

    /// `params` reads what the list says of the arguments that a tool wants mirrored, whether the tool stays in or not.
    fn mirrors(&self, _tool: &str, _params: &dyn Fn() -> Result<MirroredParams, AnnotationError>) {}
}

impl<F: Fn(ListKind, &str) -> bool + ?Sized> Onlooker for F {
    fn keeps(&self, kind: ListKind, name: &str) -> bool {
        self(kind, name)
    }
}

/// Every list there is.
const KINDS: [ListKind; 4] =
    [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates];

/// The member of the result that holds the list, and the member that names an entry.
fn names(kind: ListKind) -> (&'static str, &'static str) {
    match kind {
        ListKind::Tools => ("tools", "name"),
        ListKind::Prompts => ("prompts", "name"),
        ListKind::Resources => ("resources", "uri"),
        ListKind::ResourceTemplates => ("resourceTemplates", "uriTemplate"),
    }
}

/// Filters an `application/json` answer to the list of this kind; an error answer passes unchanged. A list of another
/// kind in the same result is filtered as well.
///
/// An entry without the string that names it, or with a duplicate member, is taken out whatever the onlooker says.
///
/// # Errors
/// When the answer cannot be read as one response; then none of it may be passed on.
pub fn filter_list(
    body: &[u8],
    kind: ListKind,
    onlooker: &dyn Onlooker,
    era: Era,
    limits: &Limits,
) -> Result<Vec<u8>, ListingError> {
    let root = json::read(body, limits, Duplicates::RefusedOutsideArrays)?;
    if root.is_array() {
        return Err(ListingError::Batch);
    }
    match (root.get("result"), root.get("error"), root.get("method")) {
        (Some(result), None, None) => {
            let text = std::str::from_utf8(body).map_err(|_| ListingError::NotJson)?;
            Ok(filtered(text, result, Some(kind), onlooker, era, limits)?.into_bytes())
        }
        (None, Some(_), None) => Ok(body.to_vec()),
        _ => Err(ListingError::Shape),
    }
}

/// `text` with the lists in `result` (a node of it) filtered. The one that was asked for must be there.
fn filtered(
    text: &str,
    result: &Node<'_>,
    asked: Option<ListKind>,
    onlooker: &dyn Onlooker,
    era: Era,
    limits: &Limits,
) -> Result<String, ListingError> {
    let members = result.members().ok_or(ListingError::Shape)?;
    let mut edits = Vec::with_capacity(2);
    for kind in KINDS {
        let (member, key) = names(kind);
        match result.get(member) {
            Some(list) if list.is_array() => {
                let array = filtered_array(list, kind, key, onlooker, limits)?;
                edits.push(Edit::replace(list, array));
            }
            Some(_) => return Err(ListingError::Shape),
            None if asked == Some(kind) => return Err(ListingError::Shape),
            None => {}
        }
    }
    if era == Era::Modern {
        let private = "\"private\"";
        edits.push(match result.get("cacheScope") {
            Some(scope) => Edit::replace(scope, private.to_owned()),
            None => Edit {
                start: result.start.saturating_add(1),
                end: result.start.saturating_add(1),
                text: format!("\"cacheScope\":{private}{}", if members.is_empty() { "" } else { "," }),
            },
        });
    }
    splice(text, edits).ok_or(ListingError::Shape)
}

fn filtered_array(
    list: &Node<'_>,
    kind: ListKind,
    key: &str,
    onlooker: &dyn Onlooker,
    limits: &Limits,
) -> Result<String, ListingError> {
    let mut dropped = false;
    let mut kept: Vec<&str> = Vec::new();
    list.elements(&mut |raw| {
        let entry = json::read(raw.as_bytes(), limits, Duplicates::Refused).ok();
        let name = entry.as_ref().and_then(|e| e.get(key)).and_then(Node::as_str);
        if let (ListKind::Tools, Some(entry), Some(name)) = (kind, &entry, name) {
            let schema = entry.get("inputSchema");
            onlooker.mirrors(name, &|| {
                schema.map_or_else(|| Ok(MirroredParams::default()), MirroredParams::of_schema)
            });
        }
        if name.is_some_and(|name| onlooker.keeps(kind, name)) {
            kept.push(raw);
        } else {
            dropped = true;
        }
    })?;
    Ok(if dropped { format!("[{}]", kept.join(",")) } else { list.raw.to_owned() })
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

impl Edit {
    fn replace(node: &Node<'_>, text: String) -> Self {
        Self { start: node.start, end: node.start.saturating_add(node.raw.len()), text }
    }
}

fn splice(text: &str, mut edits: Vec<Edit>) -> Option<String> {
    edits.sort_by_key(|e| e.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in &edits {
        out.push_str(text.get(at..edit.start)?);
        out.push_str(&edit.text);
        at = edit.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}
