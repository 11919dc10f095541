//! `tools/list` shows a caller what it may call, or may call after a step-up.

use serde_json::Value;

use crate::support::server::tools_result;
use crate::support::{Call, Reply, World, eventually};
use http_body_util::BodyExt as _;

fn names(result: &Value) -> Vec<String> {
    let tools = result["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn c15_a_list_in_json_is_filtered_for_its_caller() {
    let world = World::start().await;
    let answer = world.send(Call::list().token(&world.alice())).await;
    assert_eq!(names(&answer.json()), ["directory.search", "leave.list", "salary.get", "secret.get"]);
    assert_eq!(answer.json()["result"]["nextCursor"], "more");

    let answer = world.send(Call::list().token(&world.bob()).header("accept-encoding", "gzip")).await;
    assert_eq!(names(&answer.json()), ["directory.search", "leave.list"]);
    assert_eq!(world.server.last().header("accept-encoding"), None);

    let carol = world.token(|c| c["groups"] = serde_json::json!([]));
    assert!(names(&world.send(Call::list().token(&carol)).await.json()).is_empty());

    // A manager without the scope yet sees what a step-up would give, unless it is hidden.
    let before = world.token(|c| c["scope"] = "hr:read hr:leave:read".into());
    let answer = world.send(Call::list().token(&before)).await;
    assert_eq!(names(&answer.json()), ["directory.search", "leave.list", "salary.get"]);
    world.stop().await;
}

#[tokio::test]
async fn c15_a_modern_list_is_one_callers_only() {
    let world = World::start().await;
    let call = Call::modern("tools/list", serde_json::json!({})).token(&world.bob());
    let answer = world.send(call).await;
    assert_eq!(names(&answer.json()), ["directory.search", "leave.list"]);
    assert_eq!(answer.json()["result"]["cacheScope"], "private");
    world.stop().await;
}

#[tokio::test]
async fn c15_c5_a_list_in_an_event_stream_is_filtered_and_its_keep_alives_pass_at_once() {
    let world = World::start().await;
    let (answer, events) = world.open(Call::list().token(&world.bob())).await;
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let mut body = answer.into_body();
    events.unbounded_send(": keep-alive\n\n").unwrap();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, ": keep-alive\n\n");
    let list = format!("id: 1\ndata: {}\n\n", tools_result(&1.into()));
    events.unbounded_send(Box::leak(list.into_boxed_str())).unwrap();
    drop(events);
    let rest = body.collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&rest).unwrap();
    let data = text.lines().find_map(|l| l.strip_prefix("data: ")).unwrap();
    assert_eq!(names(&serde_json::from_str(data).unwrap()), ["directory.search", "leave.list"]);
    assert!(text.starts_with("id: 1\n"));
    eventually("the record", async || (!world.records_of(1).await.is_empty()).then_some(())).await;
}

#[tokio::test]
async fn c15_a_list_that_cannot_be_read_is_not_passed_on() {
    type Answers = Box<dyn Fn() -> Reply + Send>;
    let world = World::start().await;
    let list = tools_result(&1.into()).to_string();
    let replies: [(&str, Answers); 5] = [
        ("ListShape", Box::new(|| Reply::new(200, "text/plain", "salary.get"))),
        ("ListNotJson", Box::new(|| Reply::new(200, "application/json", "salary.get"))),
        (
            "ListBatch",
            Box::new({
                let list = list.clone();
                move || Reply::new(200, "application/json", format!("[{list}]"))
            }),
        ),
        (
            "ListNotJson",
            Box::new({
                let list = list.clone();
                move || Reply::new(200, "application/json", list.clone()).header("content-encoding", "gzip")
            }),
        ),
        (
            "ListShape",
            Box::new(|| {
                Reply::new(
                    200,
                    "application/json",
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":\"salary.get\"}}",
                )
            }),
        ),
    ];
    for (reason, reply) in replies {
        world.server.behave(move |_| Some(reply()));
        let answer = world.send(Call::list().token(&world.bob())).await;
        assert_eq!(answer.status, 502, "{reason}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("salary"));
        assert_eq!(answer.json()["id"], 1);
        assert_eq!(world.last_record().await["reason"], reason);
    }
    world.stop().await;
}

#[tokio::test]
async fn c18_a_resumed_stream_replays_no_unfiltered_list() {
    let world = World::start().await;
    world.server.behave(|seen| {
        if seen.method == http::Method::GET {
            let event = format!("id: 2\ndata: {}\n\n", tools_result(&1.into()));
            return Some(Reply::new(200, "text/event-stream", event));
        }
        let opened = Reply::json(&serde_json::json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
        Some(opened.header("mcp-session-id", "s-1"))
    });
    world.send(Call::initialize().token(&world.bob())).await;
    let call =
        Call::get("/mcp").token(&world.bob()).header("mcp-session-id", "s-1").header("last-event-id", "1");
    let answer = world.send(call).await;
    assert_eq!(world.server.last().header("last-event-id"), Some("1"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("directory.search") && !text.contains("salary.get"), "{text}");
    world.stop().await;
}
