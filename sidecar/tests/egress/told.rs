//! What a provider or a downstream wants of the caller reaches the caller, in answer to the very call, and only then.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Response};
use serde_json::{Value, json};

use crate::fake::Reply;
use crate::idp::NOW;
use crate::whole::{Does, EVENTS, JSON, Told, Whole, event_error, success, tool_error};

/// As Entra ID answers an exchange whose subject has to prove more (spaces and order of members as a provider likes).
fn entra(error: &str) -> Reply {
    Reply::json(
        400,
        &json!({"error": error, "suberror": "basic_action", "error_codes": [50076],
            "error_description": "AADSTS50076: Due to a configuration change you must use multi-factor authentication",
            "timestamp": "2026-11-22 12:00:00Z", "trace_id": "t-r-a-c-e", "correlation_id": "c-o-r-r",
            "claims": "{ \"access_token\" : {\"polids\": {\"values\": [\"9ab03e19\"], \"essential\": true}} }"}),
    )
}

const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["9ab03e19"]}}}"#;

/// A provider that wants more of everybody.
async fn strict(change: impl FnOnce(&mut Value)) -> Whole {
    let whole = Whole::start(change).await;
    whole.idp.refuses(|_| Some(entra("interaction_required")));
    whole
}

fn is_claims_challenge(told: &Told, claims: &str) {
    assert_eq!(told.status, 401, "{}", told.text());
    let challenge = told.challenge().unwrap();
    assert!(
        challenge.starts_with("Bearer error=\"insufficient_claims\", resource_metadata=\"https://"),
        "{challenge}"
    );
    assert!(challenge.ends_with(&format!(", claims=\"{}\"", STANDARD.encode(claims))), "{challenge}");
    for secret in ["AADSTS", "t-r-a-c-e", "c-o-r-r", "basic_action"] {
        assert!(!challenge.contains(secret) && !told.text().contains(secret), "{secret}");
    }
    assert_eq!(told.headers["cache-control"], "no-store");
    assert!(!told.text().contains("payroll said no"), "nothing of the server's answer is left");
}

/// Records of the calls, and of what they did, by reason.
fn reasons(records: &[Value], direction: &str) -> Vec<Value> {
    let of = records.iter().filter(|record| record["direction"] == direction);
    of.map(|record| json!([record["decision"], record["reason"], record["status"]])).collect()
}

#[tokio::test]
async fn b6_claims_that_a_provider_wants_reach_the_caller() {
    let whole = strict(|_| {}).await;
    let told = whole.call(&whole.token("alice", 0)).await;
    is_claims_challenge(&told, CLAIMS);
    let body = told.json();
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-31401)));
    assert_eq!(body["error"]["data"]["reason"], "InteractionRequired");
    let records = whole.records(2).await;
    assert_eq!(reasons(&records, "Outbound"), [json!(["Refuse", "InteractionRequired", 403])]);
    assert_eq!(reasons(&records, "Inbound"), [json!(["Permit", "InteractionRequired", 401])]);
    let text = serde_json::to_string(&records).unwrap();
    let secrets = ["polids", "9ab03e19", &STANDARD.encode(CLAIMS)[..20], "AADSTS", "t-r-a-c-e"];
    assert!(!secrets.iter().any(|secret| text.contains(secret)), "a30 {text}");
    assert!(whole.payroll.all().is_empty());
}

#[tokio::test]
async fn b6_every_answer_that_failed_is_replaced_until_it_has_begun() {
    let whole = strict(|_| {}).await;
    let token = whole.token("alice", 0);
    let rpc: fn(&[u16]) -> (u16, String) =
        |_| (200, json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": "no"}}).to_string());
    let status: fn(&[u16]) -> (u16, String) = |_| (500, "payroll said no".to_owned());
    let cut: fn(&[u16]) -> (u16, String) = |s| (200, event_error(s).1.trim_end().to_owned());
    let crlf: fn(&[u16]) -> (u16, String) = |s| (200, format!("id: 1\r\ndata:{}\r\n\r\n", tool_error(s).1));
    for does in [
        JSON,
        Does { answers: rpc, ..JSON },
        Does { answers: status, ..JSON },
        Does { answers: status, kind: "text/plain", ..JSON },
        Does { answers: status, ..EVENTS },
        EVENTS,
        // The head is sent before the server does anything: nothing of the answer was sent yet.
        Does { early: Some(""), ..EVENTS },
        Does { early: Some(""), answers: crlf, ..EVENTS },
        Does { early: Some(""), answers: cut, ..EVENTS },
    ] {
        whole.does(does);
        is_claims_challenge(&whole.call(&token).await, CLAIMS);
    }
}

#[tokio::test]
async fn b6_an_answer_that_did_not_fail_is_never_replaced() {
    let whole = strict(|_| {}).await;
    let events: fn(&[u16]) -> (u16, String) = |s| (200, format!("data: {}\n\n", success(s).1));
    let partial: fn(&[u16]) -> (u16, String) =
        |_| (200, json!({"jsonrpc": "2.0", "id": 7, "result": {"content": ["half"]}}).to_string());
    let others: fn(&[u16]) -> (u16, String) =
        |_| (200, json!({"jsonrpc": "2.0", "id": 8, "result": {"isError": true}}).to_string());
    let twice: fn(&[u16]) -> (u16, String) =
        |_| (200, r#"{"jsonrpc":"2.0","id":7,"result":{"isError":false,"isError":true}}"#.to_owned());
    let found: fn(&[u16]) -> (u16, String) = |_| (302, String::new());
    for does in [
        Does { answers: success, ..JSON },
        Does { answers: partial, ..JSON },
        Does { answers: others, ..JSON },
        Does { answers: twice, ..JSON },
        Does { answers: found, ..JSON },
        Does { answers: events, ..EVENTS },
        Does { early: Some(""), answers: events, ..EVENTS },
        // Nothing was wanted: the server's failures are its own.
        Does { calls: &[], ..JSON },
        Does { calls: &[], ..EVENTS },
        Does { calls: &[], early: Some(""), ..EVENTS },
        Does { calls: &["/nowhere/x"], ..JSON },
    ] {
        let (expected, body) = (does.answers)(&[403]);
        whole.does(does);
        let told = whole.call(&whole.token("alice", 0)).await;
        assert_eq!((told.status, told.challenge(), told.text()), (expected, None, body.as_str()));
    }
}

#[tokio::test]
async fn b6_what_has_begun_goes_on_and_the_record_says_that_nobody_was_told() {
    let whole = strict(|_| {}).await;
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    let long: fn(&[u16]) -> (u16, String) = |s| {
        let padding = "x".repeat(300 * 1024);
        (200, tool_error(s).1.replace("payroll said no", &padding))
    };
    let begun = [
        Does { early: Some(progress), ..EVENTS },
        Does { early: Some(": ping\n\n"), ..EVENTS },
        Does { early: Some("id: 0\ndata:\n\n"), ..EVENTS },
        Does { answers: long, ..JSON },
    ];
    for (n, does) in begun.into_iter().enumerate() {
        let expected = format!("{}{}", does.early.unwrap_or_default(), (does.answers)(&[403]).1);
        whole.does(does);
        let told = whole.call(&whole.token("alice", 0)).await;
        assert_eq!((told.status, told.challenge()), (200, None), "{n}");
        assert!(told.text() == expected, "byte for byte");
        let records = whole.records(3 * (n + 1)).await;
        let inbound = reasons(&records[3 * n..], "Inbound");
        assert_eq!(
            inbound,
            [json!(["Permit", null, 200]), json!(["Permit", "InteractionNotTold", 200])],
            "{n}"
        );
        let ids: Vec<_> = records[3 * n..].iter().map(|record| &record["requestId"]).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "of one request");
    }
}

#[tokio::test]
async fn b6_stage_audit_and_hidden_rows_tell_the_caller_nothing() {
    let audit = |d: &mut Value| d["serve"]["stage"] = json!("Audit");
    let hidden = |d: &mut Value| d["serve"]["servers"][0]["tools"][0]["denial"] = json!("Hide");
    for change in [&audit as &dyn Fn(&mut Value), &hidden] {
        let whole = strict(change).await;
        let told = whole.call(&whole.token("alice", 0)).await;
        assert_eq!((told.status, told.challenge(), told.text()), (200, None, tool_error(&[]).1.as_str()));
        let records = whole.records(3).await;
        let inbound = reasons(&records, "Inbound");
        assert_eq!(inbound, [json!(["Permit", null, 200]), json!(["Permit", "InteractionNotTold", 200])]);
    }
}

#[tokio::test]
async fn b6_a_plain_http_api_is_told_by_its_status() {
    let whole = strict(|d| {
        let server = &mut d["serve"]["servers"][0];
        server["protocol"] = json!("HTTP");
        server["tools"] = json!([]);
        server["routes"] = json!([{"name": "pay", "methods": ["GET"], "path": {"type": "Exact", "value": "/pay"},
            "scopes": ["hr:salary:read"], "denial": "Explain",
            "downstreams": [{"name": "payroll", "scopes": ["payroll:read"]}]}]);
    })
    .await;
    let bad: fn(&[u16]) -> (u16, String) = |s| (502, format!("payroll said no: {s:?}"));
    whole.does(Does { answers: bad, kind: "text/plain", ..JSON });
    let get = async || whole.send(Method::GET, "/mcp/pay", &whole.token("alice", 0), String::new()).await;
    let told = get().await;
    is_claims_challenge(&told, CLAIMS);
    assert_eq!(told.headers["content-type"], "application/problem+json");
    assert_eq!(
        (&told.json()["status"], &told.json()["reason"]),
        (&json!(401), &json!("InteractionRequired"))
    );
    // What its body says is its own business.
    whole.does(JSON);
    assert_eq!(get().await.status, 200);
}

#[tokio::test]
async fn a17_logins_that_a_provider_wants_are_told_as_rfc_9470_has_it() {
    let whole = Whole::start(|_| {}).await;
    for (error, more) in [
        (
            json!({"error": "insufficient_user_authentication", "acr_values": "gold", "max_age": 300}),
            ", acr_values=\"gold\", max_age=\"300\"",
        ),
        (json!({"error": "login_required"}), "log in\""),
        (json!({"error": "consent_required"}), "consent at the provider\""),
        (json!({"error": "interaction_required", "claims": "[]"}), "log in\""),
    ] {
        whole.idp.refuses(move |_| Some(Reply::json(400, &error)));
        // Another person each time, so that nobody is asked too often.
        let told =
            whole.call(&whole.token(&format!("alice{more}").replace(['"', ' ', '=', ','], "-"), 0)).await;
        let challenge = told.challenge().unwrap_or_default();
        assert_eq!(told.status, 401, "{}", told.text());
        assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
        assert!(challenge.contains("resource_metadata=") && challenge.ends_with(more), "{challenge}");
    }
    // What no caller can change stays the server's answer.
    for error in ["invalid_client", "invalid_scope", "access_denied", "invalid_grant"] {
        whole.idp.refuses(move |_| Some(Reply::json(400, &json!({"error": error}))));
        let told = whole.call(&whole.token("bob", 0)).await;
        assert_eq!((told.status, told.challenge()), (200, None), "{error}");
    }
}

#[tokio::test]
async fn b6_b28_a_downstreams_own_challenge_reaches_the_caller_after_one_new_exchange() {
    let whole = Whole::start(|_| {}).await;
    let wants = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;
    let challenge = format!(
        "Bearer realm=\"\", authorization_uri=\"https://login.test/authorize\", client_id=\"0-0\", error=\"insufficient_claims\", claims=\"{}\"",
        STANDARD.encode(wants)
    );
    let refusal = challenge.clone();
    whole.payroll.answer_with(move |_| {
        let response = Response::builder().status(401).header("www-authenticate", refusal.as_str());
        Reply::Whole(response.body("payroll said no".into()).unwrap())
    });
    is_claims_challenge(&whole.call(&whole.token("alice", 0)).await, wants);
    assert_eq!(whole.idp.exchanges(), 2, "once more with a new token");
    let records = whole.records(2).await;
    assert_eq!(reasons(&records, "Outbound"), [json!(["Permit", "InteractionRequired", 401])]);
    // A 401 that says nothing of the sort is the downstream's own.
    for other in
        ["Bearer error=\"invalid_token\"", "Basic realm=\"x\"", "Bearer error=\"insufficient_claims\""]
    {
        whole.payroll.answer_with(move |_| {
            let response = Response::builder().status(401).header("www-authenticate", other);
            Reply::Whole(response.body("no".into()).unwrap())
        });
        let told = whole.call(&whole.token("alice", 0)).await;
        assert_eq!((told.status, told.challenge()), (200, None), "{other}");
    }
}

#[tokio::test]
async fn d32_a_caller_is_not_asked_in_circles() {
    let whole = strict(|_| {}).await;
    let first = whole.token("alice", 0);
    for _ in 0..4 {
        is_claims_challenge(&whole.call(&first).await, CLAIMS);
    }
    // A client that only logs in again, without the claims.
    whole.clock.advance(5);
    is_claims_challenge(&whole.call(&whole.token("alice", 5)).await, CLAIMS);
    for at in [6, 7, 8] {
        whole.clock.advance(1);
        let told = whole.call(&whole.token("alice", at)).await;
        assert_eq!((told.status, told.challenge()), (403, None), "{at}");
        assert_eq!(told.json()["error"]["data"]["reason"], "InteractionRepeated");
    }
    let records = whole.records(16).await;
    assert_eq!(reasons(&records, "Inbound").last(), Some(&json!(["Permit", "InteractionRepeated", 403])));
    // Nobody else pays for it.
    is_claims_challenge(&whole.call(&whole.token("bob", 8)).await, CLAIMS);
    // A token that the provider takes is simply taken.
    whole.idp.refuses(|_| None);
    whole.does(Does { answers: success, ..JSON });
    assert_eq!(whole.call(&whole.token("alice", 9)).await.status, 200);
    // And after a while the provider may ask anew.
    whole.idp.refuses(|_| Some(entra("invalid_grant")));
    whole.does(JSON);
    whole.clock.advance(600);
    is_claims_challenge(&whole.call(&whole.token("alice", 609)).await, CLAIMS);
}

#[tokio::test]
async fn b8_a_refused_exchange_is_not_remembered() {
    let whole = strict(|_| {}).await;
    let token = whole.token("alice", 0);
    for asked in 1..=3 {
        is_claims_challenge(&whole.call(&token).await, CLAIMS);
        assert_eq!(whole.idp.exchanges(), asked, "asked each time");
    }
    // The provider takes tokens that were made later: the answer to its challenge.
    whole.idp.refuses(|subject| {
        let old = subject["iat"].as_i64() == Some(NOW);
        old.then(|| entra("interaction_required"))
    });
    let fresh: fn(&[u16]) -> (u16, String) = |statuses| {
        assert_eq!(statuses, [200]);
        success(statuses)
    };
    whole.does(Does { answers: fresh, ..JSON });
    let told = whole.call(&whole.token("alice", 3)).await;
    assert_eq!((told.status, told.challenge()), (200, None));
    assert_eq!(whole.idp.exchanges(), 4);
}

#[tokio::test]
async fn d13_one_callers_challenge_is_not_anothers() {
    let whole = Whole::start(|_| {}).await;
    whole.idp.refuses(|subject| (subject["sub"] == "alice").then(|| entra("interaction_required")));
    let (alice, bob) = (whole.token("alice", 0), whole.token("bob", 0));
    for _ in 0..5 {
        let (hers, his) = tokio::join!(whole.call(&alice), whole.call(&bob));
        is_claims_challenge(&hers, CLAIMS);
        assert_eq!((his.status, his.challenge(), his.text()), (200, None, tool_error(&[]).1.as_str()));
    }
    // Two calls of hers that share one exchange are told the same.
    let (one, two) = tokio::join!(whole.call(&alice), whole.call(&alice));
    is_claims_challenge(&one, CLAIMS);
    is_claims_challenge(&two, CLAIMS);
}

#[tokio::test]
async fn b6_of_several_wants_the_first_counts_and_one_that_is_met_is_none() {
    let whole = Whole::start(|d| {
        let tool = &mut d["serve"]["servers"][0]["tools"][0];
        tool["downstreams"] = json!([{"name": "payroll", "scopes": ["payroll:read"]},
            {"name": "ledger", "scopes": ["payroll:read"]}]);
    })
    .await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    whole.idp.refuses(move |_| {
        let claims = |n: usize| format!("{{\"access_token\":{{\"n{n}\":null}}}}");
        let n = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (n != 3).then(|| Reply::json(400, &json!({"error": "interaction_required", "claims": claims(n)})))
    });
    whole.does(Does { calls: &["/payroll/x", "/ledger/x"], ..JSON });
    let told = whole.call(&whole.token("alice", 0)).await;
    is_claims_challenge(&told, r#"{"access_token":{"n0":null}}"#);
    // It tried again, and was served: what failed then was something else.
    whole.does(Does { calls: &["/payroll/x", "/payroll/x"], ..JSON });
    let told = whole.call(&whole.token("bob", 0)).await;
    assert_eq!((told.status, told.challenge()), (200, None));
    // Served by one, refused by the other.
    whole.does(Does { calls: &["/ledger/x", "/payroll/x"], ..JSON });
    let told = whole.call(&whole.token("bob", 0)).await;
    is_claims_challenge(&told, r#"{"access_token":{"n4":null}}"#);
}
