//! How many calls of whom are let through in how much time.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::{Duration, bounds};

/// A limit on the rate of calls: as many at once as in a period, and then as they come back, evenly over the period.
/// Further ones are refused with 429 and Retry-After. What is not authenticated counts nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Name of the limit.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Whose calls are counted together. Identity: everybody's. Agent: each agent's, which is the current actor of the
    /// token or else its client. Subject: each person's or workload's. Tool: those of each tool.
    pub per: RateLimitPer,
    /// Calls in a period, all pods of the identity together.
    #[schemars(schema_with = "bounds::whole::<1, 1_000_000>")]
    pub requests: i64,
    /// From 1s to 24h.
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')")
            .message("period is 1s to 24h").reason(Reason::FieldValueInvalid)
    )]
    pub period: Duration,
    /// Counts calls of these tools only, each one of the tool set of the server; with protocol HTTP, of these routes.
    /// Absent: every authenticated request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Tool, 0, 64>")]
    pub tools: Vec<String>,
}

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RateLimitPer {
    /// Everybody's.
    Identity,
    /// Each agent's.
    Agent,
    /// Each subject's.
    Subject,
    /// Those of each tool.
    Tool,
}
