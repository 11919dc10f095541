//! How a line is written and read, and what its hash covers.

use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, Formatter};

use super::{CHAIN_SCHEMA, Kind, SCHEMA};

/// Text of a caller's is recorded up to so many bytes.
pub const MAX_TEXT: usize = 256;

/// Text that somebody else chose, cut to [`MAX_TEXT`] bytes; what was cut ends with `…`.
#[must_use]
pub fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let mut cut = text.get(..end).unwrap_or_default().to_owned();
    cut.push('…');
    cut
}

/// The bytes of a line without its newline: JSON in printable ASCII, whatever the texts in it hold. So nothing that a
/// caller chose ends a line, moves a cursor or turns the direction of writing.
///
/// # Errors
/// Never with the types of this module.
pub fn write_line(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Ascii))?;
    Ok(line)
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = special.chars();
            let mut units = [0_u16; 2];
            for unit in characters.next().unwrap_or_default().encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// A hash as lines and reports carry it.
#[must_use]
pub fn chain_hash(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in digest {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What is hashed where a chain begins and nothing came before it.
#[must_use]
pub fn genesis(namespace: &str, identity: &str, boot: &str) -> Vec<u8> {
    format!("behalf.dev/chain/v1/genesis\n{namespace}\n{identity}\n{boot}").into_bytes()
}

/// What the chain needs of a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadLine {
    schema: String,
    #[serde(default)]
    kind: Option<String>,
    /// Place in its chain.
    pub sequence: u64,
    /// Its chain.
    pub boot: String,
    /// Hash of the line before.
    pub previous: String,
    /// Namespace of the identity.
    pub namespace: String,
    /// Name of the identity.
    pub identity: String,
    /// Sequence of the intent that this is the outcome of.
    #[serde(default)]
    pub intent: Option<u64>,
    /// Of a start that continues: the boot before.
    #[serde(default)]
    pub previous_boot: Option<String>,
    /// Of a start that continues: the last sequence of that boot.
    #[serde(default)]
    pub previous_sequence: Option<u64>,
    /// Of unrecorded decisions: how many.
    #[serde(default)]
    pub count: Option<u64>,
}

impl ReadLine {
    /// None for a decision.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self.kind.as_deref() {
            Some("Start") => Some(Kind::Start),
            Some("Intent") => Some(Kind::Intent),
            Some("Unrecorded") => Some(Kind::Unrecorded),
            Some("End") => Some(Kind::End),
            _ => None,
        }
    }
}

/// Reads a line. None when it is neither a record nor a line of a chain; an error when it seems to be one and cannot be
/// read.
///
/// # Errors
/// The line names one of our schemas and is not of it.
pub fn read_line(bytes: &[u8]) -> Result<Option<ReadLine>, serde_json::Error> {
    let read: Result<ReadLine, _> = serde_json::from_slice(bytes);
    let ours = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    match read {
        Ok(line) if line.schema == SCHEMA && line.kind.is_none() => Ok(Some(line)),
        Ok(line) if line.schema == CHAIN_SCHEMA && line.kind().is_some() => Ok(Some(line)),
        Ok(_) if ours(b"behalf.dev/record/") || ours(b"behalf.dev/chain/") => {
            Err(serde::de::Error::custom("a line of an unknown version or kind"))
        }
        Err(error) if ours(b"behalf.dev/record/") || ours(b"behalf.dev/chain/") => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}
