//! Records as OTLP logs (OTLP/HTTP with JSON): a copy for those who collect logs that way, beside the sinks that count.
//!
//! Nothing waits for it. What cannot be delivered is given up and counted, and the sequence of the lines tells the
//! collector what it does not have. The body of each log record is the line as it was written, so that it can be verified;
//! its place in the chain stands beside it, so that it can be joined with the other sinks unread.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::record::Kind;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::chain::Line;
use super::options::Options;
use crate::metrics::Metrics;
use crate::provider::http::{BoxError, HttpClient, HttpError, MAX_ANSWER, http_error, usable_url};

/// Log records of one request.
const BATCH: usize = 256;
/// One request and its answer take no longer.
const WITHIN: Duration = Duration::from_secs(10);
/// A batch is tried so often.
const ATTEMPTS: u32 = 6;
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, also of those a collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A line on its way to a collector.
#[derive(Debug)]
pub struct Exported {
    pub(super) line: Line,
    /// When it was written, milliseconds.
    pub(super) millis: i64,
}

/// The running export.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    ending: oneshot::Sender<()>,
}

/// What a collector answered, as far as it matters.
enum Answer {
    Taken,
    Rejected(u64),
    Again(Option<Duration>),
    Refused,
}

struct Loop {
    http: HttpClient,
    url: String,
    ca: Option<String>,
    resource: Value,
    lines: mpsc::Receiver<Exported>,
    metrics: Arc<Metrics>,
}

impl Exporter {
    /// Sends what comes to `url` until it ends. `ca`: PEM of its authorities. `who`: namespace, identity and boot.
    ///
    /// # Errors
    /// The URL is no https URL.
    pub fn start(
        lines: mpsc::Receiver<Exported>,
        url: &str,
        ca: Option<String>,
        who: [&str; 3],
        http: HttpClient,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExportError> {
        usable_url(url).ok_or(ExportError::Url)?;
        let names = ["k8s.namespace.name", "behalf.identity", "service.instance.id"];
        let mut attributes: Vec<Value> = names
            .iter()
            .zip(who)
            .map(|(name, value)| attribute(name, &json!({"stringValue": value})))
            .collect();
        attributes.push(attribute("service.name", &json!({"stringValue": "behalf-sidecar"})));
        let resource = json!({"attributes": attributes});
        let (ending, asked_to_end) = oneshot::channel();
        let export = Loop { http, url: url.to_owned(), ca, resource, lines, metrics };
        Ok(Self { task: tokio::spawn(export.run(asked_to_end)), ending })
    }

    /// Sends what is left and ends.
    pub async fn end(self, within: Duration) {
        let Self { mut task, ending } = self;
        // An error says that it ended by itself.
        let _ = ending.send(());
        if timeout(within, &mut task).await.is_err() {
            tracing::warn!("not all records were delivered as OTLP logs before the end");
            task.abort();
        }
    }
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not an https URL without user info and fragment.
    #[error("--record-otlp-url is not usable")]
    Url,
    /// The file of authorities cannot be read.
    #[error("--record-otlp-ca-file cannot be read")]
    CaFile(#[from] std::io::Error),
    /// The authorities are no base64 of a text.
    #[error("--record-otlp-ca is no PEM text as base64")]
    Ca,
}

/// The authorities that the arguments name, PEM; none: the public ones.
///
/// # Errors
/// They cannot be read.
pub fn authorities(options: &Options) -> Result<Option<String>, ExportError> {
    if let Some(text) = &options.otlp_ca {
        let pem = STANDARD.decode(text).ok().and_then(|pem| String::from_utf8(pem).ok());
        return pem.map(Some).ok_or(ExportError::Ca);
    }
    Ok(options.otlp_ca_file.as_deref().map(std::fs::read_to_string).transpose()?)
}

impl Loop {
    async fn run(mut self, mut ending: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let count = tokio::select! {
                biased;
                count = self.lines.recv_many(&mut batch, BATCH) => count,
                _ = &mut ending => return,
            };
            if count == 0 {
                return;
            }
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    async fn deliver(&self, batch: &[Exported]) {
        let lines = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let Ok(body) = serde_json::to_vec(&request(&self.resource, batch)) else { return };
        let body = Bytes::from(body);
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let asked = match self.post(body.clone()).await {
                Ok(Answer::Taken) => return,
                Ok(Answer::Rejected(rejected)) => {
                    return self.metrics.records.not_exported(rejected.min(lines));
                }
                Ok(Answer::Refused) => break,
                Ok(Answer::Again(asked)) => asked,
                Err(error) => {
                    tracing::debug!(reason = error.reason(), "records could not be sent as OTLP logs");
                    None
                }
            };
            if attempt < ATTEMPTS {
                tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                pause = pause.saturating_mul(2);
            }
        }
        tracing::warn!(lines, "records were not delivered as OTLP logs");
        self.metrics.records.not_exported(lines);
    }

    async fn post(&self, body: Bytes) -> Result<Answer, HttpError> {
        let request = Request::post(usable_url(&self.url).ok_or(HttpError::Url)?)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body).map_err(BoxError::from).boxed_unsync())
            .map_err(|_| HttpError::Url)?;
        let pool = self.http.pool("records", self.ca.as_deref())?;
        let answered = async {
            let response = pool.request(request).await.map_err(|error| http_error(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| HttpError::Transport)?;
            Ok(match head.status {
                status if status.is_success() => match rejected(&body.to_bytes()) {
                    0 => Answer::Taken,
                    lines => Answer::Rejected(lines),
                },
                // OTLP specification, "Retryable Response Codes".
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {
                    let asked = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
                    Answer::Again(asked.and_then(|v| v.trim().parse().ok()).map(Duration::from_secs))
                }
                _ => Answer::Refused,
            })
        };
        timeout(WITHIN, answered).await.map_err(|_| HttpError::Timeout)?
    }
}

/// How many of the lines a collector did not take (`ExportLogsPartialSuccess`); JSON of protobuf writes it as text.
fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let lines = &answer["partialSuccess"]["rejectedLogRecords"];
    lines.as_u64().or_else(|| lines.as_str()?.parse().ok()).unwrap_or_default()
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({"key": key, "value": value})
}

/// An `ExportLogsServiceRequest`.
fn request(resource: &Value, batch: &[Exported]) -> Value {
    let records: Vec<Value> = batch.iter().map(log_record).collect();
    let scope = json!({"name": behalf_policy::record::SCHEMA, "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": records}]}]})
}

fn log_record(exported: &Exported) -> Value {
    let Exported { line, millis } = exported;
    let nanos = i128::from(*millis).saturating_mul(1_000_000).to_string();
    let warns = line.decision == Some("Refuse") || line.kind == Some(Kind::Unrecorded);
    let mut attributes =
        vec![attribute("behalf.record.sequence", &json!({"intValue": line.sequence.to_string()}))];
    let texts = [
        ("behalf.record.previous", Some(line.previous.as_str())),
        ("behalf.record.hash", Some(line.hash.as_str())),
        ("behalf.record.kind", line.kind.map(Kind::as_str)),
        ("behalf.record.decision", line.decision),
    ];
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?)));
    attributes.extend(texts.map(|(key, text)| attribute(key, &json!({"stringValue": text}))));
    let mut record = json!({
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": if warns { 13 } else { 9 },
        "severityText": if warns { "WARN" } else { "INFO" },
        "body": {"stringValue": String::from_utf8_lossy(&line.text)},
        "attributes": attributes,
    });
    if let Some(trace_id) = &line.trace_id {
        record["traceId"] = json!(trace_id);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_chain_says_what_it_is_and_decides_nothing() {
        for (kind, severity) in [(Kind::Start, "INFO"), (Kind::Unrecorded, "WARN"), (Kind::End, "INFO")] {
            let line = Line {
                text: b"{}".to_vec(),
                kind: Some(kind),
                sequence: u64::MAX,
                previous: "sha256:a".to_owned(),
                hash: "sha256:b".to_owned(),
                decision: None,
                trace_id: None,
            };
            let record = log_record(&Exported { line, millis: 7 });
            assert_eq!(
                (&record["severityText"], &record["timeUnixNano"]),
                (&json!(severity), &json!("7000000"))
            );
            assert_eq!(
                record["attributes"],
                json!([
                    {"key": "behalf.record.sequence", "value": {"intValue": u64::MAX.to_string()}},
                    {"key": "behalf.record.previous", "value": {"stringValue": "sha256:a"}},
                    {"key": "behalf.record.hash", "value": {"stringValue": "sha256:b"}},
                    {"key": "behalf.record.kind", "value": {"stringValue": kind.as_str()}},
                ])
            );
            assert_eq!(record.get("traceId"), None);
        }
    }
}
