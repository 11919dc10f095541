//! A provider that is down, slow or lies, at each of the places it is asked at: nothing it does takes more than the time and
//! memory allowed for an answer, and what it said before counts no longer than its row declares.

use std::time::Duration;

use behalf_policy::bundle::{Algorithm, Bundle};
use behalf_policy::claims::TokenRefusal;
use behalf_policy::ids::Timestamp;
use behalf_sidecar::bundle_source::Active;
use behalf_sidecar::metrics::Metrics;
use behalf_sidecar::provider::KeysError;
use behalf_sidecar::token::{TokenError, Verifier};
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::fake::{Fake, Reply};
use crate::idp::{Asking, CLIENT, Idp, KEYS, METADATA, NOW, SigningKey, network, provider};

const INTROSPECT: &str = "/realms/acme/introspect";
const ELSEWHERE: &str = "/elsewhere";

/// The ways of a provider that is no good.
const LIES: [&str; 14] = [
    "hangs",
    "one byte",
    "status 500",
    "status 404",
    "redirects",
    "100 MB",
    "100 MB, declared",
    "HTML",
    "cut off",
    "another JSON",
    "a list",
    "a bomb",
    "duplicate members",
    "empty",
];

fn whole(body: impl Into<Bytes>) -> Reply {
    Reply::text(200, "application/json", body)
}

fn lie(what: &str) -> Reply {
    let megabyte = || Bytes::from(vec![b' '; 1024 * 1024]);
    match what {
        "hangs" => Reply::Hang,
        "one byte" => Reply::Trickle,
        "status 500" => Reply::text(500, "text/plain", "down"),
        "status 404" => Reply::text(404, "text/html", "<h1>no</h1>"),
        "redirects" => Reply::Whole(
            Response::builder().status(302).header("location", ELSEWHERE).body(Bytes::new()).unwrap(),
        ),
        "100 MB" => Reply::Chunks(vec![megabyte(); 100]),
        "100 MB, declared" => Reply::Whole(
            Response::builder().status(200).body(Bytes::from(vec![b' '; 2 * 1024 * 1024])).unwrap(),
        ),
        "HTML" => Reply::text(200, "text/html", "<html><body>Log in</body></html>"),
        "cut off" => whole("{\"issuer\":\"http"),
        "another JSON" => whole("{\"keys\":7,\"issuer\":7,\"active\":7}"),
        "a list" => whole("[]"),
        // Ten bytes that a reader would blow up: the encoding was not asked for.
        "a bomb" => Reply::Whole(
            Response::builder()
                .status(200)
                .header("content-encoding", "gzip")
                .body(Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]))
                .unwrap(),
        ),
        "duplicate members" => whole(
            "{\"keys\":[],\"keys\":[],\"issuer\":\"a\",\"issuer\":\"b\",\"active\":true,\"active\":true}",
        ),
        "empty" => whole(""),
        other => panic!("{other}"),
    }
}

/// The good provider, which lies at one place.
fn good_but(fake: &Fake, issuer: &str, keys: &Value, place: &'static str, what: &'static str) {
    let (issuer, keys) = (issuer.to_owned(), keys.clone());
    fake.answer_with(move |seen| match seen.target.as_str() {
        place_ if place_ == place || (place == METADATA && place_.contains("well-known")) => lie(what),
        METADATA => Reply::json(
            200,
            &json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
                "introspection_endpoint": format!("{issuer}/introspect")}),
        ),
        KEYS => Reply::json(200, &keys),
        INTROSPECT => Reply::json(200, &json!({"active": true})),
        _ => Reply::text(404, "text/plain", "no"),
    });
}

/// One that gives up soon: how long it may take is a number of the configuration, not of a test.
fn asking() -> Asking {
    let mut network = network();
    network.total_timeout = Duration::from_millis(300);
    Asking::by(&network)
}

struct Verifying {
    asking: Asking,
    verifier: Verifier,
    active: Active,
}

impl Verifying {
    fn new(asking: Asking, bundle: Bundle) -> Self {
        let verifier = Verifier::new(asking.providers.clone(), Arc::new(Metrics::new()));
        Self { asking, verifier, active: Active::new(bundle).unwrap() }
    }

    async fn verify(&self, token: &str) -> Result<(), TokenError> {
        let policy = self.active.bundle.policy().unwrap();
        self.verifier.caller(&self.active, policy, token, self.asking.now()).await.map(drop)
    }
}

fn introspected(idp: &Idp) -> Bundle {
    idp.bundle(|document| {
        document["serve"]["providers"][0]["introspection"] = json!({"rule": "Always", "cacheTtl": 10});
    })
}

#[tokio::test]
async fn d8_a_provider_that_lies_from_the_start_is_a_503_and_never_a_verdict() {
    let idp = Idp::start().await;
    let keys = idp.published.lock().unwrap().clone();
    for place in [METADATA, KEYS, INTROSPECT] {
        for what in LIES {
            good_but(&idp.fake, &idp.issuer(), &keys, place, what);
            let world = Verifying::new(asking(), introspected(&idp));
            let refused = world.verify(&idp.login("alice", 1)).await.unwrap_err();
            let unavailable = matches!(refused, TokenError::KeysUnavailable | TokenError::NotAnswered);
            assert!(unavailable, "{place} {what}: {refused:?}");
        }
    }
    assert_eq!(idp.fake.count(ELSEWHERE), 0, "no redirect is followed");
}

#[tokio::test]
async fn d8_keys_outlive_every_lie_as_long_as_the_row_says_and_no_longer() {
    let idp = Idp::start().await;
    let keys = idp.published.lock().unwrap().clone();
    let bundle = idp.bundle(|_| {});
    let of = provider(&bundle);
    for what in LIES {
        let asking = asking();
        let key = async || {
            asking.providers.keys(of, Some("k1"), Algorithm::ES256, asking.now()).await.map(|keys| keys.len())
        };
        good_but(&idp.fake, &idp.issuer(), &keys, "nowhere", what);
        assert_eq!(key().await, Ok(1), "{what}");
        good_but(&idp.fake, &idp.issuer(), &keys, KEYS, what);
        asking.clock.advance(i64::from(of.keys_max_staleness));
        assert_eq!(key().await, Ok(1), "{what}: its last good keys are as old as they may be");
        asking.clock.advance(1);
        assert_eq!(key().await, Err(KeysError::Unavailable), "{what}");
        good_but(&idp.fake, &idp.issuer(), &keys, "nowhere", what);
        asking.clock.advance(i64::from(of.keys_cooldown));
        assert_eq!(key().await, Ok(1), "{what}: it comes back by itself");
    }
}

#[tokio::test]
async fn a21_d8_an_answer_outlives_every_lie_as_long_as_the_row_says_and_no_longer() {
    let idp = Idp::start().await;
    let keys = idp.published.lock().unwrap().clone();
    for what in LIES {
        good_but(&idp.fake, &idp.issuer(), &keys, "nowhere", what);
        let world = Verifying::new(asking(), introspected(&idp));
        let token = idp.login("alice", 2);
        assert_eq!(world.verify(&token).await, Ok(()), "{what}");
        good_but(&idp.fake, &idp.issuer(), &keys, INTROSPECT, what);
        world.asking.clock.advance(9);
        assert_eq!(world.verify(&token).await, Ok(()), "{what}");
        world.asking.clock.advance(1);
        assert_eq!(world.verify(&token).await, Err(TokenError::NotAnswered), "{what}");
        good_but(&idp.fake, &idp.issuer(), &keys, "nowhere", what);
        assert_eq!(world.verify(&token).await, Ok(()), "{what}: no verdict was kept of it");
    }
}

#[tokio::test]
async fn d8_a_provider_that_refuses_connections_is_a_503() {
    let idp = Idp::start().await;
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for member in ["jwksUri", "introspection"] {
        let gone = format!("https://localhost:{free}/x");
        let bundle = idp.bundle(|document| {
            let provider = &mut document["serve"]["providers"][0];
            provider["introspection"] = json!({"rule": "Always", "endpoint": gone});
            if member == "jwksUri" {
                provider["jwksUri"] = gone.clone().into();
            }
        });
        let refused = Verifying::new(asking(), bundle).verify(&idp.login("alice", 1)).await.unwrap_err();
        assert!(matches!(refused, TokenError::KeysUnavailable | TokenError::NotAnswered), "{refused:?}");
    }
}

/// The fetches of keys that a flood of unknown key ids makes, by tokens that are signed by a stranger.
async fn flood(idp: &Idp, count: usize) -> usize {
    let world = Verifying::new(Asking::new(), idp.bundle(|_| {}));
    let stranger = SigningKey::new("stranger");
    let claims =
        json!({"iss": idp.issuer(), "sub": "alice", "aud": CLIENT, "azp": "agent-ui", "exp": NOW + 300});
    let before = idp.fake.count(KEYS);
    let calls = (0..count).map(|n| {
        let token = stranger.sign_as(&json!({"alg": "ES256", "kid": format!("k-{n}")}), &claims);
        let world = &world;
        async move { world.verify(&token).await }
    });
    let unknown = Err(TokenError::Refused(TokenRefusal::UnknownKey));
    for refused in futures::future::join_all(calls).await {
        assert!(refused == unknown || refused == Err(TokenError::KeysUnavailable), "{refused:?}");
    }
    idp.fake.count(KEYS) - before
}

#[tokio::test]
async fn d7_ten_thousand_unknown_key_ids_make_one_fetch_whatever_the_key_set_holds() {
    let idp = Idp::start().await;
    assert_eq!(flood(&idp, 10_000).await, 1, "with keys");
    *idp.published.lock().unwrap() = json!({"keys": []});
    assert_eq!(flood(&idp, 2_000).await, 1, "with an empty set");
    *idp.published.lock().unwrap() = json!({"keys": "none"});
    assert_eq!(flood(&idp, 2_000).await, 1, "with none at all");
}

#[tokio::test]
async fn d7_a_rotation_under_load_loses_no_valid_call() {
    let idp = Idp::start().await;
    let world = Verifying::new(Asking::new(), idp.bundle(|_| {}));
    let token = |key: &SigningKey, n: usize| {
        key.sign(&json!({"iss": idp.issuer(), "sub": format!("user-{n}"), "aud": CLIENT, "azp": "agent-ui",
            "jti": format!("{}-{n}", key.id), "exp": NOW + 3000}))
    };
    let all = async |key: &SigningKey, range: std::ops::Range<usize>| {
        let calls = range.map(|n| {
            let (token, world) = (token(key, n), &world);
            async move { world.verify(&token).await }
        });
        futures::future::join_all(calls).await
    };
    let (old, new) = (Arc::clone(&idp.key), SigningKey::new("k2"));
    assert!(all(&old, 0..200).await.iter().all(Result::is_ok));
    // The provider publishes the next key beside the old one, then signs by it, then retires the old one: each step while
    // calls come in, strangers' among them.
    world.asking.clock.advance(30);
    *idp.published.lock().unwrap() = json!({"keys": [old.jwk(), new.jwk()]});
    let stranger = SigningKey::new("stranger");
    let (a, b, c) = tokio::join!(all(&old, 200..400), all(&new, 0..200), all(&stranger, 0..50));
    assert!(a.iter().chain(&b).all(Result::is_ok), "a valid call was lost");
    assert!(c.iter().all(Result::is_err));
    world.asking.clock.advance(30);
    *idp.published.lock().unwrap() = json!({"keys": [new.jwk()]});
    assert!(all(&new, 200..400).await.iter().all(Result::is_ok));
    // Fetched anew when its keys are five minutes old at the latest: the old key goes with its tokens.
    world.asking.clock.advance(301);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while world.verify(&token(&old, 0)).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the retired key is still used");
        tokio::task::yield_now().await;
    }
    assert!(all(&new, 400..450).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a31_an_unknown_issuer_causes_no_request_at_all() {
    let idp = Idp::start().await;
    let world = Verifying::new(Asking::new(), introspected(&idp));
    let token = idp
        .key
        .sign(&json!({"iss": "https://localhost:1/evil", "sub": "alice", "aud": CLIENT, "exp": NOW + 300}));
    assert_eq!(world.verify(&token).await, Err(TokenError::Refused(TokenRefusal::UnknownIssuer)));
    assert!(idp.fake.all().is_empty());
    assert_eq!(world.asking.now(), Timestamp(NOW));
}
