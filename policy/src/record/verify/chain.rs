//! One boot: its lines in order of their sequence.

use std::collections::BTreeSet;

use super::{Chain, Entry, Fault, Hash, Kind, Options, Verdict, chain_hash, genesis};

/// Checks the lines of one boot. None for no lines.
pub(super) fn check(
    boot: &str,
    entries: &[Entry],
    options: Options,
    hash: Hash,
    verdict: &mut Verdict,
) -> Option<Chain> {
    let first = entries.first()?;
    begins(boot, first, options, hash, verdict);
    let mut ended = false;
    for pair in entries.windows(2) {
        let [before, entry] = pair else { continue };
        follows(boot, before, entry, verdict);
    }
    for entry in entries {
        let sequence = entry.line.sequence;
        let mut find =
            |fault, detail: &str| verdict.find(fault, boot, format!("sequence {sequence}: {detail}"));
        if ended {
            find(Fault::AfterEnd, "after a clean end");
        }
        ended |= entry.line.kind() == Some(Kind::End);
        if (entry.line.kind() == Some(Kind::Start)) != (sequence == 0) {
            find(Fault::Changed, "a start and the sequence 0 belong together");
        }
        if (&entry.line.namespace, &entry.line.identity) != (&first.line.namespace, &first.line.identity) {
            find(Fault::Changed, "another identity");
        }
    }
    let last = entries.last()?;
    let of = |kind| entries.iter().filter(move |entry| entry.line.kind() == kind);
    Some(Chain {
        boot: boot.to_owned(),
        namespace: first.line.namespace.clone(),
        identity: first.line.identity.clone(),
        continues: first.line.previous_boot.clone(),
        decisions: u64::try_from(of(None).count()).unwrap_or(u64::MAX),
        first: first.line.sequence,
        last: last.line.sequence,
        head: last.hash.clone(),
        interrupted: interrupted(boot, entries, verdict),
        unrecorded: of(Some(Kind::Unrecorded))
            .filter_map(|entry| entry.line.count)
            .fold(0, u64::saturating_add),
        ended,
        attested: false,
    })
}

fn begins(boot: &str, first: &Entry, options: Options, hash: Hash, verdict: &mut Verdict) {
    let line = &first.line;
    if line.sequence > 0 {
        if !options.partial {
            let detail = format!("begins with sequence {}", line.sequence);
            verdict.find(Fault::TruncatedHead, boot, detail);
        }
        return;
    }
    let expected = chain_hash(&hash(&genesis(&line.namespace, &line.identity, boot)));
    if line.previous_boot.is_none() && line.previous != expected {
        verdict.find(Fault::Changed, boot, "the start is not the beginning it says it is".to_owned());
    }
}

fn follows(boot: &str, before: &Entry, entry: &Entry, verdict: &mut Verdict) {
    let (last, sequence) = (before.line.sequence, entry.line.sequence);
    if sequence == last {
        if before.hash == entry.hash {
            verdict.find(Fault::Doubled, boot, format!("sequence {sequence}"));
        } else {
            verdict.find(Fault::Changed, boot, format!("sequence {sequence} is there in two versions"));
        }
    } else if sequence != last.saturating_add(1) {
        let (from, to) = (last.saturating_add(1), sequence.saturating_sub(1));
        verdict.find(Fault::Gap, boot, format!("sequence {from} to {to} is missing"));
    } else if entry.line.previous != before.hash {
        verdict.find(
            Fault::Changed,
            boot,
            format!("sequence {last} is not the line that {sequence} follows"),
        );
    }
}

/// Intents without an outcome. One whose line is not there cannot be told from one that never was, so an outcome of such
/// an intent counts only where all lines are there.
fn interrupted(boot: &str, entries: &[Entry], verdict: &mut Verdict) -> Vec<u64> {
    let first = entries.first().map_or(0, |entry| entry.line.sequence);
    let mut open = BTreeSet::new();
    let mut seen = None;
    for entry in entries {
        let sequence = entry.line.sequence;
        // A line that is there twice was told of already.
        if seen.replace(sequence) == Some(sequence) {
            continue;
        }
        if entry.line.kind() == Some(Kind::Intent) {
            open.insert(sequence);
        } else if let Some(intent) = entry.line.intent
            && !open.remove(&intent)
            && intent >= first
        {
            let detail = format!("sequence {sequence} is the outcome of {intent}, which is no open intent");
            verdict.find(Fault::Outcome, boot, detail);
        }
    }
    open.into_iter().collect()
}
