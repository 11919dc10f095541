//! Nonces that need no memory (RFC 9449 §8, §11.2): the moment they were given out, under a key of this start.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::ids::Timestamp;

use crate::feed::NoRandom;

/// Bytes of the moment, which stands before the tag.
const MOMENT: usize = 8;
/// What the tag is over besides: the key is for nothing else, and says so.
const PURPOSE: &[u8] = b"behalf-dpop-nonce/1\0";

/// Gives nonces out and knows them again.
pub(super) struct Nonces(hmac::Key);

impl Nonces {
    /// With a key of its own.
    pub(super) fn new() -> Result<Self, NoRandom> {
        let mut key = zeroize::Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| NoRandom)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())))
    }

    /// A nonce of this moment.
    pub(super) fn give(&self, now: Timestamp) -> String {
        let moment = now.0.to_be_bytes();
        let tag = hmac::sign(&self.0, &[PURPOSE, &moment].concat());
        URL_SAFE_NO_PAD.encode([&moment, tag.as_ref()].concat())
    }

    /// When a nonce was given out, if it is one of ours.
    pub(super) fn given(&self, nonce: &str) -> Option<Timestamp> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (moment, tag) = bytes.split_first_chunk::<MOMENT>()?;
        hmac::verify(&self.0, &[PURPOSE, moment].concat(), tag).ok()?;
        Some(Timestamp(i64::from_be_bytes(*moment)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a25_a_nonce_says_when_it_was_given_out_and_nobody_else_makes_one() {
        let ours = Nonces::new().unwrap();
        let nonce = ours.give(Timestamp(7));
        assert_eq!(ours.given(&nonce), Some(Timestamp(7)));
        assert_ne!(ours.give(Timestamp(8)), nonce);
        assert_eq!(Nonces::new().unwrap().given(&nonce), None, "of another start");
        for at in 0..nonce.len() {
            let mut other = nonce.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(ours.given(std::str::from_utf8(&other).unwrap()), None, "{at}");
        }
        for other in
            ["", "AAAA", &nonce[1..], &nonce[..nonce.len() - 1], &format!("{nonce}A"), &format!("{nonce}=")]
        {
            assert_eq!(ours.given(other), None, "{other}");
        }
        // RFC 9449 §8.1: it stands in a header and in JSON as it is.
        assert!(nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }
}
