//! A caller's token: its text, its header, its claims, and what its provider says of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::claims::{check_claims, check_header, select_provider};
use behalf_policy::dpop::{ALGORITHMS, Expected, MAX_PROOF_BYTES, Nonce, Proof, same_target};
use behalf_policy::introspection::{self, Answer};
use behalf_policy::strict_json;
use behalf_sidecar::provider::signature::{Jws, verify_by_own_key};
use serde_json::Value;

use crate::fixture;

/// Either a JWT as it stands, or, after a first byte `{`, a header and claims on two lines that are made one: else hardly any
/// mutation would get past base64.
fn compact(data: &[u8]) -> Option<String> {
    match data.split(|byte| *byte == b'\n').collect::<Vec<_>>()[..] {
        [header, claims] if data.starts_with(b"{") => {
            Some(format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
        }
        _ => std::str::from_utf8(data).ok().map(str::to_owned),
    }
}

/// A caller's token.
pub(crate) fn token(data: &[u8]) {
    let Some(text) = compact(data) else { return };
    let Ok(jws) = Jws::parse(&text) else { return };
    let segments: Vec<&str> = text.split('.').collect();
    assert_eq!(segments.len(), 3, "not three segments");
    assert_eq!(format!("{}.{}", jws.signing_input, jws.signature), text, "what is verified is not what came");
    for (segment, read) in [(segments[0], &jws.header), (segments[1], &jws.claims)] {
        let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes), segment, "base64 with two spellings");
        assert_eq!(serde_json::from_slice::<Value>(&bytes).ok(), Some(Value::Object(read.clone())));
    }
    for policy in fixture::policies() {
        for (name, provider) in &policy.providers {
            if check_header(provider, &jws.header).is_ok() {
                let algorithm = jws.header.get("alg").and_then(Value::as_str).unwrap_or_default();
                assert!(!algorithm.to_ascii_lowercase().starts_with("none"), "{algorithm}");
                assert!(!algorithm.to_ascii_uppercase().starts_with("HS"), "{algorithm}");
                assert!(!["crit", "b64", "zip", "enc"].iter().any(|member| jws.header.contains_key(*member)));
            }
            let Ok(caller) = check_claims(policy, name, provider, &jws.claims, fixture::NOW) else {
                continue;
            };
            assert!(caller.expires > fixture::NOW, "an expired caller");
            assert_eq!(jws.claims.get("sub").and_then(Value::as_str), Some(caller.subject.as_str()));
            assert!(jws.claims.get("exp").is_some_and(Value::is_number), "no expiry");
            assert!(!jws.claims.contains_key("_claim_names"), "groups were left out");
            let audience = jws.claims.get("aud");
            let named = audience
                .is_some_and(|aud| aud.is_string() || aud.as_array().is_some_and(|all| !all.is_empty()));
            assert!(named, "no audience");
            // The provider that was picked by the unverified issuer is the one whose rules it passed.
            if jws.claims.contains_key("iss") {
                assert_eq!(select_provider(policy, &jws.claims).ok().map(|(picked, _)| picked), Some(name));
            }
        }
    }
}

/// A proof of possession.
pub(crate) fn dpop(data: &[u8]) {
    let Some(text) = compact(data) else { return };
    let Ok(proof) = Proof::read([Some(text.as_str())]) else { return };
    assert!(text.len() <= MAX_PROOF_BYTES, "a huge proof");
    assert_eq!(
        format!("{}.{}", proof.signing_input, proof.signature),
        text,
        "what is verified is not what came"
    );
    let part = |at: usize| {
        let segment = text.split('.').nth(at).unwrap_or_default();
        let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
        serde_json::from_slice::<Value>(&bytes).unwrap_or_default()
    };
    let (header, claims) = (part(0), part(1));
    assert_eq!(header["typ"], "dpop+jwt");
    let algorithm = header["alg"].as_str().unwrap_or_default();
    assert!(ALGORITHMS.contains(&algorithm), "{algorithm}");
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(header["jwk"].get(private).is_none(), "a private key was taken");
    }
    // The thumbprint is over JSON of strings alone, each in one spelling.
    let thumbprint: Value = serde_json::from_str(&proof.key.thumbprint_input()).unwrap_or_default();
    for (member, value) in thumbprint.as_object().into_iter().flatten() {
        assert_eq!(&header["jwk"][member], value);
    }
    assert!(!verify_by_own_key(&proof) || !claims.is_null());
    let (method, origin, path) = ("POST", "https://hr.example.com", "/mcp");
    for nonce in [Nonce::NotDemanded, Nonce::Demanded(None), Nonce::Demanded(Some(fixture::NOW))] {
        let expected = Expected { method, origin, path, token_hash: [7; 32], max_age: 300, nonce };
        let Ok(once) = proof.check(&expected, fixture::NOW) else { continue };
        assert!(nonce != Nonce::Demanded(None), "no nonce, and none missed");
        assert_eq!((claims["jti"].as_str(), claims["htm"].as_str()), (Some(once.id.as_str()), Some(method)));
        assert!(!once.id.is_empty() && once.id.len() <= 256);
        assert!(once.until > fixture::NOW && once.until <= fixture::NOW.plus(601), "{once:?}");
        let htu = claims["htu"].as_str().unwrap_or_default();
        assert!(same_target(htu, origin, path) && !same_target(htu, origin, "/other"));
        assert!(!same_target(htu, "https://hr.example.com:8443", path));
        assert_eq!(claims["ath"], URL_SAFE_NO_PAD.encode([7; 32]));
    }
}

/// An answer to an introspection, alone or behind a line with the claims of the token that was asked about.
pub(crate) fn introspection(data: &[u8]) {
    let (claims, answer) = match data.split(|byte| *byte == b'\n').collect::<Vec<_>>()[..] {
        [claims, answer] => (strict_json::object(claims).ok(), answer),
        _ => (None, data),
    };
    let Ok(Answer::Active(members)) = introspection::read(answer) else { return };
    let plain: Value = serde_json::from_slice(answer).unwrap_or_default();
    assert_eq!(plain["active"], true, "active is not literally true");
    for policy in fixture::policies() {
        for (name, provider) in &policy.providers {
            let now = fixture::NOW;
            if let Ok(caller) = introspection::caller_of_opaque(policy, name, provider, members.clone(), now)
            {
                assert!(caller.expires > now, "an expired caller");
                assert_eq!(plain["sub"], caller.subject.as_str());
                assert!(plain["exp"].is_number() && !plain["aud"].is_null(), "nobody's, or for ever");
            }
            let Some(claims) = &claims else { continue };
            let Ok(signed) = check_claims(policy, name, provider, claims, now) else { continue };
            let narrowed = introspection::narrowed(policy, provider, &signed, claims, &members, now);
            let Ok(Ok(narrowed)) = narrowed else { continue };
            assert!(narrowed.scopes.is_subset(&signed.scopes), "an answer widens scopes");
            assert!(narrowed.groups.is_subset(&signed.groups), "an answer widens groups");
            assert!(narrowed.expires <= signed.expires, "an answer prolongs a token");
            assert_eq!((&narrowed.subject, &narrowed.client), (&signed.subject, &signed.client));
            assert_eq!(narrowed.kind, signed.kind);
        }
    }
}
