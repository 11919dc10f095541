//! Records as OTLP logs: every line, as it was written, with its place in the chain.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::record::{Mode, chain_hash};
use behalf_sidecar::app::App;
use behalf_sidecar::audit::Options;
use behalf_sidecar::clock::Clock;
use behalf_sidecar::provider::http::sha256;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{lines, verified};
use crate::support::bundle::{Operator, document};
use crate::support::world::{config, decisions, directory};
use crate::support::{Call, World, eventually, tls};

type Posts = Arc<Mutex<Vec<Value>>>;

/// A collector of OTLP logs that answers with these, then with 200.
async fn collector(answers: Vec<(u16, &'static str)>) -> (String, String, Posts) {
    let (ca, acceptor) = tls::localhost();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1/logs", listener.local_addr().unwrap().port());
    let posts = Posts::default();
    let (log, answers) = (Arc::clone(&posts), Arc::new(Mutex::new(answers.into_iter())));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (acceptor, log, answers) = (acceptor.clone(), Arc::clone(&log), Arc::clone(&answers));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                    async move {
                        assert_eq!(request.uri().path(), "/v1/logs");
                        assert_eq!(request.headers()["content-type"], "application/json");
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let (status, answer) = answers.lock().unwrap().next().unwrap_or((200, "{}"));
                        if status == 200 {
                            log.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                        }
                        let mut response = Response::new(Full::new(Bytes::from(answer)));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(response)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (url, ca, posts)
}

/// The log records that a collector took.
fn logs(posts: &Posts) -> Vec<Value> {
    let posts = posts.lock().unwrap();
    let all = posts.iter().map(|post| &post["resourceLogs"][0]["scopeLogs"][0]["logRecords"]);
    all.flat_map(|logs| logs.as_array().unwrap().clone()).collect()
}

fn body(log: &Value) -> String {
    log["body"]["stringValue"].as_str().unwrap().to_owned()
}

/// The value of an attribute; null when there is none.
fn said(log: &Value, key: &str) -> Value {
    let found =
        log["attributes"].as_array().unwrap().iter().find(|it| it["key"] == format!("behalf.record.{key}"));
    let value = found.map(|it| &it["value"]);
    value.and_then(|it| it.get("stringValue").or(it.get("intValue"))).cloned().unwrap_or_default()
}

async fn exporting(url: &str, ca: &str) -> World {
    let ca_file = directory().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let world = World::configured(|config| {
        config.records.otlp_url = Some(url.to_owned());
        config.records.otlp_ca_file = Some(ca_file);
    })
    .await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    world
}

#[tokio::test]
async fn a_collector_gets_every_line_as_it_was_written_also_after_it_failed() {
    let (url, ca, posts) = collector(vec![(503, ""), (429, "")]).await;
    let world = exporting(&url, &ca).await;
    for _ in 0..5 {
        world
            .send(
                Call::tool("salary.get")
                    .token(&world.alice())
                    .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            )
            .await;
    }
    let records = world.records().await;
    let sent = eventually("the collector has them", async || {
        let sent = logs(&posts);
        (sent.len() >= 6).then_some(sent)
    })
    .await;
    let text: String = sent.iter().map(|log| body(log) + "\n").collect();
    assert_eq!(decisions(&text), records);
    assert_eq!((lines(&text)[0]["kind"].as_str(), sent[0].get("traceId")), (Some("Start"), None));
    assert_eq!(sent[1]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(sent[1]["severityText"], "INFO");
    let resource = posts.lock().unwrap()[0]["resourceLogs"][0]["resource"]["attributes"].clone();
    assert!(
        resource
            .as_array()
            .unwrap()
            .contains(&json!({"key": "behalf.identity", "value": {"stringValue": "hr-tools"}}))
    );
    assert!(world.metrics().await.contains("behalf_sidecar_records_not_exported_total 0"));
    world.stop().await;
}

#[tokio::test]
async fn what_a_collector_has_is_one_whole_chain_that_joins_the_file_by_sequence_and_hash() {
    let (url, ca, posts) = collector(Vec::new()).await;
    let dir = directory();
    let (file, ca_file) = (dir.join("records.jsonl"), dir.join("ca.pem"));
    std::fs::write(&ca_file, ca).unwrap();
    let world = World::configured(|config| {
        config.records = Options {
            mode: Mode::Strict,
            stdout: false,
            file: Some(file.clone()),
            otlp_url: Some(url),
            otlp_ca_file: Some(ca_file),
            ..Options::default()
        };
    })
    .await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    for token in [world.alice(), world.bob()] {
        world.send(Call::tool("salary.get").token(&token)).await;
    }
    // Ends the chain, and then what sends it.
    world.app.drain(Duration::from_secs(20)).await;
    let written = std::fs::read_to_string(&file).unwrap();
    let sent = logs(&posts);
    assert_eq!(sent.iter().map(|log| body(log) + "\n").collect::<String>(), written);
    let kinds: Vec<Value> = sent.iter().map(|log| said(log, "kind")).collect();
    assert_eq!(kinds, [json!("Start"), json!("Intent"), Value::Null, Value::Null, json!("End")]);
    let decided: Vec<Value> = sent.iter().map(|log| said(log, "decision")).collect();
    assert_eq!(decided, [Value::Null, json!("Permit"), json!("Permit"), json!("Refuse"), Value::Null]);
    for (at, (log, line)) in sent.iter().zip(written.lines()).enumerate() {
        assert_eq!(said(log, "sequence"), at.to_string());
        assert_eq!(said(log, "previous"), lines(&written)[at]["previous"]);
        assert_eq!(said(log, "hash"), chain_hash(&sha256(line.as_bytes())));
    }
    // By the attributes alone: each line follows the one before it.
    for (before, after) in sent.iter().zip(&sent[1..]) {
        assert_eq!(said(after, "previous"), said(before, "hash"));
    }
    assert!(verified(&written, &[]).chains[0].ended);
}

#[tokio::test]
async fn a_collector_that_refuses_or_is_not_there_holds_nobody_up_and_is_counted() {
    let partial = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}"#;
    let (url, ca, posts) = collector(vec![(400, ""), (200, partial)]).await;
    // The authorities as an argument, as they are injected.
    let world = World::configured(|config| {
        config.records.otlp_url = Some(url);
        config.records.otlp_ca = Some(STANDARD.encode(&ca));
    })
    .await;
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    let counted = async |n: usize| {
        let line = format!("behalf_sidecar_records_not_exported_total {n}");
        eventually("it is counted", async || world.metrics().await.contains(&line).then_some(())).await;
    };
    let served = async || {
        let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
        assert_eq!(answer.status, 200);
    };
    // The start of the chain, then a record; the next one is taken.
    counted(1).await;
    served().await;
    counted(2).await;
    served().await;
    eventually("it is taken", async || (logs(&posts).len() == 2).then_some(())).await;
    counted(2).await;
    assert_eq!(said(&logs(&posts)[1], "sequence"), "2", "what is missing is seen");
    world.stop().await;

    // Nobody listens there.
    let world = exporting("https://localhost:1/v1/logs", &ca).await;
    let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    world.stop().await;
    for url in ["http://localhost/v1/logs", "https://", "x", "https://u:p@localhost/"] {
        let mut config = config(&Operator::new(), directory());
        config.records.otlp_url = Some(url.to_owned());
        assert!(App::start(config, std::io::sink(), Clock::system()).await.is_err(), "{url}");
    }
    for ca in ["*", "/w==", "-----BEGIN CERTIFICATE-----"] {
        let mut config = config(&Operator::new(), directory());
        config.records.otlp_url = Some("https://localhost/".to_owned());
        config.records.otlp_ca = Some(ca.to_owned());
        assert!(App::start(config, std::io::sink(), Clock::system()).await.is_err(), "{ca}");
    }
}
