//! What a call needs beyond the scopes of its tool: by its arguments, and by how its caller logged in.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::{Duration, bounds};

/// What calls with certain arguments need besides. A condition only ever asks for more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCondition {
    /// Name of the row.
    #[schemars(schema_with = "bounds::text::<bounds::Label>")]
    pub name: String,
    /// Which calls: an expression (CEL) over arguments and caller.{subject,client,kind,groups,scopes,attributes}, such as
    /// arguments.employee != caller.attributes.employee. A call for which it has no value is refused.
    #[schemars(schema_with = "bounds::text::<bounds::Expression>")]
    pub when: String,
    /// Scopes of this catalogue that such a call needs besides, all of them. With neither scopes nor groups it is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Scope, 0, 16>")]
    pub scopes: Vec<String>,
    /// Groups of which the caller must be in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::texts::<bounds::Group, 0, 64>")]
    pub groups: Vec<String>,
}

/// How a caller must have logged in to use a scope (RFC 9470). Who has not is asked to log in again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.maxAuthAge) || has(self.acrValues)")
    .message("say maxAuthAge, acrValues or both, or leave assurance out").reason(Reason::FieldValueRequired))]
pub struct Assurance {
    /// How long ago the login may be at most (auth_time). 10s to 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('720h')")
        .message("maxAuthAge is between 10s and 720h").reason(Reason::FieldValueInvalid))]
    pub max_auth_age: Option<Duration>,
    /// Classes of login that are enough (acr), the preferred first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::texts::<bounds::Acr, 1, 8>")]
    pub acr_values: Option<Vec<String>>,
}
