//! Catalogues and providers that pass the schema and not the compiler.

use behalf_crds::v1alpha1::{
    AcceptedReason, ConditionReason, ConditionType, IdentityProvider, find_condition,
};
use behalf_plan::{catalog_status, provider_status};
use serde_json::{Value, json};

use crate::fixtures::*;

fn accepted_catalog(value: Value) -> (String, String) {
    let status = catalog_status(&catalog(value), None, &at(1));
    let found = find_condition(&status.conditions, ConditionType::Accepted).unwrap();
    assert_eq!(found.observed_generation, Some(3));
    (found.reason.clone(), found.message.clone())
}

#[test]
fn a_good_catalogue_is_accepted_and_counted() {
    let status = catalog_status(&catalog(catalog_value()), None, &at(1));
    let counts = status.counts.unwrap();
    assert_eq!((counts.scopes, counts.tools, counts.downstreams), (4, 4, 2));
    assert!(status.conditions.iter().all(|condition| condition.status == "True"));
}

#[test]
fn each_flaw_of_a_catalogue_has_its_reason() {
    use AcceptedReason as A;
    let cases = [
        ("/spec/scopes/0/implies", json!(["nope"]), A::UnknownScope, "nope"),
        ("/spec/toolSets/1/tools/0/scopes", json!(["nope"]), A::UnknownScope, "lead.list"),
        ("/spec/toolSets/0/tools/1/downstreams/0/name", json!("nope"), A::UnknownDownstream, "salary.get"),
        (
            "/spec/toolSets/0/tools/1/downstreams/0/scopes",
            json!(["payroll:admin"]),
            A::ScopeAboveCeiling,
            "payroll:admin",
        ),
        ("/spec/toolSets/0/tools/1/downstreams/0/scopes", json!([]), A::Invalid, "salary.get"),
        ("/spec/toolSets/0/tools/1/scopes", json!([]), A::Invalid, "salary.get"),
        ("/spec/toolSets/0/tools/1/name", json!("salary/get"), A::Invalid, "salary/get"),
        ("/spec/toolSets/0/tools/1/name", json!("directory.search"), A::Invalid, "directory.search"),
        ("/spec/toolSets/1/name", json!("hr-server"), A::Invalid, "hr-server"),
        (
            "/spec/scopes/0/implies",
            json!(["hr:salary:read"]),
            A::ScopeCycle,
            "hr:read -> hr:salary:read -> hr:read",
        ),
        ("/spec/scopes/0/implies", json!(["hr:read"]), A::ScopeCycle, "hr:read -> hr:read"),
        ("/spec/scopes/0/name", json!("hr:salary:write"), A::Invalid, "hr:salary:write"),
        ("/spec/scopes/0/name", json!("hr read"), A::Invalid, "hr read"),
        ("/spec/scopes/0/name", json!(""), A::Invalid, "spec.scopes"),
        ("/spec/downstreams/0/name", json!("ledger"), A::Invalid, "ledger"),
        ("/spec/downstreams/0/audiences", json!([]), A::Invalid, "payroll"),
        ("/spec/downstreams/0/audiences", json!(["a", "b"]), A::Invalid, "payroll"),
        ("/spec/downstreams/0/scopes", json!([]), A::Invalid, "payroll"),
        ("/spec/downstreams/0/maxTokenLifetime", json!("2h"), A::Invalid, "2h"),
        ("/spec/downstreams/0/maxTokenLifetime", json!("500ms"), A::Invalid, "500ms"),
        ("/spec/downstreams/0/http/origin", json!("http://payroll.hr.svc"), A::Invalid, "https"),
        ("/spec/downstreams/0/http/origin", json!("https://127.0.0.1"), A::Invalid, "loopback"),
        ("/spec/downstreams/0/http/origin", json!("https://169.254.169.254"), A::Invalid, "metadata"),
        ("/spec/downstreams/0/http", Value::Null, A::Invalid, "http.origin"),
        (
            "/spec/toolSets/0/tools/1/conditions",
            json!([{"name": "others", "when": "arguments.employee =="}]),
            A::Invalid,
            "Condition others of tool salary.get",
        ),
        (
            "/spec/toolSets/0/tools/1/conditions",
            json!([{"name": "others", "when": "arguments.a.matches('a')"}]),
            A::Invalid,
            "matches is not offered",
        ),
        (
            "/spec/toolSets/0/tools/1/conditions",
            json!([{"name": "others", "when": "request.a == 1"}]),
            A::Invalid,
            "request is not known",
        ),
        (
            "/spec/toolSets/0/tools/1/conditions",
            json!([{"name": "others", "when": "has(arguments.a)", "scopes": ["nope"]}]),
            A::UnknownScope,
            "Condition others",
        ),
        ("/spec/downstreams/1/http/caBundle", json!("corp"), A::InvalidCABundle, "ledger"),
    ];
    for (pointer, value, reason, named) in cases {
        let mut catalog = catalog_value();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match catalog.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
            Value::Array(items) => items[member.parse::<usize>().unwrap()] = value.clone(),
            members => members[member] = value.clone(),
        }
        let (found, message) = accepted_catalog(catalog);
        assert_eq!(found, reason.as_str(), "{pointer} {value} {message}");
        assert!(message.contains(named), "{message}");
        assert!(
            message.ends_with('.') && message.matches(". ").count() >= 1,
            "cause and next step: {message}"
        );
    }
}

#[test]
fn each_flaw_of_a_provider_has_its_reason() {
    use AcceptedReason as A;
    let cases = [
        ("/spec/issuer", json!("http://idp.example.com"), A::Invalid),
        ("/spec/issuer", json!("https://localhost/realms/corp"), A::Invalid),
        ("/spec/issuer", json!("https://169.254.169.254/"), A::Invalid),
        ("/spec/endpoints", json!({"token": "http://idp.example.com/token"}), A::Invalid),
        ("/spec/endpoints", json!({"jwks": "https://[::1]/jwks"}), A::Invalid),
        ("/spec/caBundle", json!("corp"), A::InvalidCABundle),
        ("/spec/caBundle", json!(format!("{PEM}-----BEGIN PRIVATE KEY-----\n")), A::InvalidCABundle),
        ("/spec/tokenProfile/algorithms", json!([]), A::Invalid),
        ("/spec/tokenProfile/clockSkew", json!("61s"), A::Invalid),
        ("/spec/tokenProfile/groupsClaim", json!("groups"), A::Invalid),
        ("/spec/exchange/maxTokenLifetime", json!("0s"), A::Invalid),
        ("/spec/exchange/ignoredScopes", json!(["a b"]), A::Invalid),
        ("/spec/keys", json!({"maxStaleness": "25h"}), A::Invalid),
        ("/metadata/name", json!("Corp"), A::Invalid),
    ];
    for (pointer, value, reason) in cases {
        let mut provider = provider_value("corp");
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        provider.pointer_mut(parent).unwrap()[member] = value.clone();
        let status = provider_status(&object(provider), &[], None, &at(1));
        let found = find_condition(&status.conditions, ConditionType::Accepted).unwrap();
        assert_eq!(found.reason, reason.as_str(), "{pointer} {value} {}", found.message);
        let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "NotAccepted"));
    }
    let good = provider_status(&object(provider_value("corp")), &[], None, &at(1));
    assert!(good.conditions.iter().all(|condition| condition.status == "True"));
}

#[test]
fn closed_for_everyone_is_valid_and_said() {
    let mut value = catalog_value();
    value["spec"]["allowedNamespaces"] = json!({});
    let (reason, message) = accepted_catalog(value);
    assert_eq!(reason, "Accepted");
    assert!(message.contains("no namespace may use it"), "{message}");
}

/// A provider of that name and age whose tokens are for `audience`.
fn taker(name: &str, created: &str, audience: Option<&str>) -> IdentityProvider {
    let mut provider = provider_value(name);
    provider["metadata"]["creationTimestamp"] = json!(created);
    if let Some(audience) = audience {
        provider["spec"]["clientAuthentication"] = json!({"serviceAccountToken": {"audience": audience}});
    }
    object(provider)
}

#[test]
fn of_two_providers_with_one_audience_the_older_has_it() {
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let issuer = "https://idp.example.com/realms/corp";
    let corp = taker("corp", new, None);
    let cases = [
        ("by what it says", taker("other", old, Some(issuer)), Some("other")),
        ("by its name, made in the same second", taker("aaaa", new, Some(issuer)), Some("aaaa")),
        ("a later name", taker("zzzz", new, Some(issuer)), None),
        ("a younger one", taker("aaaa", "2026-01-03T00:00:00Z", Some(issuer)), None),
        ("another audience", taker("other", old, None), None),
        ("almost the same", taker("other", old, Some("https://idp.example.com/realms/corp/")), None),
        ("itself", corp.clone(), None),
    ];
    for (what, other, holder) in cases {
        let status = provider_status(&corp, &[corp.clone(), other.clone()], None, &at(1));
        let accepted = find_condition(&status.conditions, ConditionType::Accepted).unwrap();
        match holder {
            Some(holder) => {
                assert_eq!(accepted.reason, "AudienceTaken", "{what}");
                for part in [holder, issuer, "spec.clientAuthentication.serviceAccountToken.audience"] {
                    assert!(accepted.message.contains(part), "{what}: {}", accepted.message);
                }
                let undisturbed = provider_status(&other, &[corp.clone(), other.clone()], None, &at(1));
                assert!(undisturbed.conditions.iter().all(|it| it.status == "True"), "{what}");
            }
            None => assert_eq!(accepted.reason, "Accepted", "{what}: {}", accepted.message),
        }
    }
    let mut ageless = taker("aaaa", old, Some(issuer));
    ageless.metadata.creation_timestamp = None;
    let of = |provider: &IdentityProvider, other: &IdentityProvider| {
        behalf_plan::provider::check(provider, std::slice::from_ref(other)).map(drop).map_err(|it| it.reason)
    };
    assert_eq!(of(&ageless, &corp), Err(AcceptedReason::AudienceTaken), "without a time it is the youngest");
    assert_eq!(of(&corp, &ageless), Ok(()));
}

#[test]
fn of_three_providers_with_one_audience_the_oldest_is_named() {
    let audience = Some("https://idp.example.com/realms/corp");
    let corp = taker("corp", "2026-01-03T00:00:00Z", audience);
    let others = [taker("b", "2026-01-02T00:00:00Z", audience), taker("c", "2026-01-01T00:00:00Z", audience)];
    let problem = behalf_plan::provider::check(&corp, &others).unwrap_err();
    assert!(problem.message.starts_with("IdentityProvider c, which is older"), "{}", problem.message);
}

#[test]
fn the_audience_of_the_feed_is_no_providers() {
    let feed = taker("corp", "2026-01-01T00:00:00Z", Some(behalf_policy::wire::FEED_AUDIENCE));
    let problem = behalf_plan::provider::check(&feed, &[]).unwrap_err();
    assert_eq!(problem.reason, AcceptedReason::AudienceTaken);
    assert!(problem.message.contains("operator"), "{}", problem.message);
}

#[test]
fn a_provider_whose_audience_is_taken_says_that_before_anything_else() {
    let older = taker("corp", "2026-01-01T00:00:00Z", None);
    let mut broken = taker("young", "2026-01-02T00:00:00Z", Some("https://idp.example.com/realms/corp"));
    broken.spec.ca_bundle = Some("no certificate".to_owned());
    let problem = behalf_plan::provider::check(&broken, &[older]).unwrap_err();
    assert_eq!(problem.reason, AcceptedReason::AudienceTaken);
}
