//! The naive meaning of the objects, written straight from what their fields promise, against `decide(compile(objects))`.
//!
//! Nothing here uses the compiler or the checks of the crate: it reads the JSON of the objects.

use std::collections::{BTreeMap, BTreeSet};

use behalf_plan::BundleIntent;
use behalf_policy::bundle::Serve;
use behalf_policy::bundle::document::CallerKind;
use behalf_policy::claims::Caller;
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::Decision;
use behalf_policy::ids::{EntryName, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{document, gathered_with, plan, provider_value, providers};
use crate::random;

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Refused,
    WouldDeny,
    /// Downstream: scopes, audience, longest life.
    Permitted(BTreeMap<String, (BTreeSet<String>, String, u64)>),
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map(|items| items.iter().collect()).unwrap_or_default()
}

fn words(value: &Value) -> BTreeSet<String> {
    list(value).into_iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn named<'a>(rows: &'a Value, name: &str) -> Option<&'a Value> {
    list(rows).into_iter().find(|row| row["name"] == name)
}

fn seconds(value: &Value) -> u64 {
    value.as_str().unwrap().trim_end_matches('s').parse().unwrap()
}

/// Whether the catalogue makes sense by itself.
fn sound(catalog: &Value) -> bool {
    let spec = &catalog["spec"];
    let known = |scope: &String| named(&spec["scopes"], scope).is_some();
    let lower = |scope: &Value| words(&scope["implies"]);
    // A circle: from a scope one comes back to it.
    let reaches_itself = |start: &Value| {
        let mut open = lower(start);
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop_first() {
            if seen.insert(next.clone()) {
                open.extend(named(&spec["scopes"], &next).map(lower).unwrap_or_default());
            }
        }
        seen.contains(start["name"].as_str().unwrap())
    };
    let scopes = list(&spec["scopes"])
        .into_iter()
        .all(|scope| lower(scope).iter().all(known) && !reaches_itself(scope));
    let tools = list(&spec["toolSets"]).into_iter().flat_map(|set| list(&set["tools"])).all(|tool| {
        !words(&tool["scopes"]).is_empty()
            && words(&tool["scopes"]).iter().all(known)
            && list(&tool["downstreams"]).into_iter().all(|to| {
                named(&spec["downstreams"], to["name"].as_str().unwrap()).is_some_and(|row| {
                    row["scopes"].is_null() || words(&to["scopes"]).is_subset(&words(&row["scopes"]))
                })
            })
    });
    let downstreams = list(&spec["downstreams"])
        .into_iter()
        .all(|row| !row["http"]["origin"].as_str().unwrap().contains("127.0.0.1"));
    scopes && tools && downstreams
}

/// Whether the identity may have what it asks of a sound catalogue.
fn within(identity: &Value, catalog: &Value) -> bool {
    let (asks, has) = (&identity["spec"], &catalog["spec"]);
    let scopes = words(&asks["scopes"]["required"])
        .union(&words(&asks["scopes"]["optional"]))
        .cloned()
        .collect::<BTreeSet<_>>();
    let Some(set) = named(&has["toolSets"], asks["servers"][0]["toolSet"].as_str().unwrap()) else {
        return false;
    };
    has["allowedNamespaces"]["from"] == "All"
        && scopes.iter().all(|scope| named(&has["scopes"], scope).is_some())
        && list(&asks["downstreams"])
            .into_iter()
            .all(|to| named(&has["downstreams"], to["name"].as_str().unwrap()).is_some())
        && list(&asks["rateLimits"])
            .into_iter()
            .all(|limit| words(&limit["tools"]).iter().all(|tool| named(&set["tools"], tool).is_some()))
}

/// A scope counts when a group of the caller holds it, and the token presents it or one that counts implies it.
fn counts(scope: &str, catalog: &Value, caller: &Caller) -> bool {
    let Some(row) = named(&catalog["spec"]["scopes"], scope) else { return false };
    let held = words(&row["holders"]["groups"])
        .iter()
        .any(|group| caller.groups.iter().any(|g| g.as_str() == group));
    let presented = caller.scopes.iter().any(|s| s.as_str() == scope);
    let implied = || {
        list(&catalog["spec"]["scopes"]).into_iter().any(|wide| {
            words(&wide["implies"]).contains(scope) && counts(wide["name"].as_str().unwrap(), catalog, caller)
        })
    };
    held && (presented || implied())
}

fn may_call(identity: &Value, caller: &Caller) -> bool {
    let callers = &identity["spec"]["callers"];
    let kind = match caller.kind {
        CallerKind::User => "User",
        CallerKind::Workload => "Workload",
    };
    let (clients, depth) = match &callers["actors"] {
        Value::Null => (None, 0),
        actors => (Some(words(&actors["allowed"])), actors["maxDepth"].as_u64().unwrap()),
    };
    words(&callers["kinds"]).contains(kind)
        && clients.as_ref().is_none_or(|clients| {
            caller.client.as_ref().is_some_and(|client| clients.contains(client.as_str()))
        })
        && caller.actors.len() as u64 <= depth
        && clients.is_none_or(|clients| {
            let acts = caller.actors.first().map(|actor| actor.client.as_ref().unwrap().as_str());
            acts.is_none_or(|acts| clients.contains(acts))
        })
}

fn meaning(
    identity: &Value,
    catalog: &Value,
    provider: &Value,
    caller: &Caller,
    tool: &str,
    now: i64,
) -> Meaning {
    let asks = &identity["spec"];
    let provider_good =
        provider["spec"]["caBundle"] != "corp" && provider["spec"]["allowedNamespaces"]["from"] == "All";
    if !sound(catalog)
        || !within(identity, catalog)
        || !provider_good
        || asks["state"] == "Suspended"
        || now >= caller.expires.0
    {
        return Meaning::Refused;
    }
    let no = if asks["rollout"]["stage"] == "Audit" { Meaning::WouldDeny } else { Meaning::Refused };
    let set = named(&catalog["spec"]["toolSets"], asks["servers"][0]["toolSet"].as_str().unwrap()).unwrap();
    let Some(row) = named(&set["tools"], tool) else { return no };
    let offers = words(&asks["scopes"]["required"])
        .union(&words(&asks["scopes"]["optional"]))
        .cloned()
        .collect::<BTreeSet<_>>();
    let mut needs = words(&row["scopes"]);
    needs.extend(words(&asks["scopes"]["required"]));
    if !may_call(identity, caller)
        || !needs.is_subset(&offers)
        || !needs.iter().all(|scope| counts(scope, catalog, caller))
    {
        return no;
    }
    let mut leads = BTreeMap::new();
    for to in list(&row["downstreams"]) {
        let name = to["name"].as_str().unwrap();
        let Some(listed) = named(&asks["downstreams"], name) else { continue };
        // A token is exchanged where it was issued.
        if listed["identityProvider"] != caller.provider.as_str() {
            continue;
        }
        let there = named(&catalog["spec"]["downstreams"], name).unwrap();
        let issuer = if caller.provider.as_str() == "corp" { provider } else { &provider_value("other") };
        let life = |value: &Value| if value == "5m" { 300 } else { seconds(value) };
        let life =
            life(&there["maxTokenLifetime"]).min(life(&issuer["spec"]["exchange"]["maxTokenLifetime"]));
        let audience = there["audiences"][0].as_str().unwrap().to_owned();
        leads.insert(name.to_owned(), (words(&to["scopes"]), audience, life));
    }
    Meaning::Permitted(leads)
}

fn decided(
    identity: &Value,
    catalog: &Value,
    provider: &Value,
    caller: &Caller,
    tool: &str,
    now: i64,
) -> Meaning {
    let mut gathered = gathered_with(identity.clone(), catalog.clone(), provider.clone());
    gathered.providers.extend(providers(vec![provider_value("other")]));
    let BundleIntent::Write(serve) = plan(&gathered).bundle else { panic!("there is nothing to keep") };
    let bundle = load(serve);
    match decide(&bundle, caller, Operation::CallTool(tool), Timestamp(now)) {
        Decision::Refuse(_) => Meaning::Refused,
        Decision::WouldDeny(_) => Meaning::WouldDeny,
        Decision::Permit(permit) => {
            let orders =
                random::DOWNSTREAMS.iter().filter_map(|name| permit.order(&EntryName::new(*name).unwrap()));
            let leads: BTreeMap<_, _> = orders
                .map(|order| {
                    let scopes = order.scopes().iter().map(ToString::to_string).collect();
                    (
                        order.downstream().to_string(),
                        (scopes, order.audience().to_string(), u64::from(order.max_lifetime())),
                    )
                })
                .collect();
            assert_eq!(permit.needs_handle(), !leads.is_empty());
            Meaning::Permitted(leads)
        }
    }
}

fn load(serve: Serve) -> behalf_policy::bundle::Bundle {
    behalf_policy::bundle::Bundle::load(document(serve, 1), String::new()).expect("what is written loads")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_mean_what_is_decided(
        catalog in random::catalog(),
        identity in random::identity(),
        provider in random::provider(),
        caller in random::caller(),
        tool in proptest::sample::select(vec!["t0", "t1", "t2", "t3", "t4"]),
        now in proptest::sample::select(vec![0_i64, 1000, 5000]),
    ) {
        let expected = meaning(&identity, &catalog, &provider, &caller, tool, now);
        prop_assert_eq!(decided(&identity, &catalog, &provider, &caller, tool, now), expected);
    }

    /// The same for callers who have everything a caller can have, so that permits are common.
    #[test]
    fn objects_mean_what_is_decided_for_the_powerful(
        catalog in random::catalog(),
        mut identity in random::identity(),
        provider in random::provider(),
        mut caller in random::caller(),
        tool in proptest::sample::select(&random::TOOLS[..]),
    ) {
        identity["spec"]["scopes"]["optional"] = serde_json::json!(random::SCOPES);
        caller.groups = random::GROUPS.iter().map(|group| behalf_policy::ids::Group::new(*group).unwrap()).collect();
        caller.actors.clear();
        let expected = meaning(&identity, &catalog, &provider, &caller, tool, 0);
        prop_assert_eq!(decided(&identity, &catalog, &provider, &caller, tool, 0), expected);
    }

    /// The same for a server with one tool that offers just what the tool needs, called with wider scopes alone.
    #[test]
    fn a_wider_scope_means_what_it_implies(
        mut catalog in random::catalog(),
        mut identity in random::identity(),
        provider in random::provider(),
        mut caller in random::caller(),
    ) {
        catalog["spec"]["toolSets"][0]["tools"].as_array_mut().unwrap().truncate(1);
        let needs = catalog["spec"]["toolSets"][0]["tools"][0]["scopes"].clone();
        caller.scopes = random::SCOPES.iter().filter(|scope| !words(&needs).contains(**scope)).map(|scope| behalf_policy::ids::Scope::new(*scope).unwrap()).collect();
        caller.groups = random::GROUPS.iter().map(|group| behalf_policy::ids::Group::new(*group).unwrap()).collect();
        caller.actors.clear();
        identity["spec"]["scopes"] = serde_json::json!({"required": [], "optional": needs});
        let expected = meaning(&identity, &catalog, &provider, &caller, "t0", 0);
        prop_assert_eq!(decided(&identity, &catalog, &provider, &caller, "t0", 0), expected);
    }
}
