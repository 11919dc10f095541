//! The bundle in the hands of somebody who may edit the namespace: not his to change, and worth nothing to the sidecar.
use behalf_e2e::{Request, Undo};
use serde_json::{Value, json};

use super::api::{Api, EDITOR, eventually};
use super::feed_scene::{
    BUNDLE, PODS, People, addresses, bob_may_not, bundle, call, data, editor, follows, hurry, identity,
    leave_taken, lives, mounted, newer, opened, plain, programmed, refused, says, serial, verdict,
};
use super::operator_host::of_node;
use super::scene::{ENROLLED, enrolled, without_operator};

/// What an editor does to the bundle's `ConfigMap`.
type Tamper = (&'static str, Box<dyn Fn(&Api) -> Result<String, String>>, &'static str);

fn ask(api: &Api, words: &[&str], input: &str) -> Result<String, String> {
    api.ask(&[&["-n", "hr"], &EDITOR[..], words].concat(), input)
}

/// Puts content of one's own into the bundle, whether it is there or not.
fn put(api: &Api, content: &Value) -> Result<String, String> {
    let patch = json!({"data": content}).to_string();
    match ask(api, &["patch", "configmap", BUNDLE, "--type=merge", "-p", &patch], "") {
        Err(said) if said.contains("not found") => {
            let metadata = json!({"name": BUNDLE, "namespace": "hr"});
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": content});
            ask(api, &["create", "-f", "-"], &object.to_string())
        }
        other => other,
    }
}

/// The good bundle with a payload of one's own under the good one's signatures: everybody may see a salary.
fn widened(good: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut envelope: Value = serde_json::from_str(good).unwrap();
    let (mut document, _) = opened(good);
    for scope in document["serve"]["scopes"].as_array_mut().into_iter().flatten() {
        scope["holders"] = json!({"groups": ["staff", "managers"]});
    }
    document["serial"] = json!(document["serial"].as_u64().unwrap() + 1);
    envelope["payload"] = json!(STANDARD.encode(document.to_string()));
    envelope.to_string()
}

/// Change, delete, replay, a neighbour's; each with the reason for which a sidecar refuses it.
fn tampers(old: &Value, neighbour: &Value, good: &str) -> Vec<Tamper> {
    let changed = json!({"bundle.json": widened(good)});
    let rubbish = json!({"bundle.json": "{}"});
    let (old, neighbour) = (old.clone(), neighbour.clone());
    vec![
        ("changed", Box::new(move |api| put(api, &changed)), "BundleUnsigned"),
        ("made unreadable", Box::new(move |api| put(api, &rubbish)), "BundleMalformed"),
        ("an older one replayed", Box::new(move |api| put(api, &old)), "BundleSerialWentBack"),
        ("a neighbour's", Box::new(move |api| put(api, &neighbour)), "BundleOfAnotherIdentity"),
        ("deleted", Box::new(|api| ask(api, &["delete", "configmap", BUNDLE], "")), ""),
    ]
}

/// An older bundle of the same identity: its serial is behind that of the one which stands there.
fn older(api: &Api) -> Value {
    let old = data(api, "hr", BUNDLE);
    drop(leave_taken(api));
    assert!(opened(old["bundle.json"].as_str().unwrap()).0["serial"].as_u64().unwrap() < serial(api));
    old
}

/// The policy on bundles without its bindings, until the guard goes; then waits until it holds again.
fn unbound(api: &Api) -> Undo<'_> {
    let all = api.get(&["validatingadmissionpolicybinding"]);
    let bindings = all["items"].as_array().cloned().unwrap_or_default();
    let ours = bindings.into_iter().filter(|it| it["spec"]["policyName"] == "behalf-bundles").map(plain);
    let ours: Vec<Value> = ours.collect();
    assert!(!ours.is_empty(), "no binding of behalf-bundles");
    let names: Vec<String> =
        ours.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let bound = move |wanted: bool| {
        eventually(&format!("the policy on bundles holds: {wanted}"), 60, || {
            let words = ["annotate", "--dry-run=server", "--overwrite", "configmap", BUNDLE, "a=b"];
            let said = ask(api, &words, "");
            if said.is_err() == wanted { Ok(()) } else { Err(format!("{said:?}")) }
        });
    };
    let guard = Undo::new(move || {
        for binding in &ours {
            api.apply(binding);
        }
        bound(true);
        Ok(())
    });
    for name in names {
        api.kubectl(&["delete", "validatingadmissionpolicybinding", &name]);
    }
    bound(false);
    guard
}

/// What a sidecar says of itself on its probe port.
fn readyz(api: &Api, address: &str) -> Result<String, String> {
    let answer = Request::get(&format!("http://{address}:15103/readyz")).send(api.world);
    answer.map(|answer| format!("{} {}", answer.status, answer.body)).map_err(|error| format!("{error:#}"))
}

/// Alice is still permitted, bob still refused, by the bundle of that serial.
fn as_before(api: &Api, people: &People, address: &str, what: &str) {
    let of = |tool, token| call(tool, token, Some(address)).send(api.world).unwrap();
    assert_eq!(verdict(&of("salary.get", &people.alice)), (200, None), "{what}");
    assert_eq!(verdict(&of("leave.list", &people.bob)), (200, None), "{what}");
    assert_eq!(verdict(&of("salary.get", &people.bob)), refused("NotEntitled"), "{what}");
}

#[test]
fn a_namespace_editor_cannot_change_delete_replay_or_swap_a_bundle() {
    let api = Api::open();
    let _editor = editor(&api);
    let _neighbour = enrolled(&api);
    let (old, before) = (older(&api), data(&api, "hr", BUNDLE));
    let good = before["bundle.json"].as_str().unwrap();
    let neighbour = data(&api, ENROLLED, "behalf-bundle-tools");
    let mut wrong = Vec::new();
    let mut refused = |name: &str, said: Result<String, String>| match said {
        Ok(said) => wrong.push(format!("{name}: done: {said}")),
        Err(said) if !said.contains("are written by the operator alone") => {
            wrong.push(format!("{name}: {said}"));
        }
        Err(said) if !said.contains("change the AgentIdentity or the ScopeCatalog instead") => {
            wrong.push(format!("{name}: no next step: {said}"));
        }
        Err(_) => {}
    };
    for (name, tamper, _) in tampers(&old, &neighbour, good) {
        refused(name, tamper(&api));
    }
    let selector = "behalf.dev/agent-identity=hr-tools";
    let metadata = json!({"name": "behalf-bundle-mine", "namespace": "hr"});
    let another = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": neighbour});
    refused("all that a selector finds deleted", ask(&api, &["delete", "configmap", "-l", selector], ""));
    refused("one that nobody has yet", ask(&api, &["create", "-f", "-"], &another.to_string()));
    refused(
        "its label taken away",
        ask(&api, &["label", "configmap", BUNDLE, "behalf.dev/agent-identity-"], ""),
    );
    let finalizer = r#"{"metadata":{"finalizers":["e2e.behalf.dev/keep"]}}"#;
    refused("a finalizer", ask(&api, &["patch", "configmap", BUNDLE, "--type=merge", "-p", finalizer], ""));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(data(&api, "hr", BUNDLE), before);
}

#[test]
fn without_the_policies_a_sidecar_refuses_a_foreign_bundle_and_keeps_the_last_good_one() {
    let api = Api::open();
    let people = People::of(&api);
    let _editor = editor(&api);
    let _neighbour = enrolled(&api);
    let (old, pods) = (older(&api), lives(&api));
    let good = data(&api, "hr", BUNDLE);
    let neighbour = data(&api, ENROLLED, "behalf-bundle-tools");
    let (name, address) = addresses(&api).pop().unwrap();
    // What the sidecar has had by this way is what it must not go back behind.
    mounted(&api, &name);
    let bound = unbound(&api);
    let away = without_operator(&api);
    for (name, tamper, reason) in tampers(&old, &neighbour, good["bundle.json"].as_str().unwrap()) {
        tamper(&api).unwrap_or_else(|said| panic!("{name}: {said}"));
        // A ConfigMap that is gone leaves what is mounted as it is: the pod keeps running by it.
        if !reason.is_empty() {
            eventually(&format!("{name}: the sidecar says so"), 60, || {
                hurry(&api);
                let said = readyz(&api, &address)?;
                if said.contains(&format!("BundleRejected: {reason}")) { Ok(()) } else { Err(said) }
            });
        }
        let said = readyz(&api, &address).unwrap();
        assert!(said.starts_with("200 ") && said.contains("ready"), "{name}: {said}");
        as_before(&api, &people, &address, name);
    }
    // It was deleted last. The operator comes back and repairs it, with nothing older and nothing wider.
    drop(away);
    let repaired = eventually("the operator has repaired the bundle", 60, || {
        let text =
            api.ask(&["get", "configmap", "-n", "hr", BUNDLE, "-o", "jsonpath={.data.bundle\\.json}"], "")?;
        if text.is_empty() { Err("no bundle".to_owned()) } else { Ok(opened(&text).0) }
    });
    let before = opened(good["bundle.json"].as_str().unwrap()).0;
    assert_eq!(repaired["serve"], before["serve"], "what calls are judged by is what it was");
    assert!(repaired["serial"].as_u64() >= before["serial"].as_u64(), "{}", repaired["serial"]);
    programmed(&api);
    eventually("the sidecar takes the repaired one", 60, || {
        hurry(&api);
        let said = readyz(&api, &address)?;
        if said.contains("BundleRejected") { Err(said) } else { Ok(()) }
    });
    as_before(&api, &people, &address, "repaired");
    drop(bound);
    assert_eq!(lives(&api), pods, "the same pods, none started again");
}

/// The operator repairs what it can see at once, so what only the node can do is done here: the mounted file itself is
/// replaced, while kubelet is frozen and cannot put it right.
#[test]
fn a_rejected_bundle_is_told_of_in_the_status_until_it_is_repaired() {
    let api = Api::open();
    let people = People::of(&api);
    let _neighbour = enrolled(&api);
    let (old, pods) = (older(&api), lives(&api));
    programmed(&api);
    let (name, address) = addresses(&api).pop().unwrap();
    let neighbour = data(&api, ENROLLED, "behalf-bundle-tools");
    let good = data(&api, "hr", BUNDLE)["bundle.json"].as_str().unwrap().to_owned();
    let file = mounted(&api, &name);
    let text = |content: &Value| content["bundle.json"].as_str().unwrap().to_owned();
    let rows = [
        ("changed", widened(&good), "BundleUnsigned"),
        ("an older one replayed", text(&old), "BundleSerialWentBack"),
        ("a neighbour's", text(&neighbour), "BundleOfAnotherIdentity"),
    ];
    let mut kubelet = Some(of_node(&api, "kubelet").freeze().unwrap());
    for (what, content, reason) in rows {
        std::fs::write(&file, &content).unwrap();
        eventually(&format!("{what}: the sidecar says so"), 30, || {
            let said = readyz(&api, &address)?;
            if said.contains(&format!("BundleRejected: {reason}")) { Ok(()) } else { Err(said) }
        });
        let said = says(&api, "Ready", "BundleRejected");
        assert!(said.contains(&name), "{what}: the message names the pod: {said}");
        as_before(&api, &people, &address, what);
        let status = identity(&api)["status"].to_string();
        assert!(!status.contains(&people.bob.subject().unwrap()), "no person stands in a status");
        // kubelet is frozen for less than it takes a node to be given up.
        std::fs::write(&file, &good).unwrap();
        eventually(&format!("{what}: the good one is back"), 30, || {
            let said = readyz(&api, &address)?;
            if said.contains("BundleRejected") { Err(said) } else { Ok(()) }
        });
        says(&api, "Ready", "Ready");
        drop(kubelet.take());
        api.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
        kubelet = Some(of_node(&api, "kubelet").freeze().unwrap());
    }
    drop(kubelet);
    hurry(&api);
    programmed(&api);
    assert_eq!(lives(&api), pods, "the same pods, none started again");
}

#[test]
fn a_deleted_identity_refuses_all_and_made_again_serves_by_a_higher_serial() {
    let api = Api::open();
    let people = People::of(&api);
    let (pods, first) = (lives(&api), serial(&api));
    let before = plain(identity(&api));
    let again = Undo::new(|| {
        api.apply(&before);
        Ok(())
    });
    let salary = call("salary.get", &people.alice, None);
    assert_eq!(verdict(&salary.send(api.world).unwrap()), (200, None));
    api.kubectl(&["delete", "aid", "-n", "hr", "hr-tools"]);
    let tombstone = newer(&api, first);
    assert_eq!(bundle(&api).0["serve"], json!({"type": "RefuseAll", "reason": "IdentityDeleted"}));
    eventually("every call is refused", 60, || {
        let answer = salary.send(api.world).unwrap();
        if answer.reason().as_deref() == Some("IdentityDeleted") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
    for (tool, token) in [("directory.search", &people.alice), ("leave.list", &people.bob)] {
        let answer = call(tool, token, None).send(api.world).unwrap();
        assert!(answer.status >= 400, "{tool}: {answer:?}");
    }
    assert_eq!(lives(&api), pods, "its pods run on");
    again.now().unwrap();
    assert!(newer(&api, tombstone) > tombstone);
    programmed(&api);
    assert_eq!(verdict(&salary.send(api.world).unwrap()), (200, None));
    assert_eq!(lives(&api), pods, "the same pods, none started again");
}

/// Keys by which the policies let sidecars in, oldest last or first: as the operator lists them.
fn trusted(api: &Api) -> Vec<String> {
    let keys =
        data(api, "behalf-system", "behalf-trust")["bundleKeys"].as_str().unwrap_or_default().to_owned();
    keys.lines().filter_map(|line| line.split_once('=')).map(|(id, _)| id.to_owned()).collect()
}

/// Keys that the demo's pods trust.
fn pinned(api: &Api) -> Vec<String> {
    let list = api.get(&["pods", "-n", "hr", "-l", PODS]);
    let containers = list["items"].as_array().into_iter().flatten().map(|pod| &pod["spec"]["initContainers"]);
    let arguments = containers.filter_map(Value::as_array).flatten().filter_map(|one| one["args"].as_array());
    let arguments = arguments.flatten().filter_map(|one| one.as_str()?.strip_prefix("--bundle-key="));
    arguments.filter_map(|key| key.split_once('=')).map(|(id, _)| id.to_owned()).collect()
}

#[test]
fn two_key_rotations_under_a_pod_that_is_never_started_again() {
    let api = Api::open();
    let people = People::of(&api);
    let _overlap = overlap(&api);
    // What the demo's pods pin is what a fresh one would be given, whatever ran before.
    renewed(&api);
    let fresh = Undo::new(|| {
        renewed(&api);
        Ok(())
    });
    let (pods, address) = (lives(&api), addresses(&api).pop().unwrap().1);
    let leave = call("leave.list", &people.bob, Some(&address));
    let first = pinned(&api);
    // Room for two more: what earlier rotations left and no pod pins goes by itself.
    let mut known = eventually("old keys are gone", 120, || {
        let keys = trusted(&api);
        if keys.len() <= 2 { Ok(keys) } else { Err(format!("{keys:?}")) }
    });
    for round in ["one", "two"] {
        let mark = format!("behalf.dev/rotate={}-{round}", serial(&api));
        api.kubectl(&[
            "-n",
            "behalf-system",
            "annotate",
            "--overwrite",
            "secret",
            "behalf-signing-keys",
            &mark,
        ]);
        let keys = eventually("there is a new key", 60, || {
            let keys = trusted(&api);
            let new = keys.iter().any(|key| !known.contains(key));
            if new { Ok(keys) } else { Err(format!("{keys:?}")) }
        });
        assert!(first.iter().any(|key| keys.contains(key)), "a running pod still pins {first:?}: {keys:?}");
        eventually("the bundle is signed by every key", 60, || {
            let (_, signed) = bundle(&api);
            if keys.iter().all(|key| signed.contains(key)) {
                Ok(())
            } else {
                Err(format!("{signed:?}, not {keys:?}"))
            }
        });
        known = keys;
        let changed = leave_taken(&api);
        programmed(&api);
        assert_eq!(verdict(&leave.send(api.world).unwrap()), bob_may_not(), "round {round}");
        drop(changed);
        assert_eq!(verdict(&leave.send(api.world).unwrap()), (200, None), "round {round}");
        assert_eq!(lives(&api), pods, "the same pods, none started again");
        let said = readyz(&api, &address).unwrap();
        assert!(said.starts_with("200 ") && !said.contains("BundleRejected"), "{said}");
    }
    eprintln!("the pod pins {first:?}; after two rotations bundles are signed by {known:?}");
    // Not at once: a key is retired when its successor has been there for a while.
    let mut fresh = Some(fresh);
    eventually("a new pod pins newer keys only", 180, || {
        match fresh.take() {
            Some(first) => first.now().unwrap(),
            None => renewed(&api),
        }
        let pins = pinned(&api);
        if pins.iter().any(|key| first.contains(key)) { Err(format!("{pins:?}")) } else { Ok(()) }
    });
    eventually("the keys that no pod pins are dropped", 120, || {
        let keys = trusted(&api);
        if first.iter().any(|key| keys.contains(key)) { Err(format!("{keys:?}")) } else { Ok(()) }
    });
    programmed(&api);
    follows(&api, &call("leave.list", &people.bob, None), &(200, None));
}

/// The demo's server with new pods.
fn renewed(api: &Api) {
    api.kubectl(&["-n", "hr", "rollout", "restart", "deployment/hr-tools"]);
    api.world.rolled_out().unwrap();
    programmed(api);
}

/// A new key takes over within seconds, until the guard goes.
fn overlap(api: &Api) -> Undo<'_> {
    let set = |word: &'static str| {
        api.kubectl(&["-n", "behalf-system", "set", "env", "deployment/behalf-operator", word]);
        let rollout =
            ["-n", "behalf-system", "rollout", "status", "deployment/behalf-operator", "--timeout=120s"];
        api.world.kubectl(&rollout).map(drop)
    };
    let guard = Undo::new(move || set("BEHALF_SIGNING_KEY_OVERLAP-"));
    set("BEHALF_SIGNING_KEY_OVERLAP=5s").unwrap();
    guard
}
