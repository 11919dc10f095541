//! Typed reads of claims: absent is `None`, the wrong type is a refusal.

use serde_json::{Map, Value};

use super::TokenRefusal;

/// Later than any date a token can sensibly carry (year 9999).
const MAX_DATE: f64 = 253_402_300_799.0;

pub(super) fn string(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, TokenRefusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenRefusal::BadClaim),
    }
}

/// A string, or a non-empty array of strings only (RFC 7519 §4.1.3).
pub(super) fn string_or_array(
    claims: &Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<String>>, TokenRefusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
        Some(Value::Array(items)) if !items.is_empty() => strings(items).map(Some),
        Some(_) => Err(TokenRefusal::BadClaim),
    }
}

/// What stands at a JSON pointer (RFC 6901). Members of objects only: a step into anything else is a claim of the wrong
/// type, never absent.
pub(super) fn pointer<'a>(
    claims: &'a Map<String, Value>,
    pointer: &str,
) -> Result<Option<&'a Value>, TokenRefusal> {
    let mut segments = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~"));
    let Some(first) = segments.next() else { return Err(TokenRefusal::BadClaim) };
    let mut at = claims.get(&first);
    for segment in segments {
        at = match at {
            None => None,
            Some(Value::Object(object)) => object.get(&segment),
            Some(_) => return Err(TokenRefusal::BadClaim),
        };
    }
    Ok(at)
}

/// A NumericDate (RFC 7519 §2): may be fractional, never negative, never beyond year 9999.
pub(super) fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenRefusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            #[expect(clippy::cast_precision_loss, reason = "only compared with a bound far below 2^53")]
            (Some(whole), _) if whole >= 0 && whole as f64 <= MAX_DATE => Ok(Some(whole)),
            #[expect(clippy::cast_possible_truncation, reason = "bounded just before; rounds down")]
            (None, Some(date)) if (0.0..=MAX_DATE).contains(&date) => Ok(Some(date as i64)),
            _ => Err(TokenRefusal::BadClaim),
        },
        Some(_) => Err(TokenRefusal::BadClaim),
    }
}

/// An array of strings; a lone string is not one.
pub(super) fn strings(items: &[Value]) -> Result<Vec<String>, TokenRefusal> {
    items
        .iter()
        .map(|item| match item {
            Value::String(text) => Ok(text.clone()),
            _ => Err(TokenRefusal::BadClaim),
        })
        .collect()
}
