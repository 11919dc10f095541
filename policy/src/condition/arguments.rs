//! Arguments that can be judged: those that every parser reads alike.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{MAX_ARGUMENTS, MAX_MEMBERS, Unjudged};
use crate::envelope::{PROTOTYPE, folded};

/// Largest magnitude of a number that every parser reads alike (2^53 − 1): integers beyond are rounded by some (D21).
pub(super) const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// The arguments of one call, read once for all conditions of its tool.
pub struct Arguments {
    pub(super) json: Value,
    /// The name of every member at every depth, and what a careless parser takes it for.
    names: Vec<(String, Vec<String>)>,
}

impl Arguments {
    /// Reads the JSON text of `params.arguments`; none stands for an empty object.
    ///
    /// # Errors
    /// They are no object, beyond their bounds, or read differently by different parsers.
    pub fn read(arguments: Option<&str>) -> Result<Self, Unjudged> {
        let text = arguments.unwrap_or("{}");
        if text.len() > MAX_ARGUMENTS {
            return Err(Unjudged::Arguments);
        }
        let json: Value = serde_json::from_str(text).map_err(|_| Unjudged::Arguments)?;
        if !json.is_object() {
            return Err(Unjudged::Arguments);
        }
        let mut names = Vec::new();
        admit(&json, &mut names)?;
        Ok(Self { json, names })
    }

    /// Whether some parser takes a member for one of `names`, which is not spelled like it (CVE-2026-27896 and its kin).
    pub(super) fn can_be_taken_for(&self, names: &BTreeSet<String>, folded: &BTreeSet<String>) -> bool {
        let other = self.names.iter().filter(|(name, _)| !names.contains(name));
        other.flat_map(|(_, taken_for)| taken_for).any(|name| folded.contains(name))
    }
}

/// serde's reader has bounded the depth.
fn admit(json: &Value, names: &mut Vec<(String, Vec<String>)>) -> Result<(), Unjudged> {
    match json {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let safe = number.as_f64().is_some_and(|number| number.abs() <= MAX_SAFE);
            if safe { Ok(()) } else { Err(Unjudged::Arguments) }
        }
        Value::Array(items) if items.len() > MAX_MEMBERS => Err(Unjudged::Arguments),
        Value::Array(items) => items.iter().try_for_each(|item| admit(item, names)),
        Value::Object(members) if members.len() > MAX_MEMBERS => Err(Unjudged::Arguments),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            if name == PROTOTYPE {
                return Err(Unjudged::Ambiguous);
            }
            let cut = name.split_once('\0').map(|(before, _)| folded(before));
            names.push((name.clone(), std::iter::once(folded(name)).chain(cut).collect()));
            admit(member, names)
        }),
    }
}
