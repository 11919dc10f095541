//! The operator killed at every write: whoever comes next finishes what it began.
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use behalf_e2e::keycloak::sha256;
use behalf_e2e::until;
use serde_json::{Value, json};
use xtask::cluster::layout::{DNS_SERVICE, DOMAIN};

use super::api::Api;
use super::feed_scene::opened;
use super::operator_gate::{Gate, Moment};
use super::scene::{ENROLLED, account, enrolled, identity, without_operator};

const SYSTEM: &str = "behalf-system";
/// Nothing more is written when nothing was for so long.
const QUIET: Duration = Duration::from_secs(2);
/// More writes than a reconcile of one identity can have.
const MANY: usize = 20;

/// kubectl's own way to the API server, with the operator's account and no more.
struct Way {
    child: Child,
    kubeconfig: PathBuf,
    address: SocketAddr,
}

impl Way {
    fn open(api: &Api) -> Self {
        let token = api.kubectl(&["-n", SYSTEM, "create", "token", "behalf-operator", "--duration=1h"]);
        let admin = api.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&admin).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = std::env::temp_dir().join(format!("behalf-e2e-{}.conf", std::process::id()));
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.create(true).write(true).truncate(true).mode(0o600).open(&kubeconfig).unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        let words = ["proxy", "--port=0", "--accept-hosts=.*", "--kubeconfig"];
        let mut command = api.world.cluster.kubectl(&words);
        let mut child = command.arg(&kubeconfig).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{said}"));
        Self { child, kubeconfig, address }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

/// The operator's program on the node, as reconciler, with the arguments of its Deployment.
struct Outside<'a> {
    api: &'a Api,
    gate: Gate,
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    _way: Way,
}

/// One run of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Outside<'a> {
    fn new(api: &'a Api) -> Self {
        let way = Way::open(api);
        let gate = Gate::open(way.address);
        let kubeconfig = std::env::temp_dir().join(format!("behalf-e2e-gate-{}.conf", std::process::id()));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{"name": "gate", "cluster": {"server": format!("http://{}", gate.address)}}],
            "users": [{"name": "gate", "user": {}}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let deployment = api.get(&["-n", SYSTEM, "deployment/behalf-operator"]);
        let declared =
            deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
        let ours = ["--nameserver", "--cluster-domain", "--roles", "--health-address", "--metrics-address"];
        let declared =
            declared.iter().map(|argument| argument.as_str().unwrap().replace("$(POD_NAMESPACE)", SYSTEM));
        let mut arguments: Vec<String> =
            declared.filter(|argument| !ours.iter().any(|name| argument.starts_with(name))).collect();
        arguments.extend([
            format!("--nameserver={DNS_SERVICE}"),
            format!("--cluster-domain={DOMAIN}"),
            "--roles=reconcile".to_owned(),
            "--health-address=127.0.0.1:0".to_owned(),
            "--metrics-address=127.0.0.1:0".to_owned(),
        ]);
        Self { api, gate, kubeconfig, arguments, _way: way }
    }

    fn start(&self, trap: Option<(usize, Moment)>) -> Running {
        self.gate.set(trap);
        let root = xtask::images::workspace().unwrap();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let program = target.join("release/behalf-operator");
        let mut command: Command = self.api.world.cluster.in_netns(&program.to_string_lossy()).unwrap();
        command.args(&self.arguments).env("KUBECONFIG", &self.kubeconfig);
        command.env("POD_NAME", "e2e-outside").env("POD_NAMESPACE", SYSTEM).env("POD_IP", "198.18.0.2");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        self.gate.arm(child.id());
        Running(child)
    }

    /// Lets it run until it is killed, or everything is as it should be and nothing more is written; whether it was killed.
    fn run(&self, trap: Option<(usize, Moment)>, right: impl Fn() -> Result<(), String>) -> bool {
        let mut running = self.start(trap);
        let mut quiet = (0, Instant::now());
        let mut last = String::new();
        let ended = until("the operator is killed or done", Duration::from_mins(2), || {
            if let Some(status) = running.0.try_wait()? {
                assert!(self.gate.sprung(), "it ended by itself: {status}");
                return Ok(Some(true));
            }
            let writes = self.gate.writes().len();
            if quiet.0 != writes {
                quiet = (writes, Instant::now());
            }
            last = right().err().unwrap_or_default();
            Ok((last.is_empty() && quiet.1.elapsed() >= QUIET).then_some(false))
        });
        ended.unwrap_or_else(|error| panic!("{error:#}: {last}\nwritten: {:?}", self.gate.writes()))
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

/// Stands for the name of the identity, which is another in each round.
const NAME: &str = "NAME";

/// A name, and what is done.
type Step = (&'static str, fn(&Api, &str));

/// What is done to an identity, one after the other.
const STEPS: [Step; 3] = [
    ("made", |api, name| {
        api.apply(&account(ENROLLED, name));
        api.apply(&identity(ENROLLED, name, name));
    }),
    ("suspended", |api, name| {
        api.world.patch(ENROLLED, &format!("aid/{name}"), &json!({"spec": {"state": "Suspended"}})).unwrap();
    }),
    ("deleted", |api, name| {
        api.kubectl(&["-n", ENROLLED, "delete", "aid", name]);
    }),
];

/// Everything that the operator made of an identity, without its name and what counts or tells the time.
fn outcome(api: &Api, name: &str) -> Result<Value, String> {
    let map =
        api.ask(&["-n", ENROLLED, "get", "configmap", &format!("behalf-bundle-{name}"), "-o", "json"], "")?;
    let map: Value = serde_json::from_str(&map).unwrap();
    let text = map["data"]["bundle.json"].as_str().ok_or("no bundle")?;
    let (document, keys) = opened(text);
    let list = api.get(&["-n", ENROLLED, "aid"]);
    let object = list["items"].as_array().unwrap().iter().find(|object| object["metadata"]["name"] == name);
    let status = object.map(|object| told(object, name, text)).transpose()?;
    let labels = map["metadata"]["labels"].clone();
    let all = json!({"serve": document["serve"], "feed": document["feed"], "keys": keys, "labels": labels, "status": status});
    Ok(serde_json::from_str(&all.to_string().replace(name, NAME)).unwrap())
}

/// The part of a status that says how things stand, once it is about this object and this bundle.
fn told(object: &Value, name: &str, bundle: &str) -> Result<Value, String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let status = &object["status"];
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return Err(format!("not looked at: {status}"));
    }
    let envelope: Value = serde_json::from_str(bundle).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let digest = format!("sha256:{}", sha256(&String::from_utf8(payload).unwrap()));
    if status["bundle"]["digest"] != digest.as_str() {
        return Err(format!("of another bundle than {digest}: {status}"));
    }
    let conditions = status["conditions"].as_array().ok_or("no conditions")?;
    let plain = |condition: &Value| {
        let message: String = condition["message"]
            .as_str()
            .unwrap_or_default()
            .replace(name, NAME)
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        json!([condition["type"], condition["status"], condition["reason"], message])
    };
    Ok(
        json!({"conditions": conditions.iter().map(plain).collect::<Vec<_>>(), "pods": status["pods"], "injected": status["injection"]["revision"].is_string()}),
    )
}

#[test]
fn killed_at_every_write_of_a_reconcile_the_next_operator_finishes_it() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _away = without_operator(&api);
    let outside = Outside::new(&api);
    // The scene's own pass is over, and nothing is left to be written.
    assert!(!outside.run(None, || Ok(())));

    let mut expected = Vec::new();
    for (what, step) in STEPS {
        step(&api, "undisturbed");
        assert!(!outside.run(None, || undisturbed(&api, "undisturbed", what)));
        let writes = outside.gate.writes();
        eprintln!("{what}: {} writes of an undisturbed reconcile: {writes:?}", writes.len());
        assert!(!writes.is_empty(), "{what}: nothing was written");
        expected.push(outcome(&api, "undisturbed").unwrap());
    }
    let mut kills = 0;
    // Right after one write is right before the next, but for what the server does meanwhile.
    for (moment, most) in [(Moment::Before, MANY), (Moment::After, 2)] {
        for n in 1..most {
            let (name, mut killed) = (format!("killed-{moment:?}-{n}").to_lowercase(), false);
            for ((what, step), expected) in STEPS.iter().zip(&expected) {
                step(&api, &name);
                let right = || match outcome(&api, &name)? {
                    found if found == *expected => Ok(()),
                    found => Err(format!("{found}\nand not\n{expected}")),
                };
                if outside.run(Some((n, moment)), right) {
                    (killed, kills) = (true, kills + 1);
                    let seen = outside.gate.writes();
                    eprintln!("{what}: killed {moment:?} write {n}: {}", seen.last().unwrap());
                    assert!(!outside.run(None, right), "{what}: the next one ends by itself");
                }
            }
            if !killed {
                break;
            }
            assert!(moment == Moment::After || n + 1 < most, "it writes for ever");
        }
    }
    eprintln!("killed {kills} times; each time the next one ended where an undisturbed one does");
    assert!(kills >= 6, "{kills}");
}

/// The reference itself: settled, and of the step that was made.
fn undisturbed(api: &Api, name: &str, step: &str) -> Result<(), String> {
    let found = outcome(api, name)?;
    let right = match step {
        "made" => found["serve"]["type"] == "Policy" && found["serve"]["state"] == "Active",
        "suspended" => found["serve"]["state"] == "Suspended",
        _ => {
            found["serve"] == json!({"type": "RefuseAll", "reason": "IdentityDeleted"})
                && found["status"].is_null()
        }
    };
    if right { Ok(()) } else { Err(found.to_string()) }
}
