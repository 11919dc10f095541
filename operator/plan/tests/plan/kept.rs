//! What was accepted goes on when something it refers to is gone: when the last good bundle is kept, and what still narrows
//! it.

use behalf_crds::v1alpha1::{AcceptedReason, ResolvedRefsReason};
use behalf_plan::{BundleIntent, LastBundle, tombstone};
use behalf_policy::bundle::{RefuseAllReason, Serve, State};
use serde_json::json;

use crate::fixtures::*;

#[test]
fn a_catalogue_or_provider_that_is_invalid_or_gone_keeps_the_last_good_bundle() {
    use ResolvedRefsReason as R;
    let mut cases = vec![
        (changed("catalog", "/spec/toolSets/0/tools/0/scopes", json!(["nope"])), R::CatalogNotAccepted),
        (changed("provider", "/spec/caBundle", json!("corp root")), R::IdentityProviderNotAccepted),
    ];
    let mut gone = gathered();
    gone.catalog = None;
    cases.push((gone, R::CatalogNotFound));
    let mut gone = gathered();
    gone.providers.clear();
    cases.push((gone, R::IdentityProviderNotFound));
    for (mut gathered, reason) in cases {
        let first = plan(&gathered);
        assert_eq!(refused(&first), Some(RefuseAllReason::ReferencesNotResolved), "{reason:?}");
        assert_eq!(first.accepted.reason, AcceptedReason::Pending);
        gathered.last_bundle = Some(last_good());
        let desired = plan(&gathered);
        assert_eq!(desired.bundle, BundleIntent::Keep, "{reason:?}");
        assert_eq!(desired.resolved_refs.reason, reason);
        assert!(
            desired.resolved_refs.message.contains("Pods keep the bundle of serial 7."),
            "{}",
            desired.resolved_refs.message
        );
        assert!(
            desired.resolved_refs.message.contains("kubectl") || desired.resolved_refs.message.contains('`')
        );
    }
}

#[test]
fn only_a_good_bundle_of_this_identity_is_kept() {
    let mut gathered = gathered();
    gathered.catalog = None;
    let tomb = LastBundle { document: document(tombstone(), 9), digest: String::new() };
    let mut foreign = last_good();
    foreign.document.identity = "other".to_owned();
    let mut other_namespace = last_good();
    other_namespace.document.namespace = "finance".to_owned();
    let mut unreadable = last_good();
    unreadable.document.format = 99;
    for last in [tomb, foreign, other_namespace, unreadable] {
        gathered.last_bundle = Some(last);
        assert_eq!(refused(&plan(&gathered)), Some(RefuseAllReason::ReferencesNotResolved));
    }
}

#[test]
fn what_is_kept_still_follows_a_tightening_of_the_identity() {
    let mut gathered = changed("identity", "/spec/state", json!("Suspended"));
    gathered.catalog = None;
    gathered.last_bundle = Some(last_good());
    assert_eq!(written(&plan(&gathered)).state, State::Suspended);

    let mut gathered =
        changed("identity", "/spec/scopes", json!({"required": [], "optional": ["hr:salary:write"]}));
    gathered.identity.spec.downstreams.clear();
    gathered.catalog = None;
    gathered.last_bundle = Some(last_good());
    let kept = written(&plan(&gathered));
    assert!(kept.optional_scopes.is_empty(), "nothing widens");
    assert_eq!(kept.required_scopes.len(), 1, "what every call needs stays needed");
    assert!(
        kept.downstreams.is_empty() && kept.servers[0].tools.iter().all(|tool| tool.downstreams.is_empty())
    );
}

#[test]
fn a_handle_outlives_its_call_only_where_the_identity_says_so_and_never_by_more_when_kept() {
    assert_eq!(written(&plan(&gathered())).servers[0].handle_grace, 0);
    let graceful = |grace: &str| changed("identity", "/spec/servers/0/handle", json!({"grace": grace}));
    let before = written(&plan(&graceful("20s")));
    assert_eq!(before.servers[0].handle_grace, 20);
    assert_eq!(plan(&graceful("31s")).accepted.reason, AcceptedReason::Invalid);
    for (grace, kept) in [("30s", 20), ("5s", 5)] {
        let mut gathered = graceful(grace);
        gathered.catalog = None;
        let serve = Serve::Policy(Box::new(before.clone()));
        gathered.last_bundle = Some(LastBundle { document: document(serve, 1), digest: String::new() });
        let now = match plan(&gathered).bundle {
            BundleIntent::Write(Serve::Policy(policy)) => policy.servers[0].handle_grace,
            BundleIntent::Keep => before.servers[0].handle_grace,
            BundleIntent::Write(refused) => panic!("{refused:?}"),
        };
        assert_eq!(now, kept, "{grace}");
    }
}

#[test]
fn what_is_kept_never_loosens() {
    let mut gathered =
        changed("identity", "/spec/rollout", json!({"stage": "Audit", "authentication": "Audit"}));
    gathered.providers.clear();
    gathered.last_bundle = Some(last_good());
    let desired = plan(&gathered);
    assert_eq!(desired.bundle, BundleIntent::Keep);
    assert_eq!(desired.accepted.reason, AcceptedReason::Pending, "the change was not judged");
}

#[test]
fn a_valid_catalogue_that_forbids_wins_over_a_provider_that_is_gone() {
    let mut gathered = changed("catalog", "/spec/allowedNamespaces", json!({}));
    gathered.providers.clear();
    gathered.last_bundle = Some(last_good());
    assert_eq!(refused(&plan(&gathered)), Some(RefuseAllReason::IdentityNotAccepted));
}

#[test]
fn what_was_accepted_as_it_stands_stays_so_while_a_reference_is_gone() {
    let mut gathered = gathered_with(accepted_identity_value(), catalog_value(), provider_value("corp"));
    gathered.catalog = None;
    assert_eq!(
        plan(&gathered).accepted.reason,
        AcceptedReason::Pending,
        "without a bundle there is nothing to run by"
    );
    gathered.last_bundle = Some(last_good());
    assert_eq!(
        plan(&gathered).accepted.reason,
        AcceptedReason::Accepted,
        "new pods may join with the bundle that is kept"
    );
    gathered.identity.metadata.generation = Some(5);
    assert_eq!(plan(&gathered).accepted.reason, AcceptedReason::Pending, "a change was not judged");
}
