//! DPoP proofs (RFC 9449 §4.3): each check by the one thing that is wrong, and that nothing which differs is taken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD as B64};
use behalf_policy::bundle::Algorithm;
use behalf_policy::dpop::{
    Expected, MAX_PROOF_BYTES, Nonce, Once, Proof, ProofRefusal, ProofRefusal as R, same_target,
};
use behalf_policy::ids::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const NOW: Timestamp = Timestamp(1_800_000_000);
const ORIGIN: &str = "https://hr.example.com";
const HASH: [u8; 32] = [7; 32];
// The key of RFC 9449 §4.1.
const X: &str = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
const Y: &str = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";

fn jwk() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y})
}

fn header() -> Value {
    json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk()})
}

fn claims() -> Value {
    json!({"jti": "e1j3V_bKic8-LAEB", "htm": "POST", "htu": "https://hr.example.com/mcp", "iat": NOW.0,
        "ath": B64.encode(HASH)})
}

fn compact(header: &Value, claims: &Value) -> String {
    format!("{}.{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()), B64.encode([1; 64]))
}

fn expected() -> Expected<'static> {
    Expected {
        method: "POST",
        origin: ORIGIN,
        path: "/mcp",
        token_hash: HASH,
        max_age: 300,
        nonce: Nonce::NotDemanded,
    }
}

fn judge(proof: &str, expected: &Expected<'_>) -> Result<Once, ProofRefusal> {
    Proof::read([Some(proof)])?.check(expected, NOW)
}

/// A value with one member changed, or without it.
fn with(mut value: Value, member: &str, to: Value) -> Value {
    match to {
        Value::Null => drop(value.as_object_mut().unwrap().remove(member)),
        to => value[member] = to,
    }
    value
}

#[test]
fn a23_a_proof_that_is_right_in_everything_is_taken() {
    let once = judge(&compact(&header(), &claims()), &expected()).unwrap();
    assert_eq!(once.id, "e1j3V_bKic8-LAEB");
    assert_eq!(once.until, NOW.plus(301));
    let proof = compact(&header(), &claims());
    let read = Proof::read([Some(proof.as_str())]).unwrap();
    assert_eq!(read.algorithm, Algorithm::ES256);
    assert_eq!(format!("{}.{}", read.signing_input, read.signature), proof);
    assert!(!format!("{read:?}").contains("e1j3V"));
}

#[test]
fn a23_the_thumbprint_is_that_of_the_standards() {
    // RFC 9449 §6.1, of the key of §4.1.
    let proof = compact(&header(), &claims());
    let input = Proof::read([Some(proof.as_str())]).unwrap().key.thumbprint_input();
    assert_eq!(B64.encode(Sha256::digest(input)), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    // RFC 7638 §3.1.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let proof = compact(&json!({"typ": "dpop+jwt", "alg": "RS256", "jwk": jwk}), &claims());
    let input = Proof::read([Some(proof.as_str())]).unwrap().key.thumbprint_input();
    assert_eq!(B64.encode(Sha256::digest(input)), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    // RFC 8037 §A.3.
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for alg in ["EdDSA", "Ed25519"] {
        let proof = compact(&json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk}), &claims());
        let input = Proof::read([Some(proof.as_str())]).unwrap().key.thumbprint_input();
        assert_eq!(B64.encode(Sha256::digest(input)), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}

#[test]
fn a23_one_header_field_that_is_one_compact_jwt() {
    let good = compact(&header(), &claims());
    let read = |lines: &[Option<&str>]| Proof::read(lines.iter().copied()).map(drop).unwrap_err();
    assert_eq!(read(&[]), ProofRefusal::Missing);
    assert_eq!(read(&[Some(&good), Some(&good)]), ProofRefusal::Several);
    assert_eq!(read(&[Some(&good), None]), ProofRefusal::Several);
    assert_eq!(read(&[None]), ProofRefusal::Malformed);
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let claims = claims().to_string();
    for malformed in [
        String::new(),
        "..".to_owned(),
        format!("{head}.{payload}"),
        format!("{head}.{payload}."),
        format!("{good}.{signature}"),
        format!("{good},{good}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}="),
        format!("{head}.{payload}.{signature}=="),
        format!("{head}.{payload}=.{signature}"),
        format!("{head}.{}.{signature}", B64.encode(&claims[..claims.len() - 1])),
        format!("{head}.{}.{signature}", B64.encode("[]")),
        format!("{head}.{}.{signature}", B64.encode(claims.replacen('{', r#"{"htm":"POST","#, 1))),
        format!(
            "{}.{payload}.{signature}",
            B64.encode(header().to_string().replacen('{', r#"{"typ":"dpop+jwt","#, 1))
        ),
        format!(
            "{}.{payload}.{signature}",
            B64.encode(r#"{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"EC","kty":"EC"}}"#)
        ),
    ] {
        assert_eq!(judge(&malformed, &expected()), Err(ProofRefusal::Malformed), "{malformed}");
    }
    assert_eq!(judge(&"a".repeat(MAX_PROOF_BYTES + 1), &expected()), Err(ProofRefusal::TooLarge));
}

#[test]
fn a23_the_header_says_a_proof_by_a_key_of_its_own() {
    let modulus = |bytes: usize| B64.encode(vec![0xff_u8; bytes]);
    let rsa = |n: String, e: &str| json!({"typ": "dpop+jwt", "alg": "RS256", "jwk": {"kty": "RSA", "n": n, "e": e}});
    let key = |jwk: Value| with(header(), "jwk", jwk);
    let mut leading = vec![0];
    leading.extend([0xff; 256]);
    let mut short = vec![0x7f];
    short.extend([0xff; 255]);
    for good in [
        rsa(modulus(256), "AQAB"),
        rsa(modulus(512), "Aw"),
        with(header(), "kid", json!("a")),
        with(header(), "jku", json!("https://evil")),
    ] {
        assert!(judge(&compact(&good, &claims()), &expected()).is_ok(), "{good}");
    }
    for (bad, refusal) in [
        (with(header(), "typ", Value::Null), R::NotAProof),
        (with(header(), "typ", json!("JWT")), R::NotAProof),
        (with(header(), "typ", json!("at+jwt")), R::NotAProof),
        (with(header(), "typ", json!("DPOP+JWT")), R::NotAProof),
        (with(header(), "typ", json!("application/dpop+jwt")), R::NotAProof),
        (with(header(), "typ", json!(["dpop+jwt"])), R::NotAProof),
        (with(header(), "alg", Value::Null), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("none")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("None")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("HS256")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("HS512")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("ES256K")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!("es256")), R::AlgorithmNotAllowed),
        (with(header(), "alg", json!(["ES256"])), R::AlgorithmNotAllowed),
        (with(header(), "crit", json!(["b64"])), R::UnsupportedHeader),
        (with(header(), "b64", json!(false)), R::UnsupportedHeader),
        (with(header(), "zip", json!("DEF")), R::UnsupportedHeader),
        (with(header(), "enc", json!("A256GCM")), R::UnsupportedHeader),
        (with(header(), "cty", json!("JWT")), R::UnsupportedHeader),
        (with(header(), "jwk", Value::Null), R::KeyNotUsable),
        (key(json!("key")), R::KeyNotUsable),
        (key(json!({})), R::KeyNotUsable),
        (key(with(jwk(), "d", json!("AQ"))), R::PrivateKey),
        (key(json!({"kty": "oct", "k": "c2VjcmV0"})), R::PrivateKey),
        (key(with(jwk(), "p", json!("AQ"))), R::PrivateKey),
        (key(with(jwk(), "oth", json!([]))), R::PrivateKey),
        (key(with(jwk(), "kty", json!("oct"))), R::KeyNotUsable),
        (key(with(jwk(), "kty", json!("RSA"))), R::KeyNotUsable),
        (key(with(jwk(), "crv", json!("P-384"))), R::KeyNotUsable),
        (key(with(jwk(), "crv", json!("secp256k1"))), R::KeyNotUsable),
        (key(with(jwk(), "crv", Value::Null)), R::KeyNotUsable),
        (key(with(jwk(), "x", Value::Null)), R::KeyNotUsable),
        (key(with(jwk(), "x", json!(7))), R::KeyNotUsable),
        (key(with(jwk(), "x", json!(format!("{X}=")))), R::KeyNotUsable),
        // The same bytes in another spelling would be another thumbprint of one key.
        (key(with(jwk(), "x", json!(X.replace("BFs", "BFt")))), R::KeyNotUsable),
        (key(with(jwk(), "y", json!(B64.encode([1; 31])))), R::KeyNotUsable),
        (key(with(jwk(), "use", json!("enc"))), R::KeyNotUsable),
        (key(with(jwk(), "alg", json!("ES384"))), R::KeyNotUsable),
        (with(header(), "alg", json!("ES384")), R::KeyNotUsable),
        (with(header(), "alg", json!("RS256")), R::KeyNotUsable),
        (with(header(), "alg", json!("EdDSA")), R::KeyNotUsable),
        (rsa(modulus(128), "AQAB"), R::KeyNotUsable),
        (rsa(modulus(255), "AQAB"), R::KeyNotUsable),
        (rsa(B64.encode(&short), "AQAB"), R::KeyNotUsable),
        (rsa(modulus(513), "AQAB"), R::KeyNotUsable),
        (rsa(B64.encode(&leading), "AQAB"), R::KeyNotUsable),
        (rsa(modulus(256), "AAEAAQ"), R::KeyNotUsable),
        (rsa(modulus(256), "AQ"), R::KeyNotUsable),
        (rsa(modulus(256), "Ag"), R::KeyNotUsable),
        (rsa(modulus(256), "AQAAAAE"), R::KeyNotUsable),
        (rsa(modulus(256), ""), R::KeyNotUsable),
    ] {
        assert_eq!(judge(&compact(&bad, &claims()), &expected()), Err(refusal), "{bad}");
    }
}

#[test]
fn a23_the_claims_say_this_request_this_token_and_now() {
    let claim = |member: &str, value: Value| with(claims(), member, value);
    for good in [
        claim("iat", json!(NOW.0 - 300)),
        claim("iat", json!(NOW.0 + 300)),
        claim("iat", json!(1_799_999_999.5)),
        claim("jti", json!("j".repeat(256))),
        claim("exp", json!(NOW.0 + 1)),
        claim("nbf", json!(NOW.0)),
        // Of another server perhaps: none is given out here, so none is looked at.
        claim("nonce", json!("another-server's")),
        claim("htu", json!("https://hr.example.com/mcp?a=b#c")),
        claim("htu", json!("HTTPS://HR.EXAMPLE.COM:443/mcp")),
        claim("htu", json!("https://hr.example.com:/x/../%6dcp")),
    ] {
        assert!(judge(&compact(&header(), &good), &expected()).is_ok(), "{good}");
    }
    for (bad, refusal) in [
        (claim("jti", Value::Null), R::BadClaim),
        (claim("jti", json!("")), R::BadClaim),
        (claim("jti", json!(7)), R::BadClaim),
        (claim("jti", json!("j".repeat(257))), R::BadClaim),
        (claim("iat", Value::Null), R::BadClaim),
        (claim("iat", json!(NOW.0.to_string())), R::BadClaim),
        (claim("iat", json!(-1)), R::BadClaim),
        (claim("iat", json!(1e30)), R::BadClaim),
        (claim("htm", Value::Null), R::BadClaim),
        (claim("htm", json!(["POST"])), R::BadClaim),
        (claim("htm", json!("GET")), R::OtherMethod),
        (claim("htm", json!("post")), R::OtherMethod),
        (claim("htm", json!("POST ")), R::OtherMethod),
        (claim("htu", Value::Null), R::BadClaim),
        (claim("htu", json!("https://other.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com/mcp/")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com/MCP")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com")), R::OtherTarget),
        (claim("htu", json!("http://hr.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com:8443/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com:80/mcp")), R::OtherTarget),
        (claim("htu", json!("https://alice@hr.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com./mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com\\mcp")), R::OtherTarget),
        (claim("htu", json!("https:/hr.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("//hr.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com/m%63p%")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com/%2Fmcp")), R::OtherTarget),
        (claim("htu", json!("https://127.0.0.1:8000/mcp")), R::OtherTarget),
        (claim("htu", json!(" https://hr.example.com/mcp")), R::OtherTarget),
        (claim("htu", json!("https://hr.example.com/mcp\n")), R::OtherTarget),
        (claim("htu", json!(format!("https://hr.example.com/mcp?{}", "a".repeat(4096)))), R::OtherTarget),
        (claim("ath", Value::Null), R::BadClaim),
        (claim("ath", json!("")), R::OtherToken),
        (claim("ath", json!(B64.encode([8; 32]))), R::OtherToken),
        (claim("ath", json!(URL_SAFE.encode(HASH))), R::OtherToken),
        (claim("iat", json!(NOW.0 - 301)), R::NotFresh),
        (claim("iat", json!(NOW.0 + 301)), R::NotFresh),
        (claim("exp", json!(NOW.0)), R::NotFresh),
        (claim("exp", json!("soon")), R::BadClaim),
        (claim("nbf", json!(NOW.0 + 1)), R::NotFresh),
        (claim("nonce", json!(7)), R::BadClaim),
        (claim("nonce", json!("n".repeat(257))), R::BadClaim),
    ] {
        assert_eq!(judge(&compact(&header(), &bad), &expected()), Err(refusal), "{bad}");
    }
    for method in ["GET", "DELETE"] {
        let expected = Expected { method, ..expected() };
        assert_eq!(judge(&compact(&header(), &claims()), &expected), Err(R::OtherMethod));
        assert!(judge(&compact(&header(), &claim("htm", json!(method))), &expected).is_ok());
    }
}

#[test]
fn a23_a_narrower_window_is_narrower_on_both_sides() {
    let expected = Expected { max_age: 10, ..expected() };
    for (off, taken) in [(-11, false), (-10, true), (10, true), (11, false)] {
        let claims = with(claims(), "iat", json!(NOW.0 + off));
        assert_eq!(judge(&compact(&header(), &claims), &expected).is_ok(), taken, "{off}");
    }
}

#[test]
fn a25_a_nonce_that_is_demanded_is_ours_and_fresh_and_counts_for_the_time() {
    let judge = |claims: &Value, given: Option<i64>| {
        let nonce = Nonce::Demanded(given.map(Timestamp));
        judge(&compact(&header(), claims), &Expected { nonce, max_age: 60, ..expected() })
    };
    let claims = with(claims(), "nonce", json!("n"));
    assert_eq!(judge(&claims, Some(NOW.0)).unwrap().until, NOW.plus(60));
    assert_eq!(judge(&claims, Some(NOW.0 - 59)).unwrap().until, NOW.plus(1));
    // A caller whose clock is wrong: ours counts.
    assert!(judge(&with(claims.clone(), "iat", json!(1)), Some(NOW.0)).is_ok());
    for given in [None, Some(NOW.0 - 60), Some(NOW.0 + 1), Some(i64::MIN)] {
        assert_eq!(judge(&claims, given), Err(ProofRefusal::NonceNeeded), "{given:?}");
    }
    // What else is wrong is told before a nonce is asked for.
    assert_eq!(judge(&with(claims.clone(), "htm", json!("GET")), None), Err(ProofRefusal::OtherMethod));
    assert_eq!(judge(&with(claims, "iat", Value::Null), Some(NOW.0)), Err(ProofRefusal::BadClaim));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A target in any of its spellings is itself; two targets in any spelling are never the same.
    #[test]
    fn a23_a_target_is_the_same_in_every_spelling_and_never_another(
        segments in prop::collection::vec("[a-z0-9~._%/-]{0,6}", 1..4),
        others in prop::collection::vec("[a-z0-9~._%/-]{0,6}", 1..4),
        spell in any::<u64>(),
        query in "([?][a-z=&/.]{0,8})?(#[a-z/.]{0,4})?",
    ) {
        let encode = |segments: &[String]| {
            let literal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'~' | b'.' | b'_' | b'-');
            let octet = |b: u8| if literal(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
            let segments: Vec<String> = segments.iter().map(|s| format!("s{}", s.bytes().map(octet).collect::<String>())).collect();
            format!("/{}", segments.join("/"))
        };
        let (path, other) = (encode(&segments), encode(&others));
        let bit = |at: usize| spell >> (at % 64) & 1 == 1;
        // Each octet that may be is written encoded, in either case; dots are added that lead nowhere.
        let mut spelled = String::new();
        let mut skip = 0;
        for (at, b) in path.bytes().enumerate() {
            if skip > 0 {
                skip -= 1;
                spelled.push(if bit(at) { char::from(b).to_ascii_lowercase() } else { char::from(b) });
            } else if b == b'%' {
                skip = 2;
                spelled.push('%');
            } else if b == b'/' {
                spelled.push_str(if bit(at) { "/x/../" } else { "/./" });
            } else if bit(at) {
                let octet = format!("%{b:02X}");
                spelled.push_str(&if bit(at + 7) { octet.to_ascii_lowercase() } else { octet });
            } else {
                spelled.push(char::from(b));
            }
        }
        let origin = if bit(1) { "HTTPS://HR.example.COM" } else { "https://hr.example.com:443" };
        let htu = format!("{origin}{spelled}{query}");
        prop_assert!(same_target(&htu, ORIGIN, &path), "{} {}", htu, path);
        prop_assert_eq!(same_target(&htu, ORIGIN, &other), path == other);
        prop_assert!(!same_target(&htu, "https://hr.example.com:8443", &path));
        prop_assert!(!same_target(&htu, "http://hr.example.com", &path));
    }

    /// Whatever octet of a proof is changed, what is left is refused, or says in everything the same.
    #[test]
    fn a23_no_changed_proof_is_for_anything_else(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let good = compact(&header(), &claims());
        let mut changed = good.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to;
        if let Ok(changed) = String::from_utf8(changed) {
            let signed = good.rfind('.').unwrap();
            if let Ok(read) = Proof::read([Some(changed.as_str())]) {
                // The signature stands over every octet of what was read.
                prop_assert!(changed == good || at > signed || read.signing_input != &good[..signed]);
                if read.check(&expected(), NOW).is_ok() {
                    let key = read.key.thumbprint_input();
                    let own = Proof::read([Some(good.as_str())]).unwrap().key.thumbprint_input();
                    prop_assert!(at < good.find('.').unwrap() || key == own);
                }
            }
        }
    }

    /// Nothing that comes ends in anything but a verdict.
    #[test]
    fn a23_anything_is_judged(header in ".{0,60}", claims in ".{0,60}", rest in "[a-zA-Z0-9_.-]{0,20}") {
        let _ = judge(&format!("{}.{}.{rest}", B64.encode(header), B64.encode(claims)), &expected());
        let _ = judge(&rest, &expected());
    }
}
