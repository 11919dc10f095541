//! A disk of a test's own, which can be full. Needs root.

use std::path::{Path, PathBuf};

/// Its size while it is not full.
const SIZE: &str = "size=1g,mode=0700";

/// A disk that can be made as small as what is on it.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    pub(crate) fn new(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        mount(&["-t", "tmpfs", "-o", SIZE, "records"], &at).expect("a disk of its own (root is needed)");
        Self(at)
    }

    pub(crate) fn fill(&self) {
        // What is written meanwhile makes it too small; then it is tried again.
        for _ in 0..1000 {
            let room = rustix::fs::statvfs(&self.0).unwrap();
            let used = (room.f_blocks - room.f_bfree) * room.f_frsize;
            if mount(&["-o", &format!("remount,size={used}")], &self.0).is_ok() {
                return;
            }
        }
        panic!("the disk could not be filled");
    }

    pub(crate) fn free(&self) {
        mount(&["-o", &format!("remount,{SIZE}")], &self.0).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let output = std::process::Command::new("mount").args(arguments).arg(at).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
