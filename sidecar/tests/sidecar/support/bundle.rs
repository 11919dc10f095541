//! Bundles as the operator would compile and sign them.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use behalf_policy::bundle::Document;
use behalf_policy::bundle::signed::{PublicKey, seal};
use serde_json::{Value, json};

use super::Issuer;

pub(crate) const NAMESPACE: &str = "hr";
pub(crate) const IDENTITY: &str = "hr-tools";
pub(crate) const SERVER: &str = "https://hr.example.com/mcp";

/// The operator's signing key.
pub(crate) struct Operator(Ed25519KeyPair);

impl Operator {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey { id: "k1".to_owned(), bytes: self.0.public_key().as_ref().try_into().unwrap() }
    }

    /// The same key by another name.
    pub(crate) fn public_as(&self, id: &str) -> PublicKey {
        PublicKey { id: id.to_owned(), ..self.public() }
    }

    /// The signed bytes of a document.
    pub(crate) fn seal(&self, document: &Value) -> Vec<u8> {
        sealed_by(&[("k1", self)], document)
    }

    /// Writes the bundle as kubelet does: a new file in the place of the old one.
    pub(crate) fn publish(&self, dir: &Path, document: &Value) {
        publish_bytes(dir, &self.seal(document));
    }
}

/// The bytes of a document that several keys signed.
pub(crate) fn sealed_by(signers: &[(&str, &Operator)], document: &Value) -> Vec<u8> {
    let sign = |input: &[u8]| {
        signers.iter().map(|(id, key)| ((*id).to_owned(), key.0.sign(input).as_ref().to_vec())).collect()
    };
    serde_json::to_vec(&seal(document.to_string().as_bytes(), sign)).unwrap()
}

pub(crate) fn publish_bytes(dir: &Path, bytes: &[u8]) {
    let new = dir.join("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, dir.join("bundle.json")).unwrap();
}

/// A document with the tools of the demo.
pub(crate) fn document(serial: u64, issuer: &Issuer, port: u16) -> Value {
    let tool = |name: &str, scope: &str, denial: &str, downstream: Option<&str>| {
        let downstreams: Vec<_> =
            downstream.iter().map(|scope| json!({"name": "payroll", "scopes": [scope]})).collect();
        json!({"name": name, "scopes": [scope], "denial": denial, "downstreams": downstreams})
    };
    let document = json!({
        "format": 1, "namespace": NAMESPACE, "identity": IDENTITY, "serial": serial,
        "serve": {
            "type": "Policy",
            "state": "Active", "stage": "Enforce", "authentication": "Enforce",
            "catalogRevision": "rev-1",
            "servers": [{
                "name": "mcp", "url": SERVER, "port": port, "host": "Loopback",
                "carriers": ["Authorization", "Meta"],
                "tools": [
                    tool("directory.search", "hr:read", "Explain", None),
                    tool("leave.list", "hr:leave:read", "Explain", None),
                    tool("salary.get", "hr:salary:read", "Explain", Some("payroll:read")),
                    tool("salary.update", "hr:salary:write", "Explain", Some("payroll:write")),
                    tool("secret.get", "hr:salary:read", "Hide", None),
                ],
            }],
            "providers": [{
                "name": "corp", "issuer": issuer.url, "caBundle": issuer.ca, "jwksUri": issuer.jwks_uri(),
                "flavor": "Keycloak", "profile": "Relaxed",
                "algorithms": [
                    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
                ],
                "clockSkew": 5, "groupsClaim": "/groups", "keysMaxStaleness": 600, "keysCooldown": 30,
                "clientId": SERVER,
                "clientAuthentication": {"type": "ClientSecretFile", "file": "/nowhere"},
                "ignoredScopes": [], "maxTokenLifetime": 600,
            }],
            "scopes": [
                {"name": "hr:read", "groups": ["staff", "managers"], "implies": []},
                {"name": "hr:leave:read", "groups": ["staff"], "implies": []},
                {"name": "hr:salary:read", "groups": ["managers"], "implies": ["hr:read"]},
                {"name": "hr:salary:write", "groups": ["managers"], "implies": []},
            ],
            "requiredScopes": ["hr:read"],
            "optionalScopes": ["hr:leave:read", "hr:salary:read"],
            "callers": {"kinds": ["User"], "clients": ["agent-ui"], "maxActorDepth": 1},
            "downstreams": [{
                "name": "payroll", "url": "https://localhost:1", "audience": "payroll", "provider": "corp",
                "scopeCeiling": ["payroll:read", "payroll:write"], "maxTokenLifetime": 600,
            }],
        },
    });
    let parsed: Document = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(parsed.serial, serial);
    document
}
