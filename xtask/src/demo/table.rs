//! What a person looks at in the end.
use serde_json::Value;

use super::{Call, Session};

/// Who called what, what became of it and why, and what payroll saw.
#[must_use]
pub fn calls(sessions: &[Session]) -> String {
    let head = ["WHO", "TOOL", "DECISION", "REASON", "PAYROLL SAW: SUB", "AZP", "AUD", "SCOPE", "EXP"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for session in sessions {
        let list = if session.tools.is_empty() { "nothing".to_owned() } else { session.tools.join(", ") };
        rows.push(row(&session.user, "tools/list", "Permit", &format!("shows {list}"), None));
        rows.extend(session.calls.iter().map(|call| call_row(&session.user, call)));
    }
    aligned(&rows)
}

fn call_row(user: &str, call: &Call) -> Vec<String> {
    let decision = match call.outcome.as_str() {
        "allowed" => "Permit",
        "denied" => "Refuse",
        other => other,
    };
    let reason = match (&call.reason, call.stepped_up) {
        (Some(reason), true) => format!("after step-up ({reason})"),
        (Some(reason), false) => reason.clone(),
        (None, _) => "-".to_owned(),
    };
    row(user, &call.tool, decision, &reason, call.saw.as_ref())
}

fn row(user: &str, tool: &str, decision: &str, reason: &str, saw: Option<&Value>) -> Vec<String> {
    let mut cells = [user, tool, decision, reason].map(str::to_owned).to_vec();
    let seen = |member: &str| match saw.map(|saw| &saw[member]) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let subject = match saw {
        Some(saw) if saw["preferred_username"].is_string() => {
            format!("{} ({})", short(&seen("sub")), seen("preferred_username"))
        }
        _ => seen("sub"),
    };
    cells.push(subject);
    cells.extend(["azp", "aud", "scope", "exp"].map(seen));
    cells
}

fn short(id: &str) -> String {
    id.split('-').next().unwrap_or(id).to_owned()
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// The three records that tell the story: a call let in, what it caused downstream, a call refused.
pub(super) fn three_records(records: &[Value]) -> String {
    let last = |direction: &str, decision: &str, tool: &str| {
        records.iter().rev().find(|record| {
            record["direction"] == direction && record["decision"] == decision && record["tool"] == tool
        })
    };
    let three = [
        last("Inbound", "Permit", "salary.get"),
        last("Outbound", "Permit", "salary.get"),
        last("Inbound", "Refuse", "salary.get"),
    ];
    three.into_iter().flatten().map(Value::to_string).collect::<Vec<_>>().join("\n")
}
