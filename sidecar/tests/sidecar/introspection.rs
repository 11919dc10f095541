//! A provider that is asked whether a token is still good: what it says ends or narrows, never widens; what it does not
//! say is nobody's permission.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::SERVER;
use crate::support::issuer::now;
use crate::support::{Alg, Call, World, eventually};

/// A thumbprint of a key (RFC 9449 §6.1).
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const TTL: i64 = 20;

fn secret() -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = dir.join(format!("introspection-secret-{}", std::process::id()));
    if !file.exists() {
        let new = dir.join(format!(
            "introspection-secret-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&new, "s:e+c").unwrap();
        std::fs::rename(new, &file).unwrap();
    }
    file.to_string_lossy().into_owned()
}

/// Everything up, with a provider that is asked by this rule.
async fn world(rule: &Value) -> World {
    let rule = rule.clone();
    let world = World::with(|policy| {
        let provider = &mut policy["providers"][0];
        let issuer = provider["issuer"].as_str().unwrap().to_owned();
        let mut introspection =
            json!({"endpoint": format!("{issuer}/introspect"), "cacheTtl": TTL, "response": "Json"});
        introspection.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        provider["introspection"] = introspection;
        provider["clientAuthentication"] = json!({"type": "ClientSecretFile", "file": secret()});
    })
    .await;
    world.issuer.introspection().says(200, active(&world, |_| {}));
    world
}

/// An answer that says what alice's token says.
fn active(world: &World, change: impl FnOnce(&mut Value)) -> String {
    let mut answer = world.issuer.claims(SERVER);
    answer["active"] = true.into();
    answer["client_id"] = "agent-ui".into();
    answer["username"] = "alice".into();
    answer["token_type"] = "Bearer".into();
    change(&mut answer);
    answer.to_string()
}

async fn call(world: &World, tool: &str, token: &str) -> (u16, Value) {
    let answer = world.send(Call::tool(tool).token(token)).await;
    (answer.status, world.last_record().await["reason"].clone())
}

#[tokio::test]
async fn a21_the_question_is_a_form_of_the_identitys_own_client() {
    let world = world(&json!({"rule": "Always"})).await;
    let alice = world.alice();
    assert_eq!(call(&world, "directory.search", &alice).await.0, 200);
    let asked = world.issuer.introspection().asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].form, format!("token={alice}&token_type_hint=access_token"));
    assert_eq!(asked[0].accept, "application/json");
    // RFC 6749 §2.3.1: both parts form-encoded, then joined.
    assert_eq!(asked[0].authorization, "Basic aHR0cHMlM0ElMkYlMkZoci5leGFtcGxlLmNvbSUyRm1jcDpzJTNBZSUyQmM=");
    world.stop().await;
}

#[tokio::test]
async fn a21_only_a_literally_active_token_is_taken_and_no_answer_is_a_503() {
    let world = world(&json!({"rule": "Always", "cacheTtl": 0})).await;
    let alice = world.alice();
    let says = |change: fn(&mut Value)| active(&world, change);
    let table: Vec<(&str, u16, String, u16, &str)> = vec![
        ("inactive", 200, r#"{"active":false}"#.into(), 401, "TokenInactive"),
        ("inactive, with claims", 200, says(|a| a["active"] = false.into()), 401, "TokenInactive"),
        ("text for true", 200, says(|a| a["active"] = "true".into()), 503, "IntrospectionUnavailable"),
        ("1 for true", 200, says(|a| a["active"] = 1.into()), 503, "IntrospectionUnavailable"),
        ("null", 200, says(|a| a["active"] = Value::Null), 503, "IntrospectionUnavailable"),
        ("nothing", 200, r"{}".into(), 503, "IntrospectionUnavailable"),
        ("twice", 200, r#"{"active":false,"active":true}"#.into(), 503, "IntrospectionUnavailable"),
        ("a list", 200, r#"[{"active":true}]"#.into(), 503, "IntrospectionUnavailable"),
        ("HTML", 200, "<html>active</html>".into(), 503, "IntrospectionUnavailable"),
        ("cut off", 200, r#"{"active":tru"#.into(), 503, "IntrospectionUnavailable"),
        (
            "too long",
            200,
            format!("{{\"active\":true,\"x\":\"{}\"}}", "x".repeat(1 << 20)),
            503,
            "IntrospectionUnavailable",
        ),
        ("401", 401, says(|_| {}), 503, "IntrospectionUnavailable"),
        ("403", 403, says(|_| {}), 503, "IntrospectionUnavailable"),
        ("302", 302, says(|_| {}), 503, "IntrospectionUnavailable"),
        ("500", 500, says(|_| {}), 503, "IntrospectionUnavailable"),
        ("another subject", 200, says(|a| a["sub"] = "bob".into()), 503, "IntrospectionUnavailable"),
        ("another token", 200, says(|a| a["jti"] = "other".into()), 503, "IntrospectionUnavailable"),
        ("another issuer", 200, says(|a| a["iss"] = "https://evil".into()), 503, "IntrospectionUnavailable"),
        ("another client", 200, says(|a| a["client_id"] = "evil".into()), 503, "IntrospectionUnavailable"),
        (
            "scope of a wrong type",
            200,
            says(|a| a["scope"] = json!(["hr:read"])),
            503,
            "IntrospectionUnavailable",
        ),
        ("another audience", 200, says(|a| a["aud"] = "payroll".into()), 401, "WrongAudience"),
        ("expired", 200, says(|a| a["exp"] = 1.into()), 401, "TokenExpired"),
        ("not yet", 200, says(|a| a["nbf"] = (now() + 4000).into()), 401, "TokenNotYetValid"),
        (
            "bound",
            200,
            says(|a| {
                a["cnf"] = json!({"jkt": JKT});
                a["token_type"] = "DPoP".into();
            }),
            401,
            "BoundToken",
        ),
        ("bound, and said not to be", 200, says(|a| a["cnf"] = json!({"jkt": JKT})), 401, "BindingUnknown"),
        ("bound to nothing known", 200, says(|a| a["cnf"] = json!({"jkt": "x"})), 401, "BindingUnknown"),
        ("not bound, and said to be", 200, says(|a| a["token_type"] = "DPoP".into()), 401, "BindingUnknown"),
        ("a refresh token", 200, says(|a| a["typ"] = "Refresh".into()), 401, "NotAnAccessToken"),
        ("another type", 200, says(|a| a["token_type"] = "mac".into()), 401, "NotAnAccessToken"),
        ("good again", 200, says(|_| {}), 200, ""),
    ];
    for (what, status, body, expected, reason) in table {
        world.clock.advance(1);
        world.issuer.introspection().says(status, body);
        let (got, why) = call(&world, "directory.search", &alice).await;
        assert_eq!(got, expected, "{what}: {why}");
        assert_eq!(why.as_str().unwrap_or_default(), reason, "{what}");
    }
    assert_eq!(world.server.seen().len(), 1, "the refused ones reached nothing");
    world.stop().await;
}

#[tokio::test]
async fn a22_an_answer_is_kept_for_its_time_and_a_revocation_counts_within_it() {
    let world = world(&json!({"rule": "Always"})).await;
    let (alice, bob) = (world.alice(), world.bob());
    let questions = || world.issuer.introspection().asked().len();
    for _ in 0..5 {
        assert_eq!(call(&world, "directory.search", &alice).await.0, 200);
    }
    assert_eq!(questions(), 1);
    world.issuer.introspection().says(200, r#"{"active":false}"#);
    assert_eq!(call(&world, "directory.search", &bob).await.0, 401, "one token's answer is never another's");
    world.clock.advance(TTL - 1);
    assert_eq!(call(&world, "directory.search", &alice).await.0, 200);
    world.clock.advance(1);
    assert_eq!(call(&world, "directory.search", &alice).await, (401, json!("TokenInactive")));
    let before = questions();
    assert_eq!(call(&world, "directory.search", &alice).await.0, 401);
    assert_eq!(questions(), before, "kept for a moment");
    world.issuer.introspection().says(200, active(&world, |_| {}));
    world.clock.advance(5);
    assert_eq!(call(&world, "directory.search", &alice).await.0, 200, "and no longer");
    // D11: a clock that goes back by more than requests may differ revives nothing.
    world.issuer.introspection().says(200, r#"{"active":false}"#);
    world.clock.advance(-100);
    assert_eq!(call(&world, "directory.search", &alice).await.0, 401);
    world.stop().await;
}

#[tokio::test]
async fn a22_concurrent_calls_with_one_token_ask_once() {
    let world = world(&json!({"rule": "Always"})).await;
    let alice = world.alice();
    let calls = (0..20).map(|_| world.send(Call::tool("directory.search").token(&alice)));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(world.issuer.introspection().asked().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a21_an_answer_narrows_and_never_widens() {
    let world = world(&json!({"rule": "Always", "cacheTtl": 0})).await;
    let token = world.token(|claims| claims["scope"] = "hr:read hr:leave:read".into());
    let says = |change: fn(&mut Value)| world.issuer.introspection().says(200, active(&world, change));
    says(|a| {
        a["scope"] = "hr:read hr:leave:read hr:salary:read".into();
        a["groups"] = json!(["staff", "managers", "owners"]);
    });
    assert_eq!(call(&world, "salary.get", &token).await, (403, json!("InsufficientScope")));
    assert_eq!(call(&world, "leave.list", &token).await.0, 200);
    world.clock.advance(1);
    says(|a| a["scope"] = "hr:read".into());
    assert_eq!(call(&world, "leave.list", &token).await, (403, json!("InsufficientScope")));
    world.clock.advance(1);
    // A group that she left counts at once, whatever the token still says.
    says(|a| a["groups"] = json!([]));
    assert_eq!(call(&world, "leave.list", &token).await, (403, json!("NotEntitled")));
    world.stop().await;
}

#[tokio::test]
async fn a21_the_rule_says_which_tokens_are_asked_about() {
    let opaque = "2YotnFZFEjr1zCsicMWpAA";
    for (rule, jwt, long, opaques) in [
        (json!({"rule": "Never"}), 0, 0, None),
        (json!({"rule": "OpaqueOnly"}), 0, 0, Some(1)),
        (json!({"rule": "Always"}), 1, 1, Some(1)),
        (json!({"rule": "LongLived", "longLivedOver": 300}), 0, 1, None),
    ] {
        let world = world(&rule).await;
        let count = || world.issuer.introspection().asked().len();
        assert_eq!(call(&world, "directory.search", &world.alice()).await.0, 200, "{rule}");
        assert_eq!(count(), jwt, "{rule}");
        let lives_long = world.token(|claims| {
            claims["exp"] = (now() + 301).into();
            claims["jti"] = "token-1".into();
        });
        assert_eq!(call(&world, "directory.search", &lives_long).await.0, 200, "{rule}");
        assert_eq!(count(), jwt + long, "{rule}");
        let (status, reason) = call(&world, "directory.search", opaque).await;
        match opaques {
            Some(questions) => {
                assert_eq!(status, 200, "{rule} {reason}");
                assert_eq!(count(), jwt + long + questions, "{rule}");
                assert_eq!(world.last_record().await["subject"], "alice");
            }
            None => assert_eq!((status, reason), (401, json!("TokenMalformed")), "{rule}"),
        }
        let undated = world.token(|claims| drop(claims.as_object_mut().unwrap().remove("iat")));
        let before = count();
        call(&world, "directory.search", &undated).await;
        assert_eq!(
            count() - before,
            usize::from(long == 1),
            "{rule}: who does not say since when may live long"
        );
        world.stop().await;
    }
}

#[tokio::test]
async fn d3_d5_what_is_a_jwt_or_ours_is_never_shown_to_a_provider_as_opaque() {
    let world = world(&json!({"rule": "OpaqueOnly"})).await;
    let alice = world.alice();
    let (signed, _) = alice.rsplit_once('.').unwrap();
    let foreign = crate::support::Issuer::start().await;
    for token in [
        signed.to_owned(),
        format!("{signed}."),
        format!("{alice}.x.y"),
        format!("{alice}.x"),
        "a.b.c".to_owned(),
        "behalf_AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        foreign.sign(Alg::Es256, &foreign.claims(SERVER)),
        "x".repeat(17 * 1024),
    ] {
        assert_eq!(call(&world, "directory.search", &token).await.0, 401);
    }
    assert!(world.issuer.introspection().asked().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a22_a_signed_answer_is_the_providers_for_us_and_of_now() {
    let world = world(&json!({"rule": "Always", "response": "Jwt", "cacheTtl": 0})).await;
    let alice = world.alice();
    let kind = "token-introspection+jwt";
    let signed = |typ: &str, change: &dyn Fn(&mut Value)| {
        let inner: Value = serde_json::from_str(&active(&world, |_| {})).unwrap();
        let mut claims =
            json!({"iss": world.issuer.url, "aud": SERVER, "iat": now(), "token_introspection": inner});
        change(&mut claims);
        let header = json!({"alg": "ES256", "kid": "ec", "typ": typ});
        world.issuer.sign_raw(Alg::Es256, &header.to_string(), &claims.to_string())
    };
    let other = crate::support::Issuer::start().await;
    let good = signed(kind, &|_| {});
    let (head, _) = good.rsplit_once('.').unwrap();
    let table = vec![
        ("good", good.clone(), 200),
        ("inactive", signed(kind, &|c| c["token_introspection"] = json!({"active": false})), 401),
        ("plain", active(&world, |_| {}), 503),
        ("an access token", signed("at+jwt", &|_| {}), 503),
        ("no type", signed("JWT", &|_| {}), 503),
        ("for another", signed(kind, &|c| c["aud"] = "payroll".into()), 503),
        ("for nobody", signed(kind, &|c| drop(c.as_object_mut().unwrap().remove("aud"))), 503),
        ("of another", signed(kind, &|c| c["iss"] = "https://evil".into()), 503),
        ("old", signed(kind, &|c| c["iat"] = (now() - 4000).into()), 503),
        ("of no time", signed(kind, &|c| drop(c.as_object_mut().unwrap().remove("iat"))), 503),
        ("holds nothing", signed(kind, &|c| c["token_introspection"] = json!(true)), 503),
        (
            "signature of another",
            format!("{head}.{}", other.sign(Alg::Es256, &json!({})).rsplit('.').next().unwrap()),
            503,
        ),
        ("unsigned", format!("{head}."), 503),
    ];
    for (what, body, expected) in table {
        world.clock.advance(1);
        world.issuer.introspection().says(200, body);
        let (status, reason) = call(&world, "directory.search", &alice).await;
        assert_eq!(status, expected, "{what}: {reason}");
    }
    assert!(
        world
            .issuer
            .introspection()
            .asked()
            .iter()
            .all(|a| a.accept == "application/token-introspection+jwt")
    );
    world.stop().await;
}

#[tokio::test]
async fn c20_a_revoked_token_ends_its_open_streams_within_the_declared_bound() {
    let world = world(&json!({"rule": "Always"})).await;
    let alice = world.alice();
    let (answer, events) = world.open(Call::tool("salary.get").token(&alice)).await;
    world.clock.advance(TTL + 1);
    // Asked again, and still good: the stream goes on.
    eventually("the provider is asked again", async || {
        (world.issuer.introspection().asked().len() >= 2).then_some(())
    })
    .await;
    assert!(!events.is_closed());
    world.issuer.introspection().says(200, r#"{"active":false}"#);
    world.clock.advance(TTL + 1);
    eventually("the stream is ended", async || events.is_closed().then_some(())).await;
    drop(answer);
}
