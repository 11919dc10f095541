//! Counts: what callers were told, what the records say and what the status says are the same numbers, also when pods go.
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use behalf_e2e::{Pod, Request, mcp, until};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::feed_scene::{People, addresses, call, identity, lives, programmed, remade, settled};
use super::operator_host::in_container;

const CALLS: usize = 1000;
/// Calls under way at the same time.
const AT_ONCE: usize = 8;
/// What is still to be told is told within this: the operator's ledger takes two periods of the feed and writes once in a
/// third, of 5 s each.
const QUIET: Duration = Duration::from_secs(15);

/// How many of each decision.
type Sums = BTreeMap<String, i64>;

/// What the status says, by the records' words.
fn told(api: &Api) -> (Sums, bool) {
    let decisions = identity(api)["status"]["decisions"].clone();
    let sums = [("Permit", "allowed"), ("Refuse", "denied"), ("WouldDeny", "wouldDeny")];
    let of = |field: &str| decisions[field].as_i64().unwrap_or_default();
    let sums = sums.into_iter().map(|(decision, field)| (decision.to_owned(), of(field))).collect();
    (sums, decisions["complete"] == true)
}

fn minus(after: &Sums, before: &Sums) -> Sums {
    let of = |sums: &Sums, key: &str| sums.get(key).copied().unwrap_or_default();
    ["Permit", "Refuse", "WouldDeny"].map(|key| (key.to_owned(), of(after, key) - of(before, key))).into()
}

/// Ids and decisions of the requests on the way in.
fn inbound(records: &[Value]) -> Vec<(String, String)> {
    let inbound = records.iter().filter(|record| record["direction"] == "Inbound");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    inbound.map(|record| (text(&record["requestId"]), text(&record["decision"]))).collect()
}

fn sums<'a>(decisions: impl IntoIterator<Item = &'a String>) -> Sums {
    let mut sums = minus(&Sums::new(), &Sums::new());
    for decision in decisions {
        *sums.entry(decision.clone()).or_default() += 1;
    }
    sums
}

/// A pod's sidecar's log, followed until the pod is gone.
struct Followed {
    child: Child,
    file: std::path::PathBuf,
}

impl Followed {
    fn new(api: &Api, pod: &str) -> Self {
        let file = std::env::temp_dir().join(format!("behalf-e2e-{}-{pod}.log", std::process::id()));
        let mut command = api.world.cluster.kubectl(&[
            "-n",
            "hr",
            "logs",
            pod,
            "-c",
            "behalf-sidecar",
            "--tail=-1",
            "--follow",
        ]);
        command.stdin(Stdio::null()).stdout(File::create(&file).unwrap()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), file }
    }

    /// All records of a pod that has ended.
    fn records(&mut self) -> Vec<Value> {
        until("the log has ended", Duration::from_mins(2), || Ok(self.child.try_wait()?)).unwrap();
        let log = std::fs::read_to_string(&self.file).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let schema =
            |line: &Value| line["schema"].as_str().is_some_and(|s| s.starts_with("behalf.dev/record/"));
        lines.filter(schema).collect()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What the sidecar of a pod that goes says when the server has gone already: decided, recorded, and not passed on.
const SERVER_GONE: &str = "ServerUnavailable";

/// The n-th call, and what comes of it.
fn planned(people: &People, n: usize) -> (Request, u16, &'static str) {
    match n % 6 {
        0 => (call("salary.get", &people.alice, None), 200, "Permit"),
        1 => (call("directory.search", &people.alice, None), 200, "Permit"),
        2 => (call("leave.list", &people.bob, None), 200, "Permit"),
        3 => (call("salary.get", &people.bob, None), 403, "Refuse"),
        4 => (mcp::call("leave.list", &json!({})), 401, "Refuse"),
        _ => (
            mcp::call("salary.update", &json!({"employee": "bob", "salary": 1})).bearer(&people.alice.text),
            403,
            "Refuse",
        ),
    }
}

/// What callers saw: the decision behind every answer, by request id; and how often nobody answered.
#[derive(Default)]
struct Seen {
    answers: Mutex<HashMap<String, String>>,
    wrong: Mutex<Vec<String>>,
    unanswered: Mutex<Vec<String>>,
    done: AtomicUsize,
}

impl Seen {
    /// A call that reached nobody is made again: a pod that goes takes no connection any more, and its server goes before
    /// its sidecar.
    fn make(&self, api: &Api, people: &People, n: usize) {
        let (request, status, decision) = planned(people, n);
        for _ in 0..20 {
            match request.send(api.world) {
                Ok(answer) if answer.status == status => {
                    let id = answer.request_id().unwrap().to_owned();
                    self.answers.lock().unwrap().insert(id, decision.to_owned());
                    self.done.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(answer) if answer.reason().as_deref() == Some(SERVER_GONE) => {
                    self.unanswered.lock().unwrap().push(SERVER_GONE.to_owned());
                }
                Ok(answer) => {
                    self.wrong.lock().unwrap().push(format!("call {n} wants {status}: {answer:?}"));
                    self.done.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => self.unanswered.lock().unwrap().push(format!("{error:#}")),
            }
        }
        self.wrong.lock().unwrap().push(format!("call {n} reached nobody"));
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn counts_over_three_replicas_are_exact_while_two_pods_are_drained() {
    let api = Api::open();
    let _three = api.world.replicas(3).unwrap();
    let people = People::of(&api);
    // Whatever was killed before this test: these counts begin here.
    remade(&api);
    let pods = api.world.pods().unwrap();
    assert_eq!(pods.len(), 3);
    let before = |pod: &Pod<'_>| (pod.name.clone(), inbound(&pod.records().unwrap()).len());
    let before: HashMap<String, usize> = pods.iter().map(before).collect();
    let (told_before, complete) = settled("all that was is told", QUIET, || told(&api));
    let mut followed: Vec<Followed> = pods[..2].iter().map(|pod| Followed::new(&api, &pod.name)).collect();

    let (seen, next) = (Seen::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    seen.make(&api, &people, n);
                }
            });
        }
        for (pod, after) in pods[..2].iter().zip([CALLS / 4, CALLS / 2]) {
            let reached = || Ok((seen.done.load(Ordering::Relaxed) >= after).then_some(()));
            until(&format!("{after} calls are made"), Duration::from_mins(5), reached).unwrap();
            api.kubectl(&["-n", "hr", "delete", "pod", &pod.name, "--wait=false"]);
        }
    });
    let wrong = seen.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} calls:\n{}", wrong.len(), wrong.join("\n"));
    let answers = seen.answers.into_inner().unwrap();
    assert_eq!(answers.len(), CALLS);
    let unanswered = seen.unanswered.into_inner().unwrap();

    api.world.rolled_out().unwrap();
    let mut records = Vec::new();
    for (followed, pod) in followed.iter_mut().zip(&pods) {
        records.extend(inbound(&followed.records()).split_off(before[&pod.name]));
    }
    let live = api.world.pods().unwrap();
    for pod in &live {
        records
            .extend(inbound(&pod.records().unwrap()).split_off(before.get(&pod.name).copied().unwrap_or(0)));
    }
    let of_callers: Vec<_> = records.iter().filter(|(id, _)| answers.contains_key(id)).collect();
    assert_eq!(of_callers.len(), CALLS, "each answered call has one record");
    for (id, decision) in &of_callers {
        assert_eq!(answers[id], *decision, "{id}");
    }
    // Those that asked for the records, and calls whose server went before the end of its answer: decided once, like all.
    let others: Vec<_> = records.iter().filter(|(id, _)| !answers.contains_key(id)).collect();
    let of = |codes: &[&str]| {
        unanswered.iter().filter(|said| codes.iter().any(|code| said.contains(code))).count()
    };
    // curl: nobody listens; the answer had begun, or was to begin. Of any other failure it is not known whether it was
    // decided.
    let (untaken, cut) = (of(&["curl: (7)"]), of(&["curl: (18)", SERVER_GONE]));
    let unknown = unanswered.len() - untaken - cut;
    let decided = others.len() - live.len();
    assert!((cut..=cut + unknown).contains(&decided), "{decided}: {others:?}; unanswered: {unanswered:?}");

    let wanted = sums(records.iter().map(|(_, decision)| decision));
    let now = eventually("the status has counted what the records say", 90, || {
        let (now, complete) = told(&api);
        let counted = minus(&now, &told_before);
        if counted == wanted {
            Ok((now, complete))
        } else {
            Err(format!("{counted:?}, complete: {complete}; records: {wanted:?}"))
        }
    });
    assert_eq!(now.1, complete, "two drained pods told all they had counted");
    let again = settled("nothing is counted twice", QUIET, || told(&api));
    assert_eq!(again, now);
    eprintln!(
        "{CALLS} calls over 3 pods, 2 drained: callers {:?}, records and status {wanted:?}, complete: {}; made again: {untaken} that nobody took, {cut} without their server or cut in its answer, {unknown} other",
        sums(answers.values()),
        now.1
    );
    assert!(
        complete,
        "the counts were not complete before this test: was a sidecar killed since the deployment?"
    );

    killed(&api);
}

/// A sidecar that is killed takes with it what it had not told yet, and the status does not pretend otherwise.
fn killed(api: &Api) {
    let (name, _) = addresses(api).pop().unwrap();
    let lived = lives(api);
    in_container(api, "hr", &name, "behalf-sidecar").kill().unwrap();
    eventually("the counts say that they are not complete", 120, || {
        let (sums, complete) = told(api);
        if complete { Err(format!("{sums:?}")) } else { Ok(()) }
    });
    eventually("the sidecar is started again", 60, || {
        if lives(api) == lived { Err(String::new()) } else { Ok(()) }
    });
    api.world.rolled_out().unwrap();
    programmed(api);
}
