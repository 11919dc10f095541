//! Whether lines that were written still are what they were.
//!
//! Called by `cargo xtask audit verify` with the bytes of files, in which lines of several pods and boots and lines of
//! other programs may be mixed. A chain vouches for every line but its last one; that one is vouched for by the start of
//! the next boot of the pod, or by a head that the operator was told.

mod chain;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Kind, ReadLine, chain_hash, genesis, read_line};
use chain::check;

/// SHA-256.
pub type Hash = fn(&[u8]) -> [u8; 32];

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, for findings.
    pub name: &'a str,
    /// What stands in it.
    pub bytes: &'a [u8],
}

/// A line of a boot that somebody else knows the hash of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The boot.
    pub boot: String,
    /// The line's sequence.
    pub sequence: u64,
    /// The line's hash, `sha256:…`.
    pub hash: String,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Older lines, and whole boots, may be missing: they were rotated away, or belong to files that are not given.
    pub partial: bool,
}

/// What does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A line names one of our schemas and cannot be read.
    Unreadable,
    /// Lines are missing between others.
    Gap,
    /// A line stands there more than once.
    Doubled,
    /// A line is not the one that was written.
    Changed,
    /// Lines stand in another order than they were written in.
    Reordered,
    /// The beginning is missing.
    TruncatedHead,
    /// The end is missing.
    TruncatedTail,
    /// There are lines after a clean end.
    AfterEnd,
    /// Two boots go on from the same line.
    Fork,
    /// An outcome has no intent, or an intent more than one outcome.
    Outcome,
}

impl Fault {
    /// Stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::Gap => "Gap",
            Self::Doubled => "Doubled",
            Self::Changed => "Changed",
            Self::Reordered => "Reordered",
            Self::TruncatedHead => "TruncatedHead",
            Self::TruncatedTail => "TruncatedTail",
            Self::AfterEnd => "AfterEnd",
            Self::Fork => "Fork",
            Self::Outcome => "Outcome",
        }
    }
}

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub fault: Fault,
    /// The boot; empty for a line that cannot be read.
    pub boot: String,
    /// Where, and more of it.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.fault.as_str(), self.boot, self.detail)
    }
}

/// What was read of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The boot.
    pub boot: String,
    /// Namespace of its identity.
    pub namespace: String,
    /// Name of its identity.
    pub identity: String,
    /// The boot it continues, if it is known.
    pub continues: Option<String>,
    /// Decisions.
    pub decisions: u64,
    /// Sequence of the first line that is there.
    pub first: u64,
    /// Sequence of the last line that is there.
    pub last: u64,
    /// Hash of the last line that is there.
    pub head: String,
    /// Intents that have no outcome: the sidecar ended between the two.
    pub interrupted: Vec<u64>,
    /// Decisions that could not be kept while nothing could be written.
    pub unrecorded: u64,
    /// It ended cleanly.
    pub ended: bool,
    /// Somebody else vouches for the last line.
    pub attested: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Boots, by the name.
    pub chains: Vec<Chain>,
    /// What does not hold.
    pub findings: Vec<Finding>,
    /// Lines of others.
    pub others: u64,
}

impl Verdict {
    /// True when everything holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, fault: Fault, boot: &str, detail: String) {
        self.findings.push(Finding { fault, boot: boot.to_owned(), detail });
    }
}

/// A line as it is compared.
struct Entry {
    line: ReadLine,
    hash: String,
    source: usize,
    number: usize,
}

type Entries = BTreeMap<String, Vec<Entry>>;

/// Reads all sources and says what holds of them.
#[must_use]
pub fn verify(sources: &[Source<'_>], heads: &[Head], options: Options, hash: Hash) -> Verdict {
    let mut verdict = Verdict::default();
    let mut chains = read(sources, hash, &mut verdict);
    for (boot, entries) in &mut chains {
        order(boot, entries, sources, &mut verdict);
        let checked = check(boot, entries, options, hash, &mut verdict);
        verdict.chains.extend(checked);
    }
    link(&chains, options, &mut verdict);
    for head in heads {
        compare(head, &chains, options, &mut verdict);
    }
    verdict
}

fn read(sources: &[Source<'_>], hash: Hash, verdict: &mut Verdict) -> Entries {
    let mut chains = Entries::new();
    for (source, Source { name, bytes }) in sources.iter().enumerate() {
        for (number, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if bytes.is_empty() {
                continue;
            }
            match read_line(bytes) {
                Ok(Some(line)) => {
                    let entry = Entry { hash: chain_hash(&hash(bytes)), source, number, line };
                    chains.entry(entry.line.boot.clone()).or_default().push(entry);
                }
                Ok(None) => verdict.others = verdict.others.saturating_add(1),
                Err(error) => {
                    let at = number.saturating_add(1);
                    verdict.find(Fault::Unreadable, "", format!("{name}:{at}: {error}"));
                }
            }
        }
    }
    chains
}

/// Lines of one file come in the order in which they were written; files are put in order by their lines.
fn order(boot: &str, entries: &mut [Entry], sources: &[Source<'_>], verdict: &mut Verdict) {
    let mut highest: BTreeMap<usize, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for entry in entries.iter() {
        let sequence = entry.line.sequence;
        let highest = highest.entry(entry.source).or_insert(sequence);
        if sequence < *highest && !seen.contains(&sequence) {
            let name = sources.get(entry.source).map_or("", |source| source.name);
            let at = entry.number.saturating_add(1);
            verdict.find(Fault::Reordered, boot, format!("sequence {sequence} at {name}:{at}"));
        }
        *highest = sequence.max(*highest);
        seen.insert(sequence);
    }
    entries.sort_by_key(|entry| (entry.line.sequence, entry.source, entry.number));
}

/// Whether boots go on where the one before them ended.
fn link(chains: &Entries, options: Options, verdict: &mut Verdict) {
    let mut continued: BTreeMap<&str, &str> = BTreeMap::new();
    for (boot, entries) in chains {
        let Some(start) = entries.first().filter(|entry| entry.line.kind() == Some(Kind::Start)) else {
            continue;
        };
        let Some(before) = start.line.previous_boot.as_deref() else { continue };
        let sequence = start.line.previous_sequence.unwrap_or_default();
        if let Some(other) = continued.insert(before, boot) {
            verdict.find(Fault::Fork, boot, format!("continues {before}, as {other} does"));
        }
        let Some(last) = chains.get(before).and_then(|entries| entries.last()) else {
            if !options.partial {
                let detail =
                    format!("continues {before} from sequence {sequence}, of which nothing is there");
                verdict.find(Fault::TruncatedHead, boot, detail);
            }
            continue;
        };
        if last.line.sequence < sequence {
            let detail =
                format!("ends with sequence {}, but {boot} continues {sequence}", last.line.sequence);
            verdict.find(Fault::TruncatedTail, before, detail);
        } else if last.line.sequence > sequence || last.hash != start.line.previous {
            let detail = format!("the last line is not the one of sequence {sequence} that {boot} continues");
            verdict.find(Fault::Changed, before, detail);
        } else if let Some(chain) = verdict.chains.iter_mut().find(|chain| chain.boot == before) {
            chain.attested = true;
        }
    }
}

/// Whether what somebody was told is still there.
fn compare(head: &Head, chains: &Entries, options: Options, verdict: &mut Verdict) {
    let Head { boot, sequence, hash } = head;
    let Some(entries) = chains.get(boot) else {
        if !options.partial {
            let detail = format!("nothing is there; sequence {sequence} was reported");
            verdict.find(Fault::TruncatedTail, boot, detail);
        }
        return;
    };
    let (first, last) = (entries.first(), entries.last());
    if last.is_none_or(|last| last.line.sequence < *sequence) {
        let last = last.map_or(0, |last| last.line.sequence);
        let detail = format!("ends with sequence {last}; sequence {sequence} was reported");
        verdict.find(Fault::TruncatedTail, boot, detail);
        return;
    }
    match entries.iter().find(|entry| entry.line.sequence == *sequence) {
        Some(entry) if entry.hash != *hash => {
            verdict.find(
                Fault::Changed,
                boot,
                format!("sequence {sequence} is not the one that was reported"),
            );
        }
        Some(_) => {
            let chain =
                verdict.chains.iter_mut().find(|chain| chain.boot == *boot && chain.last == *sequence);
            if let Some(chain) = chain {
                chain.attested = true;
            }
        }
        None if options.partial && first.is_some_and(|first| first.line.sequence > *sequence) => {}
        None => verdict.find(Fault::Gap, boot, format!("sequence {sequence} was reported and is missing")),
    }
}
