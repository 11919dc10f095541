//! What a pod of an MCP server tells: its sidecar's decision records, its server's log.
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::curl::{Answer, Request};
use crate::world::{LOGGED, World, until};
use crate::{METADATA, mcp};

/// A pod of an MCP server.
pub struct Pod<'a> {
    world: &'a World,
    namespace: &'a str,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
}

impl<'a> Pod<'a> {
    /// The pod of that name and address.
    #[must_use]
    pub fn new(world: &'a World, namespace: &'a str, name: String, address: String) -> Self {
        Self { world, namespace, name, address }
    }

    /// All decision records so far: those of every request that was answered before this call, and maybe later ones.
    ///
    /// # Errors
    /// They do not get to the log.
    pub fn records(&self) -> Result<Vec<Value>> {
        // Records stand in the log in the order in which they were made, so one more request tells when all are there. Where
        // the sidecar terminates TLS it is refused, with a record.
        let last = Request::get(METADATA).to(&self.address).send(self.world)?;
        let last = last.request_id()?.to_owned();
        let records = until("the last record is in the log", LOGGED, || {
            let records = self.records_now()?;
            Ok(records.iter().any(|record| record["requestId"] == last.as_str()).then_some(records))
        })?;
        let boots: BTreeSet<&str> = records.iter().filter_map(|record| record["boot"].as_str()).collect();
        ensure!(boots.len() == 1, "the sidecar was started again");
        let gap = (1..).zip(&records).find(|(expected, record)| record["sequence"] != json!(expected));
        ensure!(gap.is_none(), "the records have a gap at {gap:?}");
        Ok(records)
    }

    fn records_now(&self) -> Result<Vec<Value>> {
        let log = self.world.kubectl(&[
            "-n",
            self.namespace,
            "logs",
            &self.name,
            "-c",
            "behalf-sidecar",
            "--tail=-1",
        ])?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines
            .filter(|line| line["schema"].as_str().is_some_and(|s| s.starts_with("behalf.dev/record/")))
            .collect())
    }

    /// The records that belong to one answered request: the one of the way in, then those of the way out.
    ///
    /// # Errors
    /// As [`Pod::records`].
    pub fn records_of(&self, answer: &Answer) -> Result<Vec<Value>> {
        let id = answer.request_id()?;
        let mut records: Vec<Value> =
            self.records()?.into_iter().filter(|record| record["requestId"] == id).collect();
        records.sort_by_key(|record| record["direction"] != "Inbound");
        Ok(records)
    }

    /// The one record of a request that led to nothing downstream.
    ///
    /// # Errors
    /// There is none, or there are more.
    pub fn record_of(&self, answer: &Answer) -> Result<Value> {
        let mut records = self.records_of(answer)?;
        ensure!(records.len() == 1, "one record was expected: {records:?}");
        records.pop().context("a record")
    }

    /// A metric of the sidecar as it stands now: the sum of all its series, or the one with these labels.
    ///
    /// # Errors
    /// The sidecar does not answer.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let answer = Request::get(&format!("http://{}:15104/metrics", self.address)).send(self.world)?;
        let series =
            answer.body.lines().filter_map(|line| line.strip_prefix("behalf_sidecar_")?.strip_prefix(name));
        let values =
            series.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().with_context(|| format!("{name} is {value}"))).sum()
    }

    /// The requests that got to the MCP server, with all their headers: every one that came before this call.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let token = crate::keycloak::login(self.world, "agent-test", "alice", "hr:read")?;
        // In either mode of sessions the server gets it, whatever it says to it.
        let last = mcp::request("tools/list", &json!({}));
        let mark = crate::keycloak::sha256(&token.text);
        let answer =
            last.bearer(&token.text).header("X-E2e-Mark", &mark).to(&self.address).send(self.world)?;
        until(&format!("the server's log shows a request answered with {}", answer.status), LOGGED, || {
            let requests = self.requests_now()?;
            Ok(requests.iter().any(|r| header(r, "x-e2e-mark") == Some(&mark)).then_some(requests))
        })
    }

    fn requests_now(&self) -> Result<Vec<Value>> {
        let lines = self.server_log()?;
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.filter(|line| line["headers"].is_array()).collect())
    }

    /// Everything the MCP server printed, as it stands in the log now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn server_log(&self) -> Result<String> {
        self.world.kubectl(&["-n", self.namespace, "logs", &self.name, "-c", "server", "--tail=-1"])
    }

    /// Runs Python inside the MCP server's container, as the server itself could.
    ///
    /// # Errors
    /// It fails.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let mut words =
            vec!["-n", self.namespace, "exec", &self.name, "-c", "server", "--", "python3", "-c", script];
        words.extend(arguments);
        self.world.kubectl(&words)
    }
}

/// A header of a request that the MCP server printed.
#[must_use]
pub fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_array()?;
    headers.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}
