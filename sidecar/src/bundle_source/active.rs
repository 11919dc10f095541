//! A bundle with everything that its answers need, made once when it is taken.

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::challenge::{self, Beside};
use behalf_policy::claims::Scheme;
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
    /// When no credentials came.
    pub challenge_none: Challenge,
    /// When a token was not taken.
    pub challenge_invalid_token: Challenge,
    /// When a proof was not taken.
    pub challenge_invalid_proof: Challenge,
    /// When a proof needs a nonce.
    pub challenge_use_nonce: Challenge,
    /// When credentials are malformed.
    pub challenge_invalid_request: Challenge,
    /// When there are several.
    pub challenge_several: Challenge,
}

/// The `WWW-Authenticate` lines of one refusal, in the scheme that a caller used, if it used one.
#[derive(Debug, Clone)]
pub struct Challenge {
    none: Vec<HeaderValue>,
    bearer: Vec<HeaderValue>,
    dpop: Vec<HeaderValue>,
}

impl Challenge {
    fn new(policy: &Policy, bearer: &str, beside: Beside) -> Result<Self, BundleError> {
        let lines = |used| {
            let lines = challenge::schemes(policy, used, bearer, beside).into_iter();
            lines
                .map(|line| HeaderValue::from_str(&line).map_err(|_| BundleError::Unprintable))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            none: lines(None)?,
            bearer: lines(Some(Scheme::Bearer))?,
            dpop: lines(Some(Scheme::Dpop))?,
        })
    }

    /// The lines for a caller that used this scheme.
    #[must_use]
    pub fn lines(&self, used: Option<Scheme>) -> &[HeaderValue] {
        match used {
            None => &self.none,
            Some(Scheme::Bearer) => &self.bearer,
            Some(Scheme::Dpop) => &self.dpop,
        }
    }
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
    let lines = |bearer: String, beside| Challenge::new(policy, &bearer, beside);
    let origin = &policy.server.origin;
    let authority = origin.split_once("://").map_or(origin.as_str(), |(_, authority)| authority);
    Ok(Prepared {
        client_trust: client_trust(policy)?,
        metadata: Bytes::from(challenge::metadata(policy)),
        metadata_path: challenge::metadata_path(&policy.server),
        authority: authority.to_owned(),
        loopback_host: header(format!("127.0.0.1:{}", policy.server.port))?,
        challenge_none: lines(challenge::unauthorized(policy, None), Beside::Offer)?,
        challenge_invalid_token: lines(
            challenge::unauthorized(policy, Some("invalid_token")),
            Beside::Offer,
        )?,
        challenge_invalid_proof: lines(
            challenge::invalid_proof(policy, "invalid_dpop_proof"),
            Beside::Offer,
        )?,
        challenge_use_nonce: lines(challenge::invalid_proof(policy, "use_dpop_nonce"), Beside::Offer)?,
        challenge_invalid_request: lines(challenge::invalid_request(policy), Beside::Nothing)?,
        challenge_several: lines(challenge::invalid_request(policy), Beside::Same)?,
    })
}

fn client_trust(policy: &Policy) -> Result<Option<Trust>, BundleError> {
    let validation = policy.server.tls.as_ref().and_then(|tls| tls.client_validation.as_ref());
    Ok(validation.map(Trust::new).transpose()?)
}
