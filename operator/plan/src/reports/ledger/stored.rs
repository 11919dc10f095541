//! The ledger as it lies in its `ConfigMap`, written and read. Where it would be too large, boots go without their kinds
//! of decision.

use std::collections::BTreeMap;

use behalf_policy::feed::RecordsHead;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{Boot, BootId, Counts, Kind, Ledger};

/// The format this build reads and writes.
const FORMAT: u32 = 1;
/// Above this many bytes boots are written without their kinds of decision.
const MAX_BYTES: usize = 900 * 1024;

/// Why what is stored is no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read.
    #[error("the stored counts cannot be read")]
    Malformed,
    /// It is of another format.
    #[error("the stored counts are not of format {FORMAT}")]
    Format,
}

impl LedgerError {
    /// Closed reason, for records.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "CountsMalformed",
            Self::Format => "CountsFormat",
        }
    }
}

/// The ledger as it is stored: each kind of decision is spelled out once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    format: u32,
    identity: String,
    since: Time,
    lost: bool,
    kinds: Vec<Kind>,
    base: StoredCounts,
    folded: Vec<BootId>,
    boots: Vec<(String, String, u64, bool, bool, StoredCounts)>,
    /// Pod, boot, sequence, hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heads: Vec<(String, String, u64, String)>,
}

/// Allowed, denied, would-deny, and how often each kind of decision by its place in the list.
type StoredCounts = (u64, u64, u64, Vec<(usize, u64)>);

impl Ledger {
    /// As it is stored.
    ///
    /// # Errors
    /// Never with what this type holds.
    pub fn to_text(&self) -> Result<String, LedgerError> {
        let whole = self.write(true)?;
        if whole.len() <= MAX_BYTES { Ok(whole) } else { self.write(false) }
    }

    fn write(&self, kinds: bool) -> Result<String, LedgerError> {
        let mut names = Names::default();
        let stored = Stored {
            format: FORMAT,
            identity: self.identity.clone(),
            since: self.since.clone(),
            lost: self.lost,
            base: names.counts(&self.base, true),
            folded: self.folded.iter().cloned().collect(),
            boots: self
                .boots
                .iter()
                .map(|((pod, name), boot)| {
                    let counts = names.counts(&boot.counts, kinds);
                    (pod.clone(), name.clone(), boot.sequence, boot.ended, boot.gone, counts)
                })
                .collect(),
            heads: self
                .heads
                .iter()
                .map(|((pod, name), head)| (pod.clone(), name.clone(), head.sequence, head.head.clone()))
                .collect(),
            kinds: names.in_order(),
        };
        serde_json::to_string(&stored).map_err(|_| LedgerError::Malformed)
    }

    /// Reads what [`Ledger::to_text`] wrote.
    ///
    /// # Errors
    /// It is none.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let stored: Stored = serde_json::from_str(text).map_err(|_| LedgerError::Malformed)?;
        if stored.format != FORMAT {
            return Err(LedgerError::Format);
        }
        let mut boots = BTreeMap::new();
        for (pod, name, sequence, ended, gone, counts) in stored.boots {
            let counts = counts_of(counts, &stored.kinds)?;
            boots.insert((pod, name), Boot { sequence, ended, gone, counts });
        }
        Ok(Self {
            identity: stored.identity,
            since: stored.since,
            lost: stored.lost,
            base: counts_of(stored.base, &stored.kinds)?,
            folded: stored.folded.into(),
            boots,
            heads: stored
                .heads
                .into_iter()
                .map(|(pod, name, sequence, head)| ((pod, name), RecordsHead { sequence, head }))
                .collect(),
        })
    }
}

#[derive(Default)]
struct Names(BTreeMap<Kind, usize>);

impl Names {
    fn counts(&mut self, counts: &Counts, kinds: bool) -> StoredCounts {
        let held = counts.kinds.iter().filter(|_| kinds);
        let kinds = held.map(|(kind, count)| (self.place(kind), *count)).collect();
        (counts.allowed, counts.denied, counts.would_deny, kinds)
    }

    fn place(&mut self, kind: &Kind) -> usize {
        let next = self.0.len();
        *self.0.entry(kind.clone()).or_insert(next)
    }

    fn in_order(self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.0.into_iter().collect();
        kinds.sort_by_key(|(_, place)| *place);
        kinds.into_iter().map(|(kind, _)| kind).collect()
    }
}

fn counts_of(stored: StoredCounts, names: &[Kind]) -> Result<Counts, LedgerError> {
    let (allowed, denied, would_deny, places) = stored;
    let mut kinds = BTreeMap::new();
    for (place, count) in places {
        kinds.insert(names.get(place).ok_or(LedgerError::Malformed)?.clone(), count);
    }
    Ok(Counts { allowed, denied, would_deny, kinds })
}
