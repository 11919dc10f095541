//! Processes of the node as this machine knows them: stopped for a while, killed, cut off.
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::cluster::layout::Layout;
use xtask::command::Run as _;

use crate::world::{Undo, World, until};

/// A process of this machine, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process(String);

fn layout(world: &World) -> Result<&Layout> {
    world.cluster.layout().context("processes are at hand in the local cluster alone")
}

impl Process {
    /// What runs in a container of a pod, now.
    ///
    /// # Errors
    /// Nothing does.
    pub fn in_container(world: &World, namespace: &str, pod: &str, container: &str) -> Result<Self> {
        until(&format!("{container} of {pod} runs"), Duration::from_mins(1), || {
            let pod = world.object(&["-n", namespace, "get", "pod", pod])?;
            let lists =
                ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
            let status = lists.into_iter().flatten().flatten().find(|status| status["name"] == container);
            let id = status.and_then(|status| status["containerID"].as_str()).unwrap_or_default();
            task(world, id.trim_start_matches("containerd://"))
        })
    }

    /// A program of the node: `apiserver`, `kubelet`.
    ///
    /// # Errors
    /// It was not started.
    pub fn of_node(world: &World, name: &str) -> Result<Self> {
        let record = layout(world)?.run.join(format!("pids/{name}.json"));
        let record: Value = serde_json::from_str(&fs::read_to_string(record)?)?;
        Ok(Self(record["pid"].as_i64().context("pid")?.to_string()))
    }

    /// This process, or the one below it, that is called so.
    ///
    /// # Errors
    /// There is none.
    pub fn called(&self, name: &str) -> Result<Self> {
        let mut seen = vec![self.clone()];
        while let Some(process) = seen.pop() {
            let own = format!("/proc/{}", process.0);
            if fs::read_to_string(format!("{own}/comm"))?.trim() == name {
                return Ok(process);
            }
            let children = fs::read_to_string(format!("{own}/task/{}/children", process.0))?;
            seen.extend(children.split_whitespace().map(|child| Self(child.to_owned())));
        }
        anyhow::bail!("no {name} at or below process {}", self.0)
    }

    fn signal(&self, name: &str) -> Result<()> {
        Command::new("kill").args([name, &self.0]).run()
    }

    /// Ends it without a word.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal("-KILL")
    }

    /// Stops it until the guard goes, such that it neither works nor ends.
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> Result<Undo<'static>> {
        let process = self.clone();
        let thaw = Undo::new(move || process.signal("-CONT"));
        self.signal("-STOP")?;
        Ok(thaw)
    }

    /// Breaks the connections that its pod has open to an address, as a server does that goes away.
    ///
    /// # Errors
    /// The kernel does not do that, or one is still there.
    pub fn cut_off(&self, address: &str) -> Result<()> {
        let ss = |words: &[&str]| {
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net=/proc/{}/ns/net", self.0))
                .arg("ss")
                .args(words)
                .args(["dst", address]);
            command.text()
        };
        until(&format!("no connection to {address} is left"), Duration::from_secs(10), || {
            ss(&["--kill", "--tcp"])?;
            Ok(ss(&["--no-header", "--tcp", "state", "established"])?.is_empty().then_some(()))
        })
    }
}

fn task(world: &World, id: &str) -> Result<Option<Process>> {
    let mut list = Command::new("ctr");
    list.arg("-a").arg(layout(world)?.containerd()).args(["-n", "k8s.io", "tasks", "ls"]);
    let tasks = list.text()?;
    let running = |line: &&str| !id.is_empty() && line.starts_with(id) && line.contains("RUNNING");
    let task = tasks.lines().find(running).and_then(|line| line.split_whitespace().nth(1));
    Ok(task.map(|pid| Process(pid.to_owned())))
}
