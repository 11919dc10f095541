//! The decision: a pure, total function of bundle, request and time.

mod requirement;

use crate::bundle::document::ScopeChallenge;
use crate::bundle::{Bundle, HttpMethod, Policy, Protocol, ScopeRule, Stage, State, Tool};
use crate::claims::Caller;
use crate::decision::{Decision, Permit, Reason, Refusal};
use crate::envelope::{CompletionRef, ListKind, Message, Target};
use crate::ids::{EntryName, ScopeSet, Timestamp};
use requirement::{check_arguments, check_login};

/// What a verified caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A tool by its exact name, whatever the arguments: seeing it in a list. A call of one with conditions is refused.
    CallTool(&'a str),
    /// `tools/call` of a tool by its exact name, with the JSON text of its arguments, if it has any.
    CallWith(&'a str, Option<&'a str>),
    /// `prompts/get` of a prompt by its exact name, or completing its arguments.
    GetPrompt(&'a str),
    /// `resources/read` of a URI.
    ReadResource(&'a str),
    /// A URI template as the server lists it: seeing it, or completing its variables.
    UseTemplate(&'a str),
    /// Being told of changes of every one of these resources; none means changes of lists only.
    Subscribe(&'a [String]),
    /// A request of a plain HTTP API: its method, and its path below that of the server's URL.
    Http(HttpMethod, &'a str),
    /// Protocol business that touches nobody's data: the answer of a list is filtered.
    Protocol,
    /// Anything else; refused.
    Other,
}

impl<'a> From<&'a Target> for Operation<'a> {
    fn from(target: &'a Target) -> Self {
        match target {
            Target::ToolCall { name } => Self::CallTool(name),
            Target::GetPrompt { name } | Target::Complete { reference: CompletionRef::Prompt(name) } => {
                Self::GetPrompt(name)
            }
            // No URI holds a brace (RFC 3986 §2).
            Target::Complete { reference: CompletionRef::Resource(uri) } if uri.contains('{') => {
                Self::UseTemplate(uri)
            }
            Target::ReadResource { uri } | Target::Complete { reference: CompletionRef::Resource(uri) } => {
                Self::ReadResource(uri)
            }
            // Whose the tasks are is not for policy to know.
            Target::Subscribe { uris, tasks } if tasks.is_empty() => Self::Subscribe(uris),
            Target::Initialize
            | Target::Discover
            | Target::Ping
            | Target::List(_)
            | Target::SetLevel
            | Target::ClientNotification(_)
            | Target::Response => Self::Protocol,
            Target::Subscribe { .. } | Target::Task { .. } | Target::Other(_) => Self::Other,
        }
    }
}

impl<'a> From<&'a Message> for Operation<'a> {
    fn from(message: &'a Message) -> Self {
        match message.target() {
            Target::ToolCall { name } => Self::CallWith(name, message.arguments()),
            target => Self::from(target),
        }
    }
}

impl<'a> Operation<'a> {
    /// What an entry of a list stands for: by its name, its URI or its URI template.
    #[must_use]
    pub fn of_entry(kind: ListKind, name: &'a str) -> Self {
        match kind {
            ListKind::Tools => Self::CallTool(name),
            ListKind::Prompts => Self::GetPrompt(name),
            ListKind::Resources => Self::ReadResource(name),
            ListKind::ResourceTemplates => Self::UseTemplate(name),
        }
    }

    /// By which deny lists and rate limits know it: the tool that is called or seen, or the row of a request of a plain
    /// HTTP API.
    pub(crate) fn name<'n>(self, policy: &'n Policy) -> Option<&'n str>
    where
        'a: 'n,
    {
        match self {
            Self::CallTool(name) | Self::CallWith(name, _) => Some(name),
            Self::Http(method, path) => policy.server.route(method, path).map(|row| row.name.as_str()),
            _ => None,
        }
    }
}

/// Decides one request. Total: there is an answer for every input, and what no rule allows is refused.
#[must_use]
pub fn decide(bundle: &Bundle, caller: &Caller, operation: Operation<'_>, now: Timestamp) -> Decision {
    decide_metered(bundle, caller, operation, now, |_| true)
}

/// Decides one request of which the rate limits have their say: `meter` is asked, once at most, whether they let it
/// through, after everything that is refused however many calls are left and before the operation is judged. It can
/// only take away.
#[must_use]
pub fn decide_metered(
    bundle: &Bundle,
    caller: &Caller,
    operation: Operation<'_>,
    now: Timestamp,
    meter: impl FnOnce(&Policy) -> bool,
) -> Decision {
    let policy = match bundle.policy() {
        Ok(policy) => policy,
        Err(reason) => return Decision::Refuse(plain(Reason::RefuseAll(reason))),
    };
    if policy.state == State::Suspended {
        return Decision::Refuse(plain(Reason::Suspended));
    }
    if bundle.deny.refuses(&caller.subject, || operation.name(policy)) {
        return Decision::Refuse(plain(Reason::DeniedByNamespace));
    }
    if now >= caller.expires {
        return Decision::Refuse(plain(Reason::SubjectExpired));
    }
    let judged = if meter(policy) {
        judge(policy, caller, operation)
            .and_then(|judged| check_login(policy, caller, &judged, now).map(|()| judged.permit))
    } else {
        Err(plain(Reason::RateLimited))
    };
    match judged {
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
    if bundle.deny.refuses_anyone(|| operation.name(policy)) {
        return Err(plain(Reason::DeniedByNamespace));
    }
    Ok(())
}

/// Whether `tools/list` shows a tool to this caller; see [`shows`].
#[must_use]
pub fn shows_tool(policy: &Policy, caller: &Caller, tool: &str) -> bool {
    shows(policy, caller, Operation::CallTool(tool))
}

/// Whether a list shows an entry to this caller: exactly when the use of it would be permitted, or
/// would be after a step-up that the caller can make. In stage `Audit` everything is shown.
#[must_use]
pub fn shows(policy: &Policy, caller: &Caller, operation: Operation<'_>) -> bool {
    if policy.stage == Stage::Audit {
        return true;
    }
    match judge(policy, caller, operation) {
        Ok(_) => true,
        // Which arguments a call will have is not known yet.
        Err(refusal) if refusal.reason == Reason::ArgumentsNotJudged => true,
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

/// What may be done, and with which scopes it is done.
struct Judged {
    permit: Permit,
    /// How it is refused, should its caller not have logged in well enough.
    refused: Refusal,
}

fn judge(policy: &Policy, caller: &Caller, operation: Operation<'_>) -> Result<Judged, Refusal> {
    let insufficient = plain(Reason::AuthenticationInsufficient);
    let plainly = |needed: ScopeSet| {
        let permit = Permit { needed: needed.clone(), ..Permit::new(caller) };
        Judged { permit, refused: Refusal { needed, ..insufficient.clone() } }
    };
    admit_caller(policy, caller)?;
    let server = &policy.server;
    // What speaks another protocol has no such things.
    let speaks = match operation {
        Operation::Http(..) => Protocol::Http,
        Operation::Protocol => server.protocol,
        _ => Protocol::Mcp,
    };
    if server.protocol != speaks {
        return Err(plain(Reason::MethodNotAllowed));
    }
    let (row, unknown) = match operation {
        // No scope is used: nothing is asked of the login.
        Operation::Protocol => return Ok(plainly(ScopeSet::new())),
        Operation::Other => return Err(plain(Reason::MethodNotAllowed)),
        Operation::CallTool(name) | Operation::CallWith(name, _) => {
            (server.tools.get(name), Reason::ToolUnknown)
        }
        Operation::GetPrompt(name) => (server.prompts.get(name), Reason::PromptUnknown),
        Operation::ReadResource(uri) => (server.resource(uri).map(|row| &row.needs), Reason::ResourceUnknown),
        Operation::UseTemplate(uri) => {
            (server.resource_template(uri).map(|row| &row.needs), Reason::ResourceUnknown)
        }
        Operation::Http(method, path) => {
            (server.route(method, path).map(|row| &row.needs), Reason::RouteUnknown)
        }
        Operation::Subscribe(uris) => {
            let rows: Option<Vec<&Tool>> =
                uris.iter().map(|uri| server.resource(uri).map(|row| &row.needs)).collect();
            let rows = rows.ok_or_else(|| hidden(Reason::ResourceUnknown))?;
            let none = ScopeSet::new();
            let needed = check_scopes(policy, caller, &rows, &none, Reason::ResourceUnknown)?;
            return Ok(plainly(needed));
        }
    };
    let row = row.ok_or_else(|| hidden(unknown))?;
    let besides = check_arguments(caller, row, operation, unknown)?;
    let needed = check_scopes(policy, caller, &[row], &besides.scopes, unknown)?;
    // Said last, so that a list shows such a tool to exactly those who have its scopes.
    if besides.unknown_arguments {
        let explain = row.denial.explains();
        return Err(Refusal { explain, hidden_as: unknown, ..plain(Reason::ArgumentsNotJudged) });
    }
    let mut permit = Permit { needed: needed.clone(), ..Permit::new(caller) };
    for (name, scopes) in &row.downstreams {
        // Load has resolved these; a missing one is no downstream, never another.
        let Some(downstream) = policy.downstreams.get(name) else { continue };
        let Some(provider) = policy.providers.get(&downstream.provider) else { continue };
        // A token is exchanged where it was issued; another provider would be another grant.
        if downstream.provider != caller.provider {
            continue;
        }
        permit.grant(name, downstream, scopes, provider.max_token_lifetime);
    }
    let refused = Refusal { explain: row.denial.explains(), hidden_as: unknown, needed, ..insufficient };
    Ok(Judged { permit, refused })
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
    if caller.actors.len() > usize::from(callers.max_actor_depth) {
        return Err(plain(Reason::ActorChainTooDeep));
    }
    // The outermost actor acts now; those inside it are history and decide nothing (RFC 8693 §4.1).
    if let (Some(clients), Some(outermost)) = (&callers.clients, caller.actors.first()) {
        let issuer = policy.providers.get(&caller.provider).map(|provider| &provider.issuer);
        let name = issuer.and_then(|issuer| outermost.name_at(issuer));
        if !name.is_some_and(|name| clients.contains(name)) {
            return Err(plain(Reason::ActorNotAllowed));
        }
    }
    Ok(())
}

/// All rows of one operation at once: what is missing is asked for in one challenge (A16).
fn check_scopes(
    policy: &Policy,
    caller: &Caller,
    rows: &[&Tool],
    besides: &ScopeSet,
    unknown: Reason,
) -> Result<ScopeSet, Refusal> {
    let of_rows = rows.iter().flat_map(|row| &row.scopes);
    let needed: ScopeSet = policy.required.iter().chain(of_rows).chain(besides).cloned().collect();
    let explain = rows.iter().all(|row| row.denial.explains());
    let counted = counted_scopes(policy, caller);
    let missing: ScopeSet =
        needed.iter().filter(|s| !counted.contains(*s) || !policy.offered.contains(*s)).cloned().collect();
    if missing.is_empty() {
        return Ok(needed);
    }
    let refusal = |reason, challenge| Refusal {
        reason,
        challenge,
        needed: needed.clone(),
        missing: missing.clone(),
        log_in: None,
        explain,
        hidden_as: unknown,
    };
    if missing.iter().any(|s| !policy.offered.contains(s)) {
        return Err(refusal(Reason::ScopeNotOffered, ScopeSet::new()));
    }
    let entitled = |s| policy.scopes.get(s).is_some_and(|rule| holds(rule, caller));
    if !missing.iter().all(entitled) {
        return Err(refusal(Reason::NotEntitled, ScopeSet::new()));
    }
    let mut challenge = if explain { needed.clone() } else { ScopeSet::new() };
    if explain && policy.scope_challenge == ScopeChallenge::Cumulative {
        // What this identity never asks for is the client's own business.
        challenge.extend(caller.scopes.intersection(&policy.offered).cloned());
    }
    Err(refusal(Reason::InsufficientScope, challenge))
}

fn holds(rule: &ScopeRule, caller: &Caller) -> bool {
    rule.groups.intersection(&caller.groups).next().is_some()
}

fn plain(reason: Reason) -> Refusal {
    Refusal {
        reason,
        challenge: ScopeSet::new(),
        needed: ScopeSet::new(),
        missing: ScopeSet::new(),
        log_in: None,
        explain: true,
        hidden_as: reason,
    }
}

fn hidden(unknown: Reason) -> Refusal {
    Refusal { explain: false, ..plain(unknown) }
}
