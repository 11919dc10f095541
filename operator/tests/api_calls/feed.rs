//! The feed: who is answered, with what and when; and what becomes of what is told.

#[path = "feed/held.rs"]
mod held;
#[path = "feed/reconciled.rs"]
mod reconciled;
#[path = "feed/relayed.rs"]
mod relayed;
#[path = "feed/shared.rs"]
mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use behalf_operator::certs::issue::{Lifetimes, Material};
use behalf_operator::certs::serving::Serving;
use behalf_operator::clock::{Clock, Monotonic};
use behalf_operator::feed::RELAY_PATH;
use behalf_operator::feed::board::Board;
use behalf_operator::feed::caller::Reporter;
use behalf_operator::feed::held::Held;
use behalf_operator::feed::relay::{self, Relay};
use behalf_operator::feed::server::Feed;
use behalf_operator::http_server::{Handler as _, Limits, Server};
use behalf_operator::kube_io::caches::Change;
use behalf_operator::kube_io::gather::Gather;
use behalf_operator::kube_io::lease::{Candidate, Election, Leadership};
use behalf_operator::kube_io::tokens::Tokens;
use behalf_operator::metrics::Metrics;
use behalf_operator::reconcile::queue::Next;
use behalf_operator::reconcile::{self, Context};
use behalf_policy::bundle::{RefuseAllReason, Serve};
use behalf_policy::feed::Report;
use behalf_policy::wire::FEED_PATH;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::server::Call;
use crate::world::{BUNDLE, CATALOG, IDENTITY, World, injected, key, pod, report, writes};

const REVIEWS: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
const POD: &str = "/api/v1/namespaces/hr/pods/hr-1";
const COUNTS: &str = "/api/v1/namespaces/hr/configmaps/behalf-counts-hr-tools";
const CONFIGMAPS: &str = "/api/v1/namespaces/hr/configmaps";
const STATUS: &str = "/apis/behalf.dev/v1alpha1/namespaces/hr/agentidentities/hr-tools/status";
/// No test waits longer.
const DEADLINE: Duration = Duration::from_mins(1);

fn account(namespace: &str, account: &str, pod: &str, uid: &str) -> Value {
    json!({
        "authenticated": true, "audiences": ["behalf.dev/feed"],
        "user": {"username": format!("system:serviceaccount:{namespace}:{account}"), "uid": "u", "groups": [], "extra": {
            "authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]}},
    })
}

/// A world in which the pod hr-1 runs behind Behalf, and its token is `good`.
async fn world() -> World {
    let world = World::new();
    world.server.put(POD, injected("hr-1"));
    world.settle().await;
    let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    world.server.review("good", account("hr", "hr-mcp", "hr-1", &uid));
    world.server.review("operator", account("behalf-system", "behalf-operator", "behalf-operator-0", "u-9"));
    world
}

struct Served {
    feed: Feed,
    changes: mpsc::Receiver<Change>,
    stop: CancellationToken,
}

async fn served(world: &World) -> Served {
    served_from(world, world.gather().await, Leadership::always())
}

fn served_from(world: &World, gather: Gather, leadership: Leadership) -> Served {
    let (sender, changes) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let document = watch::channel(None).1;
    let feed = Feed {
        tokens: Tokens::new(world.server.client()),
        gather,
        desk: Arc::clone(&world.desk),
        board: Arc::new(Board::default()),
        held: Held::new(16),
        leadership: leadership.clone(),
        relay: Arc::new(Relay::new(leadership, document, PathBuf::from("/nowhere"), "behalf-system", 9)),
        changes: Some(sender),
        hold: Duration::from_millis(300),
        namespace: "behalf-system".into(),
        clock: Clock::System,
        metrics: Arc::new(Metrics::default()),
        stop: stop.clone(),
    };
    Served { feed, changes, stop }
}

fn request(path: &str, token: Option<&str>, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut builder = Request::builder().method(Method::POST).uri(path);
    if let Some(token) = token {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder.body(body.into()).unwrap()
}

async fn send(feed: &Feed, request: Request<Bytes>) -> (StatusCode, Value) {
    let response = tokio::time::timeout(DEADLINE, feed.handle(request)).await.unwrap();
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

async fn ask(feed: &Feed, token: Option<&str>, body: &Value) -> (u16, String) {
    let (status, answer) = send(feed, request(FEED_PATH, token, body.to_string())).await;
    (status.as_u16(), answer["reason"].as_str().unwrap_or_default().to_owned())
}

fn digest(world: &World) -> String {
    world.server.get(IDENTITY).unwrap()["status"]["bundle"]["digest"].as_str().unwrap().to_owned()
}

fn status(world: &World) -> Value {
    world.server.get(IDENTITY).unwrap()["status"].clone()
}

#[tokio::test]
async fn only_the_pods_own_token_for_the_feed_is_taken() {
    let world = world().await;
    let good =
        account("hr", "hr-mcp", "hr-1", world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap());
    let with = |change: fn(&mut Value)| {
        let mut status = good.clone();
        change(&mut status);
        status
    };
    for (token, status) in [
        ("not authenticated", with(|it| it["authenticated"] = json!(false))),
        ("nothing said", with(|it| it["authenticated"] = json!(null))),
        ("an error", with(|it| it["error"] = json!("expired"))),
        ("other audience", with(|it| it["audiences"] = json!(["https://kubernetes.default.svc"]))),
        ("no audience", with(|it| it["audiences"] = json!(null))),
        ("a person", with(|it| it["user"]["username"] = json!("alice"))),
        ("a node", with(|it| it["user"]["username"] = json!("system:node:n1"))),
        ("no namespace", with(|it| it["user"]["username"] = json!("system:serviceaccount:hr-mcp"))),
        ("not bound", with(|it| it["user"]["extra"] = json!({}))),
        (
            "two pods",
            with(|it| it["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!(["a", "b"])),
        ),
        (
            "wrong uid",
            with(|it| it["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!(["other"])),
        ),
        (
            "no such pod",
            with(|it| it["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!(["hr-9"])),
        ),
        ("other namespace", with(|it| it["user"]["username"] = json!("system:serviceaccount:it:hr-mcp"))),
        ("other account", with(|it| it["user"]["username"] = json!("system:serviceaccount:hr:default"))),
    ] {
        world.server.review(token, status);
    }
    let served = served(&world).await;
    let body = report('a', 1, None, 0);
    for (token, code, reason) in [
        (None, 401, "TokenMissing"),
        (Some(""), 401, "TokenMissing"),
        (Some("unknown"), 401, "TokenNotAuthenticated"),
        (Some("not authenticated"), 401, "TokenNotAuthenticated"),
        (Some("nothing said"), 401, "TokenNotAuthenticated"),
        (Some("an error"), 401, "TokenNotAuthenticated"),
        (Some("other audience"), 401, "TokenAudience"),
        (Some("no audience"), 401, "TokenAudience"),
        (Some("a person"), 401, "TokenNotServiceAccount"),
        (Some("a node"), 401, "TokenNotServiceAccount"),
        (Some("no namespace"), 401, "TokenNotServiceAccount"),
        (Some("not bound"), 403, "TokenNotBound"),
        (Some("two pods"), 403, "TokenNotBound"),
        (Some("wrong uid"), 403, "PodUnknown"),
        (Some("no such pod"), 403, "PodUnknown"),
        (Some("other namespace"), 403, "PodUnknown"),
        (Some("other account"), 403, "PodAccount"),
        (Some("operator"), 403, "PodUnknown"),
        (Some("good"), 200, ""),
    ] {
        assert_eq!(ask(&served.feed, token, &body).await, (code, reason.to_owned()), "{token:?}");
    }
    let mut twice = request(FEED_PATH, Some("good"), body.to_string());
    twice.headers_mut().append("authorization", "Bearer good".parse().unwrap());
    assert_eq!(send(&served.feed, twice).await.0, StatusCode::UNAUTHORIZED);
    let mut basic = request(FEED_PATH, None, body.to_string());
    basic.headers_mut().append("authorization", "Basic good".parse().unwrap());
    assert_eq!(send(&served.feed, basic).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_pod_that_slipped_in_gets_nothing() {
    let bare = pod("hr-1");
    let with = |change: fn(&mut Value)| {
        let mut pod = injected("hr-1");
        change(&mut pod);
        pod
    };
    let of_another =
        |it: &mut Value| it["spec"]["initContainers"][1]["args"] = json!(["run", "--identity=payroll"]);
    let annotated = |it: &mut Value| it["spec"]["initContainers"] = json!([]);
    for (object, reason) in [
        (bare, "PodNotInjected"),
        (with(annotated), "PodNotInjected"),
        (with(of_another), "PodNotInjected"),
        (with(|it| it["metadata"]["annotations"] = json!({})), "PodNotInjected"),
        // The operator does not even watch it.
        (with(|it| it["metadata"]["labels"] = json!({"app": "hr"})), "PodUnknown"),
        (
            with(|it| it["metadata"]["labels"]["behalf.dev/agent-identity"] = json!("payroll")),
            "PodNotInjected",
        ),
        (with(|it| it["spec"]["serviceAccountName"] = json!("default")), "PodAccount"),
        (with(|it| it["status"]["phase"] = json!("Failed")), "PodEnded"),
    ] {
        let world = world().await;
        world.server.put(POD, object.clone());
        let served = served(&world).await;
        let answer = ask(&served.feed, Some("good"), &report('a', 1, None, 0)).await;
        assert_eq!(answer, (403, reason.to_owned()), "{object}");
    }
}

#[tokio::test]
async fn another_identitys_account_is_refused_though_pod_and_token_agree() {
    let world = world().await;
    let mut pod = injected("hr-1");
    pod["spec"]["serviceAccountName"] = json!("payroll");
    world.server.put(POD, pod);
    let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    world.server.review("other", account("hr", "payroll", "hr-1", &uid));
    let served = served(&world).await;
    assert_eq!(ask(&served.feed, Some("other"), &report('a', 1, None, 0)).await, (403, "PodAccount".into()));
}

#[tokio::test]
async fn what_is_no_report_is_refused_and_changes_nothing() {
    let world = world().await;
    let mut served = served(&world).await;
    let good = report('a', 1, None, 5);
    let with = |change: fn(&mut Value)| {
        let mut report = good.clone();
        change(&mut report);
        report.to_string()
    };
    let large = vec![b' '; behalf_policy::feed::MAX_REPORT_BYTES + 1];
    for (body, code, reason) in [
        (String::new(), 400, "ReportMalformed"),
        ("[]".into(), 400, "ReportMalformed"),
        (with(|it| it["pod"] = json!("hr-2")), 400, "ReportMalformed"),
        (with(|it| it["decisions"]["more"] = json!(1)), 400, "ReportMalformed"),
        (with(|it| it["decisions"]["allowed"] = json!(-1)), 400, "ReportMalformed"),
        (with(|it| it["format"] = json!(2)), 400, "ReportFormat"),
        (with(|it| it["sequence"] = json!(0)), 400, "ReportOutOfBounds"),
        (with(|it| it["boot"] = json!("../../etc")), 400, "ReportOutOfBounds"),
        (with(|it| it["rejected"] = json!("a text of a caller's")), 400, "ReportOutOfBounds"),
        (String::from_utf8(large).unwrap(), 413, "ReportTooLarge"),
    ] {
        let (status, answer) = send(&served.feed, request(FEED_PATH, Some("good"), body.clone())).await;
        assert_eq!((status.as_u16(), &answer["reason"]), (code, &json!(reason)), "{body:.100}");
    }
    assert!(served.changes.try_recv().is_err());
}

#[tokio::test]
async fn other_paths_and_methods_lead_nowhere() {
    let world = world().await;
    let served = served(&world).await;
    for (method, path, code) in [
        (Method::GET, FEED_PATH, 405),
        (Method::PUT, FEED_PATH, 405),
        (Method::GET, RELAY_PATH, 405),
        (Method::POST, "/", 404),
        (Method::POST, "/v1/feed/", 404),
        (Method::GET, "/metrics", 404),
    ] {
        let mut request = request(path, Some("good"), "{}");
        *request.method_mut() = method;
        assert_eq!(send(&served.feed, request).await.0.as_u16(), code, "{path}");
    }
}

#[tokio::test]
async fn a_good_token_is_asked_for_once_and_an_api_server_that_is_away_refuses_nobody_for_good() {
    let world = world().await;
    let served = served(&world).await;
    let reviews = || {
        let calls = world.server.calls();
        calls.iter().filter(|call| call.brief() == REVIEWS).cloned().collect::<Vec<Call>>()
    };
    reviews();
    world.server.fail(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", 500);
    let body = report('a', 1, None, 0);
    assert_eq!(ask(&served.feed, Some("good"), &body).await, (503, "TokenReviewUnavailable".into()));
    assert_eq!(ask(&served.feed, Some("good"), &body).await.0, 200);
    assert_eq!(ask(&served.feed, Some("good"), &body).await.0, 200);
    let asked = reviews();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|call| call.body["spec"]["audiences"] == json!(["behalf.dev/feed"])));
}
