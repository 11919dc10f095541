//! The body of an answer, searched for the attached token while it streams.
//!
//! A downstream that echoes its request would hand the token to the server. No byte of the token
//! leaves: what may be its beginning is held back until the next bytes tell. Nothing else is held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use behalf_policy::framing::FramingRefusal;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use secrecy::{ExposeSecret as _, SecretString};

use super::refusal::Refusal;
use crate::framed::framing_refusal;
use crate::provider::http::BoxError;

/// The answer carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer carries the attached token")]
pub(super) struct TokenInAnswer;

/// Searches a stream of chunks for one token.
pub(super) struct Search {
    token: SecretString,
    held: BytesMut,
}

impl Search {
    pub(super) fn new(token: SecretString) -> Self {
        Self { token, held: BytesMut::new() }
    }

    /// Takes a chunk; gives what may go on.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Result<Bytes, TokenInAnswer> {
        let mut data = if self.held.is_empty() {
            chunk
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&chunk);
            joined.freeze()
        };
        let token = self.token.expose_secret().as_bytes();
        let mut from = 0;
        while let Some(start) = next_start(&data, from, token) {
            let rest = data.get(start..).unwrap_or_default();
            if rest.starts_with(token) {
                return Err(TokenInAnswer);
            }
            if token.starts_with(rest) {
                self.held.extend_from_slice(rest);
                data.truncate(start);
                break;
            }
            from = start.saturating_add(1);
        }
        Ok(data)
    }

    /// What was held back, when nothing follows: it was not the token.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

fn next_start(data: &[u8], from: usize, token: &[u8]) -> Option<usize> {
    let first = token.first()?;
    data.get(from..)?.iter().position(|b| b == first).map(|at| at.saturating_add(from))
}

/// Told why an answer was cut.
pub(super) type OnCut = Box<dyn FnOnce(&'static str) + Send>;

/// Body of an answer to the server.
pub(super) struct Answer {
    inner: Incoming,
    search: Option<Search>,
    on_cut: Option<OnCut>,
    ended: bool,
}

impl Answer {
    /// `on_cut` runs once, when the token was found or the answer stopped having one reading; the stream
    /// then breaks off.
    pub(super) fn new(inner: Incoming, search: Option<Search>, on_cut: OnCut) -> Self {
        Self { inner, search, on_cut: Some(on_cut), ended: false }
    }

    fn cut(&mut self, reason: &'static str) {
        self.ended = true;
        if let Some(on_cut) = self.on_cut.take() {
            on_cut(reason);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    if let Some(refusal) = framing_refusal(&error) {
                        self.cut(refusal.reason());
                    }
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.ended = true;
                    let rest = self.search.as_mut().map(Search::finish).unwrap_or_default();
                    if rest.is_empty() {
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(rest))));
                }
            };
            // Trailers do not cross: they are headers that nobody has judged.
            let Ok(chunk) = frame.into_data() else { continue };
            let Some(search) = self.search.as_mut() else {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            };
            match search.feed(chunk) {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Err(found) => {
                    self.cut(Refusal::TokenInAnswer.reason());
                    return Poll::Ready(Some(Err(found.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.inner.is_end_stream() && self.search.as_ref().is_none_or(|s| s.held.is_empty()))
    }

    fn size_hint(&self) -> SizeHint {
        // What is held back is no longer counted by the inner body.
        let held = self.search.as_ref().map_or(0, |s| s.held.len()) as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(inner.lower().saturating_add(held).min(hint.upper().unwrap_or(u64::MAX)));
        hint
    }
}

/// The body of a request could not be read to its end, because it stopped having one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body of the request is not readable")]
pub(super) struct BrokenRequest(pub(super) FramingRefusal);

/// Body of a request: its data, without trailers.
pub(super) struct DataOnly(pub(super) Incoming);

impl Body for DataOnly {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_trailers() => {}
                other => return Poll::Ready(other.map(|frame| frame.map_err(of_request))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn of_request(error: hyper::Error) -> BoxError {
    match framing_refusal(&error) {
        Some(refusal) => BrokenRequest(refusal).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "eyJh.eyJz.c2ln";

    /// What goes on, and whether the stream was cut.
    fn run(chunks: &[&[u8]], token: &str) -> (Vec<u8>, bool) {
        let mut search = Search::new(SecretString::from(token));
        let mut out = Vec::new();
        for chunk in chunks {
            match search.feed(Bytes::copy_from_slice(chunk)) {
                Ok(data) => out.extend_from_slice(&data),
                Err(TokenInAnswer) => return (out, true),
            }
        }
        out.extend_from_slice(&search.finish());
        (out, false)
    }

    #[test]
    fn a_token_is_found_wherever_the_chunks_end() {
        let text = format!("data: {TOKEN}\n\n");
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (a, b, c) = (&text[..first], &text[first..second], &text[second..]);
                let (out, cut) = run(&[a.as_bytes(), b.as_bytes(), c.as_bytes()], TOKEN);
                assert!(cut, "{a:?} {b:?} {c:?}");
                assert!(out.len() <= "data: ".len());
            }
        }
    }

    #[test]
    fn near_misses_pass_unchanged() {
        for text in ["", "eyJh", "eyJh.eyJz.c2l", "eyJh.eyJheyJh.eyJz.c2lN", "eeeyJh.eyJz.c2l", "c2ln"] {
            for split in 0..=text.len() {
                let (out, cut) = run(&[&text.as_bytes()[..split], &text.as_bytes()[split..]], TOKEN);
                assert_eq!((out.as_slice(), cut), (text.as_bytes(), false));
            }
        }
    }

    #[test]
    fn an_event_is_not_held_back() {
        let mut search = Search::new(SecretString::from(TOKEN));
        let event = Bytes::from_static(b"data: {}\n\n");
        assert_eq!(search.feed(event.clone()).unwrap(), event);
    }

    proptest! {
        #[test]
        fn found_exactly_when_it_is_there(
            chunks in proptest::collection::vec("[ab]{0,6}", 0..12),
            token in "[ab]{1,5}",
        ) {
            let whole = chunks.concat();
            let parts: Vec<&[u8]> = chunks.iter().map(String::as_bytes).collect();
            let (out, cut) = run(&parts, &token);
            prop_assert_eq!(cut, whole.contains(&token));
            let out = String::from_utf8(out).unwrap();
            prop_assert!(whole.starts_with(&out));
            prop_assert!(!out.contains(&token));
            if !cut {
                prop_assert_eq!(out, whole);
            }
        }
    }
}
