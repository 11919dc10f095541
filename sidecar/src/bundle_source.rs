//! Where the bundle comes from, by two ways into one place: the directory that kubelet mounts the `ConfigMap` at, and the
//! answers of the feed.
//!
//! By whichever way it came, a bundle is taken when a pinned key signed it, it is of this identity, it loads, and its
//! serial does not go back. Whatever is wrong with a newer one, the last good one stays in memory; without any, every
//! request is refused. Beside it stands the namespace's own deny list, which can only refuse.

mod active;
mod deny;
mod directory;
mod intake;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use active::{Active, Prepared};
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use behalf_policy::bundle::signed::{self, PublicKey, SignedBundleError};
use behalf_policy::bundle::{Bundle, LoadError};
pub use deny::DenySource;
pub use directory::BundleSource;
pub(crate) use directory::{Mark, mark};
pub use intake::{Intake, Offered};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

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
    /// The authorities of clients in it are none.
    #[error(transparent)]
    ClientAuthorities(#[from] crate::tls::TrustError),
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
            Self::ClientAuthorities(_) | Self::Unprintable => "BundleInvalid",
        }
    }
}

/// The way by which a bundle came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The mounted `ConfigMap`.
    Directory,
    /// An answer of the operator's feed.
    Feed,
}

impl Way {
    /// Stable name, for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "Directory",
            Self::Feed => "Feed",
        }
    }
}

/// The bundle in use; a cheap clone sees every change.
#[derive(Debug, Clone, Default)]
pub struct Bundles(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    active: ArcSwapOption<Active>,
    /// At most one of each way, the latest last.
    rejections: Mutex<Vec<(Way, Arc<BundleError>)>>,
    changes: watch::Sender<()>,
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
        let rejections = self.0.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        rejections.last().map(|(_, error)| Arc::clone(error))
    }

    /// Tells whenever another bundle is in use, or another reason why one is not.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Runs by another bundle from now on, which also ends what was wrong with others.
    fn take(&self, active: Active) {
        self.0.active.store(Some(Arc::new(active)));
        self.0.rejections.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.changes.send_replace(());
    }

    /// Runs by the same bundle beside another deny list.
    fn replace(&self, active: Active) {
        self.0.active.store(Some(Arc::new(active)));
    }

    fn reject(&self, way: Way, error: BundleError) {
        self.change_rejections(|rejections| {
            rejections.retain(|(of, _)| *of != way);
            rejections.push((way, Arc::new(error)));
        });
    }

    /// What came by this way last is in order.
    fn settle(&self, way: Way) {
        self.change_rejections(|rejections| rejections.retain(|(of, _)| *of != way));
    }

    fn change_rejections(&self, change: impl FnOnce(&mut Vec<(Way, Arc<BundleError>)>)) {
        let mut rejections = self.0.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |list: &Vec<(Way, Arc<BundleError>)>| list.last().map(|(_, error)| error.reason());
        let before = named(&rejections);
        change(&mut rejections);
        let after = named(&rejections);
        drop(rejections);
        // The same reason again is no news: whoever waits for news would be woken by every retry of its own.
        if before != after {
            self.0.changes.send_replace(());
        }
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

/// What comes from a mounted directory.
pub trait Source: Send + Sized {
    /// Looks once, and reads only what is not what was seen last.
    fn look(&mut self) -> impl Future<Output = ()> + Send;

    /// Looks every second for ever: kubelet swaps a symbolic link, which no file event tells.
    fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.look().await;
            }
        }
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
