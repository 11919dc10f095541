//! What reaches the server, and what comes back.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Call, Reply, World, eventually};

#[tokio::test]
async fn c26_d1_nothing_of_the_callers_credentials_reaches_the_server() {
    let world = World::start().await;
    let alice = world.alice();
    let call = Call::tool("directory.search")
        .token(&alice)
        .header("cookie", "session=1")
        .header("dpop", "proof")
        .header("txn-token", "t")
        .header("proxy-authorization", "Basic YTpi")
        .header("behalf-subject", "mallory")
        .header("behalf_subject", "mallory")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-nominated", "1")
        .header("connection", "x-nominated")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("accept-language", "de");
    assert_eq!(world.send(call).await.status, 200);
    let seen = world.server.last();
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-language", "content-length", "content-type", "host", "traceparent"]);
    assert_eq!(seen.header("host"), Some(format!("127.0.0.1:{}", world.server.port).as_str()));
    assert_eq!(seen.target, "/mcp");
    let text = format!("{seen:?}");
    for part in alice.split('.') {
        assert!(!text.contains(part));
    }
    let record = world.last_record().await;
    assert_eq!(record["traceId"], "0af7651916cd43dd8448eb211c80319c");
    world.stop().await;
}

#[tokio::test]
async fn b29_what_a_caller_sends_under_our_names_is_gone_before_ours_is_there() {
    let world = World::start().await;
    let forged = "behalf_AAAAAAAAAAAAAAAAAAAAAA";
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"salary.get\",\"arguments\":{{}},\
         \"_m\\u0065ta\":{{\"behalf.dev/handle\":\"{forged}\",\"BEHALF.DEV/Handle\":\"{forged}\",\
         \"behalf\\u002edev\\/handle\":\"{forged}\",\"\\u200bbehalf.dev/handle\":\"{forged}\",\"behalf.dev/x\":1,\"a\":2}}}}}}"
    );
    // Twice the same name, once escaped, is refused as a duplicate.
    assert_eq!(world.send(Call::body(body.clone()).token(&world.alice())).await.status, 400);
    let body = body.replace(&format!("\"behalf.dev/handle\":\"{forged}\","), "");
    let call = Call::body(body)
        .token(&world.alice())
        .header("behalf-handle", forged)
        .header("Behalf_Handle", forged)
        .header("behalf.handle", forged)
        .header("x-forwarded-authorization", &format!("Bearer {forged}"))
        .header("baggage", &format!("h={forged}"))
        .header("tracestate", &format!("vendor=1, behalf={forged}"))
        .header("tracestate", "behalf=x,other=2")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(world.send(call).await.status, 200);
    let seen = world.server.last();
    assert!(!format!("{seen:?}").contains(forged), "{seen:?}");
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["accept", "authorization", "content-length", "content-type", "host", "traceparent", "tracestate"]
    );
    assert_eq!(seen.header("tracestate"), Some("other=2"));
    let meta = seen.json()["params"]["_meta"].clone();
    assert_eq!(meta.as_object().unwrap().len(), 2, "{meta}");
    assert_eq!(meta["a"], 2);
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Bearer {}", meta["behalf.dev/handle"].as_str().unwrap()).as_str())
    );

    // A handle is no credential of a caller.
    let stolen = meta["behalf.dev/handle"].as_str().unwrap();
    assert_eq!(world.send(Call::tool("salary.get").token(stolen)).await.status, 401);
    world.stop().await;
}

#[tokio::test]
async fn d19_the_judged_message_is_forwarded_and_not_the_bytes_that_came() {
    let world = World::start().await;
    let body = "{ \"id\" : 9007199254740991, \"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\n\
        \"params\":{\"n\\u0061me\":\"directory.search\",\"arguments\":{\"n\":1.0,\"big\":12345678901234567890123,\"e\":1E40},\
        \"_meta\":{\"behalf.dev/handle\":\"forged\",\"progressToken\":5}}}";
    assert_eq!(world.send(Call::body(body).token(&world.alice())).await.status, 200);
    let text = String::from_utf8(world.server.last().body.to_vec()).unwrap();
    assert!(text.contains("\"name\":\"directory.search\""), "{text}");
    assert!(text.contains("{\"n\":1.0,\"big\":12345678901234567890123,\"e\":1E40}"), "{text}");
    assert!(text.contains("\"id\":9007199254740991"), "{text}");
    assert!(text.contains("progressToken") && !text.contains("behalf"), "{text}");
    world.stop().await;
}

#[tokio::test]
async fn d16_the_server_cannot_challenge_or_set_cookies_in_our_place() {
    let world = World::start().await;
    world.server.behave(|_| {
        Some(
            Reply::new(401, "application/json", "{}")
                .header("www-authenticate", "Bearer realm=\"evil\"")
                .header("set-cookie", "a=b")
                .header("behalf-request-id", "forged")
                .header("behalf_request_id", "forged")
                .header("x-own", "1"),
        )
    });
    let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.challenge(), None);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("x-own"), Some("1"));
    assert_eq!(answer.header("behalf-request-id"), world.last_record().await["requestId"].as_str());
    world.stop().await;
}

#[tokio::test]
async fn c5_an_event_stream_passes_as_it_comes() {
    let world = World::start().await;
    let (answer, events) = world.open(Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for part in [
        ": ping\n\n",
        "event: mess",
        "age\ndata: {\"jsonrpc\"",
        ":\"2.0\"}\n\n",
        "retry: 5\nid: 9\ndata:\n\n",
    ] {
        events.unbounded_send(part).unwrap();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, part, "each part arrives before the next is sent");
    }
    // The record was there before the first byte.
    assert_eq!(world.records_of(1).await[0]["decision"], "Permit");
    assert!(world.metrics().await.contains("behalf_sidecar_open_requests 1"));
    drop(events);
    assert!(body.frame().await.is_none());
    eventually("the request has ended", async || {
        world.metrics().await.contains("behalf_sidecar_open_requests 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn c6_a_caller_that_leaves_ends_the_request_to_the_server() {
    let world = World::start().await;
    let call = Call::modern("tools/call", json!({"name": "salary.get", "arguments": {}}));
    let (answer, events) = world.open(call.token(&world.alice())).await;
    assert!(!events.is_closed());
    drop(answer);
    eventually("the server sees the end", async || events.is_closed().then_some(())).await;
    assert_eq!(world.records_of(1).await.len(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_is_recorded_once() {
    let world = World::start().await;
    world.server.behave(|_| Some(Reply::never()));
    let to = world.app.addresses.inbound;
    let call = Call::tool("directory.search").token(&world.alice());
    let waiting = tokio::spawn(call.start(to));
    eventually("the server has the request", async || (!world.server.seen().is_empty()).then_some(())).await;
    waiting.abort();
    let records = world.records_of(1).await;
    assert_eq!(records[0]["status"], 499);
    assert_eq!(records[0]["reason"], "ClientClosed");
}

#[tokio::test]
async fn a_server_that_is_away_is_a_502_with_a_record() {
    let world = World::with(|policy| policy["servers"][0]["port"] = 1.into()).await;
    let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
    assert_eq!(answer.status, 502);
    let record = world.last_record().await;
    assert_eq!(record["decision"], "Permit");
    assert_eq!(record["reason"], "ServerUnavailable");
    world.stop().await;
}

#[tokio::test]
async fn c4_notifications_and_answers_of_a_legacy_client_pass_authenticated() {
    let world = World::start().await;
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let response = json!({"jsonrpc": "2.0", "id": 4, "result": {"roots": []}});
    for message in [&notification, &response] {
        assert_eq!(world.send(Call::message(message)).await.status, 401);
        assert!(world.server.seen().is_empty());
    }
    assert_eq!(world.send(Call::message(&notification).token(&world.alice())).await.status, 202);
    assert_eq!(world.server.last().json(), notification);
    world.stop().await;
}

/// A server that answers every request with these bytes; says which requests came on which connection.
async fn answering(bytes: String) -> (u16, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let counts = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (counts, bytes) = (Arc::clone(&counts), bytes.clone());
            tokio::spawn(async move {
                let number = {
                    let mut counts = counts.lock().unwrap();
                    counts.push(0);
                    counts.len() - 1
                };
                let mut came = Vec::new();
                while stream.read_buf(&mut came).await.is_ok_and(|n| n > 0) {
                    // The one body of these tests ends with its object.
                    if came.ends_with(b"}}") {
                        came.clear();
                        counts.lock().unwrap()[number] += 1;
                        stream.write_all(bytes.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (port, requests)
}

#[tokio::test]
async fn d16_d17_a_server_whose_answer_has_two_readings_answers_nobody() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    for (answer, status, kept) in [
        (format!("{ok}Content-Length: 2\r\n\r\n{{}}"), 200, true),
        (
            format!(
                "HTTP/1.1 100 Continue\r\n\r\n{ok}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
            ),
            200,
            true,
        ),
        (
            format!("{ok}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            502,
            false,
        ),
        (format!("{ok}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"), 502, false),
        (format!("{ok}Content-Length: 2\r\n\r\n{{}}{ok}Content-Length: 5\r\n\r\nalice"), 502, false),
        (format!("{ok}X: a\r\n b\r\nContent-Length: 2\r\n\r\n{{}}"), 502, false),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}".to_owned(), 502, false),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(), 502, false),
    ] {
        let (port, requests) = answering(answer.clone()).await;
        let world = World::with(|policy| policy["servers"][0]["port"] = port.into()).await;
        let alice = world.alice();
        for _ in 0..2 {
            let got = world.send(Call::tool("directory.search").token(&alice)).await;
            assert_eq!(got.status, status, "{answer:?}");
            assert!(!String::from_utf8_lossy(&got.body).contains("alice"), "{answer:?}");
        }
        let requests = requests.lock().unwrap().clone();
        assert_eq!(requests, if kept { vec![2] } else { vec![1, 1] }, "{answer:?}");
        world.stop().await;
    }
}
