//! Strict mode on a full disk, step by step: calls are refused, each refusal is recorded in the reserve before it is
//! answered, and without room there either nobody gets an answer.
//!
//! Needs root, for a disk of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use behalf_policy::record::{Mode, Source, verify};
use behalf_sidecar::audit::Options;
use behalf_sidecar::provider::http::sha256;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::support::bundle::document;
use crate::support::disk::Disk;
use crate::support::world::{decisions, directory};
use crate::support::{Call, World, eventually};

fn recorded(file: &Path, mode: Mode) -> Options {
    Options {
        mode,
        stdout: false,
        file: Some(file.to_owned()),
        reserve_bytes: 64 * 1024,
        ..Options::default()
    }
}

async fn on_a_disk(mode: Mode) -> (World, Disk, PathBuf) {
    let disk = Disk::new(directory().join("disk"));
    let file = disk.0.join("records.jsonl");
    let world = World::configured(|config| config.records = recorded(&file, mode)).await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    (world, disk, file)
}

/// Lines of the file as they stand there now.
fn written(file: &Path) -> Vec<Value> {
    decisions(&std::fs::read_to_string(file).unwrap())
}

/// Calls until one is refused, because the blocks that were asked for ahead are used up.
async fn until_refused(world: &World) {
    for _ in 0..1000 {
        let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
        if answer.status == 503 {
            assert_eq!(answer.reason(), "RecordsUnavailable");
            return;
        }
        assert_eq!(answer.status, 200);
    }
    panic!("a full disk refuses");
}

async fn served_again(world: &World) {
    eventually("it serves again", async || {
        let call = Call::tool("salary.get").token(&world.alice());
        (call.try_send(world.app.addresses.inbound).await?.status == 200).then_some(())
    })
    .await;
}

async fn metric(world: &World, name: &str) -> u64 {
    let text = world.metrics().await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("behalf_sidecar_{name} ")));
    line.unwrap().parse().unwrap()
}

async fn ends_and_verifies(world: World, file: &Path) -> Vec<Value> {
    assert!(world.app.drain(Duration::from_secs(20)).await);
    let bytes = std::fs::read(file).unwrap();
    let verdict = verify(
        &[Source { name: "records", bytes: &bytes }],
        &[],
        behalf_policy::record::Options::default(),
        sha256,
    );
    assert_eq!((verdict.findings, verdict.others), (Vec::new(), 0));
    assert!(verdict.chains.iter().any(|chain| chain.ended));
    written(file)
}

#[tokio::test]
async fn r1_no_answer_is_without_a_record_also_when_the_reserve_is_used_up() {
    let (world, disk, file) = on_a_disk(Mode::Strict).await;
    let inbound = world.app.addresses.inbound;
    served_again(&world).await;
    let whole = metric(&world, "records_reserve_bytes").await;
    assert!(whole >= 64 * 1024, "{whole}");
    disk.fill();
    until_refused(&world).await;
    assert_eq!(metric(&world, "records_failing").await, 1);

    // Whatever is asked: each answer is in the file when it comes, and says what came.
    let calls = |world: &World| {
        [
            Call::tool("salary.get").token(&world.alice()),
            Call::tool("salary.get"),
            Call::body("{"),
            Call::get("/nothing"),
            Call::get("/.well-known/oauth-protected-resource/mcp"),
        ]
    };
    let mut answers = 0;
    let unanswered = 'used_up: loop {
        for call in calls(&world) {
            let Some(answer) = call.clone().try_send(inbound).await else { break 'used_up call };
            answers += 1;
            assert_eq!(answer.status, 503);
            let id = answer.header("behalf-request-id").unwrap();
            let records = written(&file);
            let of_it: Vec<_> = records.iter().filter(|record| record["requestId"] == id).collect();
            assert_eq!(of_it.len(), 1, "{id}");
            assert_eq!(
                (&of_it[0]["status"], &of_it[0]["reason"]),
                (&503.into(), &"RecordsUnavailable".into())
            );
        }
        assert!(answers < 1000, "a reserve ends");
    };
    assert!(answers > 100, "only {answers} refusals found room in 64 KiB");

    // Neither over HTTP/1.1 nor over HTTP/2.
    assert!(unanswered.try_send(inbound).await.is_none());
    let h2: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::get(format!("http://{inbound}/nothing")).body(Full::default()).unwrap();
    assert!(h2.request(request).await.is_err());
    assert!(metric(&world, "records_unanswered_total").await >= 3);
    assert!(metric(&world, "records_reserve_bytes").await < 1000);

    disk.free();
    served_again(&world).await;
    assert!(metric(&world, "records_reserve_bytes").await >= 64 * 1024, "it is held again first");
    assert_eq!(metric(&world, "records_failing").await, 0);
    let records = ends_and_verifies(world, &file).await;
    // Of those that got no answer there is one each, kept in memory meanwhile.
    assert!(records.iter().filter(|record| record["status"] == 444).count() >= 3);
}

#[tokio::test]
async fn r1_a_new_process_finds_what_is_left_of_the_reserve_on_a_full_disk() {
    let (mut world, disk, file) = on_a_disk(Mode::Strict).await;
    served_again(&world).await;
    disk.fill();
    until_refused(&world).await;
    let left = metric(&world, "records_reserve_bytes").await;
    assert!(left > 16 * 1024);
    // The lock goes with the process; here with the end of its parts, whose last line is in the reserve, too.
    let operator = std::mem::replace(&mut world.operator, crate::support::bundle::Operator::new());
    assert!(world.app.drain(Duration::from_secs(20)).await);
    let mut config = crate::support::world::config(&operator, world.dir.clone());
    config.records = recorded(&file, Mode::Strict);
    let app = behalf_sidecar::app::App::start(config, std::io::sink(), world.clock.clock()).await.unwrap();
    let answer = Call::tool("salary.get").token(&"x".repeat(20)).send(app.addresses.inbound).await;
    assert_eq!((answer.status, answer.reason().as_str()), (503, "RecordsUnavailable"));
    let id = answer.header("behalf-request-id").unwrap();
    assert!(written(&file).iter().any(|record| record["requestId"] == id));
    disk.free();
    assert!(app.drain(Duration::from_secs(20)).await);
    let bytes = std::fs::read(&file).unwrap();
    let sources = [Source { name: "records", bytes: &bytes }];
    let verdict = verify(&sources, &[], behalf_policy::record::Options::default(), sha256);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.chains.len(), 2);
}

#[tokio::test]
async fn in_relaxed_mode_everybody_is_told_and_what_the_reserve_cannot_take_is_kept() {
    let (world, disk, file) = on_a_disk(Mode::Relaxed).await;
    served_again(&world).await;
    disk.fill();
    until_refused(&world).await;
    for _ in 0..400 {
        assert_eq!(Call::get("/nothing").send(world.app.addresses.inbound).await.status, 503);
    }
    assert_eq!(metric(&world, "records_unanswered_total").await, 0);
    disk.free();
    served_again(&world).await;
    let records = ends_and_verifies(world, &file).await;
    assert!(records.iter().filter(|record| record["reason"] == "RecordsUnavailable").count() > 400);
}
