//! From the head of a request to the caller that proved who it is. What a token says is judged by [`crate::token`], what a
//! proof says by [`crate::dpop`]; here it is seen to that both are asked about each request.

use std::sync::Arc;

use behalf_policy::bundle::Policy;
use behalf_policy::challenge::takes_dpop;
use behalf_policy::claims::{Caller, Presented, Scheme, TokenRefusal, check_binding};
use behalf_policy::dpop::{Proof, ProofRefusal};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};

use super::Inbound;
use super::connection::ConnectionClient;
use super::respond::Denial;
use crate::bundle_source::Active;
use crate::dpop::{DpopError, Shown};
use crate::token::TokenError;

/// Header of a proof (RFC 9449 §4.1).
const PROOF: HeaderName = HeaderName::from_static("dpop");

/// A caller that proved who it is, with the token it proved it by.
pub(super) struct Proved {
    pub(super) caller: Arc<Caller>,
    pub(super) token: SecretString,
}

impl Inbound {
    /// The caller of a request. `nonce` is for its answer, whatever that is.
    ///
    /// # Errors
    /// The first thing that does not hold: the head, then the token, then the proof, which is remembered last.
    pub(super) async fn authenticate(
        &self,
        active: &Active,
        policy: &Policy,
        parts: &Parts,
        client: &ConnectionClient,
        nonce: &mut Option<HeaderValue>,
    ) -> Result<Proved, Denial> {
        let (scheme, token) = credentials(&parts.headers)?;
        let proof = match scheme {
            Scheme::Bearer => None,
            Scheme::Dpop if !policy.providers.values().any(takes_dpop) => {
                return Err(Denial::SchemeNotSupported);
            }
            Scheme::Dpop => {
                let lines = parts.headers.get_all(PROOF).iter().map(|line| line.to_str().ok());
                Some(Proof::read(lines).map_err(Denial::Proof)?)
            }
        };
        let caller = match self.verifier.caller(active, policy, token.expose_secret(), self.clock.now()).await
        {
            Ok(caller) => caller,
            Err(TokenError::Refused(refusal)) => return Err(Denial::Token(refusal)),
            Err(TokenError::KeysUnavailable) => return Err(Denial::KeysUnavailable),
            Err(TokenError::NotAnswered) => return Err(Denial::IntrospectionUnavailable),
        };
        let provider = policy.providers.get(&caller.provider);
        let provider = provider.ok_or(Denial::Token(TokenRefusal::UnknownIssuer))?;
        let certificate = client.thumbprint();
        // What is remembered of a token says nothing of who sends it this time.
        let Some(proof) = proof else {
            let presented = Presented { scheme, key: None, certificate };
            check_binding(provider, &caller, &presented).map_err(Denial::Token)?;
            return Ok(Proved { caller, token });
        };
        let shown = Shown {
            method: parts.method.as_str(),
            origin: &policy.server.origin,
            path: parts.uri.path(),
            token: token.expose_secret(),
            certificate,
        };
        let now = self.clock.now();
        match self.proofs.take(&proof, &shown, provider, &caller, now) {
            Ok(next) => *nonce = next,
            Err(error) => {
                if error == DpopError::Proof(ProofRefusal::NonceNeeded) {
                    *nonce = self.proofs.nonce(now);
                }
                return Err(match error {
                    DpopError::Proof(refusal) => Denial::Proof(refusal),
                    DpopError::Token(refusal) => Denial::Token(refusal),
                    DpopError::Forgetful(full) => Denial::Forgetful(full),
                });
            }
        }
        Ok(Proved { caller, token })
    }
}

/// The one token of a request, and how it was sent (RFC 6750 §2.1, RFC 9449 §7.1).
fn credentials(headers: &HeaderMap) -> Result<(Scheme, SecretString), Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(Denial::NoCredentials) };
    if values.next().is_some() {
        return Err(Denial::SeveralCredentials);
    }
    let value = value.to_str().map_err(|_| Denial::CredentialsMalformed)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let scheme = scheme_named(scheme).ok_or(Denial::SchemeNotSupported)?;
    let token = token.trim_start_matches(' ');
    if !is_b64token(token) {
        return Err(Denial::CredentialsMalformed);
    }
    Ok((scheme, SecretString::from(token)))
}

/// The scheme that a request used, if it used one of ours: its answer speaks in it.
pub(super) fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => scheme_named(value.to_str().ok()?.split(' ').next()?),
        _ => None,
    }
}

fn scheme_named(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("bearer") => Some(Scheme::Bearer),
        _ if text.eq_ignore_ascii_case("dpop") => Some(Scheme::Dpop),
        _ => None,
    }
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
    use super::*;

    fn of(values: &[&'static str]) -> Result<String, Denial> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        credentials(&headers).map(|(_, token)| token.expose_secret().to_owned())
    }

    #[test]
    fn a6_one_line_any_case_of_the_scheme_and_the_token_grammar() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"] {
            assert_eq!(of(&[good]).unwrap(), "a.b.c", "{good}");
        }
        assert_eq!(of(&["Bearer YQ=="]).unwrap(), "YQ==");
        for (value, used) in [
            ("bearer a", Some(Scheme::Bearer)),
            ("DPoP a", Some(Scheme::Dpop)),
            ("dpop a", Some(Scheme::Dpop)),
            ("DPoP", Some(Scheme::Dpop)),
            ("Basic a", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(scheme(&headers), used, "{value}");
        }
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
        for other in ["Basic YTpi", "DPoPa.b.c", "Bearera.b.c", "", " Bearer a"] {
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
