//! Processes of the node: started apart from xtask, known again by pid and start time.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::layout::Layout;
use crate::cache;

/// One process, such that another one that got its number later is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its number.
    pub(super) pid: i32,
    /// When it started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub(super) started: u64,
    /// The boot it belongs to.
    pub(super) boot: String,
}

impl Process {
    /// The process that now has this number, unless it is a zombie.
    #[must_use]
    pub(super) fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses, which may hold spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started, boot: boot() })
    }

    /// This very process.
    #[must_use]
    pub(super) fn own() -> Option<Self> {
        Self::now(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether it still runs.
    #[must_use]
    pub(super) fn alive(&self) -> bool {
        Self::now(self.pid).as_ref() == Some(self)
    }

    /// Sends it a signal if it is still the same process.
    pub(super) fn signal(&self, signal: Signal) {
        if self.alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the look and the signal.
            let _ = kill_process(pid, signal);
        }
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The programs of the node in their order of start.
pub(super) const NAMES: &[&str] =
    &["etcd", "containerd", "apiserver", "controller-manager", "scheduler", "kubelet", "proxy", "coredns"];

/// Starts `program` inside the node's network namespace and cgroup, in a session of its own, so that it outlives xtask and no Ctrl-C reaches it.
///
/// # Errors
/// It cannot be started, or its number cannot be written down.
pub(super) fn start(layout: &Layout, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
    let log = fs::File::create(layout.run.join(format!("log/{name}.log")))?;
    // The shell joins the cgroup before it becomes the program, so that nothing the program starts can be outside.
    let child = Command::new("setsid")
        .arg("sh")
        .args(["-c", "echo 0 >\"$1\" || exit 1; ns=$2; shift 2; exec nsenter --net=\"$ns\" \"$@\"", "sh"])
        .arg(cgroup::tracking()?.join("node/cgroup.procs"))
        .arg(Layout::netns())
        .arg(program)
        .args(arguments)
        .current_dir(&layout.run)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let pid = i32::try_from(child.id())?;
    let process = Process::now(pid).with_context(|| format!("{name} ended at once, see log/{name}.log"))?;
    cache::write_whole(&record(layout, name), &serde_json::to_string(&process)?)
}

/// The process called `name` that this run started, dead or alive.
#[must_use]
pub(super) fn recorded(layout: &Layout, name: &str) -> Option<Process> {
    serde_json::from_str(&fs::read_to_string(record(layout, name)).ok()?).ok()
}

fn record(layout: &Layout, name: &str) -> std::path::PathBuf {
    layout.run.join(format!("pids/{name}.json"))
}
