//! Answers of servers whose lists are filtered, and JSON of identity providers.

use behalf_policy::envelope::{Era, Limits, ListKind};
use behalf_policy::listing::filter_list;
use behalf_policy::strict_json;
use serde_json::Value;

/// Nothing that may not be seen is left, and what passes is what came.
pub(crate) fn list(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let era = if first.is_multiple_of(2) { Era::Modern } else { Era::Legacy };
    let keep = |_: ListKind, name: &str| name.starts_with("open");
    let Ok(filtered) = filter_list(body, ListKind::Tools, &keep, era, &Limits::default()) else { return };
    let Ok(after) = serde_json::from_slice::<Value>(&filtered) else {
        // A number that is beyond a double is no fault of ours, and was there before.
        assert!(serde_json::from_slice::<Value>(body).is_err(), "what was JSON is none any more");
        return;
    };
    let tools = |value: &Value| value["result"]["tools"].as_array().cloned().unwrap_or_default();
    for tool in tools(&after) {
        assert!(tool["name"].as_str().is_some_and(|name| name.starts_with("open")), "a hidden entry is left");
    }
    // A number beyond a double in an entry that was taken out.
    let Ok(before) = serde_json::from_slice::<Value>(body) else { return };
    let kept: Vec<Value> = tools(&before).into_iter().filter(|tool| tools(&after).contains(tool)).collect();
    assert!(tools(&after).len() <= kept.len(), "entries that were not there");
    assert_eq!(before["id"], after["id"]);
    assert_eq!(before["result"]["nextCursor"], after["result"]["nextCursor"]);
    if era == Era::Modern && after["result"].is_object() && after.get("error").is_none() {
        assert_eq!(after["result"]["cacheScope"], "private");
    }
    let again = filter_list(&filtered, ListKind::Tools, &keep, era, &Limits::default());
    assert_eq!(again.as_deref().ok(), Some(filtered.as_slice()), "a second look filters more");
}

/// What is taken has one reading.
pub(crate) fn strict(data: &[u8]) {
    let plain = serde_json::from_slice::<Value>(data);
    match strict_json::object(data) {
        Ok(map) => assert_eq!(plain.ok(), Some(Value::Object(map))),
        Err(_) => {
            if let Ok(Value::Object(map)) = plain {
                // Refused although it is an object: then two members are equal, and writing it anew loses one.
                let members = |text: &[u8]| text.split(|byte| *byte == b':').count();
                let written = serde_json::to_vec(&map).unwrap_or_default();
                assert!(members(&written) < members(data), "an object with one reading is refused");
            }
        }
    }
}
