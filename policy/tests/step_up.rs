//! What calls need beyond the scopes of their tool: by their arguments, and by how their caller logged in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::Bundle;
use behalf_policy::bundle::document::{Assurance, ConditionDocument, PolicyDocument, ScopeChallenge, Serve};
use behalf_policy::challenge;
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, decide, decide_downstream, shows_tool};
use behalf_policy::decision::{Decision, Reason, Refusal};
use support::*;

/// `salary.get` of somebody else needs `hr:salary:write` besides; of the board, to be in group `board`; of `root`, nobody.
fn conditioned() -> PolicyDocument {
    let mut document = policy_document();
    document.optional_scopes.extend(scopes(&["hr:salary:write"]));
    let condition = |row: &str, when: &str, needs: &[&str], of: &[&str]| ConditionDocument {
        name: name(row),
        when: when.to_owned(),
        scopes: scopes(needs),
        groups: groups(of),
    };
    let others = condition("others", "arguments.employee != caller.subject", &["hr:salary:write"], &[]);
    let board = condition("board", "arguments.employee.startsWith('board-')", &[], &["board"]);
    let never = condition("never", "arguments.employee == 'root'", &[], &[]);
    for tool in &mut document.servers[0].tools {
        if tool.name.as_str().starts_with("salary.get") || tool.name.as_str() == "salary.audit" {
            tool.conditions = vec![others.clone(), board.clone(), never.clone()];
        }
    }
    document
}

fn call(
    document: PolicyDocument,
    caller: &Caller,
    tool: &str,
    arguments: Option<&str>,
) -> Result<(), Refusal> {
    match decide(&bundle(document), caller, Operation::CallWith(tool, arguments), NOW) {
        Decision::Permit(_) => Ok(()),
        Decision::WouldDeny(refusal) | Decision::Refuse(refusal) => Err(refusal),
    }
}

const READS: [&str; 2] = ["hr:read", "hr:salary:read"];
const WRITES: [&str; 3] = ["hr:read", "hr:salary:read", "hr:salary:write"];

#[test]
fn a_condition_asks_for_further_scopes_in_the_same_one_challenge() {
    let own = Some(r#"{"employee":"alice"}"#);
    let bobs = Some(r#"{"employee":"bob"}"#);
    assert_eq!(call(conditioned(), &alice(&READS), "salary.get", own), Ok(()));
    assert_eq!(call(conditioned(), &alice(&WRITES), "salary.get", bobs), Ok(()));
    let refused = call(conditioned(), &alice(&READS), "salary.get", bobs).unwrap_err();
    assert_eq!(refused.reason, Reason::InsufficientScope);
    assert_eq!(refused.challenge, scopes(&WRITES), "a16: all of this operation");
    assert_eq!(refused.missing, scopes(&["hr:salary:write"]));
    let hidden = call(conditioned(), &alice(&READS), "salary.audit", bobs).unwrap_err();
    assert!(!hidden.explain && hidden.challenge.is_empty() && hidden.hidden_as == Reason::ToolUnknown);
}

#[test]
fn d32_what_no_step_up_could_give_is_refused_without_a_challenge() {
    let board = Some(r#"{"employee":"board-1"}"#);
    for presents in [&READS[..], &WRITES[..]] {
        let refused = call(conditioned(), &alice(presents), "salary.get", board).unwrap_err();
        assert_eq!(refused.reason, Reason::ArgumentsNotAllowed);
        assert!(refused.challenge.is_empty() && refused.log_in.is_none());
    }
    let member = caller("alice", &["managers", "staff", "board"], &WRITES);
    assert_eq!(call(conditioned(), &member, "salary.get", board), Ok(()));
    let root = call(conditioned(), &member, "salary.get", Some(r#"{"employee":"root"}"#)).unwrap_err();
    assert_eq!(root.reason, Reason::ArgumentsNotAllowed, "with neither scopes nor groups: nobody");
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let all = caller("alice", &["managers", "staff", "board"], &WRITES);
    let refused = [
        None,
        Some("{}"),
        Some(r#"{"employee":1}"#),
        Some(r#"{"employee":null}"#),
        Some(r#"{"employee":["alice"]}"#),
        Some(r#"{"Employee":"alice"}"#),
        Some(r#"{"employee":"alice","EMPLOYEE":"bob"}"#),
        Some(r#"{"employee":"alice","n":9007199254740993}"#),
    ];
    for arguments in refused {
        let refusal = call(conditioned(), &all, "salary.get", arguments).unwrap_err();
        assert_eq!(refusal.reason, Reason::ArgumentsNotJudged, "{arguments:?}");
        assert!(refusal.challenge.is_empty());
    }
    // A call of which the arguments were not kept is not one without arguments.
    let decision = decide(&bundle(conditioned()), &all, Operation::CallTool("salary.get"), NOW);
    assert_eq!(decision.refusal().unwrap().reason, Reason::ArgumentsNotJudged);
}

#[test]
fn a_list_shows_a_tool_with_conditions_to_those_who_have_its_scopes() {
    let loaded = bundle(conditioned());
    assert!(shows_tool(policy(&loaded), &alice(&READS), "salary.get"));
    assert!(!shows_tool(policy(&loaded), &bob(&READS), "salary.get"));
    assert!(!shows_tool(policy(&loaded), &bob(&READS), "salary.audit"));
}

#[test]
fn a_handle_is_judged_by_the_arguments_of_its_call_again() {
    let payroll = name("payroll");
    let own = Operation::CallWith("salary.get", Some(r#"{"employee":"alice"}"#));
    let bobs = Operation::CallWith("salary.get", Some(r#"{"employee":"bob"}"#));
    let of = |operation| decide_downstream(&bundle(conditioned()), &alice(&READS), operation, &payroll, NOW);
    assert!(matches!(of(own), Decision::Permit(_)));
    assert!(matches!(of(bobs), Decision::Refuse(_)));
    assert!(matches!(of(Operation::CallTool("salary.get")), Decision::Refuse(_)));
}

#[test]
fn a_bundle_whose_condition_cannot_be_read_is_not_loaded() {
    let mut broken = conditioned();
    broken.servers[0].tools[2].conditions[0].when = "arguments.employee ==".to_owned();
    let mut unknown = conditioned();
    unknown.servers[0].tools[2].conditions[0].scopes = scopes(&["no:such"]);
    let mut twice = conditioned();
    twice.servers[0].tools[2].conditions[1].name = name("others");
    for document in [broken, unknown, twice] {
        let refused = Bundle::load(support::document(document), "sha256:00".to_owned());
        assert_eq!(refused.unwrap_err().reason(), "BundleInvalid");
    }
    assert!(matches!(support::document(conditioned()).serve, Serve::Policy(_)));
}

fn assured(max_age: Option<u32>, acr_values: &[&str]) -> PolicyDocument {
    let mut document = policy_document();
    for scope in &mut document.scopes {
        if scope.name.as_str() == "hr:salary:read" {
            let acr_values = acr_values.iter().map(|acr| (*acr).to_owned()).collect();
            scope.assurance = Some(Assurance { max_age, acr_values });
        }
    }
    document
}

fn logged_in(seconds_ago: Option<i64>, acr: Option<&str>) -> Caller {
    let mut caller = alice(&READS);
    caller.login.at = seconds_ago.map(|ago| behalf_policy::ids::Timestamp(NOW.0 - ago));
    caller.login.acr = acr.map(str::to_owned);
    caller
}

#[test]
fn a17_a_login_that_is_too_old_or_too_weak_is_asked_for_again() {
    let good = [
        (assured(Some(900), &[]), logged_in(Some(899), None)),
        (assured(Some(900), &[]), logged_in(Some(-30), None)),
        (assured(None, &["gold", "silver"]), logged_in(None, Some("silver"))),
        (assured(Some(900), &["gold"]), logged_in(Some(0), Some("gold"))),
        (assured(None, &[]), logged_in(None, None)),
    ];
    for (document, caller) in good {
        assert_eq!(call(document, &caller, "salary.get", None), Ok(()), "{:?}", caller.login);
    }
    let bad = [
        (assured(Some(900), &[]), logged_in(Some(900), None)),
        (assured(Some(900), &[]), logged_in(None, None)),
        (assured(Some(900), &[]), logged_in(Some(-3600), None)),
        (assured(None, &["gold"]), logged_in(Some(0), None)),
        (assured(None, &["gold"]), logged_in(Some(0), Some("Gold"))),
        (assured(None, &["gold"]), logged_in(Some(0), Some("gold silver"))),
        (assured(Some(900), &["gold"]), logged_in(Some(901), Some("gold"))),
        (assured(Some(900), &["gold"]), logged_in(Some(1), Some("silver"))),
    ];
    for (document, caller) in bad {
        let refused = call(document.clone(), &caller, "salary.get", None).unwrap_err();
        assert_eq!(refused.reason, Reason::AuthenticationInsufficient, "{:?}", caller.login);
        assert!(refused.challenge.is_empty(), "no scope is asked for");
        let loaded = bundle(document);
        let challenge =
            challenge::insufficient_user_authentication(policy(&loaded), &refused.log_in.unwrap());
        assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
        assert!(
            challenge.contains("acr_values=\"gold") || challenge.contains("max_age=\"900\""),
            "{challenge}"
        );
        assert!(shows_tool(policy(&loaded), &caller, "salary.get"), "it can be had by logging in");
        // What uses no such scope asks nothing of the login.
        assert!(matches!(decide(&loaded, &caller, Operation::Protocol, NOW), Decision::Permit(_)));
        assert!(matches!(
            decide(&loaded, &caller, Operation::CallWith("directory.search", None), NOW),
            Decision::Permit(_)
        ));
    }
    let hidden = call(assured(Some(900), &[]), &logged_in(None, None), "salary.audit", None).unwrap_err();
    assert!(!hidden.explain && hidden.log_in.is_none(), "d35: a hidden tool is not told of by its challenge");
    let weak = call(assured(Some(900), &[]), &bob(&READS), "salary.get", None).unwrap_err();
    assert_eq!(weak.reason, Reason::NotEntitled, "d32: no login would help");
}

#[test]
fn a17_d32_logins_that_exclude_each_other_are_not_asked_for() {
    let mut document = assured(None, &["gold"]);
    for scope in &mut document.scopes {
        if scope.name.as_str() == "hr:read" {
            scope.assurance = Some(Assurance { max_age: None, acr_values: vec!["silver".to_owned()] });
        }
    }
    let refused = call(document, &logged_in(Some(0), Some("gold")), "salary.get", None).unwrap_err();
    assert_eq!((refused.reason, refused.log_in), (Reason::AuthenticationInsufficient, None));
}

#[test]
fn a16_a_challenge_names_the_scopes_of_the_operation_or_also_those_presented() {
    let presents = ["hr:read", "hr:leave:read", "openid"];
    let of = |style| {
        let mut document = policy_document();
        document.scope_challenge = style;
        call(document, &alice(&presents), "salary.get", None).unwrap_err().challenge
    };
    assert_eq!(of(ScopeChallenge::Operation), scopes(&["hr:read", "hr:salary:read"]));
    assert_eq!(of(ScopeChallenge::Cumulative), scopes(&["hr:read", "hr:leave:read", "hr:salary:read"]));
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A condition never widens: what is permitted with it was permitted without it.
        #[test]
        fn adding_a_condition_or_an_assurance_never_widens(
            when in prop::sample::select(vec![
                "arguments.employee != caller.subject", "arguments.employee == 'bob'", "has(arguments.x)",
                "!has(arguments.x)", "true", "false", "arguments.n > 3", "caller.kind == 'Workload'",
                "arguments.list.all(e, e == 1)",
            ]),
            further in prop::sample::subsequence(vec!["hr:salary:write", "hr:leave:read"], 0..=2),
            of in prop::sample::subsequence(vec!["board", "staff"], 0..=2),
            max_age in prop::option::of(1_u32..1000),
            ago in prop::option::of(0_i64..1000),
            presents in prop::sample::subsequence(vec!["hr:read", "hr:salary:read", "hr:salary:write", "hr:leave:read"], 0..=4),
            arguments in prop::option::of(prop::sample::select(vec![
                "{}", r#"{"employee":"bob"}"#, r#"{"employee":"alice","x":1}"#, r#"{"n":4}"#, r#"{"list":[1,2]}"#, "[]", "",
            ])),
            tool in prop::sample::select(vec!["salary.get", "salary.audit", "directory.search", "no.such"]),
        ) {
            let plain = policy_document();
            let mut more = assured(max_age, &[]);
            for row in &mut more.servers[0].tools {
                row.conditions.push(ConditionDocument {
                    name: name("more"), when: when.to_owned(), scopes: scopes(&further), groups: groups(&of),
                });
            }
            let mut caller = alice(&presents);
            caller.login.at = ago.map(|ago| behalf_policy::ids::Timestamp(NOW.0 - ago));
            if call(more, &caller, tool, arguments).is_ok() {
                prop_assert!(call(plain, &caller, tool, arguments).is_ok());
            }
        }
    }
}
