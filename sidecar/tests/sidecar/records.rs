//! Records: what stands in them, when they stand there, where they go.

mod otlp;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use behalf_policy::record::{Head, Mode, Source, chain_hash, verify};
use behalf_sidecar::app::App;
use behalf_sidecar::audit::Options;
use behalf_sidecar::clock::Clock;
use behalf_sidecar::provider::http::sha256;
use serde_json::{Value, json};

use crate::support::bundle::{Operator, document};
use crate::support::world::{config, decisions, directory};
use crate::support::{Call, Feed, World, eventually};

/// A sidecar whose records go to a file, in strict mode, and nowhere else.
async fn strict() -> (World, PathBuf) {
    let file = directory().join("records.jsonl");
    let options =
        Options { mode: Mode::Strict, stdout: false, file: Some(file.clone()), ..Options::default() };
    let world = World::configured(|config| config.records = options).await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    (world, file)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verified(text: &str, heads: &[Head]) -> behalf_policy::record::Verdict {
    let sources = [Source { name: "records", bytes: text.as_bytes() }];
    let verdict = verify(&sources, heads, behalf_policy::record::Options::default(), sha256);
    assert_eq!(verdict.findings, []);
    verdict
}

#[tokio::test]
async fn r1_an_intent_is_in_the_file_before_the_server_hears_of_the_call() {
    let (world, file) = strict().await;
    let at_the_server = Arc::new(Mutex::new(Vec::new()));
    let (seen, records) = (Arc::clone(&at_the_server), file.clone());
    world.server.behave(move |_| {
        seen.lock().unwrap().push(std::fs::read_to_string(&records).unwrap());
        None
    });
    for _ in 0..3 {
        let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
        assert_eq!(answer.status, 200);
    }
    let at_the_server = at_the_server.lock().unwrap().clone();
    assert_eq!(at_the_server.len(), 3);
    for text in at_the_server {
        let intent = lines(&text).pop().unwrap();
        assert_eq!((&intent["kind"], &intent["decision"]), (&json!("Intent"), &json!("Permit")), "{intent}");
        assert_eq!((&intent["subject"], &intent["tool"]), (&json!("alice"), &json!("salary.get")));
        assert_eq!(intent["status"], Value::Null);
    }
    world.app.drain(Duration::from_secs(20)).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let kinds: Vec<_> = lines(&text)
        .iter()
        .map(|line| (line["kind"].as_str().unwrap_or("").to_owned(), line["intent"].as_u64()))
        .collect();
    let kinds: Vec<_> = kinds.iter().map(|(kind, intent)| (kind.as_str(), *intent)).collect();
    assert_eq!(
        kinds,
        [
            ("Start", None),
            ("Intent", None),
            ("", Some(1)),
            ("Intent", None),
            ("", Some(3)),
            ("Intent", None),
            ("", Some(5)),
            ("End", None)
        ]
    );
    assert!(verified(&text, &[]).chains[0].ended);
}

#[tokio::test]
async fn r1_an_answer_comes_only_when_its_record_is_in_the_file_and_a_refused_call_has_no_intent() {
    let (world, file) = strict().await;
    let calls = [
        (Call::tool("salary.get").token(&world.alice()), 200),
        (Call::tool("salary.get").token(&world.bob()), 403),
        (Call::tool("salary.get"), 401),
        (Call::body("{"), 400),
        (Call::get("/nothing"), 404),
        (Call::list().token(&world.bob()), 200),
    ];
    for (call, status) in calls {
        let answer = world.send(call).await;
        let text = std::fs::read_to_string(&file).unwrap();
        let of_it: Vec<_> = lines(&text)
            .into_iter()
            .filter(|line| line["requestId"] == answer.header("behalf-request-id").unwrap())
            .collect();
        let last = of_it.last().unwrap();
        assert_eq!((last["status"].as_u64(), answer.status), (Some(status), u16::try_from(status).unwrap()));
        assert_eq!(of_it.len(), if status == 200 { 2 } else { 1 }, "{of_it:?}");
        assert_eq!(last["intent"].is_u64(), status == 200);
    }
    // The server is gone: the intent has its outcome all the same.
    world.server.behave(|_| Some(crate::support::Reply::never()));
    let dropped = Call::tool("salary.get").token(&world.alice()).start(world.app.addresses.inbound);
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    let text = eventually("the outcome of a call whose caller left", async || {
        let text = std::fs::read_to_string(&file).unwrap();
        (lines(&text).last().unwrap()["status"] == 499).then_some(text)
    })
    .await;
    assert!(verified(&text, &[]).chains[0].interrupted.is_empty());
}

#[tokio::test]
async fn a_boot_continues_the_chain_of_the_one_before_it() {
    let dir = directory();
    let file = dir.join("records.jsonl");
    let operator = Operator::new();
    let torn = "{\"schema\":\"behalf.dev/rec";
    for n in 0..3 {
        let mut config = config(&operator, dir.clone());
        config.records = Options { stdout: false, file: Some(file.clone()), ..Options::default() };
        let app = App::start(config, std::io::sink(), Clock::system()).await.unwrap();
        let refused = Call::tool("salary.get").send(app.addresses.inbound).await;
        assert_eq!(refused.status, 503, "no bundle");
        app.drain(Duration::from_secs(20)).await;
        if n == 1 {
            // A process that was killed in the middle of a line.
            std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + torn).unwrap();
        }
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let boots: Vec<_> = lines(&text).into_iter().filter(|line| line["kind"] == "Start").collect();
    let verdict = verified(&text, &[]);
    assert_eq!(verdict.chains.len(), 3);
    assert_eq!(verdict.chains.iter().filter(|chain| chain.attested).count(), 2);
    assert_eq!(boots[0]["origin"], "Unknown");
    for (before, boot) in boots.iter().zip(&boots[1..]) {
        assert_eq!((&boot["origin"], &boot["previousBoot"]), (&json!("Continued"), &before["boot"]));
        assert_eq!(boot["previousSequence"], 2, "a start, a refusal, an end");
    }
    assert_eq!((&boots[1]["tornBytes"], &boots[2]["tornBytes"]), (&Value::Null, &json!(torn.len())));
}

#[tokio::test]
async fn records_need_a_place_to_go_to() {
    let (dir, operator) = (directory(), Operator::new());
    std::fs::write(dir.join("file"), "").unwrap();
    let held = std::fs::File::options().append(true).open(dir.join("file")).unwrap();
    held.try_lock().unwrap();
    for file in [None, Some(dir.join("no/such/file")), Some(dir.clone()), Some(dir.join("file"))] {
        let mut config = config(&operator, dir.clone());
        config.records = Options { stdout: false, file, ..Options::default() };
        assert!(App::start(config, std::io::sink(), Clock::system()).await.is_err());
    }
}

#[tokio::test]
async fn nothing_that_a_caller_or_its_token_says_forges_a_line() {
    let forged = "x\n{\"schema\":\"behalf.dev/record/v1\",\"sequence\":1}\r\u{2028}\u{2029}\u{85}\u{1b}[2J\u{202e}\u{0}";
    let (world, file) = strict().await;
    let call = |tool: &str| {
        Call::message(
            &json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}}),
        )
    };
    for text in [forged, &forged.repeat(200), "\u{fffd}", "🦀"] {
        let token = world.token(|claims| claims["jti"] = text.into());
        world.send(call(text).token(&token)).await;
        let named = world.token(|claims| claims["sub"] = text.into());
        world.send(Call::tool("salary.get").token(&named)).await;
        let method = json!({"jsonrpc": "2.0", "id": text, "method": text, "params": {}});
        world.send(Call::message(&method).token(&token)).await;
    }
    // Lone surrogates are no text.
    let lone = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\ud800","arguments":{}}}"#;
    assert_eq!(world.send(Call::body(lone).token(&world.alice())).await.status, 400);
    world.app.drain(Duration::from_secs(20)).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)));
    assert!(text.lines().all(|line| line.len() < 4096), "a line is bounded");
    assert_eq!(decisions(&text).len(), 13);
    verified(&text, &[]);
}

#[tokio::test]
async fn b9_the_whole_chain_of_actors_and_what_the_call_needs_are_recorded() {
    let world = World::with(|policy| policy["callers"]["maxActorDepth"] = 2.into()).await;
    let token = world.token(|claims| {
        claims["act"] = json!({"sub": "agent-1", "client_id": "agent-ui", "act": {"sub": "agent-0"}});
    });
    world.send(Call::tool("salary.get").token(&token)).await;
    let record = world.last_record().await;
    assert_eq!(
        record["actors"],
        json!([{"subject": "agent-1", "client": "agent-ui"}, {"subject": "agent-0"}]),
        "{record}"
    );
    assert_eq!(record["scopesRequired"], json!(["hr:read", "hr:salary:read"]));
    world.send(Call::tool("rogue.tool").token(&world.alice())).await;
    assert_eq!(world.last_record().await["scopesRequired"], Value::Null, "nobody knows what it needs");
    world.stop().await;
}

#[tokio::test]
async fn the_salt_of_the_installation_joins_the_records_of_all_its_pods() {
    let hash_of = async |salt: Option<&str>| {
        let world = World::without_bundle().await;
        let mut document = document(1, &world.issuer, world.server.port);
        if let Some(salt) = salt {
            document["recordSalt"] = salt.into();
        }
        world.publish(&document).await;
        world.send(Call::tool("salary.get").token(&world.alice())).await;
        let hash = world.last_record().await["tokenIdHash"].as_str().unwrap().to_owned();
        world.stop().await;
        hash
    };
    let salted = hash_of(Some("one")).await;
    assert_eq!(salted, hash_of(Some("one")).await);
    assert_ne!(salted, hash_of(Some("two")).await);
    assert_ne!(hash_of(None).await, hash_of(None).await, "a salt of the boot");
}

#[tokio::test]
async fn the_operator_is_told_how_far_the_records_go() {
    let feed = Feed::start().await;
    let file = directory().join("records.jsonl");
    let options = Options { stdout: false, file: Some(file.clone()), ..Options::default() };
    let world = World::configured(|config| config.records = options).await;
    world.give_feed_token("feed-token-1");
    world.publish(&feed.document(1, &world)).await;
    world.send(Call::tool("salary.get").token(&world.bob())).await;
    world.app.drain(Duration::from_secs(20)).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let last = text.lines().last().unwrap();
    let report = feed.last().unwrap();
    let told = report.records.unwrap();
    assert_eq!((told.sequence, told.head.as_str()), (2, chain_hash(&sha256(last.as_bytes())).as_str()));
    let head = Head { boot: report.boot, sequence: told.sequence, hash: told.head };
    assert!(verified(&text, &[head]).chains[0].attested);
}
