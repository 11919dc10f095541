//! What a person sees with kubectl, as files: the healthy identity, and one for each thing that does not resolve.
//!
//! `UPDATE_GOLDEN=1` writes the files anew.
use std::fmt::Write as _;
use std::path::Path;

use behalf_e2e::Undo;
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::scene::{account, identity, namespace, reason};

const PLACE: &str = "e2e-golden";

/// Words of a condition's message that tell what to do.
const STEPS: [&str; 12] = [
    "kubectl",
    "Create",
    "Correct",
    "Remove",
    "Add",
    "Ask",
    "Set",
    "Change",
    "Put",
    "see ResolvedRefs",
    "See",
    "Give",
];

fn golden(file: &str, seen: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, seen).unwrap();
        return Ok(());
    }
    let wanted = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if wanted == seen {
        return Ok(());
    }
    Err(format!(
        "{file} is no longer what is seen (UPDATE_GOLDEN=1 writes it anew)\n--- wanted\n{wanted}\n--- seen\n{seen}"
    ))
}

/// Everything that differs from run to run, by what it is.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let field = line.trim_start().split_once(':').map_or("", |(name, _)| name);
        let hidden = match field {
            "Creation Timestamp" | "Last Transition Time" | "Since" => Some("<time>"),
            "UID" => Some("<uid>"),
            // Other tests change the demo's identity and put it back.
            "Generation" | "Observed Generation" => Some("<generation>"),
            "Resource Version" => Some("<version>"),
            "Digest" | "Programmed Digest" => Some("<digest>"),
            "Revision" => Some("<revision>"),
            "Serial" => Some("<serial>"),
            _ => None,
        };
        let line = match (hidden, line.split_once(':')) {
            (Some(mark), Some((name, _))) => format!("{name}:  {mark}"),
            _ => serials(line),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn serials(line: &str) -> String {
    let Some((before, rest)) = line.split_once("bundle of serial ") else { return line.to_owned() };
    format!("{before}bundle of serial <serial>{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// `kubectl get`: the last column is the age, and widths follow the values.
fn table(text: &str) -> String {
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let cut = line.rfind(' ').map_or(0, |place| place + 1);
        let line = if number == 0 { line.to_owned() } else { format!("{}<age>", &line[..cut]) };
        let _ = writeln!(out, "{line}");
    }
    out
}

fn described(api: &Api, place: &str, name: &str) -> String {
    let text = api.kubectl(&["-n", place, "describe", "aid", name]);
    // Events come in no certain order, with ages, and repeat.
    let (object, _) = text.split_once("\nEvents:").unwrap_or((&text, ""));
    let list = [
        "events",
        "-n",
        place,
        "--field-selector",
        &format!("involvedObject.kind=AgentIdentity,involvedObject.name={name}"),
    ];
    let list = api.get(&list);
    let mut events: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            format!("  {}  {}  {}", text("type"), text("reason"), serials(&text("message")))
        })
        .collect();
    events.sort();
    events.dedup();
    format!("{}Events:\n{}\n", normal(object), events.join("\n"))
}

fn seen(api: &Api, place: &str, name: &str, events: bool) -> String {
    let got = api.kubectl(&["-n", place, "get", "aid", name]);
    let described = described(api, place, name);
    let described = if events { &described[..] } else { described.split_once("Events:").unwrap().0 };
    format!(
        "$ kubectl -n {place} get aid {name}\n{}\n$ kubectl -n {place} describe aid {name}\n{described}",
        table(&got)
    )
}

#[test]
fn the_healthy_identity() {
    let api = Api::open();
    reason(&api, "hr", "hr-tools", "Ready", "Ready");
    // Its Events tell of everything that was tried on it; those of a fresh one are below.
    golden("healthy.txt", &seen(&api, "hr", "hr-tools", false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// A catalogue that goes when the guard does.
fn catalogue<'a>(api: &'a Api, name: &'static str, change: impl FnOnce(&mut Value)) -> Undo<'a> {
    let mut spec = api.get(&["scat", "corp"])["spec"].clone();
    change(&mut spec);
    api.apply(&json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "ScopeCatalog", "metadata": {"name": name}, "spec": spec}));
    Undo::new(move || api.world.kubectl(&["delete", "scat", name, "--ignore-not-found"]).map(drop))
}

struct Case {
    name: &'static str,
    change: fn(&mut Value),
    /// The condition that says it, and its reason.
    says: (&'static str, &'static str),
}

const CASES: &[Case] = &[
    Case { name: "fresh", change: |_| {}, says: ("Ready", "NoPods") },
    Case {
        name: "catalog-missing",
        change: |spec| spec["catalogRef"]["name"] = json!("nowhere"),
        says: ("ResolvedRefs", "CatalogNotFound"),
    },
    Case {
        name: "catalog-invalid",
        change: |spec| spec["catalogRef"]["name"] = json!("e2e-broken"),
        says: ("ResolvedRefs", "CatalogNotAccepted"),
    },
    Case {
        name: "provider-missing",
        change: |spec| {
            spec["identityProviders"][0]["name"] = json!("nowhere");
            spec["downstreams"][0]["identityProvider"] = json!("nowhere");
        },
        says: ("ResolvedRefs", "IdentityProviderNotFound"),
    },
    Case {
        name: "tool-set-missing",
        change: |spec| spec["servers"][0]["toolSet"] = json!("nothing"),
        says: ("ResolvedRefs", "ToolSetNotFound"),
    },
    Case {
        name: "downstream-missing",
        change: |spec| spec["downstreams"][0]["name"] = json!("archive"),
        says: ("ResolvedRefs", "DownstreamNotFound"),
    },
    Case {
        name: "namespace-not-allowed",
        change: |spec| spec["catalogRef"]["name"] = json!("e2e-closed"),
        says: ("ResolvedRefs", "NamespaceNotAllowed"),
    },
    Case {
        name: "account-missing",
        change: |spec| spec["serviceAccountName"] = json!("nobody"),
        says: ("ResolvedRefs", "ServiceAccountNotFound"),
    },
    Case {
        name: "url-taken",
        change: |spec| spec["servers"][0]["url"] = json!(behalf_e2e::SERVER),
        says: ("Accepted", "AudienceTaken"),
    },
    Case {
        name: "scope-unknown",
        change: |spec| spec["scopes"]["optional"] = json!(["hr:everything"]),
        says: ("Accepted", "ScopeNotInCatalog"),
    },
];

#[test]
fn an_identity_with_each_thing_that_does_not_resolve() {
    let api = Api::open();
    let _place = namespace(&api, PLACE, Some("Optional"));
    let _broken = catalogue(&api, "e2e-broken", |spec| {
        spec["toolSets"][0]["tools"][0]["scopes"] = json!(["hr:nowhere"]);
    });
    let _closed = catalogue(&api, "e2e-closed", |spec| {
        spec["allowedNamespaces"] =
            json!({"from": "Selector", "selector": {"matchLabels": {"tier": "elsewhere"}}});
    });
    for case in CASES {
        let mut object = identity(PLACE, case.name, case.name);
        (case.change)(&mut object["spec"]);
        if case.name != "account-missing" {
            api.apply(&account(PLACE, case.name));
        }
        api.apply(&object);
    }
    let mut wrong = Vec::new();
    for case in CASES {
        let (kind, expected) = case.says;
        let message = reason(&api, PLACE, case.name, kind, expected);
        if !STEPS.iter().any(|step| message.contains(step)) {
            wrong.push(format!("{}: no next step in {message:?}", case.name));
        }
        // Events are written after the status; one that is there has come for all.
        let selector = format!("involvedObject.name={},reason={expected}", case.name);
        eventually(&format!("{} has an Event {expected}", case.name), 30, || {
            let list = api.get(&["events", "-n", PLACE, "--field-selector", &selector]);
            if list["items"].as_array().is_some_and(|all| !all.is_empty()) {
                Ok(())
            } else {
                Err(list.to_string())
            }
        });
        wrong.extend(golden(&format!("{}.txt", case.name), &seen(&api, PLACE, case.name, true)).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
