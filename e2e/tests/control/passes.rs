//! What must pass: jobs that end while nobody of ours is there, a second injector, defaults that others set.
use behalf_e2e::Undo;
use serde_json::{Value, json};
use xtask::demo::Pki;

use super::api::{Api, eventually};
use super::pods::{main, plain, redirect, server, sidecar, written};
use super::reach::{PYTHON, WAIT, bare, command, make, python, ready};
use super::scene::{ENROLLED, PLAIN, as_editor, enrolled, injecting, namespace, without_operator};

const SECOND: &str = include_str!("scripts/second.py");

/// A Job of the namespace's own that does not end before it is let go.
fn job(api: &Api) -> Value {
    let mut template = server(api);
    for field in ["name", "namespace"] {
        template["metadata"].as_object_mut().unwrap().remove(field);
    }
    template["metadata"]["finalizers"] = json!(["e2e.behalf.dev/own"]);
    template["spec"]["restartPolicy"] = json!("Never");
    main(&mut template)["command"] = command(WAIT, &[]);
    main(&mut template).as_object_mut().unwrap().remove("readinessProbe");
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": ENROLLED},
        "spec": {"backoffLimit": 0, "template": {"metadata": template["metadata"], "spec": template["spec"]}},
    })
}

/// Jobs put a finalizer on their pods, and so may others: they come off with every pod of ours dead.
#[test]
fn a_job_ends_and_goes_without_operator() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    as_editor(&api, ENROLLED, &["create", "-f", "-"], &job(&api).to_string()).unwrap();
    let pod = eventually("the Job's server runs", 120, || {
        let list = api.get(&["pods", "-n", ENROLLED, "-l", "job-name=once"]);
        let pod = &list["items"][0];
        if pod["status"]["containerStatuses"][0]["state"]["running"].is_object() {
            Ok(pod.clone())
        } else {
            Err(pod["status"].to_string())
        }
    });
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "behalf-sidecar");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let _away = without_operator(&api);
    python(&api, ENROLLED, name, "server", "open('/tmp/go', 'w').close()", &[]).unwrap();
    api.kubectl(&["-n", ENROLLED, "wait", "job/once", "--for=condition=Complete", "--timeout=120s"]);
    as_editor(&api, ENROLLED, &["delete", "job", "once", "--wait=false"], "").unwrap();
    eventually("the pod is to go, and is held by a finalizer", 60, || {
        let left = api.get(&["pod", "-n", ENROLLED, name])["metadata"].clone();
        let own = left["finalizers"] == json!(["e2e.behalf.dev/own"]);
        if own && left["deletionTimestamp"].is_string() { Ok(()) } else { Err(left.to_string()) }
    });
    let off =
        ["patch", "pod", name, "--type=json", "-p", r#"[{"op":"remove","path":"/metadata/finalizers"}]"#];
    as_editor(&api, ENROLLED, &off, "").unwrap();
    eventually("the pod is gone", 60, || {
        let left = api.get(&["pods", "-n", ENROLLED, "-l", "job-name=once"]);
        if left["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(left.to_string()) }
    });
}

/// Another team's injector, called after ours: its webhook, and the pod of the node's network that answers it.
fn second_injector(api: &Api) -> Undo<'_> {
    let secret = |name: &str| api.get(&["secret", "-n", "payroll", name])["data"].clone();
    api.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "second-tls", "namespace": PLAIN},
        "data": secret("payroll-tls"),
    }));
    let mut pod = bare(server(api), "second");
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["securityContext"]["fsGroup"] = json!(10_001);
    pod["spec"]["volumes"] =
        json!([{"name": "tls", "secret": {"secretName": "second-tls", "defaultMode": 0o440}}]);
    let image = main(&mut pod)["image"].as_str().unwrap().to_owned();
    let container = main(&mut pod);
    container["command"] = command(SECOND, &[&image]);
    container["volumeMounts"] = json!([{"name": "tls", "mountPath": "/tls", "readOnly": true}]);
    container.as_object_mut().unwrap().remove("ports");
    container["readinessProbe"] = json!({"exec": {"command": [
        PYTHON, "-c", "import socket; socket.create_connection(('127.0.0.1', 18443), 1).close()",
    ]}, "periodSeconds": 1, "timeoutSeconds": 10});
    make(api, &pod);
    ready(api, PLAIN, "second");
    let authority = base64(&Pki::ensure().unwrap().authority);
    // Its certificate is payroll's, whose names hold that of this address.
    api.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "e2e-second"},
        "webhooks": [{
            "name": "second.e2e.behalf.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded", "clientConfig": {"url": "https://127.0.0.1:18443/", "caBundle": authority},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "objectSelector": {"matchLabels": {"e2e-second": "yes"}},
        }],
    }));
    Undo::new(move || {
        api.world
            .kubectl(&["delete", "mutatingwebhookconfiguration", "e2e-second", "--ignore-not-found"])
            .map(drop)
    })
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What comes after us is put in its place: the API server asks our webhook again.
#[test]
fn a_second_injector_makes_ours_look_again() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _plain = namespace(&api, PLAIN, None);
    injecting(&api);
    let _second = second_injector(&api);
    let mut pod = server(&api);
    pod["metadata"]["labels"]["e2e-second"] = json!("yes");
    let made = eventually("both inject", 60, || {
        let made = api.try_create(&pod)?;
        let both = made["spec"]["containers"].as_array().is_some_and(|all| all.len() == 2);
        if both { Ok(made) } else { Err(made["spec"].to_string()) }
    });
    let names: Vec<_> = made["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["behalf-redirect", "behalf-sidecar", "second-init"], "ours stay first");
    for container in [&made["spec"]["containers"][1], &made["spec"]["initContainers"][2]] {
        let dropped = &container["securityContext"]["capabilities"]["drop"];
        assert!(dropped.to_string().contains("NET_RAW"), "what came later gives it up too: {container}");
    }
    assert_eq!(
        written(&api.try_create(&written(&made)).unwrap()),
        written(&made),
        "made again it is the same"
    );
    make(&api, &pod);
    ready(&api, ENROLLED, "server");
}

/// `LimitRanger` and `AlwaysPullImages` change our containers after us, and that is no cheat.
#[test]
fn what_the_cluster_sets_on_our_containers_is_let_in_with_and_without_operator() {
    let api = Api::open();
    let _scene = enrolled(&api);
    api.apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults", "namespace": ENROLLED},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m", "memory": "200Mi"}, "defaultRequest": {"cpu": "5m"}}]},
    }));
    let base = eventually("the defaults are set", 60, || {
        let made = written(&injecting(&api));
        let limits = &made["spec"]["initContainers"][1]["resources"]["limits"];
        if limits["cpu"] == "500m" { Ok(made.clone()) } else { Err(limits.to_string()) }
    });
    let mut always = base.clone();
    redirect(&mut always)["imagePullPolicy"] = json!("Always");
    sidecar(&mut always)["imagePullPolicy"] = json!("Always");
    let check = |when: &str| {
        for (what, pod) in [("defaults of LimitRange", &base), ("AlwaysPullImages", &always)] {
            api.try_create(pod).unwrap_or_else(|said| panic!("{when}, {what}: {said}"));
        }
        for place in [ENROLLED, PLAIN] {
            let pod = plain(&api, place, "unrelated");
            api.try_create(&pod).unwrap_or_else(|said| panic!("{when}, {place}: {said}"));
        }
    };
    let _plain = namespace(&api, PLAIN, None);
    check("with the operator");
    make(&api, &server(&api));
    ready(&api, ENROLLED, "server");
    as_editor(&api, ENROLLED, &["delete", "pod", "server", "--wait=true", "--timeout=60s"], "").unwrap();
    let _away = without_operator(&api);
    check("without it");
}
