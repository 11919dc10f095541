//! A request of a plain HTTP API: its path and method are what policy is asked about, its query and body pass.

use std::pin::Pin;
use std::task::{Context, Poll};

use behalf_policy::bundle::{HttpMethod, Protocol, Server, Tool};
use behalf_policy::decide::Operation;
use behalf_policy::raw_path;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::body::{AnswerBody, BodyError};
use super::respond::Denial;

/// A request body is no larger than this many bytes (D26).
const MAX_BODY: usize = 32 * 1024 * 1024;

/// What a request of a plain HTTP API asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Api {
    method: HttpMethod,
    /// Path below that of the server's URL; at least `/`.
    below: String,
    /// What the server gets, byte for byte.
    pub(super) target: PathAndQuery,
}

impl Api {
    /// Reads the head of a request to a server that speaks plain HTTP.
    pub(super) fn read(parts: &Parts, server: &Server) -> Result<Self, Denial> {
        let path = parts.uri.path();
        raw_path::check(path).map_err(Denial::Path)?;
        let below = below(&server.path, path).ok_or(Denial::UnknownPath)?;
        let method = HttpMethod::named(parts.method.as_str()).ok_or(Denial::VerbNotAllowed)?;
        let target = parts.uri.path_and_query().cloned().ok_or(Denial::BadTarget)?;
        Ok(Self { method, below: below.to_owned(), target })
    }

    /// What policy is asked.
    pub(super) fn operation(&self) -> Operation<'_> {
        Operation::Http(self.method, &self.below)
    }

    /// Method and path, to be asked about again.
    pub(super) fn route(&self) -> (HttpMethod, String) {
        (self.method, self.below.clone())
    }

    /// What the row needs, if there is one.
    pub(super) fn row<'s>(&self, server: &'s Server) -> Option<&'s Tool> {
        server.route(self.method, &self.below).map(|row| &row.needs)
    }

    /// The name of the row, if there is one.
    pub(super) fn name<'s>(&self, server: &'s Server) -> Option<&'s str> {
        server.route(self.method, &self.below).map(|row| row.name.as_str())
    }
}

/// The methods that a preflight names.
pub(super) fn methods(server: &Server) -> &'static str {
    match server.protocol {
        Protocol::Mcp => "GET, POST, DELETE",
        Protocol::Http => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    }
}

/// What of a path stands below a base path, by whole segments.
fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let base = base.strip_suffix('/').unwrap_or(base);
    match path.strip_prefix(base)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// The caller's body on its way to the server: bounded, and without trailers, which nobody judged (D17).
pub(super) fn uploaded(body: Incoming) -> Result<AnswerBody, Denial> {
    if body.size_hint().lower() > u64::try_from(MAX_BODY).unwrap_or(u64::MAX) {
        return Err(Denial::BodyTooLarge);
    }
    Ok(Upload(Limited::new(body, MAX_BODY)).boxed_unsync())
}

/// Whether a request failed because its body was over the bound.
pub(super) fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<LengthLimitError>() {
            return true;
        }
        at = error.source();
    }
    false
}

struct Upload(Limited<Incoming>);

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.0).poll_frame(context)) {
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
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
