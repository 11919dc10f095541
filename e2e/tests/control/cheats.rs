//! What a namespace's editor tries, in pods and beside them; with the operator there and with every pod of ours dead.
use behalf_e2e::{ISSUER, Undo};
use serde_json::{Value, json};

use super::admission::{changed, table};
use super::api::{Api, eventually};
use super::exempt::{exempting, exemptions};
use super::further::{ALONE, MORE, UNLABELLED};
use super::pods::{plain, server, written};
use super::reach::{make, ready};
use super::roles::{rights, unjudged, widening};
use super::scene::{
    ENROLLED, PLAIN, REQUIRED, account, as_editor, enrolled, identity, injecting, namespace, reason,
    without_operator,
};

fn unlabelled(api: &Api) -> Vec<String> {
    let changes: Vec<_> = UNLABELLED.iter().map(|(_, change, _)| *change).collect();
    let said = changed(api, &plain(api, ENROLLED, "unlabelled"), &changes);
    let rows = UNLABELLED.iter().zip(said);
    rows.filter_map(|((name, _, wanted), said)| match said {
        None => Some(format!("unlabelled, {name}: let in")),
        Some(said) if !said.contains(wanted) => {
            Some(format!("unlabelled, {name}: wants {wanted:?}, got {said}"))
        }
        Some(_) => None,
    })
    .collect()
}

#[test]
fn further_changes_of_pods_are_refused_with_and_without_operator() {
    let api = Api::open();
    let _scene = enrolled(&api);
    api.apply(&account(ENROLLED, "second"));
    api.apply(&identity(ENROLLED, "second", "second"));
    reason(&api, ENROLLED, "second", "Accepted", "AcceptedPlainHTTP");
    let base = written(&injecting(&api));
    let rows: Vec<_> = MORE.iter().collect();
    let mut wrong = table(&api, &base, &rows, true);
    wrong.extend(unlabelled(&api));
    let _away = without_operator(&api);
    wrong
        .extend(table(&api, &base, &rows, false).into_iter().map(|line| format!("without operator: {line}")));
    wrong.extend(table(&api, &base, &ALONE.iter().collect::<Vec<_>>(), false));
    wrong.extend(unlabelled(&api).into_iter().map(|line| format!("without operator: {line}")));
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    api.try_create(&base).expect("the table's own pod is let in by the policies alone");
}

/// Things tried with kubectl: what it is, and its words; `ISSUER` and `NS` stand for what they say.
type Tries = &'static [(&'static str, &'static str)];

/// Refused by Behalf: "there is no other way to get one".
const TOKENS: Tries = &[
    ("for the provider", "create token tools --audience ISSUER"),
    ("for the provider, for a short time", "create token tools --duration=600s --audience ISSUER"),
    ("for the provider among others", "create token tools --audience=x --audience ISSUER"),
    (
        "for the provider, bound to a pod",
        "create token tools --audience ISSUER --bound-object-kind=Pod --bound-object-name=server",
    ),
    ("for the provider, of another account", "create token other --audience ISSUER"),
    ("for the feed", "create token tools --audience behalf.dev/feed"),
    ("for the feed among others", "create token tools --audience=x --audience behalf.dev/feed"),
    (
        "for the feed, bound to a pod",
        "create token tools --audience behalf.dev/feed --bound-object-kind=Pod --bound-object-name=server",
    ),
    ("for the feed, of another account", "create token other --audience behalf.dev/feed"),
];

/// Refused by Behalf: "are written by the operator". Counts may not be there yet.
const OBJECTS: Tries = &[
    ("a forged bundle", "create configmap behalf-bundle-forged"),
    ("a changed bundle", r#"patch configmap behalf-bundle-tools --type=merge -p {"data":{"x":"y"}}"#),
    ("a bundle's label", "label configmap behalf-bundle-tools a=b"),
    ("a deleted bundle", "delete configmap behalf-bundle-tools"),
    ("made-up counts", "create configmap behalf-counts-forged"),
    ("changed counts", r#"patch configmap behalf-counts-tools --type=merge -p {"data":{"x":"y"}}"#),
    ("deleted counts", "delete configmap behalf-counts-tools"),
];

/// What `edit` does not let its holder do.
const RIGHTS: Tries = &[
    ("the namespace's label removed", "label namespace NS behalf.dev/injection-"),
    ("the namespace's label changed", "label --overwrite namespace NS behalf.dev/injection=Off"),
    ("the namespace annotated", "annotate namespace NS a=b"),
    ("the namespace's exemption", "annotate namespace NS behalf.dev/exempt-service-accounts=other"),
    (
        "the identity's status",
        r#"patch aid tools --subresource=status --type=merge -p {"status":{"conditions":[]}}"#,
    ),
    ("the catalogue", "patch scat corp --type=merge -p {}"),
    ("the provider", "patch idp corp --type=merge -p {}"),
    ("the webhook", "delete mutatingwebhookconfiguration behalf-injector"),
    ("a policy", "delete validatingadmissionpolicy behalf-containers"),
    ("a binding", "delete validatingadmissionpolicybinding behalf-containers"),
    ("the trusted keys", "-n behalf-system patch configmap behalf-trust -p {}"),
    ("the signing keys", "-n behalf-system get secret behalf-signing-keys"),
    ("the operator", "-n behalf-system scale deployment/behalf-operator --replicas=0"),
];

/// Somebody who may change namespaces, as those who own one may in many clusters, and who is not the platform team.
fn as_owner(api: &Api, words: &[&str]) -> Result<String, String> {
    api.ask(&[&["--as=e2e-owner", "--as-group=system:authenticated"], words].concat(), "")
}

fn owner(api: &Api) -> Undo<'_> {
    let group = "rbac.authorization.k8s.io";
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "e2e-owner"},
        "rules": [{
            "apiGroups": [""], "resources": ["namespaces", "namespaces/status", "namespaces/finalize"],
            "resourceNames": [ENROLLED, PLAIN, REQUIRED], "verbs": ["get", "patch", "update"],
        }],
    }));
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-owner"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "e2e-owner"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "e2e-owner"}],
    }));
    Undo::new(|| {
        api.world
            .kubectl(&["delete", "clusterrole,clusterrolebinding", "e2e-owner", "--ignore-not-found"])
            .map(drop)
    })
}

/// Which namespaces are enrolled, and who is exempt there, is for the platform team to say.
fn enrolment(api: &Api) -> Vec<String> {
    let (label, list) = ("behalf.dev/injection", "behalf.dev/exempt-service-accounts");
    let rows = [
        ("label", ENROLLED, format!("{label}-")),
        ("label", ENROLLED, format!("{label}=Off")),
        ("label", ENROLLED, format!("{label}=Required")),
        ("label", PLAIN, format!("{label}=Optional")),
        ("annotate", ENROLLED, format!("{list}=other")),
        ("annotate", REQUIRED, format!("{list}=batch,legacy,other")),
        ("annotate", REQUIRED, format!("{list}-")),
    ];
    let mut wrong = Vec::new();
    for (verb, namespace, word) in &rows {
        match as_owner(api, &[verb, "--overwrite", "--dry-run=server", "namespace", namespace, word]) {
            Err(said) if said.contains("is the platform team's") => {}
            other => wrong.push(format!("{word} on {namespace}: {other:?}")),
        }
    }
    // By way of what stands beside the namespace itself, too.
    let mut object = api.get(&["namespace", REQUIRED]);
    object["metadata"]["annotations"][list] = json!("batch,legacy,other");
    for way in ["status", "finalize"] {
        let at = format!("/api/v1/namespaces/{REQUIRED}/{way}?dryRun=All");
        let words = ["replace", "--raw", &at, "-f", "-", "--as=e2e-owner", "--as-group=system:authenticated"];
        match api.ask(&words, &object.to_string()) {
            Err(said) if said.contains("is the platform team's") => {}
            other => wrong.push(format!("an exemption by {way}: {other:?}")),
        }
    }
    // What else stands on a namespace is its owner's.
    if let Err(said) = as_owner(api, &["label", "--overwrite", "namespace", ENROLLED, "e2e=own"]) {
        wrong.push(format!("a label of one's own: {said}"));
    }
    wrong
}

/// Gives what was not refused with these words, or with these others where both may be.
fn refused(api: &Api, tries: Tries, wanted: [&str; 2]) -> Vec<String> {
    let one = |(name, line): &(&str, &str)| {
        let named = |word| match word {
            "ISSUER" => ISSUER,
            "NS" => ENROLLED,
            other => other,
        };
        let words: Vec<&str> = line.split(' ').map(named).collect();
        match as_editor(api, ENROLLED, &words, "") {
            Ok(said) => Some(format!("{name}: done: {said}")),
            Err(said) if !wanted.iter().any(|part| said.contains(part)) => {
                Some(format!("{name}: wants {wanted:?}, got {said}"))
            }
            Err(_) => None,
        }
    };
    // What is refused changes nothing, so several try at once.
    std::thread::scope(|all| {
        let parts = tries.chunks(tries.len().div_ceil(4).max(1));
        let parts: Vec<_> =
            parts.map(|part| all.spawn(|| part.iter().filter_map(one).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// All of it.
fn beside_pods(api: &Api) -> Vec<String> {
    let no_token = "there is no other way to get one";
    let tokens = refused(api, TOKENS, [no_token; 2]).into_iter().map(|line| format!("a token {line}"));
    let objects =
        refused(api, OBJECTS, ["are written by the operator alone", r#""behalf-counts-tools" not found"#]);
    let rights = refused(api, RIGHTS, ["orbidden"; 2]);
    let namespaces = by_namespace(api).into_iter().chain(enrolment(api)).chain(exemptions(api));
    tokens.chain(objects).chain(rights).chain(namespaces).collect()
}

/// Namespaces decide alike whether anybody of ours is there or not.
fn by_namespace(api: &Api) -> Vec<String> {
    let mut labelled = plain(api, PLAIN, "labelled");
    labelled["metadata"]["labels"] = json!({"behalf.dev/agent-identity": "tools"});
    let elsewhere = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "e2e-own", "labels": {"behalf.dev/injection": "Optional"},
    }});
    let refused = |what: &str, asked: Result<Value, String>, wanted: &str| match asked {
        Err(said) if said.contains(wanted) => None,
        other => Some(format!("{what}: wants {wanted:?}, got {other:?}")),
    };
    let enrol = format!("kubectl label namespace {PLAIN} behalf.dev/injection=Optional");
    [
        refused("our label in a namespace without ours", api.try_create(&labelled), &enrol),
        refused("a namespace of one's own", api.try_create(&elsewhere), "orbidden"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn what_an_editor_tries_beside_pods_is_refused_with_and_without_operator() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _plain = namespace(&api, PLAIN, None);
    let _required = exempting(&api);
    injecting(&api);
    make(&api, &server(&api));
    ready(&api, ENROLLED, "server");
    eventually("the bundle is there", 30, || {
        api.ask(&["-n", ENROLLED, "get", "configmap", "behalf-bundle-tools"], "")
    });
    let _owner = owner(&api);
    let mut wrong = beside_pods(&api);
    wrong.extend(rights(&api).into_iter().chain(widening(&api)));
    let _away = without_operator(&api);
    wrong.extend(beside_pods(&api).into_iter().map(|line| format!("without operator: {line}")));
    wrong.extend(unjudged(&api));
    // What only narrows is the namespace's own.
    let deny = ["create", "configmap", "behalf-deny", "--from-literal=nobody=*"];
    as_editor(&api, ENROLLED, &deny, "").unwrap();
    as_editor(&api, ENROLLED, &["delete", "configmap", "behalf-deny"], "").unwrap();
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
