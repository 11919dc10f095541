//! What `decide` answers, case by case. Laws are in `laws.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::document::{CallerKind, PolicyDocument, RefuseAllReason, Serve};
use behalf_policy::bundle::{Bundle, Stage, State};
use behalf_policy::claims::{Actor, Caller};
use behalf_policy::decide::{Operation, decide, decide_downstream, shows_tool};
use behalf_policy::decision::{Decision, Permit, Reason, Refusal};
use behalf_policy::ids::{ClientId, Issuer, Subject, Timestamp};
use support::*;

const ALL: [&str; 4] = ["hr:read", "hr:leave:read", "hr:salary:read", "hr:salary:write"];

fn call(bundle: &Bundle, caller: &Caller, tool: &str) -> Decision {
    decide(bundle, caller, Operation::CallTool(tool), NOW)
}

fn permit(decision: Decision) -> Permit {
    match decision {
        Decision::Permit(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_permit_orders_exactly_what_the_row_says() {
    let permit =
        permit(call(&bundle(policy_document()), &alice(&["hr:read", "hr:salary:read"]), "salary.get"));
    let order = permit.order(&name("payroll")).unwrap();
    assert_eq!(order.scopes(), &scopes(&["payroll:read"]));
    assert_eq!(order.audience().as_str(), "payroll");
    assert_eq!(order.provider(), &name("corp"));
    assert_eq!(order.subject().as_str(), "alice");
    assert_eq!(order.subject_expires(), NOW.plus(300));
    assert_eq!(order.max_lifetime(), 300, "the narrower of downstream and provider");
    assert!(permit.order(&name("ledger")).is_none());
}

#[test]
fn protocol_methods_are_permitted_and_buy_nothing() {
    let permit =
        permit(decide(&bundle(policy_document()), &caller("carol", &[], &[]), Operation::Protocol, NOW));
    assert!(!permit.needs_handle());
    assert!(permit.order(&name("payroll")).is_none());
}

#[test]
fn a16_insufficient_scope_names_every_missing_scope() {
    let refusal = refusal(call(&bundle(policy_document()), &alice(&[]), "salary.get"));
    assert_eq!(refusal.reason, Reason::InsufficientScope);
    assert_eq!(refusal.challenge, scopes(&["hr:read", "hr:salary:read"]));
    assert_eq!(refusal.missing, scopes(&["hr:read", "hr:salary:read"]));
}

#[test]
fn a16_the_challenge_holds_all_scopes_of_the_operation_not_only_the_missing() {
    let refusal = refusal(call(&bundle(policy_document()), &alice(&["hr:read"]), "salary.get"));
    assert_eq!(refusal.challenge, scopes(&["hr:read", "hr:salary:read"]));
    assert_eq!(refusal.missing, scopes(&["hr:salary:read"]));
}

#[test]
fn d32_a_scope_that_no_group_of_the_caller_holds_is_refused_without_a_challenge() {
    for presents in [&["hr:read"][..], &ALL] {
        let refusal = refusal(call(&bundle(policy_document()), &bob(presents), "salary.get"));
        assert_eq!(refusal.reason, Reason::NotEntitled);
        assert!(refusal.challenge.is_empty());
    }
}

#[test]
fn d32_one_unobtainable_scope_among_obtainable_ones_gives_no_challenge() {
    let mut document = policy_document();
    document.servers[0].tools.push(tool(
        "mixed",
        &["hr:leave:read", "hr:salary:read"],
        behalf_policy::bundle::Denial::Explain,
        None,
    ));
    let refusal = refusal(call(&bundle(document), &bob(&["hr:read"]), "mixed"));
    assert_eq!((refusal.reason, refusal.challenge.len()), (Reason::NotEntitled, 0));
}

#[test]
fn a_scope_the_identity_does_not_offer_is_refused_even_when_held_and_presented() {
    let refusal = refusal(call(&bundle(policy_document()), &alice(&ALL), "salary.update"));
    assert_eq!(refusal.reason, Reason::ScopeNotOffered);
    assert!(refusal.challenge.is_empty());
}

#[test]
fn a_presented_scope_counts_only_if_a_group_holds_it() {
    let carol = caller("carol", &[], &ALL);
    for tool in ["directory.search", "leave.list", "salary.get", "salary.update"] {
        assert!(matches!(call(&bundle(policy_document()), &carol, tool), Decision::Refuse(_)), "{tool}");
    }
}

#[test]
fn a14_a_broader_scope_presents_what_it_implies_only_where_it_is_held() {
    let mut document = policy_document();
    document.required_scopes = scopes(&[]);
    document.optional_scopes = scopes(&["hr:salary:read"]);
    let b = bundle(document);
    permit(call(&b, &alice(&["hr:salary:write"]), "salary.get"));
    assert_eq!(refusal(call(&b, &bob(&["hr:salary:write"]), "salary.get")).reason, Reason::NotEntitled);
}

#[test]
fn d22_tool_names_are_exact() {
    let b = bundle(policy_document());
    let long = "x".repeat(4096);
    for tool in [
        "Salary.get",
        "salary.get ",
        "salary.get\0",
        "salary_get",
        "salary.ge",
        "salary.gett",
        "",
        long.as_str(),
    ] {
        assert_eq!(refusal(call(&b, &alice(&ALL), tool)).reason, Reason::ToolUnknown, "{tool:?}");
    }
}

#[test]
fn c14_a_method_without_a_rule_is_refused() {
    let refusal = refusal(decide(&bundle(policy_document()), &alice(&ALL), Operation::Other, NOW));
    assert_eq!(refusal.reason, Reason::MethodNotAllowed);
}

#[test]
fn hidden_tools_are_refused_like_unknown_ones() {
    let hidden = refusal(call(&bundle(policy_document()), &bob(&["hr:read"]), "salary.audit"));
    assert!(!hidden.explain && hidden.challenge.is_empty());
    let obtainable = refusal(call(&bundle(policy_document()), &alice(&["hr:read"]), "salary.audit"));
    assert!(!obtainable.explain && obtainable.challenge.is_empty());
}

#[test]
fn callers_are_told_apart_before_scopes_are_looked_at() {
    let b = bundle(policy_document());
    let mut workload = alice(&ALL);
    workload.kind = CallerKind::Workload;
    assert_eq!(refusal(call(&b, &workload, "salary.get")).reason, Reason::CallerKindNotAllowed);
    let mut other = alice(&ALL);
    other.client = Some(ClientId::new("agent-x").unwrap());
    assert_eq!(refusal(call(&b, &other, "salary.get")).reason, Reason::ClientNotAllowed);
    other.client = None;
    assert_eq!(refusal(call(&b, &other, "salary.get")).reason, Reason::ClientNotAllowed);
    let mut nobody = policy_document();
    nobody.callers.clients = Some([].into());
    assert_eq!(refusal(call(&bundle(nobody), &alice(&ALL), "salary.get")).reason, Reason::ClientNotAllowed);
    let mut anybody = policy_document();
    anybody.callers.clients = None;
    permit(call(&bundle(anybody), &alice(&ALL), "salary.get"));
    let mut deep = alice(&ALL);
    deep.actors = vec![actor("agent-ui", None), actor("agent-ui", None)];
    assert_eq!(refusal(call(&b, &deep, "salary.get")).reason, Reason::ActorChainTooDeep);
}

#[test]
fn b9_only_the_outermost_actor_feeds_the_decision() {
    let mut policy = policy_document();
    policy.callers.max_actor_depth = 3;
    let by = |policy: &PolicyDocument, actors: Vec<Actor>| {
        let mut caller = alice(&ALL);
        caller.actors = actors;
        call(&bundle(policy.clone()), &caller, "salary.get")
    };
    permit(by(&policy, vec![]));
    permit(by(&policy, vec![actor("agent-ui", None)]));
    permit(by(&policy, vec![actor("agent-ui", Some(ISSUER))]));
    permit(by(&policy, vec![actor("agent-ui", None), actor("stranger", None), actor("another", None)]));
    for refused in [
        vec![actor("stranger", None)],
        vec![actor("stranger", None), actor("agent-ui", None)],
        vec![actor("AGENT-UI", None)],
        // The same name at another issuer is another party.
        vec![actor("agent-ui", Some("https://elsewhere.example.com"))],
        // The client an actor is beats the subject it has.
        vec![Actor { client: Some(ClientId::new("stranger").unwrap()), ..actor("agent-ui", None) }],
    ] {
        let refusal = refusal(by(&policy, refused));
        assert_eq!(refusal.reason, Reason::ActorNotAllowed);
        assert!(refusal.challenge.is_empty(), "nothing that a scope would mend");
    }
    policy.callers.clients = None;
    permit(by(&policy, vec![actor("stranger", None)]));
    policy.callers.max_actor_depth = 0;
    let refused = refusal(by(&policy, vec![actor("agent-ui", None)]));
    assert_eq!(refused.reason, Reason::ActorChainTooDeep);
}

fn actor(subject: &str, issuer: Option<&str>) -> Actor {
    Actor {
        subject: Some(Subject::new(subject).unwrap()),
        issuer: issuer.map(|issuer| Issuer::new(issuer).unwrap()),
        client: None,
    }
}

#[test]
fn suspended_and_refuse_all_refuse_in_every_stage_and_for_every_operation() {
    let mut suspended = policy_document();
    suspended.state = State::Suspended;
    suspended.stage = Stage::Audit;
    let mut gone = document(policy_document());
    gone.serve = Serve::RefuseAll { reason: RefuseAllReason::IdentityDeleted };
    let gone = Bundle::load(gone, String::new()).unwrap();
    for operation in [Operation::Protocol, Operation::Other, Operation::CallTool("directory.search")] {
        assert_eq!(
            refusal(decide(&bundle(suspended.clone()), &alice(&ALL), operation, NOW)).reason,
            Reason::Suspended
        );
        assert_eq!(
            refusal(decide(&gone, &alice(&ALL), operation, NOW)).reason,
            Reason::RefuseAll(RefuseAllReason::IdentityDeleted)
        );
    }
}

#[test]
fn d11_an_expired_caller_stays_refused_as_time_grows() {
    let b = bundle(policy_document());
    for late in [300, 301, 86_400] {
        let decision = decide(&b, &alice(&ALL), Operation::CallTool("salary.get"), NOW.plus(late));
        assert_eq!(refusal(decision).reason, Reason::SubjectExpired);
    }
    let far = decide(&b, &alice(&ALL), Operation::Protocol, Timestamp(i64::MAX));
    assert_eq!(refusal(far).reason, Reason::SubjectExpired);
}

#[test]
fn audit_turns_policy_refusals_into_would_deny_and_never_into_a_permit() {
    let mut document = policy_document();
    document.stage = Stage::Audit;
    let b = bundle(document);
    for tool in ["salary.get", "salary.update", "nope"] {
        match call(&b, &bob(&["hr:read"]), tool) {
            Decision::WouldDeny(_) => {}
            other => panic!("{tool}: {other:?}"),
        }
    }
    permit(call(&b, &alice(&["hr:read", "hr:salary:read"]), "salary.get"));
}

#[test]
fn each_use_of_a_handle_is_decided_again_by_the_current_bundle() {
    let caller = alice(&["hr:read", "hr:salary:read"]);
    let operation = Operation::CallTool("salary.get");
    let payroll = name("payroll");
    permit(decide_downstream(&bundle(policy_document()), &caller, operation, &payroll, NOW));
    let other = decide_downstream(&bundle(policy_document()), &caller, operation, &name("ledger"), NOW);
    assert_eq!(refusal(other).reason, Reason::DownstreamNotPermitted);
    let mut narrowed = policy_document();
    narrowed.servers[0].tools[2].downstreams.clear();
    let gone = decide_downstream(&bundle(narrowed), &caller, operation, &payroll, NOW);
    assert_eq!(refusal(gone).reason, Reason::DownstreamNotPermitted);
    let mut audit = policy_document();
    audit.stage = Stage::Audit;
    let would = decide_downstream(&bundle(audit), &caller, operation, &name("ledger"), NOW);
    assert!(matches!(would, Decision::WouldDeny(r) if r.reason == Reason::DownstreamNotPermitted));
}

#[test]
fn a_token_of_one_provider_is_never_exchanged_at_another() {
    let mut document = policy_document();
    let mut second = document.providers[0].clone();
    second.name = name("partner");
    second.issuer = behalf_policy::ids::Issuer::new("https://partner.example.com").unwrap();
    document.providers.push(second);
    document.downstreams[0].provider = name("partner");
    let permit = permit(call(&bundle(document), &alice(&["hr:read", "hr:salary:read"]), "salary.get"));
    assert!(!permit.needs_handle());
}

#[test]
fn d35_lists_show_what_a_call_would_permit_or_a_step_up_could() {
    let b = bundle(policy_document());
    let p = policy(&b);
    let shown = |caller: &Caller| -> Vec<&str> {
        ["directory.search", "leave.list", "salary.get", "salary.audit", "salary.update", "nope"]
            .into_iter()
            .filter(|t| shows_tool(p, caller, t))
            .collect()
    };
    assert_eq!(shown(&alice(&["hr:read"])), ["directory.search", "leave.list", "salary.get"]);
    assert_eq!(shown(&bob(&["hr:read"])), ["directory.search", "leave.list"]);
    assert!(shown(&caller("carol", &[], &ALL)).is_empty());
}
