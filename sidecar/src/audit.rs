//! The sink of decision records: one JSON line each, in order, never sampled, never dropped.
//!
//! Records go through a bounded queue to a thread of their own. When the reader of the lines is slow the
//! queue fills and requests wait; when the sink breaks, no further request is served, because it could
//! not be recorded.

use std::io::Write;
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::record::{Direction, Record, SCHEMA};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// Records that may wait for the sink before requests do.
const QUEUE: usize = 1024;

/// Why a record could not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The sink failed; nothing can be recorded any more.
    #[error("the sink of decision records is broken")]
    Broken,
    /// The operating system gave no random bytes or no thread.
    #[error("the sink of decision records could not be started")]
    Start,
}

/// A place in the queue.
pub struct Slot<'a>(mpsc::Permit<'a, Message>);

impl std::fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Slot<'_> {
    /// Hands the record over.
    pub fn write(self, record: Record) {
        self.0.send(Message::Record(Box::new(record)));
    }
}

enum Message {
    Record(Box<Record>),
    Flush(oneshot::Sender<()>),
}

/// A cheap clone writes to the same sink.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Message>,
    clock: Clock,
    boot: String,
    salt: [u8; 32],
    namespace: String,
    identity: String,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("boot", &self.0.boot).finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// When there are no random bytes for the boot id, or no thread.
    pub fn start(
        sink: impl Write + Send + 'static,
        namespace: &str,
        identity: &str,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AuditError> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let mut boot = [0_u8; 16];
        let mut salt = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut boot).map_err(|_| AuditError::Start)?;
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| AuditError::Start)?;
        let counting = clock.clone();
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                if let Err(error) = write(receiver, sink, &metrics, &counting) {
                    tracing::error!(%error, "decision records can no longer be written");
                }
            })
            .map_err(|_| AuditError::Start)?;
        Ok(Self(Arc::new(Inner {
            queue,
            clock,
            boot: URL_SAFE_NO_PAD.encode(boot),
            salt,
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
        })))
    }

    /// False when the sink broke; then nothing may be served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.queue.is_closed()
    }

    /// The random name of this start of the sidecar, which every record carries.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// A record of now, to be completed. Its sequence is set when it is written.
    #[must_use]
    pub fn blank(&self, direction: Direction, request_id: &str) -> Record {
        Record {
            schema: SCHEMA,
            time: self.0.clock.rfc3339(),
            sequence: 0,
            boot: self.0.boot.clone(),
            namespace: self.0.namespace.clone(),
            identity: self.0.identity.clone(),
            direction,
            request_id: request_id.to_owned(),
            trace_id: None,
            decision: "Refuse",
            reason: None,
            stage: None,
            status: 0,
            provider: None,
            subject: None,
            client: None,
            method: None,
            tool: None,
            scopes_presented: Vec::new(),
            scopes_missing: Vec::new(),
            downstream: None,
            exchange: None,
            catalog_revision: None,
            bundle_serial: None,
            token_id_hash: None,
        }
    }

    /// Hands a record over; waits while the queue is full.
    ///
    /// A caller that may be dropped while it waits takes a [`Slot`] first, so that its record is not lost.
    ///
    /// # Errors
    /// When the sink is broken.
    pub async fn record(&self, record: Record) -> Result<(), AuditError> {
        self.reserve().await?.write(record);
        Ok(())
    }

    /// Hands a record over from where nothing can be waited for. While there is a place it is handed over before this
    /// returns, so that a [`Self::flush`] that follows writes it.
    pub fn record_late(&self, record: Box<Record>) {
        let message = match self.0.queue.try_send(Message::Record(record)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(message)) => message,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::error!("a decision record was lost with its sink");
                return;
            }
        };
        // Without a runtime the process is ending, and its connections with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let queue = self.0.queue.clone();
        runtime.spawn(async move {
            if queue.send(message).await.is_err() {
                tracing::error!("a decision record was lost with its sink");
            }
        });
    }

    /// Waits for a place in the queue.
    ///
    /// # Errors
    /// When the sink is broken.
    pub async fn reserve(&self) -> Result<Slot<'_>, AuditError> {
        self.0.queue.reserve().await.map(Slot).map_err(|_| AuditError::Broken)
    }

    /// Waits until everything handed over so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.queue.send(Message::Flush(done)).await.is_ok() {
            // An error says that the sink broke, which its thread has logged.
            let _ = written.await;
        }
    }

    /// A token id as it may be recorded: hashed with a salt of this boot, so that records of one boot can
    /// be joined by it and nothing else can.
    #[must_use]
    pub fn hash_token_id(&self, token_id: &str) -> String {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.0.salt);
        let tag = aws_lc_rs::hmac::sign(&key, token_id.as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

fn write(
    mut queue: mpsc::Receiver<Message>,
    sink: impl Write,
    metrics: &Metrics,
    clock: &Clock,
) -> Result<(), std::io::Error> {
    let mut sink = std::io::BufWriter::new(sink);
    let mut sequence = 0_u64;
    while let Some(message) = queue.blocking_recv() {
        match message {
            Message::Record(mut record) => {
                sequence = sequence.saturating_add(1);
                record.sequence = sequence;
                serde_json::to_writer(&mut sink, &record)?;
                sink.write_all(b"\n")?;
                metrics.decided(&record, clock.now());
            }
            Message::Flush(done) => {
                sink.flush()?;
                // The asker may be gone.
                let _ = done.send(());
            }
        }
        if queue.is_empty() {
            sink.flush()?;
        }
    }
    sink.flush()
}
