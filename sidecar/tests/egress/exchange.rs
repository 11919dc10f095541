//! From a caller's token to a downstream's, against a provider that checks every parameter and one that
//! lies.

mod cache;

use std::time::Duration;

use behalf_policy::record::Exchange;
use behalf_sidecar::exchange::{ExchangeError, Side};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::fake::Reply;
use crate::idp::{
    Asking, Idp, Instead, KEYS, METADATA, NOW, call, caller, claims, credential, network, order,
};

async fn ask(
    idp: &Idp,
    asking: &Asking,
    subject: &str,
    serial: u32,
) -> Result<(String, Exchange), ExchangeError> {
    let bundle = idp.bundle(|_| {});
    let caller = caller(subject);
    let call = call(&caller, &idp.login(subject, serial));
    let exchanged = asking.exchanger.token(&bundle, &order(&bundle, &caller), &call, asking.now()).await?;
    Ok((exchanged.token().expose_secret().to_owned(), exchanged.how()))
}

#[tokio::test]
async fn b1_b4_the_token_is_the_callers_for_the_target_with_the_asked_scope() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let (token, how) = ask(&idp, &asking, "alice", 1).await.unwrap();
    assert_eq!(how, Exchange::Made);
    let claims = claims(&token);
    assert_eq!(
        (&claims["sub"], &claims["aud"], &claims["scope"]),
        (&json!("alice"), &json!("payroll"), &json!("payroll:read"))
    );
}

#[tokio::test]
async fn b13_a_service_account_token_proves_the_client_and_is_read_at_each_use() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let file = credential("sa-token", "pod.service-account.token");
    let bundle = idp.bundle(|d| {
        d["serve"]["providers"][0]["clientAuthentication"] =
            json!({"type": "ServiceAccountToken", "file": file});
    });
    let caller = caller("alice");
    let exchange = async |serial| {
        let call = call(&caller, &idp.login("alice", serial));
        asking.exchanger.token(&bundle, &order(&bundle, &caller), &call, asking.now()).await.map(drop)
    };
    exchange(1).await.unwrap();
    credential("sa-token", "rotated.and-not-yet.known");
    assert_eq!(exchange(2).await.unwrap_err().reason(), "ClientRefused");
    credential("sa-token", " \n");
    assert_eq!(exchange(3).await.unwrap_err().reason(), "CredentialMissing");
    std::fs::remove_file(&file).unwrap();
    let missing = exchange(4).await.unwrap_err();
    assert_eq!(
        (missing.reason(), missing.side(), missing.status()),
        ("CredentialMissing", Side::Configuration, 502)
    );
    assert_eq!(idp.exchanges(), 2, "without a credential nothing is asked");
    credential("sa-token", "pod.service-account.token");
    exchange(5).await.unwrap();
}

#[tokio::test]
async fn b30_a_subject_token_that_is_nearly_over_is_not_exchanged() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    asking.clock.advance(296);
    let bundle = idp.bundle(|_| {});
    let caller = caller("alice");
    let call = call(&caller, &idp.login("alice", 1));
    let refused = asking.exchanger.token(&bundle, &order(&bundle, &caller), &call, asking.now()).await;
    let refused = refused.err().unwrap();
    assert_eq!((refused.reason(), refused.side()), ("SubjectNearExpiry", Side::Caller));
    assert_eq!(idp.exchanges(), 0);
}

#[tokio::test]
async fn an_order_of_another_caller_is_refused() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let bundle = idp.bundle(|_| {});
    let (alice, bob) = (caller("alice"), caller("bob"));
    let call = call(&bob, &idp.login("bob", 1));
    let refused = asking.exchanger.token(&bundle, &order(&bundle, &alice), &call, asking.now()).await;
    assert_eq!(refused.err().map(ExchangeError::reason), Some("OrderMismatch"));
    assert_eq!(idp.exchanges(), 0);
}

type Lie = fn(&mut Map<String, Value>, &mut Value);

#[tokio::test]
async fn b3_b4_b5_each_lie_is_discarded() {
    let lies: [(&str, Lie); 31] = [
        ("AnswerMalformed", |_, a| a["access_token"] = json!(7)),
        ("AnswerMalformed", |_, a| a["access_token"] = json!("")),
        ("AnswerMalformed", |_, a| a["expires_in"] = json!("300")),
        ("AnswerMalformed", |_, a| a["scope"] = json!(["payroll:read"])),
        ("AnswerMalformed", |c, _| drop(c.insert("exp".into(), json!("soon")))),
        ("AnswerMalformed", |c, _| drop(c.remove("exp"))),
        ("AnswerWrongTokenType", |_, a| {
            a["issued_token_type"] = json!("urn:ietf:params:oauth:token-type:id_token");
        }),
        ("AnswerWrongTokenType", |_, a| drop(a.as_object_mut().unwrap().remove("issued_token_type"))),
        ("AnswerNotBearer", |_, a| a["token_type"] = json!("N_A")),
        ("AnswerNotBearer", |_, a| a["token_type"] = json!("DPoP")),
        ("AnswerNotBearer", |_, a| drop(a.as_object_mut().unwrap().remove("token_type"))),
        ("AnswerEchoesSubjectToken", |_, a| a["access_token"] = json!("ECHO")),
        ("AnswerNotVerified", |_, a| a["access_token"] = json!("an-opaque-token")),
        ("AnswerNotVerified", |c, _| drop(c.insert("nonce".into(), json!("n")))),
        ("AnswerWrongIssuer", |c, _| drop(c.insert("iss".into(), json!("https://other.test")))),
        // Hazard 3: what the user may not have is dropped in silence, and with it the audience.
        ("AnswerWrongAudience", |c, _| drop(c.remove("aud"))),
        ("AnswerWrongAudience", |c, _| drop(c.insert("aud".into(), json!(["payroll", "ledger"])))),
        ("AnswerWrongAudience", |c, _| drop(c.insert("aud".into(), json!("payroll2")))),
        ("AnswerWrongAudience", |c, _| drop(c.insert("aud".into(), json!([])))),
        ("AnswerWrongSubject", |c, _| drop(c.insert("sub".into(), json!("bob")))),
        ("AnswerWrongSubject", |c, _| drop(c.remove("sub"))),
        ("AnswerWrongClient", |c, _| drop(c.insert("azp".into(), json!("agent-ui")))),
        // Hazards 1 and 2: the audience narrows, the scope does not.
        ("AnswerScopeBeyondAsked", |c, _| {
            drop(c.insert("scope".into(), json!("payroll:read payroll:write")));
        }),
        ("AnswerScopeBeyondAsked", |_, a| a["scope"] = json!("payroll:read hr:salary:read")),
        ("AnswerScopeNarrower", |c, _| drop(c.insert("scope".into(), json!("profile")))),
        ("AnswerScopeNarrower", |c, _| drop(c.remove("scope"))),
        ("AnswerLivesTooLong", |c, _| drop(c.insert("exp".into(), json!(NOW + 606)))),
        ("AnswerExpired", |c, _| drop(c.insert("exp".into(), json!(NOW + 5)))),
        ("AnswerExpired", |_, a| a["expires_in"] = json!(3)),
        ("AnswerNotYetValid", |c, _| drop(c.insert("nbf".into(), json!(NOW + 60)))),
        ("AnswerUnexpectedBinding", |c, _| drop(c.insert("cnf".into(), json!({"jkt": "x"})))),
    ];
    let (idp, asking) = (Idp::start().await, Asking::new());
    for (n, (reason, lie)) in lies.into_iter().enumerate() {
        idp.lies(lie);
        let refused = ask(&idp, &asking, "alice", 1).await.err();
        assert_eq!(refused.map(ExchangeError::reason), Some(reason), "lie {n}");
    }
    idp.lies(|c, a| {
        c.insert("scope".into(), json!("profile payroll:read"));
        a["scope"] = json!("payroll:read profile");
    });
    ask(&idp, &asking, "alice", 1).await.expect("the declared ignored scope may come");
}

#[tokio::test]
async fn b4_a_token_signed_by_nobody_of_the_provider_is_discarded() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let stranger = crate::idp::SigningKey::new("k1");
    let good = json!({"iss": idp.issuer(), "sub": "alice", "aud": "payroll", "azp": crate::idp::CLIENT,
        "scope": "payroll:read", "exp": NOW + 300});
    let none = stranger.sign_as(&json!({"alg": "none", "typ": "JWT"}), &good);
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    for forged in
        [stranger.sign(&good), none, unsigned, idp.key.sign_as(&json!({"alg": "HS256", "kid": "k1"}), &good)]
    {
        idp.lies(move |_, a| a["access_token"] = json!(forged));
        assert_eq!(
            ask(&idp, &asking, "alice", 1).await.err().map(ExchangeError::reason),
            Some("AnswerNotVerified")
        );
    }
}

#[tokio::test]
async fn d8_a_provider_out_of_order_is_a_failure_with_its_reason() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    ask(&idp, &asking, "warm", 1).await.unwrap();
    let elsewhere = idp.fake.url("/elsewhere");
    let replies: Vec<(&str, Instead)> = vec![
        ("ProviderServerError", Box::new(|| Reply::text(500, "text/html", "<h1>no</h1>"))),
        ("ProviderServerError", Box::new(|| Reply::text(502, "text/plain", ""))),
        ("ProviderAnswerUnreadable", Box::new(|| Reply::text(200, "text/html", "<html>log in</html>"))),
        ("ProviderAnswerUnreadable", Box::new(|| Reply::json(200, &json!(["token"])))),
        (
            "ProviderAnswerUnreadable",
            Box::new(|| Reply::text(200, "application/json", r#"{"access_token":"a","access_token":"b"}"#)),
        ),
        (
            "ProviderAnswerUnreadable",
            Box::new(|| Reply::text(200, "application/json", r#"{"access_token":"a"#)),
        ),
        ("ProviderAnswerUnreadable", Box::new(|| Reply::text(204, "application/json", ""))),
        (
            "ProviderUnreachable",
            Box::new(|| Reply::text(200, "application/json", vec![b' '; 1024 * 1024 + 1])),
        ),
        (
            "ProviderAnswerUnreadable",
            Box::new(move || {
                let response = http::Response::builder().status(307).header("location", &elsewhere);
                Reply::Whole(response.body(bytes::Bytes::new()).unwrap())
            }),
        ),
        (
            "ProviderUnreachable",
            Box::new(|| {
                let response = http::Response::builder().header("content-encoding", "gzip");
                Reply::Whole(response.body(bytes::Bytes::from_static(b"\x1f\x8b")).unwrap())
            }),
        ),
    ];
    for (n, (reason, reply)) in replies.into_iter().enumerate() {
        *idp.instead.lock().unwrap() = Some(reply);
        let refused = ask(&idp, &asking, "alice", 1).await.err();
        assert_eq!(refused.map(ExchangeError::reason), Some(reason), "reply {n}");
    }
    assert_eq!(idp.fake.count("/elsewhere"), 0, "b26: no redirect is followed");
    let kept = ask(&idp, &asking, "warm", 1).await.unwrap();
    assert_eq!(kept.1, Exchange::Cached, "what was exchanged before goes on");
}

#[tokio::test]
async fn d8_a_provider_that_never_answers_costs_a_bounded_time() {
    let idp = Idp::start().await;
    let mut network = network();
    network.total_timeout = Duration::from_millis(300);
    let asking = Asking::by(&network);
    idp.instead(|| Reply::Hang);
    // Metadata first: it is answered, whatever the machine's speed, before the limit that is tested.
    let patient = Asking::new();
    idp.instead(|| Reply::json(500, &json!({})));
    ask(&idp, &patient, "alice", 1).await.unwrap_err();
    idp.instead(|| Reply::Hang);
    let refused = ask(&idp, &asking, "alice", 1).await.unwrap_err();
    assert!(matches!(refused.reason(), "ProviderTimeout" | "MetadataUnavailable"), "{}", refused.reason());
    assert_eq!(refused.status(), 503);
}

#[tokio::test]
async fn a_provider_that_is_not_there_or_has_another_ca_is_unreachable() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let other = Idp::start().await;
    let caller = caller("alice");
    for change in [json!(other.fake.ca), Value::Null] {
        let bundle = idp.bundle(|d| {
            let provider = &mut d["serve"]["providers"][0];
            provider["tokenEndpoint"] = json!(idp.fake.url("/realms/acme/token"));
            if change.is_null() {
                provider.as_object_mut().unwrap().remove("caBundle");
            } else {
                provider["caBundle"] = change;
            }
        });
        let call = call(&caller, &idp.login("alice", 1));
        let refused = asking.exchanger.token(&bundle, &order(&bundle, &caller), &call, asking.now()).await;
        assert_eq!(refused.err().map(ExchangeError::reason), Some("ProviderUnreachable"));
    }
    assert!(idp.fake.all().is_empty(), "nothing was sent over a connection that was not trusted");
}

#[tokio::test]
async fn b6_an_overloaded_provider_is_left_alone_for_as_long_as_it_says() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.instead(|| {
        let response = http::Response::builder().status(429).header("retry-after", "7");
        Reply::Whole(response.body(bytes::Bytes::new()).unwrap())
    });
    for _ in 0..3 {
        let refused = ask(&idp, &asking, "alice", 1).await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry_after()), ("ProviderOverloaded", Some(7)));
    }
    assert_eq!(idp.exchanges(), 1);
    *idp.instead.lock().unwrap() = None;
    asking.clock.advance(7);
    ask(&idp, &asking, "alice", 1).await.unwrap();
}

#[tokio::test]
async fn d9_loopback_is_no_provider_in_a_pod() {
    let idp = Idp::start().await;
    let mut network = network();
    network.addresses = behalf_sidecar::provider::address::AddressPolicy::cluster(Vec::new());
    let asking = Asking::by(&network);
    let refused = ask(&idp, &asking, "alice", 1).await.unwrap_err();
    assert_eq!(refused.reason(), "MetadataUnavailable");
    assert!(idp.fake.all().is_empty());
}

#[tokio::test]
async fn metadata_and_keys_are_fetched_once() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    for serial in 0..5 {
        ask(&idp, &asking, "alice", serial).await.unwrap();
    }
    assert_eq!((idp.fake.count(METADATA), idp.fake.count(KEYS), idp.exchanges()), (1, 1, 5));
}
