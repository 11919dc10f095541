//! Open event streams end when their caller would be refused now.

use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::bundle::document;
use crate::support::{Call, World, eventually};

const ACKNOWLEDGED: &str =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\"}\n\n";

fn listen() -> Call {
    Call::modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}))
}

/// An open stream, of which one event has arrived.
struct Open {
    body: Incoming,
    /// Held open by the server.
    events: UnboundedSender<&'static str>,
}

impl Open {
    async fn new(world: &World, call: Call) -> Self {
        let (answer, events) = world.open(call).await;
        assert_eq!(answer.status(), 200);
        let mut open = Self { body: answer.into_body(), events };
        open.passes().await;
        open
    }

    async fn passes(&mut self) {
        self.events.unbounded_send(ACKNOWLEDGED).unwrap();
        let event = self.body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, ACKNOWLEDGED);
    }

    /// All that still comes, once the stream has ended by itself.
    async fn rest(self) -> String {
        let rest = tokio::time::timeout(Duration::from_secs(20), self.body.collect()).await;
        String::from_utf8(rest.expect("the stream ends").unwrap().to_bytes().to_vec()).unwrap()
    }
}

async fn last_reason(world: &World, count: usize) -> Value {
    let records = eventually("the end is recorded", async || {
        let records = world.records_of(count).await;
        (records.len() >= count).then_some(records)
    });
    records.await[count - 1]["reason"].clone()
}

fn said_goodbye(rest: &str) {
    let data = rest.lines().find_map(|line| line.strip_prefix("data: ")).expect("a last message");
    let message: Value = serde_json::from_str(data).unwrap();
    assert_eq!(message["id"], 7);
    assert_eq!(message["result"]["resultType"], "complete");
    assert_eq!(message["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
}

#[tokio::test]
async fn c20_a_subscription_ends_when_the_token_does_with_its_last_message() {
    let world = World::start().await;
    let mut open = Open::new(&world, listen().token(&world.alice())).await;
    world.clock.advance(10);
    open.passes().await;
    world.clock.advance(100_000);
    let events = open.events.clone();
    said_goodbye(&open.rest().await);
    assert_eq!(last_reason(&world, 2).await, "SubjectExpired");
    // The request to the server went with it.
    eventually("the server is left", async || events.is_closed().then_some(())).await;
}

#[tokio::test]
async fn c20_a_stream_of_a_session_ends_when_the_token_does() {
    let world = World::start().await;
    let open = Open::new(&world, Call::get("/mcp").token(&world.alice())).await;
    world.clock.advance(100_000);
    assert_eq!(open.rest().await, "");
    assert_eq!(last_reason(&world, 2).await, "SubjectExpired");
}

#[tokio::test]
async fn c20_a_stream_ends_when_the_identity_is_suspended_or_the_bundle_forbids_it() {
    for (what, reason) in [("state", "Suspended"), ("tools", "ToolUnknown"), ("callers", "ClientNotAllowed")]
    {
        let world = World::start().await;
        let open = Open::new(&world, Call::tool("directory.search").token(&world.alice())).await;
        let mut next = document(2, &world.issuer, world.server.port);
        match what {
            "state" => next["serve"]["state"] = json!("Suspended"),
            "tools" => drop(next["serve"]["servers"][0]["tools"].as_array_mut().unwrap().remove(0)),
            _ => next["serve"]["callers"]["clients"] = json!([]),
        }
        world.publish(&next).await;
        assert_eq!(open.rest().await, "", "{what}");
        assert_eq!(last_reason(&world, 2).await, reason);
    }
}

#[tokio::test]
async fn c20_a_stream_outlives_a_bundle_that_still_permits_it() {
    let world = World::start().await;
    let mut open = Open::new(&world, listen().token(&world.alice())).await;
    let next = document(2, &world.issuer, world.server.port);
    world.publish(&next).await;
    open.passes().await;
    drop(open);
    eventually("the call has ended", async || {
        world.metrics().await.contains("behalf_sidecar_open_requests 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn c20_a_stream_ends_by_the_namespaces_own_deny_list() {
    let world = World::start().await;
    let open = Open::new(&world, listen().token(&world.alice())).await;
    world.deny("_all", Some(b"subject alice"));
    said_goodbye(&open.rest().await);
    assert_eq!(last_reason(&world, 2).await, "DeniedByNamespace");
}

#[tokio::test]
async fn c20_within_an_event_nothing_is_said_any_more() {
    let world = World::start().await;
    let mut open = Open::new(&world, listen().token(&world.alice())).await;
    open.events.unbounded_send("data: {\"half\":").unwrap();
    open.body.frame().await.unwrap().unwrap();
    world.clock.advance(100_000);
    assert_eq!(open.rest().await, "");
}

#[tokio::test]
async fn c30_a_drain_ends_subscriptions_politely_and_leaves_calls_their_time() {
    let world = World::start().await;
    let call = Open::new(&world, Call::tool("directory.search").token(&world.alice())).await;
    let open = Open::new(&world, listen().token(&world.alice())).await;
    let session = Open::new(&world, Call::get("/mcp").token(&world.alice())).await;
    let drained = tokio::spawn(world.app.drain(Duration::from_secs(20)));
    said_goodbye(&open.rest().await);
    assert_eq!(session.rest().await, "");
    call.events.unbounded_send(ACKNOWLEDGED).unwrap();
    drop(call.events);
    let rest = call.body.collect().await.unwrap().to_bytes();
    assert_eq!(rest, ACKNOWLEDGED);
    assert!(drained.await.unwrap(), "all calls ended within the drain");
}

#[tokio::test]
async fn c30_a_stream_is_silent_and_open_only_as_long_as_its_server_says() {
    for (timeout, reason) in [("streamIdle", "StreamIdle"), ("stream", "StreamTooLong")] {
        let world = World::with(|serve| {
            let server = &mut serve["servers"][0];
            server["timeouts"] = json!({"body": 30, "response": 600, "streamIdle": 0, "stream": 0});
            server["timeouts"][timeout] = json!(1);
        })
        .await;
        let open = Open::new(&world, listen().token(&world.alice())).await;
        said_goodbye(&open.rest().await);
        assert_eq!(last_reason(&world, 2).await, reason);
    }
}

#[tokio::test]
async fn c30_a_server_that_does_not_begin_to_answer_is_given_up() {
    let world = World::with(|serve| {
        serve["servers"][0]["timeouts"] = json!({"body": 30, "response": 1, "streamIdle": 0, "stream": 0});
    })
    .await;
    world.server.behave(|_| Some(crate::support::Reply::never()));
    let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
    assert_eq!((answer.status, answer.reason().as_str()), (504, "ServerTimeout"));
    world.stop().await;
}

#[tokio::test]
async fn params_in_headers_pass_untouched_and_decide_nothing() {
    let world = World::start().await;
    let call = Call::modern("tools/call", json!({"name": "directory.search", "arguments": {"region": "eu"}}));
    let answer = world.send(call.header("mcp-param-region", "us").token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.server.last().header("mcp-param-region"), Some("us"));
    assert_eq!(world.server.last().json()["params"]["arguments"]["region"], "eu");
    world.stop().await;
}
