//! From the head of a request to the caller's token, and no further: what the token says is judged by
//! [`crate::token`].

use http::header::{AUTHORIZATION, HeaderMap};
use secrecy::SecretString;

use super::respond::Denial;

/// The one bearer token of a request (RFC 6750 §2.1).
///
/// # Errors
/// When there is none, more than one, or something else.
pub(super) fn bearer(headers: &HeaderMap) -> Result<SecretString, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Denial::NoCredentials) };
    if values.next().is_some() {
        return Err(Denial::SeveralCredentials);
    }
    let value = value.to_str().map_err(|_| Denial::CredentialsMalformed)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::SchemeNotSupported);
    }
    let token = token.trim_start_matches(' ');
    if !is_b64token(token) {
        return Err(Denial::CredentialsMalformed);
    }
    Ok(SecretString::from(token))
}

/// `b64token` of RFC 6750 §2.1.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty()
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/'))
}

/// Whether a query tries to carry a token (RFC 6750 §2.3), however its name is encoded.
pub(super) fn carries_token(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case("access_token"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn of(values: &[&'static str]) -> Result<String, Denial> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(|t| t.expose_secret().to_owned())
    }

    #[test]
    fn a6_one_line_any_case_of_the_scheme_and_the_token_grammar() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"] {
            assert_eq!(of(&[good]).unwrap(), "a.b.c", "{good}");
        }
        assert_eq!(of(&["Bearer YQ=="]).unwrap(), "YQ==");
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer a\tb",
            "Bearer =",
            "Bearer a=b",
            "Bearer \"a\"",
        ] {
            assert!(matches!(of(&[bad]), Err(Denial::CredentialsMalformed)), "{bad}");
        }
        for other in ["Basic YTpi", "DPoP a.b.c", "Bearera.b.c", "", " Bearer a"] {
            assert!(matches!(of(&[other]), Err(Denial::SchemeNotSupported)), "{other}");
        }
        assert!(matches!(of(&[]), Err(Denial::NoCredentials)));
        assert!(matches!(of(&["Bearer a", "Bearer a"]), Err(Denial::SeveralCredentials)));
        assert!(matches!(of(&["Bearer a", "DPoP a"]), Err(Denial::SeveralCredentials)));
    }

    #[test]
    fn a5_a_token_in_the_query_is_seen_in_every_spelling() {
        for query in ["access_token=a", "a=b&access%5Ftoken=", "ACCESS_TOKEN=a", "access_token"] {
            assert!(carries_token(query), "{query}");
        }
        assert!(!carries_token("token=a&x=access_token"));
    }
}
