//! Laws that hold for all objects.

use std::collections::BTreeSet;

use behalf_crds::v1alpha1::AgentIdentity;
use behalf_plan::compile::narrow;
use behalf_plan::{BundleIntent, Desired, Injection, plan_injection};
use behalf_policy::bundle::{Bundle, Document, Loaded, Serve};
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::Decision;
use behalf_policy::ids::{EntryName, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{
    accepted_identity_value, document, gathered_with, namespace, object, plan, pod, provider_value,
    providers, settings,
};
use crate::random;

fn planned(identity: &Value, catalog: &Value) -> Desired {
    let mut gathered = gathered_with(identity.clone(), catalog.clone(), provider_value("corp"));
    gathered.providers.extend(providers(vec![provider_value("other")]));
    plan(&gathered)
}

fn serve(desired: &Desired) -> Serve {
    match &desired.bundle {
        BundleIntent::Write(serve) => serve.clone(),
        BundleIntent::Keep => panic!("there is nothing to keep"),
    }
}

fn bundle(serve: Serve) -> Bundle {
    Bundle::load(document(serve, 1), String::new()).expect("what is written loads")
}

/// All that a caller gets: (tool, downstream, scope, audience), and (tool, "", "", "") for a permit as such.
fn gets(bundle: &Bundle, caller: &Caller) -> BTreeSet<(String, String, String, String)> {
    let mut found = BTreeSet::new();
    for tool in random::TOOLS {
        let Decision::Permit(permit) = decide(bundle, caller, Operation::CallTool(tool), Timestamp(0)) else {
            continue;
        };
        found.insert((tool.to_owned(), String::new(), String::new(), String::new()));
        for downstream in random::DOWNSTREAMS {
            if let Some(order) = permit.order(&EntryName::new(downstream).unwrap()) {
                for scope in order.scopes() {
                    found.insert((
                        tool.to_owned(),
                        downstream.to_owned(),
                        scope.to_string(),
                        order.audience().to_string(),
                    ));
                }
            }
        }
    }
    found
}

/// Takes one grant away, chosen by a number.
fn take_away(identity: &mut Value, catalog: &mut Value, choice: usize) {
    let grants = [
        ("i", "/spec/scopes/optional"),
        ("i", "/spec/downstreams"),
        ("i", "/spec/callers/actors/allowed"),
        ("c", "/spec/toolSets/0/tools"),
        ("c", "/spec/toolSets/0/tools/0/downstreams"),
        ("c", "/spec/toolSets/0/tools/1/downstreams"),
        ("c", "/spec/downstreams"),
        ("c", "/spec/scopes"),
        ("c", "/spec/scopes/0/holders/groups"),
        ("c", "/spec/scopes/1/holders/groups"),
        ("c", "/spec/scopes/2/holders/groups"),
        ("c", "/spec/scopes/3/implies"),
        ("c", "/spec/scopes/4/implies"),
        ("c", "/spec/downstreams/0/scopes"),
    ];
    let (object, pointer) = grants[choice % grants.len()];
    let object = if object == "i" { identity } else { catalog };
    if let Some(Value::Array(items)) = object.pointer_mut(pointer)
        && !items.is_empty()
    {
        let place = choice / grants.len() % items.len();
        items.remove(place);
    }
}

/// Turns every list around whose order means nothing.
fn turn_around(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(turn_around);
            items.reverse();
        }
        Value::Object(members) => members.values_mut().for_each(turn_around),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_loads_and_reads_back(catalog in random::catalog(), identity in random::identity()) {
        let document = document(serve(&planned(&identity, &catalog)), 5);
        let bytes = serde_json::to_vec(&document).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Document>(&bytes).unwrap(), &document);
        prop_assert!(Bundle::load(document, String::new()).is_ok());
    }

    #[test]
    fn a_policy_is_written_exactly_when_the_conditions_say_so(catalog in random::catalog(), identity in random::identity()) {
        let desired = planned(&identity, &catalog);
        let policy = matches!(serve(&desired), Serve::Policy(_));
        prop_assert_eq!(policy, desired.accepted.is_true() && desired.resolved_refs.is_true());
        prop_assert!(!desired.accepted.message.is_empty() && !desired.resolved_refs.message.is_empty());
    }

    #[test]
    fn nobody_gets_anything_without_scope_group_and_row(
        catalog in random::catalog(), identity in random::identity(), caller in random::caller(),
    ) {
        let bundle = bundle(serve(&planned(&identity, &catalog)));
        let nobody = Caller { groups: BTreeSet::new(), ..caller.clone() };
        prop_assert!(gets(&bundle, &nobody).is_empty());
        let silent = Caller { scopes: BTreeSet::new(), ..caller.clone() };
        prop_assert!(gets(&bundle, &silent).is_empty());
        prop_assert!(!matches!(decide(&bundle, &caller, Operation::CallTool("no.such.tool"), Timestamp(0)), Decision::Permit(_)));
        prop_assert!(!matches!(decide(&bundle, &caller, Operation::Other, Timestamp(0)), Decision::Permit(_)));
    }

    #[test]
    fn what_is_issued_is_in_the_row_the_ceiling_the_list_and_for_that_audience_alone(
        catalog in random::catalog(), identity in random::identity(), caller in random::caller(),
    ) {
        let bundle = bundle(serve(&planned(&identity, &catalog)));
        let rows = |pointer: &str, of: &Value| of.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        for (tool, downstream, scope, audience) in gets(&bundle, &caller).into_iter().filter(|got| !got.1.is_empty()) {
            let tool = rows("/spec/toolSets/0/tools", &catalog).into_iter().find(|row| row["name"] == tool.as_str()).unwrap();
            let to = rows("/downstreams", &tool).into_iter().find(|row| row["name"] == downstream.as_str()).unwrap();
            prop_assert!(rows("/scopes", &to).contains(&json!(scope)));
            let there = rows("/spec/downstreams", &catalog).into_iter().find(|row| row["name"] == downstream.as_str()).unwrap();
            prop_assert!(there["scopes"].is_null() || rows("/scopes", &there).contains(&json!(scope)));
            prop_assert_eq!(rows("/audiences", &there), vec![json!(audience)]);
            prop_assert!(rows("/spec/downstreams", &identity).iter().any(|row| row["name"] == downstream.as_str()));
        }
        if let Loaded::Policy(policy) = &bundle.serve {
            prop_assert_eq!(policy.server.url.as_str(), identity["spec"]["servers"][0]["url"].as_str().unwrap());
        }
    }

    #[test]
    fn taking_a_grant_away_never_permits(
        catalog in random::catalog(), identity in random::identity(), caller in random::caller(), choice in 0..200_usize,
    ) {
        let before = gets(&bundle(serve(&planned(&identity, &catalog))), &caller);
        let sound = planned(&identity, &catalog).accepted.is_true();
        let (mut identity, mut catalog) = (identity, catalog);
        take_away(&mut identity, &mut catalog, choice);
        let after = gets(&bundle(serve(&planned(&identity, &catalog))), &caller);
        // Taking the flaw out of a flawed object may make it good.
        prop_assert!(!sound || after.is_subset(&before), "{after:?} {before:?}");
    }

    #[test]
    fn the_order_of_lists_means_nothing(catalog in random::catalog(), identity in random::identity()) {
        let straight = planned(&identity, &catalog);
        let (mut identity, mut catalog) = (identity, catalog);
        turn_around(&mut identity);
        turn_around(&mut catalog);
        let turned = planned(&identity, &catalog);
        prop_assert_eq!(&straight.bundle, &turned.bundle);
        prop_assert_eq!(straight.injection_revision, turned.injection_revision);
    }

    #[test]
    fn what_is_kept_never_widens(
        catalog in random::catalog(), before in random::identity(), now in random::identity(), caller in random::caller(),
    ) {
        let Serve::Policy(last) = serve(&planned(&before, &catalog)) else { return Ok(()) };
        let kept = narrow(&last, &object::<AgentIdentity>(now));
        let wide = bundle(Serve::Policy(last.clone()));
        let kept = bundle(Serve::Policy(Box::new(kept)));
        prop_assert!(gets(&kept, &caller).is_subset(&gets(&wide, &caller)));
    }

    #[test]
    fn injecting_twice_is_injecting_once_and_changes_nothing_else(value in random::pod()) {
        let identity = object::<AgentIdentity>(accepted_identity_value());
        let providers = providers(vec![provider_value("corp")]);
        let before = pod(value);
        let ask = |pod: &_| plan_injection(pod, &namespace(), Some(&identity), &providers, &[], &settings());
        let Injection::Plan(first) = ask(&before) else { return Ok(()) };
        let once = first.apply(&before);
        let Injection::Plan(second) = ask(&once) else { panic!("{:?}", ask(&once)) };
        prop_assert_eq!(&second.apply(&once), &once);
        prop_assert_eq!(&second.revision, &first.revision);
        prop_assert_eq!(&second.probes, &first.probes);
        check_untouched(&serde_json::to_value(&before).unwrap(), &serde_json::to_value(&once).unwrap())?;

        // What the webhook sends is the difference, and it leads exactly there.
        let (mut patched, target) = (serde_json::to_value(&before).unwrap(), serde_json::to_value(&once).unwrap());
        let patch = json_patch::diff(&patched, &target);
        json_patch::patch(&mut patched, &patch).unwrap();
        prop_assert_eq!(patched, target);
    }
}

/// With everything that a plan may change taken out, the pods are equal.
fn check_untouched(before: &Value, after: &Value) -> Result<(), TestCaseError> {
    prop_assert_eq!(bare(before), bare(after));
    Ok(())
}

fn bare(pod: &Value) -> Value {
    let mut pod = pod.clone();
    take(&mut pod, "/metadata/annotations", "behalf.dev/injected");
    for list in ["initContainers", "containers", "volumes"] {
        let rows = pod["spec"].as_object_mut().unwrap().remove(list).unwrap_or_default();
        let ours = |row: &Value| row["name"].as_str().unwrap().starts_with("behalf-");
        let mut rows: Vec<_> =
            rows.as_array().into_iter().flatten().filter(|row| !ours(row)).cloned().collect();
        for row in rows.iter_mut().filter(|_| list != "volumes") {
            take(row, "", "securityContext");
            for handler in ["/startupProbe", "/readinessProbe", "/livenessProbe", "/lifecycle/preStop"] {
                take(row, handler, "httpGet");
                take(row, handler, "tcpSocket");
                take(row, handler, "grpc");
            }
            let env = row.as_object_mut().unwrap().remove("env").unwrap_or_default();
            let others = env.as_array().into_iter().flatten().filter(|row| row["name"] != "PAYROLL_URL");
            row["env"] = others.cloned().collect();
        }
        pod["spec"][list] = json!(rows);
    }
    if pod.pointer("/metadata/annotations") == Some(&json!({})) {
        take(&mut pod, "/metadata", "annotations");
    }
    pod
}

fn take(value: &mut Value, parent: &str, member: &str) {
    if let Some(Value::Object(members)) = value.pointer_mut(parent) {
        members.remove(member);
    }
}
