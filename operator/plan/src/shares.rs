//! One rate limit for all pods of an identity, divided among them: each counts for itself, within a share of its own.
//!
//! A pod tells how often its limits were asked, and is given as much of each as its part of that demand, at least one call.
//! All shares of a limit add up to it exactly, however many pods there are.

use std::collections::BTreeMap;

use behalf_policy::feed::{Report, Share};
use behalf_policy::ids::EntryName;

/// Shares follow the demand no more often than this, milliseconds; pods that come and go at once.
const ROUND: u64 = 5000;
/// A pod that was not heard for longer than this may still serve: what it was given is not given to others, milliseconds.
const SILENT: u64 = 1000 * crate::reports::REPORT_MAX_AGE_SECONDS;
/// Whoever begins to listen listens for so long before it gives anything, milliseconds: until every pod has told what it
/// was given before.
const SETTLES: u64 = 2 * 1000 * behalf_policy::feed::HOLD_SECONDS;

/// Divides a limit among pods by their demand, the result in the order of `demand`.
///
/// The shares add up to the limit. Where the limit allows, each pod has at least one call; else as many pods as it allows
/// have one, those with the greatest demand. Whoever asks more, all else equal, never gets less.
#[must_use]
pub fn divide(limit: u32, demand: &[u64]) -> Vec<u32> {
    let count = u32::try_from(demand.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Vec::new();
    }
    let Some(rest) = limit.checked_sub(count) else {
        return first(demand, limit).into_iter().map(u32::from).collect();
    };
    // One more for each: pods that nobody asks anything share evenly, and none is out of reach of the next caller.
    let weights: Vec<u128> = demand.iter().map(|asked| u128::from(*asked) + 1).collect();
    let sum: u128 = weights.iter().sum();
    let parts = weights.iter().map(|weight| {
        let part = u128::from(rest) * weight;
        // Never beyond `rest`, which is an u32; the remainder is below `sum`, which is below 2^97.
        (u32::try_from(part / sum).unwrap_or(rest), part % sum)
    });
    let parts: Vec<(u32, u128)> = parts.collect();
    let given: u32 = parts.iter().map(|(whole, _)| whole).sum();
    // The largest remainders get what is left (Hamilton's method).
    let remainders: Vec<u128> = parts.iter().map(|(_, remainder)| *remainder).collect();
    let more = first(&remainders, rest.saturating_sub(given));
    parts.iter().zip(more).map(|((whole, _), more)| 1 + whole + u32::from(more)).collect()
}

/// Which are the `count` greatest; of equals the earlier.
fn first<T: Ord>(of: &[T], count: u32) -> Vec<bool> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|a, b| of.get(*b).cmp(&of.get(*a)).then(a.cmp(b)));
    order.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let mut chosen = vec![false; of.len()];
    for at in order {
        if let Some(place) = chosen.get_mut(at) {
            *place = true;
        }
    }
    chosen
}

/// The shares of one identity's pods. Takes the time as an argument: milliseconds since somebody began to listen.
#[derive(Debug, Default)]
pub struct Shares {
    pods: BTreeMap<String, Pod>,
    limits: BTreeMap<EntryName, u32>,
    round: Option<u64>,
    /// Pods came or went since the last round.
    others: bool,
}

#[derive(Debug, Default)]
struct Pod {
    boot: String,
    sequence: u64,
    heard: u64,
    uses: BTreeMap<EntryName, Use>,
}

#[derive(Debug, Default)]
struct Use {
    asked: u64,
    /// Asked since the last round.
    fresh: u64,
    demand: u64,
    share: Option<Share>,
}

impl Shares {
    /// Takes in what the pod of this UID says. Saying it twice or late changes nothing.
    pub fn hear(&mut self, uid: &str, report: &Report, now: u64) {
        if report.ended {
            self.others |= self.pods.remove(uid).is_some();
            return;
        }
        let known = self.pods.contains_key(uid);
        let pod = self.pods.entry(uid.to_owned()).or_default();
        if pod.boot == report.boot && pod.sequence >= report.sequence {
            return;
        }
        let again = pod.boot != report.boot;
        let names = |pod: &Pod| pod.uses.keys().cloned().collect::<Vec<_>>();
        let before = names(pod);
        pod.uses.retain(|name, _| report.rate_limits.contains_key(name));
        for (name, told) in &report.rate_limits {
            let held = pod.uses.entry(name.clone()).or_default();
            let counted = if again { 0 } else { held.asked };
            held.fresh = held.fresh.saturating_add(told.asked.saturating_sub(counted));
            held.asked = told.asked;
            // What it says it has counts where nothing was given yet: somebody else may have.
            held.share = held.share.or(told.share);
        }
        (pod.heard, pod.sequence) = (now, report.sequence);
        pod.boot.clone_from(&report.boot);
        self.others |= !known || before != names(pod);
    }

    /// Divides anew, if it is time to. `alive` is asked whether the pod of a UID is still there. True when a share is
    /// another than before.
    pub fn divide(
        &mut self,
        limits: &BTreeMap<EntryName, u32>,
        now: u64,
        alive: impl Fn(&str) -> bool,
    ) -> bool {
        let count = self.pods.len();
        self.pods.retain(|uid, pod| now.saturating_sub(pod.heard) <= SILENT || alive(uid));
        let due = self.round.is_none_or(|round| now.saturating_sub(round) >= ROUND);
        let others = self.others || self.pods.len() != count || self.limits != *limits;
        if now < SETTLES || !(due || others) {
            return false;
        }
        if due {
            self.round = Some(now);
            for held in self.pods.values_mut().flat_map(|pod| pod.uses.values_mut()) {
                // What was asked longer ago counts half as much with each round.
                held.demand = (held.demand / 2).saturating_add(std::mem::take(&mut held.fresh));
            }
        }
        (self.others, self.limits) = (false, limits.clone());
        limits.iter().fold(false, |changed, (name, limit)| self.divide_one(name, *limit, now) || changed)
    }

    fn divide_one(&mut self, name: &EntryName, limit: u32, now: u64) -> bool {
        let (mut heard, mut reserved) = (Vec::new(), 0_u32);
        for pod in self.pods.values_mut() {
            let silent = now.saturating_sub(pod.heard) > SILENT;
            let Some(held) = pod.uses.get_mut(name) else { continue };
            if silent {
                let share = held.share.map_or(0, |share| share.requests);
                reserved = reserved.saturating_add(share);
            } else {
                heard.push(held);
            }
        }
        let demand: Vec<u64> = heard.iter().map(|held| held.demand).collect();
        let mut changed = false;
        for (held, requests) in heard.into_iter().zip(divide(limit.saturating_sub(reserved), &demand)) {
            let share = Some(Share { requests, of: limit });
            changed |= held.share != share;
            held.share = share;
        }
        changed
    }

    /// What the pod of this UID is given; none until it is clear.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<BTreeMap<EntryName, Share>> {
        self.round?;
        let uses = &self.pods.get(uid)?.uses;
        Some(uses.iter().filter_map(|(name, held)| Some((name.clone(), held.share?))).collect())
    }
}
