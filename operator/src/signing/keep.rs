//! Keeps the signing keys as they lie in their Secret: every replica follows it, the leader changes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use behalf_crds::names;
use behalf_plan::Settings;
use behalf_plan::inject::pinned_keys;
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::pins::{OLD, Pins};
use super::rotate::{Facts, Rules, Turn, Why, turn};
use super::{SigningError, SigningKeys};
use crate::clock::{Clock, Monotonic};
use crate::kube_io::apply::Apply;
use crate::kube_io::caches::{Caches, Change};
use crate::kube_io::lease::Leadership;
use crate::kube_io::secrets::{Found, Secrets};
use crate::kube_io::{NotLeading, reason};
use crate::live::Live;
use crate::metrics::{Metrics, Object};

/// Key of the Secret under which the signing keys lie.
const KEYS: &str = "keys.json";
/// Key of the Secret under which lies the last value of [`names::ANNOTATION_ROTATE`] that was answered with a new key.
const ANSWERED: &str = "rotate";
/// Key of the Secret under which lies the salt for the ids of tokens in records.
const SALT: &str = "record-salt";
/// Key of the parameters of the admission policies with the public halves.
pub const PARAMETER: &str = "bundleKeys";
/// How often everything is looked at: ages, pods, and what a watch may have missed.
const RECHECK: Duration = Duration::from_secs(30);
/// How soon a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(5);
/// How often the parameters are looked at while a key waits to be pinned.
const SETTLING: Duration = Duration::from_secs(1);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often two replicas may get in each other's way before it counts as a failure.
const ATTEMPTS: usize = 12;

/// Why the keys cannot be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The Secret cannot be read or written.
    #[error("cannot use the Secret of the signing keys: {0}")]
    Api(#[from] kube::Error),
    /// Its content is none, or a key cannot be made.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// Another replica leads.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// Somebody else kept changing the Secret.
    #[error("the Secret of the signing keys kept changing while it was written")]
    Contended,
}

impl KeysError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api(error) => reason(error),
            Self::Signing(error) => error.reason(),
            Self::NotLeading(_) => "NotLeading",
            Self::Contended => "SigningKeysContended",
        }
    }
}

/// The keys as they lie in the Secret, made if there are none. Whoever creates the Secret first decides.
///
/// # Errors
/// The API server refuses, or what lies there are no keys.
pub async fn load(secrets: &Secrets, clock: Clock) -> Result<SigningKeys, KeysError> {
    for _ in 0..ATTEMPTS {
        if let Some(found) = secrets.get(names::SECRET_SIGNING_KEYS).await? {
            return Ok(stored(&found)?);
        }
        let keys = SigningKeys::generate()?.dated(clock.now().0);
        if secrets.create(names::SECRET_SIGNING_KEYS, data(&keys, None)?).await? {
            tracing::info!("made the signing keys");
            return Ok(keys);
        }
    }
    Err(KeysError::Contended)
}

/// The same, again and again until it works.
pub async fn load_patiently(secrets: &Secrets, clock: Clock) -> SigningKeys {
    loop {
        match load(secrets, clock).await {
            Ok(keys) => return keys,
            Err(error) => {
                tracing::error!(reason = error.reason(), error = %error, "no signing keys yet; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What the keeper works with.
pub struct Around {
    /// Where the Secret is.
    pub secrets: Secrets,
    /// Reads the parameters of the admission policies.
    pub apply: Apply,
    /// The operator's namespace.
    pub namespace: String,
    /// The pods.
    pub caches: Caches,
    /// Who may change the Secret.
    pub leadership: Leadership,
    /// How long keys live.
    pub rules: Rules,
    /// The time of day, by which keys age.
    pub clock: Clock,
    /// The time by which admission settles.
    pub monotonic: Monotonic,
    /// Gets word when everything has to be signed or planned anew; none: nobody reconciles here.
    pub changes: Option<mpsc::Sender<Change>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Keeps the keys, and the settings that carry them: see [`Keeper::keep`].
pub struct Keeper {
    around: Around,
    keys: watch::Sender<Arc<SigningKeys>>,
    settings: watch::Sender<Arc<Settings>>,
    pins: Pins,
    full: bool,
}

impl Keeper {
    /// From the keys that were loaded; `settings` of this process, whose keys are replaced from now on.
    #[must_use]
    pub fn new(
        around: Around,
        loaded: SigningKeys,
        settings: Settings,
    ) -> (Self, Live<SigningKeys>, Live<Settings>) {
        let old = loaded.older_than(OLD, around.clock.now().0);
        let pinned: Vec<_> = loaded.to_pin().into_iter().filter(|key| old.contains(key)).collect();
        let bundle_keys = if pinned.is_empty() { loaded.to_pin() } else { pinned };
        let (keys, live_keys) = Live::new(loaded);
        let (settings, live_settings) = Live::new(Settings { bundle_keys, ..settings });
        (Self { around, keys, settings, pins: Pins::new(old), full: false }, live_keys, live_settings)
    }

    /// Keeps them until told to stop.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut changes = self.around.secrets.changes(names::SECRET_SIGNING_KEYS);
        let mut leadership = self.around.leadership.clone();
        loop {
            let wait = match tokio::time::timeout(PATIENCE, self.look()).await {
                Ok(Ok(wait)) => wait.min(self.around.rules.overlap),
                Ok(Err(KeysError::NotLeading(_))) => RETRY,
                Err(_) => {
                    tracing::warn!("no answer in time about the signing keys");
                    RETRY
                }
                Ok(Err(error)) => {
                    tracing::error!(reason = error.reason(), error = %error, "cannot keep the signing keys");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = changes.next() => {}
                () = leadership.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Follows the Secret, changes it if that is due and up to us, and pins what admission takes. How long until the next
    /// look if nothing happens.
    ///
    /// # Errors
    /// The API server refuses, or what lies there are no keys: everything stays as it was.
    pub async fn look(&mut self) -> Result<Duration, KeysError> {
        for _ in 0..ATTEMPTS {
            let found = self.around.secrets.get(names::SECRET_SIGNING_KEYS).await?;
            let Some(found) = found else {
                self.restore().await?;
                continue;
            };
            let keys = stored(&found)?;
            self.follow(&keys).await;
            if !self.around.leadership.leads() || !self.pods_known() {
                return self.pin(&keys).await;
            }
            let answered = found.data.get(ANSWERED).and_then(|it| String::from_utf8(it.0.clone()).ok());
            let asked = found.annotation(names::ANNOTATION_ROTATE).map(str::to_owned);
            let pods: Vec<_> = self
                .around
                .caches
                .pods
                .state()
                .iter()
                .filter(|it| runs(it))
                .filter_map(|it| pinned_keys(it))
                .collect();
            let facts = Facts { asked: asked.as_deref(), answered: answered.as_deref(), pods: &pods };
            match turn(&keys, facts, self.around.rules, self.around.clock.now().0)? {
                Turn::Rest => {
                    self.full = false;
                    return self.pin(&keys).await;
                }
                Turn::Full => {
                    if !std::mem::replace(&mut self.full, true) {
                        tracing::error!(
                            keys = ?keys,
                            "a new signing key is due, but pods that still run pin each of those there are. Restart pods that the status of their identity counts as outdated"
                        );
                    }
                    return self.pin(&keys).await;
                }
                Turn::Write { keys: next, why } => {
                    let answer = if why == Why::Asked { asked } else { answered };
                    // A Secret of before there was a salt gets one with its next key.
                    let next = next.salted()?;
                    let data = data(&next, answer)?;
                    self.around.leadership.fence()?;
                    if self.around.secrets.replace(names::SECRET_SIGNING_KEYS, found, data).await? {
                        self.around.metrics.wrote(Object::SigningKeys);
                        tracing::info!(?why, keys = ?next, "changed the signing keys");
                    }
                }
            }
        }
        Err(KeysError::Contended)
    }

    /// Whether the copy of the pods was filled.
    fn pods_known(&self) -> bool {
        self.around.caches.are_filled()
    }

    /// Somebody deleted the Secret while we run: all pods still pin these keys.
    async fn restore(&self) -> Result<(), KeysError> {
        let keys = self.keys.borrow().clone();
        let data = data(&keys, None)?;
        self.around.leadership.fence()?;
        if self.around.secrets.create(names::SECRET_SIGNING_KEYS, data).await? {
            tracing::warn!("the Secret of the signing keys was gone; put the same keys back");
        }
        Ok(())
    }

    /// Signs with `keys` from now on.
    async fn follow(&self, keys: &SigningKeys) {
        let changed = self.keys.send_if_modified(|held| {
            let (before, after) = (held.public_arguments(), keys.public_arguments());
            let changed = before != after || held.to_pin() != keys.to_pin();
            *held = Arc::new(keys.clone());
            changed
        });
        if changed {
            tracing::info!(?keys, "signing with other keys");
            self.tell().await;
        }
    }

    /// Has new pods pin what admission takes of `keys`.
    async fn pin(&mut self, keys: &SigningKeys) -> Result<Duration, KeysError> {
        let parameters = self.around.apply.read_parameters(&self.around.namespace).await?;
        let listed =
            parameters.as_ref().and_then(|it| it.get(PARAMETER)).map(String::as_str).unwrap_or_default();
        let listed: Vec<_> = listed.lines().map(str::to_owned).collect();
        let now = self.around.monotonic.now();
        self.pins.saw(&listed, now);
        let Some(chosen) = self.pins.choose(keys, now) else { return Ok(SETTLING) };
        let wait = if chosen.len() < keys.to_pin().len() { SETTLING } else { RECHECK };
        let changed = self.settings.send_if_modified(|held| {
            let changed = held.bundle_keys != chosen;
            if changed {
                *held = Arc::new(Settings { bundle_keys: chosen, ..Settings::clone(held) });
            }
            changed
        });
        if changed {
            tracing::info!("new pods pin other keys");
            self.tell().await;
        }
        Ok(wait)
    }

    async fn tell(&self) {
        if let Some(changes) = &self.around.changes {
            // Nobody reconciles any more: the process is about to end.
            let _ = changes.send(Change::Everything).await;
        }
    }
}

fn stored(found: &Found) -> Result<SigningKeys, SigningError> {
    let keys = SigningKeys::from_stored(found.data.get(KEYS).map(|it| it.0.as_slice()).unwrap_or_default())?;
    Ok(keys.with_record_salt(found.data.get(SALT).and_then(|it| std::str::from_utf8(&it.0).ok())))
}

fn data(keys: &SigningKeys, answered: Option<String>) -> Result<BTreeMap<String, ByteString>, SigningError> {
    let salt = keys.record_salt().map(|it| (SALT.to_owned(), ByteString(it.as_bytes().to_vec())));
    let keys = (KEYS.to_owned(), ByteString(keys.to_stored()?.to_vec()));
    let answered = answered.map(|it| (ANSWERED.to_owned(), ByteString(it.into_bytes())));
    Ok([keys].into_iter().chain(salt).chain(answered).collect())
}

fn runs(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}
