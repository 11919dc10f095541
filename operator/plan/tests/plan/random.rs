//! Random objects over a small world, so that names meet: mostly good ones, with flaws now and then.

use std::collections::BTreeSet;

use behalf_policy::bundle::document::CallerKind;
use behalf_policy::claims::{Actor, Caller};
use behalf_policy::ids::{ClientId, EntryName, Group, Scope, Subject, Timestamp};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{identity_value, pod_value, provider_value};

pub(crate) const SCOPES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];
pub(crate) const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
pub(crate) const TOOLS: [&str; 4] = ["t0", "t1", "t2", "t3"];
pub(crate) const DOWNSTREAMS: [&str; 3] = ["d0", "d1", "d2"];
const ASKED: [&str; 3] = ["x0", "x1", "x2"];
const CLIENTS: [&str; 2] = ["c0", "c1"];

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    btree_set(proptest::sample::select(of), 0..=most).prop_map(|set| set.into_iter().collect())
}

fn at_least_one(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    btree_set(proptest::sample::select(of), 1..=most).prop_map(|set| set.into_iter().collect())
}

prop_compose! {
    /// Scopes imply only earlier ones, so that there is no circle; the flaws come from `flawed`.
    fn scope(number: usize)(
        groups in some(&GROUPS, 3),
        implies in btree_set(0..SCOPES.len(), 0..3),
    ) -> Value {
        let implies: Vec<_> = implies.into_iter().filter(|lower| *lower < number).map(|lower| SCOPES[lower]).collect();
        json!({"name": SCOPES[number], "holders": {"groups": groups}, "implies": implies, "accessClass": "Read"})
    }
}

prop_compose! {
    fn tool(number: usize)(
        scopes in at_least_one(&SCOPES, 2),
        hide in any::<bool>(),
        leads in btree_set(0..DOWNSTREAMS.len(), 0..3),
        asked in vec(at_least_one(&ASKED, 2), DOWNSTREAMS.len()),
    ) -> Value {
        let leads: Vec<_> = leads.into_iter().map(|to| json!({"name": DOWNSTREAMS[to], "scopes": asked[to]})).collect();
        json!({"name": TOOLS[number], "scopes": scopes, "denial": if hide { "Hide" } else { "Explain" }, "downstreams": leads})
    }
}

prop_compose! {
    fn downstream(number: usize)(ceiling in any::<bool>(), life in 30_u32..3600) -> Value {
        let mut row = json!({"name": DOWNSTREAMS[number], "type": "HTTP", "http": {"origin": format!("https://{}.hr.svc", DOWNSTREAMS[number])},
               "audiences": [format!("aud-{}", DOWNSTREAMS[number])], "maxTokenLifetime": format!("{life}s")});
        if ceiling {
            row["scopes"] = json!(ASKED);
        }
        row
    }
}

prop_compose! {
    pub(crate) fn catalog()(
        scopes in (scope(0), scope(1), scope(2), scope(3), scope(4)),
        tools in (tool(0), tool(1), tool(2), tool(3)),
        downstreams in (downstream(0), downstream(1), downstream(2)),
        count in 1..=4_usize,
        flaw in 0..40_u32,
        closed in proptest::bool::weighted(0.05),
    ) -> Value {
        let (a, b, c, d, e) = scopes;
        let mut scopes = vec![a, b, c, d, e];
        let (a, b, c, d) = tools;
        let mut tools = vec![a, b, c, d];
        let (a, b, c) = downstreams;
        let mut downstreams = vec![a, b, c];
        match flaw {
            0 => drop(scopes.remove(1)),
            1 => scopes[0]["implies"] = json!(["s4"]),
            2 => drop(downstreams.remove(0)),
            3 => downstreams[1]["scopes"] = json!(["x0"]),
            4 => tools[0]["scopes"] = json!([]),
            5 => downstreams[2]["http"]["origin"] = json!("https://127.0.0.1"),
            _ => {}
        }
        tools.truncate(count);
        json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "ScopeCatalog", "metadata": {"name": "corp", "generation": 1},
               "spec": {"allowedNamespaces": {"from": if closed { "None" } else { "All" }}, "scopes": scopes,
                        "toolSets": [{"name": "set", "tools": tools}, {"name": "empty", "tools": []}], "downstreams": downstreams}})
    }
}

/// Limits of few names, so that two identities have the same ones; of a tool that every set has which has any.
fn rate_limits() -> impl Strategy<Value = Vec<Value>> {
    let limit = |name: &'static str| {
        let per = proptest::sample::select(vec!["Identity", "Agent", "Subject", "Tool"]);
        let (requests, period) = (1..=4_u32, proptest::sample::select(vec!["1s", "10s"]));
        let limit = (per, requests, period, some(&TOOLS[..1], 1));
        proptest::option::of(limit.prop_map(move |(per, requests, period, tools)| {
            json!({"name": name, "per": per, "requests": requests, "period": period, "tools": tools})
        }))
    };
    (limit("a"), limit("b")).prop_map(|(a, b)| a.into_iter().chain(b).collect())
}

prop_compose! {
    pub(crate) fn identity()(
        (required, optional) in (some(&SCOPES, 1), some(&SCOPES, 5)),
        listed in btree_set(0..DOWNSTREAMS.len(), 0..=3),
        kinds in proptest::sample::select(vec![vec!["User"], vec!["Workload"], vec!["User", "Workload"]]),
        actors in proptest::option::of((some(&CLIENTS, 2), 0_i64..3)),
        enforce in any::<bool>(),
        suspended in proptest::bool::weighted(0.05),
        limits in rate_limits(),
        second_provider in any::<bool>(),
        by_second in any::<bool>(),
        flaw in 0..40_u32,
    ) -> Value {
        let mut identity = identity_value();
        let spec = &mut identity["spec"];
        spec["servers"][0]["toolSet"] = json!(if flaw == 0 { "nope" } else if flaw == 1 { "empty" } else { "set" });
        let mut required: Vec<_> = required;
        if flaw == 2 { required.push("nope"); }
        spec["scopes"] = json!({"required": required, "optional": optional});
        let by = if second_provider && by_second { "other" } else { "corp" };
        spec["downstreams"] = listed.into_iter().map(|to| json!({"name": DOWNSTREAMS[to], "identityProvider": by})).collect();
        spec["callers"] = match actors {
            None => json!({"kinds": kinds}),
            Some((allowed, depth)) => json!({"kinds": kinds, "actors": {"allowed": allowed, "maxDepth": depth}}),
        };
        let mut limits = limits;
        if flaw == 3 {
            // Not in every catalogue.
            limits.push(json!({"name": "c", "per": "Tool", "requests": 1, "period": "1s", "tools": [TOOLS[3]]}));
        }
        spec["rateLimits"] = limits.into_iter().collect();
        spec["rollout"] = json!({"stage": if enforce { "Enforce" } else { "Audit" }});
        spec["state"] = json!(if suspended { "Suspended" } else { "Active" });
        let mut clients = spec["identityProviders"].as_array().cloned().unwrap_or_default();
        if second_provider {
            let mut other = clients[0].clone();
            other["name"] = json!("other");
            clients.push(other);
        }
        spec["identityProviders"] = json!(clients);
        identity
    }
}

prop_compose! {
    pub(crate) fn provider()(life in 30_u32..3600, closed in proptest::bool::weighted(0.03), flawed in proptest::bool::weighted(0.03)) -> Value {
        let mut provider = provider_value("corp");
        provider["spec"]["exchange"]["maxTokenLifetime"] = json!(format!("{life}s"));
        if closed { provider["spec"]["allowedNamespaces"] = json!({"from": "None"}); }
        if flawed { provider["spec"]["caBundle"] = json!("corp"); }
        provider
    }
}

prop_compose! {
    pub(crate) fn caller()(
        by_other in proptest::bool::weighted(0.2),
        client in proptest::option::of(proptest::sample::select(&CLIENTS[..])),
        workload in proptest::bool::weighted(0.3),
        scopes in some(&SCOPES, 5),
        groups in some(&GROUPS, 3),
        actors in vec(proptest::sample::select(&CLIENTS[..]), 0..4),
        expires in 1_i64..3,
    ) -> Caller {
        Caller {
            provider: EntryName::new(if by_other { "other" } else { "corp" }).unwrap(),
            subject: Subject::new("alice").unwrap(),
            client: client.map(|id| ClientId::new(id).unwrap()),
            kind: if workload { CallerKind::Workload } else { CallerKind::User },
            scopes: scopes.into_iter().map(|scope| Scope::new(scope).unwrap()).collect(),
            groups: groups.into_iter().map(|group| Group::new(group).unwrap()).collect::<BTreeSet<_>>(),
            actors: actors.into_iter().map(|id| Actor { subject: None, issuer: None, client: Some(ClientId::new(id).unwrap()) }).collect(),
            login: behalf_policy::claims::Login::default(),
            expires: Timestamp(expires * 1000),
            token_id: None,
            binding: behalf_policy::claims::Binding::default(),
        }
    }
}

fn handler() -> impl Strategy<Value = Option<Value>> {
    proptest::option::of(prop_oneof![
        Just(json!({"httpGet": {"port": 8000, "path": "/a$(X)"}})),
        Just(
            json!({"httpGet": {"port": "mcp", "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "b"}]}})
        ),
        Just(json!({"tcpSocket": {"port": 8000}})),
        Just(json!({"exec": {"command": ["true"]}})),
        Just(json!({"grpc": {"port": 8000}})),
        Just(json!({"httpGet": {"port": 8000, "host": "a"}})),
    ])
}

prop_compose! {
    fn container(number: usize)(
        probes in vec(handler(), 3),
        pre_stop in handler(),
        env in vec(proptest::sample::select(vec!["PAYROLL_URL", "A", "B"]), 0..4),
        capabilities in proptest::option::of(proptest::sample::select(vec!["ALL", "NET_RAW", "MKNOD"])),
        extra_port in any::<bool>(),
        mounts in any::<bool>(),
    ) -> Value {
        let mut ports = vec![json!({"name": "mcp", "containerPort": 8000})];
        if extra_port { ports.push(json!({"containerPort": 9090})); }
        let mut container = json!({"name": format!("c{number}"), "image": format!("i{number}"), "args": ["$(A)"], "ports": ports});
        for (field, probe) in ["startupProbe", "readinessProbe", "livenessProbe"].into_iter().zip(probes) {
            if let Some(mut probe) = probe {
                probe["periodSeconds"] = json!(3);
                container[field] = probe;
            }
        }
        if let Some(hook) = pre_stop.filter(|hook| hook.get("grpc").is_none()) {
            container["lifecycle"] = json!({"preStop": hook});
        }
        if !env.is_empty() {
            container["env"] = env.into_iter().map(|name| json!({"name": name, "value": "v"})).collect();
        }
        if let Some(dropped) = capabilities {
            container["securityContext"] = json!({"capabilities": {"drop": [dropped]}});
        }
        if mounts {
            container["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
        }
        container
    }
}

prop_compose! {
    pub(crate) fn pod()(
        app in vec(any::<bool>(), 1..3),
        first in container(0), second in container(1), init in container(2),
        with_init in 0..3_u32,
        host_network in proptest::bool::weighted(0.05),
    ) -> Value {
        let mut pod = pod_value();
        let spec = &mut pod["spec"];
        spec["containers"] = if app.len() > 1 { json!([first, second]) } else { json!([first]) };
        spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
        if with_init > 0 {
            let mut init = init;
            if with_init == 1 { init["restartPolicy"] = json!("Always"); }
            spec["initContainers"] = json!([init, {"name": "plain", "image": "p:1"}]);
        }
        if host_network { spec["hostNetwork"] = json!(true); }
        pod
    }
}
