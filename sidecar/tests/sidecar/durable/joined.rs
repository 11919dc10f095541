//! What clients, the server and the records say of the same requests, held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use behalf_policy::record::{CHAIN_SCHEMA, Options, SCHEMA, Source, verify};
use behalf_sidecar::provider::http::sha256;
use serde_json::Value;

use super::{Run, Seen, trace};

/// Lines by the trace id of their request.
#[derive(Default)]
struct Lines {
    decisions: BTreeMap<String, Vec<Value>>,
    intents: BTreeMap<String, usize>,
    unrecorded: u64,
}

fn lines(sources: &[Source<'_>]) -> Lines {
    let mut lines = Lines::default();
    for line in sources.iter().flat_map(|s| s.bytes.split(|b| *b == b'\n')).filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).unwrap();
        let trace = line["traceId"].as_str().unwrap_or_default().to_owned();
        match (line["schema"].as_str().unwrap(), line["kind"].as_str()) {
            (SCHEMA, None) => lines.decisions.entry(trace).or_default().push(line),
            (CHAIN_SCHEMA, Some("Intent")) => *lines.intents.entry(trace).or_default() += 1,
            (CHAIN_SCHEMA, Some("Unrecorded")) => lines.unrecorded += line["count"].as_u64().unwrap(),
            (CHAIN_SCHEMA, Some("Start" | "End")) => {}
            other => panic!("{other:?}"),
        }
    }
    lines
}

/// What clients saw, held against the records.
#[derive(Default)]
struct Joined {
    /// Answered, and no record.
    lost: Vec<usize>,
    /// Recorded more than once.
    doubled: Vec<(usize, Seen)>,
    /// Recorded as something else.
    wrong: Vec<(usize, Seen, Value)>,
    sums: BTreeMap<&'static str, usize>,
}

fn join(seen: &BTreeMap<usize, Seen>, lines: &Lines) -> Joined {
    let mut joined = Joined::default();
    for (n, seen) in seen {
        let decisions = lines.decisions.get(&trace(*n)).map_or(&[][..], Vec::as_slice);
        let intents = lines.intents.get(&trace(*n)).copied().unwrap_or_default();
        if decisions.len() > 1 || intents > 1 {
            joined.doubled.push((*n, seen.clone()));
        }
        let (what, status, id) = match seen {
            Seen::Answer(200, id) => ("served", 200, id),
            Seen::Answer(status, id) => ("refused by policy", *status, id),
            Seen::Full(id) => ("refused for the full disk", 503, id),
            Seen::Nothing => {
                let what = if decisions.is_empty() { "no answer, no record" } else { "no answer, a record" };
                *joined.sums.entry(what).or_default() += 1;
                continue;
            }
        };
        *joined.sums.entry(what).or_default() += 1;
        let Some(decision) = decisions.first() else {
            joined.lost.push(*n);
            continue;
        };
        let same = decision["status"] == status && decision["requestId"] == id.as_str();
        if !same || (status == 200) != decision["intent"].is_u64() {
            joined.wrong.push((*n, seen.clone(), decision.clone()));
        }
    }
    joined
}

pub(super) fn judge(run: &Run, reached: &[String], took: Duration, done: [usize; 3]) {
    let ([killed, full, full_and_killed], calls) = (done, run.calls);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&run.disk.0).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let read: Vec<(String, Vec<u8>)> =
        files.iter().map(|file| (file.display().to_string(), std::fs::read(file).unwrap())).collect();
    let sources: Vec<Source<'_>> = read.iter().map(|(name, bytes)| Source { name, bytes }).collect();
    let verdict = verify(&sources, &[], Options::default(), sha256);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.others, 0);
    assert!(verdict.chains.iter().any(|chain| chain.ended), "the last boot ended cleanly");
    assert_eq!(verdict.chains.iter().filter(|chain| chain.continues.is_none()).count(), 1, "one chain");

    let lines = lines(&sources);
    let seen = run.seen.lock().unwrap();
    assert_eq!(seen.len(), calls);
    let Joined { lost, doubled, wrong, sums } = join(&seen, &lines);
    let distinct: BTreeSet<&String> = reached.iter().collect();
    let unintended: Vec<_> = reached.iter().filter(|trace| !lines.intents.contains_key(*trace)).collect();
    let known: BTreeSet<String> = seen.keys().map(|n| trace(*n)).collect();
    let interrupted: usize = verdict.chains.iter().map(|chain| chain.interrupted.len()).sum();
    eprintln!(
        "{calls} requests in {:.1} s; {killed} kills, {full} full disks, {full_and_killed} kills on a full disk; \
         {} boots, {} files, {} decisions, {} intents, {interrupted} interrupted; {sums:?}; {} reached the server; \
         {} counted in Unrecorded lines; \
         lost {}, doubled {}, wrong {}, without an intent {}",
        took.as_secs_f64(),
        verdict.chains.len(),
        files.len(),
        lines.decisions.values().map(Vec::len).sum::<usize>(),
        lines.intents.len(),
        reached.len(),
        lines.unrecorded,
        lost.len(),
        doubled.len(),
        wrong.len(),
        unintended.len(),
    );
    assert!(lost.is_empty(), "answered, and no record: {lost:?}");
    assert!(doubled.is_empty(), "recorded twice: {doubled:?}");
    assert!(wrong.is_empty(), "recorded as something else: {wrong:?}");
    assert!(unintended.is_empty(), "reached the server without an intent: {unintended:?}");
    assert_eq!(distinct.len(), reached.len(), "reached the server twice");
    assert!(lines.decisions.keys().all(|trace| known.contains(trace)), "a record of no request");
    assert!(full == 0 || run.refused.load(Ordering::SeqCst) > 0, "a full disk refuses");
}
