//! The way by the mounted `ConfigMap`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use behalf_policy::wire::BUNDLE_KEY;

use super::{Bundles, Expected, Intake, Offered, Source, Way};
use crate::admin::Block;
use crate::metrics::Metrics;

/// Looks at the file and offers what is in it.
pub struct BundleSource {
    file: PathBuf,
    intake: Arc<Intake>,
    seen: Option<Seen>,
    /// The highest serial the file has had. Kubelet is late, so that what lies between this and the one in use is an
    /// old acquaintance of the feed's, not somebody's replay.
    highest: u64,
}

impl std::fmt::Debug for BundleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleSource").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What tells one state of a file from another.
pub(crate) type Mark = (u64, u64, SystemTime, u64);
/// `None` stands for "no file".
type Seen = Option<Mark>;

impl BundleSource {
    /// A source that has not looked yet. `pending` keeps the sidecar unready until a bundle was taken, by either way.
    #[must_use]
    pub fn new(
        dir: &Path,
        expected: Expected,
        bundles: Bundles,
        metrics: Arc<Metrics>,
        pending: Block,
    ) -> Self {
        let intake = Arc::new(Intake::new(expected, bundles, metrics, pending));
        Self { file: dir.join(BUNDLE_KEY), intake, seen: None, highest: 0 }
    }

    /// The place that this one offers to, for the other way.
    #[must_use]
    pub fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.intake)
    }
}

impl Source for BundleSource {
    async fn look(&mut self) {
        let mark = mark(&self.file).await.ok();
        if self.seen == Some(mark) {
            return;
        }
        // Bytes that change while they are read leave another mark for the next look.
        self.seen = Some(mark);
        let bytes = tokio::fs::read(&self.file).await.ok();
        match self.intake.offer(Way::Directory, bytes.as_deref(), self.highest) {
            Offered::Taken(serial) | Offered::InUse(serial) | Offered::Behind(serial) => {
                self.highest = self.highest.max(serial);
            }
            Offered::Rejected => {}
        }
    }
}

/// The mark of a file, or why there is none.
pub(crate) async fn mark(file: &Path) -> std::io::Result<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(file).await?;
    Ok((metadata.dev(), metadata.ino(), metadata.modified()?, metadata.len()))
}
