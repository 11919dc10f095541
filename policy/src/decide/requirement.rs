//! What a call needs beyond the scopes of its row: by its arguments, and by how its caller logged in.

use super::{Judged, Operation, plain};
use crate::bundle::document::Assurance;
use crate::bundle::{Policy, Tool};
use crate::claims::Caller;
use crate::condition::Arguments;
use crate::decision::{Reason, Refusal};
use crate::ids::{ScopeSet, Timestamp};

/// What the arguments of a call ask for besides.
#[derive(Default)]
pub(super) struct Besides {
    pub(super) scopes: ScopeSet,
    /// There are conditions, and nothing is known of the arguments.
    pub(super) unknown_arguments: bool,
}

/// Every condition that is true asks for more; one that has no value refuses.
pub(super) fn check_arguments(
    caller: &Caller,
    row: &Tool,
    operation: Operation<'_>,
    unknown: Reason,
) -> Result<Besides, Refusal> {
    let mut besides = Besides::default();
    let refused = |reason| Refusal { explain: row.denial.explains(), hidden_as: unknown, ..plain(reason) };
    if row.conditions.is_empty() {
        return Ok(besides);
    }
    // Without its arguments nothing is known of a call.
    let Operation::CallWith(_, arguments) = operation else {
        besides.unknown_arguments = true;
        return Ok(besides);
    };
    let arguments = Arguments::read(arguments).map_err(|_| refused(Reason::ArgumentsNotJudged))?;
    for condition in &row.conditions {
        match condition.when.holds(&arguments, caller) {
            Ok(false) => {}
            Err(_) => return Err(refused(Reason::ArgumentsNotJudged)),
            Ok(true) => {
                besides.scopes.extend(condition.scopes.iter().cloned());
                let in_group = condition.groups.is_empty() || !condition.groups.is_disjoint(&caller.groups);
                let never = condition.scopes.is_empty() && condition.groups.is_empty();
                if never || !in_group {
                    // No scope would help: none is asked for (D32).
                    return Err(refused(Reason::ArgumentsNotAllowed));
                }
            }
        }
    }
    Ok(besides)
}

/// How the caller has to have logged in to use these scopes: all that each of them asks (RFC 9470).
pub(super) fn check_login(
    policy: &Policy,
    caller: &Caller,
    judged: &Judged,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut wanted = Assurance::default();
    let mut lacking = false;
    for assurance in
        judged.permit.needed.iter().filter_map(|scope| policy.scopes.get(scope)?.assurance.as_ref())
    {
        if let Some(max_age) = assurance.max_age {
            wanted.max_age = Some(wanted.max_age.map_or(max_age, |age| age.min(max_age)));
            // A token that does not say when is of a login at no known time. One from the future is not recent.
            let recent =
                caller.login.at.is_some_and(|at| at.0 <= now.0.saturating_add(60) && now < at.plus(max_age));
            lacking |= !recent;
        }
        if !assurance.acr_values.is_empty() {
            lacking |= !caller.login.acr.as_ref().is_some_and(|acr| assurance.acr_values.contains(acr));
            if wanted.acr_values.is_empty() {
                wanted.acr_values.clone_from(&assurance.acr_values);
            } else {
                wanted.acr_values.retain(|acr| assurance.acr_values.contains(acr));
                // No login would do: nothing is asked for (D32).
                if wanted.acr_values.is_empty() {
                    return Err(judged.refused.clone());
                }
            }
        }
    }
    if !lacking {
        return Ok(());
    }
    let log_in = judged.refused.explain.then(|| Box::new(wanted));
    Err(Refusal { log_in, ..judged.refused.clone() })
}
