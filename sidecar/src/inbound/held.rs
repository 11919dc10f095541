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
    hold_for(PATIENCE, head, body, wanted, id).await
}

async fn hold_for(
    patience: Duration,
    head: &Parts,
    body: AnswerBody,
    wanted: &Wanted,
    id: Option<&str>,
) -> Held {
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
        let _ = tokio::time::timeout(patience, peeked.first_event(wanted)).await;
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

#[cfg(test)]
mod tests {
    use behalf_policy::ids::EntryName;
    use behalf_policy::interaction::Interaction;
    use futures::StreamExt as _;
    use http::Response;
    use http_body_util::StreamBody;
    use secrecy::SecretString;

    use super::*;

    const FAILED: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"isError":true}}"#;

    fn head(kind: &str) -> Parts {
        Response::builder().header("content-type", kind).body(()).unwrap().into_parts().0
    }

    /// A body of these pieces; then it ends, breaks or stays open.
    fn body(pieces: &[&str], then: Option<Result<(), ()>>) -> AnswerBody {
        let pieces: Vec<Result<Frame<Bytes>, BodyError>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece.as_bytes())))).collect();
        let pieces = futures::stream::iter(pieces);
        match then {
            Some(Ok(())) => StreamBody::new(pieces).boxed_unsync(),
            Some(Err(())) => {
                let broken = futures::stream::once(async { Err("broken".into()) });
                StreamBody::new(pieces.chain(broken)).boxed_unsync()
            }
            None => StreamBody::new(pieces.chain(futures::stream::pending())).boxed_unsync(),
        }
    }

    fn wanted() -> Wanted {
        let wanted = Wanted::default();
        wanted.put(&EntryName::new("payroll").unwrap(), Interaction::Any, &SecretString::from("token"));
        wanted
    }

    /// The bytes that go on, and whether they end whole.
    async fn rest(mut body: AnswerBody) -> (String, bool) {
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(_) => return (text, false),
            }
        }
        (text, true)
    }

    #[tokio::test]
    async fn b6_however_an_answer_is_cut_it_is_read_alike() {
        let events = format!("event: message\ndata: {FAILED}\n\n: more\n\n");
        for (kind, text) in [("application/json", FAILED), ("text/event-stream; charset=utf-8", &events)] {
            for cut in 1..text.len() {
                let pieces = [&text[..cut], &text[cut..]];
                let ended = hold(&head(kind), body(&pieces, Some(Ok(()))), &wanted(), Some("7")).await;
                assert!(matches!(ended, Held::Failed(_)), "{kind} {cut}");
                let others = hold(&head(kind), body(&pieces, Some(Ok(()))), &wanted(), Some("8")).await;
                let (Held::Goes(others) | Held::Begun(others)) = others else { panic!("another's answer") };
                assert_eq!(rest(others).await, (text.to_owned(), true), "{kind} {cut}");
            }
        }
    }

    #[tokio::test]
    async fn b6_an_answer_that_breaks_off_breaks_off() {
        for kind in ["application/json", "text/event-stream"] {
            let broken = body(&["data: {", "}"], Some(Err(())));
            let Held::Begun(broken) = hold(&head(kind), broken, &wanted(), Some("7")).await else {
                panic!("{kind}")
            };
            assert_eq!(rest(broken).await, ("data: {}".to_owned(), false));
        }
    }

    #[tokio::test]
    async fn b6_c5_what_is_too_long_or_encoded_is_not_waited_for() {
        let long = format!("data: {}", "x".repeat(MAX_READ + 1));
        for kind in ["application/json", "text/event-stream"] {
            let endless = body(&[&long], None);
            assert!(matches!(hold(&head(kind), endless, &wanted(), Some("7")).await, Held::Begun(_)));
            let mut encoded = head(kind);
            encoded.headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
            let nothing = body(&[], None);
            assert!(matches!(hold(&encoded, nothing, &wanted(), Some("7")).await, Held::Begun(_)));
        }
        // Nothing is wanted: not one byte of it is read.
        let open = body(&[], None);
        let held = hold(&head("application/json"), open, &Wanted::default(), Some("7")).await;
        assert!(matches!(held, Held::Begun(_)));
    }

    #[tokio::test]
    async fn b6_c5_the_first_bytes_of_a_stream_bring_its_head_along() {
        let first = body(&[": ping\n"], None);
        let held = hold(&head("text/event-stream"), first, &Wanted::default(), Some("7")).await;
        let Held::Begun(mut held) = held else { panic!("nothing was wanted") };
        assert_eq!(held.frame().await.unwrap().unwrap().into_data().unwrap(), ": ping\n");
    }

    #[tokio::test]
    async fn b6_c5_the_head_of_a_silent_stream_waits_no_longer_than_its_time() {
        let soon = Duration::from_millis(1);
        let silent = body(&[], None);
        let held = hold_for(soon, &head("text/event-stream"), silent, &Wanted::default(), Some("7")).await;
        assert!(matches!(held, Held::Begun(_)));
        // Nor does an event that does not end, whatever is wanted.
        let half = body(&["data: {"], None);
        let held = hold_for(soon, &head("text/event-stream"), half, &wanted(), Some("7")).await;
        let Held::Begun(mut half) = held else { panic!("half an event") };
        assert_eq!(half.frame().await.unwrap().unwrap().into_data().unwrap(), "data: {");
    }
}
