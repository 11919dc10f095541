//! The API server's own log of who did what.
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

use super::api::Api;

/// The operator's account.
const OPERATOR: &str = "system:serviceaccount:behalf-system:behalf-operator";
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// What says that somebody is there, and who somebody is, changes nothing.
const APART: [&str; 2] = ["leases", "tokenreviews"];

/// The log from a moment on.
pub struct Audit {
    file: PathBuf,
    start: u64,
}

impl Audit {
    /// From now on.
    pub fn from_now(api: &Api) -> Self {
        let run = &api.world.cluster.layout().expect("the local cluster keeps an audit log").run;
        let file = run.join("log/audit.log");
        let start = std::fs::metadata(&file).unwrap().len();
        Self { file, start }
    }

    /// What has been asked of the API server since. The log is not turned over so soon.
    fn events(&self) -> Vec<Value> {
        let mut file = File::open(&self.file).unwrap();
        assert!(file.metadata().unwrap().len() >= self.start, "the log was turned over; run the test again");
        file.seek(SeekFrom::Start(self.start)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // The last line may still be under way.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The operator's writes since, leases and token reviews apart.
    pub fn writes(&self) -> Vec<Value> {
        let writes = self.events().into_iter().filter(|event| {
            let verb = event["verb"].as_str().unwrap_or_default();
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
            event["user"]["username"] == OPERATOR && WRITES.contains(&verb) && !APART.contains(&resource)
        });
        writes.collect()
    }

    /// How many requests of the operator are in it, writes or not.
    pub fn requests(&self) -> usize {
        self.events().iter().filter(|event| event["user"]["username"] == OPERATOR).count()
    }

    /// How many requests of a certain pod of the operator are in it.
    pub fn asked_by(&self, pod: &str) -> usize {
        self.events()
            .iter()
            .filter(|event| event["user"]["username"] == OPERATOR && Self::pod(event) == pod)
            .count()
    }

    /// The pod that an operator's request came from; its token names it.
    pub fn pod(event: &Value) -> String {
        let pod = &event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0];
        pod.as_str().unwrap_or_default().to_owned()
    }
}

/// An event in a line.
pub fn short(event: &Value) -> String {
    let at = &event["objectRef"];
    format!(
        "{} {} {}/{}{} by {} at {}: {}",
        event["verb"].as_str().unwrap_or_default(),
        at["resource"].as_str().unwrap_or_default(),
        at["namespace"].as_str().unwrap_or_default(),
        at["name"].as_str().unwrap_or_default(),
        at["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default(),
        Audit::pod(event),
        event["stageTimestamp"].as_str().unwrap_or_default(),
        event["responseStatus"]["code"],
    )
}
