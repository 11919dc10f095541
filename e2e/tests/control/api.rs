//! The API server as a person with kubectl sees it.
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use behalf_e2e::World;
use serde_json::{Value, json};

/// The deployment, asked with the server's own words for a refusal.
pub struct Api {
    pub world: &'static World,
}

impl Api {
    /// The one that `cargo xtask test` prepared; without it the test fails and says so.
    pub fn open() -> Self {
        Self { world: World::get().unwrap() }
    }

    /// What kubectl printed, or how it complained.
    pub fn ask(&self, words: &[&str], input: &str) -> Result<String, String> {
        run(self.world.cluster.kubectl(words), input)
    }

    /// What kubectl says beside its answer: warnings of the server.
    pub fn complaints(&self, words: &[&str], input: &str) -> String {
        let output = output(self.world.cluster.kubectl(words), input).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {}: {said}", words.join(" "));
        said
    }

    /// kubectl that must succeed.
    pub fn kubectl(&self, words: &[&str]) -> String {
        self.ask(words, "").unwrap_or_else(|error| panic!("kubectl {}: {error}", words.join(" ")))
    }

    /// An object, or a list of them.
    pub fn get(&self, words: &[&str]) -> Value {
        let words = [&["get", "-o", "json"], words].concat();
        serde_json::from_str(&self.kubectl(&words)).unwrap()
    }

    /// Applies an object that must be taken.
    pub fn apply(&self, object: &Value) {
        let words = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.ask(&words, &object.to_string()).unwrap_or_else(|error| panic!("{error}\n{object}"));
    }

    /// Whether the server would take the object from a namespace's editor; nothing is stored.
    pub fn try_create(&self, object: &Value) -> Result<Value, String> {
        let words = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let words = [&words[..], &EDITOR].concat();
        self.ask(&words, &object.to_string()).map(|text| serde_json::from_str(&text).unwrap())
    }

    /// The same for many objects in one go, each with a name of its own: why each was refused, in their order.
    pub fn try_create_all(&self, objects: &[Value]) -> Vec<Option<String>> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let words = ["create", "--dry-run=server", "-o", "name", "-f", "-"];
        let words = [&words[..], &EDITOR].concat();
        let output = output(self.world.cluster.kubectl(&words), &list.to_string()).unwrap();
        let taken = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut refusals = each_complaint(&said).into_iter();
        let taken: BTreeSet<_> = taken.lines().filter_map(|line| line.split('/').nth(1)).collect();
        let found: Vec<_> = objects
            .iter()
            .map(|object| {
                let name = object["metadata"]["name"].as_str().unwrap();
                (!taken.contains(name)).then(|| refusals.next().unwrap_or_else(|| panic!("{name}: {said}")))
            })
            .collect();
        assert_eq!(refusals.next(), None, "one word more than refused objects: {said}");
        found
    }

    /// Names of the pods that a selector finds and that are not about to go.
    pub fn pods(&self, namespace: &str, selector: &str) -> Vec<(String, String)> {
        let list = self.get(&["pods", "-n", namespace, "-l", selector]);
        let alive = list["items"].as_array().into_iter().flatten();
        let alive = alive.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        alive
            .map(|pod| {
                let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
                (text("name"), text("uid"))
            })
            .collect()
    }
}

/// Somebody with the cluster role `edit` in the scratch namespaces, and no more.
pub const EDITOR: [&str; 2] = ["--as=e2e-dev", "--as-group=system:authenticated"];

/// What kubectl says of several objects, one by one: it goes on after each that is refused.
fn each_complaint(said: &str) -> Vec<String> {
    let begins =
        |line: &str| ["Error from server", "The ", "error: "].iter().any(|word| line.starts_with(word));
    let mut found: Vec<String> = Vec::new();
    for line in said.lines().filter(|line| !line.starts_with("Warning: ")) {
        match found.last_mut() {
            Some(last) if !begins(line) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => found.push(line.to_owned()),
        }
    }
    found
}

fn run(command: Command, input: &str) -> Result<String, String> {
    let output = output(command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn output(mut command: Command, input: &str) -> Result<Output, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("kubectl cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading everything says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(|error| error.to_string())
}

/// Asks until the answer is there; what was said last is told when the time is over.
pub fn eventually<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let last = match ask() {
            Ok(answer) => return answer,
            Err(said) => said,
        };
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}\n{last}");
        std::thread::sleep(Duration::from_millis(300));
    }
}
