//! What a call needs beyond the scopes of its tool, as it is written, and how that is asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{EntryName, Group, Scope};

/// What a call needs besides, where an expression over its arguments is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConditionDocument {
    /// Name of the row.
    pub name: EntryName,
    /// The expression; see [`crate::condition`].
    pub when: String,
    /// Further scopes, all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<Scope>,
    /// Groups of which the caller must be in one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<Group>,
}

/// How a caller must have logged in (RFC 9470).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assurance {
    /// At most so many seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
    /// In one of these ways, the preferred first; empty: in any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acr_values: Vec<String>,
}

/// Which scopes a challenge names (A16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ScopeChallenge {
    /// All of the refused operation: the client adds what it has (MCP 2026-07-28).
    #[default]
    Operation,
    /// Those of the operation and those presented (MCP 2025-11-25), for clients that ask for what is named and nothing else.
    Cumulative,
}
