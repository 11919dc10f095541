//! The cgroups of a run: one named after us in every hierarchy. Whatever the node starts stays below, so that after a crash every process is still found.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::layout::NAMESPACE;
use super::process::Process;

/// The mounted hierarchies: several on version 1, one on version 2. With each, what it controls.
fn hierarchies() -> Vec<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [_, place, kind @ ("cgroup" | "cgroup2"), options, ..] = words[..] {
            let controls = if kind == "cgroup2" { "unified" } else { options };
            found.push((PathBuf::from(place), controls.to_owned()));
        }
    }
    found
}

/// The cgroup by which processes of the run are found: below the freezer on version 1 (kubelet and runc use all of them alike), else the only one.
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn tracking() -> Result<PathBuf> {
    let all = hierarchies();
    let by =
        |wanted: &str| all.iter().find(|(_, controls)| controls.split(',').any(|control| control == wanted));
    let (place, _) =
        by("freezer").or_else(|| by("pids")).or_else(|| by("unified")).context("no cgroups are mounted")?;
    Ok(place.join(NAMESPACE))
}

/// Makes the run's cgroups.
///
/// # Errors
/// A hierarchy cannot be written.
pub(super) fn make() -> Result<()> {
    for (place, controls) in hierarchies() {
        let dir = place.join(NAMESPACE);
        // The unified hierarchy beside version 1 controls nothing, and kubelet does not look there.
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        if controls.split(',').any(|control| control == "cpuset") {
            // A cpuset is made empty, and nothing can join an empty one.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(dir.join(file), fs::read_to_string(place.join(file))?)?;
            }
        }
    }
    fs::create_dir_all(tracking()?.join("node"))?;
    Ok(())
}

/// The processes below the run's cgroups.
#[must_use]
pub(super) fn processes() -> Vec<Process> {
    let Ok(top) = tracking() else { return Vec::new() };
    below(&top)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|list| list.lines().filter_map(|pid| Process::now(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// Kills every process below the run's cgroups and waits until none is left.
///
/// # Errors
/// Some are still there after 30 seconds.
pub(super) fn kill_all() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let left = processes();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "processes that do not end: {:?}",
                left.iter().map(|process| process.pid).collect::<Vec<_>>()
            );
        }
        for process in &left {
            process.signal(Signal::KILL);
        }
        // A frozen process takes no signal.
        if let Ok(top) = tracking() {
            for dir in below(&top) {
                let _ = fs::write(dir.join("freezer.state"), "THAWED");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Removes the run's cgroups in every hierarchy.
///
/// # Errors
/// One is still in use after 10 seconds.
pub(super) fn remove() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    for (place, _) in hierarchies() {
        let top = place.join(NAMESPACE);
        while top.exists() {
            let mut failed = None;
            for dir in below(&top).iter().rev() {
                failed = fs::remove_dir(dir).err().or(failed);
            }
            if let Some(error) = failed {
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("cannot remove the cgroup {}", top.display()));
                }
                // Something may have been on its way in when all was killed.
                kill_all()?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    Ok(())
}

/// Whether any of the run's cgroups exists.
#[must_use]
pub(super) fn exists() -> bool {
    hierarchies().iter().any(|(place, _)| place.join(NAMESPACE).exists())
}

/// All cgroups but those below the top one that this very process is in: whoever runs us makes and removes those.
#[must_use]
pub(super) fn list() -> Vec<String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mine: Vec<&str> = own.lines().filter_map(|line| line.rsplit(':').next()?.split('/').nth(1)).collect();
    let mut all: Vec<String> = hierarchies()
        .iter()
        .flat_map(|(place, _)| {
            let strange = |dir: &PathBuf| {
                let top = dir.strip_prefix(place).ok().and_then(|rest| rest.components().next());
                top.is_some_and(|top| !mine.iter().any(|name| top.as_os_str() == *name))
            };
            below(place).into_iter().filter(strange).map(|dir| dir.display().to_string()).collect::<Vec<_>>()
        })
        .collect();
    all.sort();
    all
}

/// A directory and all below it, parents first.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        found.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}
