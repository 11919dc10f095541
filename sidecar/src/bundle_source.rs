//! Where the bundle comes from: a directory that kubelet mounts the `ConfigMap` at.
//!
//! A bundle is taken when a pinned key signed it, it is of this identity, it loads, and its serial does
//! not go back. Whatever is wrong with a newer one, the last good one stays in memory; without any, every
//! request is refused.

mod active;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use active::{Active, Prepared};
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use behalf_policy::bundle::signed::{self, PublicKey, SignedBundleError};
use behalf_policy::bundle::{Bundle, LoadError};
use behalf_policy::wire::BUNDLE_KEY;

use crate::admin::Block;
use crate::metrics::Metrics;

/// How often the directory is looked at: kubelet swaps a symbolic link, which no file event tells.
const PERIOD: Duration = Duration::from_secs(1);

/// Why a bundle was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// There is no file, or it cannot be read.
    #[error("the bundle's file cannot be read")]
    Unreadable,
    /// Its envelope is not one of ours.
    #[error(transparent)]
    Signed(#[from] SignedBundleError),
    /// Its document is not usable.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its serial is lower than that of the one in use.
    #[error("the bundle's serial {offered} is behind {current}")]
    SerialWentBack {
        /// Of the bundle in use.
        current: u64,
        /// Of the one offered.
        offered: u64,
    },
    /// It has the serial of the one in use, and other content.
    #[error("the bundle has the serial of the one in use and another content")]
    SerialReused,
    /// A value of it cannot stand in a header.
    #[error("a name in the bundle cannot stand in a header")]
    Unprintable,
}

impl BundleError {
    /// Stable name, for metrics and readiness.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable => "BundleMissing",
            Self::Signed(error) => error.reason(),
            Self::Load(error) => error.reason(),
            Self::SerialWentBack { .. } => "BundleSerialWentBack",
            Self::SerialReused => "BundleSerialReused",
            Self::Unprintable => "BundleInvalid",
        }
    }
}

/// The bundle in use; a cheap clone sees every change.
#[derive(Debug, Clone, Default)]
pub struct Bundles(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    active: ArcSwapOption<Active>,
    rejection: ArcSwapOption<BundleError>,
}

impl Bundles {
    /// No bundle yet: every request is refused.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The bundle in use.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Active>> {
        self.0.active.load_full()
    }

    /// Why the newest bundle seen is not the one in use.
    #[must_use]
    pub fn rejection(&self) -> Option<Arc<BundleError>> {
        self.0.rejection.load_full()
    }

    fn take(&self, active: Active) {
        self.0.active.store(Some(Arc::new(active)));
        self.0.rejection.store(None);
    }

    fn reject(&self, error: BundleError) {
        self.0.rejection.store(Some(Arc::new(error)));
    }
}

/// What a bundle must match to be taken.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Namespace of the identity.
    pub namespace: String,
    /// Name of the identity.
    pub identity: String,
    /// Keys that may sign.
    pub keys: Vec<PublicKey>,
}

impl Expected {
    /// Judges the bytes of a bundle beside the one in use. `None` when it is the one in use.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn judge(&self, bytes: &[u8], current: Option<&Active>) -> Result<Option<Active>, BundleError> {
        let verify = |key: &[u8; 32], message: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        };
        let (payload, document) = signed::open(bytes, &self.keys, verify)?;
        if document.namespace != self.namespace || document.identity != self.identity {
            return Err(LoadError::OtherIdentity.into());
        }
        let digest = sha256(&payload);
        if let Some(current) = current {
            let (offered, current_serial) = (document.serial, current.bundle.serial);
            if offered < current_serial {
                return Err(BundleError::SerialWentBack { current: current_serial, offered });
            }
            if offered == current_serial {
                return if digest == current.bundle.digest {
                    Ok(None)
                } else {
                    Err(BundleError::SerialReused)
                };
            }
        }
        Ok(Some(Active::new(Bundle::load(document, digest)?)?))
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, bytes).as_ref().iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Looks at the file and swaps the bundle.
pub struct BundleSource {
    file: PathBuf,
    expected: Expected,
    bundles: Bundles,
    metrics: Arc<Metrics>,
    /// Held until the first bundle is taken.
    pending: Option<Block>,
    seen: Option<Mark>,
}

impl std::fmt::Debug for BundleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleSource").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What tells one state of the file from another. `None` stands for "no file".
type Mark = Option<(u64, u64, SystemTime, u64)>;

impl BundleSource {
    /// A source that has not looked yet. `pending` keeps the sidecar unready until it found a bundle.
    #[must_use]
    pub fn new(
        dir: &Path,
        expected: Expected,
        bundles: Bundles,
        metrics: Arc<Metrics>,
        pending: Block,
    ) -> Self {
        Self { file: dir.join(BUNDLE_KEY), expected, bundles, metrics, pending: Some(pending), seen: None }
    }

    /// Looks now and then for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Looks once; reads the file only when it is not the one seen last.
    pub async fn look(&mut self) {
        let mark = mark(&self.file).await;
        if self.seen == Some(mark) {
            return;
        }
        // Bytes that change while they are read leave another mark for the next look.
        self.seen = Some(mark);
        let current = self.bundles.current();
        let judged = match tokio::fs::read(&self.file).await {
            Ok(bytes) => self.expected.judge(&bytes, current.as_deref()),
            Err(_) => Err(BundleError::Unreadable),
        };
        match judged {
            Ok(None) => {}
            Ok(Some(active)) => {
                let bundle = &active.bundle;
                tracing::info!(serial = bundle.serial, digest = bundle.digest, "bundle taken");
                self.metrics.bundle_taken(bundle.serial);
                self.bundles.take(active);
                self.pending = None;
            }
            Err(error) => {
                tracing::error!(reason = error.reason(), %error, kept = current.is_some(), "BundleRejected");
                self.metrics.bundle_rejected(error.reason());
                self.bundles.reject(error);
            }
        }
    }
}

async fn mark(file: &Path) -> Mark {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.modified().ok()?, metadata.len()))
}
