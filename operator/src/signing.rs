//! The keys that sign bundles (Ed25519).
//!
//! Called by the reconciler, which keeps the keys in a Secret of its own namespace, and by the local run without
//! Kubernetes, which keeps them in memory. A bundle is signed by every key of the list, so that pods that pin an older
//! one still take it; which keys are in the list is decided by [`rotate`] and followed by [`keep`]. Private halves leave
//! this module only as the bytes of the Secret, and no output of it shows them.

pub mod keep;
pub mod pins;
pub mod rotate;
mod stored;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use behalf_policy::bundle::Document;
use behalf_policy::bundle::signed::{self, PublicKey, SignedBundle, SignedBundleError};
use k8s_openapi::jiff::Timestamp;

/// How many keys a list may hold; every sidecar carries all public halves in its arguments.
pub const MAX_KEYS: usize = 4;
/// Bytes of the public key's digest that name it.
const ID_BYTES: usize = 8;
/// Bytes of the salt.
const SALT_BYTES: usize = 16;

/// Why there is no signature or no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The system gave no randomness.
    #[error("cannot generate a signing key")]
    Generate,
    /// What was stored is no list of keys.
    #[error(
        "the stored signing keys cannot be read; delete the Secret to have new ones made (enrolled pods must then be restarted)"
    )]
    Stored,
    /// The document is no JSON.
    #[error("the bundle cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The signed bundle is larger than a sidecar takes.
    #[error("the signed bundle has {size} bytes, more than the {} a sidecar takes", signed::MAX_BYTES)]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
}

impl SigningError {
    /// Closed reason, for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Generate => "SigningKeyNotGenerated",
            Self::Stored => "SigningKeysUnreadable",
            Self::Encode(_) => "BundleNotEncoded",
            Self::TooLarge { .. } => "BundleTooLarge",
        }
    }
}

/// The keys in use, the newest first. Never empty.
#[derive(Clone)]
pub struct SigningKeys {
    keys: Vec<Key>,
    /// Salt of the installation for the ids of tokens in records. It lies beside the keys because it is made once, as the
    /// first of them is, and is no secret: every bundle carries it.
    record_salt: Option<Arc<str>>,
}

#[derive(Clone)]
struct Key {
    id: String,
    public: [u8; 32],
    pair: Arc<Ed25519KeyPair>,
    /// When it was made; none in lists of the first release.
    created: Option<Timestamp>,
    /// Since when new pods do not pin it any more. It still signs.
    retired: Option<Timestamp>,
}

/// Shows the names of the keys and nothing else.
impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl SigningKeys {
    /// One new key of unknown age.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, SigningError> {
        Self { keys: vec![Key::generate()?], record_salt: None }.salted()
    }

    /// The same, with a new salt if there is none.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn salted(self) -> Result<Self, SigningError> {
        if self.record_salt.is_some() {
            return Ok(self);
        }
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| SigningError::Generate)?;
        Ok(self.with_record_salt(Some(&hex(&salt))))
    }

    /// The same, with this salt, as it lies in the Secret; none for anything but what [`SigningKeys::salted`] makes.
    #[must_use]
    pub fn with_record_salt(self, salt: Option<&str>) -> Self {
        let usable =
            |salt: &&str| salt.len() == 2 * SALT_BYTES && salt.bytes().all(|b| b.is_ascii_hexdigit());
        Self { record_salt: salt.filter(usable).map(Into::into), ..self }
    }

    /// Salt of the installation for the ids of tokens in records.
    #[must_use]
    pub fn record_salt(&self) -> Option<&str> {
        self.record_salt.as_deref()
    }

    /// The same, with `now` as the age of keys that have none.
    #[must_use]
    pub fn dated(mut self, now: Timestamp) -> Self {
        for key in &mut self.keys {
            key.created.get_or_insert(now);
        }
        self
    }

    /// The signed bundle as it lies in its ConfigMap. The same document gives the same text (RFC 8032: no randomness).
    ///
    /// # Errors
    /// The result is larger than a sidecar takes.
    pub fn seal(&self, document: &Document) -> Result<String, SigningError> {
        let payload = serde_json::to_vec(document).map_err(SigningError::Encode)?;
        let bundle = signed::seal(&payload, |message| {
            self.keys.iter().map(|key| (key.id.clone(), key.pair.sign(message).as_ref().to_vec())).collect()
        });
        let text = serde_json::to_string(&bundle).map_err(SigningError::Encode)?;
        if text.len() > signed::MAX_BYTES {
            return Err(SigningError::TooLarge { size: text.len() });
        }
        Ok(text)
    }

    /// Opens a bundle that one of these keys signed: its payload and document.
    ///
    /// # Errors
    /// It is not one.
    pub fn open(&self, text: &str) -> Result<(Vec<u8>, Document), SignedBundleError> {
        signed::open(text.as_bytes(), &self.public_keys(), verify)
    }

    /// Whether every key of the list signed this bundle, and no other: else some pod may not take it, or one takes it by a
    /// key that was dropped.
    #[must_use]
    pub fn all_signed(&self, text: &str) -> bool {
        let signatures = serde_json::from_str::<SignedBundle>(text).map_or(0, |it| it.signatures.len());
        let keys = self.public_keys();
        signatures == keys.len()
            && keys.iter().all(|key| signed::open(text.as_bytes(), std::slice::from_ref(key), verify).is_ok())
    }

    /// The public halves.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.iter().map(|key| PublicKey { id: key.id.clone(), bytes: key.public }).collect()
    }

    /// The public halves as the sidecar's arguments carry them: `<id>=<base64>`.
    #[must_use]
    pub fn public_arguments(&self) -> Vec<String> {
        self.keys.iter().map(Key::argument).collect()
    }

    /// Those of them that new pods pin, as soon as admission takes them. Never empty: the newest is never retired.
    #[must_use]
    pub fn to_pin(&self) -> Vec<String> {
        self.keys.iter().filter(|key| key.retired.is_none()).map(Key::argument).collect()
    }

    /// Those of them that have been there for so long that admission certainly knows them.
    #[must_use]
    pub fn older_than(&self, age: Duration, now: Timestamp) -> Vec<String> {
        let old = |key: &&Key| key.created.is_none_or(|created| since(created, now) >= age);
        self.keys.iter().filter(old).map(Key::argument).collect()
    }
}

/// How long ago; nothing if that is still to come by our clock.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl Key {
    fn generate() -> Result<Self, SigningError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| SigningError::Generate)?;
        Self::new(pair).ok_or(SigningError::Generate)
    }

    fn argument(&self) -> String {
        PublicKey { id: self.id.clone(), bytes: self.public }.to_argument()
    }

    /// A key is named by its public half, so that two replicas cannot name two keys alike.
    fn new(pair: Ed25519KeyPair) -> Option<Self> {
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref()).ok()?;
        let digest = digest::digest(&digest::SHA256, &public);
        let id = hex(digest.as_ref().iter().take(ID_BYTES));
        Some(Self { id, public, pair: Arc::new(pair), created: None, retired: None })
    }
}

/// The digest by which status, records and metrics name a bundle: of the payload that was signed.
#[must_use]
pub fn payload_digest(payload: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, payload);
    format!("sha256:{}", hex(digest.as_ref()))
}

fn hex<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    bytes.into_iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Ed25519 verification, in the form [`signed::open`] takes.
#[must_use]
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use behalf_policy::bundle::RefuseAllReason;
    use behalf_policy::bundle::document::{FORMAT, Serve};

    use super::*;

    fn document(serial: u64) -> Document {
        Document {
            format: FORMAT,
            namespace: "hr".into(),
            identity: "hr-tools".into(),
            serial,
            feed: None,
            record_salt: None,
            serve: Serve::RefuseAll { reason: RefuseAllReason::IdentityDeleted },
        }
    }

    #[test]
    fn the_salt_is_made_once_and_stays() {
        let keys = SigningKeys::generate().unwrap();
        let salt = keys.record_salt().unwrap().to_owned();
        assert_eq!(keys.clone().salted().unwrap().record_salt(), Some(salt.as_str()));
        assert_ne!(SigningKeys::generate().unwrap().record_salt(), Some(salt.as_str()));
        // It lies beside the keys, not among them: a Secret of before there was a salt has none.
        let stored = SigningKeys::from_stored(&keys.to_stored().unwrap()).unwrap();
        assert_eq!(stored.record_salt(), None);
        assert_eq!(stored.clone().with_record_salt(Some(&salt)).record_salt(), Some(salt.as_str()));
        for bad in ["", "x", "not a salt of ours, but long enough"] {
            assert_eq!(stored.clone().with_record_salt(Some(bad)).record_salt(), None, "{bad}");
        }
        assert!(stored.salted().unwrap().record_salt().is_some_and(|salt| salt.len() == 32));
    }

    #[test]
    fn what_is_sealed_opens_and_is_the_same_each_time() {
        let keys = SigningKeys::generate().unwrap();
        let text = keys.seal(&document(7)).unwrap();
        assert_eq!(keys.open(&text).unwrap().1, document(7));
        assert_eq!(text, keys.seal(&document(7)).unwrap());
        assert!(keys.all_signed(&text));
    }

    #[test]
    fn another_key_a_changed_payload_and_a_foreign_text_are_refused() {
        let keys = SigningKeys::generate().unwrap();
        let text = keys.seal(&document(7)).unwrap();
        assert!(matches!(SigningKeys::generate().unwrap().open(&text), Err(SignedBundleError::Unsigned)));
        let mut changed: signed::SignedBundle = serde_json::from_str(&text).unwrap();
        changed.payload = STANDARD.encode(serde_json::to_vec(&document(8)).unwrap());
        let changed = serde_json::to_string(&changed).unwrap();
        assert!(matches!(keys.open(&changed), Err(SignedBundleError::Unsigned)));
        assert!(matches!(keys.open("{}"), Err(SignedBundleError::Malformed)));
        assert!(matches!(keys.open(""), Err(SignedBundleError::Malformed)));
    }

    #[test]
    fn stored_keys_come_back_and_sign_for_each_other() {
        let keys = SigningKeys::generate().unwrap().dated("2026-01-01T00:00:00Z".parse().unwrap());
        let again = SigningKeys::from_stored(&keys.to_stored().unwrap()).unwrap();
        assert_eq!(keys.public_arguments(), again.public_arguments());
        assert_eq!(*keys.to_stored().unwrap(), *again.to_stored().unwrap());
        assert!(again.open(&keys.seal(&document(1)).unwrap()).is_ok());
    }

    #[test]
    fn two_keys_both_sign_and_a_bundle_of_one_is_noticed() {
        let (old, new) = (SigningKeys::generate().unwrap(), SigningKeys::generate().unwrap());
        let one = old.seal(&document(1)).unwrap();
        let both = SigningKeys { keys: new.keys.into_iter().chain(old.keys).collect(), record_salt: None };
        assert!(both.open(&one).is_ok());
        assert!(!both.all_signed(&one));
        let twice = both.seal(&document(1)).unwrap();
        assert!(both.all_signed(&twice));
        let left = SigningKeys { keys: both.keys[..1].to_vec(), record_salt: None };
        assert!(left.open(&twice).is_ok() && !left.all_signed(&twice), "by a key that was dropped");
        assert_eq!(both.public_arguments().len(), 2);
    }

    #[test]
    fn an_oversized_document_is_refused() {
        let keys = SigningKeys::generate().unwrap();
        let mut large = document(1);
        large.identity = "x".repeat(signed::MAX_BYTES);
        assert!(matches!(keys.seal(&large), Err(SigningError::TooLarge { .. })));
    }
}
