//! Arguments that can be judged: those that every parser reads alike.

use serde_json::Value;

use super::{MAX_ARGUMENTS, MAX_MEMBERS, Unjudged};

/// Largest magnitude of a number that every parser reads alike (2^53 − 1): integers beyond are rounded by some (D21).
pub(super) const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Reads `params.arguments`. `ambiguous` tells a member's name that a server might take for one that counts.
///
/// # Errors
/// They are no object, beyond their bounds, or can be read in two ways.
pub(super) fn read(arguments: Option<&str>, ambiguous: impl Fn(&str) -> bool) -> Result<Value, Unjudged> {
    let text = arguments.unwrap_or("{}");
    if text.len() > MAX_ARGUMENTS {
        return Err(Unjudged::Arguments);
    }
    let json: Value = serde_json::from_str(text).map_err(|_| Unjudged::Arguments)?;
    if !json.is_object() {
        return Err(Unjudged::Arguments);
    }
    admit(&json, &ambiguous)?;
    Ok(json)
}

/// serde's reader has bounded the depth.
fn admit(json: &Value, ambiguous: &impl Fn(&str) -> bool) -> Result<(), Unjudged> {
    match json {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let safe = number.as_f64().is_some_and(|number| number.abs() <= MAX_SAFE);
            if safe { Ok(()) } else { Err(Unjudged::Arguments) }
        }
        Value::Array(items) if items.len() > MAX_MEMBERS => Err(Unjudged::Arguments),
        Value::Array(items) => items.iter().try_for_each(|item| admit(item, ambiguous)),
        Value::Object(members) if members.len() > MAX_MEMBERS => Err(Unjudged::Arguments),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            if ambiguous(name) { Err(Unjudged::Ambiguous) } else { admit(member, ambiguous) }
        }),
    }
}
