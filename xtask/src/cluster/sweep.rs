//! Taking a run away, whatever state it is in: after `down`, after Ctrl-C, after a crash of xtask, of the node or of the machine.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::layout::{LINK, Layout, NAMESPACE};
use super::{cgroup, process};
use crate::cache;
use crate::command::{Run as _, which};
use crate::progress::Steps;

/// Places outside the run directory that the node's programs make, and that nobody lets us move.
const OUTSIDE: &[&str] = &[
    "/run/netns",
    "/run/containerd",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/log/pods",
    "/run/xtables.lock",
];

/// Settings of the whole machine that kubelet changes.
const SYSCTLS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// How the machine was before the run; written before anything is changed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    absent: Vec<PathBuf>,
    sysctls: BTreeMap<String, String>,
}

/// Writes down how the machine is.
///
/// # Errors
/// The run directory cannot be written.
pub(super) fn remember(layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.run).with_context(|| format!("cannot make {}", layout.run.display()))?;
    let absent = OUTSIDE.iter().map(PathBuf::from).filter(|path| !path.exists()).collect();
    let read =
        |name: &&str| Some(((*name).to_owned(), fs::read_to_string(format!("/proc/sys/{name}")).ok()?));
    let before = Before { absent, sysctls: SYSCTLS.iter().filter_map(read).collect() };
    cache::write_whole(&layout.run.join("before.json"), &serde_json::to_string_pretty(&before)?)
}

/// What stands there of a run, in words; empty when nothing does.
#[must_use]
pub(super) fn leftovers(layout: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |there: bool, what: String| {
        if there {
            found.push(what);
        }
    };
    note(layout.run.exists(), format!("the run directory {}", layout.run.display()));
    note(Layout::netns().exists(), format!("the network namespace {NAMESPACE}"));
    note(Path::new("/sys/class/net").join(LINK).exists(), format!("the link {LINK}"));
    let mounts = mounts_below(&layout.run).len();
    note(mounts > 0, format!("{mounts} mounts"));
    let processes = cgroup::processes().len();
    note(processes > 0, format!("{processes} processes"));
    note(cgroup::exists(), format!("the cgroup {NAMESPACE}"));
    found
}

/// Takes everything of a run away: processes, mounts, namespaces, links, cgroups, files. The logs stay as `last-run-log`.
///
/// # Errors
/// Something does not go; what could go is gone, and a second try goes on from there.
pub(super) fn sweep(steps: &Steps, layout: &Layout) -> Result<()> {
    // A program that a killed `up` had just begun may still add something behind our back.
    for _ in 0..5 {
        sweep_once(steps, layout)?;
        if leftovers(layout).is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("still there: {}", leftovers(layout).join(", "))
}

fn sweep_once(steps: &Steps, layout: &Layout) -> Result<()> {
    let before: Before = fs::read_to_string(layout.run.join("before.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    steps.live("processes");
    for name in process::NAMES {
        if let Some(process) = process::recorded(layout, name) {
            process.signal(Signal::KILL);
        }
    }
    cgroup::kill_all()?;
    steps.live("mounts");
    unmount_all(&layout.run)?;
    steps.live("network namespace and links");
    remove_network(&before)?;
    steps.live("cgroups");
    cgroup::remove()?;
    for (name, value) in &before.sysctls {
        let path = format!("/proc/sys/{name}");
        if fs::read_to_string(&path).is_ok_and(|now| now != *value) {
            fs::write(&path, value).with_context(|| format!("cannot set {path} back to {}", value.trim()))?;
        }
    }
    steps.live("files");
    remove_outside(layout, &before)?;
    let (log, kept) = (layout.run.join("log"), layout.cache.join("last-run-log"));
    if log.exists() {
        let _ = fs::remove_dir_all(&kept);
        fs::rename(&log, &kept).with_context(|| format!("cannot keep the logs in {}", kept.display()))?;
    }
    if layout.run.exists() {
        fs::remove_dir_all(&layout.run).with_context(|| format!("cannot remove {}", layout.run.display()))?;
    }
    Ok(())
}

/// Mount points at or below `dir`, innermost last.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The kernel writes white space and backslashes of a path in octal.
    let plain = |place: &str| place.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    places.map(|place| PathBuf::from(plain(place))).filter(|place| place.starts_with(dir)).collect()
}

fn unmount_all(dir: &Path) -> Result<()> {
    // One place may be mounted over several times, and unmounting one may bring another to light.
    for _ in 0..20 {
        let places = mounts_below(dir);
        if places.is_empty() {
            return Ok(());
        }
        for place in places.iter().rev() {
            let _ = unmount(place, UnmountFlags::DETACH);
        }
    }
    match mounts_below(dir).first() {
        Some(place) => bail!("cannot unmount {}", place.display()),
        None => Ok(()),
    }
}

fn remove_network(before: &Before) -> Result<()> {
    let link = Path::new("/sys/class/net").join(LINK);
    if link.exists() && which("ip").is_some() {
        // The namespace may take the link with it in the meantime.
        Command::new("ip").args(["link", "del", LINK]).succeeds();
    }
    let netns = Layout::netns();
    // After a restart of the machine this is an empty file and no mount.
    let _ = unmount(netns, UnmountFlags::DETACH);
    if netns.exists() {
        fs::remove_file(netns).with_context(|| format!("cannot remove {}", netns.display()))?;
    }
    let directory = Path::new("/run/netns");
    let empty = || fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if before.absent.iter().any(|path| path == directory) && empty() {
        // `ip netns add` mounts the directory upon itself.
        while unmount(directory, UnmountFlags::DETACH).is_ok() {}
        let _ = fs::remove_dir(directory);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while link.exists() {
        if Instant::now() > deadline {
            bail!("the link {LINK} does not go");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn remove_outside(layout: &Layout, before: &Before) -> Result<()> {
    let entries = |dir: &str| {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for path in entries("/var/lib/cni/results") {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("behalf-pods-")) {
            fs::remove_file(path)?;
        }
    }
    for path in entries("/var/log/containers") {
        if fs::read_link(&path).is_ok_and(|target| target.starts_with(&layout.run)) {
            fs::remove_file(path)?;
        }
    }
    for path in before.absent.iter().filter(|path| path.exists()) {
        if path == Path::new("/run/containerd") {
            // Another containerd may have come since; its sockets lie there too.
            if !another_containerd() {
                fs::remove_dir_all(path)?;
            }
        } else if path.is_file() {
            fs::remove_file(path)?;
        } else {
            // Only when nobody else has put anything there.
            let _ = fs::remove_dir(path.join("results"));
            let _ = fs::remove_dir(path);
        }
    }
    Ok(())
}

fn another_containerd() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .any(|name| name.trim() == "containerd" || name.trim() == "dockerd")
}
