//! Short digests: names for a state, not a protection.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a short digest: 48 bits tell states of one object apart.
const DIGITS: usize = 12;

/// A short digest of the value's JSON. What cannot be written gets the digest of nothing.
pub(crate) fn short(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(DIGITS).collect()
}
