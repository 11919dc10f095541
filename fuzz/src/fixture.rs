//! A small bundle to judge by, and bundles themselves as hostile input.

use std::sync::OnceLock;

use behalf_policy::bundle::{Bundle, Document, Policy};
use behalf_policy::ids::Timestamp;
use serde_json::{Value, json};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);

/// The same policy with each profile of tokens.
pub(crate) fn policies() -> Vec<&'static Policy> {
    static BUNDLES: OnceLock<Vec<Bundle>> = OnceLock::new();
    let bundles = BUNDLES.get_or_init(|| {
        let documents = ["Strict", "Relaxed"].map(|profile| document(profile, "Keycloak")).to_vec();
        let read = |document: Value| serde_json::from_value::<Document>(document).ok();
        documents
            .into_iter()
            .filter_map(read)
            .filter_map(|document| Bundle::load(document, "sha256:00".to_owned()).ok())
            .collect()
    });
    assert_eq!(bundles.len(), 2, "the fixture is no bundle any more");
    bundles.iter().filter_map(|bundle| bundle.policy().ok()).collect()
}

fn document(profile: &str, flavor: &str) -> Value {
    json!({
        "format": 1, "namespace": "hr", "identity": "hr-tools", "serial": 1,
        "serve": {
            "type": "Policy", "state": "Active", "stage": "Enforce", "authentication": "Enforce", "catalogRevision": "1",
            "servers": [{
                "name": "mcp", "url": "https://hr.example.com/mcp", "port": 8000, "host": "Loopback",
                "carriers": ["Authorization", "Meta"],
                "tools": [{"name": "directory.search", "scopes": ["hr:read"], "denial": "Explain", "downstreams": []}],
            }],
            "providers": [{
                "name": "corp", "issuer": "https://idp.example.com/realms/corp", "flavor": flavor, "profile": profile,
                "algorithms": ["RS256", "PS256", "ES256", "EdDSA"], "clockSkew": 30, "groupsClaim": "/groups",
                "keysMaxStaleness": 3600, "keysCooldown": 30, "clientId": "https://hr.example.com/mcp",
                "clientAuthentication": {"type": "ServiceAccountToken", "file": "/token"},
                "ignoredScopes": [], "maxTokenLifetime": 600,
            }],
            "scopes": [{"name": "hr:read", "groups": ["staff"], "implies": []}],
            "requiredScopes": ["hr:read"], "optionalScopes": [],
            "callers": {"kinds": ["User"], "maxActorDepth": 1},
            "downstreams": [],
        },
    })
}

/// What loads is printed and loads again as the same.
pub(crate) fn bundle(data: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Document>(data) else { return };
    let printed = serde_json::to_vec(&document).unwrap_or_default();
    let again = serde_json::from_slice::<Document>(&printed).ok();
    assert_eq!(again.as_ref(), Some(&document), "printed and read again it is another");
    let loads = |document: Document| Bundle::load(document, "sha256:00".to_owned()).is_ok();
    assert_eq!(again.is_some_and(loads), loads(document));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fixture_is_a_bundle() {
        assert_eq!(super::policies().len(), 2);
    }
}
