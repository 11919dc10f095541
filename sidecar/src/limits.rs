//! Rate limits: what each caller has left in this pod, and this pod's share of each limit.
//!
//! Every pod counts for itself and exactly, within the share that the operator last handed out; a bundle that names no
//! operator gives it the whole. Nothing here is unbounded, and what cannot be counted is not let through.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use behalf_policy::bundle::Policy;
use behalf_policy::claims::Caller;
use behalf_policy::decide::Operation;
use behalf_policy::feed::{LimitUse, Share};
use behalf_policy::ids::EntryName;
use behalf_policy::rate::{Bucket, Per, Rate, RateLimit};
use behalf_policy::record::RecordedLimit;

use crate::provider::frame::Frame;

/// So many callers' buckets are kept at once; about 100 bytes each.
const MAX_BUCKETS: usize = 50_000;
/// So many addresses are told apart that send nothing valid; the others share one bucket.
const MAX_PEERS: usize = 4096;
/// What one address may send without a valid token.
const UNAUTHENTICATED: Rate = Rate { requests: 20_000, period: 20 };
/// Full buckets are looked for no more often than this, milliseconds.
const SWEEP: i64 = 1000;
/// Until the operator was heard, a pod serves this part of a limit, and at least one call.
const UNTOLD: u32 = 10;

type Digest = [u8; 32];
/// Changing one of these makes another limit of it; its size, or this pod's share, may change.
type Kind = (EntryName, Per, u32);

/// Why a request is not let through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitReason {
    /// A limit of the identity has no call left.
    RateLimited,
    /// There is no room to count a further caller.
    TableFull,
    /// An address sends too much without a valid token.
    Unauthenticated,
}

impl LimitReason {
    /// Stable name, for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "RateLimited",
            Self::TableFull => "RateLimitTableFull",
            Self::Unauthenticated => "TooManyUnauthenticated",
        }
    }
}

/// A request that is not let through now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Why.
    pub reason: LimitReason,
    /// Seconds after which it may be; never 0.
    pub retry_after: u32,
    /// The limit of the identity that is waited for; none when it was none of these. For the record alone: no caller is told.
    pub limit: Option<RecordedLimit>,
}

impl Limited {
    fn new(reason: LimitReason, millis: u64) -> Self {
        let seconds = u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX);
        Self { reason, retry_after: seconds.max(1), limit: None }
    }

    fn by(limit: &RateLimit, millis: u64) -> Self {
        let limit = RecordedLimit { name: limit.name.clone(), per: limit.per };
        Self { limit: Some(limit), ..Self::new(LimitReason::RateLimited, millis) }
    }
}

/// What is left of every limit. Clones are the same.
#[derive(Clone, Default)]
pub struct Limits(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    buckets: HashMap<Kind, HashMap<Digest, Bucket>>,
    peers: HashMap<IpAddr, Bucket>,
    shares: BTreeMap<EntryName, Share>,
    asked: BTreeMap<EntryName, u64>,
    swept: Option<i64>,
    swept_peers: Option<i64>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limits")
    }
}

impl Limits {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one call out of every limit that counts the request, or out of none. `shared`: the bundle names an operator,
    /// which divides the limits among pods. `now` is in milliseconds.
    ///
    /// # Errors
    /// When one of them has none left, or cannot be counted.
    pub fn admit(
        &self,
        policy: &Policy,
        shared: bool,
        caller: &Caller,
        operation: Operation<'_>,
        now: i64,
    ) -> Result<(), Limited> {
        let counted = policy.rate_limits.iter().filter_map(|limit| {
            let key = limit.key(policy, caller, operation)?;
            Some((limit, digest(&key)))
        });
        let counted: Vec<(&RateLimit, Digest)> = counted.collect();
        if counted.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let mut wait: Option<(&RateLimit, u64)> = None;
        let mut taken = Vec::with_capacity(counted.len());
        for (limit, key) in counted {
            let asked = state.asked.entry(limit.name.clone()).or_default();
            *asked = asked.saturating_add(1);
            let rate = state.rate(limit, shared);
            let table = state.buckets.entry(kind(limit)).or_default();
            let bucket = table.get_mut(&key).map(|held| {
                *held = held.at(rate, now);
                *held
            });
            match bucket.unwrap_or_else(|| Bucket::full(rate, now)).less_one(rate) {
                Ok(less) => taken.push((limit, key, less, bucket.is_none())),
                // Whoever comes back when the last of the limits has a call again is let through by all.
                Err(millis) => {
                    wait = wait.filter(|(_, longest)| *longest >= millis).or(Some((limit, millis)));
                }
            }
        }
        if let Some((limit, millis)) = wait {
            return Err(Limited::by(limit, millis));
        }
        let new = taken.iter().filter(|(_, _, _, new)| *new).count();
        if !state.room(new, policy, shared, now) {
            return Err(Limited::new(LimitReason::TableFull, 0));
        }
        for (limit, key, bucket, _) in taken {
            state.buckets.entry(kind(limit)).or_default().insert(key, bucket);
        }
        Ok(())
    }

    /// Counts a request without a valid token against the address it comes from, and against nobody else.
    ///
    /// # Errors
    /// When there were too many.
    pub fn unauthenticated(&self, peer: IpAddr, now: i64) -> Result<(), Limited> {
        let rate = UNAUTHENTICATED;
        let mut state = self.state();
        let State { peers, swept_peers, .. } = &mut *state;
        let mut peer = peer.to_canonical();
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            if is_time(swept_peers, now) {
                peers.retain(|_, bucket| !bucket.at(rate, now).is_full(rate));
            }
            if peers.len() >= MAX_PEERS {
                peer = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            }
        }
        let bucket = peers.entry(peer).or_insert_with(|| Bucket::full(rate, now));
        *bucket = bucket.at(rate, now);
        let less = bucket.less_one(rate);
        *bucket = less.map_err(|millis| Limited::new(LimitReason::Unauthenticated, millis))?;
        Ok(())
    }

    /// What the operator is told: how often each limit of the policy was asked, and the share it has here.
    #[must_use]
    pub fn uses(&self, policy: &Policy) -> BTreeMap<EntryName, LimitUse> {
        let state = self.state();
        let told = policy.rate_limits.iter().map(|limit| {
            let name = &limit.name;
            let asked = state.asked.get(name).copied().unwrap_or_default();
            (name.clone(), LimitUse { asked, share: state.shares.get(name).copied() })
        });
        told.collect()
    }

    /// Counts by these shares from now on, all at once. True when one is another than before.
    #[must_use]
    pub fn allot(&self, shares: &BTreeMap<EntryName, Share>) -> bool {
        let mut state = self.state();
        let changed = state.shares != *shares;
        state.shares.clone_from(shares);
        changed
    }

    /// How many callers' buckets are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn len(&self) -> usize {
        self.buckets.values().map(HashMap::len).sum()
    }

    /// This pod's part of a limit.
    fn rate(&self, limit: &RateLimit, shared: bool) -> Rate {
        let whole = limit.requests;
        let part = match self.shares.get(&limit.name) {
            _ if !shared => whole,
            None => (whole / UNTOLD).max(1),
            Some(share) if share.of == whole => share.requests.min(whole),
            // Of the limit as it was before, or is about to be: as large a part of this one.
            Some(share) => {
                let part = u64::from(share.requests) * u64::from(whole) / u64::from(share.of.max(1));
                u32::try_from(part).unwrap_or(whole).min(whole)
            }
        };
        limit.rate(part)
    }

    /// Whether so many more fit in, if need be after those are forgotten that tell nothing.
    fn room(&mut self, more: usize, policy: &Policy, shared: bool, now: i64) -> bool {
        let fits = |state: &Self| state.len().saturating_add(more) <= MAX_BUCKETS;
        if more == 0 || fits(self) {
            return true;
        }
        if !is_time(&mut self.swept, now) {
            return false;
        }
        let rates: HashMap<Kind, Rate> =
            policy.rate_limits.iter().map(|limit| (kind(limit), self.rate(limit, shared))).collect();
        self.buckets.retain(|kind, table| match rates.get(kind) {
            None => false,
            Some(rate) => {
                table.retain(|_, bucket| !bucket.at(*rate, now).is_full(*rate));
                true
            }
        });
        fits(self)
    }
}

/// Whether it is time to sweep again, which then is done.
fn is_time(swept: &mut Option<i64>, now: i64) -> bool {
    let just = swept.is_some_and(|swept| (0..SWEEP).contains(&now.saturating_sub(swept)));
    if !just {
        *swept = Some(now);
    }
    !just
}

fn kind(limit: &RateLimit) -> Kind {
    (limit.name.clone(), limit.per, limit.period)
}

fn digest(key: &[&str]) -> Digest {
    let mut frame = Frame::new("rate-limit");
    frame.list(key.iter().copied());
    frame.finish()
}
