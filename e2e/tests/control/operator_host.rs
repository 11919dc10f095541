//! Processes of the node as this machine knows them: stopped for a while, killed.
use std::fs;
use std::process::Command;

use behalf_e2e::{Undo, until};
use serde_json::Value;
use xtask::cluster::layout::Layout;
use xtask::command::Run as _;

use super::api::Api;

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process(String);

fn layout(api: &Api) -> &Layout {
    api.world.cluster.layout().expect("processes are at hand in the local cluster alone")
}

/// What runs in a container of a pod, now.
pub fn in_container(api: &Api, namespace: &str, pod: &str, container: &str) -> Process {
    let within = std::time::Duration::from_mins(1);
    let found = until(&format!("{container} of {pod} runs"), within, || {
        let pod = api.world.object(&["-n", namespace, "get", "pod", pod])?;
        let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
        let all = lists.into_iter().flatten().flatten();
        let status = all.into_iter().find(|status| status["name"] == container);
        let id = status.and_then(|status| status["containerID"].as_str()).unwrap_or_default();
        Ok(task(api, id.trim_start_matches("containerd://"))?.map(Process))
    });
    found.unwrap()
}

fn task(api: &Api, id: &str) -> anyhow::Result<Option<String>> {
    let mut list = Command::new("ctr");
    list.arg("-a").arg(layout(api).containerd()).args(["-n", "k8s.io", "tasks", "ls"]);
    let tasks = list.text()?;
    let running = |line: &&str| !id.is_empty() && line.starts_with(id) && line.contains("RUNNING");
    let task = tasks.lines().find(running).and_then(|line| line.split_whitespace().nth(1));
    Ok(task.map(str::to_owned))
}

/// A program of the node: `apiserver`, `kubelet`.
pub fn of_node(api: &Api, name: &str) -> Process {
    let record = layout(api).run.join(format!("pids/{name}.json"));
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    Process(record["pid"].as_i64().unwrap().to_string())
}

impl Process {
    fn signal(&self, name: &str) -> anyhow::Result<()> {
        Command::new("kill").args([name, &self.0]).run()
    }

    /// Ends it without a word.
    pub fn kill(&self) {
        self.signal("-KILL").unwrap();
    }

    /// Stops it until the guard goes, such that it neither works nor ends.
    pub fn freeze(&self) -> Undo<'static> {
        let process = self.clone();
        let thaw = Undo::new(move || process.signal("-CONT"));
        self.signal("-STOP").unwrap();
        thaw
    }
}
