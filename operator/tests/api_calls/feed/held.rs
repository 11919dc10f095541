//! Who is held until there is news, and who is answered at once: the newest bundle, the end, a last word.

use std::sync::Mutex;

use behalf_operator::kube_io::caches::{Caches, Was};
use behalf_operator::live::Live;
use behalf_policy::feed::Answer;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::store::{Writer, store};
use kube::runtime::watcher::Event;

use super::*;

#[tokio::test]
async fn whoever_runs_another_bundle_gets_the_newest_at_once() {
    let world = world().await;
    let served = served(&world).await;
    for running in [None, Some("sha256:0000000000000000000000000000000000000000000000000000000000000000")] {
        let body = report('a', 1, running, 0).to_string();
        let (code, answer) = send(&served.feed, request(FEED_PATH, Some("good"), body)).await;
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let text = serde_json::to_string(&answer.bundle.unwrap()).unwrap();
        assert_eq!((code, world.keys.open(&text).unwrap().1), (StatusCode::OK, world.bundle()));
    }
}

#[tokio::test]
async fn whoever_runs_the_newest_is_held_until_the_time_is_up() {
    let world = world().await;
    let served = served(&world).await;
    let (body, started) = (report('a', 1, Some(&digest(&world)), 0), tokio::time::Instant::now());
    let (code, answer) = send(&served.feed, request(FEED_PATH, Some("good"), body.to_string())).await;
    assert_eq!((code, answer), (StatusCode::OK, json!({"format": 1})));
    assert!(started.elapsed() >= served.feed.hold);
}

#[tokio::test]
async fn a_newer_request_of_the_pod_the_end_and_a_last_word_are_answered_at_once() {
    let world = world().await;
    let mut served = served(&world).await;
    served.feed.hold = 2 * DEADLINE;
    let waiting = |boot| {
        let (feed, body) = (served.feed.clone(), report(boot, 1, Some(&digest(&world)), 0).to_string());
        tokio::spawn(async move { feed.handle(request(FEED_PATH, Some("good"), body)).await })
    };
    let (first, mut second) = (waiting('a'), waiting('a'));
    let ended = tokio::time::timeout(DEADLINE, async {
        tokio::select! { it = first => it, it = &mut second => it }
    });
    assert_eq!(ended.await.unwrap().unwrap().body(), r#"{"format":1}"#);
    let mut last = report('b', 2, None, 9);
    last["ended"] = json!(true);
    let (_, answer) = send(&served.feed, request(FEED_PATH, Some("good"), last.to_string())).await;
    assert_eq!(answer, json!({"format": 1}), "even if it runs no bundle");
    served.stop.cancel();
    let body = report('a', 3, Some(&digest(&world)), 0).to_string();
    assert_eq!(send(&served.feed, request(FEED_PATH, Some("good"), body)).await.1, json!({"format": 1}));
}

/// Copies whose bundle a test replaces by hand.
struct Hand(Mutex<Writer<ConfigMap>>);

impl Hand {
    fn replace(&self, world: &World, board: &Board) {
        let object: ConfigMap = serde_json::from_value(world.server.get(BUNDLE).unwrap()).unwrap();
        self.0.lock().unwrap().apply_watcher_event(&Event::Apply(object.clone()));
        let was = Was { old: None, new: Some(Arc::new(object)) };
        board.tell(&Change::Bundle(was));
    }
}

async fn live(world: &World) -> (Gather, Hand) {
    let (bundles, writer) = store();
    let caches = Caches { bundles, ..world.gather().await.caches().clone() };
    let gather = Gather::new(world.server.client(), caches, Live::fixed(Arc::clone(&world.keys)));
    let hand = Hand(Mutex::new(writer));
    hand.replace(world, &Board::default());
    (gather, hand)
}

#[tokio::test]
async fn a_change_is_answered_while_it_is_waited_for() {
    let world = world().await;
    let gather = live(&world).await;
    let mut served = served_from(&world, gather.0.clone(), Leadership::always());
    served.feed.hold = 2 * DEADLINE;
    let (feed, body) = (served.feed.clone(), report('a', 1, Some(&digest(&world)), 0).to_string());
    let waiting = tokio::spawn(async move { send(&feed, request(FEED_PATH, Some("good"), body)).await });
    let mut catalog = world.server.get(CATALOG).unwrap();
    catalog["spec"]["toolSets"][0]["tools"][0]["name"] = json!("directory.find");
    world.server.put(CATALOG, catalog);
    world.settle().await;
    gather.1.replace(&world, &served.feed.board);
    let (_, answer) = waiting.await.unwrap();
    let answer: Answer = serde_json::from_value(answer).unwrap();
    let text = serde_json::to_string(&answer.bundle.unwrap()).unwrap();
    assert_eq!(world.keys.open(&text).unwrap().1, world.bundle());
}

#[tokio::test]
async fn more_than_may_wait_are_sent_away_but_heard() {
    let world = world().await;
    let mut served = served(&world).await;
    served.feed.held = Held::new(0);
    let answer = ask(&served.feed, Some("good"), &report('a', 1, None, 5)).await;
    assert_eq!(answer, (503, "Busy".into()));
    assert!(matches!(served.changes.recv().await, Some(Change::Learnt { .. })));
}
