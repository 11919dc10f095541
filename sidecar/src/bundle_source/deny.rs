//! The namespace's own deny list, as kubelet mounts it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use behalf_policy::deny::{DenyList, EVERYONE};

use super::directory::mark;
use super::{Intake, Source};

/// Looks at the two files that are about this identity: its own, and that about everyone.
#[derive(Debug)]
pub struct DenySource {
    files: [PathBuf; 2],
    intake: Arc<Intake>,
    seen: Option<[Mark; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Absent,
    Unreadable,
    At(u64, u64, SystemTime, u64),
}

impl DenySource {
    /// A source that has not looked yet.
    #[must_use]
    pub fn new(dir: &Path, identity: &str, intake: Arc<Intake>) -> Self {
        Self { files: [dir.join(EVERYONE), dir.join(identity)], intake, seen: None }
    }
}

impl Source for DenySource {
    /// What is absent refuses nothing; what is there
    /// and cannot be read refuses everything, until it can.
    async fn look(&mut self) {
        let [everyone, own] = &self.files;
        let marks = [marked(everyone).await, marked(own).await];
        if self.seen == Some(marks) {
            return;
        }
        self.seen = Some(marks);
        let mut list = DenyList::default();
        for file in &self.files {
            list = match tokio::fs::read(file).await {
                Ok(value) => list.and(&value),
                Err(error) if error.kind() == ErrorKind::NotFound => list,
                Err(_) => {
                    // What kept it from being read may pass without the file changing.
                    self.seen = None;
                    list.and_unreadable()
                }
            };
        }
        self.intake.deny(list);
    }
}

async fn marked(file: &Path) -> Mark {
    match mark(file).await {
        Ok((device, inode, modified, length)) => Mark::At(device, inode, modified, length),
        Err(error) if error.kind() == ErrorKind::NotFound => Mark::Absent,
        Err(_) => Mark::Unreadable,
    }
}
