//! The status of an `AgentIdentity`; one writer, nothing written at rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Stage;
use crate::v1alpha1::bounds;

/// What the operator made of the identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentityStatus {
    /// The metadata.generation this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::counter")]
    pub observed_generation: Option<i64>,
    /// The stage in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RolloutStatus")]
    pub rollout: Option<RolloutStatus>,
    /// The bundle the sidecars are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BundleStatus")]
    pub bundle: Option<BundleStatus>,
    /// What new pods are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InjectionStatus")]
    pub injection: Option<InjectionStatus>,
    /// The pods that carry the identity's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodCounts")]
    pub pods: Option<PodCounts>,
    /// What its pods have decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DecisionCounts")]
    pub decisions: Option<DecisionCounts>,
    /// Accepted, BypassClosed, Programmed, Ready and ResolvedRefs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::conditions")]
    pub conditions: Vec<Condition>,
}

/// The stage in effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The stage.
    pub stage: Stage,
    /// Since when.
    #[schemars(schema_with = "bounds::time")]
    pub since: Time,
    /// Why this stage.
    pub reason: RolloutReason,
}

/// Why a stage is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutReason {
    /// The object asks for it.
    AsSpecified,
}

/// The bundle the sidecars are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// Digest of the bundle that was written last.
    #[schemars(schema_with = "bounds::text::<bounds::Digest>")]
    pub digest: String,
    /// Its serial, which only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::counter")]
    pub serial: Option<i64>,
    /// Digest that every sidecar is known to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Digest>")]
    pub programmed_digest: Option<String>,
}

/// What new pods are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InjectionStatus {
    /// Revision of what is injected (ports, env, volumes, images): when it changes, pods need a restart to follow.
    #[schemars(schema_with = "bounds::text::<bounds::Revision>")]
    pub revision: String,
}

/// The pods that carry the identity's label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods with the label.
    #[schemars(schema_with = "bounds::count")]
    pub matched: i64,
    /// Of these, with Behalf inside.
    #[schemars(schema_with = "bounds::count")]
    pub injected: i64,
    /// Of these, without it.
    #[schemars(schema_with = "bounds::count")]
    pub missing: i64,
    /// Injected pods that say they run by the newest bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::count")]
    pub current: Option<i64>,
    /// Injected pods that do not say so: they run by an older one, or do not report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::count")]
    pub stale: Option<i64>,
    /// Injected with an older revision: they need a restart to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::count")]
    pub outdated: Option<i64>,
    /// Pods without the label that run as the identity's service account; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::count")]
    pub stray: Option<i64>,
}

/// What the identity's pods have decided, all together and each request once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionCounts {
    /// Since when it is counted.
    #[schemars(schema_with = "bounds::time")]
    pub since: Time,
    /// Whether every request is in: false once a pod ended without telling its last counts.
    pub complete: bool,
    /// Calls that were permitted.
    #[schemars(schema_with = "bounds::counter")]
    pub allowed: i64,
    /// Calls that were refused.
    #[schemars(schema_with = "bounds::counter")]
    pub denied: i64,
    /// Calls that went through in stage Audit, though policy refuses them.
    #[schemars(schema_with = "bounds::counter")]
    pub would_deny: i64,
    /// What was not permitted most often, by tool and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::entries::<DecisionTally, 10>")]
    pub top: Vec<DecisionTally>,
}

/// How often a tool met a verdict for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionTally {
    /// The tool; none if the request was no call of a tool of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::text::<bounds::Tool>")]
    pub tool: Option<String>,
    /// What became of the call.
    pub verdict: DecisionVerdict,
    /// Why.
    #[schemars(schema_with = "bounds::text::<bounds::Reason>")]
    pub reason: String,
    /// How often.
    #[schemars(schema_with = "bounds::counter")]
    pub count: i64,
}

/// What became of a call that was not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecisionVerdict {
    /// Refused.
    Denied,
    /// Let through in stage Audit.
    WouldDeny,
}
