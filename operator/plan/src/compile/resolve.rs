//! What the identity names, looked up: each there and valid, or the first that is not.

use std::collections::BTreeMap;

use behalf_crds::v1alpha1::ResolvedRefsReason;

use super::namespace_of;
use crate::catalog::{self, Catalog};
use crate::gathered::Gathered;
use crate::provider::{self, Provider};

/// What the identity names, as far as it is there and valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// The catalogue.
    pub catalog: Option<Catalog>,
    /// The providers, by name.
    pub providers: BTreeMap<String, Provider>,
    /// The first reference that is gone or invalid.
    pub missing: Option<Missing>,
    /// The service account, if it is gone: no reason to change a bundle.
    pub account: Option<Missing>,
}

/// A reference that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The closed reason.
    pub reason: ResolvedRefsReason,
    /// What is wrong, as a sentence.
    pub cause: String,
    /// What to do, as a sentence.
    pub next: String,
}

/// Looks up what the identity names.
#[must_use]
pub fn resolve(gathered: &Gathered) -> Resolved {
    let mut resolved = Resolved::default();
    let mut missing = Vec::new();
    let spec = &gathered.identity.spec;
    match resolve_catalog(gathered) {
        Ok(catalog) => resolved.catalog = Some(catalog),
        Err(problem) => missing.push(problem),
    }
    for client in &spec.identity_providers {
        match resolve_provider(gathered, &client.name) {
            Ok(provider) => {
                resolved.providers.insert(client.name.clone(), provider);
            }
            Err(problem) => missing.push(problem),
        }
    }
    resolved.missing = missing.into_iter().next();
    let account = &spec.service_account_name;
    let found = gathered.service_account.as_ref().and_then(|found| found.metadata.name.as_ref());
    if found != Some(account) {
        let namespace = namespace_of(gathered);
        resolved.account = Some(Missing {
            reason: ResolvedRefsReason::ServiceAccountNotFound,
            cause: format!(
                "There is no ServiceAccount {account} in namespace {namespace}, so no pod of the identity can start."
            ),
            next: format!("Create it: kubectl -n {namespace} create serviceaccount {account}"),
        });
    }
    resolved
}

fn resolve_catalog(gathered: &Gathered) -> Result<Catalog, Missing> {
    let name = &gathered.identity.spec.catalog_ref.name;
    let found = gathered.catalog.as_ref().filter(|catalog| catalog.metadata.name.as_ref() == Some(name));
    let catalog = found.ok_or_else(|| Missing {
        reason: ResolvedRefsReason::CatalogNotFound,
        cause: format!("There is no ScopeCatalog {name}."),
        next: "Ask the platform team to create it, or name one of `kubectl get scat` in spec.catalogRef.name"
            .to_owned(),
    })?;
    catalog::check(catalog).map_err(|problem| Missing {
        reason: ResolvedRefsReason::CatalogNotAccepted,
        cause: format!("ScopeCatalog {name} is not valid ({}): {}", reason(&problem), problem.message),
        next: format!("The platform team sees it with kubectl describe scat {name}"),
    })
}

fn resolve_provider(gathered: &Gathered, name: &str) -> Result<Provider, Missing> {
    let found = gathered.providers.get(name).filter(|found| found.metadata.name.as_deref() == Some(name));
    let provider = found.ok_or_else(|| Missing {
        reason: ResolvedRefsReason::IdentityProviderNotFound,
        cause: format!("There is no IdentityProvider {name}."),
        next:
            "Ask the platform team to create it, or name one of `kubectl get idp` in spec.identityProviders"
                .to_owned(),
    })?;
    provider::check(provider, &gathered.rival_providers).map_err(|problem| Missing {
        reason: ResolvedRefsReason::IdentityProviderNotAccepted,
        cause: format!("IdentityProvider {name} is not valid ({}): {}", reason(&problem), problem.message),
        next: format!("The platform team sees it with kubectl describe idp {name}"),
    })
}

fn reason(problem: &crate::ConditionIntent<behalf_crds::v1alpha1::AcceptedReason>) -> &'static str {
    use behalf_crds::v1alpha1::ConditionReason as _;
    problem.reason.as_str()
}
