//! What lets a pod in: refused and permitted pods, through the real API server.
use behalf_e2e::ISSUER;
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::neighbours::OTHERS;
use super::pods::{Change, main, plain, push, server, written};
use super::rows::{ALONE, OURS, Row};
use super::scene::{ENROLLED, PLAIN, REQUIRED, as_editor, enrolled, injecting, namespace, without_operator};

/// A policy that does not compile judges nothing.
#[test]
fn no_policy_has_a_type_warning_and_each_is_bound() {
    let api = Api::open();
    let policies = api.get(&["validatingadmissionpolicies", "-l", "app.kubernetes.io/part-of=behalf"]);
    let bound = api.get(&["validatingadmissionpolicybindings", "-l", "app.kubernetes.io/part-of=behalf"]);
    let bound: Vec<_> =
        bound["items"].as_array().unwrap().iter().map(|it| it["spec"]["policyName"].clone()).collect();
    let policies = policies["items"].as_array().unwrap();
    assert!(policies.len() >= 10, "{}", policies.len());
    for policy in policies {
        let name = &policy["metadata"]["name"];
        assert_eq!(policy["status"]["observedGeneration"], policy["metadata"]["generation"], "{name}");
        assert_eq!(policy["status"]["typeChecking"], json!({}), "{name}");
        assert!(bound.contains(name), "{name} is not bound");
    }
}

/// The rows that are not refused, or not with their message; what it wants may be one of several, separated by `|`.
pub fn table(api: &Api, base: &Value, rows: &[&Row], operator: bool) -> Vec<String> {
    let changes: Vec<_> = rows.iter().map(|row| row.change).collect();
    let wanted = |row: &Row| if operator { row.webhook.unwrap_or(row.policy) } else { row.policy };
    let said = rows.iter().zip(changed(api, base, &changes));
    said.filter_map(|(row, said)| {
        let wanted = wanted(row);
        match said {
            None => Some(format!("{}: let in", row.name)),
            Some(said) if !wanted.split('|').any(|part| said.contains(part)) => {
                Some(format!("{}: wants {wanted:?}, got {said}", row.name))
            }
            Some(_) => None,
        }
    })
    .collect()
}

/// Why each change of a pod was refused.
pub fn changed(api: &Api, base: &Value, changes: &[Change]) -> Vec<Option<String>> {
    let pods = changes.iter().enumerate().map(|(number, change)| {
        let mut pod = base.clone();
        change(&mut pod);
        pod["metadata"]["name"] = json!(format!("row-{number}"));
        pod
    });
    api.try_create_all(&pods.collect::<Vec<_>>())
}

/// Each row with the operator there, where the webhook speaks first, and with every pod of ours dead.
#[test]
fn every_changed_pod_is_refused_with_and_without_operator() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let base = written(&injecting(&api));
    assert_eq!(written(&api.try_create(&base).unwrap()), base, "what was injected is left alone");
    let rows: Vec<_> = OURS.iter().chain(OTHERS).collect();
    let mut wrong = table(&api, &base, &rows, true);
    // Pods as a team writes them, into which the webhook puts everything of ours.
    let judged: Vec<_> = OTHERS.iter().filter(|row| row.webhook.is_none()).collect();
    wrong.extend(
        table(&api, &server(&api), &judged, true)
            .into_iter()
            .map(|line| format!("not injected before: {line}")),
    );
    let away = without_operator(&api);
    wrong
        .extend(table(&api, &base, &rows, false).into_iter().map(|line| format!("without operator: {line}")));
    wrong.extend(table(&api, &base, &ALONE.iter().collect::<Vec<_>>(), false));
    api.try_create(&base).expect("the table's own pod is let in by the policies alone");
    let said = api.try_create(&server(&api)).unwrap_err();
    for part in ["was not injected", "kubectl -n behalf-system get pods", "create the pod again"] {
        assert!(said.contains(part), "{said}");
    }
    drop(away);
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= 40, "{}", rows.len());
}

#[test]
fn namespaces_say_who_may_join_and_who_must() {
    let api = Api::open();
    let _required = namespace(&api, REQUIRED, Some("Required"));
    let _plain = namespace(&api, PLAIN, None);
    let said = api.try_create(&plain(&api, REQUIRED, "bare")).unwrap_err();
    assert!(said.contains("add the label behalf.dev/agent-identity to the pod template"), "{said}");
    let mut labelled = plain(&api, PLAIN, "labelled");
    labelled["metadata"]["labels"] = json!({"behalf.dev/agent-identity": "tools"});
    let said = api.try_create(&labelled).unwrap_err();
    assert!(
        said.contains(&format!("kubectl label namespace {PLAIN} behalf.dev/injection=Optional")),
        "{said}"
    );
    // A misspelt value closes.
    api.kubectl(&["label", "--overwrite", "namespace", REQUIRED, "behalf.dev/injection=optional"]);
    let said =
        eventually("the new label is judged", 10, || match api.try_create(&plain(&api, REQUIRED, "bare")) {
            Err(said) => Ok(said),
            Ok(_) => Err("let in".to_owned()),
        });
    assert!(said.contains("requires an AgentIdentity"), "{said}");
    // And an ordinary pod starts where nobody asked for anything.
    api.try_create(&plain(&api, PLAIN, "ordinary")).unwrap();
}

#[test]
fn reserved_tokens_and_bundles_are_nobodys_to_make() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let bundle = "behalf-bundle-tools";
    eventually("the bundle is there", 30, || api.ask(&["-n", ENROLLED, "get", "configmap", bundle], ""));
    let forged = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "behalf-bundle-forged"}, "data": {}});
    let forged = forged.to_string();
    let collection = format!("/api/v1/namespaces/{ENROLLED}/configmaps");
    let audience = format!("--audience={ISSUER}");
    let operators = "are written by the operator alone; change the AgentIdentity";
    let rows: &[(&str, &[&str], &str, &str)] = &[
        ("a token", &["create", "token", "tools", &audience], "", "there is no other way to get one"),
        (
            "a token of two audiences",
            &["create", "token", "tools", &audience, "--audience=x"],
            "",
            "there is no other way to get one",
        ),
        ("a forged bundle", &["create", "-f", "-"], &forged, operators),
        (
            "a changed bundle",
            &["patch", "configmap", bundle, "--type=merge", "-p", r#"{"data":{"bundle.json":"{}"}}"#],
            "",
            operators,
        ),
        ("a label on a bundle", &["label", "configmap", bundle, "a=b"], "", operators),
        ("a deleted bundle", &["delete", "configmap", bundle], "", operators),
        ("all ConfigMaps deleted", &["delete", "--raw", &collection], "", operators),
    ];
    for (name, words, input, wanted) in rows {
        let said = as_editor(&api, ENROLLED, words, input).expect_err(name);
        assert!(said.contains(wanted), "{name}: {said}");
    }
    // Not even by the cluster's administrator, whose mistakes count as much.
    let said = api.ask(&["-n", ENROLLED, "delete", "configmap", bundle], "").unwrap_err();
    assert!(said.contains(operators), "{said}");
    // Tokens for anything else are none of ours, nor are other ConfigMaps.
    as_editor(&api, ENROLLED, &["create", "token", "tools", "--audience=elsewhere"], "").unwrap();
    as_editor(&api, ENROLLED, &["create", "configmap", "own", "--from-literal=a=b"], "").unwrap();
    as_editor(&api, ENROLLED, &["delete", "configmap", "own"], "").unwrap();
}

#[test]
fn ordinary_pods_and_ordinary_variations_are_let_in() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let ordinary = plain(&api, ENROLLED, "ordinary");
    api.try_create(&ordinary).unwrap();
    let variations: &[(&str, Change)] = &[
        ("as it is", |_| {}),
        ("an API token mounted", |pod| pod["spec"]["automountServiceAccountToken"] = json!(true)),
        ("an init container of its own", |pod| {
            push(&mut pod["spec"]["initContainers"], json!({"name": "first", "image": "localhost/x:1"}));
        }),
        ("a second container", |pod| {
            push(&mut pod["spec"]["containers"], json!({"name": "second", "image": "localhost/x:1"}));
        }),
        ("a native sidecar of its own", |pod| {
            push(
                &mut pod["spec"]["initContainers"],
                json!({"name": "own", "image": "localhost/x:1", "restartPolicy": "Always"}),
            );
        }),
        ("a baseline capability", |pod| {
            main(pod)["securityContext"]["capabilities"] =
                json!({"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]});
        }),
        ("a safe sysctl", |pod| {
            pod["spec"]["securityContext"]["sysctls"] =
                json!([{"name": "net.ipv4.tcp_syncookies", "value": "1"}]);
        }),
        ("a token for another audience", |pod| {
            push(
                &mut pod["spec"]["volumes"],
                json!({
                    "name": "vault", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "token"}}]},
                }),
            );
        }),
    ];
    for (name, change) in variations {
        let mut pod = server(&api);
        change(&mut pod);
        let made = api.try_create(&pod).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(made["spec"]["initContainers"][0]["name"], "behalf-redirect", "{name}");
        assert_eq!(made["spec"]["initContainers"][1]["name"], "behalf-sidecar", "{name}");
        assert_eq!(written(&api.try_create(&written(&made)).unwrap()), written(&made), "{name}: twice");
    }
    // What LimitRanger sets is not compared.
    api.apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults", "namespace": ENROLLED},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m", "memory": "200Mi"}, "defaultRequest": {"cpu": "5m"}}]},
    }));
    let made = eventually("the defaults are set", 30, || {
        let made = api.try_create(&server(&api))?;
        let set = &made["spec"]["initContainers"][1]["resources"]["limits"]["cpu"];
        if *set == json!("500m") { Ok(made) } else { Err(format!("{set}")) }
    });
    api.try_create(&written(&made)).unwrap();
}
