//! Connections whose HTTP/1.1 has one reading only, on both hops.
//!
//! Stands between a socket and the HTTP library: the library gets the bytes up to the first one that
//! leaves a doubt where a message ends, and nothing of that connection after it. What the rules are is
//! said in [`behalf_policy::framing`].

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use behalf_policy::framing::{Framing, FramingRefusal};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

/// In the place of what is not let through: no parser takes NUL in a head, so that the library answers
/// 400 after the answers that are still due, and closes. The end of a head makes it look at once.
const NEVER_IN_A_HEAD: &[u8] = b"\0\r\n\r\n";

/// Tells, after a connection has ended, why its requests were not read on.
#[derive(Debug, Clone, Default)]
pub struct Why(Arc<OnceLock<FramingRefusal>>);

impl Why {
    /// The refusal, if there was one.
    #[must_use]
    pub fn get(&self) -> Option<FramingRefusal> {
        self.0.get().copied()
    }
}

/// The connection of somebody who sends requests.
#[derive(Debug)]
pub struct Requests<S> {
    stream: S,
    framing: Framing,
    why: Why,
    /// What is still to be read in the place of what was not let through.
    instead: &'static [u8],
}

impl<S> Requests<S> {
    /// Follows what is read from the stream.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self { stream, framing: Framing::requests(), why: Why::default(), instead: &[] }
    }

    /// The same for a connection that may turn out to be HTTP/2, which frames its messages itself.
    #[must_use]
    pub fn or_http2(stream: S) -> Self {
        Self { framing: Framing::requests_or_http2(), ..Self::new(stream) }
    }

    /// To be asked when the connection has ended.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why.clone()
    }

    fn put_instead(&mut self, buf: &mut ReadBuf<'_>) {
        let (now, later) = self.instead.split_at(self.instead.len().min(buf.remaining()));
        buf.put_slice(now);
        self.instead = later;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Requests<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.instead.is_empty() {
            self.put_instead(buf);
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = self.why.get() {
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        let Err(stop) = self.framing.follow(new) else { return Poll::Ready(Ok(())) };
        // It is set once: nothing is read after it.
        let _ = self.why.0.set(stop.why);
        buf.set_filled(before.saturating_add(stop.good));
        if stop.in_head {
            // One byte at least was taken away, so that there is room for one.
            self.instead = NEVER_IN_A_HEAD;
            self.put_instead(buf);
        } else if stop.good == 0 {
            return Poll::Ready(Err(io::Error::other(stop.why)));
        }
        Poll::Ready(Ok(()))
    }
}

/// The connection to somebody who answers. What is written is followed as well: it says to which request
/// an answer belongs, and nothing leaves that is not plainly one request after the other.
#[derive(Debug)]
pub struct Answers<S> {
    stream: S,
    sent: Framing,
    received: Framing,
    heads: u64,
}

impl<S> Answers<S> {
    /// Follows both directions of the stream.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self { stream, sent: Framing::requests(), received: Framing::answers(), heads: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answers<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        match self.received.follow(new) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(stop) => {
                // Nothing of the piece is passed on: what stands before the doubt is no better.
                buf.set_filled(before);
                Poll::Ready(Err(io::Error::other(stop.why)))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answers<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if let Err(stop) = self.sent.follow(bytes.get(..written).unwrap_or_default()) {
            return Poll::Ready(Err(io::Error::other(stop.why)));
        }
        let heads = self.sent.heads();
        if heads != self.heads {
            self.heads = heads;
            let head_only = self.sent.head_only();
            self.received.asked(head_only);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Requests<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Connection> Connection for Answers<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

/// A connector whose connections are [`Answers`].
#[derive(Debug, Clone)]
pub struct ToAnswers<C>(pub C);

impl<C> Service<Uri> for ToAnswers<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = TokioIo<Answers<TokioIo<C::Response>>>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Answers::new(TokioIo::new(connecting.await?)))) })
    }
}

/// The framing refusal behind an error of the HTTP library, if that is what it comes down to.
#[must_use]
pub fn framing_refusal(error: &(dyn StdError + 'static)) -> Option<FramingRefusal> {
    let mut at = Some(error);
    while let Some(error) = at {
        // An I/O error's source is that of what it holds, not what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let held = held.and_then(|held| held.downcast_ref::<FramingRefusal>());
        if let Some(refusal) = held.or_else(|| error.downcast_ref::<FramingRefusal>()) {
            return Some(*refusal);
        }
        at = error.source();
    }
    None
}
