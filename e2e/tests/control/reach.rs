//! Pods that run a script, and who tries to reach them: another pod, one in the node's network, the node itself.
use std::collections::BTreeSet;
use std::fmt;

use behalf_e2e::world::LOGGED;
use serde_json::{Value, json};
use xtask::command::Run as _;

use super::api::{Api, eventually};
use super::pods::{main, server};
use super::scene::{PLAIN, as_editor};

/// The Python of the demo's images.
pub const PYTHON: &str = "/opt/venv/bin/python";
/// Listens, and says what reaches it.
pub const LISTEN: &str = include_str!("scripts/listen.py");
/// Waits until it is let go.
pub const WAIT: &str = include_str!("scripts/wait.py");
/// Tries targets.
pub const TRY: &str = include_str!("scripts/try.py");
const TRY_BASH: &str = include_str!("scripts/try.sh");

/// A command of a container: a script with its arguments.
pub fn command(script: &str, arguments: &[&str]) -> Value {
    let words = [PYTHON, "-u", "-c", script].into_iter().chain(arguments.iter().copied());
    json!(words.collect::<Vec<_>>())
}

/// A server's pod, joined to the identity `tools`, that serves http on one list of ports and takes anything on another.
pub fn listening(api: &Api, http: &str, raw: &str) -> Value {
    let mut pod = server(api);
    main(&mut pod)["command"] = command(LISTEN, &[http, raw]);
    pod
}

/// The same pod where nobody knows of Behalf.
pub fn bare(mut pod: Value, name: &str) -> Value {
    pod["metadata"] = json!({"name": name, "namespace": PLAIN, "labels": {"app": name}});
    pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    pod
}

/// A pod that only waits, for others to run commands in.
pub fn waiting(api: &Api, name: &str) -> Value {
    let mut pod = bare(server(api), name);
    main(&mut pod)["command"] = command(WAIT, &[]);
    main(&mut pod).as_object_mut().unwrap().remove("readinessProbe");
    main(&mut pod).as_object_mut().unwrap().remove("ports");
    pod
}

/// Namespace and name of a pod.
pub fn place(pod: &Value) -> (&str, &str) {
    (pod["metadata"]["namespace"].as_str().unwrap(), pod["metadata"]["name"].as_str().unwrap())
}

/// Makes a pod as the namespace's editor; admission may still have to learn what stands in its identity.
pub fn make(api: &Api, pod: &Value) {
    let (namespace, name) = place(pod);
    let text = pod.to_string();
    eventually(&format!("{name} is let in"), 60, || as_editor(api, namespace, &["create", "-f", "-"], &text));
}

/// Waits until pods take calls.
pub fn ready(api: &Api, namespace: &str, name: &str) {
    let wait = ["-n", namespace, "wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=120s"];
    if let Err(said) = api.ask(&wait, "") {
        panic!("{said}\n{}", api.kubectl(&["-n", namespace, "describe", "pod", name]));
    }
}

/// All addresses of a pod, IPv4 first.
pub fn addresses(api: &Api, namespace: &str, name: &str) -> Vec<String> {
    let found = eventually("the pod has its addresses", 60, || {
        let pod = api.get(&["pod", "-n", namespace, name]);
        let all = pod["status"]["podIPs"].as_array().cloned().unwrap_or_default();
        if all.is_empty() { Err(pod["status"].to_string()) } else { Ok(all) }
    });
    found.iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
}

/// Runs Python in a container.
pub fn python(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    script: &str,
    arguments: &[&str],
) -> Result<String, String> {
    let words = ["exec", pod, "-c", container, "--", PYTHON, "-c", script];
    as_editor(api, namespace, &[&words[..], arguments].concat(), "")
}

/// What a container printed, line by line, as far as it is JSON.
pub fn said(api: &Api, namespace: &str, pod: &str, container: &str) -> Vec<Value> {
    let log = api.kubectl(&["-n", namespace, "logs", pod, "-c", container, "--tail=-1"]);
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until a container said something.
pub fn says(
    api: &Api,
    pod: (&str, &str),
    container: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let (namespace, name) = pod;
    eventually(what, LOGGED.as_secs(), || {
        let lines = said(api, namespace, name, container);
        lines.iter().find(|line| wanted(line)).cloned().ok_or_else(|| format!("{lines:?}"))
    })
}

/// The decision record of an answer, from the sidecar of a certain pod.
pub fn record(api: &Api, pod: (&str, &str), answer: &behalf_e2e::Answer) -> Value {
    let id = answer.request_id().unwrap().to_owned();
    let of_it = |line: &Value| {
        line["requestId"] == id.as_str()
            && line["schema"].as_str().is_some_and(|schema| schema.starts_with("behalf.dev/record/"))
    };
    says(api, pod, "behalf-sidecar", "the request is in the sidecar's records", of_it)
}

/// Something to be tried.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub protocol: &'static str,
    pub address: String,
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", self.protocol, self.address, self.port)
    }
}

/// Each protocol and port at each address.
pub fn targets(addresses: &[String], ports: &[(&'static str, u16)]) -> Vec<Target> {
    let at = |address: &String| {
        let address = address.clone();
        ports.iter().map(move |(protocol, port)| Target { protocol, address: address.clone(), port: *port })
    };
    addresses.iter().flat_map(at).collect()
}

/// Who tries.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// A container of a pod.
    Container(&'static str, &'static str, &'static str),
    /// The node, from where kubelet asks too.
    Node,
}

impl From {
    /// Sends a text to every target, and tells which of them answered.
    pub fn tries(self, api: &Api, text: &str, targets: &[Target]) -> BTreeSet<String> {
        let targets: Vec<String> = targets.iter().map(Target::to_string).collect();
        let words: Vec<&str> = [text].into_iter().chain(targets.iter().map(String::as_str)).collect();
        let answered = match self {
            Self::Container(namespace, pod, container) => {
                python(api, namespace, pod, container, TRY, &words).unwrap()
            }
            Self::Node => {
                let mut bash = api.world.cluster.in_netns("bash").unwrap();
                bash.args(["-c", TRY_BASH, "try"]).args(&words).text().unwrap()
            }
        };
        answered.lines().map(str::to_owned).collect()
    }
}

/// A pod elsewhere, a pod in the node's network, and the node: everyone outside a pod.
pub const OUTSIDE: [From; 3] =
    [From::Container(PLAIN, "caller", "server"), From::Container(PLAIN, "host", "server"), From::Node];

/// The pods of [`OUTSIDE`]; the namespace [`PLAIN`] has to be there.
pub fn outsiders(api: &Api) {
    let mut host = waiting(api, "host");
    host["spec"]["hostNetwork"] = json!(true);
    make(api, &waiting(api, "caller"));
    make(api, &host);
    for name in ["caller", "host"] {
        ready(api, PLAIN, name);
    }
}

/// A text that stands nowhere else.
pub fn nonce(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
