//! Two issuers at one workload: the same names at both are two different parties, in everything that is kept.

use serde_json::{Value, json};

use crate::support::bundle::{SERVER, document};
use crate::support::{Alg, Call, Issuer, Reply, World};

/// Everything up, with a second issuer named `partner` whose groups stand elsewhere.
async fn two() -> (World, Issuer) {
    let partner = Issuer::start().await;
    let world = World::without_bundle().await;
    let mut document = document(1, &world.issuer, world.server.port);
    let providers = document["serve"]["providers"].as_array_mut().unwrap();
    let mut second = providers[0].clone();
    second["name"] = "partner".into();
    second["issuer"] = partner.url.clone().into();
    second["caBundle"] = partner.ca.clone().into();
    second["jwksUri"] = partner.jwks_uri().into();
    second["groupsClaim"] = "/realm/roles".into();
    providers.push(second);
    world.publish(&document).await;
    (world, partner)
}

/// A token with the names of alice's at the partner: same sub, same jti, same kid, same scopes.
fn alice_at(partner: &Issuer, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = partner.claims(SERVER);
    claims["realm"] = json!({"roles": ["staff"]});
    change(&mut claims);
    partner.sign(Alg::Es256, &claims)
}

#[tokio::test]
async fn a31_d12_equal_subjects_keys_and_token_ids_of_two_issuers_never_mix() {
    let (world, partner) = two().await;
    let (alice, other) = (world.alice(), alice_at(&partner, |_| {}));
    // Both orders, and each twice: whatever is kept of one is never found by the other.
    for _ in 0..2 {
        for (token, provider, salary) in [(&alice, "corp", 200), (&other, "partner", 403)] {
            assert_eq!(world.send(Call::tool("directory.search").token(token)).await.status, 200);
            let record = world.last_record().await;
            assert_eq!((&record["provider"], &record["subject"]), (&json!(provider), &json!("alice")));
            let answer = world.send(Call::tool("leave.list").token(token)).await;
            assert_eq!(answer.status, 200);
            let answer = world.send(Call::tool("salary.get").token(token)).await;
            assert_eq!(answer.status, salary, "groups are read where this issuer has them");
        }
    }
    assert_eq!((world.issuer.fetches(), partner.fetches()), (1, 1));
    world.stop().await;
}

#[tokio::test]
async fn d6_a_key_id_of_two_issuers_is_two_keys() {
    let (world, partner) = two().await;
    for (signer, issuer) in [(&world.issuer, &partner.url), (&partner, &world.issuer.url)] {
        for alg in [Alg::Es256, Alg::Rs256, Alg::EdDsa] {
            let mut claims = signer.claims(SERVER);
            claims["iss"] = issuer.clone().into();
            let token = signer.sign(alg, &claims);
            assert_eq!(world.send(Call::list().token(&token)).await.status, 401);
            assert_eq!(world.last_record().await["reason"], "BadSignature");
        }
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn d33_a_session_of_one_issuers_alice_is_unknown_to_the_others() {
    let (world, partner) = two().await;
    let (alice, other) = (world.alice(), alice_at(&partner, |_| {}));
    world.server.behave(|seen| {
        let message: Value = serde_json::from_slice(&seen.body).ok()?;
        (message["method"] == "initialize").then(|| {
            let result = json!({"protocolVersion": "2025-06-18"});
            Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
                .header("mcp-session-id", "s-1")
        })
    });
    let opened = world.send(Call::initialize().token(&alice)).await;
    let session = opened.header("mcp-session-id").expect("the server gives sessions").to_owned();
    let list = |token: &str| Call::list().token(token).header("mcp-session-id", &session);
    assert_eq!(world.send(list(&alice)).await.status, 200);
    assert_eq!(world.send(list(&other)).await.status, 404);
    assert_eq!(world.last_record().await["reason"], "SessionOfAnotherPrincipal");
    world.stop().await;
}

#[tokio::test]
async fn a20_d8_one_issuer_that_is_down_takes_no_other_with_it() {
    let (world, partner) = two().await;
    partner.set_down(true);
    let other = alice_at(&partner, |_| {});
    assert_eq!(world.send(Call::list().token(&other)).await.status, 503);
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    partner.set_down(false);
    world.clock.advance(2);
    assert_eq!(world.send(Call::list().token(&other)).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a3_the_metadata_names_both_issuers() {
    let (world, partner) = two().await;
    let answer = world.send(Call::get("/.well-known/oauth-protected-resource/mcp")).await;
    let named = answer.json()["authorization_servers"].as_array().unwrap().clone();
    assert_eq!(named.len(), 2);
    assert!(named.contains(&json!(world.issuer.url)) && named.contains(&json!(partner.url)));
    world.stop().await;
}

#[tokio::test]
async fn a21_with_two_providers_that_take_opaque_tokens_none_is_shown_to_either() {
    let partner = Issuer::start().await;
    let world = World::without_bundle().await;
    let mut document = document(1, &world.issuer, world.server.port);
    let providers = document["serve"]["providers"].as_array_mut().unwrap();
    let mut second = providers[0].clone();
    second["name"] = "partner".into();
    second["issuer"] = partner.url.clone().into();
    providers.push(second);
    for provider in providers {
        let endpoint = format!("{}/introspect", provider["issuer"].as_str().unwrap());
        provider["introspection"] = json!({"rule": "OpaqueOnly", "endpoint": endpoint});
    }
    world.publish(&document).await;
    assert_eq!(world.send(Call::list().token("2YotnFZFEjr1zCsicMWpAA")).await.status, 401);
    assert_eq!(world.last_record().await["reason"], "TokenMalformed");
    assert!(world.issuer.introspection().asked().is_empty() && partner.introspection().asked().is_empty());
    world.stop().await;
}
