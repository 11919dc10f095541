//! What was exchanged is kept: for whom, by what, and for how long.

use behalf_policy::ids::Timestamp;
use behalf_policy::record::Exchange;
use behalf_sidecar::exchange::ExchangeError;
use serde_json::{Value, json};

use super::ask;
use crate::fake::Reply;
use crate::idp::{Asking, Idp, NOW, call, caller, claims, order};

#[tokio::test]
async fn two_calls_with_one_token_make_one_exchange() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let (first, made) = ask(&idp, &asking, "alice", 1).await.unwrap();
    let (second, kept) = ask(&idp, &asking, "alice", 1).await.unwrap();
    assert_eq!((made, kept), (Exchange::Made, Exchange::Cached));
    assert_eq!((first, idp.exchanges()), (second, 1));
    ask(&idp, &asking, "alice", 2).await.unwrap();
    assert_eq!(idp.exchanges(), 2, "another token of hers is another exchange");
}

#[tokio::test]
async fn d13_concurrent_callers_share_only_with_themselves() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let people = ["alice", "bob", "carol"];
    let asked = (0..60).map(|i| {
        let (idp, asking, who) = (&idp, &asking, people[i % 3]);
        async move { (who, ask(idp, asking, who, 1).await.unwrap().0) }
    });
    for (who, token) in futures::future::join_all(asked).await {
        assert_eq!(claims(&token)["sub"], who);
    }
    assert_eq!(idp.exchanges(), 3);
}

#[tokio::test]
async fn d13_one_callers_failure_is_not_anothers() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.lies(|claims, _| {
        if claims["sub"] == "bob" {
            claims.insert("aud".into(), json!("elsewhere"));
        }
    });
    let (alice, bob) = tokio::join!(ask(&idp, &asking, "alice", 1), ask(&idp, &asking, "bob", 1));
    assert_eq!(claims(&alice.unwrap().0)["sub"], "alice");
    assert_eq!(bob.unwrap_err().reason(), "AnswerWrongAudience");
}

#[tokio::test]
async fn a_failure_is_not_kept() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.instead(|| Reply::json(500, &json!({})));
    assert_eq!(ask(&idp, &asking, "alice", 1).await.unwrap_err().reason(), "ProviderServerError");
    *idp.instead.lock().unwrap() = None;
    ask(&idp, &asking, "alice", 1).await.unwrap();
    assert_eq!(idp.exchanges(), 2, "one try each, none repeated by itself (B7)");
}

#[tokio::test]
async fn b8_d12_every_input_of_the_order_has_a_token_of_its_own() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.lies(|claims, answer| {
        claims.insert("exp".into(), json!(NOW + 250));
        answer["expires_in"] = json!(250);
    });
    let caller = caller("alice");
    let token = idp.login("alice", 1);
    let changes: [fn(&mut Value); 9] = [
        |_| {},
        |d| d["serve"]["catalogRevision"] = json!("r2"),
        |d| d["serve"]["downstreams"][0]["audience"] = json!("payroll2"),
        |d| d["serve"]["servers"][0]["tools"][0]["downstreams"][0]["scopes"] = json!(["payroll:rea", "d"]),
        |d| d["serve"]["servers"][0]["tools"][0]["downstreams"][0]["scopes"] = json!(["payroll:read", "x"]),
        |d| d["serve"]["downstreams"][0]["maxTokenLifetime"] = json!(300),
        |d| d["serve"]["providers"][0]["ignoredScopes"] = json!([]),
        |d| d["identity"] = json!("other"),
        |d| d["serve"]["providers"][0]["flavor"] = json!("Generic"),
    ];
    for (n, change) in changes.iter().enumerate() {
        let bundle = idp.bundle(change);
        let call = call(&caller, &token);
        let exchanged = asking.exchanger.token(&bundle, &order(&bundle, &caller), &call, asking.now()).await;
        let exchanged = exchanged.map_err(ExchangeError::reason);
        // The last one is the first again.
        let expected = if n == changes.len() - 1 { Exchange::Cached } else { Exchange::Made };
        assert_eq!(exchanged.map(|e| e.how()), Ok(expected), "{n}");
    }
    assert_eq!(idp.exchanges(), changes.len() - 1);
}

#[tokio::test]
async fn hazard_4_a_token_is_used_no_longer_than_its_subject_lives() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.lies(|claims, answer| {
        claims.insert("exp".into(), json!(NOW + 500));
        answer["expires_in"] = json!(500);
    });
    let bundle = idp.bundle(|_| {});
    let mut caller = caller("alice");
    caller.expires = Timestamp(NOW + 60);
    let call = call(&caller, &idp.login("alice", 1));
    let order = order(&bundle, &caller);
    let exchanged = asking
        .exchanger
        .token(&bundle, &order, &call, asking.now())
        .await
        .map_err(ExchangeError::reason)
        .unwrap();
    assert_eq!(exchanged.until(), Timestamp(NOW + 55));
    asking.clock.advance(55);
    let late = asking.exchanger.token(&bundle, &order, &call, asking.now()).await;
    assert_eq!(late.err().map(ExchangeError::reason), Some("SubjectNearExpiry"));
    assert_eq!(idp.exchanges(), 1);
}

#[tokio::test]
async fn a_kept_token_ends_by_the_clock_and_a_clock_set_back_revives_nothing() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    idp.lies(|claims, answer| {
        claims.insert("exp".into(), json!(NOW + 100));
        answer["expires_in"] = json!(20);
    });
    ask(&idp, &asking, "alice", 1).await.unwrap();
    asking.clock.advance(14);
    assert_eq!(ask(&idp, &asking, "alice", 1).await.unwrap().1, Exchange::Cached);
    asking.clock.advance(1);
    assert_eq!(ask(&idp, &asking, "alice", 1).await.unwrap().1, Exchange::Made);
    asking.clock.advance(-100);
    assert!(!matches!(ask(&idp, &asking, "alice", 1).await, Ok((_, Exchange::Cached))));
}

#[tokio::test]
async fn an_evicted_token_is_exchanged_anew_and_its_successor_stays() {
    let (idp, asking) = (Idp::start().await, Asking::new());
    let bundle = idp.bundle(|_| {});
    let caller = caller("alice");
    let call = call(&caller, &idp.login("alice", 1));
    let order = order(&bundle, &caller);
    let get = async || {
        asking
            .exchanger
            .token(&bundle, &order, &call, asking.now())
            .await
            .map_err(ExchangeError::reason)
            .unwrap()
    };
    let first = get().await;
    asking.exchanger.evict(&first).await;
    assert_eq!(get().await.how(), Exchange::Made);
    asking.exchanger.evict(&first).await;
    assert_eq!(get().await.how(), Exchange::Cached);
    assert_eq!(idp.exchanges(), 2);
}
