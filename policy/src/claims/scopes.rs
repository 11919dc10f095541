//! The scopes of a token, in the form of its provider (A14).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{MAX_SCOPES, TokenRefusal, read};
use crate::bundle::document::CallerKind;
use crate::bundle::tokens::ScopeForm;
use crate::bundle::{Flavor, Policy, Provider};
use crate::ids::{Group, Scope, ScopeSet, parse_scopes};

/// Every scope that the token presents.
///
/// Tokens of a cluster and of SPIFFE carry none: there a workload presents what its groups hold, unless a claim for
/// scopes is declared.
pub(super) fn scopes(
    policy: &Policy,
    provider: &Provider,
    claims: &Map<String, Value>,
    kind: CallerKind,
    groups: &BTreeSet<Group>,
) -> Result<ScopeSet, TokenRefusal> {
    let declared = &provider.tokens.scopes;
    let readers: Vec<(&str, ScopeForm)> = if declared.is_empty() {
        match (provider.flavor, kind) {
            (Flavor::Kubernetes | Flavor::Spiffe, _) => return Ok(held(policy, groups)),
            (flavor, kind) => conventional(flavor, kind).to_vec(),
        }
    } else {
        declared.iter().map(|reader| (reader.claim.as_str(), reader.form)).collect()
    };
    let mut all = ScopeSet::new();
    for (pointer, form) in readers {
        all.extend(read_one(claims, pointer, form)?);
        if all.len() > MAX_SCOPES {
            return Err(TokenRefusal::BadClaim);
        }
    }
    Ok(all)
}

fn conventional(flavor: Flavor, kind: CallerKind) -> &'static [(&'static str, ScopeForm)] {
    use ScopeForm::{Array, SpaceDelimited};
    match (flavor, kind) {
        // A person's `roles` are what she is, not what she let the client do.
        (Flavor::Entra, CallerKind::User) => &[("/scp", SpaceDelimited)],
        (Flavor::Entra, CallerKind::Workload) => &[("/roles", Array)],
        (Flavor::Okta, _) => &[("/scp", Array)],
        (Flavor::Auth0, _) => &[("/scope", SpaceDelimited), ("/permissions", Array)],
        (Flavor::Generic | Flavor::Keycloak | Flavor::Kubernetes | Flavor::Spiffe, _) => {
            &[("/scope", SpaceDelimited)]
        }
    }
}

fn read_one(claims: &Map<String, Value>, pointer: &str, form: ScopeForm) -> Result<ScopeSet, TokenRefusal> {
    match (read::pointer(claims, pointer)?, form) {
        (None, _) => Ok(ScopeSet::new()),
        (Some(Value::String(text)), ScopeForm::SpaceDelimited) => {
            parse_scopes(text, MAX_SCOPES).map_err(|_| TokenRefusal::BadClaim)
        }
        (Some(Value::Array(items)), ScopeForm::Array) if items.len() <= MAX_SCOPES => {
            let names = read::strings(items)?;
            names.into_iter().map(Scope::new).collect::<Result<_, _>>().map_err(|_| TokenRefusal::BadClaim)
        }
        _ => Err(TokenRefusal::BadClaim),
    }
}

fn held(policy: &Policy, groups: &BTreeSet<Group>) -> ScopeSet {
    let holds = |held: &BTreeSet<Group>| held.intersection(groups).next().is_some();
    policy.scopes.iter().filter(|(_, rule)| holds(&rule.groups)).map(|(scope, _)| scope.clone()).collect()
}
