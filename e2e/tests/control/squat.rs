//! The sidecar killed while the server waits to take its port.
use std::process::Command;

use serde_json::{Value, json};
use xtask::command::Run as _;

use super::api::{Api, eventually};
use super::pods::{main, server};
use super::reach::{OUTSIDE, addresses, command, make, nonce, outsiders, ready, said, targets};
use super::scene::{ENROLLED, PLAIN, enrolled, injecting, namespace};

const SQUAT: &str = include_str!("scripts/squat.py");

/// A root server that takes the sidecar's port as soon as it is free, as a certain user.
fn squatter(api: &Api, user: &str) -> Value {
    let mut pod = server(api);
    pod["spec"]["securityContext"] = json!({"runAsUser": 0});
    main(&mut pod)["command"] = command(SQUAT, &["15101", user]);
    pod
}

/// The process of the sidecar, as this machine knows it.
fn process(api: &Api) -> Option<String> {
    let pod = api.get(&["pod", "-n", ENROLLED, "server"]);
    let all = pod["status"]["initContainerStatuses"].as_array()?;
    let sidecar = all.iter().find(|status| status["name"] == "behalf-sidecar")?;
    let id = sidecar["containerID"].as_str()?.strip_prefix("containerd://")?.to_owned();
    let socket = api.world.cluster.layout().expect("the local cluster").containerd();
    let tasks =
        Command::new("ctr").arg("-a").arg(socket).args(["-n", "k8s.io", "tasks", "ls"]).text().unwrap();
    let task = tasks.lines().find(|line| line.starts_with(&id) && line.contains("RUNNING"))?;
    task.split_whitespace().nth(1).map(str::to_owned)
}

/// Kills the sidecar, again if kubelet was faster than the server, until the server has its port.
fn taken(api: &Api) {
    eventually("the server has taken the sidecar's port", 120, || {
        let lines = said(api, ENROLLED, "server", "server");
        if lines.iter().any(|line| line["squats"] == 15_101) {
            return Ok(());
        }
        if let Some(process) = process(api) {
            let _ = Command::new("kill").args(["-KILL", &process]).run();
        }
        Err(format!("{lines:?}"))
    });
}

/// What the identity's status says of it, in every condition that is not as it should be.
fn status_says(api: &Api) {
    eventually("the status says PortSquatted", 120, || {
        let object = api.get(&["aid", "-n", ENROLLED, "tools"]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let of = |kind: &str| conditions.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
        let (closed, ready) = (of("BypassClosed"), of("Ready"));
        let squatted = |one: &Value| one["status"] == "False" && one["reason"] == "PortSquatted";
        let named =
            ready["message"].as_str().is_some_and(|said| said.contains("server") && said.contains("15101"));
        if squatted(&closed) && squatted(&ready) && named {
            Ok(())
        } else {
            Err(format!("{closed}\n{ready}"))
        }
    });
}

/// Whether anything that was sent got into the server's hands.
fn harvested(api: &Api, user: &str) -> Vec<Value> {
    let _scene = enrolled(api);
    let _plain = namespace(api, PLAIN, None);
    injecting(api);
    make(api, &squatter(api, user));
    outsiders(api);
    ready(api, ENROLLED, "server");
    taken(api);
    // The pod takes no calls any more: no Service leads to it.
    api.kubectl(&["-n", ENROLLED, "wait", "pod/server", "--for=condition=Ready=False", "--timeout=60s"]);
    let found = addresses(api, ENROLLED, "server");
    let token = nonce("Bearer");
    for who in OUTSIDE {
        who.tries(api, &token, &targets(&found, &[("tcp", 8000), ("tcp", 15_101)]));
    }
    let lines = said(api, ENROLLED, "server", "server");
    status_says(api);
    lines.into_iter().filter(|line| line.to_string().contains(&token)).collect()
}

/// Nothing leaves from our ports by another user than ours: no connection comes about, so nothing is said on it.
#[test]
fn a_root_server_that_squats_the_port_of_a_killed_sidecar_harvests_nothing() {
    let api = Api::open();
    let lines = harvested(&api, "0");
    assert!(lines.is_empty(), "{lines:?}");
}

/// Root may become our user, and in that window it is who answers: the status says so, and the pod is out of its Services.
#[test]
fn a_root_server_that_squats_as_our_user_is_told_of() {
    let api = Api::open();
    let lines = harvested(&api, "15001");
    eprintln!("as user 15001 it got {} of what was sent", lines.len());
}
