//! The deployment that the tests share.
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use xtask::cluster::{Cluster, Target};
use xtask::command::Run as _;
use xtask::demo::Images;

use crate::records::Pod;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(200);
/// A changed object has reached a sidecar within this: kubelet refreshes a mounted ConfigMap once in about a minute.
pub const FOLLOWED: Duration = Duration::from_mins(4);
/// A line has reached a log within this.
pub const LOGGED: Duration = Duration::from_secs(30);

/// The demo's deployment on the local cluster.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The images it runs.
    pub images: Images,
    addresses: Mutex<HashMap<String, String>>,
}

impl World {
    /// The deployment; the same for all tests of a process.
    ///
    /// # Errors
    /// The tests were not started by `cargo xtask test`, or there is no cluster. It is never passed over in silence.
    pub fn get() -> Result<&'static Self> {
        static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
        let found = WORLD.get_or_init(|| Self::find().map_err(|error| format!("{error:#}")));
        found.as_ref().map_err(|error| anyhow!(error.clone()))
    }

    fn find() -> Result<Self> {
        let images = std::env::var("BEHALF_E2E_IMAGES").context(
            "the end-to-end tests need a cluster with the demo on it: run them by `cargo xtask test`, or, when `cargo \
             xtask demo` is up already, by `cargo xtask test --only-e2e`",
        )?;
        let images = serde_json::from_str(&images).context("BEHALF_E2E_IMAGES")?;
        let cluster = Cluster::running(&Target::default())?;
        Ok(Self { cluster, images, addresses: Mutex::default() })
    }

    /// Runs kubectl and gives what it says.
    ///
    /// # Errors
    /// It fails; the message holds what it said.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(words).text()
    }

    /// An object, or a list of them.
    ///
    /// # Errors
    /// It is not there.
    pub fn object(&self, words: &[&str]) -> Result<Value> {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        Ok(serde_json::from_str(&self.kubectl(&words)?)?)
    }

    /// Changes an object by a JSON merge patch.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn patch(&self, namespace: &str, object: &str, patch: &Value) -> Result<()> {
        self.kubectl(&["-n", namespace, "patch", object, "--type=merge", "-p", &patch.to_string()]).map(drop)
    }

    /// The address of `<service>.<namespace>…`.
    ///
    /// # Errors
    /// There is no such service.
    pub fn address(&self, host: &str) -> Result<String> {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = known.get(host) {
            return Ok(address.clone());
        }
        let mut labels = host.split('.');
        let (Some(service), Some(namespace)) = (labels.next(), labels.next()) else {
            bail!("{host} names no service");
        };
        let address =
            self.kubectl(&["-n", namespace, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
        known.insert(host.to_owned(), address.clone());
        Ok(address)
    }

    /// The pods of the MCP server that take calls, oldest first.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn pods(&self) -> Result<Vec<Pod<'_>>> {
        let list = self.object(&[
            "-n",
            "hr",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=hr-tools",
            "--sort-by=.metadata.creationTimestamp",
        ])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let live = items.iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.is_some_and(|all| all.iter().any(ready))
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(live
            .map(|pod| Pod::new(self, "hr", text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"])))
            .collect())
    }

    /// The one pod of the MCP server.
    ///
    /// # Errors
    /// It does not become the only one that takes calls.
    pub fn pod(&self) -> Result<Pod<'_>> {
        let one = || {
            let mut pods = self.pods()?;
            Ok(if pods.len() == 1 { pods.pop() } else { None })
        };
        until("one pod of hr-tools takes calls", Duration::from_mins(4), one)
    }

    /// Waits until the Deployment of the MCP server is as it was last written, and old pods are gone.
    ///
    /// # Errors
    /// It does not get there.
    pub fn rolled_out(&self) -> Result<()> {
        self.kubectl(&["-n", "hr", "rollout", "status", "deployment/hr-tools", "--timeout=240s"])?;
        let words = ["-n", "hr", "get", "pods", "-l", "app.kubernetes.io/name=hr-tools"];
        let settled = || {
            let wanted =
                self.object(&["-n", "hr", "get", "deployment", "hr-tools"])?["spec"]["replicas"].as_u64();
            let pods = self.object(&words)?["items"].as_array().map(Vec::len);
            Ok((pods.map(|n| n as u64) == wanted).then_some(()))
        };
        until("only the new pods of hr-tools are there", Duration::from_mins(4), settled)
    }

    /// How the MCP server keeps its sessions, until the guard is dropped.
    ///
    /// # Errors
    /// The new pod does not become ready.
    pub fn stateless(&self, stateless: bool) -> Result<Undo<'_>> {
        let set = move |value: bool| {
            let word = format!("HR_STATELESS={value}");
            self.kubectl(&["-n", "hr", "set", "env", "deployment/hr-tools", "-c", "server", &word])?;
            self.rolled_out()
        };
        let undo = Undo::new(move || set(true));
        set(stateless)?;
        Ok(undo)
    }

    /// How many pods the MCP server has, until the guard is dropped.
    ///
    /// # Errors
    /// They do not become ready.
    pub fn replicas(&self, count: u32) -> Result<Undo<'_>> {
        let set = move |count: u32| {
            self.kubectl(&["-n", "hr", "scale", "deployment/hr-tools", &format!("--replicas={count}")])?;
            self.rolled_out()
        };
        let undo = Undo::new(move || set(1));
        set(count)?;
        Ok(undo)
    }

    /// Puts other groups behind a scope of the catalogue, until the guard is dropped. What calls do follows later: wait for it.
    ///
    /// # Errors
    /// The catalogue has no such scope, or the API server refuses the change.
    pub fn holders(&self, scope: &str, groups: &[&str]) -> Result<Undo<'_>> {
        let before = self.object(&["get", "scat", "corp"])?["spec"]["scopes"].clone();
        let mut after = before.clone();
        let row = after.as_array_mut().into_iter().flatten().find(|row| row["name"] == scope);
        row.with_context(|| format!("no scope {scope} in the catalogue"))?["holders"]["groups"] =
            json!(groups);
        ensure!(before != after, "{scope} is held by these groups already");
        let undo =
            Undo::new(move || self.patch("default", "scat/corp", &json!({"spec": {"scopes": before}})));
        self.patch("default", "scat/corp", &json!({"spec": {"scopes": after}}))?;
        Ok(undo)
    }

    /// Another word on one thing of the demo's provider, of which it says nothing by itself, until the guard is dropped. The
    /// one pod judges by it when this returns, and no more when the guard is gone.
    ///
    /// # Errors
    /// The API server refuses the change, or the sidecar does not follow.
    pub fn provider(&self, field: &'static str, value: &Value) -> Result<Undo<'_>> {
        let set = move |value: &Value| {
            let pod = self.pod()?;
            let before = pod.metric("bundle_serial")?;
            self.patch("default", "idp/corp", &json!({"spec": {field: value}}))?;
            let newer = || Ok((pod.metric("bundle_serial")? > before).then_some(()));
            until(&format!("the sidecar follows {field}"), FOLLOWED, newer)
        };
        let undo = Undo::new(move || set(&Value::Null));
        set(value)?;
        Ok(undo)
    }

    /// The stage of the identity, until the guard is dropped. What calls do follows later: wait for it.
    ///
    /// # Errors
    /// The API server refuses the change.
    pub fn stage(&self, stage: &str) -> Result<Undo<'_>> {
        let set = move |stage: &str| {
            self.patch("hr", "aid/hr-tools", &json!({"spec": {"rollout": {"stage": stage}}}))
        };
        let undo = Undo::new(move || set("Enforce"));
        set(stage)?;
        Ok(undo)
    }
}

/// Puts something back when it is dropped, also when the test has failed.
pub struct Undo<'a>(Option<Box<dyn FnOnce() -> Result<()> + 'a>>);

impl<'a> Undo<'a> {
    /// What will be done.
    pub fn new(action: impl FnOnce() -> Result<()> + 'a) -> Self {
        Self(Some(Box::new(action)))
    }

    /// Does it now.
    ///
    /// # Errors
    /// What the action returns.
    pub fn now(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |action| action())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|action| action()) {
            eprintln!("the deployment could not be put back: {error:#}");
        }
    }
}

/// Looks until there is something, and gives it.
///
/// # Errors
/// Nothing came in time; the message holds what went wrong at the last look.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let looked = look();
        if let Ok(Some(found)) = looked {
            return Ok(found);
        }
        if began.elapsed() > within {
            let why = looked.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{why}", within.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}
