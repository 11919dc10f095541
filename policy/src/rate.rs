//! Rate limits: how many calls of whom are let through in how much time. Exact, and counted in whole numbers.
//!
//! A limit is a bucket that holds `requests` calls and is filled again evenly, `requests` in each `period`: a burst of
//! that many is let through, and then one at a time. So in any time `T` no more than `requests · (1 + T / period)` calls
//! are. What is refused takes nothing out of any bucket.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::bundle::{LoadError, Policy};
use crate::claims::Caller;
use crate::decide::Operation;
use crate::ids::{ClientId, EntryName, Issuer, Subject, ToolName};

/// So many limits may stand in one bundle.
pub const MAX_LIMITS: usize = 16;
/// No limit lets more calls through in its period.
pub const MAX_REQUESTS: u32 = 1_000_000;
/// No period is longer, seconds.
pub const MAX_PERIOD: u32 = 24 * 3600;

/// One limit, as it is written. Loading changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Name of the entry.
    pub name: EntryName,
    /// What shares one bucket.
    pub per: Per,
    /// Calls in a period, and at once; at least one.
    pub requests: u32,
    /// Seconds, at least one.
    pub period: u32,
    /// Counts calls of these tools, or rows of a plain HTTP API, only; empty means every authenticated request.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<ToolName>,
}

/// What shares one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Per {
    /// Everybody together.
    Identity,
    /// The same agent: the current actor of the token, or else the client it was issued to.
    Agent,
    /// The same subject of the same provider.
    Subject,
    /// The same tool, or the same row of a plain HTTP API; what is no call of either is not counted.
    Tool,
}

impl Per {
    /// Stable name, for keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Agent => "Agent",
            Self::Subject => "Subject",
            Self::Tool => "Tool",
        }
    }
}

impl RateLimit {
    /// What tells the bucket of this request from the others of this limit; none: the limit does not count it.
    ///
    /// Names that the catalogue does not have share one bucket, so that making them up makes no buckets.
    #[must_use]
    pub fn key<'a>(
        &self,
        policy: &'a Policy,
        caller: &'a Caller,
        operation: Operation<'a>,
    ) -> Option<Vec<&'a str>> {
        let is_listed = || operation.name(policy).is_some_and(|name| self.tools.contains(name));
        if !self.tools.is_empty() && !is_listed() {
            return None;
        }
        let provider = caller.provider.as_str();
        Some(match self.per {
            Per::Identity => Vec::new(),
            Per::Agent => {
                let (issuer, name) = agent(caller);
                vec![provider, issuer, name]
            }
            Per::Subject => vec![provider, caller.subject.as_str()],
            Per::Tool if matches!(operation, Operation::Http(..)) => {
                operation.name(policy).into_iter().collect()
            }
            Per::Tool => {
                let name = operation.name(policy)?;
                if policy.server.tools.contains_key(name) { vec![name] } else { Vec::new() }
            }
        })
    }

    /// The rate of a pod that has `share` of the calls.
    #[must_use]
    pub fn rate(&self, share: u32) -> Rate {
        Rate { requests: share, period: self.period }
    }
}

/// So many calls in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls in a period, and at once.
    pub requests: u32,
    /// Seconds.
    pub period: u32,
}

impl Rate {
    fn cost(self) -> u64 {
        u64::from(self.period).saturating_mul(1000)
    }

    fn most(self) -> u64 {
        u64::from(self.requests).saturating_mul(self.cost())
    }
}

/// Whose name it is, empty for the token's own issuer, and the name. One agent has one name, whether it stands in `act`
/// or is the client that the token was issued to.
fn agent(caller: &Caller) -> (&str, &str) {
    match caller.actors.first() {
        Some(actor) => {
            let name = actor.client.as_ref().map(ClientId::as_str);
            let name = name.or(actor.subject.as_ref().map(Subject::as_str)).unwrap_or_default();
            (actor.issuer.as_ref().map_or("", Issuer::as_str), name)
        }
        None => ("", caller.client.as_ref().map_or(caller.subject.as_str(), ClientId::as_str)),
    }
}

/// Limits that can be counted: within their bounds, each name once.
///
/// # Errors
/// When one is not.
pub(crate) fn check(limits: &[RateLimit]) -> Result<(), LoadError> {
    if limits.len() > MAX_LIMITS {
        return Err(LoadError::Bounds("rateLimits"));
    }
    let mut names = BTreeSet::new();
    for limit in limits {
        if !names.insert(&limit.name) {
            return Err(LoadError::Duplicate(limit.name.to_string()));
        }
        if limit.requests == 0 || limit.requests > MAX_REQUESTS {
            return Err(LoadError::Bounds("rateLimits.requests"));
        }
        if limit.period == 0 || limit.period > MAX_PERIOD {
            return Err(LoadError::Bounds("rateLimits.period"));
        }
    }
    Ok(())
}

/// What is left of one limit for one key. A key that was never seen has a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// In units of which a call costs the period in milliseconds, and `requests` come back in each millisecond.
    units: u64,
    /// When that was so, milliseconds.
    at: i64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(rate: Rate, now: i64) -> Self {
        Self { units: rate.most(), at: now }
    }

    /// As it is at `now`, milliseconds, by what is now the rate. A clock that goes back fills nothing, and a greater rate
    /// does so only in time.
    #[must_use]
    pub fn at(self, rate: Rate, now: i64) -> Self {
        let passed = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        let filled = self.units.saturating_add(passed.saturating_mul(u64::from(rate.requests)));
        Self { units: filled.min(rate.most()), at: now }
    }

    /// Takes one call out, as it stands. Refused, it is as it was.
    ///
    /// # Errors
    /// When it holds none: how long until it does, milliseconds; never 0, and the whole period when nothing comes back.
    pub fn less_one(self, rate: Rate) -> Result<Self, u64> {
        if let Some(units) = self.units.checked_sub(rate.cost()).filter(|_| rate.requests > 0) {
            return Ok(Self { units, ..self });
        }
        let (missing, back) = (rate.cost().saturating_sub(self.units), u64::from(rate.requests));
        // Rounded up: whoever comes back then finds a call.
        Err(if back == 0 { rate.cost() } else { missing.div_ceil(back).max(1) })
    }

    /// Whether it is full, so that forgetting it changes nothing.
    #[must_use]
    pub fn is_full(self, rate: Rate) -> bool {
        self.units >= rate.most()
    }
}
