//! The envelope that carries a document with its signatures (Ed25519).
//!
//! The payload is signed as the bytes that travel, never as a re-serialisation; the context string is
//! part of what is signed, so that a signature made for anything else is worth nothing here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::document::Document;
use crate::wire::BUNDLE_SIGNATURE_CONTEXT;

/// No bundle is larger than this many bytes; a ConfigMap holds one MiB.
pub const MAX_BYTES: usize = 900 * 1024;

/// A document and its signatures, as it lies in the ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedBundle {
    /// The document's JSON, base64.
    pub payload: String,
    /// One signature per key that a running pod may pin.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// Identifier of the key; see [`PublicKey::id`].
    pub key_id: String,
    /// Ed25519 signature over [`signing_input`], base64.
    pub signature: String,
}

/// A public key pinned in the sidecar's arguments: `<id>=<base64 of 32 bytes>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Short name of the key.
    pub id: String,
    /// The Ed25519 public key.
    pub bytes: [u8; 32],
}

/// Why a signed bundle was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedBundleError {
    /// Larger than [`MAX_BYTES`].
    #[error("the bundle is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not an envelope of ours.
    #[error("the bundle is not a signed bundle")]
    Malformed,
    /// No signature by a pinned key verifies.
    #[error("no signature of the bundle verifies with a pinned key")]
    Unsigned,
    /// The payload is no document of a format this build reads.
    #[error("the bundle's payload is not a document of format {}", super::document::FORMAT)]
    Document,
    /// A pinned key is not `<id>=<base64 of 32 bytes>`.
    #[error("a pinned key is not written as id=base64")]
    Key,
}

impl SignedBundleError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "BundleTooLarge",
            Self::Malformed => "BundleMalformed",
            Self::Unsigned => "BundleUnsigned",
            Self::Document => "BundleUnreadable",
            Self::Key => "BundleKeyMalformed",
        }
    }
}

impl PublicKey {
    /// Reads `<id>=<base64>`.
    ///
    /// # Errors
    /// When it is not written so.
    pub fn parse(text: &str) -> Result<Self, SignedBundleError> {
        let (id, key) = text.split_once('=').ok_or(SignedBundleError::Key)?;
        let bytes = STANDARD.decode(key).map_err(|_| SignedBundleError::Key)?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| SignedBundleError::Key)?;
        if id.is_empty() {
            return Err(SignedBundleError::Key);
        }
        Ok(Self { id: id.to_owned(), bytes })
    }

    /// The text [`PublicKey::parse`] reads.
    #[must_use]
    pub fn to_argument(&self) -> String {
        format!("{}={}", self.id, STANDARD.encode(self.bytes))
    }
}

/// The exact bytes that are signed for a payload.
#[must_use]
pub fn signing_input(payload: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(BUNDLE_SIGNATURE_CONTEXT.len() + 1 + payload.len());
    input.extend_from_slice(BUNDLE_SIGNATURE_CONTEXT.as_bytes());
    input.push(0);
    input.extend_from_slice(payload);
    input
}

/// Writes the envelope. `sign` makes one signature per key over the bytes it is given.
#[must_use]
pub fn seal(payload: &[u8], sign: impl Fn(&[u8]) -> Vec<(String, Vec<u8>)>) -> SignedBundle {
    let signatures = sign(&signing_input(payload))
        .into_iter()
        .map(|(key_id, signature)| Signature { key_id, signature: STANDARD.encode(signature) })
        .collect();
    SignedBundle { payload: STANDARD.encode(payload), signatures }
}

/// Opens the envelope: the payload's bytes and document, when a pinned key signed it.
///
/// `verify(key, message, signature)` is the Ed25519 check; it is an argument so that this crate needs
/// no cryptography.
///
/// # Errors
/// When it is too large, malformed, not signed by a pinned key, or of another format.
pub fn open(
    bytes: &[u8],
    pinned: &[PublicKey],
    verify: impl Fn(&[u8; 32], &[u8], &[u8]) -> bool,
) -> Result<(Vec<u8>, Document), SignedBundleError> {
    if bytes.len() > MAX_BYTES {
        return Err(SignedBundleError::TooLarge);
    }
    let signed: SignedBundle = serde_json::from_slice(bytes).map_err(|_| SignedBundleError::Malformed)?;
    let payload = STANDARD.decode(&signed.payload).map_err(|_| SignedBundleError::Malformed)?;
    let input = signing_input(&payload);
    let verified = signed.signatures.iter().any(|s| {
        let Ok(signature) = STANDARD.decode(&s.signature) else { return false };
        pinned.iter().any(|key| key.id == s.key_id && verify(&key.bytes, &input, &signature))
    });
    if !verified {
        return Err(SignedBundleError::Unsigned);
    }
    let document = serde_json::from_slice(&payload).map_err(|_| SignedBundleError::Document)?;
    Ok((payload, document))
}
