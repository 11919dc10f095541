//! Whether the credentials that the bundle's providers need are there: a call should not be the first to find out.

use std::collections::BTreeSet;
use std::time::Duration;

use behalf_policy::bundle::ClientAuthentication;
use behalf_policy::ids::EntryName;
use zeroize::Zeroizing;

use super::Facts;
use crate::bundle_source::Bundles;

/// How often the files are looked at, and besides whenever the bundle changes.
const PERIOD: Duration = Duration::from_secs(3);

/// Looks now and then for ever.
pub async fn watch(facts: Facts, bundles: Bundles) {
    let mut changes = bundles.changes();
    let mut before = BTreeSet::new();
    loop {
        let missing = missing(&bundles).await;
        if missing != before {
            let providers: Vec<_> = missing.iter().map(EntryName::as_str).collect();
            tracing::warn!(?providers, "CredentialMissing: providers without a credential file");
            before.clone_from(&missing);
        }
        facts.credentials_missing(missing);
        // Either way it is time to look again.
        let _ = tokio::time::timeout(PERIOD, changes.changed()).await;
    }
}

async fn missing(bundles: &Bundles) -> BTreeSet<EntryName> {
    let mut missing = BTreeSet::new();
    let Some(active) = bundles.current() else { return missing };
    let Ok(policy) = active.bundle.policy() else { return missing };
    for (name, provider) in &policy.providers {
        let file = match &provider.client_authentication {
            ClientAuthentication::ServiceAccountToken { file }
            | ClientAuthentication::ClientSecretFile { file } => file,
            ClientAuthentication::None => continue,
        };
        let content = tokio::fs::read(file).await.map(Zeroizing::new);
        if !content.is_ok_and(|content| content.iter().any(|byte| !byte.is_ascii_whitespace())) {
            missing.insert(name.clone());
        }
    }
    missing
}
