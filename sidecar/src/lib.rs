//! The Behalf sidecar: checks every inbound call of one MCP server and turns the caller's token into
//! short-lived tokens for the downstream calls that the policy permits.

pub mod admin;
pub mod app;
pub mod audit;
pub mod bundle_source;
pub mod clock;
pub mod config;
pub mod dpop;
pub mod drain;
pub mod exchange;
pub mod feed;
pub mod framed;
pub mod handles;
pub mod inbound;
pub mod limits;
pub mod listeners;
pub mod metrics;
pub mod outbound;
pub mod provider;
mod recording;
pub mod redirect;
pub mod sockets;
pub mod telemetry;
pub mod tls;
pub mod token;
