//! Whether a text holds certificates in PEM (RFC 7468) and nothing else that is labelled.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";

/// Why a CA bundle is not taken, as the end of a sentence.
pub(crate) type Cause = &'static str;

/// Checks the frame of every certificate: label, base64, one DER sequence of exactly that length.
///
/// Whether it is a certificate a TLS stack takes is found where it is used; this catches what people paste.
pub(crate) fn check(text: &str) -> Result<(), Cause> {
    let mut rest = text;
    let mut found = 0_usize;
    while let Some(start) = rest.find(BEGIN) {
        let block = rest.get(start..).unwrap_or_default();
        let body = block.strip_prefix(BEGIN_CERTIFICATE).ok_or("holds something that is no certificate")?;
        let (body, after) = body.split_once(END_CERTIFICATE).ok_or("holds a certificate without an end")?;
        let compact: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(compact).map_err(|_| "holds a certificate that is not base64")?;
        if !is_one_sequence(&der) {
            return Err("holds a block that is not a certificate");
        }
        found = found.saturating_add(1);
        rest = after;
    }
    if found == 0 { Err("holds no certificate") } else { Ok(()) }
}

/// X.690: a SEQUENCE whose length is the rest of the bytes.
fn is_one_sequence(der: &[u8]) -> bool {
    let Some((0x30, rest)) = der.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let Some((first, rest)) = rest.split_first() else { return false };
    if *first < 0x80 {
        return usize::from(*first) == rest.len();
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return false;
    }
    let Some((length, body)) = rest.split_at_checked(count) else { return false };
    let length = length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    length == body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn certificates_with_text_around_them_are_taken() {
        let one = block("CERTIFICATE", &[0x30, 0x03, 1, 2, 3]);
        let mut long = vec![0x30, 0x82, 0x01, 0x00];
        long.extend([0; 256]);
        assert_eq!(check(&format!("# root\n{one}\n# next\n{}", block("CERTIFICATE", &long))), Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            String::new(),
            "corp root".to_owned(),
            block("PRIVATE KEY", &[0x30, 0x00]),
            block("CERTIFICATE", &[0x31, 0x00]),
            block("CERTIFICATE", &[0x30, 0x02, 1]),
            block("CERTIFICATE", &[0x30, 0x80]),
            block("CERTIFICATE", &[]),
            format!("{BEGIN_CERTIFICATE}\n*\n{END_CERTIFICATE}"),
            format!("{BEGIN_CERTIFICATE}\nMAA="),
            block("CERTIFICATE", &[0x30, 0x00]) + &block("RSA PRIVATE KEY", &[0x30, 0x00]),
        ] {
            assert!(check(&text).is_err(), "{text}");
        }
    }
}
