//! Conditions and Events: from a reason and a sentence to what Kubernetes shows.

use behalf_crds::v1alpha1::{ConditionReason, ConditionStatus, ConditionType, condition, set_condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest note of an Event (`events.k8s.io`).
const MAX_NOTE: usize = 1024;

/// What a condition is to say: a closed reason, and a sentence with cause and next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionIntent<R> {
    /// The reason; it decides the status.
    pub reason: R,
    /// Cause and next step, for a person.
    pub message: String,
}

impl<R: ConditionReason> ConditionIntent<R> {
    /// A reason with its sentence.
    pub fn new(reason: R, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether the condition holds.
    pub fn is_true(&self) -> bool {
        self.reason.status() == ConditionStatus::True
    }

    /// Whether the condition is known not to hold.
    pub fn is_false(&self) -> bool {
        self.reason.status() == ConditionStatus::False
    }

    /// Puts the condition among `conditions`; `lastTransitionTime` moves only when the status does.
    pub fn set(&self, conditions: &mut Vec<Condition>, generation: Option<i64>, now: &Time) {
        set_condition(conditions, condition(self.reason, &self.message, generation, now.clone()));
    }
}

/// An Event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventIntent {
    /// Normal or Warning.
    pub kind: EventKind,
    /// The reason of the condition that changed.
    pub reason: String,
    /// The condition that changed, as the action.
    pub action: String,
    /// Cause and next step, at most 1024 characters.
    pub note: String,
}

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody has to do something.
    Warning,
}

/// Reasons of `Ready` that only repeat what another condition says.
const ECHOES: [&str; 3] = ["NotAccepted", "RefsNotResolved", "BypassOpen"];
/// Reasons that every change passes through for about a second.
const PASSING: [&str; 1] = ["PodsBehind"];
/// Conditions that are measured: that the first measurement finds everything right is no news.
const MEASURED: [ConditionType; 2] = [ConditionType::Programmed, ConditionType::BypassClosed];

/// Events for what changed: one for each condition whose status or reason is another than before.
///
/// What is not known yet is no event, nor is what passes by itself, and `Ready` does not repeat what another condition of
/// the same moment says.
#[must_use]
pub fn events(previous: &[Condition], next: &[Condition]) -> Vec<EventIntent> {
    next.iter()
        .filter(|new| {
            let (unknown, reason) = (new.status == ConditionStatus::Unknown.as_str(), new.reason.as_str());
            !unknown && !ECHOES.contains(&reason) && !PASSING.contains(&reason)
        })
        .filter(|new| {
            let old = previous.iter().find(|old| old.type_ == new.type_);
            let changed = old.is_none_or(|old| (&old.status, &old.reason) != (&new.status, &new.reason));
            changed && !expected(old, new)
        })
        .map(|new| EventIntent {
            kind: if new.status == ConditionStatus::True.as_str() {
                EventKind::Normal
            } else {
                EventKind::Warning
            },
            reason: new.reason.clone(),
            action: new.type_.clone(),
            note: new.message.chars().take(MAX_NOTE).collect(),
        })
        .collect()
}

/// Right at the first measurement, or again after one that could not be made.
fn expected(old: Option<&Condition>, new: &Condition) -> bool {
    let measured = MEASURED.iter().any(|type_| type_.as_str() == new.type_);
    measured
        && new.status == ConditionStatus::True.as_str()
        && old.is_none_or(|old| old.status == ConditionStatus::Unknown.as_str())
}
