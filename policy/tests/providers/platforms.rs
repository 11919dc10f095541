//! Tokens that a platform gives to its programs: a cluster to service accounts, SPIFFE to workloads.

use behalf_policy::bundle::{Flavor, TokenProfile};
use behalf_policy::claims::{TokenRefusal, check_header, select_provider};
use behalf_policy::ids::Issuer;
use serde_json::{Value, json};

use super::support::*;
use super::{base, judge, kubernetes, object, of, svid, with};

#[test]
fn a13_a_service_account_calls_as_itself_by_what_its_groups_hold() {
    let caller = judge(Flavor::Kubernetes, &kubernetes()).unwrap();
    assert_eq!(caller.subject.as_str(), "system:serviceaccount:hr:bot");
    assert_eq!(caller.client.unwrap().as_str(), "system:serviceaccount:hr:bot");
    assert_eq!(
        caller.groups,
        groups(&["system:serviceaccount:hr:bot", "system:serviceaccounts:hr", "system:serviceaccounts"])
    );
    assert_eq!(caller.scopes, scopes(&["jobs:run"]));
    let bound = |changes: Value| with(&kubernetes(), changes);
    for (claims, refusal) in [
        (bound(json!({"sub": "alice"})), TokenRefusal::BadClaim),
        (bound(json!({"sub": "system:serviceaccount:hr"})), TokenRefusal::BadClaim),
        (bound(json!({"sub": "system:serviceaccount:hr:bot:x"})), TokenRefusal::BadClaim),
        (bound(json!({"sub": "system:serviceaccount:other:bot"})), TokenRefusal::BadClaim),
        (bound(json!({"sub": "system:serviceaccount:hr:boss"})), TokenRefusal::BadClaim),
        (bound(json!({"kubernetes.io": "-"})), TokenRefusal::BadClaim),
        (bound(json!({"kubernetes.io": "hr"})), TokenRefusal::BadClaim),
        (bound(json!({"kubernetes.io": {"namespace": "hr"}})), TokenRefusal::BadClaim),
        // The old, unbound kind from a Secret.
        (
            bound(json!({"kubernetes.io": "-", "kubernetes.io/serviceaccount/namespace": "hr", "exp": "-"})),
            TokenRefusal::BadClaim,
        ),
        (bound(json!({"aud": ["https://kubernetes.default.svc"]})), TokenRefusal::WrongAudience),
        (bound(json!({"iss": "-"})), TokenRefusal::UnknownIssuer),
    ] {
        assert_eq!(judge(Flavor::Kubernetes, &claims), Err(refusal), "{claims}");
    }
}

#[test]
fn a13_a_spiffe_identity_is_one_of_the_pinned_trust_domain() {
    for claims in
        [svid(), with(&svid(), json!({"iss": ISSUER})), with(&svid(), json!({"jti": "j", "iat": "-"}))]
    {
        let caller = judge(Flavor::Spiffe, &claims).unwrap();
        assert_eq!(caller.groups, groups(&["spiffe://example.org/hr/bot", "spiffe://example.org"]));
        assert_eq!(caller.client.unwrap().as_str(), "spiffe://example.org/hr/bot");
        assert_eq!(caller.scopes, scopes(&["jobs:run"]));
    }
    for id in [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org//bot",
        "spiffe://example.org/hr/../bot",
        "spiffe://example.org/hr/./bot",
        "spiffe://example.org/hr/bot/",
        "spiffe://EXAMPLE.org/hr/bot",
        "spiffe://example.org:443/hr/bot",
        "spiffe://u@example.org/hr/bot",
        "spiffe://example.org/hr%2fbot",
        "spiffe://example.org/hr/bot?x",
        "SPIFFE://example.org/hr/bot",
        "https://example.org/hr/bot",
        "alice",
    ] {
        let refused = judge(Flavor::Spiffe, &with(&svid(), json!({"sub": id})));
        assert_eq!(refused, Err(TokenRefusal::BadClaim), "{id}");
    }
    for (claims, refusal) in [
        (with(&svid(), json!({"sub": "spiffe://evil.org/hr/bot"})), TokenRefusal::UnknownIssuer),
        (with(&svid(), json!({"sub": "spiffe://example.org.evil/hr/bot"})), TokenRefusal::UnknownIssuer),
        (with(&svid(), json!({"iss": "https://evil.org"})), TokenRefusal::UnknownIssuer),
        (with(&svid(), json!({"iss": 7})), TokenRefusal::BadClaim),
        (with(&svid(), json!({"aud": "-"})), TokenRefusal::WrongAudience),
        (with(&svid(), json!({"exp": "-"})), TokenRefusal::BadClaim),
    ] {
        assert_eq!(judge(Flavor::Spiffe, &claims), Err(refusal), "{claims}");
    }
}

#[test]
fn a31_a_token_without_issuer_selects_by_trust_domain_and_only_there() {
    let mut document = policy_document();
    let mut spire = of(Flavor::Spiffe);
    spire.name = name("spire");
    spire.issuer = Issuer::new("https://oidc.example.org").unwrap();
    document.providers.push(spire);
    let loaded = bundle(document);
    let select = |claims: &Value| {
        select_provider(policy(&loaded), &object(claims)).map(|(name, _)| name.as_str().to_owned())
    };
    assert_eq!(select(&svid()).unwrap(), "spire");
    assert_eq!(
        select(&with(&svid(), json!({"iss": ISSUER}))).unwrap(),
        "corp",
        "who signed must be who is named"
    );
    assert_eq!(
        select(&with(&svid(), json!({"sub": "spiffe://evil.org/a"}))),
        Err(TokenRefusal::UnknownIssuer)
    );
    assert_eq!(select(&with(&base(), json!({"iss": "-"}))), Err(TokenRefusal::BadClaim));
}

#[test]
fn a8_headers_of_platforms_have_a_type_of_their_own() {
    use TokenProfile::{Relaxed, Strict};
    let judge = |flavor, profile, typ: Option<&str>| {
        let mut provider = of(flavor);
        provider.profile = profile;
        let mut header = object(&json!({"alg": "RS256"}));
        if let Some(typ) = typ {
            header.insert("typ".to_owned(), json!(typ));
        }
        check_header(&provider, &header).map(drop)
    };
    for (flavor, typ, taken) in [
        (Flavor::Kubernetes, None, true),
        (Flavor::Kubernetes, Some("JWT"), true),
        (Flavor::Kubernetes, Some("at+jwt"), false),
        (Flavor::Spiffe, None, true),
        (Flavor::Spiffe, Some("JWT"), true),
        (Flavor::Spiffe, Some("JOSE"), true),
        (Flavor::Spiffe, Some("dpop+jwt"), false),
    ] {
        for profile in [Strict, Relaxed] {
            assert_eq!(judge(flavor, profile, typ).is_ok(), taken, "{flavor:?} {typ:?}");
        }
    }
    assert_eq!(
        judge(Flavor::Okta, Relaxed, Some("application/okta-internal-at+jwt")),
        Err(TokenRefusal::NotAnAccessToken)
    );
}
