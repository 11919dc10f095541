//! Nonces for proofs (RFC 9449 §8, §9): asked for, given out, renewed.

use serde_json::json;

use crate::dpop::{dpop_challenge, refused, search, world};
use crate::support::holder::Holder;
use crate::support::issuer::now;
use crate::support::{Answer, Call};

#[tokio::test]
async fn a25_a_nonce_is_asked_for_given_out_and_renewed() {
    let world = world("Accepted", 60, "Required").await;
    let holder = Holder::new();
    let token = world.token(|claims| {
        claims["cnf"] = json!({"jkt": holder.thumbprint()});
        claims["exp"] = (now() + 4000).into();
    });
    let with = |nonce: Option<&str>| {
        search().proved(
            &token,
            &holder.proof(&token, |claims| {
                if let Some(nonce) = nonce {
                    claims["nonce"] = nonce.into();
                }
            }),
        )
    };
    let asked = |answer: &Answer| {
        assert_eq!(answer.status, 401);
        assert_eq!(answer.challenges(), dpop_challenge("use_dpop_nonce"));
        assert_eq!(answer.reason(), "UseNonce");
        assert!(
            answer.header("access-control-expose-headers").is_none_or(|names| names.contains("DPoP-Nonce"))
        );
        // `header` sees to it that there is one.
        answer.header("dpop-nonce").unwrap().to_owned()
    };
    let first = asked(&refused(&world, with(None), "ProofNonceNeeded").await);
    // With one, a caller whose clock is wrong is taken too.
    let proof = holder.proof(&token, |claims| {
        claims["nonce"] = first.as_str().into();
        claims["iat"] = 1.into();
    });
    let answer = world.send(search().proved(&token, &proof)).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (200, None));
    refused(&world, search().proved(&token, &proof), "ProofReplayed").await;
    // Who was given one may not leave it out, nor make one up.
    let other = format!("{}A", &first[..first.len() - 1]);
    for bad in [None, Some("made-up"), Some(other.as_str())] {
        if bad != Some(first.as_str()) {
            asked(&refused(&world, with(bad), "ProofNonceNeeded").await);
        }
    }
    // Grown old it is still taken, and the next one comes with the answer; the old one lasts to its end.
    world.clock.advance(31);
    let answer = world.send(with(Some(&first))).await;
    assert_eq!(answer.status, 200);
    let second = answer.header("dpop-nonce").unwrap().to_owned();
    assert_ne!(first, second);
    let answer = world.send(with(Some(&second))).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (200, None));
    world.clock.advance(28);
    assert_eq!(world.send(with(Some(&first))).await.status, 200);
    world.clock.advance(1);
    asked(&refused(&world, with(Some(&first)), "ProofNonceNeeded").await);
    assert_eq!(world.send(with(Some(&second))).await.status, 200);
    // A bearer token of the same provider has no proof to put one into.
    assert_eq!(
        world.send(search().token(&world.token(|c| c["exp"] = (now() + 4000).into()))).await.status,
        200
    );
    world.stop().await;
}

#[tokio::test]
async fn a25_a_refusal_by_policy_carries_a_nonce_too_and_a_server_sets_none() {
    let world = world("Accepted", 10, "Required").await;
    let holder = Holder::new();
    let token = world.token(|claims| {
        claims["cnf"] = json!({"jkt": holder.thumbprint()});
        claims["scope"] = "hr:read".into();
    });
    let first =
        refused(&world, search().proved(&token, &holder.proof(&token, |_| {})), "ProofNonceNeeded").await;
    let first = first.header("dpop-nonce").unwrap().to_owned();
    world.clock.advance(5);
    let proof = holder.proof(&token, |claims| claims["nonce"] = first.as_str().into());
    let answer = world.send(Call::tool("salary.get").proved(&token, &proof)).await;
    assert_eq!(answer.status, 403);
    assert!(answer.header("dpop-nonce").is_some());
    world.stop().await;
}
