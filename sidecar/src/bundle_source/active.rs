//! A bundle with everything that its answers need, made once when it is taken.

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::challenge;
use behalf_policy::deny::DenyList;
use bytes::Bytes;
use http::HeaderValue;

use super::BundleError;
use crate::tls::Trust;

/// The bundle in use.
#[derive(Debug)]
pub struct Active {
    /// What calls are judged by.
    pub bundle: Bundle,
    /// What its answers need; absent when it refuses everything.
    pub prepared: Option<Prepared>,
}

/// Answers that depend on the bundle only.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The protected-resource metadata document (RFC 9728).
    pub metadata: Bytes,
    /// Path at which it is served.
    pub metadata_path: String,
    /// Who may vouch for clients' certificates; none where nobody has to.
    pub client_trust: Option<Trust>,
    /// Authority of the server's URL, as `Host` names it.
    pub authority: String,
    /// `Host` that the server behind us sees.
    pub loopback_host: HeaderValue,
    /// The 401 challenge when no credentials came.
    pub challenge_none: HeaderValue,
    /// The 401 challenge when a token was not taken.
    pub challenge_invalid_token: HeaderValue,
    /// The 400 challenge when credentials are malformed.
    pub challenge_invalid_request: HeaderValue,
}

impl Active {
    /// Prepares a loaded bundle.
    ///
    /// # Errors
    /// When a name in it cannot stand in a header, or the authorities of clients are none.
    pub fn new(bundle: Bundle) -> Result<Self, BundleError> {
        let prepared = bundle.policy().ok().map(prepare).transpose()?;
        Ok(Self { bundle, prepared })
    }

    /// The same bundle beside another deny list.
    #[must_use]
    pub fn with_deny(&self, deny: DenyList) -> Self {
        Self { bundle: Bundle { deny, ..self.bundle.clone() }, prepared: self.prepared.clone() }
    }

    /// The policy with its prepared answers, unless the bundle refuses everything.
    #[must_use]
    pub fn policy(&self) -> Option<(&Policy, &Prepared)> {
        Some((self.bundle.policy().ok()?, self.prepared.as_ref()?))
    }
}

fn prepare(policy: &Policy) -> Result<Prepared, BundleError> {
    let header = |text: String| HeaderValue::from_str(&text).map_err(|_| BundleError::Unprintable);
    let origin = &policy.server.origin;
    let authority = origin.split_once("://").map_or(origin.as_str(), |(_, authority)| authority);
    Ok(Prepared {
        client_trust: client_trust(policy)?,
        metadata: Bytes::from(challenge::metadata(policy)),
        metadata_path: challenge::metadata_path(&policy.server),
        authority: authority.to_owned(),
        loopback_host: header(format!("127.0.0.1:{}", policy.server.port))?,
        challenge_none: header(challenge::unauthorized(policy, None))?,
        challenge_invalid_token: header(challenge::unauthorized(policy, Some("invalid_token")))?,
        challenge_invalid_request: header(challenge::invalid_request(policy))?,
    })
}

fn client_trust(policy: &Policy) -> Result<Option<Trust>, BundleError> {
    let validation = policy.server.tls.as_ref().and_then(|tls| tls.client_validation.as_ref());
    Ok(validation.map(Trust::new).transpose()?)
}
