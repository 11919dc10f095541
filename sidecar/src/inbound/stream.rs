//! An open event stream ends when its caller would be refused now: the token's time is over, the identity is
//! suspended, its client's certificate has ended, the bundle or the namespace's deny list no longer permits what was asked (C20). A stream that only waits
//! for news ends when this sidecar does, too (C30).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use behalf_policy::bundle::Timeouts;
use behalf_policy::claims::{Caller, TokenRefusal};
use behalf_policy::decide::{Operation, decide, decide_unknown_caller};
use behalf_policy::decision::{Decision, Reason};
use behalf_policy::envelope::{Era, Message, Target};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::api::Api;
use super::body::{AnswerBody, BodyError};
use super::connection::ConnectionClient;
use super::owned::Made;
use crate::bundle_source::{Active, Bundles};
use crate::clock::Clock;
use crate::drain::Draining;
use crate::token::Watch;

/// How often the clock and the bundle in use are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Names the subscription in every message of its stream (MCP 2026-07-28 basic/patterns/subscriptions).
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// What an open stream is judged by, again and again.
pub(super) struct Terms {
    pub(super) bundles: Bundles,
    pub(super) clock: Clock,
    /// Absent when authentication failed and is only recorded.
    pub(super) caller: Option<Arc<Caller>>,
    /// The caller's token, where its provider may withdraw it meanwhile.
    pub(super) token: Option<Watch>,
    /// The request that is answered; none for a stream of a session.
    pub(super) message: Option<Message>,
    /// The request of a plain HTTP API that is answered.
    pub(super) api: Option<Api>,
    /// The call that made the task which is asked about.
    pub(super) made: Option<Made>,
    /// What the stream was permitted by.
    pub(super) active: Arc<Active>,
    /// What its connection proved of the client.
    pub(super) client: ConnectionClient,
    /// Tells of the end of this sidecar.
    pub(super) draining: Option<Draining>,
    /// How long the stream may be silent, and open.
    pub(super) timeouts: Timeouts,
}

impl Terms {
    /// Whether the stream does nothing but wait for news.
    fn waits(&self) -> bool {
        let listens = |m: &Message| matches!(m.target(), Target::Subscribe { .. });
        self.api.is_none() && self.message.as_ref().is_none_or(listens)
    }

    /// The last message of a subscription, as the server would end it (MCP 2026-07-28 basic/patterns/subscriptions).
    fn goodbye(&self) -> Option<Bytes> {
        let message = self.message.as_ref().filter(|m| m.era() == Era::Modern && self.waits())?;
        let id = message.id_text()?;
        Some(Bytes::from(format!(
            "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\
             \"_meta\":{{\"{SUBSCRIPTION_ID}\":{id}}}}}}}\n\n"
        )))
    }

    /// Resolves when the stream must end: with the reason of a refusal, or none when this sidecar ends.
    async fn ended(mut self) -> Option<&'static str> {
        let mut draining = self.draining.take().filter(|_| self.waits());
        let total = Duration::from_secs(self.timeouts.stream.into());
        let opened = tokio::time::Instant::now();
        loop {
            if total > Duration::ZERO && opened.elapsed() >= total {
                return Some("StreamTooLong");
            }
            let drained = async {
                match &mut draining {
                    Some(draining) => draining.started().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drained => return None,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(reason) = self.refused() {
                return Some(reason);
            }
        }
    }

    fn refused(&mut self) -> Option<&'static str> {
        let now = self.clock.now();
        if self.caller.as_ref().is_some_and(|caller| now >= caller.expires) {
            return Some(Reason::SubjectExpired.as_str());
        }
        if self.token.as_ref().is_some_and(Watch::ended) {
            return Some(TokenRefusal::Inactive.as_str());
        }
        let active = self.bundles.current()?;
        let judged = self.caller.as_ref().and_then(|_| active.policy());
        if let Some(Err(refusal)) = judged.map(|(policy, prepared)| self.client.check(policy, prepared, now))
        {
            return Some(refusal.as_str());
        }
        if Arc::ptr_eq(&active, &self.active) {
            return None;
        }
        let operation = operation_of(self.made.as_ref(), self.message.as_ref(), self.api.as_ref());
        let refusal = match &self.caller {
            Some(caller) => match decide(&active.bundle, caller, operation, now) {
                Decision::Refuse(refusal) => Some(refusal),
                Decision::Permit(_) | Decision::WouldDeny(_) => None,
            },
            None => decide_unknown_caller(&active.bundle, operation).err(),
        };
        self.active = active;
        refusal.map(|refusal| refusal.reason.as_str())
    }
}

/// What policy is asked about a request whose tasks were found to be its principal's own.
pub(super) fn operation_of<'a>(
    made: Option<&'a Made>,
    message: Option<&'a Message>,
    api: Option<&'a Api>,
) -> Operation<'a> {
    match (made, message, api) {
        (Some(made), _, _) => made.operation(),
        (None, Some(message), _) => match message.target() {
            Target::Subscribe { uris, .. } => Operation::Subscribe(uris),
            _ => Operation::from(message),
        },
        (None, None, Some(api)) => api.operation(),
        (None, None, None) => Operation::Protocol,
    }
}

/// A stream that ends when its terms say so.
pub(super) struct Watched {
    body: Option<AnswerBody>,
    ended: Pin<Box<dyn Future<Output = Option<&'static str>> + Send>>,
    goodbye: Option<Bytes>,
    tail: Tail,
    idle: Option<Idle>,
    record: Option<Box<dyn FnOnce(&'static str) + Send>>,
}

impl Watched {
    /// `record` is told why the stream was ended, if it was.
    pub(super) fn new(
        body: AnswerBody,
        terms: Terms,
        record: impl FnOnce(&'static str) + Send + 'static,
    ) -> Self {
        let goodbye = terms.goodbye();
        let idle = Idle::after(terms.timeouts.stream_idle);
        Self {
            body: Some(body),
            ended: Box::pin(terms.ended()),
            goodbye,
            tail: Tail::default(),
            idle,
            record: Some(Box::new(record)),
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.body.is_none() {
            return Poll::Ready(None);
        }
        let silent = self.idle.as_mut().is_some_and(|idle| idle.0.as_mut().poll(context).is_ready());
        let ended = if silent { Poll::Ready(Some("StreamIdle")) } else { self.ended.as_mut().poll(context) };
        if let Poll::Ready(reason) = ended {
            // With it goes the request to the server, and the handle.
            self.body = None;
            if let (Some(reason), Some(record)) = (reason, self.record.take()) {
                record(reason);
            }
            // Within an event nothing can be said any more; what is not complete is thrown away by its reader.
            let goodbye = self.goodbye.take().filter(|_| self.tail.at_boundary());
            return Poll::Ready(goodbye.map(|text| Ok(Frame::data(text))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.tail.push(data);
                    self.idle.iter_mut().for_each(Idle::begin_again);
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.body = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The end of a silence that is too long.
struct Idle(Pin<Box<tokio::time::Sleep>>, Duration);

impl Idle {
    /// None for zero.
    fn after(seconds: u32) -> Option<Self> {
        let time = Duration::from_secs(seconds.into());
        (seconds > 0).then(|| Self(Box::pin(tokio::time::sleep(time)), time))
    }

    fn begin_again(&mut self) {
        if let Some(until) = tokio::time::Instant::now().checked_add(self.1) {
            self.0.as_mut().reset(until);
        }
    }
}

/// The last bytes of a stream: they tell whether an event has ended.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data.get(data.len().saturating_sub(4)..).unwrap_or_default());
        let more = self.0.len().saturating_sub(4);
        self.0.drain(..more);
    }

    /// At the start, or after a blank line.
    fn at_boundary(&self) -> bool {
        let ends = |end: &[u8]| self.0.ends_with(end);
        self.0.is_empty() || ends(b"\n\n") || ends(b"\r\r") || ends(b"\r\n\r\n")
    }
}
