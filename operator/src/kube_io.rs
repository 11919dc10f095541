//! Everything that talks to the API server, by what is said. No other module holds a `kube::Client`.
//!
//! The calls made, hence the least the operator's role has to allow:
//!
//! | resource | verbs | caller |
//! |---|---|---|
//! | `behalf.dev` `agentidentities` | list, watch | [`caches`] |
//! | | get | [`gather`] (the webhook's one look when the cache may lag; whether an identity is really gone) |
//! | `behalf.dev` `scopecatalogs`, `identityproviders` | list, watch | [`caches`] |
//! | | get | [`gather`] (the same look of the webhook, providers only) |
//! | `behalf.dev` `*/status` | patch | [`status`] |
//! | core `namespaces` | list, watch, get | [`caches`], [`gather`] |
//! | core `pods` | list, watch | [`caches`] (those with our label) |
//! | | list | [`gather`] (by service account, those without it, metadata only) |
//! | core `services` | list, watch | [`caches`] |
//! | `discovery.k8s.io` `endpointslices` | list, watch | [`caches`] |
//! | core `serviceaccounts` | get | [`gather`] |
//! | core `configmaps` | list, watch | [`caches`] (bundles, by label) |
//! | | get, create, patch | [`apply`] (`behalf-bundle-*`), [`counts`] (`behalf-counts-*`) |
//! | `authentication.k8s.io` `tokenreviews` | create | [`tokens`] |
//! | `events.k8s.io` `events` | create, patch | [`events`] |
//! | `admissionregistration.k8s.io` `mutatingwebhookconfigurations`, ours by name | list, watch, patch | [`webhook_config`] |
//!
//! In the operator's own namespace:
//!
//! | resource | verbs | caller |
//! |---|---|---|
//! | `coordination.k8s.io` `leases` | create | [`lease`] |
//! | `coordination.k8s.io` `leases`, ours by name | get, update | [`lease`] |
//! | core `secrets` | create | [`secrets`] |
//! | core `secrets`, our two by name | get, list, watch, update | [`secrets`] |
//! | core `configmaps`, the admission parameters by name | get, create, patch (applying one that is not there needs create) | [`apply`] |
//!
//! The chart's test, under an account of its own, reads the group of our kinds (which every account may), the
//! `mutatingwebhookconfigurations` of ours (get, by name), `validatingadmissionpolicies` and
//! `validatingadmissionpolicybindings` (list): [`installed`].

pub mod apply;
pub mod caches;
pub mod counts;
pub mod events;
pub mod gather;
pub mod installed;
pub mod lease;
pub mod secrets;
pub mod status;
pub mod tokens;
pub mod webhook_config;

/// A write that was not sent: this replica does not hold the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not hold the Lease")]
pub struct NotLeading;

/// Why a write that only the leader may do was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It was not sent.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The API server refused it, or cannot be asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// Whether the object is not what the writer saw.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if is_conflict(error))
    }

    /// Whether there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if is_not_found(error))
    }

    /// Closed reason, for metrics and records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotLeading(_) => "NotLeading",
            Self::Api(error) => reason(error),
        }
    }
}

/// Whether the API server refused a write because the object is not what the writer saw (HTTP 409).
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether the API server says there is no such object (HTTP 404).
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// A closed reason for what went wrong with the API server.
#[must_use]
pub fn reason(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => "ApiUnauthorized",
            403 => "ApiForbidden",
            404 => "ApiNotFound",
            409 => "ApiConflict",
            413 => "ApiTooLarge",
            422 => "ApiInvalid",
            429 => "ApiTooManyRequests",
            500.. => "ApiServerError",
            _ => "ApiRefused",
        },
        kube::Error::SerdeError(_) => "ApiUnreadable",
        _ => "ApiUnreachable",
    }
}
