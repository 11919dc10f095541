//! Laws of `decide` and `Bundle::load`, over random policies and callers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::document::{PolicyDocument, ScopeDocument, ToolDocument};
use behalf_policy::bundle::{Bundle, Denial, Document, Stage};
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, counted_scopes, decide};
use behalf_policy::decision::Decision;
use behalf_policy::ids::ScopeSet;
use proptest::prelude::*;
use proptest::sample::subsequence;
use support::*;

const SCOPES: [&str; 5] = ["a", "b", "c", "d", "e"];
const GROUPS: [&str; 3] = ["g", "h", "i"];
const TOOLS: [&str; 4] = ["t0", "t1", "t2", "t3"];

fn some_scopes(min: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(SCOPES.to_vec(), min..=SCOPES.len())
}

fn some_groups() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(GROUPS.to_vec(), 0..=GROUPS.len())
}

fn scope_rows() -> impl Strategy<Value = Vec<ScopeDocument>> {
    proptest::collection::vec((some_groups(), some_scopes(0)), SCOPES.len())
        .prop_map(|rows| SCOPES.iter().zip(rows).map(|(s, (g, i))| scope(s, &g, &i)).collect())
}

fn tool_rows() -> impl Strategy<Value = Vec<ToolDocument>> {
    let row = (some_scopes(1), any::<bool>(), any::<bool>());
    proptest::collection::vec(row, TOOLS.len()).prop_map(|rows| {
        TOOLS
            .iter()
            .zip(rows)
            .map(|(t, (needs, hide, downstream))| {
                let denial = if hide { Denial::Hide } else { Denial::Explain };
                tool(t, &needs, denial, downstream.then_some(&["payroll:read"][..]))
            })
            .collect()
    })
}

fn documents() -> impl Strategy<Value = PolicyDocument> {
    (scope_rows(), tool_rows(), some_scopes(0), some_scopes(0), any::<bool>()).prop_map(
        |(rows, tools, required, optional, audit)| {
            let mut document = policy_document();
            document.scopes = rows;
            document.servers[0].tools = tools;
            document.required_scopes = scopes(&required);
            document.optional_scopes = scopes(&optional);
            document.stage = if audit { Stage::Audit } else { Stage::Enforce };
            document
        },
    )
}

fn callers() -> impl Strategy<Value = Caller> {
    (some_groups(), some_scopes(0)).prop_map(|(groups, presents)| caller("alice", &groups, &presents))
}

fn operations() -> impl Strategy<Value = String> {
    prop_oneof![4 => proptest::sample::select(TOOLS.to_vec()).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn permitted(bundle: &Bundle, caller: &Caller, tool: &str) -> bool {
    matches!(decide(bundle, caller, Operation::CallTool(tool), NOW), Decision::Permit(_))
}

/// The meaning in one line per clause, without any of the machinery.
fn naive(document: &PolicyDocument, caller: &Caller, tool: &str) -> bool {
    let Some(row) = document.servers[0].tools.iter().find(|t| t.name.as_str() == tool) else { return false };
    let held: ScopeSet = document
        .scopes
        .iter()
        .filter(|s| s.groups.iter().any(|g| caller.groups.contains(g)))
        .map(|s| s.name.clone())
        .collect();
    let mut counted: ScopeSet = caller.scopes.intersection(&held).cloned().collect();
    loop {
        let more: ScopeSet = document
            .scopes
            .iter()
            .filter(|s| counted.contains(&s.name))
            .flat_map(|s| s.implies.iter().filter(|i| held.contains(*i)).cloned())
            .collect();
        let before = counted.len();
        counted.extend(more);
        if counted.len() == before {
            break;
        }
    }
    row.scopes.iter().chain(&document.required_scopes).all(|s| {
        counted.contains(s) && (document.required_scopes.contains(s) || document.optional_scopes.contains(s))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decide_equals_the_naive_meaning(document in documents(), caller in callers(), tool in operations()) {
        let bundle = bundle(document.clone());
        prop_assert_eq!(permitted(&bundle, &caller, &tool), naive(&document, &caller, &tool));
    }

    #[test]
    fn a_tool_without_a_row_is_never_permitted(document in documents(), caller in callers(), tool in "[x-z]{1,8}") {
        prop_assert!(!permitted(&bundle(document), &caller, &tool));
    }

    #[test]
    fn removing_a_group_or_a_presented_scope_never_permits(
        document in documents(), caller in callers(), tool in operations(), pick in any::<prop::sample::Index>()
    ) {
        let bundle = bundle(document);
        let before = permitted(&bundle, &caller, &tool);
        let mut less = caller.clone();
        if let Some(group) = caller.groups.iter().nth(pick.index(caller.groups.len().max(1))) {
            less.groups.remove(group);
        }
        prop_assert!(before || !permitted(&bundle, &less, &tool));
        let mut less = caller.clone();
        if let Some(scope) = caller.scopes.iter().nth(pick.index(caller.scopes.len().max(1))) {
            less.scopes.remove(scope);
        }
        prop_assert!(before || !permitted(&bundle, &less, &tool));
    }

    #[test]
    fn removing_a_holder_a_row_or_an_offer_never_permits(
        document in documents(), caller in callers(), tool in operations(), pick in any::<prop::sample::Index>()
    ) {
        let before = permitted(&bundle(document.clone()), &caller, &tool);
        let mut holder = document.clone();
        let row = pick.index(holder.scopes.len());
        holder.scopes[row].groups.clear();
        prop_assert!(before || !permitted(&bundle(holder), &caller, &tool));
        let mut implied = document.clone();
        implied.scopes[row].implies.clear();
        prop_assert!(before || !permitted(&bundle(implied), &caller, &tool));
        let mut offer = document.clone();
        offer.optional_scopes.clear();
        prop_assert!(before || !permitted(&bundle(offer), &caller, &tool));
        let mut rows = document;
        let row = pick.index(rows.servers[0].tools.len());
        rows.servers[0].tools.remove(row);
        prop_assert!(before || !permitted(&bundle(rows), &caller, &tool));
    }

    #[test]
    fn adding_a_needed_or_required_scope_never_permits(
        document in documents(), caller in callers(), tool in operations(), more in some_scopes(1)
    ) {
        let before = permitted(&bundle(document.clone()), &caller, &tool);
        let mut stricter = document.clone();
        for row in &mut stricter.servers[0].tools {
            row.scopes.extend(scopes(&more));
        }
        prop_assert!(before || !permitted(&bundle(stricter), &caller, &tool));
        let mut required = document;
        // What is required is offered too; taking it from the optional ones keeps the offer as it was.
        let already: ScopeSet = scopes(&more).intersection(&required.optional_scopes).cloned().collect();
        required.required_scopes.extend(already);
        prop_assert!(before || !permitted(&bundle(required), &caller, &tool));
    }

    #[test]
    fn what_is_ordered_is_what_the_catalogue_says_and_never_an_inbound_scope(
        document in documents(), caller in callers(), tool in operations()
    ) {
        let b = bundle(document);
        if let Decision::Permit(permit) = decide(&b, &caller, Operation::CallTool(&tool), NOW)
            && let Some(order) = permit.order(&name("payroll"))
        {
            let row = &policy(&b).server.tools[tool.as_str()];
            prop_assert_eq!(order.scopes(), &row.downstreams[&name("payroll")]);
            prop_assert_eq!(order.audience().as_str(), "payroll");
            prop_assert!(order.scopes().is_disjoint(&caller.scopes));
            prop_assert!(order.max_lifetime() <= 300);
        }
    }

    #[test]
    fn only_stage_audit_says_would_deny_and_it_permits_nothing_more(
        document in documents(), caller in callers(), tool in operations()
    ) {
        let mut enforce = document.clone();
        enforce.stage = Stage::Enforce;
        let mut audit = document;
        audit.stage = Stage::Audit;
        let (audit, enforce) = (bundle(audit), bundle(enforce));
        prop_assert_eq!(permitted(&audit, &caller, &tool), permitted(&enforce, &caller, &tool));
        let decision = decide(&enforce, &caller, Operation::CallTool(&tool), NOW);
        prop_assert!(!matches!(decision, Decision::WouldDeny(_)));
    }

    #[test]
    fn the_order_of_rows_is_irrelevant(document in documents(), caller in callers(), tool in operations()) {
        let mut turned = document.clone();
        turned.scopes.reverse();
        turned.servers[0].tools.reverse();
        prop_assert_eq!(&bundle(document.clone()).serve, &bundle(turned.clone()).serve);
        prop_assert_eq!(permitted(&bundle(document), &caller, &tool), permitted(&bundle(turned), &caller, &tool));
    }

    #[test]
    fn counted_scopes_are_held_and_in_the_catalogue(document in documents(), caller in callers()) {
        let bundle = bundle(document);
        let p = policy(&bundle);
        for scope in counted_scopes(p, &caller) {
            prop_assert!(p.scopes[&scope].groups.iter().any(|g| caller.groups.contains(g)));
        }
    }

    #[test]
    fn print_then_parse_gives_the_same_document(policy in documents()) {
        let document = document(policy);
        let text = serde_json::to_vec(&document).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Document>(&text).unwrap(), document);
    }
}
