//! Whose the states of open questions and the tasks are that the server gave out (C19, D34).
//!
//! They are remembered by digest as they pass, and nothing of them is changed. One that this sidecar did not see given
//! out, because it was restarted, because another replica answered or because too many were given out since, is
//! refused like another principal's: its caller starts the call anew.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use behalf_policy::bundle::Policy;
use behalf_policy::decide::Operation;
use behalf_policy::envelope::{Message, Target};
use behalf_policy::returnable::{EventReader, Returnable, in_message};
use bytes::Bytes;
use hyper::body::{Body, Frame as BodyFrame};

use super::body::{AnswerBody, BodyError};
use super::sessions::Principal;
use crate::provider::frame::Frame;

/// So many are remembered.
const REMEMBERED: u64 = 50_000;
const IDLE: Duration = Duration::from_hours(24);
/// Arguments of a task's call are kept up to this many bytes, where conditions ask for them.
const MAX_ARGUMENTS: usize = 16 * 1024;

/// The call that a task was made by.
#[derive(Debug, Clone)]
pub(super) struct Made {
    principal: Principal,
    tool: Option<String>,
    arguments: Option<String>,
}

impl Made {
    /// By this message of this principal.
    pub(super) fn by(message: &Message, principal: Principal, policy: &Policy) -> Self {
        let tool = match message.target() {
            Target::ToolCall { name } => Some(name.clone()),
            _ => None,
        };
        let conditions = tool.as_deref().and_then(|name| policy.server.tools.get(name));
        let keep = conditions.is_some_and(|tool| !tool.conditions.is_empty());
        let arguments = keep.then(|| message.arguments().unwrap_or("{}"));
        let arguments = arguments.filter(|text| text.len() <= MAX_ARGUMENTS).map(str::to_owned);
        Self { principal, tool, arguments }
    }

    /// What is asked again of policy whenever the task is asked about.
    pub(super) fn operation(&self) -> Operation<'_> {
        match (&self.tool, &self.arguments) {
            (Some(tool), Some(arguments)) => Operation::CallWith(tool, Some(arguments)),
            // Arguments that were not kept are not known: with conditions on them the task is refused.
            (Some(tool), None) => Operation::CallTool(tool),
            (None, _) => Operation::Other,
        }
    }
}

/// What the server gave out and to whom. A cheap clone is the same.
#[derive(Clone)]
pub(super) struct Owned(moka::sync::Cache<[u8; 32], Made>);

impl Owned {
    pub(super) fn new() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build())
    }

    /// Remembers to whom it was given. The first one keeps it.
    pub(super) fn remember(&self, given: &Returnable, made: &Made) {
        let key = match given {
            Returnable::State(state) => key("state", state),
            Returnable::Task(id) => key("task", id),
        };
        self.0.get_with(key, || made.clone());
    }

    /// Whether the message comes back only with what is its principal's own; for a task, by which call it was made.
    ///
    /// # Errors
    /// When something in it is unknown or another principal's.
    pub(super) fn check(&self, message: &Message, principal: Principal) -> Result<Option<Made>, NotOwned> {
        let own = |key: [u8; 32]| self.0.get(&key).filter(|made| made.principal == principal).ok_or(NotOwned);
        // Its JSON text is decoded, so that what was given out and what comes back are compared as the server does.
        if let Some(json) = message.param("requestState") {
            let state: String = serde_json::from_str(json).map_err(|_| NotOwned)?;
            own(key("state", &state))?;
        }
        match message.target() {
            Target::Task { id } => own(key("task", id)).map(Some),
            Target::Subscribe { tasks, .. } => {
                tasks.iter().try_for_each(|id| own(key("task", id)).map(drop)).map(|()| None)
            }
            _ => Ok(None),
        }
    }
}

/// Not this principal's, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOwned;

fn key(kind: &str, value: &str) -> [u8; 32] {
    let mut frame = Frame::new("owned");
    frame.text(kind).text(value);
    frame.finish()
}

/// How an answer is read as it passes.
pub(super) enum Reading {
    /// Event by event.
    Events(EventReader),
    /// As one message, whose last bytes wait until it was read.
    Whole {
        /// What has passed; none once it is more than can be read.
        seen: Option<Vec<u8>>,
        /// What may not pass yet.
        last: Option<Bytes>,
    },
}

/// An answer that is remembered for what it gives to come back with, and passes unchanged.
pub(super) struct Remembered {
    body: AnswerBody,
    reading: Reading,
    owned: Owned,
    made: Made,
    limit: usize,
    ended: bool,
}

impl Remembered {
    /// `limit` bounds what is kept of a message or event until it was read.
    pub(super) fn new(body: AnswerBody, events: bool, limit: usize, owned: Owned, made: Made) -> Self {
        let reading = if events {
            Reading::Events(EventReader::new(limit))
        } else {
            Reading::Whole { seen: Some(Vec::new()), last: None }
        };
        Self { body, reading, owned, made, limit, ended: false }
    }

    fn remember(&self, given: &[Returnable]) {
        for given in given {
            self.owned.remember(given, &self.made);
        }
    }
}

impl Body for Remembered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let polled = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
            let this = &mut *self;
            let data = match polled {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.ended = true;
                    let Reading::Whole { seen, last } = &mut this.reading else { return Poll::Ready(None) };
                    let (seen, last) = (seen.take(), last.take());
                    this.remember(&in_message(&seen.unwrap_or_default()));
                    return Poll::Ready(last.map(|data| Ok(BodyFrame::data(data))));
                }
            };
            match &mut this.reading {
                Reading::Events(reader) => {
                    let given = reader.feed(&data);
                    this.remember(&given);
                    return Poll::Ready(Some(Ok(BodyFrame::data(data))));
                }
                Reading::Whole { seen, last } => {
                    if let Some(so_far) = seen {
                        if so_far.len().saturating_add(data.len()) > this.limit {
                            *seen = None;
                        } else {
                            so_far.extend_from_slice(&data);
                        }
                    }
                    if let Some(earlier) = last.replace(data) {
                        return Poll::Ready(Some(Ok(BodyFrame::data(earlier))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // What waits must still be asked for.
        self.ended
    }
}
