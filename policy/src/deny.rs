//! The deny list of a namespace: what its own people refuse at once, by hand, with the operator away or not.
//!
//! It lies in the `ConfigMap` `behalf-deny`, which kubelet mounts into every sidecar at [`crate::wire::DENY_DIR`]. It can
//! only refuse: whoever may edit a namespace may narrow what runs in it. Each key is the name of an identity, or
//! [`EVERYONE`]; each line of its value refuses something:
//!
//! ```text
//! # everything
//! *
//! tool salary.update
//! subject 34c8efc3-…
//! downstream payroll
//! ```
//! What cannot be read refuses everything, since somebody wanted to refuse something.

use std::collections::BTreeSet;
use std::fmt;

use crate::ids::{EntryName, Subject, ToolName};

/// The key that is about every identity of the namespace. No identity can have this name.
pub const EVERYONE: &str = "_all";
/// A value longer than this many bytes is not read.
pub const MAX_BYTES: usize = 64 * 1024;

/// What is refused. The empty list refuses nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyList {
    all: bool,
    unreadable: bool,
    tools: BTreeSet<ToolName>,
    subjects: BTreeSet<Subject>,
    downstreams: BTreeSet<EntryName>,
}

impl DenyList {
    /// Adds what one value refuses.
    #[must_use]
    pub fn and(mut self, value: &[u8]) -> Self {
        let Some(text) = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_BYTES) else {
            return self.and_unreadable();
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if self.line(line).is_none() {
                return self.and_unreadable();
            }
        }
        self
    }

    /// Adds a value that cannot be read: everything is refused.
    #[must_use]
    pub fn and_unreadable(mut self) -> Self {
        self.unreadable = true;
        self
    }

    fn line(&mut self, line: &str) -> Option<()> {
        if line == "*" {
            self.all = true;
            return Some(());
        }
        let (what, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim();
        match what {
            "tool" => self.tools.insert(ToolName::new(name).ok()?),
            "subject" => self.subjects.insert(Subject::new(name).ok()?),
            "downstream" => self.downstreams.insert(EntryName::new(name).ok()?),
            _ => return None,
        };
        Some(())
    }

    /// True when it was meant to refuse something that could not be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// True when it refuses nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many things it refuses, by its lines.
    #[must_use]
    pub fn len(&self) -> usize {
        [usize::from(self.refuses_all()), self.tools.len(), self.subjects.len(), self.downstreams.len()]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    fn refuses_all(&self) -> bool {
        self.all || self.unreadable
    }

    /// Whether a request is refused whoever it is from, so also when nobody knows. `tool` gives the name of the tool, or of
    /// the row of a plain HTTP API, and is asked only if it counts.
    #[must_use]
    pub fn refuses_anyone<'n>(&self, tool: impl FnOnce() -> Option<&'n str>) -> bool {
        self.refuses_all() || (!self.tools.is_empty() && tool().is_some_and(|tool| self.tools.contains(tool)))
    }

    /// Whether a request of this caller is refused.
    #[must_use]
    pub fn refuses<'n>(&self, subject: &Subject, tool: impl FnOnce() -> Option<&'n str>) -> bool {
        self.subjects.contains(subject) || self.refuses_anyone(tool)
    }

    /// Whether nobody may reach this downstream.
    #[must_use]
    pub fn refuses_downstream(&self, downstream: &EntryName) -> bool {
        self.refuses_all() || self.downstreams.contains(downstream)
    }
}

/// What is refused, in numbers: neither a person nor anything else is named.
impl fmt::Display for DenyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unreadable {
            return f.write_str("everything (the list cannot be read)");
        }
        if self.all {
            return f.write_str("everything");
        }
        let (tools, subjects, downstreams) = (self.tools.len(), self.subjects.len(), self.downstreams.len());
        write!(f, "tools {tools}, subjects {subjects}, downstreams {downstreams}")
    }
}
