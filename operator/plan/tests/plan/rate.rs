//! Rate limits of an identity, in its bundle.

use behalf_crds::v1alpha1::{AcceptedReason, AgentIdentity, ResolvedRefsReason};
use behalf_plan::compile::narrow;
use behalf_policy::bundle::RefuseAllReason;
use behalf_policy::bundle::document::PolicyDocument;
use behalf_policy::rate::{Per, RateLimit};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{
    catalog_value, gathered_with, identity_value, object, plan, provider_value, refused, written,
};
use crate::random;

fn with(limits: Value) -> Value {
    let mut identity = identity_value();
    identity["spec"]["rateLimits"] = limits;
    identity
}

fn planned(limits: Value) -> behalf_plan::Desired {
    planned_of(limits, catalog_value())
}

fn planned_of(limits: Value, catalog: Value) -> behalf_plan::Desired {
    plan(&gathered_with(with(limits), catalog, provider_value("corp")))
}

#[test]
fn a_limit_is_compiled_as_it_is_said_and_its_period_never_shrinks() {
    assert!(written(&planned(json!([]))).rate_limits.is_empty());
    let limits = written(&planned(json!([
        {"name": "odd", "per": "Tool", "requests": 5, "period": "1s1ms", "tools": ["salary.get"]},
        {"name": "burst", "per": "Subject", "requests": 60, "period": "1m"},
        {"name": "agents", "per": "Agent", "requests": 1_000_000, "period": "24h"},
        {"name": "all", "per": "Identity", "requests": 1, "period": "1s"},
    ])))
    .rate_limits;
    let told: Vec<_> = limits.iter().map(|it| (it.name.as_str(), it.per, it.requests, it.period)).collect();
    assert_eq!(
        told,
        [
            ("agents", Per::Agent, 1_000_000, 86_400),
            ("all", Per::Identity, 1, 1),
            ("burst", Per::Subject, 60, 60),
            ("odd", Per::Tool, 5, 2),
        ]
    );
    assert_eq!(
        limits[3].tools.iter().map(behalf_policy::ids::ToolName::as_str).collect::<Vec<_>>(),
        ["salary.get"]
    );
}

#[test]
fn a_limit_that_cannot_be_counted_is_refused_with_what_to_change() {
    let limit = |member: &str, value: Value| {
        let mut limit = json!({"name": "a", "per": "Subject", "requests": 1, "period": "1s"});
        limit[member] = value;
        limit
    };
    for (limits, says) in [
        (json!([limit("requests", json!(0))]), "Set requests"),
        (json!([limit("requests", json!(-1))]), "Set requests"),
        (json!([limit("requests", json!(1_000_001))]), "Set requests"),
        (json!([limit("period", json!("0s"))]), "period to 1s"),
        (json!([limit("period", json!("24h1ms"))]), "period to 1s"),
        (json!([limit("name", json!("A b"))]), "spec.rateLimits"),
        (json!([limit("requests", json!(1)), limit("requests", json!(2))]), "a is twice in spec.rateLimits"),
    ] {
        let desired = planned(limits.clone());
        assert_eq!(desired.accepted.reason, AcceptedReason::Invalid, "{limits}");
        assert!(desired.accepted.message.contains(says), "{}", desired.accepted.message);
        assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted), "{limits}");
    }
}

#[test]
fn a_limit_of_a_tool_that_the_server_does_not_have_is_refused_with_both_names() {
    let of = |tools: Value| {
        json!([{"name": "all", "per": "Identity", "requests": 1, "period": "1s"},
        {"name": "burst", "per": "Subject", "requests": 1, "period": "1s", "tools": tools}])
    };
    let mut catalog = catalog_value();
    let sets = catalog["spec"]["toolSets"].as_array_mut().unwrap();
    let mut other = sets[0].clone();
    other["name"] = "other".into();
    other["tools"][0]["name"] = "other.tool".into();
    sets.push(other);
    for (tools, unknown) in [
        (json!(["salary.gte"]), "salary.gte"),
        (json!(["Salary.get"]), "Salary.get"),
        (json!(["salary.get", "salary"]), "salary"),
        (json!(["a b"]), "a b"),
        (json!(["*"]), "*"),
        // Of another server's set.
        (json!(["other.tool"]), "other.tool"),
    ] {
        let desired = planned_of(of(tools.clone()), catalog.clone());
        assert_eq!(desired.accepted.reason, AcceptedReason::UnknownTool, "{tools}");
        assert_eq!(desired.resolved_refs.reason, ResolvedRefsReason::ToolNotFound, "{tools}");
        let says = format!("Rate limit burst counts calls of {unknown}, which tool set");
        assert!(desired.accepted.message.contains(&says), "{}", desired.accepted.message);
        assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted), "{tools}");
    }
    for tools in [json!([]), json!(["salary.get"]), json!(["directory.search", "salary.get"])] {
        assert!(planned_of(of(tools.clone()), catalog.clone()).accepted.is_true(), "{tools}");
    }
    // A tool that the catalogue no longer has is one that it does not have.
    catalog["spec"]["toolSets"][0]["tools"]
        .as_array_mut()
        .unwrap()
        .retain(|tool| tool["name"] != "salary.get");
    let desired = planned_of(of(json!(["salary.get"])), catalog);
    assert_eq!(desired.accepted.reason, AcceptedReason::UnknownTool, "{}", desired.accepted.message);
}

/// Whether everything that the wider list refuses, the tighter one refuses as well.
fn no_wider(tight: &[RateLimit], wide: &[RateLimit]) -> bool {
    wide.iter().all(|wide| {
        tight.iter().any(|tight| {
            (&tight.name, tight.per, tight.period, &tight.tools)
                == (&wide.name, wide.per, wide.period, &wide.tools)
                && tight.requests <= wide.requests
        })
    })
}

fn kept(last: &PolicyDocument, now: Value) -> Vec<RateLimit> {
    narrow(last, &object::<AgentIdentity>(now)).rate_limits
}

#[test]
fn a_kept_bundle_takes_up_every_tightening_and_no_widening() {
    let limit = |name: &str, requests: u32| json!({"name": name, "per": "Subject", "requests": requests, "period": "1m"});
    let last = written(&planned(json!([limit("a", 10)])));
    let sizes = |limits: Value| -> Vec<_> {
        let kept = kept(&last, with(limits));
        kept.into_iter().map(|it| (it.name.to_string(), it.requests)).collect()
    };
    for (limits, expected) in [
        (json!([limit("a", 3)]), vec![("a", 3)]),
        (json!([limit("a", 30)]), vec![("a", 10)]),
        (json!([]), vec![("a", 10)]),
        (json!([limit("b", 5)]), vec![("a", 10), ("b", 5)]),
        (json!([{"name": "a", "per": "Tool", "requests": 1, "period": "1m"}]), vec![("a", 10)]),
        (json!([limit("b", 0)]), vec![("a", 10)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(name, size)| (name.to_owned(), size)).collect();
        assert_eq!(sizes(limits.clone()), expected, "{limits}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_that_are_kept_never_widen(before in random::identity(), now in random::identity()) {
        let mut catalog = catalog_value();
        let tools = random::TOOLS.map(|name| json!({"name": name, "scopes": ["hr:read"]}));
        catalog["spec"]["toolSets"][0]["tools"] = json!(tools);
        let limits = |identity: &Value| written(&planned_of(identity["spec"]["rateLimits"].clone(), catalog.clone()));
        let last = limits(&before);
        prop_assert!(no_wider(&kept(&last, now), &last.rate_limits));
    }
}
