//! The way out, over real sockets: who gets through, as whom, with what.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_policy::ids::ToolName;
use behalf_sidecar::handles::Handles;
use serde_json::{Value, json};

use crate::fake::{Reply, Seen};
use crate::idp::{call, caller};
use crate::world::{Change, World, says_what_it_saw};

#[tokio::test]
async fn a_live_handle_becomes_the_callers_own_downstream_token() {
    let world = World::start().await;
    let alice = world.open("alice");
    let answer = world.get("/payroll/salaries/a%20b?year=2026&x=%2e%2e", alice.as_str()).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let saw = answer.json();
    assert_eq!(saw["claims"]["sub"], "alice");
    assert_eq!(saw["claims"]["aud"], "payroll");
    assert_eq!(saw["claims"]["scope"], "payroll:read");
    assert_eq!(saw["target"], "/api/salaries/a%20b?year=2026&x=%2e%2e", "byte for byte under the base path");
    assert_eq!(saw["headers"]["host"], format!("localhost:{}", world.payroll.port));
    assert!(!saw.to_string().contains(alice.as_str()));
    let record = world.last().await;
    assert_eq!(record["direction"], "Outbound");
    assert_eq!(record["decision"], "Permit");
    assert_eq!(record["requestId"], "request-of-alice");
    assert_eq!(
        (&record["subject"], &record["tool"], &record["downstream"]),
        (&json!("alice"), &json!("salary.get"), &json!("payroll"))
    );
    assert_eq!(
        (&record["exchange"], &record["status"], &record["method"]),
        (&json!("Made"), &json!(200), &json!("HTTP GET"))
    );
    let again = world.get("/payroll", alice.as_str()).await;
    assert_eq!((again.status, &again.json()["target"]), (200, &json!("/api")));
    assert_eq!(world.last().await["exchange"], "Cached");
    assert_eq!((world.idp.exchanges(), alice.uses()), (1, 2));
}

#[tokio::test]
async fn the_plain_header_carries_the_handle_as_well_and_the_servers_own_credential_goes() {
    let world = World::start().await;
    let alice = world.open("alice");
    for header in ["Behalf-Handle", "behalf_handle", "BEHALF-HANDLE"] {
        let headers =
            format!("{header}: {}\r\nAuthorization: Bearer own-key\r\nCookie: a=b\r\n", alice.as_str());
        let answer = world.ask("GET /payroll/x", &headers).await;
        assert_eq!(answer.status, 200, "{header}: {}", answer.head);
        let saw = answer.json();
        assert_eq!((&saw["claims"]["sub"], &saw["own"]), (&json!("alice"), &Value::Null));
        assert!(!saw.to_string().to_lowercase().contains("behalf"), "{saw}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_and_methods_are_kept() {
    let world = World::start().await;
    let alice = world.open("alice");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let headers = format!("Authorization: Bearer {}\r\nContent-Length: 5\r\n\r\nhello", alice.as_str());
        let answer = world
            .raw(&format!(
                "{method} /payroll/x HTTP/1.1\r\nHost: localhost:15102\r\nConnection: close\r\n{headers}"
            ))
            .await;
        let saw = answer.json();
        assert_eq!((&saw["method"], &saw["body"]), (&json!(method), &json!("hello")));
    }
    let chunked = format!(
        "POST /payroll/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nAuthorization: Bearer smuggled\r\n\r\nGET /payroll/leftover HTTP/1.1\r\nHost: localhost\r\n\r\n",
        alice.as_str()
    );
    let answer = world.raw(&chunked).await;
    assert_eq!((answer.status, &answer.json()["body"]), (200, &json!("hello")));
    let count = world.payroll.all().len();
    assert_eq!(count, 5, "d17: no leftover behind a chunked body becomes a request");
    assert!(!format!("{:?}", world.payroll.all()).contains("smuggled"));
}

#[tokio::test]
async fn egress_without_a_live_handle_is_refused_and_the_provider_is_not_asked() {
    let world = World::start().await;
    let ended = world.open("alice").as_str().to_owned();
    let foreign = Handles::new().open(call(&caller("alice"), "t")).unwrap().as_str().to_owned();
    let cases = [
        (String::new(), "NoHandle"),
        ("Authorization: Bearer own-key\r\n".to_owned(), "NoHandle"),
        ("Authorization: Basic eA==\r\n".to_owned(), "NoHandle"),
        ("Authorization: Bearer behalf_AAAAAAAAAAAAAAAAAAAAAA\r\n".to_owned(), "UnknownHandle"),
        (format!("Authorization: Bearer {ended}\r\n"), "UnknownHandle"),
        (format!("Authorization: Bearer {foreign}\r\n"), "UnknownHandle"),
        (format!("Behalf-Handle: {ended}\r\n"), "UnknownHandle"),
        ("Behalf-Handle: x\r\n".to_owned(), "UnknownHandle"),
    ];
    for (n, (headers, reason)) in cases.iter().enumerate() {
        let answer = world.ask("GET /payroll/x", headers).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, *reason), "{headers}");
        let records = world.records().await;
        assert_eq!(records.len(), n + 1, "one record each");
        let record = &records[n];
        assert_eq!(
            (&record["decision"], &record["reason"], &record["status"]),
            (&json!("Refuse"), &json!(reason), &json!(403))
        );
    }
    assert_eq!((world.idp.exchanges(), world.payroll.all().len()), (0, 0));
}

#[tokio::test]
async fn b29_a_handle_ends_with_its_token_and_with_its_call() {
    let world = World::start().await;
    let alice = world.open("alice");
    world.asking.clock.advance(300);
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.reason(), "HandleExpired");
    world.asking.clock.advance(-300);
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    let text = alice.as_str().to_owned();
    drop(alice);
    assert_eq!(world.get("/payroll/x", &text).await.reason(), "UnknownHandle");
}

#[tokio::test]
async fn a_call_that_ends_while_the_provider_is_asked_gets_nothing() {
    let world = World::start().await;
    let alice = Arc::new(Mutex::new(Some(world.open("alice"))));
    let text = alice.lock().unwrap().as_ref().unwrap().as_str().to_owned();
    world.idp.lies(move |_, _| drop(alice.lock().unwrap().take()));
    assert_eq!(world.get("/payroll/x", &text).await.reason(), "UnknownHandle");
    assert!(world.payroll.all().is_empty());
}

#[tokio::test]
async fn each_use_is_decided_by_the_bundle_of_now() {
    let mut world = World::start().await;
    let alice = world.open("alice");
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    let tool = |d: &mut Value| d["serve"]["servers"][0]["tools"][0]["downstreams"] = json!([]);
    let suspended = |d: &mut Value| d["serve"]["state"] = json!("Suspended");
    let groups = |d: &mut Value| d["serve"]["scopes"][1]["groups"] = json!(["directors"]);
    let gone = |d: &mut Value| d["serve"] = json!({"type": "RefuseAll", "reason": "IdentityDeleted"});
    let changes: [(Change, &str); 4] = [
        (tool, "DownstreamNotPermitted"),
        (suspended, "Suspended"),
        (groups, "NotEntitled"),
        (gone, "IdentityDeleted"),
    ];
    for (change, reason) in changes {
        world.publish(change).await;
        let answer = world.get("/payroll/x", alice.as_str()).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, reason));
    }
    world.publish(|_| {}).await;
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    assert_eq!(world.payroll.all().len(), 2);
}

#[tokio::test]
async fn d2_a_handle_buys_only_what_its_tool_names() {
    let world = World::start().await;
    let alice = world.open("alice");
    assert_eq!(world.get("/ledger/x", alice.as_str()).await.reason(), "DownstreamNotPermitted");
    let mut other = call(&caller("alice"), &world.idp.login("alice", 1));
    other.tool = ToolName::new("directory.search").unwrap();
    let other = world.handles.open(other).unwrap();
    assert_eq!(world.get("/payroll/x", other.as_str()).await.reason(), "DownstreamNotPermitted");
    assert_eq!(world.get("/nowhere/x", alice.as_str()).await.status, 404);
    assert_eq!((world.idp.exchanges(), world.payroll.all().len()), (0, 0));
}

#[tokio::test]
async fn d13_two_humans_at_once_are_never_mixed() {
    let world = World::start().await;
    let (alice, bob) = (world.open("alice"), world.open("bob"));
    let asked = (0..40).map(|n| {
        let (who, handle) = if n % 2 == 0 { ("alice", &alice) } else { ("bob", &bob) };
        let world = &world;
        async move { (who, world.get("/payroll/x", handle.as_str()).await) }
    });
    for (who, answer) in futures::future::join_all(asked).await {
        assert_eq!(answer.json()["claims"]["sub"], who);
    }
    assert_eq!(world.idp.exchanges(), 2);
    let both = format!("Authorization: Bearer {}\r\nBehalf-Handle: {}\r\n", alice.as_str(), bob.as_str());
    let answer = world.ask("GET /payroll/x", &both).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "AmbiguousHandle"));
}

#[tokio::test]
async fn b29_the_plain_header_buys_what_the_bearer_does_and_never_leaves() {
    let world = World::start().await;
    let (alice, bob) = (world.open("alice"), world.open("bob"));
    let (alice, bob) = (alice.as_str(), bob.as_str());
    for headers in [
        format!("Behalf-Handle: {alice}\r\n"),
        format!("behalf_handle: {alice}\r\n"),
        format!("BEHALF-HANDLE:  Bearer {alice} \r\n"),
        format!("Behalf-Handle: {alice}\r\nAuthorization: Bearer {alice}\r\n"),
        // What the server says of itself gives way to the caller's token.
        format!("Behalf-Handle: {alice}\r\nAuthorization: Bearer own-key\r\n"),
        format!("Behalf-Handle: {alice}\r\nX-Note: {alice}\r\nbehalf_note: 1\r\n"),
    ] {
        let answer = world.ask("GET /payroll/x", &headers).await;
        assert_eq!((answer.status, &answer.json()["claims"]["sub"]), (200, &json!("alice")), "{headers}");
        let seen = format!("{:?}", world.payroll.all().last().unwrap().headers).to_lowercase();
        assert!(!seen.contains("behalf"), "{seen}");
    }
    let reached = world.payroll.all().len();
    for (headers, status, reason) in [
        (format!("Behalf-Handle: {alice}\r\nAuthorization: Bearer {bob}\r\n"), 403, "AmbiguousHandle"),
        (format!("behalf_handle: {alice}\r\nAuthorization: Bearer {bob}\r\n"), 403, "AmbiguousHandle"),
        (format!("Behalf-Handle: {alice}\r\nBehalf-Handle: {bob}\r\n"), 400, "DuplicateHeader"),
        (format!("Behalf-Handle: {alice}\r\nbehalf_handle: {alice}\r\n"), 400, "DuplicateHeader"),
        (format!("Behalf-Handle: {alice}, {bob}\r\n"), 403, "UnknownHandle"),
        ("Behalf-Handle: behalf_AAAAAAAAAAAAAAAAAAAAAA\r\n".to_owned(), 403, "UnknownHandle"),
        (format!("Behalf-Handle: {}\r\n", alice.to_uppercase()), 403, "UnknownHandle"),
        ("Behalf-Handle: \r\n".to_owned(), 403, "NoHandle"),
        (format!("Handle: {alice}\r\n"), 403, "NoHandle"),
    ] {
        let answer = world.ask("GET /payroll/x", &headers).await;
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{headers}");
    }
    assert_eq!(world.payroll.all().len(), reached);
}

#[tokio::test]
async fn a_token_in_the_answer_is_cut_and_recorded() {
    let world = World::start().await;
    let alice = world.open("alice");
    let bearer = |seen: &Seen| seen.headers["authorization"].to_str().unwrap()["Bearer ".len()..].to_owned();
    world.payroll.answer_with(move |seen| {
        let response = http::Response::builder()
            .status(302)
            .header("location", format!("https://x.test/?t={}", bearer(&seen)));
        Reply::Whole(response.body(bytes::Bytes::new()).unwrap())
    });
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "TokenInAnswer"));
    assert_eq!(world.last().await["reason"], "TokenInAnswer");
    for size in [1, 7, 100_000] {
        let before = world.records().await.len();
        let token = Arc::new(Mutex::new(String::new()));
        let seen_token = Arc::clone(&token);
        world.payroll.answer_with(move |seen| {
            let token = bearer(&seen);
            seen_token.lock().unwrap().clone_from(&token);
            let text = format!("{{\"echo\": \"{token}\", \"more\": 1}}");
            Reply::Chunks(text.as_bytes().chunks(size).map(bytes::Bytes::copy_from_slice).collect())
        });
        let answer = world.get("/payroll/x", alice.as_str()).await;
        let token = token.lock().unwrap().clone();
        // When the token is in the first bytes, not even the head leaves.
        assert!(answer.cut || answer.status == 0, "{size}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body.len() <= "{\"echo\": \"".len(), "no byte of the token leaves");
        assert!(!answer.head.contains(&token));
        let recorded = async {
            while world.records().await.len() < before + 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), recorded).await.expect("a second record");
        let last = world.last().await;
        assert_eq!((&last["decision"], &last["reason"]), (&json!("Refuse"), &json!("TokenInAnswer")));
    }
}

#[tokio::test]
async fn d28_a_redirect_is_passed_on_and_not_followed() {
    let world = World::start().await;
    let alice = world.open("alice");
    let elsewhere = world.idp.fake.url("/elsewhere");
    let location = elsewhere.clone();
    world.payroll.answer_with(move |_| {
        let response =
            http::Response::builder().status(307).header("location", &location).header("behalf-x", "1");
        Reply::Whole(response.body(bytes::Bytes::new()).unwrap())
    });
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!(answer.status, 307);
    assert!(answer.head.contains(&elsewhere) && !answer.head.contains("behalf-x"));
    assert_eq!((world.idp.fake.count("/elsewhere"), world.payroll.all().len()), (0, 1));
}

#[tokio::test]
async fn b28_a_401_makes_one_forced_exchange_and_no_more() {
    let world = World::start().await;
    let alice = world.open("alice");
    world.payroll.answer_with(|_| Reply::text(401, "text/plain", "no"));
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 401);
    assert_eq!((world.idp.exchanges(), world.payroll.all().len()), (2, 2));
    let post = format!(
        "POST /payroll/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\r\nhi",
        alice.as_str()
    );
    assert_eq!(world.raw(&post).await.status, 401);
    assert_eq!(world.payroll.all().len(), 3, "a body that has been sent is not sent again");
    world.payroll.answer_with(says_what_it_saw);
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    assert_eq!(world.idp.exchanges(), 3, "the refused token was forgotten");
}

#[tokio::test]
async fn a_failed_exchange_reaches_nobody_and_says_why() {
    let world = World::start().await;
    let alice = world.open("alice");
    world.idp.lies(|claims, _| drop(claims.insert("scope".into(), json!("payroll:read payroll:write"))));
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "AnswerScopeBeyondAsked"));
    world.idp.instead(|| {
        Reply::json(400, &json!({"error": "invalid_grant", "error_description": "SECRET-DETAIL"}))
    });
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "SubjectRefused"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("SECRET-DETAIL"));
    let record = world.last().await;
    assert_eq!(
        (&record["decision"], &record["reason"], &record["subject"]),
        (&json!("Refuse"), &json!("SubjectRefused"), &json!("alice"))
    );
    assert!(world.payroll.all().is_empty());
}

#[tokio::test]
async fn a_downstream_that_is_not_there_or_not_trusted_is_502() {
    let mut world = World::start().await;
    let alice = world.open("alice");
    let wrong_ca = world.idp.fake.ca.clone();
    world.publish(|d| d["serve"]["downstreams"][0]["caBundle"] = json!(wrong_ca)).await;
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "DownstreamUnreachable"));
    assert_eq!(world.last().await["decision"], "Permit");
    assert!(world.payroll.all().is_empty());
}

#[tokio::test]
async fn a30_no_record_holds_a_token_or_handle() {
    let world = World::start().await;
    let alice = world.open("alice");
    world.get("/payroll/x", alice.as_str()).await;
    world.get(&format!("/payroll/{}", alice.as_str()), alice.as_str()).await;
    world.records().await;
    let text = String::from_utf8(world.lines.0.lock().unwrap().clone()).unwrap();
    assert!(
        !text.contains(alice.as_str()) && !text.contains(".eyJ") && !text.contains("alice-jti"),
        "{text}"
    );
}
