//! The pure policy of Behalf: what the operator compiles to and the sidecar decides by.
//!
//! Nothing here reads a clock, a file, a socket or a random source: time and bytes come in as
//! arguments, so that every answer can be replayed and every law can be property-tested.
//! The operator writes a [`bundle::Document`]; the sidecar loads it into a [`bundle::Bundle`] and
//! asks [`decide::decide`]. Only a [`decision::Permit`] can give an [`decision::ExchangeOrder`], so an
//! exchange that policy did not allow does not compile.

pub mod answer;
pub mod bundle;
pub mod challenge;
pub mod claims;
pub mod condition;
pub mod decide;
pub mod decision;
pub mod deny;
pub mod dpop;
pub mod envelope;
pub mod feed;
pub mod framing;
pub mod ids;
pub mod interaction;
pub mod introspection;
pub mod listing;
pub mod pattern;
pub mod probe;
pub mod rate;
pub mod raw_path;
pub mod record;
pub mod returnable;
pub mod strict_json;
pub mod wire;
