//! How the sidecar proves to a provider which client it is. One method per request (B11), read from its
//! file at each use so that rotation needs no signal, and never from a request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::bundle::{ClientAuthentication, Provider};
use http::HeaderValue;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// No credential file is longer than this many bytes.
const MAX_CREDENTIAL: usize = 64 * 1024;

/// The file of the credential is missing, empty or unreadable as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential's file is missing or holds none")]
pub(crate) struct CredentialMissing;

/// What proves the client in one request. Wiped when dropped.
pub(crate) enum ClientProof {
    /// `client_assertion` of the JWT bearer type (RFC 7523 §2.2).
    Assertion(Zeroizing<String>),
    /// `Authorization: Basic …` (RFC 6749 §2.3.1).
    Basic(HeaderValue),
}

/// How an assertion is said to be one (RFC 7523 §2.2).
pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Reads the credential from its file.
pub(crate) async fn prove(provider: &Provider) -> Result<ClientProof, CredentialMissing> {
    match &provider.client_authentication {
        ClientAuthentication::None => Err(CredentialMissing),
        ClientAuthentication::ServiceAccountToken { file } => read(file).await.map(ClientProof::Assertion),
        ClientAuthentication::ClientSecretFile { file } => {
            let secret = read(file).await?;
            basic(provider.client_id.as_str(), &secret).map(ClientProof::Basic)
        }
    }
}

/// Both parts form-urlencoded before they are joined, as RFC 6749 §2.3.1 has it: a client id may be a URL.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, CredentialMissing> {
    let encoded = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
    let pair = Zeroizing::new(format!("{}:{}", *encoded(id), *encoded(secret)));
    let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    HeaderValue::from_str(&value).map_err(|_| CredentialMissing)
}

async fn read(file: &str) -> Result<Zeroizing<String>, CredentialMissing> {
    let bytes = Zeroizing::new(tokio::fs::read(file).await.map_err(|_| CredentialMissing)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| CredentialMissing)?.trim();
    if text.is_empty() || text.len() > MAX_CREDENTIAL || text.chars().any(char::is_control) {
        return Err(CredentialMissing);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_basic_encodes_both_parts_before_joining() {
        let value = basic("https://hr.test/mcp", "a:b c%").unwrap();
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let pair = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
        assert_eq!(pair, "https%3A%2F%2Fhr.test%2Fmcp:a%3Ab+c%25");
    }
}
