//! Kubelet's probes and hooks: moved to the sidecar, which performs exactly the declared one over loopback.
use std::io::Read as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::api::Api;
use super::pods::{Change, main, push, server};
use super::reach::{LISTEN, PYTHON, command, listening, make, python, ready, says};
use super::scene::{ENROLLED, as_editor, enrolled, injecting};

const GRPC: &str = include_str!("scripts/grpc.py");
const POD: (&str, &str) = (ENROLLED, "server");

/// A pod with every kind of probe, and hooks over http.
fn probed(api: &Api) -> Value {
    let mut pod = listening(api, "8000", "");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let image = main(&mut pod)["image"].clone();
    let own = main(&mut pod);
    own["startupProbe"] = json!({
        "httpGet": {"path": "/start?a=b", "port": "mcp", "httpHeaders": [{"name": "X-Probe", "value": "$(HOME) yes"}]}, "periodSeconds": 1,
        "failureThreshold": 60,
    });
    own["readinessProbe"] =
        json!({"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1});
    own["livenessProbe"] = json!({"tcpSocket": {"port": "mcp"}, "periodSeconds": 1});
    own["lifecycle"] = json!({
        "postStart": {"httpGet": {"path": "/hello", "port": 8010}}, "preStop": {"httpGet": {"path": "/bye", "port": "mcp"}},
    });
    push(
        &mut pod["spec"]["containers"],
        json!({
            "name": "second", "image": image, "imagePullPolicy": "IfNotPresent", "command": command(GRPC, &["8003"]),
            "ports": [{"containerPort": 8003}],
            "startupProbe": {"exec": {"command": [PYTHON, "-c", "open('/tmp/asked', 'a').close()"]}, "timeoutSeconds": 10},
            "readinessProbe": {"grpc": {"port": 8003, "service": "e2e"}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5},
            "livenessProbe": {"grpc": {"port": 8003}, "timeoutSeconds": 5, "failureThreshold": 10, "initialDelaySeconds": 1, "periodSeconds": 1},
        }),
    );
    push(
        &mut pod["spec"]["initContainers"],
        json!({
            "name": "early", "image": image, "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always",
            "command": command(LISTEN, &["8010", ""]),
            "startupProbe": {"httpGet": {"path": "/up", "port": 8010}, "periodSeconds": 1, "failureThreshold": 60},
        }),
    );
    pod
}

fn is_ready(api: &Api, wanted: &str) {
    let what = format!("--for=condition=Ready={wanted}");
    api.kubectl(&["-n", ENROLLED, "wait", "pod/server", &what, "--timeout=60s"]);
}

#[test]
fn probes_of_every_kind_and_hooks_work_through_the_probe_port() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    make(&api, &probed(&api));
    ready(&api, POD.0, POD.1);
    let spec = api.get(&["pod", "-n", ENROLLED, "server"])["spec"].clone();
    for (container, probe) in
        [(0, "startupProbe"), (0, "readinessProbe"), (0, "livenessProbe"), (1, "readinessProbe")]
    {
        let probe = &spec["containers"][container][probe];
        assert_eq!(probe["httpGet"]["port"], 15_103, "{probe}");
        assert!(probe["tcpSocket"].is_null() && probe["grpc"].is_null(), "{probe}");
    }

    // Exactly what was declared, from loopback.
    let asked = |path: &'static str| {
        move |line: &Value| {
            line["path"] == path && line["peer"].as_str().is_some_and(|peer| peer.contains("127.0.0.1"))
        }
    };
    let start = says(&api, POD, "server", "the startup probe arrives", asked("/start?a=b"));
    let header = |pair: &Value| {
        pair[0].as_str().is_some_and(|name| name.eq_ignore_ascii_case("x-probe")) && pair[1] == "$(HOME) yes"
    };
    assert!(start["headers"].as_array().unwrap().iter().any(header), "{start}");
    assert!(!start.to_string().to_lowercase().contains("behalf"), "{start}");
    says(&api, POD, "server", "the readiness probe arrives", asked("/ready"));
    says(&api, POD, "early", "the startup probe of a native sidecar arrives", asked("/up"));
    says(&api, POD, "early", "the postStart hook is performed", asked("/hello"));
    says(&api, POD, "second", "the gRPC readiness probe arrives", |line| line["grpc"] == "e2e");
    says(&api, POD, "second", "the gRPC liveness probe arrives", |line| line["grpc"] == "");
    let startup = python(&api, ENROLLED, "server", "second", "print(open('/tmp/asked').name)", &[]).unwrap();
    assert_eq!(startup.trim(), "/tmp/asked", "the exec probe ran");

    // And its answer is what counts.
    for container in ["server", "second"] {
        python(&api, ENROLLED, "server", container, "open('/tmp/unready', 'w').close()", &[]).unwrap();
        is_ready(&api, "False");
        python(&api, ENROLLED, "server", container, "import os; os.remove('/tmp/unready')", &[]).unwrap();
        is_ready(&api, "True");
    }
    let restarts = api.get(&["pod", "-n", ENROLLED, "server"])["status"].clone();
    for status in restarts["containerStatuses"].as_array().unwrap() {
        assert_eq!(status["restartCount"], 0, "{status}");
    }

    // The hook before the end: it is in the log of a container that goes.
    let mut follow = api.world.cluster.kubectl(&["-n", ENROLLED, "logs", "-f", "server", "-c", "server"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    as_editor(&api, ENROLLED, &["delete", "pod", "server", "--wait=true", "--timeout=120s"], "").unwrap();
    let mut log = String::new();
    follow.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    follow.wait().unwrap();
    assert!(log.contains("\"path\": \"/bye\""), "the preStop hook was not performed: {log}");
}

/// What cannot be moved is refused, with the change to make.
#[test]
fn probes_that_cannot_be_moved_are_refused() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    let rows: &[(&str, Change, &str)] = &[
        (
            "an http probe of another host",
            |pod| main(pod)["readinessProbe"] = json!({"httpGet": {"port": 8000, "host": "192.0.2.1"}}),
            "remove host",
        ),
        (
            "a tcp probe of another host",
            |pod| main(pod)["livenessProbe"] = json!({"tcpSocket": {"port": 8000, "host": "127.0.0.1"}}),
            "remove host",
        ),
        (
            "a hook at another host",
            |pod| {
                main(pod)["lifecycle"] = json!({"preStop": {"httpGet": {"port": 8000, "host": "192.0.2.1"}}});
            },
            "remove host",
        ),
        (
            "a probe of our port",
            |pod| main(pod)["readinessProbe"] = json!({"tcpSocket": {"port": 15_101}}),
            "ask a port of the container itself",
        ),
        (
            "our own probe, borrowed",
            |pod| main(pod)["readinessProbe"] = json!({"httpGet": {"path": "/readyz", "port": 15_103}}),
            "ask a port of the container itself",
        ),
        (
            "a gRPC probe of our port",
            |pod| main(pod)["readinessProbe"] = json!({"grpc": {"port": 15_104}}),
            "ask a port of the container itself",
        ),
        (
            "a port without a name",
            |pod| main(pod)["readinessProbe"] = json!({"httpGet": {"port": "nowhere"}}),
            "declare it under ports",
        ),
        (
            "a probe moved by hand",
            |pod| {
                main(pod)["readinessProbe"] =
                    json!({"httpGet": {"path": "/probe/server/readiness", "port": 15_103, "scheme": "HTTP"}});
            },
            "ask a port of the container itself",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, change, wanted) in rows {
        let mut pod = server(&api);
        change(&mut pod);
        match api.try_create(&pod) {
            Ok(_) => wrong.push(format!("{name}: let in")),
            Err(said) if !said.contains(wanted) => {
                wrong.push(format!("{name}: wants {wanted:?}, got {said}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
