//! A provider's key set.

use behalf_policy::bundle::Algorithm;
use behalf_sidecar::provider::key_set::{Found, KeySet};
use behalf_sidecar::provider::signature::verify;
use serde_json::Value;

const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

pub(crate) fn jwks(data: &[u8]) {
    let Some(set) = KeySet::parse(data) else { return };
    let document: Value = serde_json::from_slice(data).unwrap_or_default();
    let entries = document["keys"].as_array().cloned().unwrap_or_default();
    assert!(entries.len() <= 100, "an unbounded set");
    let ids: Vec<&str> = entries.iter().filter_map(|entry| entry["kid"].as_str()).collect();
    for algorithm in ALGORITHMS {
        let mut asked: Vec<Option<&str>> = ids.iter().copied().map(Some).collect();
        asked.push(None);
        for id in asked {
            let Found::Keys(keys) = set.find(id, algorithm) else { continue };
            assert!(keys.len() <= entries.len());
            if let Some(id) = id {
                assert_eq!(
                    ids.iter().filter(|known| **known == id).count(),
                    1,
                    "a key whose id occurs twice"
                );
                let entry = entries.iter().find(|entry| entry["kid"] == id).cloned().unwrap_or_default();
                assert_ne!(entry["kty"], "oct", "a symmetric key");
                assert!(entry.get("d").is_none(), "a private key");
                assert_ne!(entry["use"], "enc", "a key for encryption");
            }
            for key in keys {
                assert!(key.serves(algorithm));
                // Nothing signs without the private part.
                for signature in ["", "AA", "AAAA", &"A".repeat(86), &"A".repeat(342)] {
                    assert!(!verify(&key, algorithm, "a.b", signature), "{algorithm:?} {signature}");
                }
            }
        }
    }
}
