//! Short digests: names for a state, not a protection.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a short digest: 48 bits tell states of one object apart.
const DIGITS: usize = 12;

/// A short digest of the value's JSON. What cannot be written gets the digest of nothing.
pub(crate) fn short(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let nibbles = Sha256::digest(&bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.take(DIGITS).filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}
