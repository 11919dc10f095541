//! Version `v1alpha1` of the kinds. It grows by addition only; there is no conversion webhook.

#![allow(unreachable_pub, reason = "the schema derive copies each type, with its pub, into a function body")]
#![allow(
    clippy::doc_markdown,
    reason = "the doc comments of fields are what kubectl explain shows: plain text"
)]

mod agent_identity;
mod bounds;
mod conditions;
mod duration;
mod identity_provider;
mod refs;
mod scope_catalog;

pub use agent_identity::*;
pub use conditions::*;
pub use duration::{Duration, DurationError};
pub use identity_provider::*;
pub use refs::*;
pub use scope_catalog::*;
