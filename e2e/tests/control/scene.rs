//! What the tests set up beside the demo: scratch namespaces, the operator away and back.
use std::sync::OnceLock;

use behalf_e2e::Undo;
use serde_json::{Value, json};

use super::api::{Api, EDITOR, eventually};

/// Enrolled, with an identity `tools` that has no Deployment.
pub const ENROLLED: &str = "e2e-admission";
/// Enrolled, every pod needs an identity.
pub const REQUIRED: &str = "e2e-required";
/// Has nothing to do with Behalf.
pub const PLAIN: &str = "e2e-plain";

/// Every kind that may stand in a namespace and can be deleted.
fn kinds(api: &Api) -> &'static str {
    static KINDS: OnceLock<String> = OnceLock::new();
    KINDS.get_or_init(|| {
        let words = ["api-resources", "--namespaced=true", "--verbs=list,delete", "-o", "name"];
        api.kubectl(&words).lines().collect::<Vec<_>>().join(",")
    })
}

/// One step to a namespace that is gone, done with the rights of the namespace controller and as it does it. That one
/// itself waits five seconds before it looks, and again while pods end.
fn gone(api: &Api, name: &str) -> Result<(), String> {
    let controller = "--as=system:serviceaccount:kube-system:namespace-controller";
    match api.ask(&["delete", "namespace", name, "--wait=false"], "") {
        Err(said) if said.contains("NotFound") => return Ok(()),
        other => other?,
    };
    let all = [
        "-n",
        name,
        controller,
        "delete",
        kinds(api),
        "--all",
        "--force",
        "--grace-period=0",
        "--wait=false",
        "--ignore-not-found",
    ];
    api.ask(&all, "")?;
    let left = api.ask(&["-n", name, "get", kinds(api), "-o", "name", "--ignore-not-found"], "")?;
    if !left.trim().is_empty() {
        return Err(left);
    }
    let mut object: Value = match api.ask(&["get", "namespace", name, "-o", "json"], "") {
        Err(said) if said.contains("NotFound") => return Ok(()),
        other => serde_json::from_str(&other?).map_err(|error| error.to_string())?,
    };
    object["spec"]["finalizers"] = json!([]);
    let at = format!("/api/v1/namespaces/{name}/finalize");
    match api.ask(&["replace", "--raw", &at, "-f", "-"], &object.to_string()) {
        Err(said) if !said.contains("NotFound") => Err(said),
        _ => Ok(()),
    }
}

/// A namespace that goes when the guard does.
pub fn namespace<'a>(api: &'a Api, name: &'static str, injection: Option<&str>) -> Undo<'a> {
    let mut labels = json!({"tier": "prod", "pod-security.kubernetes.io/enforce": "privileged"});
    if let Some(injection) = injection {
        labels["behalf.dev/injection"] = json!(injection);
    }
    eventually("the namespace of the test before is gone", 120, || gone(api, name));
    api.apply(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    );
    let rights = |name_of: &str, role: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name_of, "namespace": name}, "roleRef": role,
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "e2e-dev"}],
        })
    };
    let group = "rbac.authorization.k8s.io";
    api.apply(&rights("editor", json!({"apiGroup": group, "kind": "ClusterRole", "name": "edit"})));
    // Which `edit` does not hold everywhere; so that it is Behalf that refuses.
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "debugger", "namespace": name},
        "rules": [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "update", "patch"]}],
    }));
    api.apply(&rights("debugger", json!({"apiGroup": group, "kind": "Role", "name": "debugger"})));
    eventually("the namespace has its account", 30, || api.ask(&["-n", name, "get", "sa", "default"], ""));
    Undo::new(move || {
        api.world.kubectl(&["delete", "namespace", name, "--wait=false", "--ignore-not-found"]).map(drop)
    })
}

pub fn account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
}

/// An identity as the demo's, with a server of its own.
pub fn identity(namespace: &str, name: &str, account: &str) -> Value {
    let url = format!("http://{name}.{namespace}.svc.cluster.local:8000/mcp");
    json!({
        "apiVersion": "behalf.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "catalogRef": {"name": "corp"}, "serviceAccountName": account,
            "servers": [{"name": "mcp", "protocol": "MCP", "url": url, "port": 8000, "toolSet": "hr-server"}],
            "identityProviders": [
                {"name": "corp", "client": {"id": url, "authentication": {"type": "ServiceAccountToken"}}}
            ],
            "scopes": {"required": ["hr:read"], "optional": ["hr:salary:read"]},
            "downstreams": [
                {"name": "payroll", "identityProvider": "corp", "subject": "Caller", "actor": "None", "env": {"baseURL": "PAYROLL_URL"}}
            ],
            "rollout": {"stage": "Enforce", "authentication": "Enforce"},
        },
    })
}

/// A condition of an identity as it stands now: status, reason, message.
pub fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let found = object["status"]["conditions"].as_array()?.iter().find(|found| found["type"] == kind)?;
    if found["observedGeneration"] != object["metadata"]["generation"] {
        return None;
    }
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until the identity's condition has that reason, and gives its message.
pub fn reason(api: &Api, namespace: &str, name: &str, kind: &str, wanted: &str) -> String {
    eventually(&format!("{name} has {kind} {wanted}"), 60, || {
        let object = api.get(&["aid", "-n", namespace, name]);
        match condition(&object, kind) {
            Some((_, reason, message)) if reason == wanted => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
}

/// The namespace [`ENROLLED`], whose identity `tools` is accepted and known to the policies.
pub fn enrolled(api: &Api) -> Undo<'_> {
    let guard = namespace(api, ENROLLED, Some("Optional"));
    for name in ["tools", "other"] {
        api.apply(&account(ENROLLED, name));
    }
    api.apply(&identity(ENROLLED, "tools", "tools"));
    reason(api, ENROLLED, "tools", "Accepted", "AcceptedPlainHTTP");
    let mut probe = super::pods::server(api);
    probe["metadata"]["labels"] = json!({});
    eventually("the policies know the identity", 60, || match api.try_create(&probe) {
        Err(message) if message.contains("belongs to AgentIdentity tools") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    guard
}

/// Every pod of ours dead, until the guard goes.
pub fn without_operator(api: &Api) -> Undo<'_> {
    let scaled = |replicas: &str| {
        api.world.kubectl(&["-n", "behalf-system", "scale", "deployment/behalf-operator", replicas]).map(drop)
    };
    let before = api.get(&["-n", "behalf-system", "deployment/behalf-operator"])["spec"]["replicas"].clone();
    let guard = Undo::new(move || {
        scaled(&format!("--replicas={before}"))?;
        let rollout =
            ["-n", "behalf-system", "rollout", "status", "deployment/behalf-operator", "--timeout=120s"];
        api.world.kubectl(&rollout).map(drop)
    });
    scaled("--replicas=0").unwrap();
    eventually("no pod of the operator is left", 60, || {
        let list = api.get(&["-n", "behalf-system", "pods", "-l", "app.kubernetes.io/component=operator"]);
        if list["items"].as_array().is_some_and(Vec::is_empty) {
            Ok(())
        } else {
            Err(list["items"].to_string())
        }
    });
    guard
}

/// Waits until the webhook injects again: a Service takes a moment to lead to a new pod.
pub fn injecting(api: &Api) -> Value {
    let pod = super::pods::server(api);
    eventually("the webhook injects", 60, || api.try_create(&pod))
}

/// kubectl as the namespace's editor.
pub fn as_editor(api: &Api, namespace: &str, words: &[&str], input: &str) -> Result<String, String> {
    // In front of the words, since some of them end with a command to run.
    api.ask(&[&["-n", namespace], &EDITOR[..], words].concat(), input)
}
