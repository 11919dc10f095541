//! A provider's key set (RFC 7517): which of its keys may verify which signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::bundle::Algorithm;
use behalf_policy::strict_json;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

/// A set with more entries than this is refused.
const MAX_KEYS: usize = 100;
/// A key id longer than this many bytes is not kept.
const MAX_KEY_ID: usize = 512;
/// RSA moduli of fewer bytes are not kept (RFC 7518 §3.3).
const MIN_RSA: usize = 256;
/// RSA moduli of more bytes are not kept.
const MAX_RSA: usize = 1024;

/// What an RSA key that names no algorithm may verify.
const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A public key of a provider.
pub struct Key {
    id: Option<String>,
    algorithms: BTreeSet<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    /// Whether it verifies signatures of this algorithm.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// What a set says about a key id.
pub enum Found {
    /// These keys may verify.
    Keys(Vec<Arc<Key>>),
    /// The id is there, but its key is for other algorithms: fetching again would not help.
    OtherAlgorithm,
    /// Not there.
    Unknown,
}

/// The usable keys of one document.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
}

impl KeySet {
    /// Reads a document. Keys that are symmetric, private, for encryption, of an unsupported kind, or of
    /// an id that occurs twice are left out.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        Self::parse_used_for(body, &["sig"])
    }

    /// The same for a SPIFFE bundle, whose keys for tokens say `jwt-svid` (SPIFFE Trust Domain and Bundle §4.2.2); those for
    /// certificates are left out.
    #[must_use]
    pub fn parse_spiffe(body: &[u8]) -> Option<Self> {
        Self::parse_used_for(body, &["sig", "jwt-svid"])
    }

    fn parse_used_for(body: &[u8], usages: &[&str]) -> Option<Self> {
        let document = strict_json::object(body).ok()?;
        let Some(Value::Array(entries)) = document.get("keys") else { return None };
        if entries.len() > MAX_KEYS {
            return None;
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for id in entries.iter().filter_map(|e| e.get("kid")).filter_map(Value::as_str) {
            let count = seen.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        let keys = entries
            .iter()
            .filter_map(Value::as_object)
            .filter_map(|jwk| key_of(jwk, usages))
            .filter(|key| key.id.as_deref().is_none_or(|id| seen.get(id) == Some(&1)))
            .map(Arc::new)
            .collect();
        Some(Self { keys })
    }

    /// The keys for a token's header: by id, or all of the algorithm when the token names none.
    #[must_use]
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let serving = |key: &&Arc<Key>| key.serves(algorithm);
        let found: Vec<_> = match id {
            None => self.keys.iter().filter(serving).cloned().collect(),
            Some(id) => {
                let named: Vec<_> = self.keys.iter().filter(|k| k.id.as_deref() == Some(id)).collect();
                if named.is_empty() {
                    return Found::Unknown;
                }
                let serving: Vec<_> = named.into_iter().filter(serving).cloned().collect();
                if serving.is_empty() {
                    return Found::OtherAlgorithm;
                }
                serving
            }
        };
        if found.is_empty() { Found::Unknown } else { Found::Keys(found) }
    }
}

fn key_of(jwk: &Map<String, Value>, usages: &[&str]) -> Option<Key> {
    // A published private key is no longer anybody's alone.
    if ["d", "p", "q", "k"].iter().any(|member| jwk.contains_key(*member)) {
        return None;
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_KEY_ID => Some(id.clone()),
        Some(_) => return None,
    };
    match jwk.get("use") {
        None => {}
        Some(Value::String(usage)) if usages.contains(&usage.as_str()) => {}
        Some(_) => return None,
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|o| o == "verify") => {}
        Some(_) => return None,
    }
    let (decoding, mut algorithms) = match jwk.get("kty")?.as_str()? {
        "RSA" => (rsa(jwk)?, RSA_ALGORITHMS.into()),
        "EC" => ec(jwk)?,
        "OKP" => (ed25519(jwk)?, BTreeSet::from([Algorithm::EdDSA])),
        _ => return None,
    };
    if let Some(named) = jwk.get("alg") {
        let named = Algorithm::from_jose(named.as_str()?)?;
        algorithms.retain(|algorithm| *algorithm == named);
    }
    (!algorithms.is_empty()).then_some(Key { id, algorithms, decoding })
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.get(member)?.as_str()?).ok()
}

fn rsa(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let (modulus, exponent) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let length = modulus.iter().skip_while(|b| **b == 0).count();
    let usable = (MIN_RSA..=MAX_RSA).contains(&length) && (1..=8).contains(&exponent.len());
    usable.then(|| DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

/// The curve says the algorithm (RFC 7518 §3.4): a key of one is never one of the other (D4).
fn ec(jwk: &Map<String, Value>) -> Option<(DecodingKey, BTreeSet<Algorithm>)> {
    let (algorithm, length) = match jwk.get("crv")?.as_str()? {
        "P-256" => (Algorithm::ES256, 32),
        "P-384" => (Algorithm::ES384, 48),
        _ => return None,
    };
    if bytes(jwk, "x")?.len() != length || bytes(jwk, "y")?.len() != length {
        return None;
    }
    let key = DecodingKey::from_ec_components(jwk.get("x")?.as_str()?, jwk.get("y")?.as_str()?).ok()?;
    Some((key, BTreeSet::from([algorithm])))
}

fn ed25519(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    if jwk.get("crv")?.as_str()? != "Ed25519" || bytes(jwk, "x")?.len() != 32 {
        return None;
    }
    DecodingKey::from_ed_components(jwk.get("x")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn found(jwk: &str, id: Option<&str>, algorithm: Algorithm) -> usize {
        let set = KeySet::parse(format!("{{\"keys\":[{jwk}]}}").as_bytes()).unwrap();
        match set.find(id, algorithm) {
            Found::Keys(keys) => keys.len(),
            Found::OtherAlgorithm | Found::Unknown => 0,
        }
    }

    fn ec(extra: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","kid":"a"{extra}}}"#)
    }

    #[test]
    fn a20_keys_that_fit() {
        for extra in
            ["", r#","use":"sig""#, r#","alg":"ES256""#, r#","key_ops":["verify"]"#, r#","x5u":"https://a""#]
        {
            assert_eq!(found(&ec(extra), Some("a"), Algorithm::ES256), 1, "{extra}");
            assert_eq!(found(&ec(extra), None, Algorithm::ES256), 1, "{extra}");
        }
    }

    #[test]
    fn a20_d6_keys_that_do_not_fit_are_ignored() {
        let modulus = URL_SAFE_NO_PAD.encode([0xff; 128]);
        let unfit = [
            ec(r#","use":"enc""#),
            ec(r#","use":7"#),
            ec(r#","key_ops":["sign"]"#),
            ec(r#","key_ops":"verify""#),
            ec(r#","alg":"RS256""#),
            ec(r#","alg":"ES384""#),
            ec(r#","d":"AQ""#),
            format!(r#"{{"kty":"EC","crv":"P-384","x":"{X}","y":"{Y}","kid":"a"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"AQ","kid":"a"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","kid":7}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","kid":""}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{X}","kid":"a"}}"#),
            r#"{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}"#.to_owned(),
            format!(r#"{{"kty":"RSA","n":"{modulus}","e":"AQAB","kid":"a"}}"#),
            r#"{"kid":"a"}"#.to_owned(),
            r#""a""#.to_owned(),
        ];
        for jwk in unfit {
            for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
                assert_eq!(found(&jwk, Some("a"), algorithm), 0, "{jwk}");
                assert_eq!(found(&jwk, None, algorithm), 0, "{jwk}");
            }
        }
    }

    #[test]
    fn d4_a_curve_serves_its_own_algorithm_only() {
        // The generator of P-384 (FIPS 186-4 D.1.2.4).
        let x = "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3";
        let y = "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f";
        let p384 = |curve: &str| format!(r#"{{"kty":"EC","crv":"{curve}","x":"{x}","y":"{y}","kid":"a"}}"#);
        assert_eq!(found(&p384("P-384"), Some("a"), Algorithm::ES384), 1);
        assert_eq!(found(&p384("P-384"), Some("a"), Algorithm::ES256), 0);
        assert_eq!(found(&p384("P-256"), Some("a"), Algorithm::ES256), 0);
        assert_eq!(found(&p384("P-521"), Some("a"), Algorithm::ES384), 0);
        assert_eq!(found(&ec(""), Some("a"), Algorithm::ES384), 0);
    }

    #[test]
    fn a20_keys_for_svids_verify_only_in_a_spiffe_bundle() {
        let bundle = |usage: &str| format!("{{\"keys\":[{}]}}", ec(&format!(r#","use":"{usage}""#)));
        let usable = |set: Option<KeySet>| matches!(set.unwrap().find(Some("a"), Algorithm::ES256), Found::Keys(keys) if keys.len() == 1);
        assert!(usable(KeySet::parse_spiffe(bundle("jwt-svid").as_bytes())));
        assert!(usable(KeySet::parse_spiffe(bundle("sig").as_bytes())));
        assert!(!usable(KeySet::parse_spiffe(bundle("x509-svid").as_bytes())));
        assert!(!usable(KeySet::parse(bundle("jwt-svid").as_bytes())));
    }

    #[test]
    fn a20_of_a_key_id_that_occurs_twice_neither_is_used() {
        assert_eq!(found(&format!("{},{}", ec(""), ec("")), Some("a"), Algorithm::ES256), 0);
        let other = r#"{"kty":"oct","k":"c2VjcmV0","kid":"a"}"#;
        assert_eq!(found(&format!("{},{other}", ec("")), Some("a"), Algorithm::ES256), 0);
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let many = vec!["{}"; MAX_KEYS + 1].join(",");
        for body in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[],"keys":[]}"#,
            "<html>",
            &format!("{{\"keys\":[{many}]}}"),
        ] {
            assert!(KeySet::parse(body.as_bytes()).is_none(), "{body}");
        }
    }
}
