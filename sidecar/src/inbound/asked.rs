//! What callers were asked for on behalf of a provider, so that nobody is asked in circles (D32).
//!
//! A caller that comes back with a newer token is asked for the same once more, since the first time may have been answered
//! by a client that did not understand. After that it is refused without a challenge, for as long as the round lasts. A
//! provider that asks for something else each time has a few times more.

use std::time::Duration;

use behalf_policy::ids::Timestamp;
use moka::ops::compute::Op;

use super::sessions::Principal;
use crate::handles::Want;
use crate::provider::frame::Frame;
use crate::provider::http::sha256;

/// So many rounds are remembered.
const REMEMBERED: u64 = 10_000;
/// A round lasts so many seconds.
const ROUND: u32 = 600;
/// So many tokens of a round may be answered by the same challenge.
const SAME: u8 = 2;
/// So many may be answered by any.
const ANY: u8 = 4;
/// A token that was made so many seconds before the round is no answer to it, whatever the provider's clock.
const BEFORE: u32 = 60;

/// One principal, one downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    began: Timestamp,
    challenge: [u8; 32],
    token: [u8; 32],
    same: u8,
    any: u8,
}

impl Round {
    fn may_ask(&self) -> bool {
        self.same <= SAME && self.any <= ANY
    }

    /// The round after another token, or another challenge, of it.
    fn then(self, challenge: [u8; 32], token: [u8; 32]) -> Self {
        let same = if self.challenge == challenge { self.same.saturating_add(1) } else { 1 };
        Self { challenge, token, same, any: self.any.saturating_add(1), ..self }
    }
}

/// The rounds that are open.
pub(super) struct Asked(moka::sync::Cache<[u8; 32], Round>);

impl Asked {
    pub(super) fn new() -> Self {
        let life = Duration::from_secs(ROUND.into());
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build())
    }

    /// Whether this principal may be given this challenge; remembers that it was. `issued` is when its token was made.
    pub(super) fn may_ask(
        &self,
        principal: Principal,
        want: &Want,
        challenge: &str,
        issued: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let mut key = Frame::new("asked");
        key.bytes(principal.as_bytes()).text(want.downstream.as_str());
        let (challenge, token) = (sha256(challenge.as_bytes()), want.token);
        let first = Round { began: now, challenge, token, same: 1, any: 1 };
        let mut may = false;
        self.0.entry(key.finish()).and_compute_with(|entry| {
            // A clock that was set back ends no round.
            let open = entry.map(moka::Entry::into_value).filter(|round| now < round.began.plus(ROUND));
            let next = match open {
                None => first,
                // The same request with an unchanged token gets the same answer.
                Some(round) if round.token == token && round.challenge == challenge => round,
                // Another device's, say: nobody made it because of the challenge.
                Some(round) if issued.is_some_and(|at| at.plus(BEFORE) < round.began) => round,
                Some(round) => round.then(challenge, token),
            };
            may = next.may_ask();
            if open == Some(next) { Op::Nop } else { Op::Put(next) }
        });
        may
    }
}

#[cfg(test)]
mod tests {
    use behalf_policy::ids::EntryName;
    use behalf_policy::interaction::Interaction;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn want(token: u8, downstream: &str) -> Want {
        let downstream = EntryName::new(downstream).unwrap();
        Want { interaction: Interaction::Any, downstream, token: [token; 32] }
    }

    fn ask(asked: &Asked, token: u8, challenge: &str, now: Timestamp) -> bool {
        asked.may_ask(Principal::of(None), &want(token, "payroll"), challenge, Some(now), now)
    }

    #[test]
    fn d32_a_third_token_for_the_same_challenge_gets_none() {
        let asked = Asked::new();
        for _ in 0..5 {
            assert!(ask(&asked, 1, "a", NOW), "an unchanged token gets a stable challenge");
        }
        assert!(ask(&asked, 2, "a", NOW.plus(1)));
        for token in 3..20 {
            assert!(!ask(&asked, token, "a", NOW.plus(2)), "{token}");
        }
        assert!(!ask(&asked, 3, "a", NOW.plus(ROUND - 1)));
        assert!(!ask(&asked, 3, "a", NOW.minus(100)), "nor by a clock that was set back");
        assert!(ask(&asked, 3, "a", NOW.plus(ROUND)), "a round ends");
    }

    #[test]
    fn d32_challenges_that_change_each_time_end_as_well() {
        let asked = Asked::new();
        let given = (0..50).filter(|n| ask(&asked, *n, &format!("nonce {n}"), NOW)).count();
        assert_eq!(given, usize::from(ANY));
        let asked = Asked::new();
        let given = (0..50).filter(|n| ask(&asked, 1, &format!("nonce {n}"), NOW)).count();
        assert_eq!(given, usize::from(ANY), "nor with one token");
    }

    #[test]
    fn d32_d13_rounds_are_of_one_principal_and_one_downstream() {
        let asked = Asked::new();
        for token in 1..=3 {
            ask(&asked, token, "a", NOW);
        }
        assert!(!ask(&asked, 4, "a", NOW));
        let other = want(4, "ledger");
        assert!(asked.may_ask(Principal::of(None), &other, "a", Some(NOW), NOW));
    }

    #[test]
    fn d32_tokens_from_before_the_round_are_no_answers_to_it() {
        let asked = Asked::new();
        let old = Some(NOW.minus(BEFORE + 1));
        for token in 1..20 {
            assert!(asked.may_ask(Principal::of(None), &want(token, "payroll"), "a", old, NOW), "{token}");
        }
        // One that does not say when it was made counts as new.
        let silent = |token| asked.may_ask(Principal::of(None), &want(token, "payroll"), "a", None, NOW);
        assert_eq!((silent(50), silent(51)), (true, false));
    }
}
