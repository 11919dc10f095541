//! The orderly end: not ready any more, nothing new accepted, open calls waited for, within a bound.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Held by the root; starting it tells every [`Draining`].
#[derive(Debug)]
pub struct Drain {
    started: watch::Sender<bool>,
    open: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

/// Held by whoever must end: a connection ends when it sees [`Draining::started`], and the drain waits
/// until every clone is dropped.
#[derive(Debug, Clone)]
pub struct Draining {
    started: watch::Receiver<bool>,
    _open: mpsc::Sender<()>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Not started.
    #[must_use]
    pub fn new() -> Self {
        let (started, _) = watch::channel(false);
        let (open, ended) = mpsc::channel(1);
        Self { started, open, ended }
    }

    /// One more who must end.
    #[must_use]
    pub fn watch(&self) -> Draining {
        Draining { started: self.started.subscribe(), _open: self.open.clone() }
    }

    /// Tells everyone and waits until all have ended. False when `deadline` passed before that.
    pub async fn drain(self, deadline: Duration) -> bool {
        let Self { started, open, mut ended } = self;
        started.send_replace(true);
        drop(open);
        tokio::time::timeout(deadline, ended.recv()).await.is_ok()
    }
}

impl Draining {
    /// Resolves once the drain has started.
    pub async fn started(&mut self) {
        // An error means that the root is gone, which is the end as well.
        let _ = self.started.wait_for(|started| *started).await;
    }
}

/// Resolves when the process is asked to end.
///
/// # Errors
/// When the signal handlers cannot be set.
pub async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
