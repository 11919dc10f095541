//! Tokens: every refusal of header and claims, and what a good one says of its caller.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::document::CallerKind;
use behalf_policy::bundle::{Flavor, Provider, TokenProfile};
use behalf_policy::claims::{
    Binding, Caller, Thumbprint, TokenRefusal, check_claims, check_header, select_provider,
};
use serde_json::{Map, Value, json};
use support::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("tests pass objects"),
    }
}

fn good() -> Value {
    json!({"iss": ISSUER, "aud": URL, "sub": "alice", "azp": "agent-ui", "exp": NOW.0 + 300, "iat": NOW.0,
           "jti": "j1", "typ": "Bearer", "scope": "hr:read profile", "groups": ["staff"]})
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = good();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = object(good());
    claims.remove(member);
    Value::Object(claims)
}

fn judge_as(claims: Value, change: impl Fn(&mut Provider)) -> Result<Caller, TokenRefusal> {
    let bundle = bundle(policy_document());
    let p = policy(&bundle);
    let mut provider = p.providers["corp"].clone();
    change(&mut provider);
    check_claims(p, &name("corp"), &provider, &object(claims), NOW)
}

fn judge(claims: Value) -> Result<Caller, TokenRefusal> {
    judge_as(claims, |_| {})
}

#[test]
fn a_good_token_says_who_calls() {
    let caller = judge(good()).unwrap();
    assert_eq!(caller.subject.as_str(), "alice");
    assert_eq!(caller.client.unwrap().as_str(), "agent-ui");
    assert_eq!(caller.scopes, scopes(&["hr:read", "profile"]));
    assert_eq!(caller.groups, groups(&["staff"]));
    assert_eq!((caller.kind, caller.actors.len()), (CallerKind::User, 0));
    assert_eq!(caller.expires, NOW.plus(330), "its exp, and the skew");
}

#[test]
fn a10_the_issuer_is_compared_code_point_by_code_point() {
    for iss in [
        "https://idp.example.com/realms/corp/",
        "https://IDP.example.com/realms/corp",
        "https://idp.example.com:443/realms/corp",
        "http://idp.example.com/realms/corp",
    ] {
        let bundle = bundle(policy_document());
        let claims = object(with("iss", json!(iss)));
        assert_eq!(
            select_provider(policy(&bundle), &claims).unwrap_err(),
            TokenRefusal::UnknownIssuer,
            "{iss}"
        );
        assert_eq!(judge(Value::Object(claims)), Err(TokenRefusal::UnknownIssuer));
    }
    for iss in [json!(null), json!(1), json!([ISSUER]), json!({}), json!("")] {
        let bundle = bundle(policy_document());
        let claims = object(with("iss", iss.clone()));
        assert_eq!(select_provider(policy(&bundle), &claims).unwrap_err(), TokenRefusal::BadClaim, "{iss}");
    }
}

#[test]
fn a11_d10_only_an_audience_equal_to_the_server_is_taken() {
    judge(with("aud", json!(["https://other", URL]))).unwrap();
    for aud in [
        "https://hr.example.com/mcp/",
        "https://hr.example.com/mc",
        "https://hr.example.com/mcpx",
        "https://hr.example.com:443/mcp",
        "https://hr.example.com",
        "agent-ui",
        "",
        "*",
    ] {
        assert_eq!(judge(with("aud", json!(aud))), Err(TokenRefusal::WrongAudience), "{aud}");
    }
    for aud in
        [json!([]), json!([1]), json!([URL, 1]), json!({"a": URL}), json!(1), json!(null), json!([[URL]])]
    {
        assert_eq!(judge(with("aud", aud.clone())), Err(TokenRefusal::BadClaim), "{aud}");
    }
    assert_eq!(judge(without("aud")), Err(TokenRefusal::WrongAudience));
    let mut resource = object(without("aud"));
    resource.insert("resource".to_owned(), json!(URL));
    assert_eq!(judge(Value::Object(resource)), Err(TokenRefusal::WrongAudience));
}

#[test]
fn a12_d11_times_are_judged_at_the_edges_of_the_skew() {
    judge(with("exp", json!(NOW.0 - 29))).unwrap();
    assert_eq!(judge(with("exp", json!(NOW.0 - 30))), Err(TokenRefusal::Expired));
    judge(with("nbf", json!(NOW.0 + 30))).unwrap();
    assert_eq!(judge(with("nbf", json!(NOW.0 + 31))), Err(TokenRefusal::NotYetValid));
    assert_eq!(judge(with("iat", json!(NOW.0 + 1000))), Err(TokenRefusal::NotYetValid));
    judge(with("exp", json!(1_800_000_300.5))).unwrap();
    assert_eq!(judge(without("exp")), Err(TokenRefusal::BadClaim));
    for exp in [
        json!("1900000000"),
        json!(1e30),
        json!(-1),
        json!(null),
        json!([NOW.0 + 300]),
        json!(true),
        json!(u64::MAX),
    ] {
        assert_eq!(judge(with("exp", exp.clone())), Err(TokenRefusal::BadClaim), "{exp}");
    }
    for member in ["nbf", "iat"] {
        assert_eq!(judge(with(member, json!("0"))), Err(TokenRefusal::BadClaim));
        assert_eq!(judge(with(member, json!(-5))), Err(TokenRefusal::BadClaim));
    }
}

#[test]
fn a8_what_is_known_not_to_be_an_access_token_is_refused_in_relaxed_mode_too() {
    for (member, value) in [
        ("typ", json!("ID")),
        ("typ", json!("Refresh")),
        ("typ", json!("Logout")),
        ("typ", json!("Offline")),
        ("nonce", json!("n")),
        ("at_hash", json!("h")),
        ("c_hash", json!("h")),
        ("events", json!({})),
    ] {
        assert_eq!(judge(with(member, value)), Err(TokenRefusal::NotAnAccessToken), "{member}");
    }
    assert_eq!(
        judge(without("typ")),
        Err(TokenRefusal::NotAnAccessToken),
        "Keycloak always says what a token is"
    );
    judge_as(without("typ"), |p| p.flavor = Flavor::Generic).unwrap();
}

#[test]
fn a24_a_bound_token_is_never_taken_as_a_bearer_token() {
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let thumbprint = Thumbprint::parse(JKT).unwrap();
    let bound = |cnf: Value| judge(with("cnf", cnf)).map(|caller| caller.binding);
    let (key, certificate) = (Some(thumbprint), Some(thumbprint));
    assert_eq!(bound(json!({"jkt": JKT})), Ok(Binding { key, certificate: None }));
    assert_eq!(bound(json!({"x5t#S256": JKT})), Ok(Binding { key: None, certificate }));
    assert_eq!(bound(json!({"jkt": JKT, "x5t#S256": JKT})), Ok(Binding { key, certificate }));
    // As a real Keycloak writes it.
    let keycloak = json!({"jkt": JKT, "kc-jkt-type": "DPoP"});
    assert_eq!(bound(keycloak.clone()), Ok(Binding { key, certificate: None }));
    let elsewhere = judge_as(with("cnf", keycloak), |p| p.flavor = Flavor::Generic);
    assert_eq!(elsewhere.map(drop), Err(TokenRefusal::BindingUnknown));
    for unknown in [
        json!({"jkt": JKT, "kc-jkt-type": "other"}),
        json!({"jkt": JKT, "kc-jkt-type": null}),
        json!({"kc-jkt-type": "DPoP"}),
        json!(null),
        json!({}),
        json!([]),
        json!("x"),
        json!({"jkt": "x"}),
        json!({"jkt": null}),
        json!({"jkt": [JKT]}),
        json!({"jkt": format!("{JKT}=")}),
        // Another spelling of the same bytes.
        json!({"jkt": JKT.replace("A4I", "A4J")}),
        json!({"jkt": JKT.replace('-', "+")}),
        json!({"jwk": {"kty": "EC"}}),
        json!({"jkt": JKT, "jwk": {}}),
        json!({"jkt": JKT, "kid": JKT}),
        json!({"x5t": JKT}),
        json!({"JKT": JKT}),
    ] {
        assert_eq!(bound(unknown.clone()), Err(TokenRefusal::BindingUnknown), "{unknown}");
    }
    // Keycloak's own word for it, with no key to it.
    assert_eq!(judge(with("typ", json!("DPoP"))), Err(TokenRefusal::BindingUnknown));
}

#[test]
fn a9_strict_mode_needs_all_claims_of_rfc_9068() {
    let strict = |p: &mut Provider| p.profile = TokenProfile::Strict;
    judge_as(good(), strict).unwrap();
    for member in ["azp", "jti", "iat", "sub"] {
        assert_eq!(judge_as(without(member), strict), Err(TokenRefusal::BadClaim), "{member}");
    }
}

#[test]
fn cve_2026_25537_a_claim_of_the_wrong_type_is_a_refusal_never_absent() {
    for (member, value) in [
        ("sub", json!(1)),
        ("sub", json!("")),
        ("sub", json!(null)),
        ("azp", json!(["agent-ui"])),
        ("client_id", json!({})),
        ("client_id", json!("another")),
        ("scope", json!(["hr:read"])),
        ("scope", json!(1)),
        ("scope", json!("hr:read \u{e9}")),
        ("jti", json!(1)),
        ("typ", json!(1)),
        ("groups", json!("staff")),
        ("groups", json!([1])),
        ("groups", json!({"staff": true})),
        ("groups", json!([["staff"]])),
        ("groups", json!(null)),
        ("act", json!("agent")),
        ("act", json!({"sub": "a", "act": 1})),
    ] {
        assert_eq!(judge(with(member, value.clone())), Err(TokenRefusal::BadClaim), "{member} {value}");
    }
}

#[test]
fn a13_a_token_whose_subject_is_its_client_is_a_workload() {
    assert_eq!(judge(with("sub", json!("agent-ui"))).unwrap().kind, CallerKind::Workload);
}

#[test]
fn a28_groups_that_the_provider_left_out_fail_closed() {
    assert_eq!(judge(with("_claim_names", json!({"groups": "src1"}))), Err(TokenRefusal::GroupsOverage));
    assert_eq!(judge(with("hasgroups", json!(true))), Err(TokenRefusal::GroupsOverage));
    let many: Vec<_> = (0..513).map(|i| format!("g{i}")).collect();
    assert_eq!(judge(with("groups", json!(many))), Err(TokenRefusal::GroupsOverage));
    assert!(judge(without("groups")).unwrap().groups.is_empty());
}

#[test]
fn groups_are_read_at_the_declared_pointer_only() {
    let nested = with("realm_access", json!({"roles": ["managers"], "a/b": ["x"]}));
    let at = |pointer: &'static str| judge_as(nested.clone(), move |p| p.groups_claim = pointer.to_owned());
    assert_eq!(at("/realm_access/roles").unwrap().groups, groups(&["managers"]));
    assert_eq!(at("/realm_access/a~1b").unwrap().groups, groups(&["x"]));
    assert!(at("/realm_access/none").unwrap().groups.is_empty());
    assert_eq!(at("/realm_access"), Err(TokenRefusal::BadClaim));
    assert_eq!(at("/realm_access/roles/0"), Err(TokenRefusal::BadClaim));
}

#[test]
fn actor_chains_are_counted() {
    let act = json!({"sub": "a", "act": {"sub": "b"}});
    assert_eq!(judge(with("act", act)).unwrap().actors.len(), 2);
    let mut deep = json!({"sub": "x"});
    for _ in 0..300 {
        deep = json!({"sub": "x", "act": deep});
    }
    assert_eq!(judge(with("act", deep)), Err(TokenRefusal::BadClaim));
}

fn header(value: Value, profile: TokenProfile) -> Result<(), TokenRefusal> {
    let bundle = bundle(policy_document());
    let mut provider = policy(&bundle).providers["corp"].clone();
    provider.profile = profile;
    check_header(&provider, &object(value)).map(|_| ())
}

#[test]
fn a7_d3_d4_the_algorithm_is_one_of_the_issuers_list() {
    for alg in [
        "none", "None", "nOnE", "", "HS256", "HS512", "RS384", "RS512", "PS256", "EdDSA", "ES384", "ES256K",
        "rs256", " RS256", "RSA-OAEP", "dir",
    ] {
        assert_eq!(
            header(json!({"alg": alg}), TokenProfile::Relaxed),
            Err(TokenRefusal::AlgorithmNotAllowed),
            "{alg}"
        );
    }
    assert_eq!(header(json!({"kid": "a"}), TokenProfile::Relaxed), Err(TokenRefusal::AlgorithmNotAllowed));
    assert_eq!(header(json!({"alg": 1}), TokenProfile::Relaxed), Err(TokenRefusal::BadClaim));
    header(json!({"alg": "RS256", "kid": "a"}), TokenProfile::Relaxed).unwrap();
}

#[test]
fn a8_the_type_is_that_of_an_access_token() {
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        header(json!({"alg": "RS256", "typ": typ}), TokenProfile::Strict).unwrap();
        header(json!({"alg": "RS256", "typ": typ}), TokenProfile::Relaxed).unwrap();
    }
    for typ in ["JWT", "jwt"] {
        assert_eq!(
            header(json!({"alg": "RS256", "typ": typ}), TokenProfile::Strict),
            Err(TokenRefusal::NotAnAccessToken)
        );
        header(json!({"alg": "RS256", "typ": typ}), TokenProfile::Relaxed).unwrap();
    }
    assert_eq!(header(json!({"alg": "RS256"}), TokenProfile::Strict), Err(TokenRefusal::NotAnAccessToken));
    for typ in [
        "oauth-id-jag+jwt",
        "txntoken+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "logout+jwt",
        "token-introspection+jwt",
        "",
        "at jwt",
    ] {
        assert_eq!(
            header(json!({"alg": "RS256", "typ": typ}), TokenProfile::Relaxed),
            Err(TokenRefusal::NotAnAccessToken),
            "{typ}"
        );
    }
}

#[test]
fn d5_extensions_are_refused_and_embedded_keys_ignored() {
    for member in ["crit", "b64", "zip", "enc", "cty"] {
        assert_eq!(
            header(json!({"alg": "RS256", member: "x"}), TokenProfile::Relaxed),
            Err(TokenRefusal::UnsupportedHeader),
            "{member}"
        );
    }
    header(
        json!({"alg": "RS256", "jwk": {}, "jku": "https://evil", "x5u": "https://evil", "x5c": []}),
        TokenProfile::Relaxed,
    )
    .unwrap();
}

#[test]
fn d6_key_ids_are_bounded_strings() {
    assert_eq!(
        header(json!({"alg": "RS256", "kid": "k".repeat(513)}), TokenProfile::Relaxed),
        Err(TokenRefusal::UnknownKey)
    );
    assert_eq!(
        header(json!({"alg": "RS256", "kid": ""}), TokenProfile::Relaxed),
        Err(TokenRefusal::UnknownKey)
    );
    assert_eq!(header(json!({"alg": "RS256", "kid": 7}), TokenProfile::Relaxed), Err(TokenRefusal::BadClaim));
}
