//! The server's answer to a call of whose caller something is wanted: what failed because of it is not passed on, so that
//! the caller can be told what to do. What did not fail is the server's answer, however it was come by.
//!
//! An answer can be replaced as long as nothing of it was sent. The head of an event stream waits for the stream's first
//! bytes, since many servers send it before they do anything; events wait for nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use behalf_policy::interaction::{Answered, answered, first_event};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};

use super::body::{AnswerBody, BodyError};
use super::forward::is_kind;
use crate::handles::{Want, Wanted};

/// So long the head of an event stream waits at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer that is longer than this many bytes is not read: it goes out as it is.
const MAX_READ: usize = 256 * 1024;

/// What is known of an answer before anything of it is sent.
pub(super) enum Held {
    /// It is not said to have failed, or nothing is wanted.
    Goes(AnswerBody),
    /// It failed, and this is wanted.
    Failed(Arc<Want>),
    /// It may still fail: nobody can tell before it is sent.
    Begun(AnswerBody),
}

/// Looks at an answer. `id` is the JSON text of the request's id; none for a request of a plain HTTP API, which fails by
/// its status alone.
pub(super) async fn hold(head: &Parts, body: AnswerBody, wanted: &Wanted, id: Option<&str>) -> Held {
    if head.status.is_client_error() || head.status.is_server_error() {
        return wanted.get().map_or(Held::Goes(body), Held::Failed);
    }
    let Some(id) = id else { return Held::Goes(body) };
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Held::Begun(body);
    }
    let mut peeked = Peeked { read: BytesMut::new(), body, last: None };
    let events = is_kind(&head.headers, "text/event-stream");
    if events {
        // When its time is over it has begun, and goes on as it is.
        let _ = tokio::time::timeout(PATIENCE, peeked.first_event(wanted)).await;
    } else if is_kind(&head.headers, "application/json") {
        if wanted.get().is_none() {
            return Held::Begun(peeked.body);
        }
        peeked.whole().await;
    }
    let said = match (events, &peeked.last) {
        (true, _) => first_event(&peeked.read, peeked.has_ended()).map(|data| answered(&data, id)),
        (false, Some(Ok(()))) => Some(answered(&peeked.read, id)),
        (false, _) => None,
    };
    match (said, wanted.get()) {
        (Some(Answered::Failed), Some(want)) => Held::Failed(want),
        (Some(Answered::Otherwise), _) if !events => Held::Goes(peeked.boxed_unsync()),
        _ => Held::Begun(peeked.boxed_unsync()),
    }
}

/// A body whose beginning was read already.
struct Peeked {
    read: BytesMut,
    body: AnswerBody,
    /// How it ended, if it has.
    last: Option<Result<(), BodyError>>,
}

impl Peeked {
    /// Reads on; false when there is nothing more to come, or no room for it.
    async fn more(&mut self) -> bool {
        if self.last.is_some() || self.read.len() > MAX_READ {
            return false;
        }
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.read.extend_from_slice(&data);
                }
                true
            }
            Some(Err(error)) => {
                self.last = Some(Err(error));
                false
            }
            None => {
                self.last = Some(Ok(()));
                false
            }
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.last, Some(Ok(())))
    }

    /// Reads the first bytes; and the rest of the first event, if something is wanted by then.
    async fn first_event(&mut self, wanted: &Wanted) {
        while self.read.is_empty() {
            if !self.more().await {
                return;
            }
        }
        while wanted.get().is_some() && first_event(&self.read, self.has_ended()).is_none() {
            if !self.more().await {
                return;
            }
        }
    }

    async fn whole(&mut self) {
        while self.more().await {}
    }
}

impl Body for Peeked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read).freeze();
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match self.last.take() {
            Some(Ok(())) => {
                self.last = Some(Ok(()));
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.last = Some(Ok(()));
                Poll::Ready(Some(Err(error)))
            }
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && (self.has_ended() || (self.last.is_none() && self.body.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// An answer that was on its way before anything was wanted. When it is over and something is, that is recorded: nobody
/// was told.
pub(super) struct Untold {
    body: AnswerBody,
    wanted: Wanted,
    record: Option<Box<dyn FnOnce() + Send>>,
}

impl Untold {
    pub(super) fn new(body: AnswerBody, wanted: Wanted, record: impl FnOnce() + Send + 'static) -> Self {
        Self { body, wanted, record: Some(Box::new(record)) }
    }
}

impl Body for Untold {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(record) = self.record.take().filter(|_| self.wanted.get().is_some()) {
            record();
        }
    }
}
