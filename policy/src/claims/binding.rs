//! What a token is bound to, and whether a request proves it (RFC 9449 §6, RFC 8705 §3, RFC 7800).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Caller, TokenRefusal, read};
use crate::bundle::{Flavor, Provider, SenderConstraintMode};

/// A SHA-256 over a public key (RFC 7638) or over the DER of a certificate (RFC 8705 §3.1). No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    /// Reads base64url without padding. Every thumbprint has one spelling; no other is taken.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = (text.len() == 43).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        bytes.try_into().ok().map(Self)
    }
}

/// What a token is bound to: whoever sends it has to prove all of it. Nothing, for a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Binding {
    /// `cnf.jkt`: a key, proved with each request (RFC 9449 §6.1).
    pub key: Option<Thumbprint>,
    /// `cnf["x5t#S256"]`: a certificate, proved by the connection (RFC 8705 §3.1).
    pub certificate: Option<Thumbprint>,
}

impl Binding {
    /// Reads `cnf`.
    ///
    /// # Errors
    /// When it is there and is anything but an object of bindings known here, at least one: what is not understood cannot
    /// be checked.
    pub(crate) fn of(provider: &Provider, claims: &Map<String, Value>) -> Result<Self, TokenRefusal> {
        let members = match claims.get("cnf") {
            None => return Ok(Self::default()),
            Some(Value::Object(members)) if !members.is_empty() => members,
            Some(_) => return Err(TokenRefusal::BindingUnknown),
        };
        let mut binding = Self::default();
        for (name, value) in members {
            // Keycloak's word for how the key of `jkt` is proved.
            if name == "kc-jkt-type" && provider.flavor == Flavor::Keycloak {
                if value != "DPoP" || !members.contains_key("jkt") {
                    return Err(TokenRefusal::BindingUnknown);
                }
                continue;
            }
            let thumbprint =
                value.as_str().and_then(Thumbprint::parse).ok_or(TokenRefusal::BindingUnknown)?;
            match name.as_str() {
                "jkt" => binding.key = Some(thumbprint),
                "x5t#S256" => binding.certificate = Some(thumbprint),
                _ => return Err(TokenRefusal::BindingUnknown),
            }
        }
        Ok(binding)
    }

    /// What there is of it, for records.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let key = self.key.map(|_| "Key");
        key.into_iter().chain(self.certificate.map(|_| "Certificate")).collect()
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.key.is_some() || self.certificate.is_some()
    }
}

/// How a token was sent (RFC 6750 §2.1, RFC 9449 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: DPoP`, with a proof.
    Dpop,
}

/// What a request proves beside its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented {
    /// How the token was sent.
    pub scheme: Scheme,
    /// The key of the proof, which was verified.
    pub key: Option<Thumbprint>,
    /// The certificate whose key the connection proved.
    pub certificate: Option<Thumbprint>,
}

/// Whether a request proves everything that its token is bound to, and the token is bound as its provider's row demands
/// (RFC 9449 §7.1 and §7.2, RFC 8705 §3). To be asked with each request, however often the token itself was taken before.
///
/// # Errors
/// The first thing that does not hold.
pub fn check_binding(
    provider: &Provider,
    caller: &Caller,
    presented: &Presented,
) -> Result<(), TokenRefusal> {
    let Binding { key, certificate } = caller.binding;
    let demanded = match provider.tokens.sender_constraint.mode {
        SenderConstraintMode::Accepted => true,
        SenderConstraintMode::Required => caller.binding.is_some(),
        SenderConstraintMode::DpopRequired => key.is_some(),
    };
    if !demanded {
        return Err(TokenRefusal::BindingRequired);
    }
    match (presented.scheme, key) {
        (Scheme::Bearer, None) => {}
        (Scheme::Bearer, Some(_)) => return Err(TokenRefusal::BoundToken),
        (Scheme::Dpop, None) => return Err(TokenRefusal::NotBound),
        (Scheme::Dpop, Some(key)) if presented.key == Some(key) => {}
        (Scheme::Dpop, Some(_)) => return Err(TokenRefusal::BoundToOtherKey),
    }
    match (certificate, presented.certificate) {
        (None, _) => Ok(()),
        (Some(bound), Some(proved)) if bound == proved => Ok(()),
        (Some(_), Some(_)) => Err(TokenRefusal::BoundToOtherCertificate),
        (Some(_), None) => Err(TokenRefusal::BoundToken),
    }
}

/// Keycloak says in the payload that a token is bound to a key, as `typ`; such a token names the key.
pub(super) fn check_says_key(claims: &Map<String, Value>, binding: Binding) -> Result<(), TokenRefusal> {
    match read::string(claims, "typ")?.as_deref() {
        Some("DPoP") if binding.key.is_none() => Err(TokenRefusal::BindingUnknown),
        _ => Ok(()),
    }
}
