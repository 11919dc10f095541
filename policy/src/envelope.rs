//! The envelope of one MCP call: body, mirrored headers and media type, read once and strictly.
//!
//! What this module accepts is what policy judges, and [`Message::forward_body`] writes the judged
//! message anew, so that no server behind us can read a different method, tool or argument than the
//! one the decision was about. Both MCP eras are read: the request chooses (MCP 2026-07-28
//! basic/versioning).

mod error;
mod headers;
pub(crate) mod json;
mod media;
mod message;
mod names;
mod params;
mod target;

pub use error::{EnvelopeError, EnvelopeReason};
pub use headers::{HeaderField, HeaderView, check_headers};
pub use json::Limits;
pub use media::{MediaView, check_media};
pub(crate) use message::read_id;
pub use message::{Era, Kind, Message, SUPPORTED_VERSIONS};
pub(crate) use names::{PROTOTYPE, folded};
pub use params::{AnnotationError, MirroredParams, PARAM_PREFIX};
pub use target::{CompletionRef, ListKind, Target};
