//! The feed: the one exchange by which a sidecar tells what it runs and has counted, and is told of its newest bundle.
//!
//! The sidecar posts a [`Report`] to [`crate::wire::FEED_PATH`]; the answer, an [`Answer`], is held until the bundle is
//! another than the one reported or [`HOLD_SECONDS`] have passed. Who reports is taken from the pod's projected token and
//! never from the report. A report is closed (an unknown member is refused), bounded, and only ever grows within one boot;
//! it alone opens no gate.

mod certificate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

pub use certificate::{CertificateConcern, CertificateReason, ServedCertificate};
use serde::{Deserialize, Serialize};

use crate::bundle::signed::SignedBundle;
use crate::ids::{EntryName, Scope, Timestamp, ToolName};
use crate::rate::MAX_LIMITS;

/// The format this build reads and writes; any other is refused.
pub const FORMAT: u32 = 1;
/// No report is larger, bytes.
pub const MAX_REPORT_BYTES: usize = 64 * 1024;
/// An answer is held no longer than this, seconds.
pub const HOLD_SECONDS: u64 = 5;
/// Kinds of decision counted one by one; what comes after them is counted in the sums alone.
pub const MAX_TALLIES: usize = 64;
/// Listeners named one by one.
pub const MAX_LISTENERS: usize = 64;
/// Scopes whose last use is told.
pub const MAX_SCOPES: usize = 128;
/// Providers without a credential that are named.
pub const MAX_PROVIDERS: usize = 16;

/// What one boot of one sidecar tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Must equal [`FORMAT`].
    pub format: u32,
    /// Which start of the sidecar this is: the same random name its decision records carry.
    pub boot: String,
    /// Counts up within a boot, from 1; of two reports of a boot the higher is the later one.
    pub sequence: u64,
    /// The last report of the boot: every request was ended and counted.
    pub ended: bool,
    /// The bundle in use; none while there is none.
    pub bundle: Option<Running>,
    /// Why the newest bundle seen was not taken, if it was not.
    pub rejected: Option<String>,
    /// Ports of ours that somebody else holds.
    pub squatted: BTreeSet<u16>,
    /// What listens beyond loopback in the pod, ours aside.
    pub listeners: BTreeSet<Listener>,
    /// There are more listeners than are named, or it could not be seen whether there are.
    pub more_listeners: bool,
    /// Providers whose credential file is missing or empty.
    pub credentials_missing: BTreeSet<EntryName>,
    /// What was decided since the boot.
    pub decisions: Decisions,
    /// When a scope was last needed by a permitted call, to the hour.
    pub scopes_used: BTreeMap<Scope, Timestamp>,
    /// The key of the proofs this boot gives; see [`proof_message`].
    pub proof_key: ProofKey,
    /// The last line of the boot's records; none while nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordsHead>,
    /// The rate limits of the bundle in use, by name. Only a bundle that has some is told of with any, so that an operator
    /// that knows none of this is not told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<EntryName, LimitUse>,
    /// What is wrong with the certificate of a sidecar that terminates TLS; none: nothing, or TLS ends elsewhere. So an
    /// operator that knows none of this is told nothing of a good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateConcern>,
}

/// How one boot uses one rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitUse {
    /// Requests that the limit counts, let through or not, since the boot.
    pub asked: u64,
    /// The share that was handed out last; none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// One pod's share of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Calls in a period that are this pod's.
    pub requests: u32,
    /// Calls in a period that all pods have together: of which limit it is a share.
    pub of: u32,
}

/// How far the records of a boot go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordsHead {
    /// Sequence of the last line that was written.
    pub sequence: u64,
    /// Its hash, `sha256:…`.
    pub head: String,
}

/// A bundle in use, by its marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// Digest of the signed bytes, `sha256:…`.
    pub digest: String,
    /// Its serial.
    pub serial: u64,
}

/// A socket that takes what comes from outside, if nothing stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// What one boot has decided: inbound requests, each counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decisions {
    /// Permitted.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
    /// Let through in stage `Audit`, though policy refuses them.
    pub would_deny: u64,
    /// What was not permitted, by tool and reason.
    pub tallies: Vec<Tally>,
}

/// How often one tool met one verdict for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tally {
    /// The tool, for a tool call of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
    /// The verdict.
    pub verdict: Verdict,
    /// The closed reason.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// A verdict that is tallied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Refused.
    Denied,
    /// Let through in stage `Audit`.
    WouldDeny,
}

/// The secret with which one boot of a sidecar proves that it is the one who answers. Known to it and the operator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProofKey(String);

impl ProofKey {
    /// A key from 32 random bytes written in base64url without padding.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the proof alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey")
    }
}

/// What the operator answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// Must equal [`FORMAT`].
    pub format: u32,
    /// The newest bundle, if it is another than the one reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<SignedBundle>,
    /// This pod's share of each rate limit it told of; absent to say nothing of them. All of them hold from the same
    /// moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<BTreeMap<EntryName, Share>>,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// More than [`MAX_REPORT_BYTES`].
    #[error("the report is larger than {MAX_REPORT_BYTES} bytes")]
    TooLarge,
    /// Not a report.
    #[error("the report cannot be read")]
    Malformed,
    /// Another format.
    #[error("the report is not of format {FORMAT}")]
    Format,
    /// A list or text longer than it may be, or a word that is none.
    #[error("the report's {0} is out of bounds")]
    Bounds(&'static str),
}

impl ReportError {
    /// Stable name, for metrics and answers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "ReportTooLarge",
            Self::Malformed => "ReportMalformed",
            Self::Format => "ReportFormat",
            Self::Bounds(_) => "ReportOutOfBounds",
        }
    }
}

impl Report {
    /// Reads a report and holds it to its bounds.
    ///
    /// # Errors
    /// When it is not one, or goes beyond them: then nothing of it counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > MAX_REPORT_BYTES {
            return Err(ReportError::TooLarge);
        }
        let report: Self = serde_json::from_slice(bytes).map_err(|_| ReportError::Malformed)?;
        if report.format != FORMAT {
            return Err(ReportError::Format);
        }
        let within = [
            ("boot", is_random_name(&report.boot)),
            ("sequence", report.sequence > 0),
            ("bundle", report.bundle.as_ref().is_none_or(|running| is_digest(&running.digest))),
            ("rejected", report.rejected.as_deref().is_none_or(is_word)),
            ("squatted", report.squatted.len() <= 4),
            ("listeners", report.listeners.len() <= MAX_LISTENERS),
            ("credentialsMissing", report.credentials_missing.len() <= MAX_PROVIDERS),
            ("tallies", report.decisions.tallies.len() <= MAX_TALLIES),
            ("tallies", report.decisions.tallies.iter().all(|tally| is_word(&tally.reason))),
            ("scopesUsed", report.scopes_used.len() <= MAX_SCOPES),
            ("proofKey", report.proof_key.0.len() == 43),
            ("records", report.records.as_ref().is_none_or(|records| is_digest(&records.head))),
            ("rateLimits", report.rate_limits.len() <= MAX_LIMITS),
        ];
        match within.into_iter().find(|(_, ok)| !ok) {
            Some((what, _)) => Err(ReportError::Bounds(what)),
            None => Ok(report),
        }
    }
}

/// 16 random bytes in base64url.
fn is_random_name(text: &str) -> bool {
    text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// A closed reason: `PascalCase`, at most 64 characters. So no text of a caller's can stand there.
fn is_word(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What is authenticated (HMAC-SHA256 with [`ProofKey`]) to prove who answers on a port.
///
/// The asker's address and port are part of it, as the one who answers sees them: an answer that was fetched through
/// somebody else, from inside the pod for example, proves nothing.
#[must_use]
pub fn proof_message(challenge: &str, asker: IpAddr, asker_port: u16) -> Vec<u8> {
    format!("behalf.dev/challenge/v1\n{challenge}\n{}\n{asker_port}", asker.to_canonical()).into_bytes()
}

/// True for a challenge that may be answered: 16 random bytes in base64url.
#[must_use]
pub fn is_challenge(text: &str) -> bool {
    is_random_name(text)
}
