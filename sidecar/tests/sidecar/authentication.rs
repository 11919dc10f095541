//! Who is let in, and above all who is not: each refused token is one answer, one record, and nothing
//! reaches the server.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use crate::support::bundle::SERVER;
use crate::support::issuer::now;
use crate::support::{Alg, Call, Issuer, World};

/// A thumbprint of a key (RFC 9449 §6.1).
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const METADATA: &str =
    "resource_metadata=\"https://hr.example.com/.well-known/oauth-protected-resource/mcp\"";

#[tokio::test]
async fn a7_every_accepted_algorithm_lets_alice_in() {
    let world = World::start().await;
    for alg in Alg::ALL {
        let token = world.issuer.sign(alg, &world.issuer.claims(SERVER));
        let answer = world.send(Call::tool("directory.search").token(&token)).await;
        assert_eq!(answer.status, 200, "{alg:?} {answer:?}");
        let record = world.last_record().await;
        assert_eq!(record["decision"], "Permit");
        assert_eq!(record["subject"], "alice");
        assert_eq!(record["client"], "agent-ui");
        assert_eq!(record["provider"], "corp");
        assert_eq!(record["tool"], "directory.search");
        assert_eq!(record["method"], "tools/call");
        assert_eq!(record["stage"], "Enforce");
        assert_eq!(record["catalogRevision"], "rev-1");
        assert_eq!(record["bundleSerial"], 1);
        assert_eq!(record["scopesPresented"], json!(["hr:leave:read", "hr:read", "hr:salary:read"]));
        assert_ne!(record["tokenIdHash"], "token-1");
    }
    assert_eq!(world.issuer.fetches(), 1, "one fetch of keys serves them all");
    world.stop().await;
}

#[tokio::test]
async fn a1_without_credentials_the_challenge_has_no_error() {
    let world = World::start().await;
    for call in
        [Call::tool("salary.get"), Call::list(), Call::initialize(), Call::get("/mcp"), Call::delete("/mcp")]
    {
        let answer = world.send(call).await;
        assert_eq!(answer.status, 401);
        let challenge = answer.challenge().unwrap();
        assert_eq!(challenge, format!("Bearer scope=\"hr:read\", {METADATA}"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.reason(), "NoCredentials");
        assert_eq!(world.last_record().await["reason"], "NoCredentials");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a24_another_scheme_is_no_credential_here() {
    let world = World::start().await;
    let alice = world.alice();
    for value in ["Basic YWxpY2U6cHc=".to_owned(), alice.clone(), format!("DPoP-{alice}")] {
        let answer = world.send(Call::list().header("authorization", &value)).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(!answer.challenge().unwrap().contains("error"));
        assert_eq!(world.last_record().await["reason"], "SchemeNotSupported");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a5_a6_malformed_or_several_credentials_are_a_400() {
    let world = World::start().await;
    let alice = world.alice();
    let calls = [
        (Call::list().token(&alice).token(&alice), "SeveralCredentials"),
        (Call::list().token(&alice).header("authorization", &format!("DPoP {alice}")), "SeveralCredentials"),
        (Call::list().header("authorization", "Bearer"), "CredentialsMalformed"),
        (Call::list().header("authorization", "Bearer a,b"), "CredentialsMalformed"),
        (Call::list().header("authorization", &format!("Bearer {alice} x")), "CredentialsMalformed"),
        (Call::list().at(&format!("/mcp?access_token={alice}")), "TokenInQuery"),
        (Call::list().at("/mcp?access%5Ftoken=x").token(&alice), "TokenInQuery"),
    ];
    for (call, reason) in calls {
        let answer = world.send(call).await;
        assert_eq!(answer.status, 400, "{reason} {answer:?}");
        assert_eq!(answer.challenge().unwrap(), format!("Bearer error=\"invalid_request\", {METADATA}"));
        assert_eq!(answer.reason(), "InvalidRequest");
        assert_eq!(world.last_record().await["reason"], reason);
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

/// A token signed with the issuer's EC key over these texts.
fn raw(issuer: &Issuer, header: &str, claims: &Value) -> String {
    issuer.sign_raw(Alg::Es256, header, &claims.to_string())
}

fn with(claims: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims.clone();
    change(&mut claims);
    claims
}

fn without(claims: &Value, member: &str) -> Value {
    with(claims, |c| {
        c.as_object_mut().unwrap().remove(member);
    })
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn refused_tokens(issuer: &Issuer, other: &Issuer) -> Vec<(&'static str, String, &'static str)> {
    let good = issuer.claims(SERVER);
    let es = |claims: &Value| issuer.sign(Alg::Es256, claims);
    let header = |header: Value| raw(issuer, &header.to_string(), &good);
    let unsigned =
        |header: Value| format!("{}.{}.", B64.encode(header.to_string()), B64.encode(good.to_string()));
    let fine = es(&good);
    let (signed, signature) = fine.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let hs256 = {
        let header = json!({"alg": "HS256", "kid": "rsa", "typ": "JWT"}).to_string();
        let input = format!("{}.{}", B64.encode(header), B64.encode(good.to_string()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &issuer.public_key());
        format!("{input}.{}", B64.encode(hmac::sign(&key, input.as_bytes())))
    };
    let forged =
        format!("{head}.{}.{signature}", B64.encode(with(&good, |c| c["sub"] = "bob".into()).to_string()));
    let rs_as_ps = {
        let header = json!({"alg": "PS256", "kid": "rsa", "typ": "JWT"}).to_string();
        issuer.sign_raw(Alg::Rs256, &header, &good.to_string())
    };
    vec![
        // Text.
        ("a7 one segment", "abc".to_owned(), "TokenMalformed"),
        ("a7 two segments", signed.to_owned(), "TokenMalformed"),
        ("a7 four segments", format!("{fine}.AAAA"), "TokenMalformed"),
        ("a7 a handle of ours", "behalf_AAAAAAAAAAAAAAAAAAAAAA".to_owned(), "TokenMalformed"),
        ("a7 padding", format!("{fine}=="), "TokenMalformed"),
        ("d26 oversize", es(&with(&good, |c| c["x"] = "x".repeat(16 * 1024).into())), "TokenTooLarge"),
        (
            "d19 duplicate claim",
            issuer.sign_raw(
                Alg::Es256,
                "{\"alg\":\"ES256\",\"kid\":\"ec\"}",
                &good.to_string().replacen('{', "{\"sub\":\"bob\",", 1),
            ),
            "TokenMalformed",
        ),
        (
            "d19 duplicate claim behind an escape",
            issuer.sign_raw(
                Alg::Es256,
                "{\"alg\":\"ES256\",\"kid\":\"ec\"}",
                &good.to_string().replacen('{', "{\"s\\u0075b\":\"bob\",", 1),
            ),
            "TokenMalformed",
        ),
        // Algorithm and key.
        ("d3 alg none", unsigned(json!({"alg": "none"})), "TokenMalformed"),
        ("d3 alg none with a signature", header(json!({"alg": "none", "kid": "ec"})), "AlgorithmNotAllowed"),
        ("d3 alg nOnE", header(json!({"alg": "nOnE", "kid": "ec"})), "AlgorithmNotAllowed"),
        ("d3 no alg", header(json!({"kid": "ec"})), "AlgorithmNotAllowed"),
        ("d3 empty signature", format!("{signed}."), "TokenMalformed"),
        ("d4 hs256 with the public key", hs256, "AlgorithmNotAllowed"),
        ("d4 es256 key as es384", header(json!({"alg": "ES384", "kid": "ec"})), "UnknownKey"),
        ("d4 es512", header(json!({"alg": "ES512", "kid": "ec"})), "AlgorithmNotAllowed"),
        ("d4 another name of ed25519", header(json!({"alg": "Ed25519", "kid": "ec"})), "UnknownKey"),
        ("d4 rs256 signature as ps256", rs_as_ps, "BadSignature"),
        ("d4 key of another kind", header(json!({"alg": "RS256", "kid": "ec"})), "UnknownKey"),
        ("d4 zero signature", format!("{signed}.{}", B64.encode([0; 64])), "BadSignature"),
        ("d6 unknown key id", header(json!({"alg": "ES256", "kid": "../ec"})), "UnknownKey"),
        ("d6 key id of 4 KB", header(json!({"alg": "ES256", "kid": "k".repeat(4096)})), "UnknownKey"),
        ("d6 key id of another type", header(json!({"alg": "ES256", "kid": 7})), "BadClaim"),
        ("d5 crit", header(json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]})), "UnsupportedTokenHeader"),
        ("d5 b64", header(json!({"alg": "ES256", "kid": "ec", "b64": false})), "UnsupportedTokenHeader"),
        (
            "a8 type of an ID-JAG",
            header(json!({"alg": "ES256", "kid": "ec", "typ": "oauth-id-jag+jwt"})),
            "NotAnAccessToken",
        ),
        ("a7 tampered", forged, "BadSignature"),
        ("a7 signed by another issuer's key", other.sign(Alg::Es256, &good), "BadSignature"),
        // Issuer and audience.
        ("a31 unknown issuer", other.sign(Alg::Es256, &other.claims(SERVER)), "UnknownIssuer"),
        (
            "a10 issuer with a slash",
            es(&with(&good, |c| c["iss"] = format!("{}/", issuer.url).into())),
            "UnknownIssuer",
        ),
        ("a10 no issuer", es(&without(&good, "iss")), "BadClaim"),
        ("a11 wrong audience", es(&with(&good, |c| c["aud"] = json!("payroll"))), "WrongAudience"),
        (
            "a11 look-alike audience",
            es(&with(&good, |c| c["aud"] = json!([format!("{SERVER}/")]))),
            "WrongAudience",
        ),
        ("a11 no audience", es(&without(&good, "aud")), "WrongAudience"),
        ("a11 empty audience", es(&with(&good, |c| c["aud"] = json!([]))), "BadClaim"),
        ("a11 audience of another type", es(&with(&good, |c| c["aud"] = json!([SERVER, 7]))), "BadClaim"),
        // Time.
        ("a12 expired", es(&with(&good, |c| c["exp"] = (now() - 6).into())), "TokenExpired"),
        ("a12 no exp", es(&without(&good, "exp")), "BadClaim"),
        ("a12 exp as text", es(&with(&good, |c| c["exp"] = "9999999999".into())), "BadClaim"),
        ("d11 exp beyond sense", es(&with(&good, |c| c["exp"] = json!(1e30))), "BadClaim"),
        ("a12 nbf ahead", es(&with(&good, |c| c["nbf"] = (now() + 120).into())), "TokenNotYetValid"),
        ("a12 iat far ahead", es(&with(&good, |c| c["iat"] = (now() + 600).into())), "TokenNotYetValid"),
        // Kind of token.
        ("a8 ID token", es(&with(&good, |c| c["typ"] = "ID".into())), "NotAnAccessToken"),
        ("a8 nonce", es(&with(&good, |c| c["nonce"] = "n".into())), "NotAnAccessToken"),
        ("a8 refresh token", es(&with(&good, |c| c["typ"] = "Refresh".into())), "NotAnAccessToken"),
        ("a24 bound token", es(&with(&good, |c| c["cnf"] = json!({"jkt": JKT}))), "BoundToken"),
        ("a27 bound token", es(&with(&good, |c| c["cnf"] = json!({"x5t#S256": JKT}))), "BoundToken"),
        ("a24 no thumbprint", es(&with(&good, |c| c["cnf"] = json!({"jkt": "x"}))), "BindingUnknown"),
        // The rest.
        ("a9 no subject", es(&without(&good, "sub")), "BadClaim"),
        (
            "a28 groups overage",
            es(&with(&good, |c| c["_claim_names"] = json!({"groups": "src1"}))),
            "GroupsOverage",
        ),
        ("a28 groups as text", es(&with(&good, |c| c["groups"] = "managers".into())), "BadClaim"),
        ("a14 scopes as a list", es(&with(&good, |c| c["scope"] = json!(["hr:read"]))), "BadClaim"),
    ]
}

#[tokio::test]
async fn a5_to_a15_no_refused_token_reaches_the_server() {
    let world = World::start().await;
    let other = Issuer::start().await;
    for (name, token, reason) in refused_tokens(&world.issuer, &other) {
        let answer = world.send(Call::tool("directory.search").token(&token)).await;
        let record = world.last_record().await;
        assert_eq!(record["reason"], reason, "{name}");
        assert_eq!(record["decision"], "Refuse", "{name}");
        assert_eq!(record.get("subject"), None, "{name}");
        assert_eq!(answer.status, 401, "{name}");
        let challenge = format!("Bearer error=\"invalid_token\", scope=\"hr:read\", {METADATA}");
        assert_eq!(answer.challenge(), Some(challenge.as_str()), "{name}");
        // Why it was not taken is for the record, not for whoever holds a bad token.
        assert_eq!(answer.reason(), "InvalidToken", "{name}");
        assert_eq!(answer.json()["id"], 7, "{name}");
    }
    assert!(world.server.seen().is_empty());
    assert_eq!(other.fetches(), 0, "an unknown issuer is never asked");
    world.stop().await;
}

#[tokio::test]
async fn d11_a_remembered_token_ends_with_its_own_time() {
    let world = World::start().await;
    let alice = world.alice();
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 200);
    // Its 300 seconds and the 5 that the provider's clock may differ by: one moment for everything.
    world.clock.advance(304);
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 200);
    world.clock.advance(1);
    let answer = world.send(Call::tool("directory.search").token(&alice)).await;
    assert_eq!(answer.status, 401);
    assert!(answer.challenge().unwrap().contains("invalid_token"));
    assert_eq!(world.last_record().await["reason"], "TokenExpired");
    assert_eq!(world.server.seen().len(), 2);
    // A clock that was set back by hours gives it no new life elsewhere: it is the token's own time that counts.
    world.clock.advance(3600);
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 401);
    world.stop().await;
}

#[tokio::test]
async fn a21_d8_without_the_issuers_keys_nobody_is_let_in_and_nobody_is_called_invalid() {
    let world = World::start().await;
    world.issuer.set_down(true);
    let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.challenge(), None);
    assert_eq!(world.last_record().await["reason"], "KeysUnavailable");
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn d7_unknown_key_ids_make_no_storm_of_fetches() {
    let world = World::start().await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    let good = world.issuer.claims(SERVER);
    for n in 0..50 {
        let token = raw(&world.issuer, &json!({"alg": "ES256", "kid": format!("k{n}")}).to_string(), &good);
        assert_eq!(world.send(Call::list().token(&token)).await.status, 401);
    }
    assert!(world.issuer.fetches() <= 2, "{} fetches", world.issuer.fetches());
    world.stop().await;
}
