//! The ledger: what every boot of every pod of one identity has counted, each request once.
//!
//! A report is cumulative for its boot, so reports are merged by the greatest value of each counter and boots are
//! summed: the order in which reports come, and how often, changes nothing. Boots that have ended are folded into one
//! sum; their names are remembered, so that a report that comes late adds nothing.

mod stored;

use std::collections::{BTreeMap, VecDeque};

use behalf_crds::v1alpha1::{DecisionCounts, DecisionTally, DecisionVerdict};
use behalf_policy::feed::{RecordsHead, Report, Verdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::stored::LedgerError;

/// Boots that are kept one by one.
const MAX_BOOTS: usize = 1024;
/// Boots that went without a last word and are kept one by one, in case it still comes.
const MAX_GONE: usize = 64;
/// Names of folded boots that are remembered.
const MAX_FOLDED: usize = 256;
/// Kinds of decision in the folded sum.
const MAX_KINDS: usize = 512;
/// Kinds of decision that are shown.
const TOP: usize = 10;

/// What all boots of an identity's pods have counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    identity: String,
    since: Time,
    lost: bool,
    base: Counts,
    folded: VecDeque<BootId>,
    boots: BTreeMap<BootId, Boot>,
    /// How far the records of each boot go, also of those that are folded and remembered.
    heads: BTreeMap<BootId, RecordsHead>,
}

/// A boot by its pod's UID and its own name: no pod can write into another's.
type BootId = (String, String);
/// Tool, verdict, reason.
type Kind = (Option<String>, Verdict, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    allowed: u64,
    denied: u64,
    would_deny: u64,
    kinds: BTreeMap<Kind, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Boot {
    sequence: u64,
    ended: bool,
    gone: bool,
    counts: Counts,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Absorbed {
    /// Nothing that is counted.
    Nothing,
    /// Counters moved.
    Counts,
    /// A boot began or ended: worth writing down before it can be lost.
    Boot,
}

impl Counts {
    fn of(report: &Report) -> Self {
        let decisions = &report.decisions;
        let mut kinds = BTreeMap::new();
        for tally in &decisions.tallies {
            let kind = (tally.tool.as_ref().map(ToString::to_string), tally.verdict, tally.reason.clone());
            let held: &mut u64 = kinds.entry(kind).or_default();
            *held = (*held).max(tally.count);
        }
        Self { allowed: decisions.allowed, denied: decisions.denied, would_deny: decisions.would_deny, kinds }
    }

    /// The greater of each.
    fn merge(&mut self, other: Self) {
        self.allowed = self.allowed.max(other.allowed);
        self.denied = self.denied.max(other.denied);
        self.would_deny = self.would_deny.max(other.would_deny);
        for (kind, count) in other.kinds {
            let held = self.kinds.entry(kind).or_default();
            *held = (*held).max(count);
        }
    }

    fn add(&mut self, other: &Self) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.denied = self.denied.saturating_add(other.denied);
        self.would_deny = self.would_deny.saturating_add(other.would_deny);
        for (kind, count) in &other.kinds {
            if let Some(held) = self.kinds.get_mut(kind) {
                *held = held.saturating_add(*count);
            } else if self.kinds.len() < MAX_KINDS {
                self.kinds.insert(kind.clone(), *count);
            }
        }
    }
}

impl Ledger {
    /// An empty one for the identity with this UID.
    #[must_use]
    pub fn new(identity: &str, since: Time) -> Self {
        Self {
            identity: identity.to_owned(),
            since,
            lost: false,
            base: Counts::default(),
            folded: VecDeque::new(),
            boots: BTreeMap::new(),
            heads: BTreeMap::new(),
        }
    }

    /// The same, knowing that something before it was lost.
    #[must_use]
    pub fn incomplete(self) -> Self {
        Self { lost: true, ..self }
    }

    /// UID of the identity it belongs to.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Nothing was ever told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boots.is_empty() && self.folded.is_empty() && !self.lost
    }

    /// Takes in what a pod said. Saying it twice, late, or after something newer changes nothing.
    pub fn absorb(&mut self, pod: &str, report: &Report) -> Absorbed {
        let id = (pod.to_owned(), report.boot.clone());
        let boot =
            Boot { sequence: report.sequence, ended: report.ended, gone: false, counts: Counts::of(report) };
        let absorbed = self.merge(id.clone(), boot);
        match &report.records {
            Some(head) if self.learn(&id, head) => absorbed.max(Absorbed::Counts),
            _ => absorbed,
        }
    }

    /// The head with the highest sequence stands; a head that was told once is never replaced by another of its sequence.
    /// Whether it is news.
    fn learn(&mut self, id: &BootId, head: &RecordsHead) -> bool {
        if !self.boots.contains_key(id) {
            return false;
        }
        if self.heads.get(id).is_some_and(|held| held.sequence >= head.sequence) {
            return false;
        }
        self.heads.insert(id.clone(), head.clone());
        true
    }

    /// How far the records of each boot go, as it was told: boot, sequence and hash of a line.
    pub fn heads(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.heads.iter().map(|((_, boot), head)| (boot.as_str(), head.sequence, head.head.as_str()))
    }

    fn merge(&mut self, id: BootId, boot: Boot) -> Absorbed {
        if self.folded.contains(&id) {
            return Absorbed::Nothing;
        }
        if !self.boots.contains_key(&id) && self.boots.len() >= MAX_BOOTS {
            self.fold();
            if self.boots.len() >= MAX_BOOTS {
                return if std::mem::replace(&mut self.lost, true) {
                    Absorbed::Nothing
                } else {
                    Absorbed::Counts
                };
            }
        }
        let new = !self.boots.contains_key(&id);
        let held = self.boots.entry(id).or_default();
        let before = (held.ended, held.gone, held.counts.clone());
        held.ended |= boot.ended;
        // Whoever says something new is not gone.
        held.gone = if new || boot.sequence > held.sequence { boot.gone } else { held.gone };
        held.sequence = held.sequence.max(boot.sequence);
        held.counts.merge(boot.counts);
        if new || before.0 != held.ended {
            Absorbed::Boot
        } else if before.1 != held.gone || before.2 != held.counts {
            Absorbed::Counts
        } else {
            Absorbed::Nothing
        }
    }

    /// Takes in what another one knows of single boots. What the other one has folded has to be in this one already: it
    /// is, since only what was stored is folded, and this is what is stored.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.lost |= other.lost;
        if other.since.0 < self.since.0 {
            self.since = other.since;
        }
        for (id, boot) in other.boots {
            self.merge(id, boot);
        }
        for (id, head) in &other.heads {
            self.learn(id, head);
        }
        self
    }

    /// Notes which boots will say nothing any more. `alive` is asked for the pod's UID and the boot. Whether that is news.
    pub fn settle(&mut self, alive: impl Fn(&str, &str) -> bool) -> bool {
        let mut news = false;
        for ((pod, boot), held) in &mut self.boots {
            if !held.ended && !held.gone && !alive(pod, boot) {
                held.gone = true;
                news = true;
            }
        }
        news
    }

    /// Sums up the boots that have ended. Only for what is stored already, see [`Ledger::join`].
    pub fn fold(&mut self) {
        let gone = self.boots.values().filter(|boot| boot.gone && !boot.ended).count();
        let boots = std::mem::take(&mut self.boots);
        for (id, boot) in boots {
            let give_up = gone > MAX_GONE && boot.gone;
            if !boot.ended && !give_up {
                self.boots.insert(id, boot);
                continue;
            }
            self.lost |= !boot.ended;
            self.base.add(&boot.counts);
            self.folded.push_back(id);
            if self.folded.len() > MAX_FOLDED
                && let Some(id) = self.folded.pop_front()
            {
                self.heads.remove(&id);
            }
        }
    }

    /// Whether every request is in.
    #[must_use]
    pub fn complete(&self) -> bool {
        !self.lost && self.boots.values().all(|boot| boot.ended || !boot.gone)
    }

    /// What the status says of it.
    #[must_use]
    pub fn decisions(&self) -> DecisionCounts {
        let mut sum = self.base.clone();
        for boot in self.boots.values() {
            sum.add(&boot.counts);
        }
        let mut kinds: Vec<_> = sum.kinds.into_iter().filter(|(_, count)| *count > 0).collect();
        kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        DecisionCounts {
            since: self.since.clone(),
            complete: self.complete(),
            allowed: signed(sum.allowed),
            denied: signed(sum.denied),
            would_deny: signed(sum.would_deny),
            top: kinds
                .into_iter()
                .take(TOP)
                .map(|((tool, verdict, reason), count)| DecisionTally {
                    tool,
                    verdict: match verdict {
                        Verdict::Denied => DecisionVerdict::Denied,
                        Verdict::WouldDeny => DecisionVerdict::WouldDeny,
                    },
                    reason,
                    count: signed(count),
                })
                .collect(),
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
