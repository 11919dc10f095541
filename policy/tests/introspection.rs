//! Answers of an introspection: what counts, what does not, and what can never come of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::{Introspection, IntrospectionRule, Policy};
use behalf_policy::claims::{Binding, Caller, Thumbprint, TokenRefusal, check_claims};
use behalf_policy::ids::Timestamp;
use behalf_policy::introspection::{
    Answer, IntrospectionError, asks_about, caller_of_opaque, is_opaque, narrowed, read, takes_opaque,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::*;

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn claims() -> Map<String, Value> {
    object(
        &json!({"iss": ISSUER, "aud": URL, "sub": "alice", "azp": "agent-ui", "exp": NOW.0 + 300, "iat": NOW.0,
        "jti": "j1", "typ": "Bearer", "scope": "hr:read hr:leave:read", "groups": ["staff", "managers"]}),
    )
}

fn with_policy<T>(judge: impl FnOnce(&Policy) -> T) -> T {
    let bundle = bundle(policy_document());
    judge(policy(&bundle))
}

fn signed(policy: &Policy) -> Caller {
    check_claims(policy, &name("corp"), &policy.providers["corp"], &claims(), NOW).unwrap()
}

fn narrow(answer: &Value) -> Result<Result<Caller, TokenRefusal>, IntrospectionError> {
    with_policy(|policy| {
        narrowed(policy, &policy.providers["corp"], &signed(policy), &claims(), &object(answer), NOW)
    })
}

#[test]
fn a21_active_is_literally_true() {
    assert!(matches!(read(br#"{"active":true,"sub":"a"}"#), Ok(Answer::Active(_))));
    assert_eq!(read(br#"{"active":false,"sub":"a"}"#), Ok(Answer::Inactive));
    for bad in [
        r"{}",
        r#"{"active":"true"}"#,
        r#"{"active":1}"#,
        r#"{"active":null}"#,
        r#"{"active":[true]}"#,
        r#"{"Active":true}"#,
        r#"{"active":true,"active":true}"#,
        r#"{"active":true}x"#,
        r#"[{"active":true}]"#,
        "true",
        "",
        "<html>",
    ] {
        assert_eq!(read(bad.as_bytes()), Err(IntrospectionError::Malformed), "{bad}");
    }
}

#[test]
fn a21_an_answer_about_another_token_is_none() {
    for answer in [
        json!({"sub": "bob"}),
        json!({"iss": "https://evil.example.com"}),
        json!({"jti": "j2"}),
        json!({"azp": "agent-x"}),
    ] {
        assert_eq!(narrow(&answer), Err(IntrospectionError::AnotherToken), "{answer}");
    }
    for answer in [
        json!({"scope": ["hr:read"]}),
        json!({"exp": "soon"}),
        json!({"groups": "staff"}),
        json!({"client_id": "x"}),
    ] {
        assert_eq!(narrow(&answer), Err(IntrospectionError::Malformed), "{answer}");
    }
    for (answer, refusal) in [
        (json!({"aud": "payroll"}), TokenRefusal::WrongAudience),
        (json!({"exp": NOW.0 - 31}), TokenRefusal::Expired),
        (json!({"nbf": NOW.0 + 31}), TokenRefusal::NotYetValid),
        (json!({"hasgroups": true}), TokenRefusal::GroupsOverage),
        (json!({"token_type": "refresh_token"}), TokenRefusal::NotAnAccessToken),
        (json!({"typ": "Refresh"}), TokenRefusal::NotAnAccessToken),
        (json!({"token_type": 7}), TokenRefusal::BadClaim),
    ] {
        assert_eq!(narrow(&answer), Ok(Err(refusal)), "{answer}");
    }
}

#[test]
fn a23_an_answer_may_bind_a_token_and_never_free_one() {
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let key = Thumbprint::parse(JKT);
    let bound = |answer: &Value| {
        with_policy(|policy| {
            let mut claims = claims();
            claims.insert("cnf".to_owned(), json!({"jkt": JKT}));
            let provider = &policy.providers["corp"];
            let signed = check_claims(policy, &name("corp"), provider, &claims, NOW).unwrap();
            narrowed(policy, provider, &signed, &claims, &object(answer), NOW)
                .map(|left| left.map(|left| left.binding.key))
        })
    };
    for answer in [json!({}), json!({"cnf": {"jkt": JKT}}), json!({"token_type": "DPoP"})] {
        assert_eq!(bound(&answer), Ok(Ok(key)), "{answer}");
    }
    for another in [json!(null), json!({}), json!({"jkt": OTHER}), json!({"jkt": JKT, "x5t#S256": OTHER})] {
        assert_eq!(bound(&json!({"cnf": another})), Err(IntrospectionError::AnotherToken), "{another}");
    }
    assert_eq!(bound(&json!({"token_type": "Bearer"})), Ok(Err(TokenRefusal::BindingUnknown)));

    // A token that says nothing of it, and whose provider does.
    let left = narrow(&json!({"cnf": {"jkt": JKT}})).unwrap().unwrap();
    assert_eq!(left.binding.key, key);
    assert_eq!(narrow(&json!({})).unwrap().unwrap().binding, Binding::default());
    for answer in [
        json!({"token_type": "DPoP"}),
        json!({"cnf": {"jkt": JKT}, "token_type": "Bearer"}),
        json!({"cnf": {}}),
        json!({"cnf": {"jwk": {}}}),
    ] {
        assert_eq!(narrow(&answer), Ok(Err(TokenRefusal::BindingUnknown)), "{answer}");
    }
    let opaque = |more: Value| {
        with_policy(|policy| {
            let mut answer = claims();
            answer.extend(object(&more));
            caller_of_opaque(policy, &name("corp"), &policy.providers["corp"], answer, NOW)
                .map(|caller| caller.binding.key)
        })
    };
    assert_eq!(opaque(json!({"cnf": {"jkt": JKT}, "token_type": "DPoP"})), Ok(key));
    assert_eq!(opaque(json!({"cnf": {"jkt": JKT}})), Ok(key));
    for more in [
        json!({"token_type": "DPoP"}),
        json!({"cnf": {"jkt": JKT}, "token_type": "Bearer"}),
        json!({"cnf": {"x5t#S256": JKT}, "token_type": "DPoP"}),
        json!({"cnf": null}),
    ] {
        assert_eq!(opaque(more.clone()), Err(TokenRefusal::BindingUnknown), "{more}");
    }
}

#[test]
fn a21_an_opaque_token_is_what_its_answer_says() {
    let judge = |answer: &Value| {
        with_policy(|policy| {
            caller_of_opaque(policy, &name("corp"), &policy.providers["corp"], object(answer), NOW)
        })
    };
    let mut good = Value::Object(claims());
    good["active"] = true.into();
    assert_eq!(judge(&good).unwrap().subject.as_str(), "alice");
    let mut without_issuer = good.clone();
    without_issuer.as_object_mut().unwrap().remove("iss");
    assert_eq!(judge(&without_issuer).unwrap().provider, name("corp"));
    for (member, value, refusal) in [
        ("iss", json!("https://evil.example.com"), TokenRefusal::UnknownIssuer),
        ("aud", json!("payroll"), TokenRefusal::WrongAudience),
        ("exp", json!(NOW.0 - 31), TokenRefusal::Expired),
        ("sub", Value::Null, TokenRefusal::BadClaim),
        ("scope", json!(["hr:read"]), TokenRefusal::BadClaim),
    ] {
        let mut changed = good.clone();
        changed[member] = value;
        assert_eq!(judge(&changed), Err(refusal), "{member}");
    }
    for (member, refusal) in [
        ("aud", TokenRefusal::WrongAudience),
        ("exp", TokenRefusal::BadClaim),
        ("sub", TokenRefusal::BadClaim),
    ] {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(member);
        assert_eq!(judge(&changed), Err(refusal), "without {member}");
    }
}

#[test]
fn a21_which_tokens_are_asked_about() {
    use IntrospectionRule::{Always, LongLived, Never, OpaqueOnly};
    let by = |rule, over| Introspection { rule, long_lived_over: over, ..Introspection::default() };
    let lives = |seconds: i64| object(&json!({"iat": NOW.0, "exp": NOW.0 + seconds}));
    for (rule, claims, asked) in [
        (by(Never, 0), lives(9999), false),
        (by(OpaqueOnly, 0), lives(9999), false),
        (by(Always, 0), lives(1), true),
        (by(LongLived, 300), lives(300), false),
        (by(LongLived, 300), lives(301), true),
        (by(LongLived, 300), object(&json!({"exp": NOW.0 + 1})), true),
    ] {
        assert_eq!(asks_about(&rule, &claims), Ok(asked), "{rule:?} {claims:?}");
    }
    assert_eq!(
        asks_about(&by(LongLived, 1), &object(&json!({"exp": 1, "iat": "x"}))),
        Err(TokenRefusal::BadClaim)
    );
    assert!(with_policy(|policy| takes_opaque(policy).is_none()));
}

#[test]
fn d3_d5_what_is_opaque() {
    for opaque in ["2YotnFZFEjr1zCsicMWpAA", "ory_at_abc.def", "a.b", "a.b.c.d", "e30", "eyJhbGciOiJub25lIn0"]
    {
        assert!(is_opaque(opaque), "{opaque}");
    }
    // `{"alg":"none"}`, with whatever behind it, three segments of whatever, and our own handles.
    for jwt in [
        "eyJhbGciOiJub25lIn0.",
        "eyJhbGciOiJub25lIn0.e30",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJhbGciOiJub25lIn0.e30.a.b",
        "e30.a.b.c.d",
        "a.b.c",
        "..",
        "behalf_AAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert!(!is_opaque(jwt), "{jwt}");
    }
}

fn member() -> impl Strategy<Value = (String, Value)> {
    let scope = proptest::sample::subsequence(vec!["hr:read", "hr:leave:read", "hr:salary:read", "x"], 0..=4);
    let group = proptest::sample::subsequence(vec!["staff", "managers", "owners"], 0..=3);
    prop_oneof![
        scope.prop_map(|s| ("scope".to_owned(), json!(s.join(" ")))),
        group.prop_map(|g| ("groups".to_owned(), json!(g))),
        (NOW.0 - 100..NOW.0 + 1000).prop_map(|exp| ("exp".to_owned(), json!(exp))),
        proptest::sample::select(vec!["alice", "bob"]).prop_map(|s| ("sub".to_owned(), json!(s))),
        proptest::sample::select(vec![json!(URL), json!("x"), json!([URL, "x"])])
            .prop_map(|a| ("aud".to_owned(), a)),
        "[a-z_]{1,8}".prop_map(|name| (name, json!(1))),
        Just(("act".to_owned(), json!({"sub": "agent-ui"}))),
        Just(("gty".to_owned(), json!("client-credentials"))),
    ]
}

proptest! {
    /// Whatever a provider answers about a signed token: nothing is held that the token did not say.
    #[test]
    fn a21_no_answer_widens(members in proptest::collection::vec(member(), 0..6)) {
        let answer: Map<String, Value> = members.into_iter().collect();
        with_policy(|policy| {
            let before = signed(policy);
            let after = narrowed(policy, &policy.providers["corp"], &before, &claims(), &answer, NOW);
            if let Ok(Ok(after)) = after {
                prop_assert!(after.scopes.is_subset(&before.scopes));
                prop_assert!(after.groups.is_subset(&before.groups));
                prop_assert!(after.expires <= before.expires && after.expires > NOW);
                prop_assert_eq!((&after.subject, &after.client, after.kind), (&before.subject, &before.client, before.kind));
                prop_assert_eq!(&after.actors, &before.actors);
            }
            Ok(())
        })?;
    }

    /// Total over bytes.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0_i64..4_000_000_000) {
        let _ = read(&bytes);
        let _ = is_opaque(&String::from_utf8_lossy(&bytes));
        let _ = Timestamp(at);
    }
}
