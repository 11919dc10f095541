//! The thread that writes records: batch by batch, whole or not at all.
//!
//! While the disk is full, nothing waits for it: intents are refused, and decisions are written into the reserve of the file.
//! When that is used up or cannot be written either, records that somebody waits for are given back, and the others are kept
//! for later as far as there is room; those for which there is none are counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use behalf_policy::record::{Kind, Record};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::chain::{Chain, Line, Written};
use super::file::{FileSink, Room};
use super::otlp::Exported;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Lines that are written at once.
const BATCH: usize = 256;
/// Records that are kept while nothing can be written.
const KEPT: usize = 1024;
/// How often a file that cannot be written is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What is handed to the thread.
pub(super) enum Message {
    /// A record or an intent.
    Record(Item),
    /// Tells when all that came before was tried.
    Flush(oneshot::Sender<()>),
    /// The same, after a line that says that this is the end.
    End(oneshot::Sender<()>),
}

/// A record on its way.
pub(super) struct Item {
    pub(super) record: Box<Record>,
    /// Ties an outcome to its intent.
    pub(super) request: Option<u64>,
    /// Gets true when the line is written (and durable in a file of strict mode), false when it could not be and will not.
    pub(super) done: Option<oneshot::Sender<bool>>,
}

/// What the thread tells the others.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) failing: AtomicBool,
    head: Mutex<Option<(u64, String)>>,
}

impl Told {
    pub(super) fn head(&self) -> Option<(u64, String)> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where lines go.
pub(super) struct Sinks {
    pub(super) file: Option<FileSink>,
    pub(super) stdout: Option<Box<dyn Write + Send>>,
    pub(super) otlp: Option<mpsc::Sender<Exported>>,
}

pub(super) struct Writer {
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) sinks: Sinks,
    pub(super) chain: Chain,
    pub(super) told: Arc<Told>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) kept: VecDeque<Item>,
    pub(super) unrecorded: u64,
    /// When ordinary room is looked for again; none while there is some.
    pub(super) retry: Option<Instant>,
    /// Nor is there room in the reserve.
    pub(super) spent: bool,
}

impl Writer {
    /// Writes until the end was written, or nobody hands anything over any more. Then the file is anybody's.
    ///
    /// # Errors
    /// Standard output is gone: what it got cannot be taken back, so nothing can be tried again.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.write(Vec::new(), false, true)?;
        let mut waiting = Vec::new();
        loop {
            let first = match self.retry {
                None => self.queue.recv().await,
                Some(at) => {
                    let Ok(first) = tokio::time::timeout_at(at, self.queue.recv()).await else {
                        self.write(Vec::new(), false, true)?;
                        continue;
                    };
                    first
                }
            };
            let Some(first) = first else { break };
            let (mut items, mut next) = (Vec::new(), Some(first));
            let mut end = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Record(item) => items.push(item),
                    Message::Flush(done) => waiting.push(done),
                    Message::End(done) => {
                        waiting.push(done);
                        end = true;
                    }
                }
                if items.len() < BATCH && !end {
                    next = self.queue.try_recv().ok();
                }
            }
            let due = self.retry.is_none_or(|at| at <= Instant::now());
            self.write(items, end, due || end || !waiting.is_empty())?;
            if end {
                break;
            }
            for done in waiting.drain(..) {
                // The asker may be gone.
                let _ = done.send(());
            }
        }
        if self.retry.is_some() {
            self.write(Vec::new(), false, true)?;
        }
        let lost = self.unrecorded.saturating_add(u64::try_from(self.kept.len()).unwrap_or(u64::MAX));
        if lost > 0 {
            tracing::error!(lost, "decision records could not be written before the end");
        }
        let Self { queue, sinks, .. } = self;
        let synced = sinks.file.as_ref().map_or(Ok(()), FileSink::sync);
        // Whoever hands something over now is told that it is too late.
        drop(queue);
        drop(sinks);
        for done in waiting {
            let _ = done.send(());
        }
        synced
    }

    /// Writes what was kept and what is new. `due`: ordinary room is looked for.
    fn write(&mut self, items: Vec<Item>, end: bool, due: bool) -> io::Result<()> {
        let kept = std::mem::take(&mut self.kept);
        let mut held = kept.len();
        let mut all: Vec<Item> = kept.into_iter().chain(items).collect();
        if due {
            let Some(error) = self.put(&mut all, held, end, Room::Ordinary)? else {
                self.recovered();
                return Ok(());
            };
            self.failed(&error);
            self.spent = false;
        }
        // What is about to leave needs ordinary room. The others only say what was decided.
        let (intents, mut rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|item| item.record.kind == Some(Kind::Intent));
        self.put_off(intents);
        if !self.spent && (end || self.unrecorded > 0 || !rest.is_empty() || self.chain.is_new()) {
            // None of those that were kept was an intent.
            held = held.min(rest.len());
            self.spent = self.put(&mut rest, held, end, Room::Reserve)?.is_some();
        }
        if let Some(file) = &self.sinks.file {
            self.metrics.records.reserve(file.left());
        }
        let new = rest.split_off(held.min(rest.len()));
        self.kept = rest.into();
        self.put_off(new);
        Ok(())
    }

    /// Writes all of them or none; gives why not. Those that are written are taken out.
    fn put(
        &mut self,
        all: &mut Vec<Item>,
        held: usize,
        end: bool,
        room: Room,
    ) -> io::Result<Option<io::Error>> {
        let (lines, written) = self.draft(all, held, end)?;
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.text.len().saturating_add(1)).sum());
        for line in &lines {
            bytes.extend_from_slice(&line.text);
            bytes.push(b'\n');
        }
        if let Some(file) = &mut self.sinks.file
            && let Err(error) = file.append(&bytes, room)
        {
            return Ok(Some(error));
        }
        if let Some(stdout) = &mut self.sinks.stdout
            && !bytes.is_empty()
        {
            stdout.write_all(&bytes)?;
            stdout.flush()?;
        }
        self.chain.commit(written);
        *self.told.head.lock().unwrap_or_else(PoisonError::into_inner) = self.chain.head();
        self.unrecorded = 0;
        self.export(lines);
        for item in all.drain(..) {
            self.wrote(item);
        }
        Ok(None)
    }

    /// The lines of what was kept, of what is only counted, and of what is new.
    fn draft(&self, all: &mut [Item], held: usize, end: bool) -> io::Result<(Vec<Line>, Written)> {
        let time = self.clock.rfc3339();
        let mut draft = self.chain.draft(&time)?;
        let all_held = all.len() == held;
        for (at, item) in all.iter_mut().enumerate() {
            if at == held && self.unrecorded > 0 {
                draft.mark(Kind::Unrecorded, &time, Some(self.unrecorded))?;
            }
            draft.record(&mut item.record, item.request)?;
        }
        if self.unrecorded > 0 && all_held {
            draft.mark(Kind::Unrecorded, &time, Some(self.unrecorded))?;
        }
        if end {
            draft.mark(Kind::End, &time, None)?;
        }
        Ok(draft.finish())
    }

    /// Hands a copy of what was written to whoever sends it on.
    fn export(&self, lines: Vec<Line>) {
        let Some(otlp) = &self.sinks.otlp else { return };
        let millis = self.clock.millis();
        for line in lines {
            if otlp.try_send(Exported { line, millis }).is_err() {
                self.metrics.records.not_exported(1);
            }
        }
    }

    fn wrote(&self, item: Item) {
        if item.record.kind.is_none() {
            self.metrics.decided(&item.record, self.clock.now());
        }
        if let Some(done) = item.done {
            // The asker may be gone.
            let _ = done.send(true);
        }
    }

    /// What cannot be written now.
    fn put_off(&mut self, items: Vec<Item>) {
        for mut item in items {
            let given_back = item.done.take().is_some_and(|done| done.send(false).is_ok());
            if item.record.kind == Some(Kind::Intent) {
                continue;
            }
            if given_back {
                self.metrics.records.unanswered();
                continue;
            }
            if self.kept.len() < KEPT {
                self.kept.push_back(item);
            } else {
                self.unrecorded = self.unrecorded.saturating_add(1);
                self.metrics.records.unrecorded();
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.retry = Some(Instant::now() + RETRY);
        if !self.told.failing.swap(true, Ordering::SeqCst) {
            tracing::error!(%error, "decision records cannot be written; requests are refused until they can");
        }
        self.metrics.records.failing(true);
    }

    fn recovered(&mut self) {
        self.retry = None;
        if self.told.failing.swap(false, Ordering::SeqCst) {
            tracing::info!("decision records can be written again");
        }
        self.spent = false;
        self.metrics.records.failing(false);
        self.metrics.records.reserve(self.sinks.file.as_ref().map_or(0, FileSink::left));
    }
}
