//! Whatever we let through, every reader behind us reads as we did: the same method, tool and arguments, in the
//! bytes that came and in those we forward. Readers are those of Rust, Go, Python and Node, each used in the ways
//! that servers use it; what it found and how to run the long form is in `docs/security/json-differential.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

#[path = "differential/curated.rs"]
mod curated;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/readers.rs"]
mod readers;

use std::collections::BTreeMap;

use judge::{Findings, Ours};
use readers::Readers;

/// Cases of the usual run; `BEHALF_DIFFERENTIAL_CASES` says how many the long form has.
const CASES: u64 = 25_000;
/// So many cases are asked at once.
const BATCH: usize = 1_000;

/// A body and the headers it comes with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Case {
    pub(crate) body: Vec<u8>,
    /// `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name`, of the modern era.
    pub(crate) headers: Option<(String, Option<String>)>,
}

#[test]
fn d19_d20_d21_what_is_let_through_is_the_same_call_to_every_reader() {
    let count = std::env::var("BEHALF_DIFFERENTIAL_CASES").map_or(CASES, |n| n.parse().unwrap());
    let curated = curated::cases();
    let written = curated.len();
    let mut readers = Readers::start();
    let mut findings = Findings::default();
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut all = curated.into_iter().chain((0..count).map(generate::case)).peekable();
    while all.peek().is_some() {
        let batch: Vec<Case> = all.by_ref().take(BATCH).collect();
        let ours: Vec<Ours> = batch.iter().map(judge::ours).collect();
        let mut bodies: Vec<&[u8]> = batch.iter().map(|case| case.body.as_slice()).collect();
        bodies.extend(ours.iter().filter_map(|ours| ours.forwarded.as_deref()));
        let seen = readers.read(&bodies);
        let (came, forwarded) = seen.split_at(batch.len());
        let mut forwarded = forwarded.iter();
        for ((case, ours), came) in batch.iter().zip(&ours).zip(came) {
            match ours.refused {
                Some(reason) => *reasons.entry(reason).or_default() += 1,
                None => findings.permitted(case, ours, came, forwarded.next().unwrap()),
            }
            findings.count(ours, came);
        }
    }
    readers.stop();
    eprintln!("{written} cases by hand, {count} generated: {findings}\nrefused: {reasons:#?}");
    findings.verdict();
}
