//! Decision records: one JSON line each, in order, chained, never sampled, never dropped.
//!
//! Records go through a bounded queue to a thread of their own. When the reader of the lines is slow the queue fills and
//! requests wait; while a file cannot be written no request is served, because it could not be recorded, until it can be
//! written again; when standard output breaks, none is served any more. In strict mode a request goes on only when its
//! intent is durable, and an answer only when its record is: refusals for a full disk are recorded in a reserve of the file,
//! and without room there either nobody gets an answer.

mod chain;
mod file;
mod options;
mod otlp;
mod writer;

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::record::{CHAIN_SCHEMA, Direction, Kind, Mode, Record, SCHEMA};
use tokio::sync::{mpsc, oneshot};

use self::chain::Chain;
use self::file::{FileSink, Found};
pub use self::options::Options;
pub use self::otlp::{ExportError, Exported, Exporter, authorities};
use self::writer::{Item, Message, Sinks, Told, Writer};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Records that may wait for the writer before requests do.
const QUEUE: usize = 1024;
/// Lines that may wait to be exported; further ones are not exported.
const EXPORT_QUEUE: usize = 4096;

/// Why a record could not be handed over or written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Standard output failed; nothing can be recorded any more.
    #[error("the sink of decision records is broken")]
    Broken,
    /// It cannot be written now; it may be later.
    #[error("decision records cannot be written now")]
    Unavailable,
    /// There is nowhere to write to.
    #[error("records go neither to standard output nor to a file")]
    NoSink,
    /// The file cannot be used.
    #[error("the file of records {path} cannot be used")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
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
    /// Hands the record over. `request` ties it to its intent.
    pub(crate) fn write(self, record: Box<Record>, request: Option<u64>) {
        self.0.send(Message::Record(Item { record, request, done: None }));
    }

    /// The same; what is given tells whether the record was written. One that was not is not kept.
    pub(crate) fn write_now(self, record: Box<Record>, request: Option<u64>) -> oneshot::Receiver<bool> {
        let (done, written) = oneshot::channel();
        self.0.send(Message::Record(Item { record, request, done: Some(done) }));
        written
    }
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
    mode: Mode,
    told: Arc<Told>,
    requests: AtomicU64,
}

/// Tells when the last record is written.
#[derive(Debug)]
pub struct LastWritten(std_mpsc::Receiver<()>);

impl LastWritten {
    /// Waits until everybody who could hand over a record is gone and all they handed over was tried.
    pub fn wait(&self, within: Duration) {
        if matches!(self.0.recv_timeout(within), Err(std_mpsc::RecvTimeoutError::Timeout)) {
            tracing::warn!("decision records were still being handed over at the end");
        }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("boot", &self.0.boot).finish_non_exhaustive()
    }
}

/// A running writer and what belongs to it.
pub struct Started {
    /// Where records are handed over.
    pub audit: Audit,
    /// Tells when the last one is written.
    pub last: LastWritten,
    /// What is to be exported, if anything is.
    pub export: Option<mpsc::Receiver<Exported>>,
}

impl Audit {
    /// Starts the thread that writes to `sink` alone.
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
        let options = Options::default();
        Ok(Self::with(&options, sink, namespace, identity, clock, metrics)?.audit)
    }

    /// Starts the thread that writes to what the options name; `stdout` stands for standard output.
    ///
    /// # Errors
    /// When there is nowhere to write to, the file cannot be used, or there are no random bytes or no thread.
    pub fn with(
        options: &Options,
        stdout: impl Write + Send + 'static,
        namespace: &str,
        identity: &str,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Started, AuditError> {
        let mut random = [0_u8; 16];
        let mut salt = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| AuditError::Start)?;
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| AuditError::Start)?;
        let boot = URL_SAFE_NO_PAD.encode(random);
        let (mut file, mut found) = (None, Found::default());
        if let Some(path) = &options.file {
            let strict = options.mode == Mode::Strict;
            let opened = FileSink::open(path, options, strict)
                .map_err(|source| AuditError::File { path: path.clone(), source })?;
            if !opened.0.holds() {
                tracing::warn!(
                    path = %path.display(),
                    "the file system cannot hold blocks for records (fallocate): while the disk is full, nothing is recorded, \
                     and in strict mode nobody gets an answer"
                );
            }
            (file, found) = (Some(opened.0), opened.1);
        } else if !options.stdout {
            return Err(AuditError::NoSink);
        }
        let (exporting, export) = match options.otlp_url {
            Some(_) => Some(mpsc::channel(EXPORT_QUEUE)).unzip(),
            None => (None, None),
        };
        let stdout = options.stdout.then(|| Box::new(stdout) as Box<dyn Write + Send>);
        let (queue, receiver) = mpsc::channel(QUEUE);
        let told = Arc::new(Told::default());
        let writer = Writer {
            queue: receiver,
            sinks: Sinks { file, stdout, otlp: exporting },
            chain: Chain::new(namespace, identity, &boot, options.mode, found),
            told: Arc::clone(&told),
            clock: clock.clone(),
            metrics,
            kept: VecDeque::new(),
            unrecorded: 0,
            retry: None,
            spent: false,
        };
        let last = spawn(writer)?;
        let audit = Self(Arc::new(Inner {
            queue,
            clock,
            boot,
            salt,
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            mode: options.mode,
            told,
            requests: AtomicU64::new(0),
        }));
        Ok(Started { audit, last, export })
    }

    /// False when records cannot be written; then nothing may be served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.queue.is_closed() && !self.0.told.failing.load(Ordering::SeqCst)
    }

    /// Whether a request waits for its intent, and an answer for its record.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.0.mode == Mode::Strict
    }

    /// The random name of this start of the sidecar, which every record carries.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// Sequence and hash of the last line that was written; none before the first.
    #[must_use]
    pub fn head(&self) -> Option<(u64, String)> {
        self.0.told.head()
    }

    /// A record of now, to be completed. Its place in the chain is set when it is written.
    #[must_use]
    pub fn blank(&self, direction: Direction, request_id: &str) -> Record {
        Record {
            schema: SCHEMA,
            kind: None,
            time: self.0.clock.rfc3339(),
            sequence: 0,
            boot: self.0.boot.clone(),
            previous: String::new(),
            intent: None,
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
            actors: Vec::new(),
            client: None,
            method: None,
            tool: None,
            scopes_presented: Vec::new(),
            scopes_required: Vec::new(),
            scopes_missing: Vec::new(),
            rate_limit: None,
            downstream: None,
            exchange: None,
            catalog_revision: None,
            bundle_serial: None,
            token_id_hash: None,
            token_bound_to: Vec::new(),
        }
    }

    /// Writes that this request is about to leave, and waits until that is written. Gives what ties the outcome to it.
    ///
    /// # Errors
    /// It could not be written: then nothing may leave.
    pub(crate) async fn intend(&self, request: u64, record: &Record) -> Result<(), AuditError> {
        let intent = Record { schema: CHAIN_SCHEMA, kind: Some(Kind::Intent), ..record.clone() };
        match self.reserve().await?.write_now(Box::new(intent), Some(request)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AuditError::Unavailable),
            Err(_) => Err(AuditError::Broken),
        }
    }

    /// A number that no other request of this boot has.
    pub(crate) fn next_request(&self) -> u64 {
        self.0.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a record over; waits while the queue is full.
    ///
    /// A caller that may be dropped while it waits takes a [`Slot`] first, so that its record is not lost.
    ///
    /// # Errors
    /// When the sink is broken.
    pub async fn record(&self, record: Record) -> Result<(), AuditError> {
        self.reserve().await?.write(Box::new(record), None);
        Ok(())
    }

    /// Hands a record over from where nothing can be waited for. While there is a place it is handed over before this
    /// returns, so that a [`Self::flush`] that follows writes it.
    pub fn record_late(&self, record: Box<Record>, request: Option<u64>) {
        let item = Item { record, request, done: None };
        let message = match self.0.queue.try_send(Message::Record(item)) {
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

    /// Waits until everything handed over so far is written, or cannot be.
    pub async fn flush(&self) {
        self.told(Message::Flush).await;
    }

    /// The same, after a line that says that every request was ended and recorded. Nothing is taken later.
    pub async fn end(&self) {
        self.told(Message::End).await;
    }

    async fn told(&self, message: impl FnOnce(oneshot::Sender<()>) -> Message) {
        let (done, written) = oneshot::channel();
        if self.0.queue.send(message(done)).await.is_ok() {
            // An error says that the sink broke, which its thread has logged.
            let _ = written.await;
        }
    }

    /// A token id as it may be recorded: hashed with the salt of the installation, so that records of all its pods can be
    /// joined by it; without one with a salt of this boot.
    #[must_use]
    pub fn hash_token_id(&self, salt: Option<&str>, token_id: &str) -> String {
        let salt = salt.map_or(self.0.salt.as_slice(), str::as_bytes);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, salt);
        let tag = aws_lc_rs::hmac::sign(&key, token_id.as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

fn spawn(writer: Writer) -> Result<LastWritten, AuditError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|_| AuditError::Start)?;
    let (ended, last) = std_mpsc::channel();
    let written = move || {
        if let Err(error) = runtime.block_on(writer.run()) {
            tracing::error!(%error, "decision records can no longer be written");
        }
        drop(ended);
    };
    thread::Builder::new().name("audit".to_owned()).spawn(written).map_err(|_| AuditError::Start)?;
    Ok(LastWritten(last))
}
