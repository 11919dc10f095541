//! The states that a person may find an object in, each with its cause and next step: see `tests/golden`.
use behalf_e2e::Undo;
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::golden::{Thing, golden, seen, state};
use super::pods::{main, plain};
use super::reach::{WAIT, command, listening, make, ready};
use super::scene::{account, identity, namespace, reason};

const PLACE: &str = "e2e-golden";
/// Not enrolled.
const OFF: &str = "e2e-golden-off";
/// Enrolled when a pod runs already.
const LATE: &str = "e2e-golden-late";

#[test]
fn the_healthy_identity() {
    let api = Api::open();
    reason(&api, "hr", "hr-tools", "Ready", "Ready");
    // Its Events tell of everything that was tried on it; those of a fresh one are below.
    let seen = seen(&api, Thing::identity("hr", "hr-tools"), false);
    golden("healthy.txt", &seen).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// A copy of one of the demo's objects, which goes when the guard does.
fn copied<'a>(
    api: &'a Api,
    kind: &'static str,
    name: &'static str,
    change: impl FnOnce(&mut Value),
) -> Undo<'a> {
    let mut spec = api.get(&[kind, "corp"])["spec"].clone();
    // Differs from machine to machine, and no state of these is about it.
    if kind == "scat" {
        spec["downstreams"][0]["http"].as_object_mut().unwrap().remove("caBundle");
    } else {
        spec.as_object_mut().unwrap().remove("caBundle");
        // One audience belongs to one provider.
        spec["issuer"] = json!(format!("https://{name}.example.com"));
    }
    change(&mut spec);
    let kind_of = if kind == "scat" { "ScopeCatalog" } else { "IdentityProvider" };
    api.apply(
        &json!({"apiVersion": "behalf.dev/v1alpha1", "kind": kind_of, "metadata": {"name": name}, "spec": spec}),
    );
    Undo::new(move || api.world.kubectl(&["delete", kind, name, "--ignore-not-found"]).map(drop))
}

struct Case {
    name: &'static str,
    change: fn(&mut Value),
    /// The condition that says it, and its reason.
    says: (&'static str, &'static str),
}

fn provider(spec: &mut Value, name: &str) {
    spec["identityProviders"][0]["name"] = json!(name);
    spec["downstreams"][0]["identityProvider"] = json!(name);
}

const CASES: &[Case] = &[
    Case { name: "fresh", change: |_| {}, says: ("Ready", "NoPods") },
    Case {
        name: "catalog-missing",
        change: |spec| spec["catalogRef"]["name"] = json!("nowhere"),
        says: ("ResolvedRefs", "CatalogNotFound"),
    },
    Case {
        name: "catalog-invalid",
        change: |spec| spec["catalogRef"]["name"] = json!("e2e-broken"),
        says: ("ResolvedRefs", "CatalogNotAccepted"),
    },
    Case {
        name: "provider-missing",
        change: |spec| provider(spec, "nowhere"),
        says: ("ResolvedRefs", "IdentityProviderNotFound"),
    },
    Case {
        name: "provider-invalid",
        change: |spec| provider(spec, "e2e-broken"),
        says: ("ResolvedRefs", "IdentityProviderNotAccepted"),
    },
    Case {
        name: "provider-closed",
        change: |spec| provider(spec, "e2e-closed"),
        says: ("ResolvedRefs", "NamespaceNotAllowed"),
    },
    Case {
        name: "tool-set-missing",
        change: |spec| spec["servers"][0]["toolSet"] = json!("nothing"),
        says: ("ResolvedRefs", "ToolSetNotFound"),
    },
    Case {
        name: "downstream-missing",
        change: |spec| spec["downstreams"][0]["name"] = json!("archive"),
        says: ("ResolvedRefs", "DownstreamNotFound"),
    },
    Case {
        name: "namespace-not-allowed",
        change: |spec| spec["catalogRef"]["name"] = json!("e2e-closed"),
        says: ("ResolvedRefs", "NamespaceNotAllowed"),
    },
    Case {
        name: "account-missing",
        change: |spec| spec["serviceAccountName"] = json!("nobody"),
        says: ("ResolvedRefs", "ServiceAccountNotFound"),
    },
    Case {
        name: "url-taken",
        change: |spec| {
            spec["servers"][0]["url"] = json!("http://fresh.e2e-golden.svc.cluster.local:8000/mcp");
        },
        // Of two that were made in one second the first by name is the older.
        says: ("Accepted", "AudienceTaken"),
    },
    Case {
        name: "url-foreign",
        change: |spec| spec["servers"][0]["url"] = json!(behalf_e2e::SERVER),
        says: ("Accepted", "HostNotOwned"),
    },
    Case {
        name: "provider-taken",
        change: |spec| provider(spec, "e2e-twin"),
        says: ("ResolvedRefs", "IdentityProviderNotAccepted"),
    },
    Case {
        // Of two that were made in one second the first by name is the older.
        name: "same-account",
        change: |spec| spec["serviceAccountName"] = json!("fresh"),
        says: ("Accepted", "ServiceAccountTaken"),
    },
    Case {
        name: "scope-unknown",
        change: |spec| spec["scopes"]["optional"] = json!(["hr:everything"]),
        says: ("Accepted", "ScopeNotInCatalog"),
    },
    Case {
        name: "url-insecure",
        change: |spec| spec["servers"][0]["url"] = json!("http://hr.example.com/mcp"),
        says: ("Accepted", "InsecureURL"),
    },
    Case {
        name: "port-reserved",
        change: |spec| spec["servers"][0]["port"] = json!(15_102),
        says: ("Accepted", "PortReserved"),
    },
    Case {
        name: "suspended",
        change: |spec| spec["state"] = json!("Suspended"),
        says: ("Ready", "Suspended"),
    },
];

fn elsewhere() -> Value {
    json!({"from": "Selector", "selector": {"matchLabels": {"tier": "elsewhere"}}})
}

/// Everything that its author, or the platform, has to put right.
#[test]
fn states_of_an_identity_as_it_is_written() {
    let api = Api::open();
    let _place = namespace(&api, PLACE, Some("Optional"));
    let broken = |spec: &mut Value| spec["toolSets"][0]["tools"][0]["scopes"] = json!(["hr:nowhere"]);
    let _catalogs = [
        copied(&api, "scat", "e2e-broken", broken),
        copied(&api, "scat", "e2e-closed", |spec| spec["allowedNamespaces"] = elsewhere()),
        copied(&api, "scat", "e2e-inward", |spec| {
            spec["downstreams"][0]["http"]["origin"] = json!("https://169.254.169.254");
        }),
        copied(&api, "scat", "e2e-nobodys", |spec| spec["allowedNamespaces"] = json!({"from": "None"})),
    ];
    let no_certificate = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let _providers = [
        copied(&api, "idp", "e2e-broken", |spec| spec["caBundle"] = json!(no_certificate)),
        copied(&api, "idp", "e2e-closed", |spec| spec["allowedNamespaces"] = elsewhere()),
        copied(&api, "idp", "e2e-twin", |spec| spec["issuer"] = json!("https://e2e-closed.example.com")),
    ];
    for case in CASES {
        let mut object = identity(PLACE, case.name, case.name);
        (case.change)(&mut object["spec"]);
        if case.name != "account-missing" {
            api.apply(&account(PLACE, case.name));
        }
        api.apply(&object);
    }
    let mut wrong = Vec::new();
    for case in CASES {
        wrong.extend(state(&api, case.name, Thing::identity(PLACE, case.name), case.says, true));
    }
    let of_cluster = [
        ("catalog-broken", "scat", "e2e-broken", "UnknownScope"),
        ("catalog-inward", "scat", "e2e-inward", "Invalid"),
        ("catalog-nobodys", "scat", "e2e-nobodys", "Accepted"),
        ("provider-broken", "idp", "e2e-broken", "InvalidCABundle"),
        ("provider-twin", "idp", "e2e-twin", "AudienceTaken"),
    ];
    for (file, kind, name, expected) in of_cluster {
        wrong.extend(state(&api, file, Thing::of_cluster(kind, name), ("Accepted", expected), true));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Nothing is written into such a namespace; what to do is said.
#[test]
fn the_state_of_an_identity_whose_namespace_is_not_enrolled() {
    let api = Api::open();
    let _off = namespace(&api, OFF, None);
    api.apply(&account(OFF, "not-enrolled"));
    api.apply(&identity(OFF, "not-enrolled", "not-enrolled"));
    let thing = Thing::identity(OFF, "not-enrolled");
    let wrong = state(&api, "not-enrolled", thing, ("Ready", "NoPods"), true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What comes about later: a catalogue that breaks or goes, a pod that was there before.
#[test]
fn states_that_come_about() {
    let api = Api::open();
    let _place = namespace(&api, PLACE, Some("Optional"));
    let _late = namespace(&api, LATE, None);
    let create = |place: &'static str, name: &'static str, change: fn(&mut Value)| {
        let mut object = identity(place, name, name);
        change(&mut object["spec"]);
        api.apply(&account(place, name));
        api.apply(&object);
    };
    let mut wrong = Vec::new();

    // A catalogue breaks, another goes: pods keep what they have.
    let breaks = copied(&api, "scat", "e2e-breaks", |_| {});
    let goes = copied(&api, "scat", "e2e-goes", |_| {});
    create(PLACE, "catalog-breaks", |spec| spec["catalogRef"]["name"] = json!("e2e-breaks"));
    create(PLACE, "catalog-goes", |spec| spec["catalogRef"]["name"] = json!("e2e-goes"));
    for name in ["catalog-breaks", "catalog-goes"] {
        reason(&api, PLACE, name, "Accepted", "AcceptedPlainHTTP");
        let bundle = format!("behalf-bundle-{name}");
        eventually("the bundle is there", 60, || api.ask(&["-n", PLACE, "get", "configmap", &bundle], ""));
    }
    let mut spec = api.get(&["scat", "e2e-breaks"])["spec"].clone();
    spec["toolSets"][0]["tools"][0]["scopes"] = json!(["hr:nowhere"]);
    api.world.patch("default", "scat/e2e-breaks", &json!({"spec": spec})).unwrap();
    goes.now().unwrap();
    let thing = |name| Thing::identity(PLACE, name);
    wrong.extend(state(
        &api,
        "catalog-breaks",
        thing("catalog-breaks"),
        ("ResolvedRefs", "CatalogNotAccepted"),
        true,
    ));
    wrong.extend(state(
        &api,
        "catalog-goes",
        thing("catalog-goes"),
        ("ResolvedRefs", "CatalogNotFound"),
        true,
    ));
    drop(breaks);

    // A pod with the label, from before Behalf judged such pods.
    let unjudged = without_binding(&api, "behalf-not-enrolled");
    let mut before = waits(&api, LATE, "before");
    before["metadata"]["labels"] = json!({"behalf.dev/agent-identity": "late"});
    make(&api, &before);
    drop(unjudged);
    ready(&api, LATE, "before");
    create(LATE, "late", |_| {});
    api.kubectl(&["label", "namespace", LATE, "behalf.dev/injection=Optional"]);
    wrong.extend(state(&api, "late", Thing::identity(LATE, "late"), ("Ready", "PodsMissing"), false));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// One policy not in force, until the guard goes.
fn without_binding<'a>(api: &'a Api, name: &'static str) -> Undo<'a> {
    let mut binding = api.get(&["validatingadmissionpolicybinding", name]);
    let metadata = binding["metadata"].as_object_mut().unwrap();
    metadata.retain(|field, _| ["name", "labels", "annotations"].contains(&field.as_str()));
    let undo = Undo::new(move || api.world.cluster.apply(&binding.to_string()).map(drop));
    api.kubectl(&["delete", "validatingadmissionpolicybinding", name]);
    undo
}

/// A pod that only waits.
fn waits(api: &Api, place: &str, name: &str) -> Value {
    let mut pod = plain(api, place, name);
    main(&mut pod)["command"] = command(WAIT, &[]);
    pod
}

/// A pod that runs as the account, from before the identity: nobody could refuse it then, and it is found afterwards.
#[test]
fn the_state_of_an_identity_whose_account_another_pod_runs_as() {
    let api = Api::open();
    let _place = namespace(&api, PLACE, Some("Optional"));
    api.apply(&account(PLACE, "stray"));
    let mut stray = waits(&api, PLACE, "stray");
    stray["spec"]["serviceAccountName"] = json!("stray");
    make(&api, &stray);
    ready(&api, PLACE, "stray");
    api.apply(&identity(PLACE, "stray", "stray"));
    let thing = Thing::identity(PLACE, "stray");
    let wrong = state(&api, "stray", thing, ("Ready", "PodsMissing"), true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    api.kubectl(&["-n", PLACE, "delete", "pod", "stray", "--wait=true", "--timeout=60s"]);
    reason(&api, PLACE, "stray", "Ready", "NoPods");
}

/// A pod that runs, one that has to be restarted, and one whose Service leads elsewhere too.
#[test]
fn states_of_an_identity_with_pods() {
    let api = Api::open();
    let _place = namespace(&api, PLACE, Some("Optional"));
    api.apply(&account(PLACE, "running"));
    api.apply(&identity(PLACE, "running", "running"));
    reason(&api, PLACE, "running", "Accepted", "AcceptedPlainHTTP");
    let mut pod = listening(&api, "8000", "");
    pod["metadata"] = json!({
        "name": "running", "namespace": PLACE, "labels": {"app": "running", "behalf.dev/agent-identity": "running"},
    });
    pod["spec"]["serviceAccountName"] = json!("running");
    make(&api, &pod);
    ready(&api, PLACE, "running");
    let thing = Thing::identity(PLACE, "running");
    let mut wrong = Vec::new();
    reason(&api, PLACE, "running", "Ready", "Ready");
    wrong.extend(state(&api, "running", thing, ("BypassClosed", "Closed"), false));

    let mut object = identity(PLACE, "running", "running");
    object["spec"]["servers"][0]["interception"] =
        json!({"type": "Redirect", "extraPorts": [{"port": 9090, "protocol": "TCP"}]});
    api.apply(&object);
    eventually("the pod is outdated", 60, || {
        let pods = api.get(&["aid", "-n", PLACE, "running"])["status"]["pods"].clone();
        if pods["outdated"] == 1 { Ok(()) } else { Err(pods.to_string()) }
    });
    wrong.extend(state(&api, "outdated", thing, ("Ready", "Ready"), false));
    api.apply(&identity(PLACE, "running", "running"));
    reason(&api, PLACE, "running", "Ready", "Ready");

    // A pod beside it, with the label that the Service selects and not that of the identity.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "running", "namespace": PLACE},
        "spec": {"selector": {"app": "running"}, "ports": [{"port": 8000, "targetPort": "mcp"}]},
    });
    api.apply(&service);
    let mut beside = listening(&api, "8000", "");
    beside["metadata"] = json!({"name": "beside", "namespace": PLACE, "labels": {"app": "running"}});
    beside["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    make(&api, &beside);
    ready(&api, PLACE, "beside");
    wrong.extend(state(&api, "foreign-endpoint", thing, ("Ready", "BypassOpen"), false));
    api.kubectl(&["-n", PLACE, "delete", "pod", "beside", "--wait=true", "--timeout=60s"]);
    reason(&api, PLACE, "running", "BypassClosed", "Closed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
