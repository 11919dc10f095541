//! The way out, asked by the server itself: nothing leaves without a live handle of this pod.
use anyhow::{Context as _, Result, ensure};
use behalf_e2e::records::header;
use behalf_e2e::world::LOGGED;
use behalf_e2e::{ALL_SCOPES, Pod, World, keycloak, mcp, payroll, until};
use serde_json::{Value, json};

/// One request to the egress port, from inside the server's container; headers are given as JSON.
const ASK: &str = r#"
import http.client, json, sys
c = http.client.HTTPConnection("127.0.0.1", 15102, timeout=30)
c.request("GET", "/payroll/salaries/bob", headers=json.loads(sys.argv[1]))
a = c.getresponse()
print(json.dumps({"status": a.status, "body": a.read().decode()}))
"#;

fn ask(pod: &Pod<'_>, headers: &Value) -> Result<Value> {
    Ok(serde_json::from_str(&pod.python(ASK, &[&headers.to_string()])?)?)
}

/// The handle with which the server was called, from what it printed.
fn handle_of(request: &Value) -> Option<String> {
    header(request, "authorization")?.strip_prefix("Bearer ").map(str::to_owned)
}

/// It is refused with this reason, recorded once, and neither the provider nor payroll hears of it.
fn nothing_leaves(world: &World, pod: &Pod<'_>, headers: &Value, reason: &str) -> Result<()> {
    let seen = payroll::seen(world)?.len();
    let exchanges = keycloak::exchanges(world)?;
    let before = pod.records()?.len();
    let answer = ask(pod, headers)?;
    assert_eq!(answer["status"], 403, "{answer}");
    let body = answer["body"].as_str().context("body")?;
    assert!(body.contains(&format!("\"{reason}\"")), "{body} for {reason}");
    let records = pod.records()?;
    let new: Vec<_> = records[before..].iter().filter(|r| r["direction"] == "Outbound").collect();
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!((&new[0]["decision"], &new[0]["reason"]), (&json!("Refuse"), &json!(reason)));
    assert_eq!((&new[0]["subject"], &new[0]["exchange"]), (&Value::Null, &Value::Null));
    assert_eq!(keycloak::exchanges(world)?, exchanges, "the provider was asked");
    assert_eq!(payroll::seen(world)?.len(), seen, "payroll was asked");
    Ok(())
}

#[test]
fn without_a_handle_or_with_a_made_up_one_nothing_leaves() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    // A good exchange is in the cache: it is nobody's who has no handle.
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    assert_eq!(mcp::salary(&alice.text, "bob").send(world)?.status, 200);
    nothing_leaves(world, &pod, &json!({}), "NoHandle")?;
    let made_up = "behalf_AAAAAAAAAAAAAAAAAAAAAA";
    nothing_leaves(world, &pod, &json!({"Authorization": format!("Bearer {made_up}")}), "UnknownHandle")?;
    nothing_leaves(world, &pod, &json!({"Behalf-Handle": made_up}), "UnknownHandle")?;
    // A caller's own token is no handle either.
    nothing_leaves(world, &pod, &json!({"Behalf-Handle": alice.text}), "UnknownHandle")
}

#[test]
fn an_ended_handle_buys_nothing() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let mark = keycloak::sha256(&alice.text);
    let call = mcp::salary(&alice.text, "bob").header("X-E2e-Mark", &mark);
    assert_eq!(call.send(world)?.status, 200);
    let requests = pod.requests()?;
    let request = requests.iter().find(|r| header(r, "x-e2e-mark") == Some(&mark)).context("the call")?;
    let handle = handle_of(request).context("the server was called without a handle")?;
    ensure!(handle.starts_with("behalf_"), "no handle");
    nothing_leaves(world, &pod, &json!({"Authorization": format!("Bearer {handle}")}), "UnknownHandle")
}

/// A pod in payroll's place whose answers begin and never end: something comes every second, so that whoever waits for the
/// rest does not give up.
const ENDLESS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: endless, namespace: payroll, labels: {app.kubernetes.io/name: endless}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext:
    {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: endless
    image: @IMAGE@
    imagePullPolicy: IfNotPresent
    command:
    - python3
    - -c
    - |
      import socket, ssl, threading, time
      tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      tls.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
      def answer(plain):
          try:
              connection = tls.wrap_socket(plain, server_side=True)
              connection.recv(65536)
              print("called", flush=True)
              connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
              while True:
                  connection.sendall(b"1\r\n \r\n")
                  time.sleep(1)
          except OSError:
              pass
      listener = socket.create_server(("", 8443))
      while True:
          threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
    ports: [{name: https, containerPort: 8443}, {name: seen, containerPort: 8081}]
    readinessProbe: {tcpSocket: {port: https}, periodSeconds: 1}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
  volumes:
  - {name: tls, secret: {secretName: payroll-tls, defaultMode: 0440}}
"#;

#[test]
fn a_live_handle_of_another_pod_buys_nothing() -> Result<()> {
    let world = World::get()?;
    let _two = world.replicas(2)?;
    let pods = world.pods()?;
    let [first, second] = &pods[..] else { anyhow::bail!("{} pods", pods.len()) };
    // The second pod's call is held open: the payroll it asks, for the first time, does not come to an end.
    let endless = ENDLESS.replace("@IMAGE@", &world.images.payroll.reference());
    world.cluster.apply(&endless)?;
    let _gone = behalf_e2e::Undo::new(|| {
        world
            .kubectl(&["-n", "payroll", "delete", "pod", "endless", "--ignore-not-found", "--wait=true"])
            .map(drop)
    });
    world.kubectl(&["-n", "payroll", "wait", "pod/endless", "--for=condition=Ready", "--timeout=60s"])?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let mark = keycloak::sha256(&alice.text);
    let selector = |name: &str| {
        world.patch(
            "payroll",
            "service/payroll",
            &json!({"spec": {"selector": {"app.kubernetes.io/name": name}}}),
        )
    };
    let (mut held, handle) = {
        let _back = behalf_e2e::Undo::new(|| selector("payroll"));
        selector("endless")?;
        routed(world, "endless")?;
        // The packet rules follow in their own time: what is not there must be gone from the service too.
        until("connections lead to the endless pod", LOGGED, || {
            Ok(payroll::seen(world).is_err().then_some(()))
        })?;
        let held =
            mcp::salary(&alice.text, "bob").header("X-E2e-Mark", &mark).to(&second.address).start(world)?;
        let handle = until("the second pod's server was called", LOGGED, || {
            let log = second.server_log()?;
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.find(|r| header(r, "x-e2e-mark") == Some(&mark)).as_ref().and_then(handle_of))
        })?;
        until("the endless pod was called", LOGGED, || {
            let log = world.kubectl(&["-n", "payroll", "logs", "endless"])?;
            Ok(log.contains("called").then_some(()))
        })?;
        (held, handle)
    };
    routed(world, "payroll")?;
    assert!(held.waits()?, "the call of the second pod is over");
    let before = first.records()?.len();
    let answer = ask(first, &json!({"Authorization": format!("Bearer {handle}")}))?;
    assert!(held.waits()?, "the call of the second pod is over: its handle was not live");
    assert_eq!(answer["status"], 403, "{answer}");
    let records = first.records()?;
    let new: Vec<_> = records[before..].iter().filter(|r| r["direction"] == "Outbound").collect();
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!((&new[0]["reason"], &new[0]["exchange"]), (&json!("UnknownHandle"), &Value::Null));
    held.abandon()
}

/// Waits until the service of payroll leads to the pods of that name.
fn routed(world: &World, name: &str) -> Result<()> {
    let address = |words: &[&str]| world.kubectl(words);
    let pod = [
        "-n",
        "payroll",
        "get",
        "pods",
        "-l",
        &format!("app.kubernetes.io/name={name}"),
        "-o",
        "jsonpath={.items[0].status.podIP}",
    ];
    let pod = address(&pod)?;
    let words = [
        "-n",
        "payroll",
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=payroll",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[*]}",
    ];
    until(&format!("the service leads to {name} alone"), LOGGED, || {
        Ok((address(&words)? == pod).then_some(()))
    })
}

#[test]
fn c26_what_a_caller_sends_under_our_names_does_not_reach_the_server() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let mark = keycloak::sha256(&alice.text);
    let sent = "behalf_BBBBBBBBBBBBBBBBBBBBBB";
    for tool in ["directory.search", "salary.get"] {
        let arguments =
            if tool == "salary.get" { json!({"employee": "bob"}) } else { json!({"query": "bob"}) };
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"behalf.dev/handle": sent}});
        let mut request = mcp::request("tools/call", &params).bearer(&alice.text).header("X-E2e-Mark", &mark);
        for name in ["Behalf-Handle", "behalf_handle", "BEHALF-HANDLE", "Behalf-Subject", "behalf-"] {
            request = request.header(name, sent);
        }
        let answer = request.send(world)?;
        assert_eq!(answer.status, 200, "{tool}: {answer:?}");
    }
    let requests = pod.requests()?;
    let marked: Vec<_> = requests.iter().filter(|r| header(r, "x-e2e-mark") == Some(&mark)).collect();
    assert_eq!(marked.len(), 2);
    for request in &marked {
        assert!(!request.to_string().contains(sent), "{request}");
        assert!(!request.to_string().contains("eyJ"), "the caller's token reached the server");
    }
    assert_eq!(handle_of(marked[0]), None, "directory.search leads nowhere and gets no handle");
    let handle = handle_of(marked[1]).context("salary.get got no handle")?;
    ensure!(handle != sent && handle.starts_with("behalf_"), "the handle is not the sidecar's");
    Ok(())
}
