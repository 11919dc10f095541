//! The groups of a token, and what else its provider's tokens must say (A28).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{MAX_GROUPS, TokenRefusal, read, workload};
use crate::bundle::tokens::ClaimRule;
use crate::bundle::{Flavor, Provider};
use crate::ids::{Group, Subject};

/// The caller's groups. A cluster's and SPIFFE's tokens name none; theirs follow from the subject.
pub(super) fn groups(
    provider: &Provider,
    claims: &Map<String, Value>,
    subject: &Subject,
) -> Result<BTreeSet<Group>, TokenRefusal> {
    match provider.flavor {
        Flavor::Kubernetes => workload::kubernetes_groups(claims, subject),
        Flavor::Spiffe => workload::spiffe_groups(provider, subject),
        Flavor::Generic | Flavor::Keycloak | Flavor::Entra | Flavor::Okta | Flavor::Auth0 => {
            stated(provider, claims)
        }
    }
}

/// What the provider states; where it states that there are more, nothing is believed.
fn stated(provider: &Provider, claims: &Map<String, Value>) -> Result<BTreeSet<Group>, TokenRefusal> {
    if claims.contains_key("_claim_names") || claims.contains_key("hasgroups") {
        return Err(TokenRefusal::GroupsOverage);
    }
    let values = match read::pointer(claims, &provider.groups_claim)? {
        None => return Ok(BTreeSet::new()),
        Some(Value::Array(items)) => read::strings(items)?,
        Some(_) => return Err(TokenRefusal::BadClaim),
    };
    if values.len() > MAX_GROUPS {
        return Err(TokenRefusal::GroupsOverage);
    }
    values.into_iter().map(Group::new).collect::<Result<_, _>>().map_err(|_| TokenRefusal::BadClaim)
}

/// Every claim that the provider's row asks for is there, of its type, and right.
pub(super) fn check_required(provider: &Provider, claims: &Map<String, Value>) -> Result<(), TokenRefusal> {
    for required in &provider.tokens.required_claims {
        let found = read::pointer(claims, &required.claim)?.ok_or(TokenRefusal::ClaimNotAsRequired)?;
        let right = match (&required.rule, found) {
            (ClaimRule::Equals(wanted), Value::String(text)) => text == wanted,
            (ClaimRule::Contains(wanted), Value::Array(items)) => read::strings(items)?.contains(wanted),
            (ClaimRule::Boolean(wanted), Value::Bool(value)) => value == wanted,
            _ => return Err(TokenRefusal::BadClaim),
        };
        if !right {
            return Err(TokenRefusal::ClaimNotAsRequired);
        }
    }
    Ok(())
}
