//! Tokens that are bound to a key (RFC 9449): taken with a proof made for this one request, and in no other way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use behalf_sidecar::dpop::Capacity;
use http::Method;
use serde_json::{Value, json};

use crate::support::bundle::{SERVER, document};
use crate::support::holder::Holder;
use crate::support::issuer::now;
use crate::support::{Answer, Call, World};

const METADATA: &str =
    "resource_metadata=\"https://hr.example.com/.well-known/oauth-protected-resource/mcp\"";
const ALGS: &str = "algs=\"ES256 ES384 EdDSA Ed25519 PS256 PS384 PS512 RS256 RS384 RS512\"";

pub(crate) fn search() -> Call {
    Call::tool("directory.search")
}

/// Everything up, with this rule on the provider's tokens.
pub(crate) async fn world(mode: &str, max_age: u32, nonce: &str) -> World {
    let rule = json!({"mode": mode, "maxAge": max_age, "nonce": nonce});
    World::with(|policy| policy["providers"][0]["tokens"] = json!({"senderConstraint": rule})).await
}

/// Sends a call that has to be refused, and gives its answer after looking at its record.
pub(crate) async fn refused(world: &World, call: Call, reason: &str) -> Answer {
    let answer = world.send(call).await;
    let record = world.last_record().await;
    assert_eq!((&record["reason"], &record["decision"]), (&json!(reason), &json!("Refuse")), "{answer:?}");
    assert!(record.get("tool").is_none_or(|tool| tool == "directory.search"));
    answer
}

pub(crate) fn dpop_challenge(error: &str) -> [String; 2] {
    let scope = if error == "invalid_token" { "scope=\"hr:read\", " } else { "" };
    [format!("DPoP error=\"{error}\", {scope}{METADATA}, {ALGS}"), format!("Bearer {METADATA}")]
}

#[tokio::test]
async fn a23_a_bound_token_is_taken_with_a_proof_for_each_request() {
    let world = World::start().await;
    let holder = Holder::new();
    let token = holder.token(&world);
    for scheme in ["DPoP", "dpop", "DPOP"] {
        let call = search().header("authorization", &format!("{scheme} {token}"));
        let answer = world.send(call.header("dpop", &holder.proof(&token, |_| {}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let record = world.last_record().await;
        assert_eq!((&record["subject"], &record["decision"]), (&json!("alice"), &json!("Permit")));
        assert_eq!(record["tokenBoundTo"], json!(["Key"]));
        assert_eq!(answer.header("dpop-nonce"), None);
    }
    // Other methods need proofs of their own.
    for (call, method) in [(Call::get("/mcp"), "GET"), (Call::delete("/mcp"), "DELETE")] {
        let other = holder.proof(&token, |_| {});
        let answer = refused(&world, call.clone().proved(&token, &other), "ProofOfAnotherMethod").await;
        assert_eq!(answer.status, 401);
        let own = holder.proof(&token, |claims| claims["htm"] = method.into());
        assert_ne!(world.send(call.proved(&token, &own)).await.status, 401, "{method}");
    }
    for seen in world.server.seen() {
        for name in ["dpop", "authorization"] {
            assert!(!seen.headers.contains_key(name), "{name} reached the server");
        }
    }
    // Nobody's bearer token says of itself that it is bound.
    let answer = world.send(search().token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.last_record().await.get("tokenBoundTo"), None);
    world.stop().await;
}

#[tokio::test]
async fn a24_a_bound_token_is_no_bearer_token_and_a_bearer_token_is_not_bound() {
    let world = World::start().await;
    let holder = Holder::new();
    let token = holder.token(&world);
    let proof = holder.proof(&token, |_| {});
    // Taken once, and thus remembered: the next request still has to prove it.
    assert_eq!(world.send(search().proved(&token, &proof)).await.status, 200);
    for call in [search().token(&token), search().token(&token).header("dpop", &holder.proof(&token, |_| {}))]
    {
        let answer = refused(&world, call, "BoundToken").await;
        assert_eq!(answer.status, 401);
        let error = format!("Bearer error=\"invalid_token\", scope=\"hr:read\", {METADATA}");
        assert_eq!(answer.challenges(), [error, format!("DPoP {METADATA}, {ALGS}")]);
    }
    let answer =
        refused(&world, search().header("authorization", &format!("DPoP {token}")), "ProofMissing").await;
    assert_eq!(answer.challenges(), dpop_challenge("invalid_dpop_proof"));

    let bearer = world.alice();
    let answer =
        refused(&world, search().proved(&bearer, &holder.proof(&bearer, |_| {})), "TokenNotBound").await;
    assert_eq!(answer.challenges(), dpop_challenge("invalid_token"));
    // Somebody else's key.
    let thief = Holder::new();
    let answer =
        refused(&world, search().proved(&token, &thief.proof(&token, |_| {})), "BoundToOtherKey").await;
    assert_eq!(answer.challenges(), dpop_challenge("invalid_token"));
    assert_eq!(answer.reason(), "InvalidToken");
    assert_eq!(world.server.seen().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a25_without_credentials_both_schemes_are_named_and_two_at_once_are_told_in_both() {
    let world = World::start().await;
    let answer = world.send(search()).await;
    assert_eq!(
        answer.challenges(),
        [format!("Bearer scope=\"hr:read\", {METADATA}"), format!("DPoP {METADATA}, {ALGS}")]
    );
    let call = search().token("a").header("authorization", "DPoP b");
    let answer = refused(&world, call, "SeveralCredentials").await;
    assert_eq!(answer.status, 400);
    let error = format!("error=\"invalid_request\", {METADATA}");
    assert_eq!(answer.challenges(), [format!("Bearer {error}"), format!("DPoP {error}, {ALGS}")]);
    // What a token lacks is told in the scheme it came by.
    let holder = Holder::new();
    let token = world.token(|claims| {
        claims["cnf"] = json!({"jkt": holder.thumbprint()});
        claims["scope"] = "hr:read".into();
    });
    let answer = world.send(Call::tool("salary.get").proved(&token, &holder.proof(&token, |_| {}))).await;
    assert_eq!(answer.status, 403);
    let [challenge] = &answer.challenges()[..] else { panic!("{answer:?}") };
    assert!(challenge.starts_with("DPoP error=\"insufficient_scope\", scope=\""), "{challenge}");
    world.stop().await;
}

#[tokio::test]
async fn a4_a25_where_every_token_has_to_be_bound_to_a_key_no_other_scheme_is_offered() {
    let world = world("DPoPRequired", 300, "Never").await;
    let holder = Holder::new();
    let (bound, bearer) = (holder.token(&world), world.alice());
    assert_eq!(world.send(search().proved(&bound, &holder.proof(&bound, |_| {}))).await.status, 200);
    let scheme = format!("DPoP {METADATA}, {ALGS}");
    for (call, reason) in
        [(search().token(&bearer), "BindingRequired"), (search().token(&bound), "BoundToken")]
    {
        assert_eq!(refused(&world, call, reason).await.challenges(), [scheme.as_str()]);
    }
    let answer =
        refused(&world, search().proved(&bearer, &holder.proof(&bearer, |_| {})), "BindingRequired").await;
    assert_eq!(answer.challenges(), [dpop_challenge("invalid_token")[0].as_str()]);
    let answer = world.send(search()).await;
    assert_eq!(answer.challenges(), [format!("DPoP scope=\"hr:read\", {METADATA}, {ALGS}")]);
    let metadata = world.send(Call::get("/.well-known/oauth-protected-resource/mcp")).await.json();
    assert_eq!(metadata["dpop_bound_access_tokens_required"], true);
    assert_eq!(metadata["dpop_signing_alg_values_supported"][0], "ES256");
    world.stop().await;
}

/// A token, and what is wrong with one header field of a request with it.
fn bad_proofs(holder: &Holder, token: &str) -> Vec<(&'static str, String, &'static str)> {
    let header = |change: &dyn Fn(&mut Value)| {
        let mut header = holder.header();
        change(&mut header);
        holder.sign(&header, &Holder::claims(token))
    };
    let claim = |member: &str, value: Value| holder.proof(token, |claims| claims[member] = value);
    let lacking =
        |member: &str| holder.proof(token, |claims| drop(claims.as_object_mut().unwrap().remove(member)));
    let good = holder.proof(token, |_| {});
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = Holder::new();
    let own_key_of_another = {
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": holder.jwk()});
        other.sign(&header, &Holder::claims(token))
    };
    let none = {
        let header = json!({"typ": "dpop+jwt", "alg": "none", "jwk": holder.jwk()});
        let segments = [header.to_string(), Holder::claims(token).to_string()].map(|text| B64.encode(text));
        format!("{}.", segments.join("."))
    };
    vec![
        ("no JWT", "proof".to_owned(), "ProofMalformed"),
        ("two in one", format!("{good}, {good}"), "ProofMalformed"),
        ("huge", "a".repeat(9000), "ProofTooLarge"),
        ("no signature", format!("{signed}."), "ProofMalformed"),
        ("another signature", format!("{signed}.{}", B64.encode([1; 64])), "ProofBadSignature"),
        ("a short signature", format!("{signed}.AAAA"), "ProofBadSignature"),
        ("signed by another key", own_key_of_another, "ProofBadSignature"),
        ("none", none, "ProofAlgorithmNotAllowed"),
        ("HS256", header(&|h| h["alg"] = "HS256".into()), "ProofAlgorithmNotAllowed"),
        ("an algorithm of another key", header(&|h| h["alg"] = "RS256".into()), "ProofKeyNotUsable"),
        ("an access token's type", header(&|h| h["typ"] = "at+jwt".into()), "NotAProof"),
        ("no type", header(&|h| drop(h.as_object_mut().unwrap().remove("typ"))), "NotAProof"),
        ("no key", header(&|h| drop(h.as_object_mut().unwrap().remove("jwk"))), "ProofKeyNotUsable"),
        ("a private key", header(&|h| h["jwk"]["d"] = "AQ".into()), "ProofKeyPrivate"),
        ("a symmetric key", header(&|h| h["jwk"] = json!({"kty": "oct", "k": "AQ"})), "ProofKeyPrivate"),
        ("crit", header(&|h| h["crit"] = json!(["htu"])), "UnsupportedProofHeader"),
        ("a token for a proof", token.to_owned(), "NotAProof"),
        ("no jti", lacking("jti"), "ProofBadClaim"),
        ("a huge jti", claim("jti", "j".repeat(300).into()), "ProofBadClaim"),
        ("no htm", lacking("htm"), "ProofBadClaim"),
        ("another method", claim("htm", "GET".into()), "ProofOfAnotherMethod"),
        ("no htu", lacking("htu"), "ProofBadClaim"),
        ("another path", claim("htu", format!("{SERVER}/x").into()), "ProofOfAnotherTarget"),
        ("another host", claim("htu", "https://evil.example.com/mcp".into()), "ProofOfAnotherTarget"),
        ("where it really goes", claim("htu", "http://127.0.0.1/mcp".into()), "ProofOfAnotherTarget"),
        ("no ath", lacking("ath"), "ProofBadClaim"),
        ("of another token", claim("ath", B64.encode([1; 32]).into()), "ProofOfAnotherToken"),
        ("no iat", lacking("iat"), "ProofBadClaim"),
        ("old", claim("iat", (now() - 301).into()), "ProofNotFresh"),
        ("of the future", claim("iat", (now() + 301).into()), "ProofNotFresh"),
    ]
}

#[tokio::test]
async fn a23_no_proof_with_anything_wrong_is_taken() {
    let world = World::start().await;
    let holder = Holder::new();
    let token = holder.token(&world);
    for (what, proof, reason) in bad_proofs(&holder, &token) {
        let answer = refused(&world, search().proved(&token, &proof), reason).await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.challenges(), dpop_challenge("invalid_dpop_proof"), "{what}");
        assert_eq!(answer.reason(), "InvalidProof", "{what}");
        assert_eq!(answer.header("dpop-nonce"), None, "{what}");
    }
    let (one, two) = (holder.proof(&token, |_| {}), holder.proof(&token, |_| {}));
    let answer = refused(&world, search().proved(&token, &one).header("dpop", &two), "SeveralProofs").await;
    assert_eq!(answer.challenges(), dpop_challenge("invalid_dpop_proof"));
    assert!(world.server.seen().is_empty());
    // None of it used up what was good of it.
    assert_eq!(world.send(search().proved(&token, &one)).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a23_the_target_is_the_configured_url_in_any_of_its_spellings() {
    let world = World::start().await;
    let holder = Holder::new();
    let token = holder.token(&world);
    for htu in [
        "HTTPS://HR.Example.com:443/mcp",
        "https://hr.example.com/a/../%6Dcp",
        "https://hr.example.com/mcp?a=b#c",
    ] {
        let proof = holder.proof(&token, |claims| claims["htu"] = htu.into());
        assert_eq!(world.send(search().proved(&token, &proof)).await.status, 200, "{htu}");
    }
    // What the request says of its host counts for nothing.
    let proof = holder.proof(&token, |claims| claims["htu"] = "https://evil.example.com/mcp".into());
    let call = search().proved(&token, &proof).header("host", "evil.example.com");
    refused(&world, call, "ProofOfAnotherTarget").await;
    world.stop().await;
}

#[tokio::test]
async fn a26_a_proof_is_good_once_for_as_long_as_it_could_be_good() {
    let world = World::start().await;
    let holder = Holder::new();
    let token = holder.token(&world);
    let proof = holder.proof(&token, |claims| claims["iat"] = (now() + 200).into());
    assert_eq!(world.send(search().proved(&token, &proof)).await.status, 200);
    for call in [search(), Call::tool("leave.list"), search()] {
        let answer = world.send(call.proved(&token, &proof)).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.challenges(), dpop_challenge("invalid_dpop_proof"));
        assert_eq!(world.last_record().await["reason"], "ProofReplayed");
    }
    // The same id signed anew is the same id; of another key it is another.
    let id = |claims: &mut Value| claims["jti"] = "the-same".into();
    assert_eq!(world.send(search().proved(&token, &holder.proof(&token, id))).await.status, 200);
    refused(&world, search().proved(&token, &holder.proof(&token, id)), "ProofReplayed").await;
    let other = Holder::new();
    let its = other.token(&world);
    assert_eq!(world.send(search().proved(&its, &other.proof(&its, id))).await.status, 200);

    // To the last second of its time, which ends later than that of the token began.
    let long = world.token(|claims| {
        claims["cnf"] = json!({"jkt": holder.thumbprint()});
        claims["exp"] = (now() + 4000).into();
    });
    let proof = holder.proof(&long, |claims| claims["iat"] = (now() + 300).into());
    assert_eq!(world.send(search().proved(&long, &proof)).await.status, 200);
    world.clock.advance(600);
    refused(&world, search().proved(&long, &proof), "ProofReplayed").await;
    world.clock.advance(1);
    refused(&world, search().proved(&long, &proof), "ProofNotFresh").await;
    world.stop().await;
}

#[tokio::test]
async fn a26_what_is_refused_is_not_remembered_and_what_nobody_proved_neither() {
    let world = World::start().await;
    let holder = Holder::new();
    let (token, thief) = (holder.token(&world), Holder::new());
    let fixed = |claims: &mut Value| claims["jti"] = "fixed".into();
    // A thief without the key uses up no id of the holder's.
    refused(&world, search().proved(&token, &thief.proof(&token, fixed)), "BoundToOtherKey").await;
    let forged = thief.sign(&holder.header(), &{
        let mut claims = Holder::claims(&token);
        fixed(&mut claims);
        claims
    });
    refused(&world, search().proved(&token, &forged), "ProofBadSignature").await;
    let expired = world.token(|claims| {
        claims["cnf"] = json!({"jkt": holder.thumbprint()});
        claims["exp"] = (now() - 60).into();
    });
    refused(&world, search().proved(&expired, &holder.proof(&expired, fixed)), "TokenExpired").await;
    assert_eq!(world.send(search().proved(&token, &holder.proof(&token, fixed))).await.status, 200);
    world.stop().await;
}

/// Says that nothing more can be remembered, and nothing against the caller.
async fn full(world: &World, call: Call, reason: &str) {
    let before = world.server.seen().len();
    let answer = refused(world, call, reason).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, reason));
    assert_eq!(answer.challenges(), Vec::<String>::new(), "another token or proof would not help");
    assert_eq!(answer.header("dpop-nonce"), None);
    assert_eq!(world.server.seen().len(), before);
}

#[tokio::test]
async fn a26_a_full_memory_is_told_as_503_and_neither_forgets_nor_takes_anything_before_its_time() {
    let world = World::configured(|config| config.proofs = Capacity { all: 3, of_one: 2 }).await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    let (alices, bobs) = (Holder::new(), Holder::new());
    let alice = alices.token(&world);
    let bob = world.token(|claims| {
        claims["sub"] = "bob".into();
        claims["jti"] = "token-2".into();
        claims["cnf"] = json!({"jkt": bobs.thumbprint()});
    });
    // Good until 101 seconds from now.
    let early = |claims: &mut Value| claims["iat"] = (now() - 200).into();
    let [first, second, third] = [(); 3].map(|()| alices.proof(&alice, early));
    for proof in [&first, &second] {
        assert_eq!(world.send(search().proved(&alice, proof)).await.status, 200);
    }
    full(&world, search().proved(&alice, &third), "ProofsOfCallerFull").await;
    // It is hers, whichever of her keys she takes; and no wrong proof is told that the memory is full.
    let other = Holder::new();
    let its = other.token(&world);
    full(&world, search().proved(&its, &other.proof(&its, |_| {})), "ProofsOfCallerFull").await;
    refused(&world, search().proved(&alice, &other.proof(&alice, |_| {})), "BoundToOtherKey").await;
    refused(&world, search().proved(&alice, &first), "ProofReplayed").await;

    let late = bobs.proof(&bob, |_| {});
    assert_eq!(world.send(search().proved(&bob, &bobs.proof(&bob, early))).await.status, 200);
    full(&world, search().proved(&bob, &late), "ProofsFull").await;
    assert_eq!(
        world.send(search().token(&world.alice())).await.status,
        200,
        "a bearer token needs no memory"
    );

    world.clock.advance(100);
    full(&world, search().proved(&bob, &late), "ProofsFull").await;
    refused(&world, search().proved(&alice, &second), "ProofReplayed").await;
    world.clock.advance(1);
    // What was refused is not used up.
    assert_eq!(world.send(search().proved(&bob, &late)).await.status, 200);
    refused(&world, search().proved(&bob, &late), "ProofReplayed").await;
    refused(&world, search().proved(&alice, &third), "ProofNotFresh").await;
    world.stop().await;
}

#[tokio::test]
async fn a23_a_script_of_a_page_may_send_proofs_and_see_nonces() {
    let world = World::start().await;
    let preflight = Call::get("/mcp")
        .method(Method::OPTIONS)
        .header("origin", "https://hr.example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,dpop");
    let answer = world.send(preflight).await;
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,dpop"));
    let answer = world.send(search().header("origin", "https://hr.example.com")).await;
    assert!(answer.header("access-control-expose-headers").unwrap().contains("DPoP-Nonce"));
    world.stop().await;
}
