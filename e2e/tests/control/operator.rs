//! The operator frozen and thawed, and the API server away: calls go on, and all comes right without hands.
use std::time::{Duration, Instant};

use behalf_e2e::{Request, Token, mcp, until};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::feed_scene::{
    People, addresses, bob_may_not, call, identity, leave_taken, lives, newer, programmed, refused, serial,
    verdict,
};
use super::operator_audit::{Audit, short};
use super::operator_host::{in_container, of_node};
use super::scene::{enrolled, injecting};

const SYSTEM: &str = "behalf-system";

/// The pod that holds the operator's Lease.
pub fn leader(api: &Api) -> Result<String, String> {
    let lease = api.ask(&["-n", SYSTEM, "get", "lease", "behalf-operator", "-o", "json"], "")?;
    let lease: Value = serde_json::from_str(&lease).map_err(|error| error.to_string())?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let name = holder.split('/').next().unwrap_or_default();
    if name.is_empty() { Err(lease["spec"].to_string()) } else { Ok(name.to_owned()) }
}

/// The pods of the operator that are ready.
fn replicas(api: &Api) -> Vec<String> {
    let list = api.get(&["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator"]);
    let ready = list["items"].as_array().cloned().unwrap_or_default().into_iter().filter(|pod| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
            && pod["metadata"]["deletionTimestamp"].is_null()
    });
    ready.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_frozen_leader_is_replaced_and_when_it_thaws_it_writes_nothing() {
    let api = Api::open();
    let people = People::of(&api);
    let leave = call("leave.list", &people.bob, None);
    assert_eq!(replicas(&api).len(), 2, "the chart runs two replicas");
    programmed(&api);
    let before = serial(&api);
    let first = leader(&api).unwrap();
    let (audit, began) = (Audit::from_now(&api), Instant::now());
    let frozen = in_container(&api, SYSTEM, &first, "operator").freeze().unwrap();
    // The change comes when nobody can write, and is programmed by the one who takes over.
    let change = leave_taken(&api);
    assert!(serial(&api) > before);
    let second = leader(&api).unwrap();
    assert_ne!(second, first);
    programmed(&api);
    eprintln!(
        "the leader is frozen: the other's change is programmed after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(verdict(&leave.send(api.world).unwrap()), bob_may_not());
    let by_first = |audit: &Audit| {
        let writes = audit.writes().into_iter().filter(|event| Audit::pod(event) == first);
        writes.map(|event| short(&event)).collect::<Vec<_>>()
    };
    assert_eq!(by_first(&audit), [] as [&str; 0], "frozen");
    let (audit, now) = (Audit::from_now(&api), (serial(&api), identity(&api)["status"]["bundle"].clone()));
    frozen.now().unwrap();
    // It has asked again, so it knows; it does not lead, and its webhook and feed serve on.
    eventually("the thawed one asks the API server again", 60, || {
        let asked = audit.asked_by(&first);
        if asked > 3 { Ok(()) } else { Err(format!("{asked} requests")) }
    });
    eventually("both are ready", 90, || {
        let ready = replicas(&api);
        if ready.len() == 2 { Ok(()) } else { Err(format!("{ready:?}")) }
    });
    assert_eq!(leader(&api).unwrap(), second, "the Lease stays where it is");
    assert_eq!((serial(&api), identity(&api)["status"]["bundle"].clone()), now, "nothing older came back");
    drop(change);
    programmed(&api);
    assert_eq!(verdict(&leave.send(api.world).unwrap()), (200, None));
    assert_eq!(leader(&api).unwrap(), second);
    assert_eq!(by_first(&audit), [] as [&str; 0], "thawed");
}

/// Somebody at work: each call with what has to come of it.
struct Caller<'a> {
    api: &'a Api,
    people: People,
    since: Instant,
    made: usize,
    wrong: Vec<String>,
}

impl<'a> Caller<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, people: People::of(api), since: Instant::now(), made: 0, wrong: Vec::new() }
    }

    /// One call of each kind.
    fn round(&mut self) {
        // A token of this provider lives for minutes.
        if self.since.elapsed() > Duration::from_secs(45) {
            (self.people, self.since) = (People::of(self.api), Instant::now());
        }
        let of = |tool, token: &Token| call(tool, token, None);
        let rows: [(Request, (u16, Option<String>)); 5] = [
            (of("salary.get", &self.people.alice), (200, None)),
            (of("directory.search", &self.people.alice), (200, None)),
            (of("leave.list", &self.people.bob), (200, None)),
            (of("salary.get", &self.people.bob), refused("NotEntitled")),
            (mcp::call("leave.list", &json!({})), (401, None)),
        ];
        for (request, wanted) in rows {
            self.made += 1;
            match request.send(self.api.world) {
                Ok(answer)
                    if answer.status == wanted.0 && (wanted.0 == 401 || verdict(&answer) == wanted) => {}
                other => self.wrong.push(format!("{:?}: wants {wanted:?}: {other:?}", self.since.elapsed())),
            }
        }
    }
}

/// How long the API server is away, seconds.
fn away() -> Duration {
    Duration::from_secs(
        std::env::var("BEHALF_E2E_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(60),
    )
}

#[test]
fn with_the_api_server_away_every_call_is_answered_right_and_all_comes_back_by_itself() {
    let api = Api::open();
    programmed(&api);
    let (pods, mut caller, away) = (addresses(&api), Caller::new(&api), away());
    let lived = lives(&api);
    // Names and addresses are known from here on: nobody can be asked for them.
    caller.round();
    let gone = of_node(&api, "apiserver").freeze().unwrap();
    let began = Instant::now();
    while began.elapsed() < away {
        caller.round();
    }
    let (made, lasted) = (caller.made, began.elapsed());
    gone.now().unwrap();
    let back = Instant::now();
    eprintln!(
        "the API server was away for {:.0} s: {made} calls, {} of them not as they should be",
        lasted.as_secs_f64(),
        caller.wrong.len()
    );
    eventually("the API server answers", 120, || {
        api.ask(&["get", "--raw", "/readyz", "--request-timeout=5s"], "")
    });
    until("calls stay right while everything comes back", Duration::from_mins(3), || {
        caller.round();
        let node = api.world.object(&["get", "nodes"])?;
        let ready = node["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let node = ready.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let pods = addresses(&api).len() == pods.len();
        Ok((node && pods && replicas(&api).len() == 2 && leader(&api).is_ok()).then_some(()))
    })
    .unwrap();
    // Not only is it ready: it works.
    let change = leave_taken(&api);
    programmed(&api);
    let answer = call("leave.list", &caller.people.bob, None).send(api.world).unwrap();
    assert_eq!(verdict(&answer), bob_may_not());
    let last = serial(&api);
    drop(change);
    assert!(newer(&api, last) > last);
    eprintln!(
        "back, and a changed row is programmed {:.1} s after the API server is",
        back.elapsed().as_secs_f64()
    );
    caller.round();
    assert_eq!(lives(&api), lived, "the same pods, none started again");
    assert!(
        caller.wrong.is_empty(),
        "{} of {} calls:\n{}",
        caller.wrong.len(),
        caller.made,
        caller.wrong.join("\n")
    );
    let _scene = enrolled(&api);
    let made = injecting(&api);
    assert_eq!(made["spec"]["initContainers"][1]["name"], "behalf-sidecar", "{made}");
}
