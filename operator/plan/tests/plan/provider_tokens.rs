//! What a provider's row and an identity say of tokens, compiled: only what the platform allows, and whole.

use behalf_crds::v1alpha1::{AcceptedReason, ResolvedRefsReason};
use behalf_plan::Gathered;
use behalf_policy::bundle::provider::{ClientAuthentication, ProviderDocument};
use behalf_policy::bundle::tokens::{ClaimRule, ScopeForm};
use behalf_policy::bundle::{
    Flavor, Introspection, IntrospectionResponse, IntrospectionRule, NonceRule, SenderConstraint,
    SenderConstraintMode, Serve,
};
use serde_json::{Value, json};

use crate::fixtures::*;

fn with(provider: Value, identity: Value) -> Gathered {
    let (mut row, mut own) = (provider_value("corp"), identity_value());
    for (member, value) in provider.as_object().unwrap() {
        row["spec"][member] = value.clone();
    }
    for (member, value) in identity.as_object().unwrap() {
        own["spec"]["identityProviders"][0][member] = value.clone();
    }
    gathered_with(own, catalog_value(), row)
}

fn compiled(provider: Value, identity: Value) -> ProviderDocument {
    let policy = written(&plan(&with(provider, identity)));
    load(Serve::Policy(Box::new(policy.clone())));
    policy.providers[0].clone()
}

#[test]
fn a11_an_audience_is_taken_where_the_provider_allows_it() {
    let allowed = json!({"tokenProfile": {"allowedAudiences": ["api://hr-tools", "api://other"]}});
    let provider = compiled(allowed.clone(), json!({"audiences": ["api://hr-tools"]}));
    let taken: Vec<_> = provider.tokens.audiences.iter().map(|a| a.as_str().to_owned()).collect();
    assert_eq!(taken, ["api://hr-tools"], "and no other of those that are allowed");
    assert!(compiled(allowed.clone(), json!({})).tokens.audiences.is_empty());
    for (row, asked) in
        [(allowed.clone(), "api://HR-tools"), (allowed, "api://hr-tools/"), (json!({}), "api://hr-tools")]
    {
        let desired = plan(&with(row, json!({"audiences": [asked]})));
        assert_eq!(desired.accepted.reason, AcceptedReason::AudienceNotAllowed, "{asked}");
        assert!(desired.accepted.message.contains("kubectl describe idp corp"));
        assert!(refused(&desired).is_some());
    }
}

#[test]
fn a14_a28_scope_and_required_claims_are_compiled() {
    let provider = compiled(
        json!({"flavor": "Auth0", "tokenProfile": {
            "scopeClaims": [{"claim": "/scope", "form": "SpaceDelimited"}, {"claim": "/permissions", "form": "Array"}],
            "requiredClaims": [{"claim": "/org_id", "equals": "org_1"}, {"claim": "/roles", "contains": "x"},
                {"claim": "/email_verified", "boolean": true}],
        }}),
        json!({}),
    );
    assert_eq!(provider.flavor, Flavor::Auth0);
    let forms: Vec<_> = provider.tokens.scopes.iter().map(|s| (s.claim.as_str(), s.form)).collect();
    assert_eq!(forms, [("/scope", ScopeForm::SpaceDelimited), ("/permissions", ScopeForm::Array)]);
    let rules: Vec<_> = provider.tokens.required_claims.iter().map(|c| c.rule.clone()).collect();
    assert_eq!(
        rules,
        [ClaimRule::Equals("org_1".into()), ClaimRule::Contains("x".into()), ClaimRule::Boolean(true)]
    );
}

#[test]
fn a21_introspection_is_compiled() {
    assert_eq!(compiled(json!({}), json!({})).introspection, Introspection::default());
    let endpoint = "https://idp.corp/introspect";
    let provider = compiled(
        json!({"introspection": {"rule": "LongLived", "longLivedOver": "15m", "endpoint": endpoint, "cacheTTL": "30s",
            "response": "JWT"}}),
        json!({}),
    );
    assert_eq!(
        provider.introspection,
        Introspection {
            rule: IntrospectionRule::LongLived,
            long_lived_over: 900,
            endpoint: Some(endpoint.to_owned()),
            cache_ttl: 30,
            response: IntrospectionResponse::Jwt,
        }
    );
    assert_eq!(compiled(json!({"introspection": {"rule": "Always"}}), json!({})).introspection.cache_ttl, 10);
}

#[test]
fn a23_what_tokens_must_be_bound_to_is_compiled() {
    let compiled = |constraint: Value| {
        let row = json!({"tokenProfile": {"senderConstraint": constraint}});
        compiled(row, json!({})).tokens.sender_constraint
    };
    assert_eq!(compiled(json!({})), SenderConstraint::default());
    assert_eq!(
        compiled(json!({"mode": "DPoPRequired", "dpop": {"maxAge": "10s", "nonce": "Required"}})),
        SenderConstraint {
            mode: SenderConstraintMode::DpopRequired,
            max_age: 10,
            nonce: NonceRule::Required
        }
    );
    assert_eq!(compiled(json!({"mode": "Required"})).mode, SenderConstraintMode::Required);
    // What older sidecars do not know is not written for those who do not ask for it.
    let plain = serde_json::to_value(self::compiled(json!({}), json!({}))).unwrap();
    assert_eq!(plain["tokens"].get("senderConstraint"), None);
}

#[test]
fn rows_that_contradict_themselves_are_not_accepted() {
    for row in [
        json!({"flavor": "SPIFFE", "clientAuthentication": {"allowed": ["None"]}}),
        json!({"tokenProfile": {"trustDomain": "example.org"}}),
        json!({"flavor": "Kubernetes"}),
        json!({"introspection": {"rule": "LongLived"}}),
        json!({"introspection": {"rule": "Always", "longLivedOver": "5m"}}),
        json!({"introspection": {"rule": "Always", "cacheTTL": "6m"}}),
        json!({"introspection": {"rule": "Always"}, "clientAuthentication": {"allowed": ["None", "ServiceAccountToken"]}}),
        json!({"introspection": {"rule": "Always", "endpoint": "https://127.0.0.1/introspect"}}),
        json!({"tokenProfile": {"requiredClaims": [{"claim": "/tid"}]}}),
        json!({"tokenProfile": {"requiredClaims": [{"claim": "/tid", "equals": "a", "contains": "b"}]}}),
        json!({"tokenProfile": {"requiredClaims": [{"claim": "tid", "equals": "a"}]}}),
        json!({"tokenProfile": {"scopeClaims": [{"claim": "scp", "form": "Array"}]}}),
        json!({"tokenProfile": {"senderConstraint": {"dpop": {"maxAge": "9s"}}}}),
        json!({"tokenProfile": {"senderConstraint": {"dpop": {"maxAge": "301s"}}}}),
        json!({"flavor": "Kubernetes", "clientAuthentication": {"allowed": ["None"]}, "tokenProfile": {"senderConstraint": {}}}),
    ] {
        let desired = plan(&with(row.clone(), json!({})));
        assert_eq!(desired.resolved_refs.reason, ResolvedRefsReason::IdentityProviderNotAccepted, "{row}");
    }
}

#[test]
fn a13_where_nobody_is_a_client_nothing_is_exchanged_and_no_token_is_mounted() {
    let cluster = |downstreams: Value| {
        let mut row = provider_value("corp");
        row["spec"]["flavor"] = json!("Kubernetes");
        row["spec"]["clientAuthentication"] = json!({"allowed": ["None"]});
        let mut own = identity_value();
        own["spec"]["identityProviders"][0]["client"]["authentication"] = json!({"type": "None"});
        own["spec"]["downstreams"] = downstreams;
        gathered_with(own, catalog_value(), row)
    };
    let policy = written(&plan(&cluster(json!([]))));
    assert_eq!(policy.providers[0].client_authentication, ClientAuthentication::None);
    assert_eq!(policy.providers[0].flavor, Flavor::Kubernetes);
    load(Serve::Policy(Box::new(policy)));
    let stray = json!([{"name": "payroll", "identityProvider": "corp"}]);
    let desired = plan(&cluster(stray));
    assert_eq!(desired.accepted.reason, AcceptedReason::Invalid);
    assert!(
        desired.accepted.message.contains("where this server is no client"),
        "{}",
        desired.accepted.message
    );
    // The way that the row does not allow is refused in either direction.
    let desired = plan(&with(json!({}), json!({"client": {"id": "x", "authentication": {"type": "None"}}})));
    assert_eq!(desired.accepted.reason, AcceptedReason::ClientAuthenticationNotAllowed);
}
