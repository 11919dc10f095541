//! What a server that is taken over would find: nothing that is worth anything elsewhere.
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use behalf_e2e::{ALL_SCOPES, World, keycloak, mcp};
use serde_json::Value;

/// Looks for everything that is shaped like a JWT, as the server's own user inside its container, and gives its place
/// and SHA-256. The image is left out: it is read-only and older than every token.
const SEARCH: &str = r#"
import hashlib, json, os, re, sys
JWT = re.compile(rb"eyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*")
found, looked = [], {"mounts": [], "proc": 0, "memory": 0}
def search(place, data):
    for match in JWT.findall(data):
        found.append({"place": place, "sha256": hashlib.sha256(match).hexdigest()})
def file(place):
    try:
        with open(place, "rb") as f:
            search(place, f.read(64 * 1024 * 1024))
            return True
    except OSError:
        return False
SKIP = ("/proc", "/sys", "/dev/pts", "/dev/mqueue")
for line in open("/proc/self/mountinfo"):
    point = line.split()[4]
    if point in ("/", "/dev") or point.startswith(SKIP):
        continue
    looked["mounts"].append(point)
    file(point)
    for folder, _, names in os.walk(point):
        for name in names:
            file(os.path.join(folder, name))
mine = str(os.getpid())
for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid == mine:
        continue
    for name in ("environ", "cmdline", "comm", "status", "mountinfo"):
        looked["proc"] += file(f"/proc/{pid}/{name}")
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                span, rights = line.split()[:2]
                if not rights.startswith("rw"):
                    continue
                start, end = (int(x, 16) for x in span.split("-"))
                try:
                    memory.seek(start)
                    data = memory.read(end - start)
                except (OSError, ValueError, OverflowError):
                    continue
                looked["memory"] += len(data)
                search("memory", data)
    except OSError:
        pass
print(json.dumps({"found": found, "looked": looked}))
"#;

#[test]
fn c26_the_server_holds_no_token_of_anybody() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let answer = mcp::salary(&alice.text, "bob").send(world)?;
    let saw = answer.saw().context("payroll saw nothing")?;
    assert_eq!(mcp::salary(&bob.text, "bob").send(world)?.status, 403);
    // Every token of this run: what the callers held, and what the sidecar presented to payroll.
    let mut known: BTreeSet<String> =
        [&alice, &bob].iter().map(|token| keycloak::sha256(&token.text)).collect();
    known.insert(saw["token_sha256"].as_str().context("token_sha256")?.to_owned());
    known.extend(
        behalf_e2e::payroll::seen(world)?
            .iter()
            .filter_map(|s| s["token_sha256"].as_str().map(str::to_owned)),
    );

    let report: Value = serde_json::from_str(&pod.python(SEARCH, &[])?)?;
    let looked = &report["looked"];
    let mounts = looked["mounts"].as_array().context("mounts")?;
    assert!(mounts.iter().any(|m| m == "/ca") && mounts.iter().any(|m| m == "/tmp"), "{looked}");
    assert!(looked["proc"].as_u64() >= Some(5), "the server's /proc was not readable: {looked}");
    assert!(looked["memory"].as_u64() >= Some(1 << 20), "the server's memory was not readable: {looked}");
    let found = report["found"].as_array().context("found")?;
    let outside: Vec<_> = found.iter().filter(|f| f["place"] != "memory").collect();
    assert!(outside.is_empty(), "something shaped like a JWT: {outside:?}");
    // In memory there may be examples from the documentation of Python packages; there is no token of anybody.
    let held: Vec<_> =
        found.iter().filter(|f| f["sha256"].as_str().is_some_and(|h| known.contains(h))).collect();
    assert!(held.is_empty(), "{held:?}");

    pod.requests()?;
    let log = pod.server_log()?;
    assert!(log.contains("Bearer behalf_"), "the server was handed handles");
    assert!(!log.contains("eyJ"), "something that begins like a JWT is in the server's log");
    for token in [&alice, &bob] {
        let signature = token.text.rsplit('.').next().context("signature")?;
        assert!(!log.contains(signature));
    }
    Ok(())
}

/// The search itself finds what it is to find.
#[test]
fn the_search_for_tokens_finds_one_that_is_there() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    let planted = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl";
    let plant = format!("open('/tmp/planted', 'w').write('{planted}')");
    pod.python(&plant, &[])?;
    let report: Value = serde_json::from_str(&pod.python(SEARCH, &[])?)?;
    pod.python("import os; os.remove('/tmp/planted')", &[])?;
    let hash = keycloak::sha256(planted);
    let found = report["found"].as_array().context("found")?;
    let places = found.iter().filter(|f| f["sha256"] == hash.as_str()).map(|f| f["place"].as_str());
    assert!(places.flatten().any(|place| place == "/tmp/planted"), "{report}");
    Ok(())
}

#[test]
fn no_client_secret_and_no_api_token_is_in_the_servers_namespace() -> Result<()> {
    let world = World::get()?;
    let secrets = world.object(&["-n", "hr", "get", "secrets"])?;
    assert_eq!(secrets["items"].as_array().map(Vec::len), Some(0), "{}", secrets["items"]);
    let pod = world.object(&["-n", "hr", "get", "pod", &world.pod()?.name])?;
    let server = pod["spec"]["containers"].as_array().into_iter().flatten().find(|c| c["name"] == "server");
    let mounts = server.context("server")?["volumeMounts"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = mounts.iter().filter_map(|m| m["name"].as_str()).collect();
    ensure!(names.iter().all(|name| ["tmp", "ca"].contains(name)), "the server mounts {names:?}");
    Ok(())
}

/// Neither do our own logs, events and objects hold one.
#[test]
fn no_token_is_in_what_behalf_itself_writes() -> Result<()> {
    let world = World::get()?;
    let pod = world.pod()?;
    pod.records()?;
    let kubectl = |words: &[&str]| world.kubectl(words);
    let written = [
        (
            "the sidecar's log",
            kubectl(&["-n", "hr", "logs", &pod.name, "-c", "behalf-sidecar", "--tail=-1"])?,
        ),
        (
            "the operator's log",
            kubectl(&["-n", "behalf-system", "logs", "deployment/behalf-operator", "--tail=-1"])?,
        ),
        ("events", kubectl(&["get", "events", "-A", "-o", "json"])?),
        ("objects", kubectl(&["get", "aid,idp,scat", "-A", "-o", "json"])?),
        ("bundles and pods", kubectl(&["-n", "hr", "get", "configmaps,pods,deployments", "-o", "json"])?),
    ];
    for (what, text) in &written {
        assert!(text.len() > 100, "{what} is empty");
        assert!(!handle_shaped(text), "a handle is in {what}");
        assert!(!jwt_shaped(text), "something shaped like a JWT is in {what}");
    }
    Ok(())
}

/// `eyJ….….`: three parts, the first of which begins as a JSON object does.
fn jwt_shaped(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let words = text.split(|c: char| !(part(c) || c == '.'));
    words.into_iter().any(|word| {
        word.split('.').collect::<Vec<_>>().windows(3).any(|w| w[0].starts_with("eyJ") && w[1].len() > 5)
    })
}

/// `behalf_` and 22 characters, which no name of ours has.
fn handle_shaped(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.match_indices("behalf_").any(|(at, prefix)| {
        let rest: String = text[at + prefix.len()..].chars().take_while(|c| part(*c)).collect();
        rest.len() == 22 && rest.chars().any(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    })
}
