//! What a message asks for, as far as policy tells one thing from another.

use super::error::EnvelopeReason;
use super::json::{self, Duplicates, Limits, Node};
use super::message::Era;
use super::names;
use crate::ids::ToolName;

/// What a message is about. Anything not named here is [`Target::Other`], for policy to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `tools/call`.
    ToolCall {
        /// `params.name`, within the grammar of [`ToolName`].
        name: String,
    },
    /// `prompts/get`.
    GetPrompt {
        /// `params.name`.
        name: String,
    },
    /// `resources/read`.
    ReadResource {
        /// `params.uri`.
        uri: String,
    },
    /// `subscriptions/listen`, and `resources/subscribe` and `resources/unsubscribe` of the session
    /// era.
    Subscribe {
        /// The resources; empty when only list changes are asked for.
        uris: Vec<String>,
        /// The tasks.
        tasks: Vec<String>,
    },
    /// `completion/complete`.
    Complete {
        /// `params.ref`.
        reference: CompletionRef,
    },
    /// `tasks/…` on one task.
    Task {
        /// `params.taskId`.
        id: String,
    },
    /// One of the lists.
    List(ListKind),
    /// `initialize`.
    Initialize,
    /// `server/discover`.
    Discover,
    /// `ping`.
    Ping,
    /// `logging/setLevel`.
    SetLevel,
    /// `notifications/…` without an `id`; the method name.
    ClientNotification(String),
    /// An answer of the client to a request of the server (session era only).
    Response,
    /// Any other method; its name.
    Other(String),
}

/// Which list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    ResourceTemplates,
}

/// What a completion is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompletionRef {
    /// `ref/prompt` by name.
    Prompt(String),
    /// `ref/resource` by URI or URI template.
    Resource(String),
}

/// What stateless revisions do not have any more: there it is a method like any that nobody knows (MCP 2026-07-28
/// changelog; tasks extension).
const REMOVED: [&str; 6] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/result",
];

const MAX_NAME: usize = 1024;
const MAX_URI: usize = 8192;
const MAX_SUBSCRIPTIONS: usize = 1024;

impl Target {
    /// The body value that the `Mcp-Name` header mirrors.
    pub(super) fn mirrored_name(&self) -> Option<&str> {
        match self {
            Self::ToolCall { name } | Self::GetPrompt { name } => Some(name),
            Self::ReadResource { uri } => Some(uri),
            Self::Task { id } => Some(id),
            _ => None,
        }
    }
}

/// Reads what a call with this method is about; `notification` when it came without an `id`.
pub(super) fn of_call(
    method: &str,
    params: Option<&Node<'_>>,
    notification: bool,
    era: Era,
) -> Result<Target, EnvelopeReason> {
    if notification {
        return if method.starts_with("notifications/") {
            Ok(Target::ClientNotification(method.to_owned()))
        } else {
            Err(EnvelopeReason::RequestWithoutId)
        };
    }
    if era == Era::Modern && REMOVED.contains(&method) {
        return Ok(Target::Other(method.to_owned()));
    }
    Ok(match method {
        "tools/call" => {
            if params.and_then(|p| p.get("arguments")).is_some_and(|a| a.members().is_none()) {
                return Err(EnvelopeReason::BadParams);
            }
            let name = text(params, "name")?;
            ToolName::new(name).map_err(|_| EnvelopeReason::BadToolName)?;
            Target::ToolCall { name: name.to_owned() }
        }
        "prompts/get" => Target::GetPrompt { name: printable(params, "name", MAX_NAME)? },
        "resources/read" => Target::ReadResource { uri: printable(params, "uri", MAX_URI)? },
        "resources/subscribe" | "resources/unsubscribe" => {
            Target::Subscribe { uris: vec![printable(params, "uri", MAX_URI)?], tasks: Vec::new() }
        }
        "subscriptions/listen" => listen(params)?,
        "completion/complete" => Target::Complete { reference: completion(params)? },
        "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => {
            Target::Task { id: printable(params, "taskId", MAX_NAME)? }
        }
        "tools/list" => Target::List(ListKind::Tools),
        "prompts/list" => Target::List(ListKind::Prompts),
        "resources/list" => Target::List(ListKind::Resources),
        "resources/templates/list" => Target::List(ListKind::ResourceTemplates),
        "initialize" => Target::Initialize,
        "server/discover" => Target::Discover,
        "ping" => Target::Ping,
        "logging/setLevel" => Target::SetLevel,
        other => Target::Other(other.to_owned()),
    })
}

fn text<'n>(node: Option<&'n Node<'_>>, key: &str) -> Result<&'n str, EnvelopeReason> {
    node.and_then(|n| n.get(key)).and_then(Node::as_str).ok_or(EnvelopeReason::BadParams)
}

fn printable(node: Option<&Node<'_>>, key: &str, max: usize) -> Result<String, EnvelopeReason> {
    checked(text(node, key)?, max)
}

fn checked(text: &str, max: usize) -> Result<String, EnvelopeReason> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(EnvelopeReason::BadTargetName);
    }
    Ok(text.to_owned())
}

/// An object in `params` that is judged member by member, hence without look-alikes.
fn judged<'n, 'a>(params: Option<&'n Node<'a>>, key: &str) -> Result<&'n Node<'a>, EnvelopeReason> {
    let node = params.and_then(|p| p.get(key)).ok_or(EnvelopeReason::BadParams)?;
    let members = node.members().ok_or(EnvelopeReason::BadParams)?;
    if names::has_look_alike(members) { Err(EnvelopeReason::LookAlikeMember) } else { Ok(node) }
}

fn completion(params: Option<&Node<'_>>) -> Result<CompletionRef, EnvelopeReason> {
    let reference = Some(judged(params, "ref")?);
    match text(reference, "type")? {
        "ref/prompt" => Ok(CompletionRef::Prompt(printable(reference, "name", MAX_NAME)?)),
        "ref/resource" => Ok(CompletionRef::Resource(printable(reference, "uri", MAX_URI)?)),
        _ => Err(EnvelopeReason::BadParams),
    }
}

/// A filter of `subscriptions/listen`; one we do not know may name things policy has not judged.
fn listen(params: Option<&Node<'_>>) -> Result<Target, EnvelopeReason> {
    let filter = judged(params, "notifications")?;
    let (mut uris, mut tasks) = (Vec::new(), Vec::new());
    for member in filter.members().unwrap_or_default() {
        match member.key.as_ref() {
            "resourceSubscriptions" => uris = texts(&member.node, MAX_URI)?,
            "taskIds" => tasks = texts(&member.node, MAX_NAME)?,
            "toolsListChanged" | "promptsListChanged" | "resourcesListChanged" => {
                if !matches!(member.node.value, json::Value::Bool) {
                    return Err(EnvelopeReason::BadParams);
                }
            }
            _ => return Err(EnvelopeReason::BadParams),
        }
    }
    Ok(Target::Subscribe { uris, tasks })
}

fn texts(node: &Node<'_>, max: usize) -> Result<Vec<String>, EnvelopeReason> {
    if !node.is_array() {
        return Err(EnvelopeReason::BadParams);
    }
    let (mut out, mut failed) = (Vec::new(), None);
    let read = node.elements(&mut |raw| {
        if failed.is_some() {
            return;
        }
        let element = json::read(raw.as_bytes(), &Limits::default(), Duplicates::Refused);
        let element = element.ok().and_then(|n| n.as_str().map(|t| checked(t, max)));
        match element {
            Some(Ok(text)) if out.len() < MAX_SUBSCRIPTIONS => out.push(text),
            Some(Err(reason)) => failed = Some(reason),
            _ => failed = Some(EnvelopeReason::BadParams),
        }
    });
    match (read, failed) {
        (Ok(()), None) => Ok(out),
        (Ok(()), Some(reason)) => Err(reason),
        (Err(_), _) => Err(EnvelopeReason::BodyNotJson),
    }
}
