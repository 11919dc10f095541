//! `cargo xtask cluster selftest`: breaks runs on purpose and compares the machine before and after.
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::layout::Layout;
use super::process::{self, Process};
use super::{Cluster, Target, cgroup, down, node, sweep};
use crate::command::Run as _;
use crate::progress::Steps;

/// What a run could leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    lists: [(&'static str, BTreeSet<String>); 5],
}

impl Snapshot {
    /// Looks at the machine. Of processes, those count that a run could have left: not in this network namespace, or of a program that a node runs.
    #[must_use]
    pub(super) fn take() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        Self {
            lists: [
                ("process", processes()),
                ("mount", mounts.lines().map(str::to_owned).collect()),
                ("network namespace", namespaces()),
                ("link", links.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()),
                ("cgroup", cgroup::list().into_iter().collect()),
            ],
        }
    }

    /// What differs, in words; empty when nothing does.
    fn differs(&self, after: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for ((kind, before), (_, after)) in self.lists.iter().zip(&after.lists) {
            said.extend(after.difference(before).map(|what| format!("new {kind}: {what}")));
            said.extend(before.difference(after).map(|what| format!("lost {kind}: {what}")));
        }
        said
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, list) in &self.lists {
            for what in list {
                writeln!(out, "{kind}: {what}")?;
            }
        }
        Ok(())
    }
}

/// Every promise, one after the other. Needs root and no running cluster.
///
/// # Errors
/// A promise is broken, or a cluster runs.
pub(super) fn run() -> Result<()> {
    let layout = Layout::find()?;
    let left = sweep::leftovers(&layout);
    if !left.is_empty() {
        bail!(
            "the self-test needs a machine without a local cluster; run `cargo xtask cluster down` first ({})",
            left.join(", ")
        );
    }
    let steps = Steps::new("cargo xtask cluster selftest");
    // What is built once is not what is tested here.
    steps.run("a first up and down", "40 s warm", || {
        Cluster::up(&steps, &Target::default())?;
        down(&steps)
    })?;
    let before = Snapshot::take();
    let clean = |what: &str| -> Result<()> {
        down(&steps)?;
        // What the kernel takes down in the background is given a moment, and what others do on this machine meanwhile some more.
        let deadline = Instant::now() + Duration::from_mins(3);
        loop {
            let differs = before.differs(&Snapshot::take());
            if differs.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("down after {what} left the machine changed:\n{}", differs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    steps.run("down after a run with a pod leaves nothing", "60 s", || {
        let cluster = Cluster::up(&steps, &Target::default())?;
        start_pod(&cluster)?;
        clean("a run with a pod")
    })?;
    steps.run("down twice is no error", "1 s", || down(&steps))?;
    for marker in
        ["before.json", "admin.conf", "pids/apiserver.json", "pids/kubelet.json", "pids/coredns.json"]
    {
        steps.run(&format!("down after SIGKILL of up, once {marker} is there"), "20 s", || {
            kill_up_at(&layout, marker)?;
            clean("SIGKILL of up")
        })?;
    }
    steps.run("two ups at once: the second says who holds the lock", "30 s", || {
        let mut first = spawn_up()?;
        until(Duration::from_mins(2), "the first up", || layout.run.join("before.json").exists())?;
        let second = Command::new(std::env::current_exe()?).args(["cluster", "up"]).text();
        let ended = first.wait()?;
        let Err(error) = second else { bail!("the second up went on beside the first") };
        let text = format!("{error:#}");
        if !text.contains(&format!("up by process {}", first.id())) {
            bail!("the second up does not name the first (pid {}): {text}", first.id());
        }
        if !ended.success() {
            bail!("the first up was disturbed by the second");
        }
        Ok(())
    })?;
    steps.run("up when it is up is quick and changes nothing", "2 s", || {
        let was = process::recorded(&layout, "etcd");
        let began = Instant::now();
        Cluster::up(&steps, &Target::default())?;
        if process::recorded(&layout, "etcd") != was {
            bail!("a healthy run was started again after {:?}", began.elapsed());
        }
        Ok(())
    })?;
    steps.run("up after a crash clears the remains", "60 s", || {
        start_pod(&Cluster::up(&steps, &Target::default())?)?;
        for process in cgroup::processes() {
            process.signal(Signal::KILL);
        }
        let cluster = Cluster::up(&steps, &Target::default())?;
        start_pod(&cluster)
    })?;
    steps.run("up after one program died starts anew", "60 s", || {
        let etcd = process::recorded(&layout, "etcd").context("no etcd")?;
        etcd.signal(Signal::KILL);
        Cluster::up(&steps, &Target::default())?;
        node::healthy(&layout)?;
        clean("a crash")
    })?;
    steps.run("a recycled pid is not killed", "1 s", || {
        let own = Process::own().context("no /proc")?;
        Process { started: own.started + 1, ..own.clone() }.signal(Signal::KILL);
        Process { boot: "another".to_owned(), ..own }.signal(Signal::KILL);
        Ok(())
    })?;
    steps.table();
    Ok(())
}

fn spawn_up() -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["cluster", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start another xtask")
}

fn kill_up_at(layout: &Layout, marker: &str) -> Result<()> {
    let mut child = spawn_up()?;
    let there = layout.run.join(marker);
    let reached = until(Duration::from_mins(2), marker, || there.exists());
    child.kill()?;
    child.wait()?;
    reached
}

fn until(limit: Duration, what: &str, check: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !check() {
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A pod of the one image that every local cluster holds.
fn start_pod(cluster: &Cluster) -> Result<()> {
    let steps = Steps::new("pod");
    let image = crate::images::pause(&steps)?;
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: selftest, namespace: default}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: '{}', imagePullPolicy: Never}}\n",
        image.pinned()
    );
    cluster.apply(&manifest)?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/selftest", "--timeout=60s"]).run()
}

fn processes() -> BTreeSet<String> {
    let programs = [
        "etcd",
        "containerd",
        "containerd-shim",
        "kube-",
        "kubelet",
        "coredns",
        "busybox",
        "runc",
        "nsenter",
    ];
    let own = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    numbers()
        .filter_map(|pid| {
            // Zombies of an `up` in this very program are gone when it ends.
            Process::now(i32::try_from(pid).ok()?)?;
            let dir = Path::new("/proc").join(pid.to_string());
            let name = fs::read_to_string(dir.join("comm")).ok()?.trim().to_owned();
            let elsewhere = fs::read_link(dir.join("ns/net")).is_ok_and(|net| net != own);
            (elsewhere || programs.iter().any(|program| name.starts_with(program)))
                .then(|| format!("{pid} {name}"))
        })
        .collect()
}

/// Network namespaces that a process is in or that are mounted.
fn namespaces() -> BTreeSet<String> {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounted
        .lines()
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("net:[")))
        .map(str::to_owned);
    let used = numbers().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok());
    mounted.chain(used.map(|net| net.to_string_lossy().into_owned())).collect()
}

fn numbers() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
