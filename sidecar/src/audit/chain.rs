//! What the next line follows.

use std::collections::HashMap;

use behalf_policy::record::{
    CHAIN_SCHEMA, Kind, Mark, Mode, Origin, Record, chain_hash, genesis, read_line, write_line,
};

use super::file::Found;
use crate::provider::http::sha256;

/// The chain of one boot, as far as it is written.
pub(super) struct Chain {
    namespace: String,
    identity: String,
    boot: String,
    mode: Mode,
    origin: Before,
    torn: u64,
    /// Sequence of the next line.
    next: u64,
    /// Hash of the last line.
    head: String,
    /// Intents without an outcome: the request they are of, and their sequence.
    open: HashMap<u64, u64>,
}

/// What came before this boot.
enum Before {
    Known { boot: String, sequence: u64 },
    Unknown,
}

/// A line as it stands in its chain, and what is said of it beside.
#[derive(Debug)]
pub(super) struct Line {
    /// As it is written, without its newline.
    pub(super) text: Vec<u8>,
    /// None for a decision.
    pub(super) kind: Option<Kind>,
    /// Its place.
    pub(super) sequence: u64,
    /// Hash of the line before.
    pub(super) previous: String,
    /// Its own hash, which the next line names.
    pub(super) hash: String,
    /// Of a decision or an intent.
    pub(super) decision: Option<&'static str>,
    /// Of a request that came with one.
    pub(super) trace_id: Option<String>,
}

/// Lines that follow the chain, not written yet.
pub(super) struct Draft<'a> {
    chain: &'a Chain,
    next: u64,
    head: String,
    opened: HashMap<u64, u64>,
    closed: Vec<u64>,
    lines: Vec<Line>,
}

/// What is left of a draft when its lines are written.
pub(super) struct Written {
    next: u64,
    head: String,
    opened: HashMap<u64, u64>,
    closed: Vec<u64>,
}

impl Chain {
    pub(super) fn new(namespace: &str, identity: &str, boot: &str, mode: Mode, found: Found) -> Self {
        let before = found.last.and_then(|bytes| {
            let line = read_line(&bytes).ok().flatten()?;
            let same = line.namespace == namespace && line.identity == identity;
            same.then(|| (chain_hash(&sha256(&bytes)), line.boot, line.sequence))
        });
        let (head, origin) = match before {
            Some((head, boot, sequence)) => (head, Before::Known { boot, sequence }),
            None => (chain_hash(&sha256(&genesis(namespace, identity, boot))), Before::Unknown),
        };
        Self {
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            boot: boot.to_owned(),
            mode,
            origin,
            torn: found.torn,
            next: 0,
            head,
            open: HashMap::new(),
        }
    }

    /// Nothing of this boot is written yet.
    pub(super) fn is_new(&self) -> bool {
        self.next == 0
    }

    /// Lines that come next; the start first, if it is not written.
    pub(super) fn draft(&self, time: &str) -> Result<Draft<'_>, serde_json::Error> {
        let mut draft = Draft {
            chain: self,
            next: self.next,
            head: self.head.clone(),
            opened: HashMap::new(),
            closed: Vec::new(),
            lines: Vec::new(),
        };
        if self.is_new() {
            draft.mark(Kind::Start, time, None)?;
        }
        Ok(draft)
    }

    /// The lines of a draft are written.
    pub(super) fn commit(&mut self, written: Written) {
        let Written { next, head, opened, closed } = written;
        (self.next, self.head) = (next, head);
        self.open.extend(opened);
        for request in closed {
            self.open.remove(&request);
        }
    }

    /// Sequence and hash of the last line; none before the first.
    pub(super) fn head(&self) -> Option<(u64, String)> {
        Some((self.next.checked_sub(1)?, self.head.clone()))
    }
}

impl Draft<'_> {
    /// Adds a record, or an intent, of this request.
    pub(super) fn record(
        &mut self,
        record: &mut Record,
        request: Option<u64>,
    ) -> Result<(), serde_json::Error> {
        record.sequence = self.next;
        record.previous.clone_from(&self.head);
        if let Some(request) = request {
            if record.kind == Some(Kind::Intent) {
                self.opened.insert(request, self.next);
            } else {
                // An intent that could not be written is none.
                record.intent = self.opened.get(&request).or_else(|| self.chain.open.get(&request)).copied();
                self.closed.push(request);
            }
        }
        let text = write_line(record)?;
        self.push(text, record.kind, Some(record.decision), record.trace_id.clone());
        Ok(())
    }

    /// Adds a line about the chain.
    pub(super) fn mark(
        &mut self,
        kind: Kind,
        time: &str,
        count: Option<u64>,
    ) -> Result<(), serde_json::Error> {
        let chain = self.chain;
        let mut mark = Mark {
            schema: CHAIN_SCHEMA,
            kind,
            time: time.to_owned(),
            sequence: self.next,
            boot: chain.boot.clone(),
            previous: self.head.clone(),
            namespace: chain.namespace.clone(),
            identity: chain.identity.clone(),
            origin: None,
            previous_boot: None,
            previous_sequence: None,
            torn_bytes: None,
            mode: None,
            version: None,
            count,
        };
        if kind == Kind::Start {
            mark.mode = Some(chain.mode);
            mark.version = Some(env!("CARGO_PKG_VERSION"));
            mark.torn_bytes = Some(chain.torn).filter(|torn| *torn > 0);
            mark.origin = Some(match &chain.origin {
                Before::Known { boot, sequence } => {
                    mark.previous_boot = Some(boot.clone());
                    mark.previous_sequence = Some(*sequence);
                    Origin::Continued
                }
                Before::Unknown => Origin::Unknown,
            });
        }
        let text = write_line(&mark)?;
        self.push(text, Some(kind), None, None);
        Ok(())
    }

    fn push(
        &mut self,
        text: Vec<u8>,
        kind: Option<Kind>,
        decision: Option<&'static str>,
        trace_id: Option<String>,
    ) {
        let (sequence, hash) = (self.next, chain_hash(&sha256(&text)));
        let previous = std::mem::replace(&mut self.head, hash.clone());
        self.lines.push(Line { text, kind, sequence, previous, hash, decision, trace_id });
        self.next = sequence.saturating_add(1);
    }

    /// The lines, and what to commit when they are written.
    pub(super) fn finish(self) -> (Vec<Line>, Written) {
        let Self { chain: _, next, head, opened, closed, lines } = self;
        (lines, Written { next, head, opened, closed })
    }
}
