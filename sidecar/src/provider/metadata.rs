//! A provider's metadata (RFC 8414, OpenID Connect Discovery): where its endpoints are.

use behalf_policy::ids::Issuer;
use behalf_policy::strict_json;
use serde_json::{Map, Value};
use url::Url;

use super::http::{HttpClient, HttpError, usable_url};

/// The endpoints a provider publishes. Taken only from a document whose issuer is identical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) token_endpoint: Option<String>,
    pub(super) jwks_uri: Option<String>,
    pub(super) introspection_endpoint: Option<String>,
}

/// Why there is no metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The provider could not be asked.
    #[error("the provider's metadata could not be fetched: {0}")]
    Unavailable(#[from] HttpError),
    /// The provider is in trouble.
    #[error("the provider answered its metadata with a server error")]
    ServerError,
    /// None of the well-known places has any.
    #[error("the provider publishes no metadata")]
    NotFound,
    /// The document is not JSON, or of another issuer (RFC 8414 §3.3).
    #[error("the provider's metadata is not valid for its issuer")]
    Invalid,
    /// The document does not name the endpoint, or not as an https URL.
    #[error("the provider's metadata names no usable endpoint")]
    NoEndpoint,
    /// A fetch failed moments ago; the next one is not due yet.
    #[error("the provider's metadata could not be fetched moments ago")]
    BackingOff,
}

impl MetadataError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unavailable(_) | Self::ServerError | Self::BackingOff => "MetadataUnavailable",
            Self::NotFound => "MetadataNotFound",
            Self::Invalid => "MetadataInvalid",
            Self::NoEndpoint => "MetadataWithoutEndpoint",
        }
    }
}

/// Fetches the metadata from the first place that has any (A19).
pub(super) async fn fetch(
    http: &HttpClient,
    issuer: &Issuer,
    ca: Option<&str>,
) -> Result<Metadata, MetadataError> {
    for url in places(issuer.as_str()).ok_or(MetadataError::Invalid)? {
        let reply = http.get(&url, ca).await?;
        if reply.status.is_server_error() || reply.status.as_u16() == 429 {
            return Err(MetadataError::ServerError);
        }
        if reply.status.as_u16() == 200 {
            let document = strict_json::object(&reply.body).map_err(|_| MetadataError::Invalid)?;
            return read(&document, issuer);
        }
    }
    Err(MetadataError::NotFound)
}

fn read(document: &Map<String, Value>, issuer: &Issuer) -> Result<Metadata, MetadataError> {
    if document.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
        return Err(MetadataError::Invalid);
    }
    let endpoint = |name: &str| {
        let url = document.get(name)?.as_str()?;
        usable_url(url).map(|_| url.to_owned())
    };
    Ok(Metadata {
        token_endpoint: endpoint("token_endpoint"),
        jwks_uri: endpoint("jwks_uri"),
        introspection_endpoint: endpoint("introspection_endpoint"),
    })
}

/// Where metadata may lie: RFC 8414 §3.1 with the path inserted, then the two OpenID forms.
fn places(issuer: &str) -> Option<Vec<String>> {
    let url = Url::parse(issuer).ok()?;
    let origin = url.origin().ascii_serialization();
    let path = url.path().trim_end_matches('/');
    let mut places = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a19_places_in_order() {
        assert_eq!(
            places("https://idp.test/realms/acme").unwrap(),
            [
                "https://idp.test/.well-known/oauth-authorization-server/realms/acme",
                "https://idp.test/.well-known/openid-configuration/realms/acme",
                "https://idp.test/realms/acme/.well-known/openid-configuration",
            ]
        );
        for root in ["https://idp.test", "https://idp.test/"] {
            assert_eq!(
                places(root).unwrap(),
                [
                    "https://idp.test/.well-known/oauth-authorization-server",
                    "https://idp.test/.well-known/openid-configuration",
                ]
            );
        }
    }

    #[test]
    fn a19_the_issuer_must_be_identical() {
        let issuer = Issuer::new("https://idp.test/a").unwrap();
        let document = |issuer: &str| {
            let text = format!(r#"{{"issuer":"{issuer}","token_endpoint":"https://idp.test/t"}}"#);
            strict_json::object(text.as_bytes()).unwrap()
        };
        assert!(read(&document("https://idp.test/a"), &issuer).is_ok());
        for other in [
            "https://idp.test/a/",
            "https://IDP.test/a",
            "https://idp.test:443/a",
            "https://idp.test/%61",
            "",
        ] {
            assert_eq!(read(&document(other), &issuer), Err(MetadataError::Invalid), "{other}");
        }
        assert_eq!(read(&Map::new(), &issuer), Err(MetadataError::Invalid));
    }

    #[test]
    fn endpoints_that_are_not_https_are_not_taken() {
        let issuer = Issuer::new("https://idp.test").unwrap();
        for endpoint in [
            "http://idp.test/t",
            "https://user@idp.test/t",
            "https://u:p@idp.test/t",
            "https://idp.test/t#f",
            "file:///etc/passwd",
            "/t",
            "",
        ] {
            let text = format!(r#"{{"issuer":"https://idp.test","token_endpoint":"{endpoint}"}}"#);
            let metadata = read(&strict_json::object(text.as_bytes()).unwrap(), &issuer).unwrap();
            assert_eq!(metadata.token_endpoint, None, "{endpoint}");
        }
    }
}
