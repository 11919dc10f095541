//! Member names that some parser takes for another name.
//!
//! Parsers have been seen to match members without regard to case (with the full Unicode folding of
//! `ſ` and the Kelvin sign), to cut a name at NUL, and to accept the snake-case spelling of a
//! camel-case member. A name that is one of ours for such a parser, yet not for us, is refused.

use unicode_normalization::UnicodeNormalization as _;

use super::json::Member;
use crate::wire::META_PREFIX;

/// Members of the envelope and of `params` that decide what a call is.
const RESERVED: &[&str] = &[
    "jsonrpc",
    "id",
    "method",
    "params",
    "name",
    "uri",
    "arguments",
    "_meta",
    "ref",
    "type",
    "taskId",
    "taskIds",
    "notifications",
    "resourceSubscriptions",
    "inputResponses",
    "requestState",
    "result",
    "error",
];

/// Members of `_meta` that decide which era a request belongs to.
const RESERVED_META: &[&str] = &[
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
];

/// Copied by assignment, as many a library copies what was parsed, it becomes the prototype of the copy, and its members
/// are read as the copy's own.
pub(crate) const PROTOTYPE: &str = "__proto__";

/// Whether a member of the envelope, of `params` or of an object directly in it looks like a
/// reserved one without being it.
pub(super) fn has_look_alike(members: &[Member<'_>]) -> bool {
    any_like(members, RESERVED, |key| without_joiners(&fold(key)))
}

/// The same for the top level of `_meta`, where other people's names live: joiners count there.
pub(super) fn has_meta_look_alike(members: &[Member<'_>]) -> bool {
    any_like(members, &[RESERVED, RESERVED_META].concat(), fold)
}

/// Whether all of a key, or what stands before its first NUL, folds to what a reserved name folds to.
fn any_like(members: &[Member<'_>], reserved: &[&str], folded: impl Fn(&str) -> String) -> bool {
    let names: Vec<String> = reserved.iter().map(|name| folded(name)).collect();
    members.iter().map(|m| m.key.as_ref()).filter(|key| !reserved.contains(key)).any(|key| {
        let cut = key.split_once('\0').map(|(before, _)| before);
        key == PROTOTYPE || [Some(key), cut].into_iter().flatten().any(|key| names.contains(&folded(key)))
    })
}

/// Whether a `_meta` member is under our prefix, in whatever spelling.
pub(super) fn is_ours(key: &str) -> bool {
    fold(key).starts_with(META_PREFIX)
}

/// A member's name as a careless parser compares names: without case, look-alikes, joiners and what does not show.
pub(crate) fn folded(name: &str) -> String {
    without_joiners(&fold(name))
}

fn without_joiners(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '_' | '-')).collect()
}

/// NFKC, case folded, without characters that do not show.
fn fold(text: &str) -> String {
    text.chars()
        .filter(|c| !is_invisible(*c))
        .nfkc()
        // `i` with and without its dot are each other's case in some language's library.
        .map(|c| if matches!(c, '\u{130}' | '\u{131}') { 'i' } else { c })
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter(|c| !is_invisible(*c))
        .collect()
}

/// Controls, white space and the default-ignorable code points of Unicode 17.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}
