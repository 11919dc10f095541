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
    /// Counts calls of these tools only; empty means every authenticated request.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<ToolName>,
}

/// What shares one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Per {
    /// Everybody together.
    Identity,
    /// The same agent: the current actor of the token, or else the client it was issued to.
    Agent,
    /// The same subject of the same provider.
    Subject,
    /// The same tool; what is no tool call is not counted.
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
        policy: &Policy,
        caller: &'a Caller,
        operation: Operation<'a>,
    ) -> Option<Vec<&'a str>> {
        let tool = match operation {
            Operation::CallTool(name) => Some(name),
            _ => None,
        };
        if !self.tools.is_empty() && !tool.is_some_and(|name| self.tools.contains(name)) {
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
            Per::Tool => {
                let name = tool?;
                if policy.server.tools.contains_key(name) { vec![name] } else { Vec::new() }
            }
        })
    }

    fn cost(&self) -> u64 {
        u64::from(self.period).saturating_mul(1000)
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
    /// In units of which a call costs `period` (in milliseconds) and `share` come back in each millisecond.
    units: u64,
    /// When that was so, milliseconds.
    at: i64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(limit: &RateLimit, share: u32, now: i64) -> Self {
        Self { units: u64::from(share).saturating_mul(limit.cost()), at: now }
    }

    /// As it is at `now` (milliseconds) when `share` of the limit's calls are this pod's. A clock that goes back fills
    /// nothing, and a greater share does so only in time.
    #[must_use]
    pub fn at(self, limit: &RateLimit, share: u32, now: i64) -> Self {
        let passed = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        let filled = passed.saturating_mul(u64::from(share));
        let most = u64::from(share).saturating_mul(limit.cost());
        Self { units: self.units.saturating_add(filled).min(most), at: now }
    }

    /// Whether it holds a call, at the moment it stands at; if not, how long until then, milliseconds.
    ///
    /// # Errors
    /// When it does not: the time, which is never 0 and, without a share, the whole period.
    pub fn holds_one(&self, limit: &RateLimit, share: u32) -> Result<(), u64> {
        let missing = limit.cost().saturating_sub(self.units);
        if missing == 0 && share > 0 {
            return Ok(());
        }
        Err(missing.checked_div(u64::from(share)).map_or(limit.cost(), |whole| {
            // Rounded up: a caller that comes back then finds a call.
            whole.saturating_add(u64::from(missing % u64::from(share) != 0)).max(1)
        }))
    }

    /// Takes one call out, if it holds one.
    #[must_use]
    pub fn less_one(self, limit: &RateLimit) -> Self {
        Self { units: self.units.saturating_sub(limit.cost()), ..self }
    }

    /// Whether it is full, so that forgetting it changes nothing.
    #[must_use]
    pub fn is_full(&self, limit: &RateLimit, share: u32) -> bool {
        self.units >= u64::from(share).saturating_mul(limit.cost())
    }
}
