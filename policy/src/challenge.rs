//! Challenges and protected-resource metadata, derived from the catalogue (RFC 6750 §3, RFC 9728, MCP
//! authorization).

mod schemes;

pub use schemes::{Beside, demands_dpop, invalid_proof, schemes, takes_dpop};
use serde_json::{Map, Value, json};

use crate::bundle::document::Assurance;
use crate::bundle::{Policy, Server, TlsRules};
use crate::ids::{ScopeSet, join_scopes};
use crate::interaction::Interaction;

/// Well-known prefix of protected-resource metadata (RFC 9728 §3).
pub const METADATA_PREFIX: &str = "/.well-known/oauth-protected-resource";

/// Path at which the metadata of a server is served: the prefix inserted before the server's path, a
/// terminating slash after the host dropped first (RFC 9728 §3.1).
#[must_use]
pub fn metadata_path(server: &Server) -> String {
    let path = if server.path == "/" { "" } else { server.path.as_str() };
    format!("{METADATA_PREFIX}{path}")
}

/// URL of the metadata of a server, for `resource_metadata`.
#[must_use]
pub fn metadata_url(server: &Server) -> String {
    format!("{}{}", server.origin, metadata_path(server))
}

/// The metadata document (RFC 9728 §2). Members without elements are left out (§3.2).
#[must_use]
pub fn metadata(policy: &Policy) -> Vec<u8> {
    let mut document = Map::new();
    document.insert("resource".to_owned(), json!(policy.server.url.as_str()));
    let issuers: Vec<_> = policy.issuers.keys().map(|i| json!(i.as_str())).collect();
    document.insert("authorization_servers".to_owned(), Value::Array(issuers));
    let scopes: Vec<_> =
        policy.offered.iter().filter(|s| s.as_str() != "offline_access").map(|s| json!(s.as_str())).collect();
    if !scopes.is_empty() {
        document.insert("scopes_supported".to_owned(), Value::Array(scopes));
    }
    document.insert("bearer_methods_supported".to_owned(), json!(["header"]));
    if policy.providers.values().any(takes_dpop) {
        document.insert("dpop_signing_alg_values_supported".to_owned(), json!(crate::dpop::ALGORITHMS));
    }
    if demands_dpop(policy) {
        document.insert("dpop_bound_access_tokens_required".to_owned(), json!(true));
    }
    // RFC 8705 §3.3: this server takes tokens that are bound to the certificate of the connection.
    if policy.server.tls.as_ref().is_some_and(TlsRules::asks) {
        document.insert("tls_client_certificate_bound_access_tokens".to_owned(), json!(true));
    }
    Value::Object(document).to_string().into_bytes()
}

/// The challenge of a 401. Without `error` when no credentials came (RFC 6750 §3.1).
#[must_use]
pub fn unauthorized(policy: &Policy, error: Option<&str>) -> String {
    bearer(&policy.server, error, &policy.required, None)
}

/// The challenge of a 403 `insufficient_scope`: all scopes of this operation at once (A16).
#[must_use]
pub fn insufficient_scope(policy: &Policy, scopes: &ScopeSet) -> String {
    bearer(&policy.server, Some("insufficient_scope"), scopes, Some("the operation needs further scopes"))
}

/// The challenge of a 401 to a caller that has to log in again, or better (A17, RFC 9470 §3).
#[must_use]
pub fn insufficient_user_authentication(policy: &Policy, log_in: &Assurance) -> String {
    let error = "insufficient_user_authentication";
    let mut challenge =
        bearer(&policy.server, Some(error), &ScopeSet::new(), Some("the operation needs another login"));
    if !log_in.acr_values.is_empty() {
        challenge = format!("{challenge}, acr_values=\"{}\"", quote(&log_in.acr_values.join(" ")));
    }
    if let Some(max_age) = log_in.max_age {
        challenge = format!("{challenge}, max_age=\"{max_age}\"");
    }
    challenge
}

/// The challenge of a 401 to a caller of whom a provider or a downstream wants something: claims in the form that
/// Entra ID has for them, anything else as RFC 9470 §3 has it. Nothing that they wrote stands in it as it was written.
#[must_use]
pub fn interaction(policy: &Policy, wanted: &Interaction) -> String {
    let nothing = ScopeSet::new();
    let bare = |error, words| bearer(&policy.server, Some(error), &nothing, Some(words));
    match wanted {
        Interaction::Claims(claims) => {
            let challenge = bare("insufficient_claims", "the operation needs a token with further claims");
            format!("{challenge}, claims=\"{}\"", claims.base64())
        }
        Interaction::LogIn(log_in) => insufficient_user_authentication(policy, log_in),
        Interaction::Consent => bare(
            "insufficient_user_authentication",
            "the operation needs the caller's consent at the provider",
        ),
        Interaction::Any => {
            bare("insufficient_user_authentication", "the provider asks for the caller to log in")
        }
    }
}

/// The challenge of a 400 `invalid_request` (A6, A18).
#[must_use]
pub fn invalid_request(policy: &Policy) -> String {
    bearer(&policy.server, Some("invalid_request"), &ScopeSet::new(), None)
}

fn bearer(server: &Server, error: Option<&str>, scopes: &ScopeSet, description: Option<&str>) -> String {
    let mut parts = Vec::with_capacity(4);
    if let Some(error) = error {
        parts.push(format!("error=\"{error}\""));
    }
    if !scopes.is_empty() {
        // The grammar of a scope holds neither quote nor backslash, so nothing needs escaping.
        parts.push(format!("scope=\"{}\"", join_scopes(scopes)));
    }
    parts.push(format!("resource_metadata=\"{}\"", quote(&metadata_url(server))));
    if let Some(text) = description {
        parts.push(format!("error_description=\"{text}\""));
    }
    format!("Bearer {}", parts.join(", "))
}

/// Escapes a quoted-string (RFC 9110 §5.6.4).
fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
