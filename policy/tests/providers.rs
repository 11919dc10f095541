//! Tokens in the form of each product: who calls, by which scopes, and what is refused. The claims follow the vendors' own
//! examples, shortened.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "a test")]

#[path = "providers/laws.rs"]
mod laws;
#[path = "providers/platforms.rs"]
mod platforms;
mod support;

use behalf_policy::bundle::document::{CallerKind, PolicyDocument};
use behalf_policy::bundle::provider::ProviderDocument;
use behalf_policy::bundle::tokens::{ClaimRule, RequiredClaim, ScopeClaim, ScopeForm};
use behalf_policy::bundle::{Bundle, Flavor, LoadError};
use behalf_policy::claims::{Caller, TokenRefusal, check_claims};
use behalf_policy::ids::{Audience, Issuer};
use serde_json::{Map, Value, json};
use support::*;

const KINDS: (CallerKind, CallerKind) = (CallerKind::User, CallerKind::Workload);

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn of(flavor: Flavor) -> ProviderDocument {
    let mut provider = policy_document().providers.remove(0);
    provider.flavor = flavor;
    if flavor == Flavor::Spiffe {
        provider.tokens.trust_domain = Some("example.org".to_owned());
    }
    provider
}

fn judge_by(provider: ProviderDocument, claims: &Value) -> Result<Caller, TokenRefusal> {
    let mut document = policy_document();
    document.scopes.push(scope(
        "jobs:run",
        &["system:serviceaccounts:hr", "spiffe://example.org/hr/bot"],
        &[],
    ));
    let name = provider.name.clone();
    document.providers = vec![provider];
    let bundle = bundle(document);
    let policy = policy(&bundle);
    check_claims(policy, &name, &policy.providers[&name], &object(claims), NOW)
}

fn judge(flavor: Flavor, claims: &Value) -> Result<Caller, TokenRefusal> {
    judge_by(of(flavor), claims)
}

fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = object(claims);
    for (member, value) in object(&changes) {
        if value == json!("-") {
            claims.remove(&member)
        } else {
            claims.insert(member, value)
        };
    }
    Value::Object(claims)
}

fn base() -> Value {
    json!({"iss": ISSUER, "aud": URL, "sub": "alice", "exp": NOW.0 + 300, "iat": NOW.0, "jti": "j1"})
}

fn entra() -> Value {
    with(
        &base(),
        json!({"azp": "6f1c", "azpacr": "1", "scp": "hr:read profile", "oid": "9a", "tid": "t", "ver": "2.0",
        "groups": ["staff"], "jti": "-", "uti": "u"}),
    )
}

fn okta() -> Value {
    with(
        &base(),
        json!({"ver": 1, "cid": "0oa1", "uid": "00u1", "scp": ["hr:read", "openid"], "groups": ["staff"],
        "auth_time": NOW.0}),
    )
}

fn auth0() -> Value {
    with(
        &base(),
        json!({"sub": "auth0|62", "azp": "my-client", "scope": "openid hr:read", "permissions": ["hr:leave:read"]}),
    )
}

fn kubernetes() -> Value {
    with(
        &base(),
        json!({"sub": "system:serviceaccount:hr:bot", "kubernetes.io": {"namespace": "hr",
        "pod": {"name": "bot-1", "uid": "u"}, "serviceaccount": {"name": "bot", "uid": "u"}}}),
    )
}

fn svid() -> Value {
    with(&base(), json!({"sub": "spiffe://example.org/hr/bot", "jti": "-", "iss": "-"}))
}

#[test]
fn a14_each_product_says_its_scopes_in_its_own_form() {
    for (flavor, claims, expected) in [
        (Flavor::Generic, with(&base(), json!({"scope": "hr:read  a"})), &["hr:read", "a"][..]),
        (Flavor::Keycloak, with(&base(), json!({"scope": "hr:read", "typ": "Bearer"})), &["hr:read"]),
        (Flavor::Entra, entra(), &["hr:read", "profile"]),
        (Flavor::Okta, okta(), &["hr:read", "openid"]),
        (Flavor::Auth0, auth0(), &["openid", "hr:read", "hr:leave:read"]),
        (Flavor::Auth0, with(&auth0(), json!({"permissions": "-"})), &["openid", "hr:read"]),
        // What a person is at Entra is not what she let the client do.
        (Flavor::Entra, with(&entra(), json!({"roles": ["hr:salary:read"]})), &["hr:read", "profile"]),
        // A claim of another product is no scope here.
        (Flavor::Generic, with(&base(), json!({"scp": "hr:read", "permissions": ["hr:read"]})), &[]),
        (Flavor::Okta, with(&okta(), json!({"scope": "hr:salary:read"})), &["hr:read", "openid"]),
    ] {
        assert_eq!(judge(flavor, &claims).unwrap().scopes, scopes(expected), "{flavor:?} {claims}");
    }
}

#[test]
fn a14_a_scope_claim_of_another_form_is_a_refusal() {
    for (flavor, claims) in [
        (Flavor::Generic, with(&base(), json!({"scope": ["hr:read"]}))),
        (Flavor::Generic, with(&base(), json!({"scope": null}))),
        (Flavor::Entra, with(&entra(), json!({"scp": ["hr:read"]}))),
        (Flavor::Okta, with(&okta(), json!({"scp": "hr:read"}))),
        (Flavor::Okta, with(&okta(), json!({"scp": [["hr:read"]]}))),
        (Flavor::Okta, with(&okta(), json!({"scp": ["hr:read hr:salary:read"]}))),
        (Flavor::Okta, with(&okta(), json!({"scp": [""]}))),
        (Flavor::Auth0, with(&auth0(), json!({"permissions": "hr:read"}))),
        (Flavor::Auth0, with(&auth0(), json!({"permissions": {"hr:read": true}}))),
        (Flavor::Auth0, with(&auth0(), json!({"scope": 7}))),
    ] {
        assert_eq!(judge(flavor, &claims), Err(TokenRefusal::BadClaim), "{flavor:?} {claims}");
    }
    let many: Vec<_> = (0..257).map(|n| format!("s{n}")).collect();
    assert_eq!(judge(Flavor::Okta, &with(&okta(), json!({"scp": many}))), Err(TokenRefusal::BadClaim));
}

#[test]
fn a14_declared_claims_are_read_and_no_others() {
    use ScopeForm::{Array, SpaceDelimited};
    let reads = |readers: &[(&str, ScopeForm)], claims: &Value| {
        let mut provider = of(Flavor::Auth0);
        provider.tokens.scopes = readers
            .iter()
            .map(|(claim, form)| ScopeClaim { claim: (*claim).to_owned(), form: *form })
            .collect();
        judge_by(provider, claims).map(|caller| caller.scopes)
    };
    let claims = with(&auth0(), json!({"https://hr/claims": {"rights": ["x"]}}));
    assert_eq!(reads(&[("/scope", SpaceDelimited)], &claims).unwrap(), scopes(&["openid", "hr:read"]));
    assert_eq!(reads(&[("/https:~1~1hr~1claims/rights", Array)], &claims).unwrap(), scopes(&["x"]));
    assert_eq!(reads(&[("/absent", Array)], &claims).unwrap(), scopes(&[]));
    assert_eq!(
        reads(&[("/scope", SpaceDelimited), ("/permissions", Array)], &claims).unwrap(),
        scopes(&["openid", "hr:read", "hr:leave:read"])
    );
    for wrong in
        [("/scope", Array), ("/permissions", SpaceDelimited), ("/permissions/0", Array), ("/sub/x", Array)]
    {
        assert_eq!(reads(&[wrong], &claims), Err(TokenRefusal::BadClaim), "{wrong:?}");
    }
}

#[test]
fn a13_programs_are_told_from_people() {
    let (user, workload) = KINDS;
    let keycloak = with(&base(), json!({"typ": "Bearer", "azp": "agent-ui", "jti": "onrtro:9a"}));
    for (flavor, claims, kind) in [
        (Flavor::Generic, base(), user),
        (Flavor::Generic, with(&base(), json!({"client_id": "alice"})), workload),
        (Flavor::Generic, with(&base(), json!({"gty": "client-credentials"})), workload),
        (Flavor::Generic, with(&base(), json!({"gty": "password"})), user),
        (Flavor::Generic, with(&base(), json!({"idtyp": "app"})), workload),
        (Flavor::Generic, with(&base(), json!({"sub": "system:serviceaccount:hr:bot"})), workload),
        (Flavor::Generic, with(&base(), json!({"sub": "spiffe://example.org/a"})), workload),
        (Flavor::Generic, with(&base(), json!({"sub": "me@clients", "azp": "me"})), workload),
        (Flavor::Keycloak, keycloak.clone(), user),
        (Flavor::Keycloak, with(&keycloak, json!({"jti": "trrtcc:9a"})), workload),
        (
            Flavor::Keycloak,
            with(&keycloak, json!({"preferred_username": "service-account-agent-ui"})),
            workload,
        ),
        (Flavor::Keycloak, with(&keycloak, json!({"preferred_username": "service-account-other"})), user),
        (Flavor::Keycloak, with(&keycloak, json!({"clientHost": "10.0.0.1"})), workload),
        (Flavor::Entra, entra(), user),
        (Flavor::Entra, with(&entra(), json!({"idtyp": "user"})), user),
        (Flavor::Entra, with(&entra(), json!({"scp": "-", "roles": ["hr:read"], "idtyp": "app"})), workload),
        (Flavor::Entra, with(&entra(), json!({"scp": "-", "roles": ["hr:read"]})), workload),
        (Flavor::Okta, okta(), user),
        (Flavor::Okta, with(&okta(), json!({"sub": "0oa1", "uid": "-"})), workload),
        (Flavor::Auth0, auth0(), user),
        (
            Flavor::Auth0,
            with(&auth0(), json!({"sub": "my-client@clients", "gty": "client-credentials"})),
            workload,
        ),
        (Flavor::Auth0, with(&auth0(), json!({"sub": "other@clients"})), workload),
        (Flavor::Kubernetes, kubernetes(), workload),
        (Flavor::Spiffe, svid(), workload),
    ] {
        assert_eq!(judge(flavor, &claims).map(|caller| caller.kind), Ok(kind), "{flavor:?} {claims}");
    }
}

#[test]
fn a13_what_contradicts_itself_about_its_kind_is_refused() {
    for (flavor, claims, refusal) in [
        (Flavor::Entra, with(&entra(), json!({"idtyp": "app"})), TokenRefusal::BadClaim),
        (Flavor::Entra, with(&entra(), json!({"idtyp": "device"})), TokenRefusal::NotAnAccessToken),
        (Flavor::Entra, with(&entra(), json!({"idtyp": true})), TokenRefusal::BadClaim),
        (Flavor::Auth0, with(&auth0(), json!({"gty": ["client-credentials"]})), TokenRefusal::BadClaim),
        (Flavor::Okta, with(&okta(), json!({"client_id": "another"})), TokenRefusal::BadClaim),
        (Flavor::Entra, with(&entra(), json!({"appid": "another"})), TokenRefusal::BadClaim),
    ] {
        assert_eq!(judge(flavor, &claims), Err(refusal), "{flavor:?} {claims}");
    }
}

#[test]
fn a8_an_id_token_of_a_product_is_none_of_its_access_tokens() {
    for (flavor, claims) in [
        (Flavor::Entra, with(&entra(), json!({"scp": "-", "name": "Alice"}))),
        (Flavor::Okta, with(&okta(), json!({"cid": "-", "scp": "-", "amr": ["pwd"]}))),
        (Flavor::Entra, with(&entra(), json!({"nonce": "n"}))),
        (Flavor::Okta, with(&okta(), json!({"at_hash": "h"}))),
    ] {
        assert_eq!(judge(flavor, &claims), Err(TokenRefusal::NotAnAccessToken), "{flavor:?} {claims}");
    }
}

#[test]
fn a11_audiences_that_the_row_adds_are_taken_exactly() {
    let aud = |value: Value| {
        let mut provider = of(Flavor::Entra);
        provider.tokens.audiences =
            ["api://hr-tools", "https://HR.example.com/other"].map(|a| Audience::new(a).unwrap()).into();
        judge_by(provider, &with(&entra(), json!({"aud": value}))).map(drop)
    };
    for taken in [
        json!(URL),
        json!("api://hr-tools"),
        json!(["x", "api://hr-tools"]),
        json!("HTTPS://hr.EXAMPLE.com/mcp"),
        json!("https://hr.example.com/other"),
    ] {
        assert_eq!(aud(taken.clone()), Ok(()), "{taken}");
    }
    for wrong in [
        "api://HR-tools",
        "API://hr-tools",
        "api://hr-tools/",
        "api://hr-tools/x",
        "hr-tools",
        "https://hr.example.com/MCP",
        "https://hr.example.com/mcp/",
        "https://hr.example.com:443/mcp",
        "https://u@hr.example.com/mcp",
        "https://hr.example.com/%6dcp",
        "http://hr.example.com/mcp",
        "https://hr.example.com.evil/mcp",
        "https://hr.example.com\\mcp",
        "https:hr.example.com/mcp",
        "https:///mcp",
        "https://hr.example.com/mcp#",
        " ",
        "https://hr.example.com/mcp?",
        "https://\u{0127}r.example.com/mcp",
    ] {
        assert_eq!(aud(json!(wrong)), Err(TokenRefusal::WrongAudience), "{wrong}");
    }
}

#[test]
fn a28_required_claims_are_exact_and_of_their_type() {
    let claims = with(
        &base(),
        json!({"tid": "t1", "wids": ["a", "b"], "email_verified": true,
        "deep": {"er": {"x/y": "v"}}, "number": 1}),
    );
    let rule = |claim: &str, rule: ClaimRule| {
        let mut provider = of(Flavor::Generic);
        provider.tokens.required_claims = vec![RequiredClaim { claim: claim.to_owned(), rule }];
        judge_by(provider, &claims).map(drop)
    };
    let equals = |text: &str| ClaimRule::Equals(text.to_owned());
    let contains = |text: &str| ClaimRule::Contains(text.to_owned());
    for (claim, right) in [
        ("/tid", equals("t1")),
        ("/wids", contains("b")),
        ("/email_verified", ClaimRule::Boolean(true)),
        ("/deep/er/x~1y", equals("v")),
    ] {
        assert_eq!(rule(claim, right.clone()), Ok(()), "{claim} {right:?}");
    }
    for (claim, wrong) in [
        ("/tid", equals("T1")),
        ("/tid", equals("t")),
        ("/tid", equals("t1 ")),
        ("/wids", contains("c")),
        ("/wids", contains("A")),
        ("/email_verified", ClaimRule::Boolean(false)),
        ("/absent", equals("t1")),
        ("/deep/absent/x", contains("v")),
    ] {
        assert_eq!(rule(claim, wrong.clone()), Err(TokenRefusal::ClaimNotAsRequired), "{claim} {wrong:?}");
    }
    for (claim, form) in [
        ("/wids", equals("a")),
        ("/tid", contains("t1")),
        ("/tid", ClaimRule::Boolean(true)),
        ("/number", equals("1")),
        ("/number", ClaimRule::Boolean(true)),
        ("/deep", equals("er")),
        ("/wids/0", equals("a")),
        ("/tid/x", equals("t1")),
    ] {
        assert_eq!(rule(claim, form.clone()), Err(TokenRefusal::BadClaim), "{claim} {form:?}");
    }
}

#[test]
fn a28_the_overage_of_entra_fails_closed_in_every_shape() {
    for changes in [
        json!({"groups": "-", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}}),
        json!({"groups": "-", "hasgroups": true}),
        json!({"hasgroups": true}),
        json!({"_claim_names": {"groups": "src1"}}),
        json!({"hasgroups": "true"}),
        json!({"_claim_names": null}),
    ] {
        let refused = judge(Flavor::Entra, &with(&entra(), changes.clone()));
        assert_eq!(refused, Err(TokenRefusal::GroupsOverage), "{changes}");
    }
}

fn load_error(change: impl Fn(&mut PolicyDocument)) -> LoadError {
    let mut policy = policy_document();
    change(&mut policy);
    Bundle::load(document(policy), String::new()).unwrap_err()
}

#[test]
fn rows_that_can_be_read_in_two_ways_are_not_loaded() {
    let second = |document: &mut PolicyDocument, issuer: &str, domain: &str| {
        let mut provider = of(Flavor::Spiffe);
        provider.name = name(if document.providers.len() == 1 { "one" } else { "two" });
        provider.issuer = Issuer::new(issuer).unwrap();
        provider.tokens.trust_domain = Some(domain.to_owned());
        document.providers.push(provider);
    };
    let twice = load_error(|d| {
        second(d, "https://a.example.org", "example.org");
        second(d, "https://b.example.org", "example.org");
    });
    assert_eq!(twice, LoadError::Duplicate("example.org".to_owned()));
    for error in [
        load_error(|d| d.providers[0].tokens.trust_domain = Some("example.org".to_owned())),
        load_error(|d| d.providers[0].flavor = Flavor::Spiffe),
        load_error(|d| {
            d.providers[0].tokens.scopes =
                vec![ScopeClaim { claim: "scp".to_owned(), form: ScopeForm::Array }];
        }),
        load_error(|d| d.providers[0].introspection.cache_ttl = 301),
    ] {
        assert!(matches!(error, LoadError::Bounds(_)), "{error}");
    }
}
