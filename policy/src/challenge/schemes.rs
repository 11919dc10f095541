//! The same challenge in the scheme a caller used, and what other scheme is taken here (RFC 9449 §7.1 and §7.2).

use super::{metadata_url, quote};
use crate::bundle::{Flavor, Policy, Provider, SenderConstraintMode};
use crate::claims::Scheme;
use crate::dpop::ALGORITHMS;

/// What stands beside the challenge of the scheme that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: another scheme would not help.
    Nothing,
    /// That the other scheme is taken too, without a word of what went wrong.
    Offer,
    /// The same of the other scheme: nobody can tell which of them was meant (RFC 9449 §7.2).
    Same,
}

/// Whether a provider's tokens may be sent with a proof. Those of a platform are never bound.
#[must_use]
pub fn takes_dpop(provider: &Provider) -> bool {
    !matches!(provider.flavor, Flavor::Kubernetes | Flavor::Spiffe)
}

/// Whether no provider's tokens are taken without a proof.
#[must_use]
pub fn demands_dpop(policy: &Policy) -> bool {
    let by_key =
        |provider: &Provider| provider.tokens.sender_constraint.mode == SenderConstraintMode::DpopRequired;
    policy.providers.values().all(by_key)
}

/// The `WWW-Authenticate` lines of an answer. `bearer` is the challenge as it is for a bearer token, `used` the scheme the
/// caller used, if it used one: what went wrong stands in the challenge of that one only.
#[must_use]
pub fn schemes(policy: &Policy, used: Option<Scheme>, bearer: &str, beside: Beside) -> Vec<String> {
    let dpop = policy.providers.values().any(takes_dpop);
    let only_dpop = demands_dpop(policy);
    let bare = format!("resource_metadata=\"{}\"", quote(&metadata_url(&policy.server)));
    let parameters = bearer.strip_prefix("Bearer ").unwrap_or(bearer);
    let algorithms = ALGORITHMS.join(" ");
    let line = |scheme, parameters: &str| match scheme {
        Scheme::Bearer => format!("Bearer {parameters}"),
        Scheme::Dpop => format!("DPoP {parameters}, algs=\"{algorithms}\""),
    };
    let said = match used {
        // Without credentials nothing went wrong: scopes are named in the scheme that is asked for first.
        None if only_dpop => Scheme::Dpop,
        None => Scheme::Bearer,
        Some(used) => used,
    };
    let other = match said {
        Scheme::Bearer => Scheme::Dpop,
        Scheme::Dpop => Scheme::Bearer,
    };
    let taken = |scheme| match scheme {
        Scheme::Bearer => !only_dpop,
        Scheme::Dpop => dpop,
    };
    if !taken(said) {
        // What went wrong was the scheme.
        return vec![line(other, &bare)];
    }
    let mut lines = vec![line(said, parameters)];
    match beside {
        Beside::Offer if taken(other) => lines.push(line(other, &bare)),
        Beside::Same if taken(other) => lines.push(line(other, parameters)),
        _ => {}
    }
    lines
}

/// The challenge of a proof that was not taken (RFC 9449 §7.1), or that needs a nonce (§9), as it would be of a bearer token.
#[must_use]
pub fn invalid_proof(policy: &Policy, error: &str) -> String {
    format!("Bearer error=\"{error}\", resource_metadata=\"{}\"", quote(&metadata_url(&policy.server)))
}
