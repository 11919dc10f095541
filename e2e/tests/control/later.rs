//! A pod that runs: what may be changed about it, and who gets into it.
use serde_json::json;

use super::api::{Api, eventually};
use super::pods::{plain, server, written};
use super::reach::ready;
use super::scene::{ENROLLED, as_editor, enrolled, injecting, without_operator};

fn debug(target: &str, more: &serde_json::Value) -> String {
    let mut container = json!({
        "name": "debug", "image": "localhost/x:1", "targetContainerName": target, "terminationMessagePolicy": "File",
        "securityContext": {"capabilities": {"drop": ["ALL"]}},
    });
    for (key, value) in more.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"spec": {"ephemeralContainers": [container]}}).to_string()
}

fn ephemeral(patch: &str) -> [&str; 6] {
    beside("server", patch)
}

fn beside<'a>(pod: &'a str, patch: &'a str) -> [&'a str; 6] {
    ["patch", "pod", pod, "--subresource=ephemeralcontainers", "-p", patch]
}

/// Debug containers that would hold what no container of an enrolled pod may.
fn debugging(api: &Api) -> Vec<String> {
    let security: &[(&str, &str, serde_json::Value)] = &[
        ("server", "that keeps NET_RAW", json!({"capabilities": {"drop": ["MKNOD"]}})),
        ("server", "without any word on capabilities", json!({})),
        (
            "server",
            "unconfined",
            json!({"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "Unconfined"}}),
        ),
        ("other", "privileged", json!({"privileged": true})),
        ("other", "with NET_ADMIN", json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}})),
        ("other", "with SYS_ADMIN", json!({"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}})),
    ];
    let mut wrong = Vec::new();
    for (pod, what, security) in security {
        let target = if *pod == "server" { "server" } else { "main" };
        let patch = debug(target, &json!({"securityContext": security}));
        let words = [&beside(pod, &patch)[..], &["--dry-run=server"]].concat();
        match as_editor(api, ENROLLED, &words, "") {
            Ok(_) => wrong.push(format!("a debug container of {pod} {what}: let in")),
            Err(said) if !said.contains("--profile=restricted") => {
                wrong.push(format!("a debug container of {pod} {what}: {said}"));
            }
            Err(_) => {}
        }
    }
    wrong
}

/// What is done to the running pods `server`, which is injected, and `other`, which is not; gives what was not refused as it should.
fn moved(api: &Api) -> Vec<String> {
    let [ours, redirect, privileged, user, mount, feed, named, capability] = [
        debug("behalf-sidecar", &json!({})),
        debug("behalf-redirect", &json!({})),
        debug("server", &json!({"securityContext": {"privileged": true}})),
        debug("server", &json!({"securityContext": {"runAsUser": 15001}})),
        debug("server", &json!({"volumeMounts": [{"name": "behalf-idp-corp", "mountPath": "/x"}]})),
        debug("server", &json!({"volumeMounts": [{"name": "behalf-feed", "mountPath": "/x"}]})),
        debug("server", &json!({"name": "behalf-x"})),
        debug("server", &json!({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}})),
    ];
    let template = "set it in the pod template";
    let rows: &[(&str, &[&str], &str)] = &[
        ("the label removed", &["label", "pod", "server", "behalf.dev/agent-identity-"], template),
        (
            "the label changed",
            &["label", "--overwrite", "pod", "server", "behalf.dev/agent-identity=other"],
            template,
        ),
        ("the label added", &["label", "pod", "other", "behalf.dev/agent-identity=tools"], template),
        (
            "the sidecar's image",
            &["set", "image", "pod/server", "behalf-sidecar=localhost/evil:1"],
            "undo the change",
        ),
        (
            "the redirect's image",
            &["set", "image", "pod/server", "behalf-redirect=localhost/evil:1"],
            "undo the change",
        ),
        (
            "the annotation of what was injected",
            &["annotate", "--overwrite", "pod", "server", "behalf.dev/injected=current"],
            "leave it as it is",
        ),
        ("a debug container beside the sidecar", &ephemeral(&ours), "debug another container of the pod"),
        (
            "a debug container beside the redirect",
            &ephemeral(&redirect),
            "debug another container of the pod",
        ),
        ("a privileged debug container", &ephemeral(&privileged), "use kubectl debug --profile=restricted"),
        ("a debug container as our user", &ephemeral(&user), "use kubectl debug --profile=restricted"),
        ("a debug container with our volume", &ephemeral(&mount), "use kubectl debug --profile=restricted"),
        ("a debug container with our name", &ephemeral(&named), "debug another container of the pod"),
        (
            "a debug container with a capability",
            &ephemeral(&capability),
            "use kubectl debug --profile=restricted",
        ),
        (
            "kubectl debug",
            &["debug", "server", "--image=localhost/x:1", "--target=behalf-sidecar"],
            "debug another container of the pod",
        ),
        ("the images of both", &["set", "image", "pod/server", "*=localhost/evil:1"], "undo the change"),
        (
            "the label replaced by a patch",
            &[
                "patch",
                "pod",
                "server",
                "--type=json",
                "-p",
                r#"[{"op":"remove","path":"/metadata/labels"}]"#,
            ],
            template,
        ),
        (
            "attach to the redirect",
            &["attach", "server", "-c", "behalf-redirect"],
            "name another container with -c",
        ),
        (
            "a debug container with the feed's token",
            &ephemeral(&feed),
            "use kubectl debug --profile=restricted",
        ),
        (
            "exec",
            &["exec", "server", "-c", "behalf-sidecar", "--", "/behalf-sidecar", "--help"],
            "name another container with -c",
        ),
        ("attach", &["attach", "server", "-c", "behalf-sidecar"], "name another container with -c"),
    ];
    let mut wrong = Vec::new();
    for (name, words, wanted) in rows {
        match as_editor(api, ENROLLED, words, "") {
            Ok(said) => wrong.push(format!("{name}: done: {said}")),
            Err(said) if !said.contains(wanted) => {
                wrong.push(format!("{name}: wants {wanted:?}, got {said}"));
            }
            Err(_) => {}
        }
    }
    wrong
}

#[test]
fn a_running_pod_cannot_be_moved_to_what_would_not_have_been_let_in() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &server(&api).to_string()).unwrap();
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &{
        let mut other = plain(&api, ENROLLED, "other");
        other["spec"]["containers"][0]["command"] =
            json!(["/opt/venv/bin/python", "-m", "http.server", "8000"]);
        other.to_string()
    })
    .unwrap();
    ready(&api, ENROLLED, "server");
    let mut wrong = moved(&api);
    wrong.extend(debugging(&api));
    let away = without_operator(&api);
    wrong.extend(
        moved(&api).into_iter().chain(debugging(&api)).map(|line| format!("without operator: {line}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is no business of ours goes on, with nobody of ours there too.
    as_editor(&api, ENROLLED, &["annotate", "pod", "server", "a=b"], "").unwrap();
    as_editor(&api, ENROLLED, &["label", "pod", "server", "other=label"], "").unwrap();
    let said = as_editor(&api, ENROLLED, &["exec", "server", "-c", "server", "--", "id", "-u"], "").unwrap();
    assert_eq!(said.trim(), "10001");
    as_editor(&api, ENROLLED, &ephemeral(&debug("server", &json!({}))), "").unwrap();
    // With a debug container the pod still changes and goes.
    as_editor(&api, ENROLLED, &["annotate", "--overwrite", "pod", "server", "a=c"], "").unwrap();
    as_editor(&api, ENROLLED, &["delete", "pod", "server", "--wait=true", "--timeout=60s"], "").unwrap();
    drop(away);
}

#[test]
fn a_pod_made_again_is_injected_identically() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    let make = || {
        as_editor(&api, ENROLLED, &["create", "-f", "-"], &server(&api).to_string()).unwrap();
        let made = written(&api.get(&["pod", "-n", ENROLLED, "server"]));
        as_editor(&api, ENROLLED, &["delete", "pod", "server", "--wait=true", "--timeout=60s"], "").unwrap();
        made
    };
    assert_eq!(make(), make());
}

/// Jobs put a finalizer on their pods and take it off when those have ended: an update that must pass.
#[test]
fn a_job_runs_ends_and_goes() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    let mut template = server(&api);
    template["metadata"].as_object_mut().unwrap().remove("name");
    template["metadata"].as_object_mut().unwrap().remove("namespace");
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]["command"] = json!(["/opt/venv/bin/python", "-c", "print('done')"]);
    template["spec"]["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": ENROLLED},
        "spec": {"backoffLimit": 0, "template": {"metadata": template["metadata"], "spec": template["spec"]}},
    });
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &job.to_string()).unwrap();
    api.kubectl(&["-n", ENROLLED, "wait", "job/once", "--for=condition=Complete", "--timeout=120s"]);
    let pods = api.get(&["pods", "-n", ENROLLED, "-l", "job-name=once"]);
    assert_eq!(pods["items"][0]["spec"]["initContainers"][1]["name"], "behalf-sidecar");
    let deleted = ["delete", "job", "once", "--cascade=foreground", "--wait=true", "--timeout=60s"];
    as_editor(&api, ENROLLED, &deleted, "").unwrap();
    eventually("its pods are gone", 60, || {
        let left = api.get(&["pods", "-n", ENROLLED, "-l", "job-name=once"]);
        if left["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(left.to_string()) }
    });
}
