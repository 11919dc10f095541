//! The feed: every sidecar tells what it runs by and what it has counted, and is told of its newest bundle at once.
//!
//! Served by every replica. Who reports is taken from the token alone ([`caller`]); the answer waits for the identity's
//! bundle or the pod's shares of rate limits ([`allot`]) to change ([`board`]), one request a pod ([`held`]). What was told lies on the leader's [`desk`], where the
//! reconciler reads it; another replica hands it on to the leader ([`relay`]). Nothing here writes an object.

pub mod allot;
pub mod board;
pub mod caller;
pub mod desk;
pub mod held;
pub mod relay;
pub mod server;

use behalf_crds::names;
use behalf_policy::bundle::document::FeedDocument;

/// Path on which replicas hand on to the leader what they were told.
pub const RELAY_PATH: &str = "/v1/relay";

/// An `AgentIdentity` by namespace and name.
pub type IdentityKey = (String, String);

/// How sidecars reach the feed, as it stands in every bundle.
#[must_use]
pub fn document(system_namespace: &str, authorities: &str) -> FeedDocument {
    FeedDocument {
        origin: format!("https://{}:443", host(system_namespace)),
        ca_bundle: authorities.to_owned(),
    }
}

/// Name under which the feed is reached, and which its certificate carries.
#[must_use]
pub fn host(system_namespace: &str) -> String {
    format!("{}.{system_namespace}.svc", names::FEED_SERVICE)
}
