//! What holds of every product's tokens, whatever a claim is replaced by.

use behalf_policy::bundle::Flavor;
use behalf_policy::bundle::document::CallerKind;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{auth0, base, entra, judge, kubernetes, object, okta, svid, with};

/// A JSON value of any small shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |f| serde_json::Number::from_f64(f).map(Value::Number)),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

const FLAVORS: [Flavor; 7] = [
    Flavor::Generic,
    Flavor::Keycloak,
    Flavor::Entra,
    Flavor::Okta,
    Flavor::Auth0,
    Flavor::Kubernetes,
    Flavor::Spiffe,
];

fn good(flavor: Flavor) -> Value {
    match flavor {
        Flavor::Generic => with(&base(), json!({"scope": "hr:read"})),
        Flavor::Keycloak => with(&base(), json!({"scope": "hr:read", "typ": "Bearer", "groups": ["staff"]})),
        Flavor::Entra => entra(),
        Flavor::Okta => okta(),
        Flavor::Auth0 => auth0(),
        Flavor::Kubernetes => kubernetes(),
        Flavor::Spiffe => svid(),
    }
}

proptest! {
    /// Whatever a claim is replaced by: who calls stays who signed for it, or the token is refused.
    #[test]
    fn no_claim_of_another_type_is_ever_taken_for_absent(
        flavor in proptest::sample::select(&FLAVORS[..]),
        at in 0_usize..64,
        value in any_json(),
    ) {
        let claims = good(flavor);
        let names: Vec<_> = object(&claims).keys().cloned().collect();
        let member = names[at % names.len()].clone();
        let changed = with(&claims, json!({member.clone(): value.clone()}));
        let (was, is) = (judge(flavor, &claims).unwrap(), judge(flavor, &changed));
        if let Ok(is) = is {
            // What was taken is of the type the claim has, or it is a claim that nobody reads.
            let same_type = std::mem::discriminant(&claims[&member]) == std::mem::discriminant(&value) || member == "aud";
            let unread = ["azpacr", "oid", "tid", "ver", "uti", "uid"].contains(&member.as_str())
                || (flavor == Flavor::Kubernetes && member == "groups");
            prop_assert!(same_type || unread, "{flavor:?} {member} {value} gave {is:?}");
            if member != "sub" { prop_assert_eq!(&is.subject, &was.subject); }
            if flavor == Flavor::Kubernetes || flavor == Flavor::Spiffe { prop_assert_eq!(is.kind, CallerKind::Workload); }
        }
    }

    /// Total: any object of claims gives an answer, and only one whose issuer, audience and end are right a caller.
    #[test]
    fn any_claims_are_judged(flavor in proptest::sample::select(&FLAVORS[..]), claims in proptest::collection::btree_map("(iss|aud|sub|exp|scope|scp|act|groups|[a-z]{1,4})", any_json(), 0..10)) {
        let claims = Value::Object(claims.into_iter().collect());
        if judge(flavor, &claims).is_ok() {
            prop_assert!(claims["exp"].as_f64().unwrap() > 0.0 && claims["aud"].is_string() || claims["aud"].is_array());
        }
    }
}
