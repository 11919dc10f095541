//! Tokens that are none: refused with the way to a good one, recorded once, and nothing of it reaches the server.
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::{hmac, rand, signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use behalf_e2e::records::header;
use behalf_e2e::{ALL_SCOPES, METADATA, Request, SERVER, Token, Undo, World, keycloak, mcp, until};
use serde_json::{Value, json};

/// A request that must be refused, and how.
struct Bad {
    what: &'static str,
    request: Request,
    status: u16,
    reasons: &'static [&'static str],
    error: Option<&'static str>,
}

fn bad(what: &'static str, token: &str, reasons: &'static [&'static str]) -> Bad {
    Bad { what, request: mcp::salary(token, "bob"), status: 401, reasons, error: Some("invalid_token") }
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// The claims of a good token under another header, signed by `sign`.
fn forged(good: &Token, head: &Value, sign: impl FnOnce(&str) -> Result<Vec<u8>>) -> Result<String> {
    let claims = good.text.split('.').nth(1).context("claims")?;
    let input = format!("{}.{claims}", encoded(head));
    let signature = sign(&input)?;
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The issuer's public key in the forms in which a careless verifier would take it for a shared secret.
fn public_forms(key: &Value) -> Result<Vec<Vec<u8>>> {
    let member =
        |name: &str| Ok::<_, anyhow::Error>(URL_SAFE_NO_PAD.decode(key[name].as_str().context("jwk")?)?);
    let (n, e) = (member("n")?, member("e")?);
    let der = PublicKeyComponents { n: n.clone(), e }.as_der()?.as_ref().to_vec();
    let lines: Vec<String> = STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(|l| String::from_utf8_lossy(l).into_owned())
        .collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    Ok(vec![pem.trim_end().as_bytes().to_vec(), pem.into_bytes(), der, n])
}

fn tampered(good: &Token) -> Result<String> {
    let mut claims = good.claims()?;
    claims.insert("groups".to_owned(), json!(["managers", "staff", "owners"]));
    let mut parts: Vec<String> = good.text.split('.').map(str::to_owned).collect();
    ensure!(parts.len() == 3, "no JWT");
    parts[1] = encoded(&Value::Object(claims));
    Ok(parts.join("."))
}

fn forgeries(world: &World, good: &Token) -> Result<Vec<Bad>> {
    let head = Value::Object(keycloak::part(&good.text, 0)?);
    let keys = keycloak::keys(world)?;
    let key = keys.iter().find(|key| key["kid"] == head["kid"]).context("the key of the token")?;
    let mut all = vec![
        bad("tampered", &tampered(good)?, &["BadSignature"]),
        bad(
            "alg none",
            &forged(good, &json!({"alg": "none", "typ": "JWT"}), |_| Ok(Vec::new()))?,
            &["AlgorithmNotAllowed", "TokenMalformed"],
        ),
    ];
    for spelling in ["nOnE", "None"] {
        let token =
            forged(good, &json!({"alg": spelling, "typ": "JWT", "kid": head["kid"]}), |_| Ok(vec![0; 256]))?;
        all.push(bad("alg none, other spelling", &token, &["AlgorithmNotAllowed"]));
    }
    for form in public_forms(key)? {
        let sign = |input: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &form);
            Ok(hmac::sign(&key, input.as_bytes()).as_ref().to_vec())
        };
        let token = forged(good, &json!({"alg": "HS256", "typ": "JWT", "kid": head["kid"]}), sign)?;
        all.push(bad("HS256 with the public key", &token, &["AlgorithmNotAllowed"]));
    }
    let own = KeyPair::generate(KeySize::Rsa2048)?;
    for (what, head) in [
        ("the key of somebody else, under the issuer's name of it", head.clone()),
        ("the key of somebody else", json!({"alg": "RS256", "typ": "JWT", "kid": "mine"})),
    ] {
        let token = forged(good, &head, |input| {
            let mut signature = vec![0; own.public_modulus_len()];
            let random = rand::SystemRandom::new();
            own.sign(&signature::RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature)?;
            Ok(signature)
        })?;
        all.push(bad(what, &token, &["BadSignature", "UnknownKey"]));
    }
    Ok(all)
}

fn foreign(world: &World, good: &Token) -> Result<Vec<Bad>> {
    let elsewhere = keycloak::login(world, "agent-elsewhere", "alice", ALL_SCOPES)?;
    let id = keycloak::login(world, "agent-test", "alice", &format!("openid {ALL_SCOPES}"))?.id;
    let master =
        "https://keycloak.keycloak.svc.cluster.local:8443/realms/master/protocol/openid-connect/token"
            .to_owned();
    let other = keycloak::login_at(world, &master, "admin-cli", "admin", "admin", "")?;
    ensure!(other.claims()?["iss"] != good.claims()?["iss"], "another issuer was meant");
    Ok(vec![
        bad("wrong audience", &elsewhere.text, &["WrongAudience"]),
        bad("ID token", &id.context("Keycloak gave no ID token")?, &["WrongAudience", "NotAnAccessToken"]),
        bad("wrong issuer", &other.text, &["UnknownIssuer"]),
        bad("a handle", "behalf_AAAAAAAAAAAAAAAAAAAAAA", &["TokenMalformed"]),
        bad("no JWT", "abc", &["TokenMalformed"]),
    ])
}

fn malformed(good: &Token) -> Vec<Bad> {
    let plain = || mcp::call("salary.get", &json!({"employee": "bob"}));
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "salary.get", "arguments": {"employee": "bob"}}});
    let query = Request::post(&format!("{SERVER}?access_token={}", good.text), &body)
        .header("Accept", "application/json, text/event-stream");
    let none = |what, request| Bad {
        what,
        request,
        status: 401,
        reasons: &["NoCredentials", "SchemeNotSupported"],
        error: None,
    };
    let twice =
        |what, request, reasons| Bad { what, request, status: 400, reasons, error: Some("invalid_request") };
    vec![
        none("no token", plain()),
        none("Basic", plain().header("Authorization", "Basic YWxpY2U6YWxpY2UtcHc=")),
        none("a cookie", plain().header("Cookie", &format!("access_token={}", good.text))),
        twice("twice", plain().bearer(&good.text).bearer(&good.text), &["SeveralCredentials"]),
        twice(
            "two tokens in one header",
            plain().header("Authorization", &format!("Bearer {0}, Bearer {0}", good.text)),
            &["CredentialsMalformed", "SeveralCredentials"],
        ),
        twice("in the query", query.clone(), &["TokenInQuery"]),
        twice("in the query too", query.bearer(&good.text), &["TokenInQuery"]),
    ]
}

/// Sends it, and judges answer and record.
fn refused(world: &World, mark: &str, bad: &Bad) -> Result<()> {
    let answer = bad.request.clone().header("X-E2e-Mark", mark).send(world)?;
    let what = bad.what;
    assert_eq!(answer.status, bad.status, "{what}: {answer:?}");
    let challenge = answer.header("www-authenticate").with_context(|| format!("{what}: no challenge"))?;
    assert!(challenge.starts_with("Bearer "), "{what}: {challenge}");
    assert!(challenge.contains(&format!("resource_metadata=\"{METADATA}\"")), "{what}: {challenge}");
    match bad.error {
        Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}"),
        // RFC 6750 §3.1: no error code where no credentials came.
        None => assert!(!challenge.contains("error="), "{what}: {challenge}"),
    }
    let record = world.pod()?.record_of(&answer).with_context(|| what.to_owned())?;
    assert_eq!(record["decision"], "Refuse", "{what}");
    assert_eq!(record["status"], json!(bad.status), "{what}");
    assert_eq!(record["subject"], Value::Null, "{what}: nobody was authenticated");
    let reason = record["reason"].as_str().unwrap_or_default();
    assert!(bad.reasons.contains(&reason), "{what}: recorded as {reason}");
    Ok(())
}

#[test]
fn a5_a7_a18_a19_what_is_no_token_of_ours_gets_a_challenge_and_reaches_nothing() -> Result<()> {
    let world = World::get()?;
    let good = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let mark = keycloak::sha256(&good.text);
    let mut all = malformed(&good);
    all.extend(forgeries(world, &good)?);
    all.extend(foreign(world, &good)?);
    let before = behalf_e2e::payroll::seen(world)?.len();
    for bad in &all {
        refused(world, &mark, bad)?;
    }
    // The token itself is good: it was what was done to it.
    assert_eq!(mcp::salary(&good.text, "bob").send(world)?.status, 200);
    let requests = world.pod()?.requests()?;
    let reached = requests.iter().filter(|r| header(r, "x-e2e-mark") == Some(&mark)).count();
    assert_eq!(reached, 0, "a refused request reached the server");
    assert_eq!(behalf_e2e::payroll::seen(world)?.len(), before + 1, "only the good one got to payroll");
    Ok(())
}

#[test]
fn a7_an_expired_token_is_refused() -> Result<()> {
    let world = World::get()?;
    let short = keycloak::login(world, "agent-short", "alice", ALL_SCOPES)?;
    let search = || mcp::call("directory.search", &json!({"query": "bob"})).bearer(&short.text);
    let refusal = || {
        let answer = search().send(world)?;
        Ok((answer.status == 401).then_some(answer))
    };
    until("the token of 2 s is refused", Duration::from_mins(1), refusal)?;
    // It ends with its time and the provider's clock skew (30 s); whatever stands on it ends at that moment, too.
    until("the token is over by any clock", Duration::from_secs(90), || {
        let Some(answer) = refusal()? else { bail!("an expired token was taken") };
        Ok((world.pod()?.record_of(&answer)?["reason"] == "TokenExpired").then_some(()))
    })?;
    let mark = keycloak::sha256(&short.text);
    refused(world, &mark, &bad("expired", &short.text, &["TokenExpired"]))?;
    let reached = world.pod()?.requests()?.iter().any(|r| header(r, "x-e2e-mark") == Some(&mark));
    assert!(!reached, "an expired token's call reached the server");
    Ok(())
}

#[test]
fn a22_a33_a_token_that_keycloak_took_back_stops_within_the_declared_bound() -> Result<()> {
    let world = World::get()?;
    let row = |introspection: Value| {
        world.patch("default", "idp/corp", &json!({"spec": {"introspection": introspection}}))
    };
    let _as_it_was = Undo::new(|| row(Value::Null));
    row(json!({"rule": "Always", "cacheTTL": "2s"}))?;
    let login = || keycloak::login(world, "agent-test", "alice", ALL_SCOPES);
    let search = |token: &Token| {
        mcp::call("directory.search", &json!({"query": "bob"})).bearer(&token.text).send(world)
    };
    let stops = |token: &Token, within: Duration| {
        until("the token that was taken back is refused", within, || {
            let answer = search(token)?;
            Ok((answer.status == 401).then_some(answer))
        })
    };
    // Until the row has reached the sidecar nobody asks, and a token is good by itself.
    let early = login()?;
    assert_eq!(search(&early)?.status, 200);
    keycloak::revoke(world, &early)?;
    stops(&early, behalf_e2e::world::FOLLOWED)?;

    let token = login()?;
    let other = login()?;
    assert_eq!(search(&token)?.status, 200);
    keycloak::revoke(world, &token)?;
    let refused = stops(&token, Duration::from_secs(15))?;
    let challenge = refused.header("www-authenticate").context("challenge")?;
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let record = world.pod()?.record_of(&refused)?;
    assert_eq!(record["reason"], "TokenInactive");
    assert_eq!(search(&other)?.status, 200, "another login of hers goes on");
    Ok(())
}

/// A1 to A4: where the challenge leads.
#[test]
fn a1_the_challenge_leads_to_metadata_that_names_the_provider() -> Result<()> {
    let world = World::get()?;
    let answer = Request::get(METADATA).send(world)?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json()?;
    assert_eq!(document["resource"], SERVER);
    assert_eq!(document["authorization_servers"], json!([behalf_e2e::ISSUER]));
    assert_eq!(document["scopes_supported"], json!(["hr:leave:read", "hr:read", "hr:salary:read"]));
    assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    Ok(())
}
