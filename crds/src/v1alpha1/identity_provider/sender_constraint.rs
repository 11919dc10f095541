//! Whether a provider's tokens have to be bound to whoever sends them (RFC 9449, RFC 8705).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::Duration;

/// Which bound and unbound tokens are taken. A token that is bound is never taken without proof, whatever stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SenderConstraint {
    /// Which tokens are taken.
    #[serde(default)]
    pub mode: SenderConstraintMode,
    /// How DPoP proofs are judged.
    #[serde(default)]
    pub dpop: DpopPolicy,
}

/// Which tokens are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SenderConstraintMode {
    /// Bound tokens, when the request proves what they are bound to, and bearer tokens.
    #[default]
    Accepted,
    /// Only tokens that are bound to a key (DPoP) or to a client certificate (mutual TLS).
    Required,
    /// Only tokens that are bound to a key (DPoP).
    #[serde(rename = "DPoPRequired")]
    DpopRequired,
}

/// How DPoP proofs are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DpopPolicy {
    /// How far the time of a proof (its iat) may be off, either way; with a nonce, how long that nonce is good. 10s to 5m.
    #[serde(default = "default_max_age")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('5m')")
        .message("maxAge is between 10s and 5m").reason(Reason::FieldValueInvalid))]
    pub max_age: Duration,
    /// Whether a proof has to carry a nonce that the sidecar gave out. Each pod has its own: callers that reach several pods
    /// in turn are asked for another nonce each time the pod changes.
    #[serde(default)]
    pub nonce: DpopNonce,
}

fn default_max_age() -> Duration {
    Duration::from_secs(300)
}

impl Default for DpopPolicy {
    fn default() -> Self {
        Self { max_age: default_max_age(), nonce: DpopNonce::default() }
    }
}

/// Whether a proof has to carry a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DpopNonce {
    /// None is given out. A proof is good once, within maxAge of its own time.
    #[default]
    Never,
    /// A proof without a fresh nonce is answered with one. No proof can then be made ahead of time.
    Required,
}
