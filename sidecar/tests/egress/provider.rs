//! A provider's keys: found, rotated, retired, and kept for a bounded time when it is down.

use behalf_policy::bundle::Algorithm;
use behalf_policy::claims::TokenRefusal;
use behalf_sidecar::provider::{KeysError, VerifyError};
use serde_json::json;

use crate::fake::Reply;
use crate::idp::{Asking, Idp, KEYS, METADATA, SigningKey, provider};

async fn key(idp: &Idp, asking: &Asking, id: &str) -> Result<usize, KeysError> {
    let bundle = idp.bundle(|_| {});
    let keys = asking.providers.keys(provider(&bundle), Some(id), Algorithm::ES256, asking.now()).await?;
    Ok(keys.len())
}

#[tokio::test]
async fn a20_d7_a_flood_of_unknown_key_ids_makes_one_fetch_per_cooldown() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    assert_eq!(key(&idp, &asking, "k1").await, Ok(1));
    for round in 1..=2 {
        asking.clock.advance(30);
        let flood = (0..500).map(|n| {
            let (idp, asking) = (&idp, &asking);
            async move { key(idp, asking, &format!("unknown-{n}")).await }
        });
        for result in futures::future::join_all(flood).await {
            assert_eq!(result, Err(KeysError::NoSuchKey));
        }
        assert_eq!(idp.fake.count(KEYS), 1 + round);
        assert_eq!(key(&idp, &asking, "k1").await, Ok(1), "the known key is not harmed");
    }
}

#[tokio::test]
async fn a20_concurrent_first_requests_make_one_fetch() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let all = futures::future::join_all((0..50).map(|_| key(&idp, &asking, "k1"))).await;
    assert!(all.iter().all(|r| *r == Ok(1)));
    assert_eq!((idp.fake.count(METADATA), idp.fake.count(KEYS)), (1, 1));
}

#[tokio::test]
async fn a20_rotation_is_followed_and_retired_keys_go() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    assert_eq!(key(&idp, &asking, "k1").await, Ok(1));
    *idp.published.lock().unwrap() = json!({"keys": [SigningKey::new("k2").jwk()]});
    assert_eq!(key(&idp, &asking, "k2").await, Err(KeysError::NoSuchKey), "within the cool-down");
    asking.clock.advance(30);
    assert_eq!(key(&idp, &asking, "k2").await, Ok(1));
    assert_eq!(key(&idp, &asking, "k1").await, Err(KeysError::NoSuchKey));
}

#[tokio::test]
async fn a20_keys_outlive_an_outage_for_a_bounded_time() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    assert_eq!(key(&idp, &asking, "k1").await, Ok(1));
    idp.fake.answer_with(|_| Reply::text(500, "text/plain", "down"));
    asking.clock.advance(3600);
    assert_eq!(key(&idp, &asking, "k1").await, Ok(1));
    asking.clock.advance(1);
    assert_eq!(key(&idp, &asking, "k1").await, Err(KeysError::Unavailable));
}

#[tokio::test]
async fn a20_old_keys_are_renewed_behind_the_requests() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    assert_eq!(key(&idp, &asking, "k1").await, Ok(1));
    *idp.published.lock().unwrap() = json!({"keys": []});
    asking.clock.advance(301);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while key(&idp, &asking, "k1").await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the retired key is still used");
        tokio::task::yield_now().await;
    }
    assert_eq!(idp.fake.count(KEYS), 2);
}

#[tokio::test]
async fn d8_key_sets_that_are_none_leave_nothing_to_verify_with() {
    let idp = Idp::start().await;
    let issuer = idp.issuer();
    let bodies: [(u16, Vec<u8>); 7] = [
        (200, b"<html>".to_vec()),
        (200, b"{\"keys\":".to_vec()),
        (200, b"{\"keys\":[],\"keys\":[]}".to_vec()),
        (200, vec![b' '; 1024 * 1024 + 1]),
        (302, Vec::new()),
        (404, Vec::new()),
        (500, Vec::new()),
    ];
    for (status, body) in bodies {
        let issuer = issuer.clone();
        idp.fake.answer_with(move |seen| match seen.target.as_str() {
            METADATA => Reply::json(200, &json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})),
            _ => Reply::text(status, "application/json", body.clone()),
        });
        let asking = Asking::new();
        assert_eq!(key(&idp, &asking, "k1").await, Err(KeysError::Unavailable), "{status}");
        let fetches = idp.fake.count(KEYS);
        assert_eq!(key(&idp, &asking, "k1").await, Err(KeysError::Unavailable), "{status}");
        assert_eq!(idp.fake.count(KEYS), fetches, "not asked again at once");
    }
}

#[tokio::test]
async fn a19_the_second_and_third_place_are_asked_only_when_there_is_none_before() {
    let idp = Idp::start().await;
    let issuer = idp.issuer();
    let places = [
        METADATA,
        "/.well-known/openid-configuration/realms/acme",
        "/realms/acme/.well-known/openid-configuration",
    ];
    for place in places {
        let (issuer, keys) = (issuer.clone(), json!({"keys": [idp.key.jwk()]}));
        idp.fake.answer_with(move |seen| {
            if seen.target == place {
                Reply::json(200, &json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
            } else if seen.target == KEYS {
                Reply::json(200, &keys)
            } else {
                Reply::text(404, "text/html", "<h1>no</h1>")
            }
        });
        idp.fake.seen.lock().unwrap().clear();
        assert_eq!(key(&idp, &Asking::new(), "k1").await, Ok(1), "{place}");
        let asked: Vec<_> = idp.fake.all().into_iter().map(|s| s.target).collect();
        let upto = places.iter().position(|p| *p == place).unwrap();
        let expected: Vec<_> = places[..=upto].iter().copied().chain([KEYS]).collect();
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a19_metadata_of_another_issuer_or_with_plain_endpoints_is_not_used() {
    let idp = Idp::start().await;
    let issuer = idp.issuer();
    for document in [
        json!({"issuer": format!("{issuer}/"), "jwks_uri": format!("{issuer}/keys")}),
        json!({"issuer": "https://evil.test", "jwks_uri": format!("{issuer}/keys")}),
        json!({"jwks_uri": format!("{issuer}/keys")}),
        json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys").replace("https", "http")}),
        json!({"issuer": issuer}),
    ] {
        let keys = json!({"keys": [idp.key.jwk()]});
        let shown = document.to_string();
        idp.fake.answer_with(move |seen| match seen.target.as_str() {
            KEYS => Reply::json(200, &keys),
            _ => Reply::json(200, &document),
        });
        idp.fake.seen.lock().unwrap().clear();
        assert_eq!(key(&idp, &Asking::new(), "k1").await, Err(KeysError::Unavailable), "{shown}");
        assert_eq!(idp.fake.count(KEYS), 0, "{shown}");
    }
}

#[tokio::test]
async fn a7_verify_takes_only_what_a_key_of_the_provider_signed() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let bundle = idp.bundle(|_| {});
    let verify = async |token: &str| asking.providers.verify(provider(&bundle), token, asking.now()).await;
    let good = idp.login("alice", 1);
    assert_eq!(verify(&good).await.unwrap()["sub"], "alice");
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    let other = idp.login("bob", 1);
    let others_payload = other.split('.').nth(1).unwrap();
    let no_id = idp.key.sign_as(&json!({"alg": "ES256"}), &json!({"sub": "alice"}));
    assert!(verify(&no_id).await.is_ok(), "without a key id, the keys of the algorithm are tried");
    for (token, refusal) in [
        (format!("{header}.{others_payload}.{signature}"), TokenRefusal::BadSignature),
        (SigningKey::new("k1").sign(&json!({"sub": "alice"})), TokenRefusal::BadSignature),
        (SigningKey::new("k9").sign(&json!({"sub": "alice"})), TokenRefusal::UnknownKey),
        (format!("{input}."), TokenRefusal::Malformed),
        (input.to_owned(), TokenRefusal::Malformed),
        (format!("{good}."), TokenRefusal::Malformed),
        (format!("{good}="), TokenRefusal::Malformed),
        (format!("{input}.{signature}AA"), TokenRefusal::BadSignature),
        (format!("{payload}.{header}.{signature}"), TokenRefusal::AlgorithmNotAllowed),
        (idp.key.sign_as(&json!({"alg": "none"}), &json!({})), TokenRefusal::AlgorithmNotAllowed),
        (
            idp.key.sign_as(&json!({"alg": "HS256", "kid": "k1"}), &json!({})),
            TokenRefusal::AlgorithmNotAllowed,
        ),
        (
            idp.key.sign_as(&json!({"alg": "RS256", "kid": "k1"}), &json!({})),
            TokenRefusal::AlgorithmNotAllowed,
        ),
        ("a".repeat(17 * 1024), TokenRefusal::TooLarge),
    ] {
        assert_eq!(verify(&token).await.unwrap_err(), VerifyError::Token(refusal), "{token}");
    }
}
