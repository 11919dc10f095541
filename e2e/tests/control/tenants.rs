//! Two tenants of one cluster who try to reach what is the other's: its sidecars, its policy, its tokens, its name.
use behalf_e2e::keycloak::login;
use behalf_e2e::{ALL_SCOPES, Request, Undo, mcp};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::pods::server;
use super::reach::{PYTHON, TRY, addresses, listening, nonce, ready, record, said, targets};
use super::scene::{account, condition, identity, namespace, reason};

const FIRST: &str = "e2e-tenant-first";
const OTHER: &str = "e2e-tenant-other";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Who may edit one of the namespaces, its identities included, and nothing else.
fn user(place: &str) -> String {
    format!("dev-of-{place}")
}

fn as_user(api: &Api, place: &str, words: &[&str], input: &str) -> Result<String, String> {
    let (name, user) = (place, format!("--as={}", user(place)));
    api.ask(&[&["-n", name, &user, "--as-group=system:authenticated"], words].concat(), input)
}

/// A namespace with its people, an identity `tools` and a running server.
fn tenant<'a>(api: &'a Api, place: &'static str) -> Undo<'a> {
    let guard = namespace(api, place, Some("Optional"));
    api.kubectl(&["-n", place, "delete", "rolebinding", "editor", "debugger"]);
    api.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "identities", "namespace": place},
        "rules": [{"apiGroups": ["behalf.dev"], "resources": ["agentidentities"], "verbs": ["*"]}],
    }));
    for (name, kind, role) in [("edits", "ClusterRole", "edit"), ("identifies", "Role", "identities")] {
        api.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": place},
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user(place)}],
        }));
    }
    let create = |object: &Value| {
        let text = object.to_string();
        eventually("the tenant may make it", 60, || as_user(api, place, &["create", "-f", "-"], &text));
    };
    create(&account(place, "tools"));
    create(&identity(place, "tools", "tools"));
    create(&account(place, place));
    create(&identity(place, place, place));
    reason(api, place, "tools", "Accepted", "AcceptedPlainHTTP");
    reason(api, place, place, "Accepted", "AcceptedPlainHTTP");
    let mut pod = listening(api, "8000", "9000");
    pod["metadata"]["namespace"] = json!(place);
    create(&pod);
    ready(api, place, "server");
    guard
}

/// What the first tenant asks of the API server about the other's.
fn asked(api: &Api) -> Vec<String> {
    let copied = api.get(&["configmap", "-n", OTHER, "behalf-bundle-tools"]);
    let forged = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "behalf-bundle-tools", "namespace": FIRST}, "data": copied["data"],
    });
    let stolen = json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "AgentIdentity", "metadata": {"name": "tools", "namespace": OTHER}});
    let bundles = "are written by the operator";
    let rows: Vec<(&str, Vec<&str>, String, &str)> = vec![
        (
            "reads the other's bundle",
            vec!["-n", OTHER, "get", "configmap", "behalf-bundle-tools"],
            String::new(),
            "orbidden",
        ),
        ("lists the other's ConfigMaps", vec!["-n", OTHER, "get", "configmaps"], String::new(), "orbidden"),
        (
            "writes the other's deny list",
            vec!["-n", OTHER, "create", "configmap", "behalf-deny"],
            String::new(),
            "orbidden",
        ),
        ("reads the other's identity", vec!["-n", OTHER, "get", "aid", "tools"], String::new(), "orbidden"),
        (
            "deletes the other's identity",
            vec!["delete", "-f", "-"],
            stolen.to_string(),
            "orbidden|does not match",
        ),
        (
            "a token of the other's account",
            vec!["-n", OTHER, "create", "token", "tools"],
            String::new(),
            "orbidden",
        ),
        (
            "a token of the own account for the feed",
            vec!["create", "token", "tools", "--audience=behalf.dev/feed"],
            String::new(),
            "no other way to get one",
        ),
        (
            "a token of the own account for the provider",
            vec!["create", "token", "tools", "--audience", behalf_e2e::ISSUER],
            String::new(),
            "no other way to get one",
        ),
        (
            "a shell in the other's pod",
            vec!["-n", OTHER, "exec", "server", "-c", "server", "--", "id"],
            String::new(),
            "orbidden",
        ),
        ("the other's bundle as one's own", vec!["replace", "-f", "-"], forged.to_string(), bundles),
        (
            "the own bundle taken away",
            vec!["delete", "configmap", "behalf-bundle-tools"],
            String::new(),
            bundles,
        ),
        (
            "the operator's namespace",
            vec!["-n", "behalf-system", "get", "configmaps"],
            String::new(),
            "orbidden",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, words, input, wanted) in rows {
        match as_user(api, FIRST, &words, &input) {
            Ok(said) => wrong.push(format!("{name}: done: {said}")),
            Err(said) if !wanted.split('|').any(|part| said.contains(part)) => {
                wrong.push(format!("{name}: wants {wanted:?}, got {said}"));
            }
            Err(_) => {}
        }
    }
    wrong
}

/// An identity that takes the other's name for its own, and pods that join what is not theirs.
fn borrowed(api: &Api) {
    let mut thief = identity(FIRST, "thief", "thief");
    let url = format!("http://tools.{OTHER}.svc.cluster.local:8000/mcp");
    thief["spec"]["servers"][0]["url"] = json!(url);
    as_user(api, FIRST, &["create", "-f", "-"], &account(FIRST, "thief").to_string()).unwrap();
    as_user(api, FIRST, &["create", "-f", "-"], &thief.to_string()).unwrap();
    let said = reason(api, FIRST, "thief", "Accepted", "HostNotOwned");
    assert!(said.contains(&url) && said.contains(&format!("namespace {OTHER}")), "{said}");
    // So it is in other spellings.
    for url in
        [format!("{url}/"), url.replace("http", "HTTP"), url.replace("tools.", "Tools."), format!("{url}#")]
    {
        let patch = json!({"spec": {"servers": [{
            "name": "mcp", "protocol": "MCP", "url": url, "port": 8000, "toolSet": "hr-server",
        }]}});
        let words = ["patch", "aid", "thief", "--type=merge", "-p", &patch.to_string()];
        match as_user(api, FIRST, &words, "") {
            Err(said) => assert!(said.contains("spec.servers[0].url"), "{url}: {said}"),
            Ok(_) => drop(eventually(&format!("{url} is judged"), 60, || {
                match condition(&api.get(&["aid", "-n", FIRST, "thief"]), "Accepted") {
                    Some((status, reason, _)) if status == "False" => Ok(reason),
                    other => Err(format!("{other:?}")),
                }
            })),
        }
    }
    assert_eq!(
        condition(&api.get(&["aid", "-n", OTHER, "tools"]), "Accepted").unwrap().0,
        "True",
        "the older keeps it"
    );

    let mut pod = server(api);
    pod["metadata"]["namespace"] = json!(FIRST);
    for name in ["thief", OTHER] {
        pod["metadata"]["labels"]["behalf.dev/agent-identity"] = json!(name);
        pod["spec"]["serviceAccountName"] = json!("thief");
        let words = ["create", "--dry-run=server", "-f", "-"];
        let said = as_user(api, FIRST, &words, &pod.to_string()).unwrap_err();
        let wanted = ["is not accepted", "there is no AgentIdentity"];
        assert!(wanted.iter().any(|part| said.contains(part)), "{name}: {said}");
    }
}

/// From inside the first tenant's pod, by its hostile server: what the other's pod has on the network.
fn reached(api: &Api) {
    let found = addresses(api, OTHER, "server");
    let text = nonce("tenant");
    let ports = [("tcp", 9000), ("udp", 9000), ("tcp", 15_102), ("udp", 15_102), ("udp", 8000)];
    let targets: Vec<String> = targets(&found, &ports).iter().map(ToString::to_string).collect();
    let arguments: Vec<&str> =
        [text.as_str()].into_iter().chain(targets.iter().map(String::as_str)).collect();
    let exec = ["-n", FIRST, "exec", "server", "-c", "server", "--", PYTHON, "-c", TRY];
    let answered = api.kubectl(&[&exec[..], &arguments].concat());
    assert_eq!(answered.trim(), "", "the other's pod answered");
    assert!(!said(api, OTHER, "server", "server").iter().any(|line| line.to_string().contains(&text)));

    // The probe port gives a status and nothing else, to anybody; what was not declared is not there.
    for (path, status) in [
        ("/readyz", 200),
        ("/livez", 200),
        ("/probe/server/readiness", 200),
        ("/probe/server/liveness", 404),
        ("/", 404),
    ] {
        let answer = Request::get(&format!("http://{}:15103{path}", found[0])).send(api.world).unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.len() < 64, "{path}: {answer:?}");
    }
    let metrics = Request::get(&format!("http://{}:15104/metrics", found[0])).send(api.world).unwrap();
    for secret in ["eyJ", "Bearer", "alice", "bob"] {
        assert!(!metrics.body.contains(secret), "{secret} stands in the metrics");
    }
}

#[test]
fn two_tenants_reach_nothing_of_each_other() {
    let api = Api::open();
    let _first = tenant(&api, FIRST);
    let _other = tenant(&api, OTHER);
    let wrong = asked(&api);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    borrowed(&api);
    reached(&api);

    // Nobody's credentials, somebody's for another server, and what looks like a handle: each refused, and recorded there.
    let found = addresses(&api, OTHER, "server");
    let alice = login(api.world, "agent-test", "alice", ALL_SCOPES).unwrap();
    let url = format!("http://tools.{OTHER}.svc.cluster.local:8000/mcp");
    let call = || mcp::call("salary.get", &json!({"employee": "bob"})).at(&url).to(&found[0]);
    let rows = [
        (call(), "NoCredentials"),
        (call().bearer(&alice.text), "WrongAudience"),
        (call().bearer("behalf_AAAAAAAAAAAAAAAAAAAAAA"), "TokenMalformed"),
    ];
    for (request, wanted) in rows {
        let answer = request.send(api.world).unwrap();
        assert_eq!(answer.status, 401, "{wanted}: {answer:?}");
        let record = record(&api, (OTHER, "server"), &answer);
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!(wanted)), "{record}");
    }
}
