//! Where a catalogue may lead: what is written down, and what a name turns out to stand for.
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use behalf_e2e::keycloak::login;
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Pod, Undo, mcp};
use serde_json::{Value, json};
use xtask::command::Run as _;

use super::api::{Api, eventually};
use super::catalog::hurry;
use super::pods::{main, server};
use super::reach::{PYTHON, addresses, bare, command, make, python, ready};
use super::scene::{PLAIN, condition, namespace};

const NAMES: &str = include_str!("scripts/names.py");
const TRAP: &str = include_str!("scripts/trap.py");
/// A name that stands for what the tests want.
const NAME: &str = "trap.e2e.test";
const PORT: &str = "18555";
/// A metadata service's address, as clouds have it.
const METADATA: &str = "169.254.169.254";

/// Origins that lead back into the pod, to its node or to a metadata service, and plain http: the kind's own rules refuse some.
const ORIGINS: &[&str] = &[
    "https://127.0.0.1:8443",
    "https://127.8.9.1",
    "https://localhost:8443",
    "https://payroll.localhost",
    "https://[::1]:8443",
    "https://[::ffff:127.0.0.1]:8443",
    "https://0.0.0.0",
    "https://[::]",
    "https://127.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://169.254.169.254",
    "https://169.254.10.10:8443",
    "https://[fe80::1]:8443",
    "https://[::ffff:169.254.169.254]",
    "https://[fd00:ec2::254]",
    "https://metadata.google.internal",
    "https://metadata",
    "https://100.100.100.200",
    "https://168.63.129.16",
    "http://payroll.payroll.svc.cluster.local:8080",
    "HTTP://payroll.payroll.svc.cluster.local:8080",
    "ftp://payroll.payroll.svc.cluster.local",
];

fn catalogue(api: &Api, origin: &str) -> Value {
    let mut spec = api.get(&["scat", "corp"])["spec"].clone();
    spec["downstreams"][0]["http"]["origin"] = json!(origin);
    json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "ScopeCatalog", "metadata": {"name": "e2e-origin"}, "spec": spec})
}

#[test]
fn an_origin_that_leads_back_or_is_not_https_is_not_accepted() {
    let api = Api::open();
    let _gone =
        Undo::new(|| api.world.kubectl(&["delete", "scat", "e2e-origin", "--ignore-not-found"]).map(drop));
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let judged = |origin: &str| {
        if let Err(said) = api.ask(&apply, &catalogue(&api, origin).to_string()) {
            assert!(said.contains("origin") && said.contains("must be an https URL"), "{origin}: {said}");
            return None;
        }
        Some(eventually(&format!("{origin} is judged"), 60, || {
            condition(&api.get(&["scat", "e2e-origin"]), "Accepted").ok_or_else(|| "not judged".to_owned())
        }))
    };
    let fine = judged("https://payroll.payroll.svc.cluster.local:8443").unwrap();
    assert_eq!(fine.0, "True", "{fine:?}");
    let mut by_schema = Vec::new();
    for origin in ORIGINS {
        let Some((status, reason, message)) = judged(origin) else {
            by_schema.push(*origin);
            continue;
        };
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"), "{origin}: {message}");
        for part in [
            "payroll",
            origin,
            "loopback, link-local or metadata",
            "Set http.origin to an https URL outside the pod",
        ] {
            assert!(message.contains(part), "{origin}: {part}: {message}");
        }
    }
    let plain = |origin: &&&str| !origin.starts_with("https://");
    assert!(ORIGINS.iter().filter(plain).all(|origin| by_schema.contains(origin)), "{by_schema:?}");
    assert!(ORIGINS.len() - by_schema.len() >= 12, "{by_schema:?}");
}

/// A nameserver of the tests in front of the cluster's own, until the guard goes.
fn names(api: &Api) -> Undo<'_> {
    let slice = ["-n", "kube-system", "get", "endpointslice", "kube-dns", "-o", "json"];
    let before: Value = serde_json::from_str(&api.kubectl(&slice)).unwrap();
    let upstream = before["endpoints"][0]["addresses"][0].as_str().unwrap().to_owned();
    let mut pod = bare(server(api), "names");
    main(&mut pod)["command"] = command(NAMES, &[NAME, &upstream]);
    main(&mut pod)["readinessProbe"] =
        json!({"exec": {"command": [PYTHON, "-c", "pass"]}, "timeoutSeconds": 10});
    make(api, &pod);
    ready(api, PLAIN, "names");
    let address = addresses(api, PLAIN, "names").remove(0);
    let patch = |endpoints: &Value, ports: &Value| {
        let patch = json!({"endpoints": endpoints, "ports": ports}).to_string();
        let words = ["-n", "kube-system", "patch", "endpointslice", "kube-dns", "--type=merge", "-p", &patch];
        api.world.kubectl(&words).map(drop)
    };
    let (endpoints, ports) = (before["endpoints"].clone(), before["ports"].clone());
    let undo = Undo::new(move || patch(&endpoints, &ports));
    // Only what is asked over UDP: TCP stays with the cluster's own.
    patch(&json!([{"addresses": [address]}]), &json!([{"name": "dns", "port": 5353, "protocol": "UDP"}]))
        .unwrap();
    undo
}

/// Lets the name stand for these addresses.
fn stands_for(api: &Api, addresses: &[&str]) {
    let write = "import sys; open('/tmp/answers', 'w').write(' '.join(sys.argv[1:]))";
    python(api, PLAIN, "names", "server", write, addresses).unwrap();
}

/// A listener that tells of every connection; it ends with its guard.
struct Trap {
    child: Child,
    lines: Receiver<String>,
}

impl Trap {
    fn set(mut command: std::process::Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut trap = Self { child, lines };
        assert_eq!(trap.next().as_deref(), Some("LISTENS"));
        trap
    }

    fn next(&mut self) -> Option<String> {
        self.lines.recv_timeout(Duration::from_mins(1)).ok()
    }

    /// What it tells up to a connection that is made now by `knock`: only that one, if nobody else came.
    fn heard(&mut self, knock: impl FnOnce()) -> Vec<String> {
        knock();
        let mut heard = Vec::new();
        while let Some(line) = self.next() {
            let last = line.contains("knock");
            heard.push(line);
            if last {
                break;
            }
        }
        heard
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.child.wait().is_err() {
            eprintln!("a trap was lost");
        }
    }
}

const KNOCK: &str = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10); s.sendall(b'knock'); s.recv(10)";

/// The metadata service's address on the node, with a trap behind it.
fn metadata(api: &Api) -> (Trap, Undo<'_>) {
    let ip = move |verb: &str| {
        let mut ip = api.world.cluster.in_netns("ip")?;
        ip.args(["address", verb, &format!("{METADATA}/32"), "dev", "lo"]).run()
    };
    let undo = Undo::new(move || ip("del"));
    ip("add").unwrap();
    let mut pod = bare(server(api), "metadata");
    pod["spec"]["hostNetwork"] = json!(true);
    main(&mut pod)["command"] = command(super::reach::WAIT, &[]);
    for field in ["ports", "readinessProbe"] {
        main(&mut pod).as_object_mut().unwrap().remove(field);
    }
    make(api, &pod);
    ready(api, PLAIN, "metadata");
    let exec = ["-n", PLAIN, "exec", "-i", "metadata", "-c", "server", "--", PYTHON, "-u", "-c", TRAP, PORT];
    (Trap::set(api.world.cluster.kubectl(&exec)), undo)
}

/// A call that leads to the downstream; gives the reason in the record of its way out.
fn leads(api: &Api, pod: &Pod<'_>) -> Result<String, String> {
    let alice = login(api.world, "agent-test", "alice", ALL_SCOPES).map_err(|error| error.to_string())?;
    let answer = mcp::salary(&alice.text, "bob").send(api.world).map_err(|error| error.to_string())?;
    let records = pod.records_of(&answer).map_err(|error| format!("{error:#}"))?;
    let [_, outbound] = &records[..] else { return Err(format!("{records:?}")) };
    assert_eq!(outbound["direction"], "Outbound");
    Ok(outbound["reason"].as_str().unwrap_or("none").to_owned())
}

#[test]
fn d9_a_name_that_turns_out_to_lead_back_is_refused_at_connect() {
    let api = Api::open();
    let _plain = namespace(&api, PLAIN, None);
    let _names = names(&api);
    let pod = api.world.pod().unwrap();
    let own = addresses(&api, "hr", &pod.name);
    let payroll = api.world.address("payroll.payroll").unwrap();
    let exec = ["-n", "hr", "exec", "-i", &pod.name, "-c", "server", "--", PYTHON, "-u", "-c", TRAP, PORT];
    let mut inside = Trap::set(api.world.cluster.kubectl(&exec));
    let (mut node, _metadata) = metadata(&api);

    // Where the name leads to something allowed, it is tried: what is refused below is refused for its address.
    stands_for(&api, &[&payroll]);
    let before = api.get(&["scat", "corp"])["spec"]["downstreams"].clone();
    let mut after = before.clone();
    after[0]["http"]["origin"] = json!(format!("https://{NAME}:{PORT}"));
    let set = |rows: &Value| api.world.patch("default", "scat/corp", &json!({"spec": {"downstreams": rows}}));
    let back = Undo::new(|| set(&before));
    set(&after).unwrap();
    let until = |wanted: &str| {
        eventually(&format!("a call leads to {wanted}"), FOLLOWED.as_secs(), || {
            hurry(&api);
            match leads(&api, &pod)? {
                reason if reason == wanted => Ok(()),
                other => Err(other),
            }
        });
    };
    until("DownstreamUnreachable");

    let embedded: Vec<String> =
        own.iter().filter(|ip| !ip.contains(':')).map(|ip| format!("::ffff:{ip}")).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let rows: Vec<Vec<&str>> = vec![
        vec!["127.0.0.1"],
        vec!["127.8.9.1"],
        vec!["::1"],
        vec!["::ffff:127.0.0.1"],
        vec!["0.0.0.0"],
        vec![METADATA],
        vec!["::ffff:169.254.169.254"],
        vec!["fe80::1"],
        vec![own[0]],
        own.clone(),
        embedded.iter().map(String::as_str).collect(),
        vec!["127.0.0.1", "::1", METADATA],
    ];
    for row in rows {
        stands_for(&api, &row);
        assert_eq!(leads(&api, &pod), Ok("AddressRefused".to_owned()), "{row:?}");
        // It may change its mind as often as it likes.
        stands_for(&api, &[&payroll]);
        assert_eq!(leads(&api, &pod), Ok("DownstreamUnreachable".to_owned()), "after {row:?}");
    }

    // The traps work, and nobody else has been there.
    let heard = inside.heard(|| drop(pod.python(KNOCK, &["127.0.0.1", PORT]).unwrap()));
    assert_eq!(heard.len(), 2, "somebody came into the trap in the pod: {heard:?}");
    let heard =
        node.heard(|| drop(python(&api, PLAIN, "names", "server", KNOCK, &[METADATA, PORT]).unwrap()));
    assert_eq!(heard.len(), 2, "somebody came into the trap at {METADATA}: {heard:?}");
    back.now().unwrap();
    eventually("calls lead to payroll again", FOLLOWED.as_secs(), || {
        hurry(&api);
        let alice = login(api.world, "agent-test", "alice", ALL_SCOPES).unwrap();
        let answer = mcp::salary(&alice.text, "bob").send(api.world).map_err(|error| error.to_string())?;
        if answer.saw().is_some() { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}
