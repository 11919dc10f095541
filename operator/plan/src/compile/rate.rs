//! Rate limits, as the policy document has them.

use std::collections::BTreeMap;

use behalf_crds::v1alpha1::{self as crds, AcceptedReason};
use behalf_policy::ids::ToolName;
use behalf_policy::rate::{MAX_LIMITS, MAX_PERIOD, MAX_REQUESTS, Per, RateLimit};

use crate::catalog::{entry_name, invalid, unreadable};
use crate::conditions::ConditionIntent;

type Problem = ConditionIntent<AcceptedReason>;
const AT: &str = "spec.rateLimits";

/// All limits, by name: the order of a list in an object means nothing.
pub(super) fn rate_limits(limits: &[crds::RateLimit]) -> Result<Vec<RateLimit>, Problem> {
    let mut read = limits.iter().map(rate_limit).collect::<Result<Vec<_>, Problem>>()?;
    read.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(read)
}

fn rate_limit(limit: &crds::RateLimit) -> Result<RateLimit, Problem> {
    let requests = u32::try_from(limit.requests).ok().filter(|it| (1..=MAX_REQUESTS).contains(it));
    // Rounded up: a limit never grows by rounding.
    let period = u32::try_from(limit.period.as_millis().div_ceil(1000)).ok();
    let period = period.filter(|it| (1..=MAX_PERIOD).contains(it));
    let (Some(requests), Some(period)) = (requests, period) else {
        return Err(invalid(format!(
            "Rate limit {} lets {} calls through in {}. Set requests to 1 to {MAX_REQUESTS} and period to 1s to 24h.",
            limit.name, limit.requests, limit.period
        )));
    };
    let tool = |name: &String| ToolName::new(name.clone()).map_err(|_| unreadable(AT, name));
    Ok(RateLimit {
        name: entry_name(&limit.name, AT)?,
        per: match limit.per {
            crds::RateLimitPer::Identity => Per::Identity,
            crds::RateLimitPer::Agent => Per::Agent,
            crds::RateLimitPer::Subject => Per::Subject,
            crds::RateLimitPer::Tool => Per::Tool,
        },
        requests,
        period,
        tools: limit.tools.iter().map(tool).collect::<Result<_, _>>()?,
    })
}

/// The limits of a bundle that is kept, made tighter by what the identity says now, never wider: one that it no longer
/// has stays, one that counts in another way now is left as it was, and a new one is added while there is room.
pub(super) fn narrowed(kept: &[RateLimit], asked: &[crds::RateLimit]) -> Vec<RateLimit> {
    let mut limits: BTreeMap<_, _> = kept.iter().map(|limit| (limit.name.clone(), limit.clone())).collect();
    // What cannot be read asks for nothing.
    for limit in asked.iter().filter_map(|limit| rate_limit(limit).ok()) {
        let room = limits.len() < MAX_LIMITS;
        match limits.get_mut(&limit.name) {
            Some(held) if (held.per, held.period, &held.tools) == (limit.per, limit.period, &limit.tools) => {
                held.requests = held.requests.min(limit.requests);
            }
            None if room => drop(limits.insert(limit.name.clone(), limit)),
            _ => {}
        }
    }
    limits.into_values().collect()
}
