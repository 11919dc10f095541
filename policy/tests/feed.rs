//! Reports of a sidecar: closed, bounded, all or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

use behalf_policy::feed::{
    Answer, CertificateConcern, CertificateReason, MAX_LISTENERS, MAX_PROVIDERS, MAX_REPORT_BYTES,
    MAX_SCOPES, MAX_TALLIES, ProofKey, Report, ReportError, is_challenge, proof_message,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn report() -> Value {
    json!({
        "format": 1,
        "boot": "AAAAAAAAAAAAAAAAAAAA_-",
        "sequence": 7,
        "ended": false,
        "bundle": {"digest": format!("sha256:{}", "0a".repeat(32)), "serial": 3},
        "rejected": "BundleSerialWentBack",
        "squatted": [15101],
        "listeners": [{"protocol": "TCP", "port": 8000}, {"protocol": "SCTP", "port": 1}],
        "moreListeners": false,
        "credentialsMissing": ["corp"],
        "decisions": {
            "allowed": 5, "denied": 2, "wouldDeny": 0,
            "tallies": [
                {"tool": "salary.get", "verdict": "Denied", "reason": "NotEntitled", "count": 1},
                {"verdict": "Denied", "reason": "NoCredentials", "count": 1},
            ],
        },
        "scopesUsed": {"hr:read": 1_800_000_000},
        "proofKey": "A".repeat(43),
    })
}

fn parse(report: &Value) -> Result<Report, ReportError> {
    Report::parse(report.to_string().as_bytes())
}

fn changed(pointer: &str, value: Value) -> Result<Report, ReportError> {
    let mut report = report();
    *report.pointer_mut(pointer).unwrap() = value;
    parse(&report)
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let read = parse(&report()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), report());
    assert_eq!(Report::parse(&serde_json::to_vec(&read).unwrap()).unwrap(), read);
    let mut bare = report();
    for none in ["bundle", "rejected"] {
        bare[none] = Value::Null;
    }
    assert!(parse(&bare).is_ok());
}

#[test]
fn of_a_certificate_only_closed_words_are_said_and_nothing_by_default() {
    assert!(parse(&report()).unwrap().certificate.is_none());
    assert!(!serde_json::to_string(&parse(&report()).unwrap()).unwrap().contains("certificate"));
    let with = |said: Value| {
        let mut report = report();
        report["certificate"] = said;
        parse(&report)
    };
    for reason in CertificateReason::ALL {
        for served in ["Nothing", "LastGood", "Ended"] {
            let said = json!({"reason": reason.as_str(), "served": served});
            let read: CertificateConcern = with(said.clone()).unwrap().certificate.unwrap();
            assert_eq!((read.reason, serde_json::to_value(read).unwrap()), (reason, said));
        }
    }
    for wrong in [
        json!({"reason": "CertificateMissing"}),
        json!({"served": "Nothing"}),
        json!({"reason": "Missing", "served": "Nothing"}),
        json!({"reason": "what a caller writes", "served": "Nothing"}),
        json!({"reason": "CertificateMissing", "served": "Plain"}),
        json!({"reason": "CertificateMissing", "served": "Nothing", "subject": "CN=x"}),
        json!([{"reason": "CertificateMissing", "served": "Nothing"}]),
        json!("CertificateMissing"),
        json!(true),
    ] {
        assert_eq!(with(wrong.clone()), Err(ReportError::Malformed), "{wrong}");
    }
}

#[test]
fn an_unknown_member_is_refused_wherever_it_stands() {
    for pointer in ["", "/bundle", "/listeners/0", "/decisions", "/decisions/tallies/0"] {
        let mut report = report();
        report.pointer_mut(pointer).unwrap()["extra"] = 1.into();
        assert_eq!(parse(&report), Err(ReportError::Malformed), "{pointer}");
    }
    for missing in ["boot", "sequence", "ended", "squatted", "decisions", "scopesUsed", "proofKey"] {
        let mut report = report();
        report.as_object_mut().unwrap().remove(missing);
        assert_eq!(parse(&report), Err(ReportError::Malformed), "{missing}");
    }
    assert!(serde_json::from_str::<Answer>(r#"{"format":1,"extra":1}"#).is_err());
    assert!(serde_json::from_str::<Answer>(r#"{"format":1}"#).unwrap().bundle.is_none());
}

#[test]
fn what_goes_beyond_a_bound_is_refused_and_named() {
    let tally = |at: usize| json!({"tool": format!("t{at}"), "verdict": "Denied", "reason": "X", "count": 1});
    let scopes: serde_json::Map<_, _> = (0..=MAX_SCOPES).map(|at| (format!("s{at}"), json!(1))).collect();
    let digest = |hex: &str| json!({"digest": format!("sha256:{hex}"), "serial": 1});
    for (pointer, value, named) in [
        ("/boot", json!("short"), "boot"),
        ("/boot", json!("AAAAAAAAAAAAAAAAAAAAA."), "boot"),
        ("/sequence", json!(0), "sequence"),
        ("/bundle", digest(&"0A".repeat(32)), "bundle"),
        ("/bundle", digest("00"), "bundle"),
        ("/rejected", json!("a reason of a caller's"), "rejected"),
        ("/rejected", json!("lower"), "rejected"),
        ("/rejected", json!("X".repeat(65)), "rejected"),
        ("/rejected", json!(""), "rejected"),
        ("/squatted", json!([1, 2, 3, 4, 5]), "squatted"),
        (
            "/listeners",
            (0..=MAX_LISTENERS).map(|port| json!({"protocol": "TCP", "port": port})).collect(),
            "listeners",
        ),
        (
            "/credentialsMissing",
            (0..=MAX_PROVIDERS).map(|at| json!(format!("p{at}"))).collect(),
            "credentialsMissing",
        ),
        ("/decisions/tallies", (0..=MAX_TALLIES).map(tally).collect(), "tallies"),
        ("/decisions/tallies/0/reason", json!("<script>"), "tallies"),
        ("/scopesUsed", scopes.into(), "scopesUsed"),
        ("/proofKey", json!("A".repeat(42)), "proofKey"),
    ] {
        let refused = changed(pointer, value).unwrap_err();
        assert_eq!(refused, ReportError::Bounds(named), "{pointer}");
        assert_eq!(refused.reason(), "ReportOutOfBounds");
    }
    for (pointer, value) in [
        ("/listeners/0/protocol", json!("tcp")),
        ("/listeners/0/port", json!(65_536)),
        ("/decisions/tallies/0/verdict", json!("Permit")),
        ("/decisions/tallies/0/tool", json!("a tool of a caller's")),
        ("/decisions/allowed", json!(-1)),
        ("/sequence", json!("7")),
        ("/credentialsMissing", json!(["Corp"])),
    ] {
        assert_eq!(changed(pointer, value), Err(ReportError::Malformed), "{pointer}");
    }
    assert_eq!(changed("/format", json!(2)), Err(ReportError::Format));
    let mut large = report().to_string().into_bytes();
    large.resize(MAX_REPORT_BYTES + 1, b' ');
    assert_eq!(Report::parse(&large), Err(ReportError::TooLarge));
    large.truncate(MAX_REPORT_BYTES);
    assert!(Report::parse(&large).is_ok());
}

#[test]
fn the_largest_report_within_bounds_is_no_larger_than_a_report_may_be() {
    let mut report = report();
    let tool = |at: usize| format!("{at:0>128}");
    let tally = |at: usize| {
        let (tool, reason) = (tool(at), "X".repeat(64));
        json!({"tool": tool, "verdict": "WouldDeny", "reason": reason, "count": u64::MAX})
    };
    report["decisions"]["tallies"] = (0..MAX_TALLIES).map(tally).collect();
    let scopes: serde_json::Map<_, _> = (0..MAX_SCOPES).map(|at| (tool(at), json!(i64::MAX))).collect();
    report["scopesUsed"] = scopes.into();
    report["listeners"] =
        (0..MAX_LISTENERS).map(|at| json!({"protocol": "SCTP", "port": 65_535 - at})).collect();
    report["credentialsMissing"] = (0..MAX_PROVIDERS).map(|at| json!(format!("{at:0>63}"))).collect();
    assert!(parse(&report).is_ok());
}

#[test]
fn a_proof_is_about_one_challenge_and_one_asker() {
    let v4 = "10.0.0.1".parse().unwrap();
    let message = proof_message("AAAAAAAAAAAAAAAAAAAAAA", v4, 4711);
    assert_eq!(message, b"behalf.dev/challenge/v1\nAAAAAAAAAAAAAAAAAAAAAA\n10.0.0.1\n4711");
    assert_eq!(message, proof_message("AAAAAAAAAAAAAAAAAAAAAA", "::ffff:10.0.0.1".parse().unwrap(), 4711));
    for (challenge, asker, port) in [
        ("BAAAAAAAAAAAAAAAAAAAAA", "10.0.0.1", 4711),
        ("AAAAAAAAAAAAAAAAAAAAAA", "10.0.0.2", 4711),
        ("AAAAAAAAAAAAAAAAAAAAAA", "::1", 4711),
        ("AAAAAAAAAAAAAAAAAAAAAA", "10.0.0.1", 4712),
    ] {
        assert_ne!(message, proof_message(challenge, asker.parse().unwrap(), port));
    }
    assert!(is_challenge("AAAAAAAAAAAAAAAAAAAA-_"));
    for none in [
        "",
        "AAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAA\n\n",
        "ÄAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert!(!is_challenge(none), "{none:?}");
    }
    assert!(!format!("{:?}", ProofKey::new("secret".to_owned())).contains("secret"));
}

proptest! {
    #[test]
    fn any_bytes_are_a_report_within_bounds_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Report::parse(&bytes).is_err());
    }
}
