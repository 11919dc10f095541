//! The namespace's deny list: what it refuses, that what cannot be read refuses everything, and that it never permits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::{Bundle, Stage, State};
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, decide, decide_downstream, decide_unknown_caller};
use behalf_policy::decision::{Decision, Reason};
use behalf_policy::deny::{DenyList, EVERYONE, MAX_BYTES};
use behalf_policy::ids::EntryName;
use proptest::prelude::*;
use support::*;

const TOOLS: [&str; 4] = ["directory.search", "leave.list", "salary.get", "salary.update"];

fn denying(stage: Stage, values: &[&[u8]]) -> Bundle {
    let mut document = policy_document();
    document.stage = stage;
    let mut bundle = bundle(document);
    bundle.deny = values.iter().fold(DenyList::default(), |list, value| list.and(value));
    bundle
}

fn everyone() -> [Caller; 2] {
    let presents = ["hr:read", "hr:leave:read", "hr:salary:read"];
    [alice(&presents), bob(&presents)]
}

fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Refuse(refusal) => Some(refusal.reason),
        _ => None,
    }
}

#[test]
fn each_line_refuses_what_it_names_and_nothing_else() {
    let [alice, bob] = everyone();
    for stage in [Stage::Enforce, Stage::Audit] {
        let is_denied = |list: &str, caller: &Caller, tool: &str| {
            let bundle = denying(stage, &[list.as_bytes()]);
            let operation = Operation::CallTool(tool);
            let denied = reason(&decide(&bundle, caller, operation, NOW)) == Some(Reason::DeniedByNamespace);
            let again = decide_downstream(&bundle, caller, operation, &name("payroll"), NOW);
            assert!(!denied || reason(&again) == Some(Reason::DeniedByNamespace), "{list}");
            denied
        };
        for (list, caller, tool, denied) in [
            ("*", &alice, "salary.get", true),
            ("# why\n\n  *  ", &bob, "directory.search", true),
            ("tool salary.get", &alice, "salary.get", true),
            ("tool\tsalary.get\r\ntool leave.list", &alice, "leave.list", true),
            ("tool salary.get", &alice, "directory.search", false),
            ("tool salary", &alice, "salary.get", false),
            ("subject alice", &alice, "directory.search", true),
            ("subject alice", &bob, "directory.search", false),
            ("subject Alice", &alice, "directory.search", false),
            ("downstream payroll", &alice, "directory.search", false),
            ("# tool salary.get", &alice, "salary.get", false),
            ("", &alice, "salary.get", false),
        ] {
            assert_eq!(is_denied(list, caller, tool), denied, "{list:?} {tool}");
        }
    }
}

#[test]
fn a_denied_downstream_is_refused_whatever_the_stage() {
    let [alice, _] = everyone();
    for (list, refused) in [
        ("downstream payroll", true),
        ("*", true),
        ("nonsense", true),
        ("downstream other", false),
        ("tool leave.list", false),
    ] {
        for stage in [Stage::Enforce, Stage::Audit] {
            let bundle = denying(stage, &[list.as_bytes()]);
            assert_eq!(bundle.deny.refuses_downstream(&name("payroll")), refused, "{list}");
            let decided =
                decide_downstream(&bundle, &alice, Operation::CallTool("salary.get"), &name("payroll"), NOW);
            assert_eq!(reason(&decided).is_some(), refused, "{list}");
        }
    }
}

#[test]
fn what_cannot_be_read_refuses_everything() {
    let long = vec![b'#'; MAX_BYTES + 1];
    let bad: [&[u8]; 12] = [
        b"tool",
        b"tool ",
        b"tool a b",
        b"tool salary/get",
        b"subject",
        b"downstream Payroll",
        b"downstream payroll # why",
        b"* # why",
        b"allow salary.get",
        b"TOOL salary.get",
        b"\xff",
        &long,
    ];
    for value in bad {
        // Whatever else is listed, before or after.
        for values in [vec![value], vec![b"tool leave.list".as_slice(), value], vec![value, b""]] {
            let bundle = denying(Stage::Audit, &values);
            assert!(bundle.deny.is_unreadable() && !bundle.deny.is_empty());
            for caller in everyone() {
                for tool in TOOLS {
                    let decided = decide(&bundle, &caller, Operation::CallTool(tool), NOW);
                    assert_eq!(reason(&decided), Some(Reason::DeniedByNamespace), "{value:?}");
                }
            }
            assert!(decide_unknown_caller(&bundle, Operation::Protocol).is_err());
        }
    }
    assert!(DenyList::default().and_unreadable().refuses_anyone(|| None));
}

#[test]
fn a_request_of_nobody_known_is_held_to_suspension_and_deny_list() {
    let operation = Operation::CallTool("salary.get");
    let refused = |bundle: &Bundle| decide_unknown_caller(bundle, operation).map_err(|r| r.reason);
    assert_eq!(refused(&denying(Stage::Audit, &[])), Ok(()));
    assert_eq!(refused(&denying(Stage::Audit, &[b"subject alice\ntool leave.list"])), Ok(()));
    assert_eq!(refused(&denying(Stage::Audit, &[b"tool salary.get"])), Err(Reason::DeniedByNamespace));
    assert_eq!(refused(&denying(Stage::Audit, &[b"*"])), Err(Reason::DeniedByNamespace));
    let mut suspended = policy_document();
    suspended.state = State::Suspended;
    assert_eq!(refused(&bundle(suspended)), Err(Reason::Suspended));
}

#[test]
fn the_list_is_told_in_numbers() {
    let list = DenyList::default().and(b"tool salary.get\nsubject alice\nsubject bob\ntool salary.get");
    assert_eq!(list.to_string(), "tools 1, subjects 2, downstreams 0");
    assert_eq!(list.len(), 3);
    assert_eq!(list.clone().and(b"*").to_string(), "everything");
    assert_eq!(list.and_unreadable().to_string(), "everything (the list cannot be read)");
    assert!(DenyList::default().is_empty());
    assert!(EntryName::new(EVERYONE).is_err(), "no identity has the name that stands for all");
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        1 => Just("*".to_owned()),
        4 => proptest::sample::select(TOOLS.to_vec()).prop_map(|tool| format!("tool {tool}")),
        3 => proptest::sample::select(vec!["alice", "bob", "carol"]).prop_map(|who| format!("subject {who}")),
        2 => Just("downstream payroll".to_owned()),
        2 => Just("# nothing".to_owned()),
        1 => ".{0,12}",
    ];
    proptest::collection::vec(line, 0..4).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_denial_never_permits(
        before in lines(), added in lines(), audit in any::<bool>(), tool in proptest::sample::select(TOOLS.to_vec())
    ) {
        let stage = if audit { Stage::Audit } else { Stage::Enforce };
        let less = denying(stage, &[before.as_bytes()]);
        let more = denying(stage, &[before.as_bytes(), added.as_bytes()]);
        for caller in everyone() {
            for operation in [Operation::CallTool(tool), Operation::Protocol] {
                for decided in [
                    |b: &Bundle, c: &Caller, o| decide(b, c, o, NOW),
                    |b: &Bundle, c: &Caller, o| decide_downstream(b, c, o, &name("payroll"), NOW),
                ] {
                    let (less, more) = (decided(&less, &caller, operation), decided(&more, &caller, operation));
                    // It refuses more, or it changes nothing at all.
                    prop_assert!(reason(&more).is_some() || less == more);
                }
            }
        }
        prop_assert!(decide_unknown_caller(&more, Operation::CallTool(tool)).is_err()
            || decide_unknown_caller(&less, Operation::CallTool(tool)).is_ok());
    }

    #[test]
    fn any_bytes_are_a_list_and_those_that_are_none_refuse_all(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let list = DenyList::default().and(&bytes);
        prop_assert!(!list.is_unreadable() || list.refuses_anyone(|| None));
    }
}
