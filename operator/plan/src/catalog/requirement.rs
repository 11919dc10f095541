//! What a call needs beyond the scopes of its tool, checked.

use std::collections::BTreeMap;

use behalf_crds::v1alpha1 as crds;
use behalf_policy::bundle::document::{Assurance, ConditionDocument};
use behalf_policy::condition::Expression;
use behalf_policy::ids::{EntryName, Group, Scope};

use super::{Problem, ScopeRow, collect, entry_name, invalid, scope_set, unreadable};

/// The conditions of one tool, by name.
pub(super) fn conditions(rows: &[crds::ToolCondition], at: &str) -> Result<Vec<ConditionDocument>, Problem> {
    let found: BTreeMap<EntryName, ConditionDocument> = collect(rows, at, |row, at| {
        let name = entry_name(&row.name, at)?;
        if let Err(cause) = Expression::compile(&row.when) {
            return Err(invalid(format!("Condition {name} of {at}: {cause}. Correct its when.")));
        }
        let groups =
            row.groups.iter().map(|group| Group::new(group.clone()).map_err(|_| unreadable(at, group)));
        let document = ConditionDocument {
            name: name.clone(),
            when: row.when.clone(),
            scopes: scope_set(&row.scopes, at)?,
            groups: groups.collect::<Result<_, _>>()?,
        };
        Ok((name, document))
    })?;
    Ok(found.into_values().collect())
}

/// Every scope that a condition asks for is in the catalogue.
pub(super) fn check(
    who: &str,
    rows: &[ConditionDocument],
    scopes: &BTreeMap<Scope, ScopeRow>,
) -> Result<(), Problem> {
    for row in rows {
        if let Some(unknown) = row.scopes.iter().find(|scope| !scopes.contains_key(*scope)) {
            return Err(super::unknown_scope(
                &format!("Condition {} of {who} needs {unknown}", row.name),
                unknown,
            ));
        }
    }
    Ok(())
}

/// How a caller must have logged in.
pub(super) fn assurance(row: &crds::Assurance) -> Assurance {
    let seconds = |age: crds::Duration| u32::try_from(age.as_std().as_secs()).unwrap_or(u32::MAX);
    Assurance {
        max_age: row.max_auth_age.map(seconds),
        acr_values: row.acr_values.clone().unwrap_or_default(),
    }
}
