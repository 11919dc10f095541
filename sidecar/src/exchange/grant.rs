//! The forms of the grants, one type each. Parameters are exact: what a provider does not ask for is
//! not sent, because some ignore and some misread it.

use behalf_policy::answer::ACCESS_TOKEN_TYPE;
use behalf_policy::ids::{Audience, ScopeSet, join_scopes};
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::client_auth::ClientProof;

/// Token exchange (RFC 8693 §2.1): an access token of the caller for one of the same caller that is good
/// at one audience with exactly these scopes.
pub(super) struct TokenExchange<'a> {
    pub(super) subject_token: &'a str,
    pub(super) audience: &'a Audience,
    /// Never empty: an empty `scope` means "all of them" to one provider and is an error to another.
    pub(super) scopes: &'a ScopeSet,
}

impl TokenExchange<'_> {
    const GRANT_TYPE: &'static str = "urn:ietf:params:oauth:grant-type:token-exchange";
    const ASSERTION_TYPE: &'static str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

    /// The form's body. Holds secrets; wiped when dropped.
    pub(super) fn form(&self, proof: &ClientProof) -> Zeroizing<String> {
        let assertion = match proof {
            ClientProof::Assertion(assertion) => assertion.as_str(),
            ClientProof::Basic(_) => "",
        };
        // Enough for all of it at once: a string that grows leaves copies behind.
        let capacity = 3 * (self.subject_token.len() + assertion.len() + self.audience.as_str().len()) + 8192;
        let scopes = join_scopes(self.scopes);
        let mut form = Serializer::new(String::with_capacity(capacity + 3 * scopes.len()));
        form.append_pair("grant_type", Self::GRANT_TYPE)
            .append_pair("subject_token", self.subject_token)
            .append_pair("subject_token_type", ACCESS_TOKEN_TYPE)
            .append_pair("requested_token_type", ACCESS_TOKEN_TYPE)
            .append_pair("audience", self.audience.as_str())
            .append_pair("scope", &scopes);
        if !assertion.is_empty() {
            form.append_pair("client_assertion_type", Self::ASSERTION_TYPE)
                .append_pair("client_assertion", assertion);
        }
        Zeroizing::new(form.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use behalf_policy::ids::Scope;

    #[test]
    fn b1_the_form_is_exactly_what_rfc_8693_asks_for() {
        let scopes = ScopeSet::from([Scope::new("payroll:read").unwrap(), Scope::new("a&b=c+d").unwrap()]);
        let audience = Audience::new("payroll").unwrap();
        let grant = TokenExchange { subject_token: "sub.ject", audience: &audience, scopes: &scopes };
        let common = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
            &subject_token=sub.ject\
            &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
            &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
            &audience=payroll&scope=a%26b%3Dc%2Bd+payroll%3Aread";
        let basic = ClientProof::Basic(http::HeaderValue::from_static("Basic eA=="));
        assert_eq!(*grant.form(&basic), common);
        let assertion = ClientProof::Assertion(Zeroizing::new("as.ser.tion".to_owned()));
        assert_eq!(
            *grant.form(&assertion),
            format!(
                "{common}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion=as.ser.tion"
            )
        );
    }
}
