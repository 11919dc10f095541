//! The proof that it is this sidecar who answers on a port.
//!
//! The operator tries enrolled pods from outside: who answers there, the sidecar or something that by-passes it? A try is
//! no call. It reaches no server and no policy, so it leaves no decision record and is in no count but a metric of its own;
//! anything under the same path that is not exactly a challenge is a request like any other, refused and recorded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::feed::{ProofKey, is_challenge, proof_message};
use behalf_policy::wire::CHALLENGE_PATH_PREFIX;
use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// So many challenges are answered at once, and one more each [`REFILL`]: nobody can make this a load.
const BURST: u32 = 16;
const REFILL: Duration = Duration::from_millis(1000 / 16);

/// Answers challenges.
pub struct Prover {
    key: ProofKey,
    metrics: Arc<Metrics>,
    left: Mutex<(u32, Instant)>,
}

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prover")
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct NoRandom;

impl Prover {
    /// A prover with a key of this start of the sidecar.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn new(metrics: Arc<Metrics>) -> Result<Self, NoRandom> {
        let mut key = zeroize::Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| NoRandom)?;
        let key = ProofKey::new(URL_SAFE_NO_PAD.encode(key.as_slice()));
        Ok(Self { key, metrics, left: Mutex::new((BURST, Instant::now())) })
    }

    /// The key, for the operator's feed alone.
    pub(super) fn key(&self) -> ProofKey {
        self.key.clone()
    }

    /// The answer to a challenge, if the request is one: 200 and the proof, or 429 when there were too many.
    pub fn answer<B>(&self, request: &Request<B>, asker: SocketAddr) -> Option<(StatusCode, String)> {
        self.answer_at(Instant::now(), request, asker)
    }

    fn answer_at<B>(
        &self,
        now: Instant,
        request: &Request<B>,
        asker: SocketAddr,
    ) -> Option<(StatusCode, String)> {
        let challenge = request.uri().path().strip_prefix(CHALLENGE_PATH_PREFIX)?;
        if request.method() != Method::GET || request.uri().query().is_some() || !is_challenge(challenge) {
            return None;
        }
        let answered = self.one_more(now);
        self.metrics.challenged(answered);
        if !answered {
            return Some((StatusCode::TOO_MANY_REQUESTS, String::new()));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose().as_bytes());
        let tag = hmac::sign(&key, &proof_message(challenge, asker.ip(), asker.port()));
        Some((StatusCode::OK, URL_SAFE_NO_PAD.encode(tag.as_ref())))
    }

    fn one_more(&self, now: Instant) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (places, since) = &mut *left;
        let periods = now.saturating_duration_since(*since).as_millis() / REFILL.as_millis();
        let refilled = u32::try_from(periods).unwrap_or(u32::MAX).min(BURST);
        if refilled > 0 {
            *places = places.saturating_add(refilled).min(BURST);
            *since = now;
        }
        match places.checked_sub(1) {
            Some(rest) => {
                *places = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_bounded_and_nothing_else_is_one() {
        let prover = Prover::new(Arc::new(Metrics::new())).unwrap();
        let asker: SocketAddr = "[::ffff:10.0.0.1]:4711".parse().unwrap();
        let (start, mut passed) = (Instant::now(), Duration::ZERO);
        let ask = |passed: Duration, method: Method, target: &str| {
            let request = Request::builder().method(method).uri(target).body(()).unwrap();
            prover.answer_at(start + passed, &request, asker)
        };
        let good = format!("{CHALLENGE_PATH_PREFIX}AAAAAAAAAAAAAAAAAAAAAA");
        for (method, target) in [
            (Method::POST, good.clone()),
            (Method::HEAD, good.clone()),
            (Method::GET, format!("{good}A")),
            (Method::GET, format!("{good}/")),
            (Method::GET, format!("{good}?a=1")),
            (Method::GET, CHALLENGE_PATH_PREFIX.to_owned()),
            (Method::GET, format!("{CHALLENGE_PATH_PREFIX}%41AAAAAAAAAAAAAAAAAAAAA")),
            (Method::GET, "/.well-known/behalf/challenge".to_owned()),
            (Method::GET, "/".to_owned()),
        ] {
            assert_eq!(ask(passed, method, &target), None, "{target}");
        }
        let (status, proof) = ask(passed, Method::GET, &good).unwrap();
        assert_eq!((status, proof.len()), (StatusCode::OK, 43));
        for _ in 1..BURST {
            assert_eq!(ask(passed, Method::GET, &good), Some((StatusCode::OK, proof.clone())));
        }
        assert_eq!(ask(passed, Method::GET, &good), Some((StatusCode::TOO_MANY_REQUESTS, String::new())));
        passed += REFILL;
        assert_eq!(ask(passed, Method::GET, &good).unwrap().0, StatusCode::OK);
        assert_eq!(ask(passed, Method::GET, &good).unwrap().0, StatusCode::TOO_MANY_REQUESTS);
    }
}
