//! What an identity compiles to, what it may have, and when everything is refused.

use behalf_crds::v1alpha1::{AcceptedReason, ResolvedRefsReason};
use behalf_plan::{BundleIntent, LastBundle, next_document, tombstone};
use behalf_policy::bundle::{ClientAuthentication, RefuseAllReason, Serve, Stage, State};
use serde_json::{Value, json};

use crate::fixtures::*;

#[test]
fn a_healthy_identity_compiles_to_what_the_objects_say() {
    let desired = plan(&gathered());
    assert_eq!(desired.accepted.reason, AcceptedReason::Accepted);
    assert_eq!(desired.resolved_refs.reason, ResolvedRefsReason::Resolved);
    let policy = written(&desired);
    assert_eq!(
        (policy.state, policy.stage, policy.authentication),
        (State::Active, Stage::Enforce, Stage::Enforce)
    );
    let server = &policy.servers[0];
    assert_eq!((server.url.as_str(), server.port), ("https://hr.example.com/mcp", 8000));
    let tools: Vec<_> = server.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(tools, ["directory.search", "salary.get", "salary.update"]);
    // The ledger is in the catalogue's row, but the identity does not list it.
    let leads: Vec<_> =
        server.tools[1].downstreams.iter().map(|downstream| downstream.name.as_str()).collect();
    assert_eq!(leads, ["payroll"]);
    let scopes: Vec<_> = policy.scopes.iter().map(|scope| scope.name.as_str()).collect();
    assert_eq!(scopes, ["hr:read", "hr:salary:read", "hr:salary:write"]);
    assert_eq!(policy.downstreams.len(), 1);
    let payroll = &policy.downstreams[0];
    assert_eq!(
        (payroll.url.as_str(), payroll.audience.as_str(), payroll.max_token_lifetime),
        ("https://payroll.hr.svc/v1", "payroll", 600)
    );
    assert_eq!(payroll.scope_ceiling.len(), 2);
    let provider = &policy.providers[0];
    assert_eq!(
        (provider.clock_skew, provider.max_token_lifetime, provider.keys_max_staleness),
        (10, 300, 3600)
    );
    let file = "/var/run/secrets/behalf.dev/identity-providers/corp/token".to_owned();
    assert_eq!(provider.client_authentication, ClientAuthentication::ServiceAccountToken { file });
    assert_eq!(policy.callers.clients.as_ref().map(std::collections::BTreeSet::len), Some(1));
    load(Serve::Policy(Box::new(policy)));
}

#[test]
fn the_examples_compile() {
    let read = |text: &str| text.replace("@DEMO_CA@", &PEM.replace('\n', "\\n"));
    let identity =
        serde_saphyr::from_str(&read(include_str!("../../../../examples/hr/agent-identity.yaml"))).unwrap();
    let catalog =
        serde_saphyr::from_str(&read(include_str!("../../../../examples/hr/scope-catalog.yaml"))).unwrap();
    let provider: Value =
        serde_saphyr::from_str(&read(include_str!("../../../../examples/hr/identity-provider.yaml")))
            .unwrap();
    let desired = plan(&gathered_with(identity, catalog, provider));
    written(&desired);
    assert_eq!(desired.accepted.reason, AcceptedReason::AcceptedPlainHTTP, "{}", desired.accepted.message);
    assert!(desired.accepted.message.contains("plain http"), "{}", desired.accepted.message);
}

#[test]
fn a_wider_scope_is_there_for_those_who_present_only_it() {
    let mut gathered = changed("identity", "/spec/scopes", json!({"required": ["hr:read"]}));
    let mut catalog = catalog_value();
    catalog["spec"]["toolSets"][0]["tools"] = json!([{"name": "directory.search", "scopes": ["hr:read"]}]);
    gathered.catalog = Some(object(catalog));
    let scopes = written(&plan(&gathered)).scopes;
    let names: Vec<_> = scopes.iter().map(|scope| scope.name.as_str()).collect();
    assert_eq!(names, ["hr:read", "hr:salary:read"]);
}

#[test]
fn no_actors_takes_any_client_and_nobody_between_and_an_empty_list_takes_none() {
    let any = written(&plan(&changed("identity", "/spec/callers", json!({"kinds": ["User"]})))).callers;
    assert_eq!((any.clients, any.max_actor_depth), (None, 0));
    let none =
        written(&plan(&changed("identity", "/spec/callers", json!({"actors": {"maxDepth": 1}})))).callers;
    assert_eq!((none.clients, none.max_actor_depth), (Some(std::collections::BTreeSet::new()), 1));
}

#[test]
fn what_policy_forbids_refuses_all_even_with_a_good_bundle_there() {
    use AcceptedReason as A;
    let cases = [
        ("identity", "/spec/scopes/optional", json!(["hr:admin"]), A::ScopeNotInCatalog),
        ("identity", "/spec/scopes/required", json!(["hr:admin"]), A::ScopeNotInCatalog),
        ("identity", "/spec/downstreams/0/name", json!("crm"), A::UnknownDownstream),
        ("identity", "/spec/servers/0/toolSet", json!("finance"), A::Invalid),
        ("identity", "/spec/servers/0/url", json!("http://hr.example.com/mcp"), A::InsecureURL),
        ("identity", "/spec/servers/0/url", json!("http://hr/mcp"), A::InsecureURL),
        ("identity", "/spec/servers/0/url", json!("https://hr.example.com/mcp?x=1"), A::Invalid),
        ("identity", "/spec/servers/0/port", json!(15_101), A::PortReserved),
        ("identity", "/spec/servers/0/port", json!(0), A::Invalid),
        (
            "identity",
            "/spec/servers/0/interception",
            json!({"extraPorts": [{"port": 15_104}]}),
            A::PortReserved,
        ),
        ("identity", "/spec/servers", json!([]), A::Invalid),
        ("identity", "/spec/callers", json!({"kinds": []}), A::Invalid),
        ("identity", "/spec/serviceAccountName", json!("default"), A::Invalid),
        ("identity", "/spec/downstreams/0/identityProvider", json!("other"), A::Invalid),
        ("identity", "/spec/servers/0/handle", json!({"carriers": []}), A::Invalid),
        ("identity", "/spec/identityProviders", json!([]), A::Invalid),
        ("catalog", "/spec/allowedNamespaces", json!({}), A::NamespaceNotAllowed),
        (
            "catalog",
            "/spec/allowedNamespaces/selector/matchLabels",
            json!({"tier": "dev"}),
            A::NamespaceNotAllowed,
        ),
        ("catalog", "/spec/scopes/1/name", json!("hr:pay:read"), A::Accepted), // breaks the catalogue itself, see below
        ("provider", "/spec/allowedNamespaces", json!({"from": "None"}), A::NamespaceNotAllowed),
        ("provider", "/spec/clientAuthentication", json!({"allowed": []}), A::ClientAuthenticationNotAllowed),
    ];
    for (object, pointer, value, reason) in cases {
        let mut gathered = changed(object, pointer, value.clone());
        gathered.last_bundle = Some(last_good());
        let desired = plan(&gathered);
        if reason == A::Accepted {
            assert_ne!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted), "{pointer}");
            continue;
        }
        assert_eq!(desired.accepted.reason, reason, "{pointer} {value} {}", desired.accepted.message);
        assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted), "{pointer} {value}");
    }
}

#[test]
fn a_missing_service_account_is_said_and_changes_no_bundle() {
    let mut gathered = gathered();
    gathered.service_account = None;
    let desired = plan(&gathered);
    written(&desired);
    assert_eq!(desired.resolved_refs.reason, ResolvedRefsReason::ServiceAccountNotFound);
    assert!(desired.resolved_refs.message.contains("kubectl -n hr create serviceaccount hr-mcp"));
}

#[test]
fn suspended_is_a_policy_that_says_so_and_deleted_a_tombstone() {
    let desired = plan(&changed("identity", "/spec/state", json!("Suspended")));
    assert_eq!(written(&desired).state, State::Suspended);
    let desired = plan(&changed("identity", "/metadata/deletionTimestamp", json!("2026-01-02T00:00:00Z")));
    assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityDeleted));
}

#[test]
fn of_two_identities_with_one_url_the_older_wins() {
    let sibling = |namespace: &str, created: &str, url: &str| {
        let mut sibling = identity_value();
        sibling["metadata"] =
            json!({"name": "hr-tools", "namespace": namespace, "creationTimestamp": created});
        sibling["spec"]["servers"][0]["url"] = json!(url);
        object(sibling)
    };
    let url = "https://hr.example.com/mcp";
    for (sibling, taken) in [
        (sibling("aa", "2025-12-31T00:00:00Z", url), true),
        (sibling("zz", "2025-12-31T00:00:00Z", "https://hr.example.com:443/mcp/"), true),
        (sibling("aa", "2026-01-01T00:00:00Z", url), true),
        (sibling("zz", "2026-01-01T00:00:00Z", url), false),
        (sibling("aa", "2026-01-02T00:00:00Z", url), false),
        (sibling("aa", "2025-12-31T00:00:00Z", "https://hr.example.com/other"), false),
        (object(identity_value()), false),
    ] {
        let mut gathered = gathered();
        gathered.siblings = vec![sibling];
        let desired = plan(&gathered);
        assert_eq!(
            desired.accepted.reason == AcceptedReason::AudienceTaken,
            taken,
            "{:?}",
            gathered.siblings
        );
        assert_eq!(refused(&desired).is_some(), taken);
    }
}

#[test]
fn the_name_of_a_service_is_its_namespaces() {
    for url in [
        "https://tools.finance.svc/mcp",
        "http://tools.finance.svc.cluster.local:8000/mcp",
        "https://TOOLS.Finance.SVC/mcp",
        "https://tools.finance.svc./mcp",
        "https://tools.finance.svc.cluster.local./mcp",
        "https://tools%2efinance%2esvc/mcp",
        "https://tools.hr.finance.svc/mcp",
        "https://hr.finance.svc/mcp",
        "https://tools.xhr.svc/mcp",
        "https://hr.svc/mcp",
        "https://hr.svc.cluster.local/mcp",
    ] {
        let mut gathered = changed("identity", "/spec/servers/0/url", json!(url));
        gathered.last_bundle = Some(last_good());
        let desired = plan(&gathered);
        assert_eq!(desired.accepted.reason, AcceptedReason::HostNotOwned, "{url}");
        let message = &desired.accepted.message;
        assert!(message.contains("<service>.hr.svc") && message.contains(url), "{message}");
        assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted), "{url}");
    }
    for url in [
        "https://tools.hr.svc/mcp",
        "http://tools.hr.svc.cluster.local:8000/mcp",
        "https://Tools.HR.svc/mcp",
        "https://tools.hr.svc./mcp",
        "https://pod-0.tools.hr.svc/mcp",
        "https://tools.finance.svc.example.com/mcp",
        "https://svc.example.com/mcp",
        "https://tools.finance.mysvc/mcp",
        "https://hr.example.com/finance.svc",
    ] {
        let reason = plan(&changed("identity", "/spec/servers/0/url", json!(url))).accepted.reason;
        assert!(
            matches!(
                reason,
                AcceptedReason::Accepted
                    | AcceptedReason::AcceptedPlainHTTP
                    | AcceptedReason::AcceptedTLSElsewhere
            ),
            "{url} {reason:?}"
        );
    }
}

#[test]
fn a_provider_whose_audience_is_taken_is_not_resolved_until_the_older_one_goes() {
    let mut gathered = gathered();
    let mut older = provider_value("older");
    older["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
    older["spec"]["issuer"] = json!("https://idp.example.com/realms/corp");
    gathered.rival_providers = vec![gathered.providers["corp"].clone(), object(older)];
    let first = plan(&gathered);
    assert_eq!(first.resolved_refs.reason, ResolvedRefsReason::IdentityProviderNotAccepted);
    assert!(first.resolved_refs.message.contains("AudienceTaken"), "{}", first.resolved_refs.message);
    assert_eq!(refused(&first), Some(RefuseAllReason::ReferencesNotResolved));
    gathered.last_bundle = Some(last_good());
    assert_eq!(plan(&gathered).bundle, BundleIntent::Keep, "as with any provider that became invalid");
    gathered.rival_providers.pop();
    assert_eq!(plan(&gathered).resolved_refs.reason, ResolvedRefsReason::Resolved);
    // The younger of the two is nothing to those who name the older.
    let mut younger = provider_value("younger");
    younger["metadata"]["creationTimestamp"] = json!("2026-12-01T00:00:00Z");
    younger["spec"]["issuer"] = json!("https://idp.example.com/realms/corp");
    gathered.providers.get_mut("corp").unwrap().metadata.creation_timestamp = Some(at(0));
    gathered.rival_providers = vec![gathered.providers["corp"].clone(), object(younger)];
    assert_eq!(plan(&gathered).resolved_refs.reason, ResolvedRefsReason::Resolved);
}

#[test]
fn of_two_identities_with_one_account_the_older_wins_within_the_namespace() {
    for (namespace, taken) in [("hr", true), ("finance", false)] {
        let mut sibling = identity_value();
        sibling["metadata"] =
            json!({"name": "a", "namespace": namespace, "creationTimestamp": "2025-12-31T00:00:00Z"});
        sibling["spec"]["servers"][0]["url"] = json!("https://other.example.com/mcp");
        let mut gathered = gathered();
        gathered.siblings = vec![object(sibling)];
        assert_eq!(
            plan(&gathered).accepted.reason == AcceptedReason::ServiceAccountTaken,
            taken,
            "{namespace}"
        );
    }
}

#[test]
fn an_exempted_account_is_no_identitys() {
    let exempt = |list: &str| {
        let mut gathered = gathered();
        let annotations = gathered.namespace.metadata.annotations.get_or_insert_default();
        annotations.insert("behalf.dev/exempt-service-accounts".to_owned(), list.to_owned());
        plan(&gathered)
    };
    for list in ["hr-mcp", "batch, hr-mcp", "hr-mcp,"] {
        let desired = exempt(list);
        assert_eq!(desired.accepted.reason, AcceptedReason::ServiceAccountExempt, "{list}");
        assert!(refused(&desired).is_some(), "{list}: never an older, wider bundle");
        assert!(desired.accepted.message.contains("take hr-mcp out of the list"), "{list}");
    }
    for list in ["", ",", "hr", "hr-mcp2", "batch", "hr-*", "HR-MCP"] {
        assert_eq!(exempt(list).accepted.reason, AcceptedReason::Accepted, "{list}");
    }
}

#[test]
fn two_providers_with_one_issuer_are_refused() {
    let mut identity = identity_value();
    let second =
        json!({"name": "twin", "client": {"id": "x", "authentication": {"type": "ServiceAccountToken"}}});
    identity["spec"]["identityProviders"].as_array_mut().unwrap().push(second);
    let mut gathered = gathered_with(identity, catalog_value(), provider_value("corp"));
    let mut twin = provider_value("twin");
    twin["spec"]["issuer"] = json!("https://idp.example.com/realms/corp");
    gathered.providers.extend(providers(vec![twin]));
    assert_eq!(refused(&plan(&gathered)), Some(RefuseAllReason::IdentityNotAccepted));
}

#[test]
fn what_does_not_fit_into_a_config_map_is_refused() {
    let mut catalog = catalog_value();
    let tools: Vec<_> = (0..6000)
        .map(|number| json!({"name": format!("tool.{number}.{}", "x".repeat(80)), "scopes": ["hr:read"]}))
        .collect();
    catalog["spec"]["toolSets"][0]["tools"] = json!(tools);
    let desired = plan(&gathered_with(identity_value(), catalog, provider_value("corp")));
    assert_eq!(desired.accepted.reason, AcceptedReason::TooLarge);
    assert_eq!(refused(&desired), Some(RefuseAllReason::IdentityNotAccepted));
}

#[test]
fn no_bundle_is_made_where_no_pod_can_join_but_one_that_is_there_follows() {
    let mut outside = gathered();
    outside.namespace.metadata.labels.as_mut().unwrap().remove("behalf.dev/injection");
    assert_eq!(plan(&outside).bundle, BundleIntent::Keep);
    outside.last_bundle = Some(LastBundle { document: document(tombstone(), 1), digest: String::new() });
    assert!(matches!(plan(&outside).bundle, BundleIntent::Write(Serve::Policy(_))));
    outside.identity.metadata.deletion_timestamp = Some(at(1));
    assert_eq!(plan(&outside).bundle, BundleIntent::Write(tombstone()));
}

#[test]
fn the_serial_never_goes_back_and_an_unchanged_bundle_is_not_written() {
    let last = document(tombstone(), 1000);
    assert_eq!(next_document("hr", "hr-tools", tombstone(), None, None, Some(&last), 2000), None);
    let other = Serve::RefuseAll { reason: RefuseAllReason::IdentityNotAccepted };
    let next = |now| {
        next_document("hr", "hr-tools", other.clone(), None, None, Some(&last), now)
            .map(|document| document.serial)
    };
    assert_eq!(next(2000), Some(2000));
    assert_eq!(next(10), Some(1001), "a clock that went back");
    let salted = next_document("hr", "hr-tools", tombstone(), None, Some("salt"), Some(&last), 2000).unwrap();
    assert_eq!(salted.record_salt.as_deref(), Some("salt"), "a bundle gets the salt that it has not");
    assert_eq!(next_document("hr", "hr-tools", tombstone(), None, Some("salt"), Some(&salted), 3000), None);
    let foreign = next_document("hr", "other", tombstone(), None, None, Some(&last), 10);
    assert_eq!(foreign.map(|document| document.serial), Some(1001), "another identity's bundle is rewritten");
}

#[test]
fn the_revision_of_the_catalogue_follows_its_rows_and_nothing_else() {
    let before = written(&plan(&gathered())).catalog_revision;
    let unrelated = changed("catalog", "/spec/scopes/3/holders", json!({"groups": ["nobody"]}));
    assert_eq!(written(&plan(&unrelated)).catalog_revision, before);
    let related = changed("catalog", "/spec/scopes/1/holders", json!({"groups": ["nobody"]}));
    assert_ne!(written(&plan(&related)).catalog_revision, before);
}
