//! One command at a time makes or removes the run of the local cluster.
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::process;

/// Held while the run is made or removed; the kernel lets go of it when its holder dies in whatever way.
pub(super) fn lock(layout: &Layout, purpose: &str) -> Result<fs::File> {
    fs::create_dir_all(&layout.cache).with_context(|| format!("cannot make {}", layout.cache.display()))?;
    let path = layout.cache.join("run.lock");
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).context("cannot lock the run of the cluster");
            }
        }
        let mut said = String::new();
        file.rewind()?;
        file.read_to_string(&mut said)?;
        let holder = said.split_whitespace().last().and_then(|pid| pid.parse().ok());
        // A child that a killed holder had just forked holds its files until it becomes another program.
        if holder.is_none_or(|pid| process::Process::now(pid).is_some()) || Instant::now() > deadline {
            let pid = holder.map(|pid| format!(" (kill {pid})")).unwrap_or_default();
            bail!("`cargo xtask cluster {}` is under way: wait for it, or end it{pid}", said.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{purpose} by process {}", std::process::id())?;
    Ok(file)
}
