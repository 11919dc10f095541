//! What the tests of bundle, feed and operator share: the demo's identity, its pods, and a row of its catalogue that changes.
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_e2e::keycloak::login;
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Answer, Request, Token, Undo, mcp, until};
use serde_json::{Value, json};

use super::api::{Api, EDITOR, eventually};
use super::scene::condition;

/// Selects the pods of the demo's server.
pub const PODS: &str = "app.kubernetes.io/name=hr-tools";
/// The `ConfigMap` with the demo's bundle.
pub const BUNDLE: &str = "behalf-bundle-hr-tools";

/// The person whose rights change with the row, and one who keeps hers.
pub struct People {
    pub alice: Token,
    pub bob: Token,
}

impl People {
    /// Logs them in.
    pub fn of(api: &Api) -> Self {
        let login = |user| login(api.world, "agent-test", user, ALL_SCOPES).unwrap();
        Self { alice: login("alice"), bob: login("bob") }
    }
}

/// A tool call by somebody, to one pod or to the Service.
pub fn call(tool: &str, token: &Token, pod: Option<&str>) -> Request {
    let arguments = if tool == "salary.get" { json!({"employee": "bob"}) } else { json!({}) };
    let request = mcp::call(tool, &arguments).bearer(&token.text);
    match pod {
        Some(address) => request.to(address),
        None => request,
    }
}

/// Status and closed reason.
pub fn verdict(answer: &Answer) -> (u16, Option<String>) {
    (answer.status, answer.reason())
}

/// A refusal as [`verdict`] gives it.
pub fn refused(reason: &str) -> (u16, Option<String>) {
    (403, Some(reason.to_owned()))
}

/// Addresses and names of the pods that take calls.
pub fn addresses(api: &Api) -> Vec<(String, String)> {
    api.world.pods().unwrap().into_iter().map(|pod| (pod.name, pod.address)).collect()
}

/// The pods with their UIDs, and how often each of their containers was started again.
pub fn lives(api: &Api) -> Vec<String> {
    let list = api.get(&["pods", "-n", "hr", "-l", PODS]);
    let alive = list["items"].as_array().cloned().unwrap_or_default();
    let alive = alive.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let restarts = |pod: &Value| {
        let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
        let all = lists.into_iter().flatten().flatten();
        all.map(|status| format!("{}:{}", status["name"], status["restartCount"]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    alive.map(|pod| format!("{} {}", pod["metadata"]["uid"], restarts(pod))).collect()
}

/// The demo's identity.
pub fn identity(api: &Api) -> Value {
    api.get(&["aid", "-n", "hr", "hr-tools"])
}

/// A `ConfigMap`'s data.
pub fn data(api: &Api, namespace: &str, name: &str) -> Value {
    api.get(&["configmap", "-n", namespace, name])["data"].clone()
}

/// The demo's bundle as it was signed: the document, and the ids of the keys.
pub fn bundle(api: &Api) -> (Value, Vec<String>) {
    opened(data(api, "hr", BUNDLE)["bundle.json"].as_str().unwrap())
}

/// A signed bundle's document and the ids of its keys.
pub fn opened(text: &str) -> (Value, Vec<String>) {
    let envelope: Value = serde_json::from_str(text).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let signatures = envelope["signatures"].as_array().unwrap().iter();
    let keys = signatures.map(|signature| signature["keyId"].as_str().unwrap().to_owned()).collect();
    (serde_json::from_slice(&payload).unwrap(), keys)
}

/// The serial of the demo's bundle.
pub fn serial(api: &Api) -> u64 {
    bundle(api).0["serial"].as_u64().unwrap()
}

/// Waits until every pod runs by the bundle that stands in the `ConfigMap`, as the status says; gives its digest.
pub fn programmed(api: &Api) -> String {
    eventually("every pod runs by the newest bundle", 120, || {
        let (now, object) = (serial(api), identity(api));
        let said = condition(&object, "Programmed");
        let bundle = &object["status"]["bundle"];
        let newest = bundle["serial"] == now && bundle["digest"] == bundle["programmedDigest"];
        match said {
            Some((status, _, _)) if status == "True" && newest => {
                Ok(bundle["digest"].as_str().unwrap().to_owned())
            }
            other => Err(format!("serial {now}, {bundle}, {other:?}")),
        }
    })
}

/// Waits until the condition of the demo's identity has this reason, and gives its message.
pub fn says(api: &Api, kind: &str, reason: &str) -> String {
    super::scene::reason(api, "hr", "hr-tools", kind, reason)
}

/// kubelet looks at once what a pod mounts when the pod itself changes.
pub fn hurry(api: &Api) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mark = COUNT.fetch_add(1, Ordering::Relaxed);
    let mark = format!("e2e.behalf.dev/hurried={}-{mark}", std::process::id());
    api.kubectl(&["-n", "hr", "annotate", "--overwrite", "pod", "-l", PODS, &mark]);
}

/// Asks until the answer is this one, while kubelet is told to hurry.
pub fn follows(api: &Api, request: &Request, wanted: &(u16, Option<String>)) {
    let mut last = None;
    let looked = until(&format!("the answer is {wanted:?}"), FOLLOWED, || {
        hurry(api);
        let answer = request.send(api.world)?;
        let right = verdict(&answer) == *wanted;
        last = Some(answer);
        Ok(right.then_some(()))
    });
    looked.unwrap_or_else(|error| panic!("{error:#}\n{last:?}"));
}

/// The catalogue with or without bob's right to see his leave.
fn leave(api: &Api, scope: &str) {
    let mut sets = api.get(&["scat", "corp"])["spec"]["toolSets"].clone();
    let rows = sets[0]["tools"].as_array_mut().unwrap();
    let row = rows.iter_mut().find(|row| row["name"] == "leave.list").unwrap();
    row["scopes"] = json!([scope]);
    api.world.patch("default", "scat/corp", &json!({"spec": {"toolSets": sets}})).unwrap();
}

/// What bob is told when he may not see his leave.
pub fn bob_may_not() -> (u16, Option<String>) {
    refused("NotEntitled")
}

/// Takes bob's right to see his leave away until the guard goes; then waits until every pod follows.
pub fn leave_taken(api: &Api) -> Undo<'_> {
    let before = serial(api);
    let guard = Undo::new(move || {
        let taken = serial(api);
        leave(api, "hr:leave:read");
        newer(api, taken);
        programmed(api);
        Ok(())
    });
    leave(api, "hr:salary:read");
    newer(api, before);
    guard
}

/// The identity deleted and made again, when its pods have seen both; its counts begin anew.
pub fn remade(api: &Api) {
    let (before, first) = (plain(identity(api)), serial(api));
    let again = Undo::new(|| {
        api.apply(&before);
        Ok(())
    });
    api.kubectl(&["delete", "aid", "-n", "hr", "hr-tools"]);
    let tombstone = newer(api, first);
    again.now().unwrap();
    newer(api, tombstone);
    programmed(api);
}

/// Waits until the bundle in the `ConfigMap` is newer than that.
pub fn newer(api: &Api, than: u64) -> u64 {
    eventually("a newer bundle is written", 60, || {
        let now = serial(api);
        if now > than { Ok(now) } else { Err(format!("serial {now}")) }
    })
}

/// The tests' editor may edit the demo's namespace too, until the guard goes.
pub fn editor(api: &Api) -> Undo<'_> {
    let name = "e2e-editor";
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "hr"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "e2e-dev"}],
    }));
    let guard = Undo::new(move || api.world.kubectl(&["-n", "hr", "delete", "rolebinding", name]).map(drop));
    eventually("the editor may edit", 30, || {
        let can = [&["-n", "hr", "auth", "can-i", "patch", "configmaps"], &EDITOR[..]].concat();
        api.ask(&can, "")
    });
    guard
}

/// The bundle's file as kubelet mounted it into a pod, once it is the one of the `ConfigMap`.
pub fn mounted(api: &Api, pod: &str) -> PathBuf {
    let uid = api.get(&["pod", "-n", "hr", pod])["metadata"]["uid"].as_str().unwrap().to_owned();
    let run = &api.world.cluster.layout().expect("the local cluster's node is this machine").run;
    let file =
        run.join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~configmap/behalf-bundle/bundle.json"));
    eventually("kubelet has brought the newest bundle", 90, || {
        hurry(api);
        let here = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let there = data(api, "hr", BUNDLE)["bundle.json"].as_str().unwrap_or_default() == here;
        if there {
            std::fs::canonicalize(&file).map_err(|error| error.to_string())
        } else {
            Err("an older one".to_owned())
        }
    })
}

/// An object without what the server adds, such that it can be made again.
pub fn plain(mut object: Value) -> Value {
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"] {
        metadata.remove(field);
    }
    object
}

/// Waits until something that is looked at has not changed for a while: bounded, and without a claim on what it is.
pub fn settled<T: PartialEq + std::fmt::Debug>(
    what: &str,
    quiet: Duration,
    mut look: impl FnMut() -> T,
) -> T {
    let mut last = (look(), std::time::Instant::now());
    until(what, Duration::from_mins(3), || {
        let now = look();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        Ok((last.1.elapsed() >= quiet).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", last.0));
    last.0
}
