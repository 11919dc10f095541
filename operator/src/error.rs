//! Why a pass of the reconciler did not end well, and whether to try again.

use crate::kube_io::{self, WriteError};
use crate::reconcile::queue::Next;
use crate::signing::SigningError;

/// A pass that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server cannot be asked or refuses.
    #[error("{doing}: {source}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
    /// Something cannot be written.
    #[error("{doing}: {source}")]
    Write {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: WriteError,
    },
    /// The bundle cannot be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// What the API server stored is not what was sent.
    #[error("the bundle that came back from the API server is not the one that was sent")]
    NotStored,
    /// Somebody wrote the object meanwhile, again and again.
    #[error("the bundle kept changing while it was written")]
    Contended,
    /// There is no certificate yet that bundles could name.
    #[error("the feed has no certificate yet")]
    NoFeed,
    /// The copies still show an object that is gone, or the other way round.
    #[error("the local copy is out of date")]
    Lagging,
}

impl ReconcileError {
    /// What was done when the API server failed, for [`Result::map_err`].
    pub fn api(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { doing, source }
    }

    /// The same for a write that only the leader may do.
    pub fn write(doing: &'static str) -> impl FnOnce(WriteError) -> Self {
        move |source| Self::Write { doing, source }
    }

    /// Closed reason, for metrics and records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => kube_io::reason(source),
            Self::Write { source, .. } => source.reason(),
            Self::Signing(error) => error.reason(),
            Self::NotStored => "BundleNotStored",
            Self::Contended => "BundleContended",
            Self::NoFeed => "FeedNotReady",
            Self::Lagging => "CacheLagging",
        }
    }

    /// When to try again.
    #[must_use]
    pub fn next(&self) -> Next {
        match self {
            Self::Api { .. }
            | Self::Write { .. }
            | Self::NotStored
            | Self::Contended
            | Self::NoFeed
            | Self::Lagging => Next::Retry,
            // The same objects would give the same bundle.
            Self::Signing(_) => Next::AwaitChange,
        }
    }
}
