//! Ways past the sidecar: further ports, the time before the server, a false kubelet.
use behalf_e2e::Request;
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::pods::{push, server};
use super::reach::{
    From, LISTEN, OUTSIDE, Target, WAIT, addresses, bare, command, listening, make, nonce, outsiders, python,
    ready, record, said, targets,
};
use super::scene::{ENROLLED, PLAIN, as_editor, enrolled, identity, injecting, namespace, reason};

/// Where callers find the server of the identity `tools`.
const SERVER: &str = "http://tools.e2e-admission.svc.cluster.local:8000";
/// What nobody said is open.
const CLOSED: [(&str, u16); 2] = [("tcp", 9000), ("udp", 9000)];

/// Lets the identity `tools` leave port 9001/TCP open, and waits until pods are made so.
fn leaves_open(api: &Api) {
    let mut object = identity(ENROLLED, "tools", "tools");
    object["spec"]["servers"][0]["interception"] =
        json!({"type": "Redirect", "extraPorts": [{"port": 9001, "protocol": "TCP"}]});
    api.apply(&object);
    reason(api, ENROLLED, "tools", "Accepted", "AcceptedPlainHTTP");
    eventually("the webhook opens the port", 60, || {
        let made = injecting(api);
        let arguments = &made["spec"]["initContainers"][0]["args"];
        if arguments.to_string().contains("--extra-port=tcp/9001") {
            Ok(())
        } else {
            Err(arguments.to_string())
        }
    });
}

/// What a listener told of a text, from wherever it came.
fn heard(api: &Api, namespace: &str, pod: &str, text: &str) -> Vec<Value> {
    let lines = said(api, namespace, pod, "server");
    lines.into_iter().filter(|line| line.to_string().contains(text)).collect()
}

/// Everybody outside tries, all at once, since what is not answered takes its time.
fn nobody_gets_in(api: &Api, server: &[String], twin: &[String]) {
    std::thread::scope(|tries| {
        for who in OUTSIDE {
            tries.spawn(move || gets_not_in(api, who, server, twin));
        }
    });
}

/// A twin without Behalf answers them all, the server's pod only where it says so.
fn gets_not_in(api: &Api, who: From, server: &[String], twin: &[String]) {
    let all: Vec<(&'static str, u16)> = CLOSED.into_iter().chain([("tcp", 9001), ("udp", 9001)]).collect();
    let wanted: Vec<String> = targets(twin, &all).iter().map(Target::to_string).collect();
    eventually(&format!("{who:?} reaches a pod that is not protected"), 60, || {
        let answered = who.tries(api, "control", &targets(twin, &all));
        if wanted.iter().all(|target| answered.contains(target)) {
            Ok(())
        } else {
            Err(format!("{answered:?}"))
        }
    });

    let text = nonce("outside");
    let ours = [("tcp", 15_102), ("udp", 15_101), ("udp", 15_102), ("udp", 9001), ("udp", 8000)];
    let mut tried = targets(server, &CLOSED);
    tried.extend(targets(server, &ours));
    let open = targets(server, &[("tcp", 9001)]);
    tried.extend(open.clone());
    let answered = who.tries(api, &text, &tried);
    let open: Vec<String> = open.iter().map(Target::to_string).collect();
    assert_eq!(answered.into_iter().collect::<Vec<_>>(), open, "{who:?}: only what the identity leaves open");

    // The container listens, as it says itself; what came after the tries stands in its log behind them.
    let inside = nonce("inside");
    let own = ["127.0.0.1".to_owned(), "::1".to_owned()];
    let within = From::Container(ENROLLED, "server", "server").tries(api, &inside, &targets(&own, &CLOSED));
    assert_eq!(within.len(), 4, "the listeners are there: {within:?}");
    eventually("the listeners say what came from inside", 30, || {
        let lines = heard(api, ENROLLED, "server", &inside);
        if lines.len() == 4 { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    let lines = heard(api, ENROLLED, "server", &text);
    assert_eq!(lines.len(), open.len(), "{who:?}: {lines:?}");
    assert!(lines.iter().all(|line| line["tcp"] == 9001), "{who:?}: {lines:?}");
}

/// IPv4 and IPv6, TCP and UDP; an allow-all `NetworkPolicy` opens nothing; nor does a Service that leads to another port.
#[test]
fn a_second_port_is_reached_by_nobody_outside() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _plain = namespace(&api, PLAIN, None);
    leaves_open(&api);
    let pod = listening(&api, "8000", "9000,9001");
    make(&api, &pod);
    make(&api, &bare(pod, "twin"));
    outsiders(&api);
    ready(&api, ENROLLED, "server");
    ready(&api, PLAIN, "twin");
    let (server, twin) = (addresses(&api, ENROLLED, "server"), addresses(&api, PLAIN, "twin"));
    assert!(server.len() == 2 && twin.len() == 2, "IPv4 and IPv6: {server:?} {twin:?}");
    nobody_gets_in(&api, &server, &twin);

    let everything = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "everything", "namespace": ENROLLED},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
    });
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &everything.to_string()).unwrap();
    nobody_gets_in(&api, &server, &twin);

    // A Service leads to whatever port its author names, and there to the rules of the pod.
    let around = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "around", "namespace": ENROLLED},
        "spec": {"selector": {"app": "server"}, "ports": [
            {"name": "closed", "port": 80, "targetPort": 9000}, {"name": "egress", "port": 81, "targetPort": 15_102},
            {"name": "datagrams", "port": 80, "targetPort": 9000, "protocol": "UDP"}, {"name": "open", "port": 82, "targetPort": 9001},
        ]},
    });
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &around.to_string()).unwrap();
    let address = vec![
        api.get(&["service", "-n", ENROLLED, "around"])["spec"]["clusterIP"].as_str().unwrap().to_owned(),
    ];
    let open = targets(&address, &[("tcp", 82)]);
    eventually("the Service leads to the pod", 60, || {
        let answered = OUTSIDE[0].tries(&api, "control", &open);
        if answered.len() == 1 { Ok(()) } else { Err("no answer".to_owned()) }
    });
    let text = nonce("around");
    let answered =
        OUTSIDE[0].tries(&api, &text, &targets(&address, &[("tcp", 80), ("udp", 80), ("tcp", 81)]));
    assert!(answered.is_empty(), "{answered:?}");
    assert!(heard(&api, ENROLLED, "server", &text).is_empty());
}

/// When a container began, or ended.
fn at(status: &Value, state: &str, moment: &str) -> String {
    let found = status["state"][state][moment].as_str().or(status["lastState"][state][moment].as_str());
    found.unwrap_or_else(|| panic!("{status}")).to_owned()
}

/// No connection is older than the rules: the redirect ends before anything else of the pod begins, also what its author
/// puts in front of the server; and a server that listens that early is behind the sidecar too.
#[test]
fn nothing_of_the_pod_listens_before_the_rules_stand() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _plain = namespace(&api, PLAIN, None);
    let mut pod = listening(&api, "8000", "");
    let image = pod["spec"]["containers"][0]["image"].clone();
    push(
        &mut pod["spec"]["initContainers"],
        json!({
            "name": "early", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": command(WAIT, &[LISTEN, "8000", "9000"]),
        }),
    );
    make(&api, &pod);
    outsiders(&api);
    let reached = |container: &str| {
        let script = "import socket; socket.create_connection(('127.0.0.1', 8000), 5).close()";
        python(&api, ENROLLED, "server", container, script, &[])
    };
    eventually("the early container listens", 120, || reached("early"));
    let status = api.get(&["pod", "-n", ENROLLED, "server"])["status"].clone();
    assert!(status["containerStatuses"][0]["state"]["running"].is_null(), "the server is still to come");
    let found = addresses(&api, ENROLLED, "server");
    let tries = OUTSIDE.map(|who| (who, nonce("early")));
    std::thread::scope(|all| {
        for (who, text) in &tries {
            let (api, found) = (&api, &found);
            all.spawn(move || {
                let answered = who.tries(api, text, &targets(found, &CLOSED));
                assert!(answered.is_empty(), "{who:?}: {answered:?}");
            });
        }
    });
    for (_, text) in &tries {
        // Port 8000 is the sidecar's from outside: it answers by itself.
        for address in &found {
            let bracketed = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            let answer = Request::get(&format!("{SERVER}/{text}")).to(&bracketed).send(api.world).unwrap();
            assert!(answer.status == 401 || answer.status == 404, "{answer:?}");
        }
        let lines = said(&api, ENROLLED, "server", "early");
        assert!(!lines.is_empty() && !lines.iter().any(|line| line.to_string().contains(text)), "{lines:?}");
    }
    python(&api, ENROLLED, "server", "early", "open('/tmp/go', 'w').close()", &[]).unwrap();
    ready(&api, ENROLLED, "server");
    let status = api.get(&["pod", "-n", ENROLLED, "server"])["status"].clone();
    let init = status["initContainerStatuses"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["behalf-redirect", "behalf-sidecar", "early"]);
    assert_eq!(init[0]["state"]["terminated"]["exitCode"], 0);
    let moments = [
        at(&init[0], "terminated", "startedAt"),
        at(&init[0], "terminated", "finishedAt"),
        at(&init[1], "running", "startedAt"),
        at(&init[2], "terminated", "startedAt"),
        at(&init[2], "terminated", "finishedAt"),
        at(&status["containerStatuses"][0], "running", "startedAt"),
    ];
    assert!(moments.is_sorted(), "{moments:?}");
}

/// Kubelet's name, address and habits buy nothing.
#[test]
fn a_caller_posing_as_kubelet_is_refused_and_recorded() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    make(&api, &listening(&api, "8000", ""));
    ready(&api, ENROLLED, "server");
    for address in addresses(&api, ENROLLED, "server") {
        let address = if address.contains(':') { format!("[{address}]") } else { address };
        for path in ["/", "/healthz", "/readyz", "/probe/server/readiness"] {
            let text = nonce("kubelet");
            let request = Request::get(&format!("{SERVER}{path}?{text}"))
                .header("User-Agent", "kube-probe/1.34")
                .header("Accept", "*/*")
                .header("Connection", "close");
            let answer = request.to(&address).send(api.world).unwrap();
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
            let record = record(&api, (ENROLLED, "server"), &answer);
            assert_eq!(
                (&record["direction"], &record["subject"]),
                (&json!("Inbound"), &Value::Null),
                "{path}"
            );
            assert_eq!(record["decision"], "Refuse", "{path}: {record}");
            let lines = said(&api, ENROLLED, "server", "server");
            assert!(!lines.iter().any(|line| line.to_string().contains(&text)), "{path}: {lines:?}");
        }
        // A tool call by "kubelet" is told how to become a caller.
        let call = behalf_e2e::mcp::call("salary.get", &json!({"employee": "bob"}));
        let call = call.header("User-Agent", "kube-probe/1.34").at(&format!("{SERVER}/mcp")).to(&address);
        let answer = call.send(api.world).unwrap();
        assert_eq!((answer.status, answer.reason().as_deref()), (401, Some("NoCredentials")), "{answer:?}");
        let record = record(&api, (ENROLLED, "server"), &answer);
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("NoCredentials")));
    }
}

/// What a pod declares, and `Redirect` closes, is said to whoever makes it.
#[test]
fn a_port_that_will_be_closed_is_said_with_the_line_that_opens_it() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    let mut pod = server(&api);
    push(&mut pod["spec"]["containers"][0]["ports"], json!({"name": "metrics", "containerPort": 9090}));
    pod["metadata"]["annotations"] = json!({"prometheus.io/port": "9091"});
    let said = warnings(&api, &pod);
    let parts = [
        "port 9090/TCP",
        "is closed to everything outside the pod",
        "extraPorts: - {port: 9090, protocol: TCP}",
    ];
    for part in parts.into_iter().chain(["port 9091/TCP", "prometheus.io/port", "extraPorts: - {port: 9091"])
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("8000/TCP"), "the server's own port is no matter: {said}");
}

/// What kubectl prints beside its answer.
fn warnings(api: &Api, pod: &Value) -> String {
    api.complaints(&["create", "--dry-run=server", "-f", "-"], &pod.to_string())
}
