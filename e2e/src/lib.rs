//! Behalf on real parts: a cluster, an identity provider, an unchanged MCP server, a downstream, real clients.
//!
//! `cargo xtask test` deploys the demo and runs the tests of this crate on it, one after the other; `cargo xtask test
//! --only-e2e FILTER` runs them on the deployment that is up. Started in another way they fail and say so.
//!
//! A test waits for conditions, never for time, and leaves the deployment as it found it ([`Undo`]).
pub mod certificates;
pub mod curl;
pub mod dpop;
pub mod host;
pub mod keycloak;
pub mod mcp;
pub mod payroll;
pub mod realm;
pub mod records;
pub mod world;

pub use self::curl::{Answer, Request};
pub use self::keycloak::Token;
pub use self::records::Pod;
pub use self::world::{Undo, World, until};

/// The MCP server's URL: what tokens name in `aud`, and the server's client id at the provider.
pub const SERVER: &str = "http://hr-tools.hr.svc.cluster.local:8000/mcp";
/// Where the server's metadata (RFC 9728) is.
pub const METADATA: &str =
    "http://hr-tools.hr.svc.cluster.local:8000/.well-known/oauth-protected-resource/mcp";
/// The provider's issuer.
pub const ISSUER: &str = "https://keycloak.keycloak.svc.cluster.local:8443/realms/corp";
/// All scopes that a person's agent can get.
pub const ALL_SCOPES: &str = "hr:read hr:leave:read hr:salary:read hr:salary:write";
