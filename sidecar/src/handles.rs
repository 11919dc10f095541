//! One-call handles: what a server holds instead of the caller's token.
//!
//! The inbound side opens a handle for a permit that names downstreams and ends it with the response; the
//! outbound side redeems it, once per downstream request. A handle is 128 random bits, known only by its
//! digest in here, and worth nothing outside this process: after a restart every handle is unknown.

mod wanted;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use behalf_policy::bundle::HttpMethod;
use behalf_policy::claims::Caller;
use behalf_policy::decide::Operation;
use behalf_policy::ids::{Timestamp, ToolName};
use secrecy::SecretString;
use zeroize::Zeroizing;

pub(crate) use wanted::Want;
pub use wanted::Wanted;

use crate::provider::frame::Frame;

/// What every handle starts with, so that a dead or foreign one is known from a credential of the
/// server's own and can be removed.
pub const PREFIX: &str = "behalf_";
/// No handle lives longer than this many seconds.
pub const MAX_LIFE: u32 = 600;
/// So many calls may be open at once in one pod.
const MAX_OPEN: usize = 16 * 1024;
/// Length of 16 bytes in base64url without padding.
const RANDOM_LEN: usize = 22;

type Digest = [u8; 32];

/// A permitted call that is still open. Holds the caller's token, which goes to the provider only.
pub struct OpenCall {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The caller's token, as it came: the subject token of exchanges.
    pub token: SecretString,
    /// The tool that was permitted.
    pub tool: ToolName,
    /// The JSON text of its arguments, where its tool has conditions on them; else they are not known any more.
    pub arguments: Option<String>,
    /// Method and path, where a request of a plain HTTP API was permitted; the tool is the name of its row then.
    pub route: Option<(HttpMethod, String)>,
    /// Identifies the inbound request, for the records of what it leads to.
    pub request_id: String,
    /// When it was permitted.
    pub opened: Timestamp,
    /// Seconds that the handle outlives an answer that came to its end.
    pub grace: u32,
    /// What the caller knows the call by, so that it can cancel it.
    pub name: Option<CallName>,
    /// What is wanted of the caller, as far as the way out has learnt it.
    pub wanted: Wanted,
}

/// What a caller knows its call by: who it is, in which session, under which `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallName(Digest);

impl CallName {
    /// `principal` tells one caller from every other; `id` is the JSON text of the request's `id`.
    #[must_use]
    pub fn new(principal: &[u8; 32], session: Option<&str>, id: &str) -> Self {
        let mut frame = Frame::new("call");
        frame.bytes(principal).optional(session).text(id);
        Self(frame.finish())
    }
}

impl OpenCall {
    /// What was permitted, to be decided again.
    #[must_use]
    pub fn operation(&self) -> Operation<'_> {
        let tool = self.tool.as_str();
        if let Some((method, path)) = &self.route {
            return Operation::Http(*method, path);
        }
        match &self.arguments {
            Some(arguments) => Operation::CallWith(tool, Some(arguments)),
            None => Operation::CallTool(tool),
        }
    }

    /// When the handle of this call ends at the latest.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        self.caller.expires.min(self.opened.plus(MAX_LIFE))
    }
}

impl fmt::Debug for OpenCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenCall").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// Why a handle buys nothing. Made-up, ended and another pod's handles cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum HandleRefusal {
    /// None came.
    #[error("the request carries no handle")]
    NoHandle,
    /// No open call of this pod has it.
    #[error("the handle belongs to no open call")]
    UnknownHandle,
    /// Its call is still open, but its time is over.
    #[error("the handle has expired")]
    HandleExpired,
}

impl HandleRefusal {
    /// Stable name, for records, metrics and answers.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHandle => "NoHandle",
            Self::UnknownHandle => "UnknownHandle",
            Self::HandleExpired => "HandleExpired",
        }
    }
}

/// Why no handle could be opened: the call must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too many calls are open.
    #[error("too many calls are open")]
    TooManyOpenCalls,
    /// The random source failed.
    #[error("the random source failed")]
    NoRandom,
}

impl OpenError {
    /// Stable name, for records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooManyOpenCalls => "TooManyOpenCalls",
            Self::NoRandom => "NoRandom",
        }
    }
}

/// The open handles of this pod. Clones are the same set.
#[derive(Clone)]
pub struct Handles {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<Table>,
    random: SystemRandom,
}

#[derive(Default)]
struct Table {
    open: HashMap<Digest, Entry>,
    /// Calls whose answer has ended, by when their grace has; looked through when handles are opened.
    lingering: VecDeque<(Timestamp, Digest)>,
}

struct Entry {
    call: Arc<OpenCall>,
    uses: Arc<AtomicU32>,
    /// From when to when it outlives its answer, once that has ended.
    grace: Option<(Timestamp, Timestamp)>,
}

impl Entry {
    /// Why it is over, if it is. A clock that was set back prolongs no grace.
    fn over(&self, now: Timestamp) -> Option<HandleRefusal> {
        if now >= self.call.ends() {
            return Some(HandleRefusal::HandleExpired);
        }
        let lingers = |(from, until)| now >= from && now < until;
        (!self.grace.is_none_or(lingers)).then_some(HandleRefusal::UnknownHandle)
    }
}

impl Table {
    /// Forgets the calls whose grace has ended, and with them their callers' tokens.
    fn sweep(&mut self, now: Timestamp) {
        while self.lingering.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.lingering.pop_front() {
                self.open.remove(&key);
            }
        }
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::new()
    }
}

impl Handles {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner { table: Mutex::default(), random: SystemRandom::new() }) }
    }

    /// Mints a handle for a permitted call. It ends when what is returned is dropped or told that the
    /// answer has ended, when the call is cancelled, and at the latest at [`OpenCall::ends`].
    ///
    /// # Errors
    /// When too many calls are open or the random source fails: nothing was opened.
    pub fn open(&self, call: OpenCall) -> Result<OpenHandle, OpenError> {
        let mut random = Zeroizing::new([0_u8; 16]);
        self.inner.random.fill(random.as_mut_slice()).map_err(|_| OpenError::NoRandom)?;
        let text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
        let key = digest_of(&text);
        let uses = Arc::new(AtomicU32::new(0));
        let wanted = call.wanted.clone();
        let mut table = self.lock();
        table.sweep(call.opened);
        if table.open.len() >= MAX_OPEN {
            return Err(OpenError::TooManyOpenCalls);
        }
        table.open.insert(key, Entry { call: Arc::new(call), uses: Arc::clone(&uses), grace: None });
        drop(table);
        Ok(OpenHandle { text, key, uses, wanted, handles: self.clone(), lingers: false })
    }

    /// The open call of a handle; counts the use.
    ///
    /// # Errors
    /// When it is empty, of no open call, or over.
    pub fn redeem(&self, text: &str, now: Timestamp) -> Result<Arc<OpenCall>, HandleRefusal> {
        self.find(text, now, true)
    }

    /// Whether a handle is still good; counts nothing.
    ///
    /// # Errors
    /// When it is empty, of no open call, or over.
    pub fn check(&self, text: &str, now: Timestamp) -> Result<(), HandleRefusal> {
        self.find(text, now, false).map(drop)
    }

    /// Ends the handles of every call of this name.
    pub fn cancel(&self, name: &CallName) {
        let mut cancelled = Vec::new();
        let mut table = self.lock();
        table.open.retain(|_, entry| {
            let keep = entry.call.name.as_ref() != Some(name);
            if !keep {
                cancelled.push(Arc::clone(&entry.call));
            }
            keep
        });
        drop(table);
        // The callers' tokens are wiped outside of the lock.
        drop(cancelled);
    }

    /// How many calls are open, or outlive their answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// True when no call is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, text: &str, now: Timestamp, count: bool) -> Result<Arc<OpenCall>, HandleRefusal> {
        if text.is_empty() {
            return Err(HandleRefusal::NoHandle);
        }
        let table = self.lock();
        let entry = table.open.get(&digest_of(text)).ok_or(HandleRefusal::UnknownHandle)?;
        if let Some(refusal) = entry.over(now) {
            return Err(refusal);
        }
        if count {
            entry.uses.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Arc::clone(&entry.call))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in the sections can leave the table half-changed, so a poisoned lock is still whole.
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the text is written like a handle, dead or alive, of this pod or another.
#[must_use]
pub fn is_handle_shaped(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == RANDOM_LEN
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

/// True when what is written like a handle stands anywhere in these bytes.
#[must_use]
pub fn holds_handle(bytes: &[u8]) -> bool {
    let len = PREFIX.len().saturating_add(RANDOM_LEN);
    let begins = |w: &&[u8]| w.starts_with(PREFIX.as_bytes());
    bytes.windows(len).filter(begins).any(|w| std::str::from_utf8(w).is_ok_and(is_handle_shaped))
}

/// Keeps a handle alive; dropping it ends the handle at once, without grace.
pub struct OpenHandle {
    text: Zeroizing<String>,
    key: Digest,
    uses: Arc<AtomicU32>,
    wanted: Wanted,
    handles: Handles,
    lingers: bool,
}

impl OpenHandle {
    /// The handle, for the carriers towards the server. Never for a log or record.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How often it has been redeemed.
    #[must_use]
    pub fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Where the way out leaves what is wanted of the caller.
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.clone()
    }

    /// The answer of the call has come to its end: the handle lives for its grace, and no longer. Where
    /// the call ends in another way, because its caller left or the answer broke off, there is none.
    pub fn answer_ended(mut self, now: Timestamp) {
        let mut table = self.handles.lock();
        table.sweep(now);
        let Some(entry) = table.open.get_mut(&self.key) else { return };
        let until = now.plus(entry.call.grace);
        if until > now {
            entry.grace = Some((now, until));
            table.lingering.push_back((until, self.key));
            self.lingers = true;
        }
    }
}

impl fmt::Debug for OpenHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenHandle").finish_non_exhaustive()
    }
}

impl Drop for OpenHandle {
    fn drop(&mut self) {
        if self.lingers {
            return;
        }
        let ended = self.handles.lock().open.remove(&self.key);
        // The caller's token is wiped outside of the lock.
        drop(ended);
    }
}

fn digest_of(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}
