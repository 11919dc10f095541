//! Bodies: the caller's, read whole and bounded; the server's, passed on as it comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use behalf_policy::listing::SseFilter;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::lists::Viewer;
use super::respond::Denial;
use crate::clock::Clock;
use crate::handles::OpenHandle;
use crate::metrics::Metrics;

/// Whatever can end a body early; hyper cuts the connection then.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub(super) fn full(bytes: Bytes) -> AnswerBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body of at most `limit` bytes. `None` when it is larger.
pub(super) async fn read(body: Incoming, limit: usize, within: u32) -> Result<Option<Bytes>, Denial> {
    // A length that was declared is refused before anything of it is read.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Ok(None);
    }
    let within = Duration::from_secs(within.into());
    let collected = tokio::time::timeout(within, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| Denial::BodyTimeout)? {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(_) => Err(Denial::BodyUnreadable),
    }
}

/// Counts a request until its answer has ended.
pub(super) struct OpenRequest(Arc<Metrics>);

impl OpenRequest {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.open_requests.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open_requests.dec();
    }
}

/// The server's answer on its way to the caller. What it holds ends with it: the handle of the call, after
/// its grace when the answer came to its end; the place among the open requests. When the caller leaves,
/// hyper drops it, and with it the request to the server and the handle, at once.
pub(super) struct CallBody {
    server: Incoming,
    filter: Option<Box<SseFilter<Viewer>>>,
    held: Option<(OpenRequest, Option<OpenHandle>, Clock)>,
    ended: bool,
}

impl CallBody {
    pub(super) fn new(
        server: Incoming,
        handle: Option<OpenHandle>,
        clock: &Clock,
        open: OpenRequest,
    ) -> Self {
        Self { server, filter: None, held: Some((open, handle, clock.clone())), ended: false }
    }

    pub(super) fn filtered(mut self, filter: SseFilter<Viewer>) -> Self {
        self.filter = Some(Box::new(filter));
        self
    }

    /// The answer has come to its end, and with it what it holds.
    fn release(&mut self) {
        if let Some((_, Some(handle), clock)) = self.held.take() {
            handle.answer_ended(clock.now());
        }
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.release();
        self.ended = true;
        match self.filter.take().map(|filter| filter.finish()) {
            Some(Ok(rest)) if !rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(Bytes::from(rest))))),
            Some(Err(error)) => self.cut(error),
            Some(Ok(_)) | None => Poll::Ready(None),
        }
    }

    fn cut(
        &mut self,
        error: behalf_policy::listing::ListingError,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        tracing::warn!(reason = error.reason(), "an event stream of the server was cut");
        self.held = None;
        self.filter = None;
        self.ended = true;
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Drop for CallBody {
    fn drop(&mut self) {
        // A body of known length is not asked for more once all of it is there.
        if self.server.is_end_stream() {
            self.release();
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match Pin::new(&mut self.server).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return self.end(),
                Poll::Ready(Some(Err(error))) => {
                    self.held = None;
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            // Trailers are dropped: a header that arrives late is not judged (D17).
            let Ok(data) = frame.into_data() else { continue };
            let Some(filter) = &mut self.filter else {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            };
            match filter.feed(&data) {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out))))),
                Err(error) => return self.cut(error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.filter.is_none() && self.server.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.filter.is_none() { self.server.size_hint() } else { SizeHint::default() }
    }
}
