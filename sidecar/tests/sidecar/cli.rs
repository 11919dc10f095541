//! The program: what it takes, what it prints, how it ends.

use std::process::Stdio;

use http::StatusCode;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::bundle::{IDENTITY, NAMESPACE, Operator, document};
use crate::support::world::directory;
use crate::support::{Alg, Call, Issuer, Server};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_behalf-sidecar"));
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn an_invalid_argument_is_named_and_ends_with_the_usage_code() {
    let key = Operator::new().public().to_argument();
    let good = ["run", "--namespace=hr", "--identity=hr-tools"];
    let key = format!("--bundle-key={key}");
    let bad: [(&[&str], &str); 11] = [
        (&[], "--bundle-key"),
        (&["--bundle-key=k1"], "--bundle-key"),
        (&["--bundle-key=k1=AAAA"], "--bundle-key"),
        (&[&key, "--nameserver=dns.example"], "--nameserver"),
        (&[&key, "--probes={"], "--probes"),
        (&[&key, "--probes={\"a/b\":{\"type\":\"Exec\"}}"], "--probes"),
        (&[&key, "--egress-address=0.0.0.0:15102"], "--egress-address"),
        (&[&key, "--drain-seconds=9999"], "--drain-seconds"),
        (&[&key, "--record-reserve-bytes=65535"], "--record-reserve-bytes"),
        (&[&key, "--record-otlp-ca=AA==", "--record-otlp-ca-file=/ca.pem"], "--record-otlp-ca"),
        (&[&key, "--unknown"], "--unknown"),
    ];
    for (arguments, named) in bad {
        let output = program().args(good).args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{arguments:?} {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn standard_output_holds_records_only_and_sigterm_ends_with_0() {
    let (issuer, server, operator, dir) =
        (Issuer::start().await, Server::start().await, Operator::new(), directory());
    operator.publish(&dir, &document(1, &issuer, server.port));
    let mut child = program()
        .args(["run", &format!("--namespace={NAMESPACE}"), &format!("--identity={IDENTITY}")])
        .arg(format!("--bundle-key={}", operator.public().to_argument()))
        .arg(format!("--bundle-dir={}", dir.display()))
        .args([
            "--inbound-address=127.0.0.1:0",
            "--egress-address=127.0.0.1:0",
            "--probe-address=127.0.0.1:0",
        ])
        .args(["--metrics-address=[::1]:0", "--allow-loopback-destinations", "--drain-seconds=20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let inbound = loop {
        let line = logs.next_line().await.unwrap().expect("it said where it listens");
        let log: serde_json::Value = serde_json::from_str(&line).unwrap();
        if log["fields"]["message"] == "serving" {
            let addresses = log["fields"]["addresses"].as_str().unwrap();
            let at = addresses.split_once("inbound: ").unwrap().1;
            break at.split_once(',').unwrap().0.parse().unwrap();
        }
    };
    let token = issuer.sign(Alg::EdDsa, &issuer.claims(crate::support::bundle::SERVER));
    let answer = Call::tool("salary.get").token(&token).send(inbound).await;
    assert_eq!(answer.status, StatusCode::OK.as_u16());
    let kill = Command::new("kill").arg(child.id().unwrap().to_string()).status().await.unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let [start, record, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&start["kind"], &start["origin"]), (&"Start".into(), &"Unknown".into()));
    assert_eq!(end["kind"], "End");
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["decision"], "Permit");
}
