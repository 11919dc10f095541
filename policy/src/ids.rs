//! Names with a meaning, each parsed once at the edge.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Why a name was not taken. The offending text is never repeated: it may come from a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("empty")]
    Empty,
    /// More bytes than allowed.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// A character outside the grammar.
    #[error("holds a character that is not allowed here")]
    Character,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses and bounds the text; nothing is normalised.
            ///
            /// # Errors
            /// When it is empty, too long, or holds a character outside the grammar.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(NameError::Empty);
                }
                if text.len() > $max {
                    return Err(NameError::TooLong($max));
                }
                let valid: fn(char) -> bool = $valid;
                if !text.chars().all(valid) {
                    return Err(NameError::Character);
                }
                Ok(Self(text))
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// An OAuth scope token (RFC 6749 §3.3): `%x21 / %x23-5B / %x5D-7E`.
    Scope, 128, |c| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e')
);
name!(
    /// An issuer identifier, compared code point by code point (RFC 8414 §3.3).
    Issuer, 512, |c| !c.is_control() && c != ' '
);
name!(
    /// An audience value (`aud`), compared code point by code point.
    Audience, 512, |c| !c.is_control()
);
name!(
    /// An OAuth client identifier (RFC 6749 §2.2).
    ClientId, 512, |c| !c.is_control()
);
name!(
    /// The subject of a token (`sub`), unique within its issuer only.
    Subject, 255, |c| !c.is_control()
);
name!(
    /// A group as the identity provider names it.
    Group, 256, |c| !c.is_control()
);
name!(
    /// An MCP tool name, exact and case-sensitive (MCP 2026-07-28 server/tools).
    ToolName, 128, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);
name!(
    /// The name of an MCP prompt, exact and case-sensitive (MCP 2026-07-28 server/prompts).
    PromptName, 256, |c| !c.is_control()
);
name!(
    /// The name of an entry in one of our lists: provider, downstream, server. A DNS label.
    EntryName, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);

/// A set of scopes; order never matters.
pub type ScopeSet = BTreeSet<Scope>;

/// Reads a space-delimited `scope` value (RFC 6749 §3.3). Empty text is the empty set.
///
/// # Errors
/// When a token is outside the grammar, or there are more than `max` of them.
pub fn parse_scopes(text: &str, max: usize) -> Result<ScopeSet, NameError> {
    let mut set = ScopeSet::new();
    for token in text.split(' ').filter(|t| !t.is_empty()) {
        if set.len() >= max {
            return Err(NameError::TooLong(max));
        }
        set.insert(Scope::new(token)?);
    }
    Ok(set)
}

/// The set as a space-delimited `scope` value, in a stable order.
#[must_use]
pub fn join_scopes(scopes: &ScopeSet) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

/// Seconds since the epoch. The clock is always an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus so many seconds; saturates.
    #[must_use]
    pub fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(i64::from(seconds)))
    }

    /// This moment less so many seconds; saturates.
    #[must_use]
    pub fn minus(self, seconds: u32) -> Self {
        Self(self.0.saturating_sub(i64::from(seconds)))
    }
}
