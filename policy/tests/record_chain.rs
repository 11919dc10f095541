//! The chain of records: what was done to a log is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

use behalf_policy::record::{
    Fault, Head, Kind, MAX_TEXT, Mark, Mode, Options, Origin, Source, Verdict, bounded, chain_hash, genesis,
    read_line, verify, write_line,
};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn hash(line: &str) -> String {
    chain_hash(&sha256(line.as_bytes()))
}

fn start(boot: &str, after: Option<(&str, u64, &str)>) -> String {
    let mark = Mark {
        schema: "behalf.dev/chain/v1",
        kind: Kind::Start,
        time: "2026-11-22T02:00:00.007Z".into(),
        sequence: 0,
        boot: boot.into(),
        previous: after
            .map_or_else(|| chain_hash(&sha256(&genesis("hr", "hr-tools", boot))), |(_, _, line)| hash(line)),
        namespace: "hr".into(),
        identity: "hr-tools".into(),
        origin: Some(if after.is_some() { Origin::Continued } else { Origin::Unknown }),
        previous_boot: after.map(|(boot, _, _)| boot.into()),
        previous_sequence: after.map(|(_, sequence, _)| sequence),
        torn_bytes: None,
        mode: Some(Mode::Strict),
        version: Some("1"),
        count: None,
    };
    String::from_utf8(write_line(&mark).unwrap()).unwrap()
}

fn line(boot: &str, sequence: u64, before: &str, more: &serde_json::Value) -> String {
    let mut line = json!({
        "schema": "behalf.dev/record/v1", "time": "t", "sequence": sequence, "boot": boot,
        "previous": hash(before), "namespace": "hr", "identity": "hr-tools",
    });
    for (key, value) in more.as_object().unwrap() {
        line[key] = value.clone();
    }
    line.to_string()
}

fn intent() -> serde_json::Value {
    json!({"schema": "behalf.dev/chain/v1", "kind": "Intent", "decision": "Permit"})
}

/// A boot of so many lines after its start, every third one an intent, which the line after the next one closes.
fn boot(name: &str, lines: u64, after: Option<(&str, u64, &str)>) -> Vec<String> {
    let mut chain = vec![start(name, after)];
    for sequence in 1..=lines {
        let more = match sequence % 3 {
            1 if sequence + 2 <= lines => intent(),
            0 => json!({"decision": "Permit", "status": 200, "intent": sequence - 2}),
            _ => json!({"decision": "Refuse", "status": 403}),
        };
        let before = chain.last().unwrap().clone();
        chain.push(line(name, sequence, &before, &more));
    }
    chain
}

/// Two boots of one pod and their heads.
fn two(first: u64, second: u64) -> (Vec<String>, Vec<Head>) {
    let mut lines = boot("a", first, None);
    let last = lines.last().unwrap().clone();
    let next = boot("b", second, Some(("a", first, &last)));
    let head = |boot: &str, sequence, line: &str| Head { boot: boot.into(), sequence, hash: hash(line) };
    let heads = vec![head("a", first, &last), head("b", second, next.last().unwrap())];
    lines.extend(next);
    (lines, heads)
}

fn text(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

fn judge(bytes: &[u8], heads: &[Head]) -> Verdict {
    verify(&[Source { name: "log", bytes }], heads, Options::default(), sha256)
}

fn faults(verdict: &Verdict) -> Vec<Fault> {
    let mut faults: Vec<_> = verdict.findings.iter().map(|finding| finding.fault).collect();
    faults.sort_unstable();
    faults.dedup();
    faults
}

#[test]
fn what_was_written_holds_also_mixed_with_other_lines_and_in_several_files() {
    let (lines, heads) = two(6, 3);
    let mut mixed: Vec<String> = Vec::new();
    // Two pods, line by line.
    let other = boot("c", 9, None);
    for (at, one) in other.iter().enumerate() {
        mixed.extend(lines.get(at).cloned());
        mixed.push(one.clone());
        mixed.push(r#"{"level":"INFO","fields":{"message":"serving"}}"#.into());
    }
    mixed.extend(lines[other.len()..].iter().cloned());
    let verdict = judge(&text(&mixed), &heads);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.others, 10);
    let seen: Vec<_> =
        verdict.chains.iter().map(|c| (c.boot.as_str(), c.first, c.last, c.decisions, c.attested)).collect();
    assert_eq!(seen, [("a", 0, 6, 4, true), ("b", 0, 3, 2, true), ("c", 0, 9, 6, false)]);
    assert!(verdict.chains.iter().all(|chain| chain.interrupted.is_empty() && !chain.ended));
    assert_eq!(verdict.chains[1].continues.as_deref(), Some("a"));

    // Files of a rotation, the younger one first.
    let (old, new) = (text(&lines[..4]), text(&lines[4..]));
    let sources = [Source { name: "new", bytes: &new }, Source { name: "old", bytes: &old }];
    assert!(verify(&sources, &heads, Options::default(), sha256).holds());
}

#[test]
fn each_thing_that_is_done_to_a_log_has_its_name() {
    type Change = fn(&mut Vec<String>);
    let (lines, heads) = two(6, 3);
    let done: [(&str, Change, &[Fault]); 10] = [
        ("a line is taken out", |l| drop(l.remove(3)), &[Fault::Gap]),
        ("a line is doubled", |l| l.insert(3, l[2].clone()), &[Fault::Doubled]),
        ("two lines are swapped", |l| l.swap(2, 3), &[Fault::Reordered]),
        ("a line is changed", |l| l[2] = l[2].replace("Refuse", "Permit"), &[Fault::Changed]),
        ("the last line is changed", |l| l[10] = l[10].replace("200", "201"), &[Fault::Changed]),
        ("the last line is cut off", |l| drop(l.pop()), &[Fault::TruncatedTail]),
        ("the first boot loses its end", |l| drop(l.remove(6)), &[Fault::TruncatedTail]),
        ("the first boot loses its start", |l| drop(l.remove(0)), &[Fault::TruncatedHead]),
        (
            "the first boot is taken out",
            |l| drop(l.drain(..7)),
            &[Fault::TruncatedHead, Fault::TruncatedTail],
        ),
        (
            "a line is half",
            |l| l[10] = l[10].split_at(l[10].len() - 1).0.to_owned(),
            &[Fault::Unreadable, Fault::TruncatedTail],
        ),
    ];
    for (what, change, expected) in done {
        let mut changed = lines.clone();
        change(&mut changed);
        let found = faults(&judge(&text(&changed), &heads));
        assert!(expected.iter().all(|fault| found.contains(fault)), "{what}: {found:?}");
    }
}

#[test]
fn a_start_that_hides_what_came_before_it_is_found() {
    let (lines, _) = two(3, 3);
    let mut alone = lines[4..].to_vec();
    alone[0] = alone[0].replace(r#","previousBoot":"a","previousSequence":3"#, "");
    assert!(faults(&judge(&text(&alone), &[])).contains(&Fault::Changed));
    // And the beginning of one boot does not do for another.
    let other = start("x", None).replace(r#""boot":"x""#, r#""boot":"y""#);
    assert_eq!(faults(&judge(&text(&[other]), &[])), [Fault::Changed]);
}

#[test]
fn two_boots_that_continue_the_same_line_are_a_fork() {
    let (mut lines, _) = two(3, 3);
    lines.extend(boot("z", 2, Some(("a", 3, &lines[3].clone()))));
    assert_eq!(faults(&judge(&text(&lines), &[])), [Fault::Fork]);
}

#[test]
fn an_interrupted_intent_is_told_and_a_second_outcome_is_found() {
    let mut lines = vec![start("a", None)];
    for more in [intent(), intent(), json!({"intent": 1}), json!({"decision": "Refuse"})] {
        let (sequence, before) = (lines.len() as u64, lines.last().unwrap().clone());
        lines.push(line("a", sequence, &before, &more));
    }
    let verdict = judge(&text(&lines), &[]);
    assert!(verdict.holds(), "{:?}", verdict.findings);
    assert_eq!(verdict.chains[0].interrupted, [2]);
    for wrong in [1, 0, 4, 77] {
        let mut lines = lines.clone();
        let before = lines.last().unwrap().clone();
        lines.push(line("a", 5, &before, &json!({"intent": wrong})));
        assert_eq!(faults(&judge(&text(&lines), &[])), [Fault::Outcome], "{wrong}");
    }
}

#[test]
fn nothing_comes_after_a_clean_end() {
    let mut lines = boot("a", 2, None);
    for more in [json!({"schema": "behalf.dev/chain/v1", "kind": "End"}), json!({})] {
        let before = lines.last().unwrap().clone();
        lines.push(line("a", lines.len() as u64, &before, &more));
    }
    assert!(judge(&text(&lines[..4]), &[]).chains[0].ended);
    assert_eq!(faults(&judge(&text(&lines), &[])), [Fault::AfterEnd]);
}

#[test]
fn what_was_rotated_away_may_be_missing_where_that_is_said() {
    let (lines, heads) = two(6, 3);
    let partial = Options { partial: true };
    for from in 0..lines.len() {
        let bytes = text(&lines[from..]);
        let verdict = verify(&[Source { name: "log", bytes: &bytes }], &heads, partial, sha256);
        assert!(verdict.holds(), "{from}: {:?}", verdict.findings);
    }
    // Nothing else may.
    let bytes = text(&lines[2..10]);
    let verdict = verify(&[Source { name: "log", bytes: &bytes }], &heads, partial, sha256);
    assert_eq!(faults(&verdict), [Fault::TruncatedTail]);
}

#[test]
fn a_line_of_another_version_or_kind_is_not_passed_over() {
    for bad in [
        r#"{"schema":"behalf.dev/record/v2"}"#,
        r#"{"schema":"behalf.dev/chain/v1","kind":"Other","sequence":1,"boot":"a","previous":"","namespace":"","identity":""}"#,
        r#"{"schema":"behalf.dev/record/v1","kind":"Start","sequence":0,"boot":"a","previous":"","namespace":"","identity":""}"#,
        r#"{"schema":"behalf.dev/record/v1","sequence":1,"sequence":2}"#,
        r#"{"schema":"behalf.dev/record/v1""#,
    ] {
        assert!(read_line(bad.as_bytes()).is_err(), "{bad}");
    }
    for other in ["", "x", "{}", "[1]", r#"{"schema":"other"}"#, "\u{fffd}"] {
        assert!(matches!(read_line(other.as_bytes()), Ok(None)), "{other}");
    }
}

#[test]
fn nothing_in_a_text_ends_a_line_or_leaves_printable_ascii() {
    let forged = [
        "a\nb\r\n{\"schema\":\"behalf.dev/record/v1\"}",
        "\u{0}\u{1b}[2J\u{7f}\u{85}\u{9b}31m",
        "\u{2028}\u{2029}\u{202e}\u{feff}\u{200b}",
        "\"\\/\u{8}\u{c}\t",
        "ä🦀\u{10ffff}\u{fffe}",
        "\",\"decision\":\"Permit\",\"x\":\"",
    ];
    for text in forged {
        let line = write_line(&json!({"tool": text})).unwrap();
        assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)), "{text:?}");
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read, json!({"tool": text}));
    }
}

#[test]
fn a_text_is_cut_between_characters() {
    assert_eq!(bounded("salary.get"), "salary.get");
    assert_eq!(bounded(&"x".repeat(MAX_TEXT)), "x".repeat(MAX_TEXT));
    for text in ["x".repeat(100_000), "ä".repeat(1000), "🦀".repeat(1000), format!("x{}", "🦀".repeat(100))]
    {
        let cut = bounded(&text);
        assert!(
            cut.ends_with('…') && cut.len() <= MAX_TEXT + 3 && text.starts_with(cut.trim_end_matches('…'))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_changed_byte_is_found(first in 0_u64..9, second in 0_u64..9, at in any::<prop::sample::Index>(), by in 1_u8..=255) {
        let (lines, heads) = two(first, second);
        let mut bytes = text(&lines);
        prop_assert!(judge(&bytes, &heads).holds());
        // The last byte is the newline of a log that ends; without it the log is the same.
        let at = at.index(bytes.len() - 1);
        bytes[at] = bytes[at].wrapping_add(by);
        prop_assert!(!judge(&bytes, &heads).holds(), "byte {at}");
    }

    #[test]
    fn every_line_that_is_taken_out_doubled_or_moved_is_found(
        first in 0_u64..9, second in 0_u64..9, at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let (lines, heads) = two(first, second);
        let (at, to) = (at.index(lines.len()), to.index(lines.len()));
        let mut without = lines.clone();
        without.remove(at);
        prop_assert!(!judge(&text(&without), &heads).holds());
        let mut doubled = lines.clone();
        doubled.insert(to, lines[at].clone());
        prop_assert!(!judge(&text(&doubled), &heads).holds());
        // Boots may be mixed; lines of one boot may not.
        let mut swapped = lines.clone();
        swapped.swap(at, to);
        let boot = |n: usize| n > usize::try_from(first).unwrap();
        prop_assume!(at != to && boot(at) == boot(to));
        prop_assert!(!judge(&text(&swapped), &heads).holds());
    }

    #[test]
    fn any_text_comes_back_as_it_was(text in any::<String>()) {
        let line = write_line(&json!([text])).unwrap();
        prop_assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)));
        prop_assert_eq!(serde_json::from_slice::<Vec<String>>(&line).unwrap(), vec![text]);
    }
}
