//! What a namespace's editor tries, in pods and beside them; with the operator there and with every pod of ours dead.
use behalf_e2e::{ISSUER, Undo};
use serde_json::{Value, json};

use super::admission::table;
use super::api::{Api, eventually};
use super::further::{ALONE, FEED, MORE, UNLABELLED};
use super::pods::{plain, server, written};
use super::reach::{make, ready};
use super::scene::{
    ENROLLED, PLAIN, account, as_editor, enrolled, identity, injecting, namespace, reason, without_operator,
};

fn unlabelled(api: &Api) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, change, wanted) in UNLABELLED {
        let mut pod = plain(api, ENROLLED, "unlabelled");
        change(&mut pod);
        match api.try_create(&pod) {
            Ok(_) => wrong.push(format!("unlabelled, {name}: let in")),
            Err(said) if !said.contains(wanted) => {
                wrong.push(format!("unlabelled, {name}: wants {wanted:?}, got {said}"));
            }
            Err(_) => {}
        }
    }
    wrong
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

/// One thing tried with kubectl: its words, its input, and what the refusal says.
type Try<'a> = (&'a str, Vec<&'a str>, String, &'a str);

fn object(kind: &str, name: &str, more: &Value) -> String {
    let mut object =
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ENROLLED}});
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object.to_string()
}

/// Tokens, objects of ours, and the namespace itself.
fn beside_pods() -> Vec<Try<'static>> {
    let create = || vec!["create", "-f", "-"];
    let patch = |object| vec!["patch", "configmap", object, "--type=merge", "-p", r#"{"data":{"x":"y"}}"#];
    let token = |more: &[&'static str]| [&["create", "token", "tools"][..], more].concat();
    let (no_token, bundles, rbac) =
        ("there is no other way to get one", "are written by the operator", "orbidden");
    let empty = json!({});
    vec![
        ("a token for the provider", token(&["--audience", ISSUER]), String::new(), no_token),
        (
            "a short token for the provider",
            token(&["--duration=600s", "--audience", ISSUER]),
            String::new(),
            no_token,
        ),
        (
            "a token for the provider, bound to a pod",
            token(&["--audience", ISSUER, "--bound-object-kind=Pod", "--bound-object-name=server"]),
            String::new(),
            no_token,
        ),
        ("a token for the feed", token(&["--audience", FEED]), String::new(), no_token),
        (
            "a token for the feed among others",
            token(&["--audience=x", "--audience", FEED]),
            String::new(),
            no_token,
        ),
        (
            "a token for the feed, bound to a pod",
            token(&["--audience", FEED, "--bound-object-kind=Pod", "--bound-object-name=server"]),
            String::new(),
            no_token,
        ),
        (
            "another account's token for the feed",
            vec!["create", "token", "other", "--audience", FEED],
            String::new(),
            no_token,
        ),
        ("a forged bundle", create(), object("ConfigMap", "behalf-bundle-forged", &empty), bundles),
        ("a changed bundle", patch("behalf-bundle-tools"), String::new(), bundles),
        ("a deleted bundle", vec!["delete", "configmap", "behalf-bundle-tools"], String::new(), bundles),
        ("made-up counts", create(), object("ConfigMap", "behalf-counts-tools", &empty), "by the operator"),
        (
            "deleted counts",
            vec!["delete", "configmap", "behalf-counts-tools"],
            String::new(),
            "by the operator|NotFound",
        ),
        (
            "the namespace's label removed",
            vec!["label", "namespace", ENROLLED, "behalf.dev/injection-"],
            String::new(),
            rbac,
        ),
        (
            "the namespace's label changed",
            vec!["label", "--overwrite", "namespace", ENROLLED, "behalf.dev/injection=Off"],
            String::new(),
            rbac,
        ),
        ("the namespace annotated", vec!["annotate", "namespace", ENROLLED, "a=b"], String::new(), rbac),
        (
            "the identity changed",
            vec!["patch", "aid", "tools", "--type=merge", "-p", r#"{"spec":{"state":"Active"}}"#],
            String::new(),
            rbac,
        ),
        (
            "the identity's status",
            vec![
                "patch",
                "aid",
                "tools",
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":{"conditions":[]}}"#,
            ],
            String::new(),
            rbac,
        ),
        ("the catalogue", vec!["patch", "scat", "corp", "--type=merge", "-p", "{}"], String::new(), rbac),
        ("the provider", vec!["patch", "idp", "corp", "--type=merge", "-p", "{}"], String::new(), rbac),
        (
            "the webhook",
            vec!["delete", "mutatingwebhookconfiguration", "behalf-injector"],
            String::new(),
            rbac,
        ),
        ("a policy", vec!["delete", "validatingadmissionpolicy", "behalf-containers"], String::new(), rbac),
        (
            "a binding",
            vec!["delete", "validatingadmissionpolicybinding", "behalf-containers"],
            String::new(),
            rbac,
        ),
        (
            "the trusted keys",
            vec!["-n", "behalf-system", "patch", "configmap", "behalf-trust", "-p", "{}"],
            String::new(),
            rbac,
        ),
        (
            "the signing keys",
            vec!["-n", "behalf-system", "get", "secret", "behalf-signing-keys"],
            String::new(),
            rbac,
        ),
        (
            "the operator",
            vec!["-n", "behalf-system", "scale", "deployment/behalf-operator", "--replicas=0"],
            String::new(),
            rbac,
        ),
    ]
}

/// Somebody who may change namespaces, as those who own one may in many clusters, and who is not the platform team.
fn as_owner(api: &Api, words: &[&str]) -> Result<String, String> {
    api.ask(&[&["--as=e2e-owner", "--as-group=system:authenticated"], words].concat(), "")
}

fn owner(api: &Api) -> Undo<'_> {
    let group = "rbac.authorization.k8s.io";
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "e2e-owner"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [ENROLLED, PLAIN], "verbs": ["get", "patch", "update"]}],
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

/// Which namespaces are enrolled is for the platform team to say.
fn enrolment(api: &Api) -> Vec<String> {
    let label = "behalf.dev/injection";
    let rows = [
        (ENROLLED, format!("{label}-")),
        (ENROLLED, format!("{label}=Off")),
        (ENROLLED, format!("{label}=Required")),
        (PLAIN, format!("{label}=Optional")),
    ];
    let mut wrong = Vec::new();
    for (namespace, word) in &rows {
        match as_owner(api, &["label", "--overwrite", "--dry-run=server", "namespace", namespace, word]) {
            Err(said) if said.contains("is the platform team's") => {}
            other => wrong.push(format!("{word} on {namespace}: {other:?}")),
        }
    }
    // What else stands on a namespace is its owner's.
    if let Err(said) = as_owner(api, &["label", "--overwrite", "namespace", ENROLLED, "e2e=own"]) {
        wrong.push(format!("a label of one's own: {said}"));
    }
    wrong
}

fn refused(api: &Api, tries: &[Try<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, words, input, wanted) in tries {
        match as_editor(api, ENROLLED, words, input) {
            Ok(said) => wrong.push(format!("{name}: done: {said}")),
            Err(said) if !wanted.split('|').any(|part| said.contains(part)) => {
                wrong.push(format!("{name}: wants {wanted:?}, got {said}"));
            }
            Err(_) => {}
        }
    }
    wrong
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
    injecting(&api);
    make(&api, &server(&api));
    ready(&api, ENROLLED, "server");
    eventually("the bundle is there", 30, || {
        api.ask(&["-n", ENROLLED, "get", "configmap", "behalf-bundle-tools"], "")
    });
    let _owner = owner(&api);
    let tries = beside_pods();
    let all = || [refused(&api, &tries), by_namespace(&api), enrolment(&api)].concat();
    let mut wrong = all();
    let _away = without_operator(&api);
    let alone = all().into_iter();
    wrong.extend(alone.map(|line| format!("without operator: {line}")));
    // What only narrows is the namespace's own.
    let deny = object("ConfigMap", "behalf-deny", &json!({"data": {"nobody": "*"}}));
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &deny).unwrap();
    as_editor(&api, ENROLLED, &["delete", "configmap", "behalf-deny"], "").unwrap();
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
