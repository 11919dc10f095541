//! What one boot has decided, counted from the records themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use behalf_policy::bundle::Bundle;
use behalf_policy::feed::{Decisions, MAX_SCOPES, MAX_TALLIES, Tally, Verdict};
use behalf_policy::ids::{Scope, ScopeSet, Timestamp, ToolName};
use behalf_policy::record::{Direction, Record};

const HOUR: i64 = 3600;

/// Counts up from the start of the sidecar; never back.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    allowed: u64,
    denied: u64,
    would_deny: u64,
    tallies: BTreeMap<(Option<ToolName>, Verdict, &'static str), u64>,
    /// Tools of the catalogue, each with the scopes a call of it needs.
    tools: BTreeMap<ToolName, ScopeSet>,
    scopes_used: BTreeMap<Scope, Timestamp>,
}

impl Counts {
    /// Knows these tools from now on.
    pub(super) fn learn(&self, bundle: &Bundle) {
        let tools = bundle.policy().map_or_else(
            |_| BTreeMap::new(),
            |policy| {
                let needs = |scopes: &ScopeSet| policy.required.union(scopes).cloned().collect();
                let tools =
                    policy.server.tools.iter().map(|(name, tool)| (name.clone(), needs(&tool.scopes)));
                let routes = policy.server.routes.iter().filter_map(|row| {
                    Some((ToolName::new(row.name.as_str()).ok()?, needs(&row.needs.scopes)))
                });
                routes.chain(tools).collect()
            },
        );
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tools = tools;
    }

    /// Counts one record that was written.
    pub(super) fn count(&self, record: &Record, now: Timestamp) {
        if record.direction != Direction::Inbound {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = record.tool.as_deref().and_then(|name| state.tools.get_key_value(name));
        let known = known.map(|(name, scopes)| (name.clone(), scopes.clone()));
        let verdict = match record.decision {
            "Permit" => {
                state.allowed = state.allowed.saturating_add(1);
                state.used(known.map(|(_, scopes)| scopes).unwrap_or_default(), now);
                return;
            }
            "WouldDeny" => Verdict::WouldDeny,
            _ => Verdict::Denied,
        };
        // A name counts only when the catalogue has it and somebody stands behind it: else anyone who reaches the port
        // could fill the list, and hide in it what should be seen.
        let tool = known.filter(|_| record.subject.is_some()).map(|(name, _)| name);
        let sum = match verdict {
            Verdict::WouldDeny => &mut state.would_deny,
            Verdict::Denied => &mut state.denied,
        };
        *sum = sum.saturating_add(1);
        let key = (tool, verdict, record.reason.unwrap_or("Unspecified"));
        if state.tallies.len() < MAX_TALLIES || state.tallies.contains_key(&key) {
            let count = state.tallies.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// What was counted so far, as one consistent picture.
    pub(super) fn so_far(&self) -> (Decisions, BTreeMap<Scope, Timestamp>) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = |((tool, verdict, reason), count): (&(Option<ToolName>, Verdict, &'static str), &u64)| {
            Tally { tool: tool.clone(), verdict: *verdict, reason: (*reason).to_owned(), count: *count }
        };
        let decisions = Decisions {
            allowed: state.allowed,
            denied: state.denied,
            would_deny: state.would_deny,
            tallies: state.tallies.iter().map(tally).collect(),
        };
        (decisions, state.scopes_used.clone())
    }
}

impl State {
    fn used(&mut self, scopes: ScopeSet, now: Timestamp) {
        let hour = Timestamp(now.0.div_euclid(HOUR).saturating_mul(HOUR));
        for scope in scopes {
            if self.scopes_used.len() < MAX_SCOPES || self.scopes_used.contains_key(&scope) {
                let last = self.scopes_used.entry(scope).or_insert(hour);
                *last = hour.max(*last);
            }
        }
    }
}
