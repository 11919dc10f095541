//! The decision: a pure, total function of bundle, request and time.

use crate::bundle::{Bundle, Policy, ScopeRule, Stage, State, Tool};
use crate::claims::Caller;
use crate::decision::{Decision, Permit, Reason, Refusal};
use crate::envelope::{ListKind, Target};
use crate::ids::{EntryName, ScopeSet, Timestamp};

/// What a verified caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `tools/call` of a tool by its exact name.
    CallTool(&'a str),
    /// Protocol business that touches nobody's data: the answer of a list is filtered.
    Protocol,
    /// Anything else; refused.
    Other,
}

impl<'a> From<&'a Target> for Operation<'a> {
    fn from(target: &'a Target) -> Self {
        match target {
            Target::ToolCall { name } => Self::CallTool(name),
            Target::Initialize
            | Target::Discover
            | Target::Ping
            | Target::List(ListKind::Tools)
            | Target::SetLevel
            | Target::ClientNotification(_)
            | Target::Response => Self::Protocol,
            _ => Self::Other,
        }
    }
}

/// Decides one request. Total: there is an answer for every input, and what no rule allows is refused.
#[must_use]
pub fn decide(bundle: &Bundle, caller: &Caller, operation: Operation<'_>, now: Timestamp) -> Decision {
    let policy = match bundle.policy() {
        Ok(policy) => policy,
        Err(reason) => return Decision::Refuse(plain(Reason::RefuseAll(reason))),
    };
    if policy.state == State::Suspended {
        return Decision::Refuse(plain(Reason::Suspended));
    }
    let tool = match operation {
        Operation::CallTool(name) => Some(name),
        Operation::Protocol | Operation::Other => None,
    };
    if bundle.deny.refuses(&caller.subject, tool) {
        return Decision::Refuse(plain(Reason::DeniedByNamespace));
    }
    if now >= caller.expires {
        return Decision::Refuse(plain(Reason::SubjectExpired));
    }
    match judge(policy, caller, operation) {
        Ok(permit) => Decision::Permit(permit),
        Err(refusal) if policy.stage == Stage::Audit => Decision::WouldDeny(refusal),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// What is refused whoever asks, for a request whose caller is not known: stage `Audit` of authentication lets such a
/// request go on, but never past a suspension or the namespace's own deny list.
///
/// # Errors
/// Why it is refused.
pub fn decide_unknown_caller(bundle: &Bundle, operation: Operation<'_>) -> Result<(), Refusal> {
    let policy = bundle.policy().map_err(|reason| plain(Reason::RefuseAll(reason)))?;
    if policy.state == State::Suspended {
        return Err(plain(Reason::Suspended));
    }
    let tool = match operation {
        Operation::CallTool(name) => Some(name),
        Operation::Protocol | Operation::Other => None,
    };
    if bundle.deny.refuses_anyone(tool) {
        return Err(plain(Reason::DeniedByNamespace));
    }
    Ok(())
}

/// Whether `tools/list` shows a tool to this caller: exactly when a call of it would be permitted, or
/// would be after a step-up that the caller can make. In stage `Audit` every tool is shown.
#[must_use]
pub fn shows_tool(policy: &Policy, caller: &Caller, tool: &str) -> bool {
    if policy.stage == Stage::Audit {
        return true;
    }
    match judge(policy, caller, Operation::CallTool(tool)) {
        Ok(_) => true,
        Err(refusal) => refusal.reason == Reason::InsufficientScope && refusal.explain,
    }
}

/// The scopes that count for a caller: presented (or implied by one that counts) **and** held by one of
/// the caller's groups.
#[must_use]
pub fn counted_scopes(policy: &Policy, caller: &Caller) -> ScopeSet {
    let mut counted = ScopeSet::new();
    let mut open: Vec<_> = caller.scopes.iter().collect();
    while let Some(scope) = open.pop() {
        let Some(rule) = policy.scopes.get(scope) else { continue };
        if holds(rule, caller) && counted.insert(scope.clone()) {
            open.extend(&rule.implies);
        }
    }
    counted
}

/// Again at each use of a handle: may this still-open call reach that downstream by the current bundle?
#[must_use]
pub fn decide_downstream(
    bundle: &Bundle,
    caller: &Caller,
    operation: Operation<'_>,
    downstream: &EntryName,
    now: Timestamp,
) -> Decision {
    if bundle.deny.refuses_downstream(downstream) {
        return Decision::Refuse(plain(Reason::DeniedByNamespace));
    }
    match decide(bundle, caller, operation, now) {
        Decision::Permit(permit) if permit.order(downstream).is_none() => {
            let refusal = plain(Reason::DownstreamNotPermitted);
            match bundle.policy() {
                Ok(policy) if policy.stage == Stage::Audit => Decision::WouldDeny(refusal),
                _ => Decision::Refuse(refusal),
            }
        }
        decision => decision,
    }
}

fn judge(policy: &Policy, caller: &Caller, operation: Operation<'_>) -> Result<Permit, Refusal> {
    admit_caller(policy, caller)?;
    let tool = match operation {
        Operation::Protocol => return Ok(Permit::new(caller)),
        Operation::Other => return Err(plain(Reason::MethodNotAllowed)),
        Operation::CallTool(name) => {
            policy.server.tools.get(name).ok_or_else(|| hidden(Reason::ToolUnknown, ScopeSet::new()))?
        }
    };
    check_scopes(policy, caller, tool)?;
    let mut permit = Permit::new(caller);
    for (name, scopes) in &tool.downstreams {
        // Load has resolved these; a missing one is no downstream, never another.
        let Some(downstream) = policy.downstreams.get(name) else { continue };
        let Some(provider) = policy.providers.get(&downstream.provider) else { continue };
        // A token is exchanged where it was issued; another provider would be another grant.
        if downstream.provider != caller.provider {
            continue;
        }
        permit.grant(name, downstream, scopes, provider.max_token_lifetime);
    }
    Ok(permit)
}

fn admit_caller(policy: &Policy, caller: &Caller) -> Result<(), Refusal> {
    let callers = &policy.callers;
    if !callers.kinds.contains(&caller.kind) {
        return Err(plain(Reason::CallerKindNotAllowed));
    }
    if let Some(clients) = &callers.clients
        && !caller.client.as_ref().is_some_and(|client| clients.contains(client))
    {
        return Err(plain(Reason::ClientNotAllowed));
    }
    if caller.actor_depth > callers.max_actor_depth {
        return Err(plain(Reason::ActorChainTooDeep));
    }
    Ok(())
}

fn check_scopes(policy: &Policy, caller: &Caller, tool: &Tool) -> Result<(), Refusal> {
    let needed: ScopeSet = policy.required.union(&tool.scopes).cloned().collect();
    let counted = counted_scopes(policy, caller);
    let missing: ScopeSet =
        needed.iter().filter(|s| !counted.contains(*s) || !policy.offered.contains(*s)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let refusal = |reason, challenge| Refusal {
        reason,
        challenge,
        missing: missing.clone(),
        explain: tool.denial.explains(),
    };
    if missing.iter().any(|s| !policy.offered.contains(s)) {
        return Err(refusal(Reason::ScopeNotOffered, ScopeSet::new()));
    }
    let entitled = |s| policy.scopes.get(s).is_some_and(|rule| holds(rule, caller));
    if !missing.iter().all(entitled) {
        return Err(refusal(Reason::NotEntitled, ScopeSet::new()));
    }
    let challenge = if tool.denial.explains() { needed } else { ScopeSet::new() };
    Err(refusal(Reason::InsufficientScope, challenge))
}

fn holds(rule: &ScopeRule, caller: &Caller) -> bool {
    rule.groups.intersection(&caller.groups).next().is_some()
}

fn plain(reason: Reason) -> Refusal {
    Refusal { reason, challenge: ScopeSet::new(), missing: ScopeSet::new(), explain: true }
}

fn hidden(reason: Reason, missing: ScopeSet) -> Refusal {
    Refusal { reason, challenge: ScopeSet::new(), missing, explain: false }
}
