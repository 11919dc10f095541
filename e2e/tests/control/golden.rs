//! What a person sees with kubectl, as files.
//!
//! All are written anew by `UPDATE_GOLDEN=1 cargo xtask test --only-e2e states`.
use std::fmt::Write as _;
use std::path::Path;

use super::api::{Api, eventually};
use super::scene::condition;

/// Words of a condition's message that tell what to do.
const STEPS: [&str; 15] = [
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
    "Make",
    "Use ",
    "Let ",
];

/// Compares with a file, or writes it.
pub fn golden(file: &str, seen: &str) -> Result<(), String> {
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
    let mut within_decisions = false;
    for line in text.lines() {
        // What others tried on the same server is counted, and is no state of its own.
        within_decisions = line.starts_with("  Decisions:") || within_decisions && line.starts_with("   ");
        if within_decisions {
            if !line.starts_with("   ") {
                let _ = writeln!(out, "{line}  <decisions>");
            }
            continue;
        }
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
            _ => addresses(&serials(line)),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Addresses of pods, which each gets anew.
fn addresses(line: &str) -> String {
    let mut out = line.to_owned();
    for network in ["10.244.", "fd00:10:244:"] {
        let mut parts = out.split(network);
        let mut hidden = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '.' || c == ':');
            hidden.push_str("<address>");
            hidden.push_str(rest);
        }
        out = hidden;
    }
    out
}

fn serials(line: &str) -> String {
    let Some((before, rest)) = line.split_once("bundle of serial ") else { return line.to_owned() };
    format!("{before}bundle of serial <serial>{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// `kubectl get`: counts and ages differ from run to run, and widths follow the values.
fn table(text: &str) -> String {
    let mut lines = text.lines().map(str::trim_end);
    let header = lines.next().unwrap_or_default();
    let age = header.rfind("AGE").unwrap_or_default();
    let counts = header.find("WOULD-DENY").unwrap_or(age);
    let mut out = format!("{header}\n");
    for line in lines {
        let counted = line.get(counts..age).unwrap_or_default().trim();
        let counted = if counted.is_empty() { "" } else { "<counts>" };
        let before = line.get(..counts).unwrap_or(line);
        let _ = writeln!(out, "{before}{counted:<width$}<age>", width = age - counts);
    }
    out
}

/// An object of ours, as a person names it.
#[derive(Clone, Copy)]
pub struct Thing<'a> {
    pub kind: &'a str,
    /// None for what belongs to the cluster.
    pub place: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> Thing<'a> {
    pub fn identity(place: &'a str, name: &'a str) -> Self {
        Self { kind: "aid", place: Some(place), name }
    }

    pub fn of_cluster(kind: &'a str, name: &'a str) -> Self {
        Self { kind, place: None, name }
    }

    fn words(self, verb: &'a str) -> Vec<&'a str> {
        let place = self.place.map(|place| ["-n", place]);
        place.into_iter().flatten().chain([verb, self.kind, self.name]).collect()
    }
}

fn described(api: &Api, thing: Thing<'_>) -> String {
    let text = api.kubectl(&thing.words("describe"));
    // Events come in no certain order, with ages, and repeat.
    let (object, _) = text.split_once("\nEvents:").unwrap_or((&text, ""));
    let kind = match thing.kind {
        "aid" => "AgentIdentity",
        "scat" => "ScopeCatalog",
        _ => "IdentityProvider",
    };
    let selector = format!("involvedObject.kind={kind},involvedObject.name={}", thing.name);
    let list = api.get(&["events", "-n", thing.place.unwrap_or("default"), "--field-selector", &selector]);
    let mut events: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            format!("  {}  {}  {}", text("type"), text("reason"), addresses(&serials(&text("message"))))
        })
        .collect();
    events.sort();
    events.dedup();
    format!("{}Events:\n{}\n", normal(object), events.join("\n"))
}

/// What `kubectl get` and `kubectl describe` print.
pub fn seen(api: &Api, thing: Thing<'_>, events: bool) -> String {
    let got = api.kubectl(&thing.words("get"));
    let described = described(api, thing);
    let described = if events { &described[..] } else { described.split_once("Events:").unwrap().0 };
    format!(
        "$ kubectl {}\n{}\n$ kubectl {}\n{described}",
        thing.words("get").join(" "),
        table(&got),
        thing.words("describe").join(" ")
    )
}

/// Waits until a condition of the thing has that reason; gives what is wrong with what is seen then.
///
/// With pods, Events tell of what came first, which is not always the same; they are left out then.
pub fn state(
    api: &Api,
    file: &str,
    thing: Thing<'_>,
    (kind, wanted): (&str, &str),
    with_events: bool,
) -> Vec<String> {
    let mut words = vec![thing.kind, thing.name];
    words.extend(thing.place.into_iter().flat_map(|place| ["-n", place]));
    let (status, message) = eventually(&format!("{file}: {kind} is {wanted}"), 120, || {
        let object = api.get(&words);
        match condition(&object, kind) {
            Some((status, reason, message)) if reason == wanted => Ok((status, message)),
            _ => Err(object["status"].to_string()),
        }
    });
    let mut wrong = Vec::new();
    if status != "True" && !STEPS.iter().any(|step| message.contains(step)) {
        wrong.push(format!("{file}: no next step in {message:?}"));
    }
    if with_events {
        told(api, file, thing, wanted);
    }
    wrong.extend(golden(&format!("{file}.txt"), &seen(api, thing, with_events)).err());
    wrong
}

/// Waits for an Event: they are written after the status, and one that is there has come for all.
fn told(api: &Api, file: &str, thing: Thing<'_>, reason: &str) {
    let selector = format!("involvedObject.name={},reason={reason}", thing.name);
    eventually(&format!("{file}: an Event {reason}"), 30, || {
        let place = thing.place.unwrap_or("default");
        let list = api.get(&["events", "-n", place, "--field-selector", &selector]);
        if list["items"].as_array().is_some_and(|all| !all.is_empty()) {
            Ok(())
        } else {
            Err(list.to_string())
        }
    });
}
