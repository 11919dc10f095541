//! What of ours is in a pod already: left alone if it is what we would add, refused if it is anything else.

use behalf_plan::{Injection, RefusalReason, plan_injection};
use serde_json::{Value, json};

use crate::fixtures::*;
use crate::injection::{applied, container_with, inject, pod_with, reasons};

#[test]
fn d37_a_pod_that_brings_a_sidecar_of_its_own_is_refused() {
    let container = |name: &str| json!({"name": name, "image": "evil:1"});
    for spec in [
        json!({"initContainers": [container("behalf-sidecar")]}),
        json!({"initContainers": [container("behalf-redirect")]}),
        json!({"initContainers": [container("behalf-else")]}),
        json!({"containers": [pod_value()["spec"]["containers"][0].clone(), container("behalf-sidecar")]}),
        json!({"ephemeralContainers": [container("behalf-debug")]}),
        json!({"volumes": [{"name": "behalf-bundle", "configMap": {"name": "mine"}}]}),
        json!({"volumes": [{"name": "behalf-idp-corp", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "behalf-other", "emptyDir": {}}]}),
    ] {
        assert_eq!(reasons(&inject(pod_with(spec.clone()))), [RefusalReason::ReservedName], "{spec}");
    }
    let borrowed = container_with(json!({"volumeMounts": [{"name": "behalf-idp-corp", "mountPath": "/x"}]}));
    assert_eq!(reasons(&inject(borrowed)), [RefusalReason::ReservedName]);
}

#[test]
fn d37_any_change_to_what_was_injected_is_refused() {
    let good = applied(pod_value());
    assert!(matches!(inject(good.clone()), Injection::Plan(_)));
    let changes = [
        ("/spec/initContainers/1/image", json!("evil:1")),
        ("/spec/initContainers/1/command", json!(["sh"])),
        ("/spec/initContainers/1/args/2", json!("--identity=other")),
        ("/spec/initContainers/1/args/3", json!("--bundle-key=evil=AAAA")),
        ("/spec/initContainers/1/env", json!([])),
        ("/spec/initContainers/1/securityContext/runAsUser", json!(0)),
        ("/spec/initContainers/1/restartPolicy", Value::Null),
        ("/spec/initContainers/1/startupProbe", Value::Null),
        ("/spec/initContainers/1/volumeMounts/0/readOnly", json!(false)),
        ("/spec/initContainers/0/args", json!(["redirect", "--server-port=9000"])),
        ("/spec/initContainers/0/securityContext/privileged", json!(true)),
        ("/spec/volumes/0/configMap/optional", json!(true)),
        ("/spec/volumes/1/projected/sources/0/serviceAccountToken/audience", json!("other")),
        ("/spec/volumes/2/projected/sources/0/serviceAccountToken/audience", json!("other")),
        ("/spec/volumes/2/projected/sources/0/serviceAccountToken/expirationSeconds", json!(86400)),
        ("/spec/volumes/3/configMap/name", json!("mine")),
        ("/spec/volumes/3/configMap/optional", json!(false)),
        ("/spec/initContainers/1/volumeMounts/2/mountPath", json!("/elsewhere")),
    ];
    for (pointer, value) in changes {
        let mut pod = good.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
            Value::Array(items) => items[member.parse::<usize>().unwrap()] = value,
            other => other[member] = value,
        }
        assert_eq!(reasons(&inject(pod)), [RefusalReason::ReservedName], "{pointer}");
    }
}

#[test]
fn what_other_admission_plugins_set_on_ours_is_left_alone() {
    let mut value = applied(pod_value());
    value["spec"]["initContainers"][1]["imagePullPolicy"] = json!("Always");
    value["spec"]["initContainers"][1]["resources"]["limits"] = json!({"memory": "1Gi"});
    assert_eq!(applied(value.clone()), serde_json::to_value(pod(value)).unwrap());
}

/// While keys change, two replicas of the operator may pin different lists of them; both are trusted.
#[test]
fn fewer_pinned_keys_than_are_trusted_are_left_alone_and_no_others() {
    let identity = object(accepted_identity_value());
    let all = providers(vec![provider_value("corp")]);
    let ask = |value: &Value, keys: &[&str]| {
        let mut settings = settings();
        settings.bundle_keys = keys.iter().map(|key| (*key).to_owned()).collect();
        plan_injection(&pod(value.clone()), &namespace(), Some(&identity), &all, &[], &settings)
    };
    let by = |keys: &[&str]| {
        let Injection::Plan(plan) = ask(&pod_value(), keys) else { panic!() };
        serde_json::to_value(plan.apply(&pod(pod_value()))).unwrap()
    };
    let older = by(&["k1=AAAA"]);
    let Injection::Plan(plan) = ask(&older, &["k2=BBBB", "k1=AAAA"]) else { panic!() };
    let kept = plan.apply(&pod(older.clone()));
    let args = kept.spec.unwrap().init_containers.unwrap()[1].args.clone().unwrap();
    let pinned: Vec<_> = args.iter().filter(|arg| arg.starts_with("--bundle-key=")).collect();
    assert_eq!(pinned, ["--bundle-key=k1=AAAA"]);
    for (there, trusted) in [
        (by(&["k3=CCCC"]), &["k2=BBBB", "k1=AAAA"][..]),
        (by(&["k1=AAAA", "k3=CCCC"]), &["k2=BBBB", "k1=AAAA"]),
        (by(&["k1=BBBB"]), &["k1=AAAA"]),
        (by(&[]), &["k1=AAAA"]),
    ] {
        assert_eq!(reasons(&ask(&there, trusted)), [RefusalReason::ReservedName], "{trusted:?}");
    }
}

#[test]
fn the_feed_token_and_the_deny_list_are_the_sidecars_alone() {
    let once = applied(pod_value());
    let volumes = once["spec"]["volumes"].as_array().unwrap();
    let volume = |name: &str| volumes.iter().find(|volume| volume["name"] == name).unwrap();
    assert_eq!(
        volume("behalf-feed")["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "behalf.dev/feed", "expirationSeconds": 3600, "path": "token"}}])
    );
    assert_eq!(volume("behalf-deny")["configMap"]["optional"], true);
    for (at, container) in once["spec"]["initContainers"].as_array().unwrap().iter().enumerate() {
        let mounts = container["volumeMounts"].as_array().unwrap();
        for name in ["behalf-feed", "behalf-deny"] {
            let here: Vec<_> = mounts.iter().filter(|mount| mount["name"] == name).collect();
            assert_eq!(here.len(), at, "{name}");
            assert!(here.iter().all(|mount| mount["readOnly"] == true));
        }
    }
    assert!(once["spec"]["containers"][0]["volumeMounts"].is_null());
}
