//! Policy per method: what is asked by name, by URI, by template; and what no row names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

#[path = "methods/patterns.rs"]
mod patterns;
mod support;

use behalf_policy::bundle::rows::{PromptDocument, ResourceDocument, RouteDocument};
use behalf_policy::bundle::{Bundle, Denial, HttpMethod, LoadError, Protocol};
use behalf_policy::decide::{Operation, decide, decide_unknown_caller, shows};
use behalf_policy::decision::{Decision, Reason, Refusal};
use behalf_policy::deny::DenyList;
use behalf_policy::envelope::{HeaderField, HeaderView, Limits, ListKind, Message};
use behalf_policy::ids::{PromptName, ToolName};
use behalf_policy::pattern::{PatternDocument, PatternType};
use behalf_policy::rate::{Per, RateLimit};
use support::*;

const ALL: [&str; 4] = ["hr:read", "hr:leave:read", "hr:salary:read", "hr:salary:write"];

fn prompt(prompt: &str, needs: &str, denial: Denial) -> PromptDocument {
    PromptDocument { name: PromptName::new(prompt).unwrap(), scopes: scopes(&[needs]), denial }
}

fn pattern(type_: PatternType, value: &str) -> PatternDocument {
    PatternDocument { type_, value: value.to_owned() }
}

fn resource(row: &str, type_: PatternType, uri: &str, needs: &str) -> ResourceDocument {
    ResourceDocument {
        name: name(row),
        uri: pattern(type_, uri),
        scopes: scopes(&[needs]),
        denial: Denial::Explain,
    }
}

fn route(row: &str, methods: &[HttpMethod], type_: PatternType, path: &str, needs: &str) -> RouteDocument {
    RouteDocument {
        name: name(row),
        methods: methods.iter().copied().collect(),
        path: pattern(type_, path),
        scopes: scopes(&[needs]),
        denial: Denial::Explain,
        downstreams: Vec::new(),
    }
}

fn mcp() -> Bundle {
    use PatternType::{Exact, Prefix, Template};
    let mut document = policy_document();
    let server = &mut document.servers[0];
    server.prompts = vec![
        prompt("brief me", "hr:read", Denial::Explain),
        prompt("pay.review", "hr:salary:read", Denial::Explain),
        prompt("pay.secret", "hr:salary:read", Denial::Hide),
    ];
    server.resources = vec![
        resource("handbook", Exact, "hr://handbook", "hr:read"),
        resource("reports", Prefix, "hr://reports/", "hr:read"),
        resource("pay", Exact, "hr://reports/pay", "hr:salary:read"),
        resource("people", Template, "hr://people/{id}", "hr:read"),
        resource("payslips", Template, "hr://people/{id}/payslip", "hr:salary:read"),
        resource("files", Prefix, "file:///srv/docs", "hr:read"),
        resource("find", Template, "hr://find?q={q}", "hr:read"),
    ];
    bundle(document)
}

fn api() -> Bundle {
    use HttpMethod::{Delete, Get, Post};
    use PatternType::{Exact, Prefix, Template};
    let mut document = policy_document();
    let server = &mut document.servers[0];
    server.protocol = Protocol::Http;
    server.routes = vec![
        route("root", &[Get], Exact, "/", "hr:read"),
        route("items", &[Get], Prefix, "/v1/items", "hr:read"),
        route("item", &[Get, Post], Template, "/v1/items/{id}/notes", "hr:read"),
        route("salary", &[Get], Exact, "/v1/items/salary", "hr:salary:read"),
        route("remove", &[Delete], Prefix, "/v1/items/", "hr:salary:read"),
    ];
    bundle(document)
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn permitted(bundle: &Bundle, operation: Operation<'_>) -> bool {
    matches!(decide(bundle, &bob(&["hr:read"]), operation, NOW), Decision::Permit(_))
}

fn message(method: &str, params: &str) -> Message {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let headers = HeaderView { protocol_version: HeaderField::once("2025-11-25"), ..HeaderView::default() };
    Message::read(body.as_bytes(), &headers, &Limits::default()).unwrap()
}

#[test]
fn c14_each_method_is_judged_by_its_own_row_and_the_rest_is_refused() {
    let bundle = mcp();
    for (method, params, verdict) in [
        ("prompts/get", r#"{"name":"brief me"}"#, None),
        ("prompts/get", r#"{"name":"Brief me"}"#, Some(Reason::PromptUnknown)),
        ("prompts/get", r#"{"name":"brief me "}"#, Some(Reason::PromptUnknown)),
        ("prompts/get", r#"{"name":"directory.search"}"#, Some(Reason::PromptUnknown)),
        ("prompts/get", r#"{"name":"pay.review"}"#, Some(Reason::NotEntitled)),
        ("tools/call", r#"{"name":"directory.search"}"#, None),
        ("resources/read", r#"{"uri":"hr://handbook"}"#, None),
        ("resources/read", r#"{"uri":"hr://handbook/"}"#, Some(Reason::ResourceUnknown)),
        ("resources/read", r#"{"uri":"HR://handbook"}"#, Some(Reason::ResourceUnknown)),
        ("resources/read", r#"{"uri":"hr://reports/2026"}"#, None),
        ("resources/read", r#"{"uri":"hr://reports/pay"}"#, Some(Reason::NotEntitled)),
        ("resources/subscribe", r#"{"uri":"hr://reports/2026"}"#, None),
        ("resources/subscribe", r#"{"uri":"hr://reports/pay"}"#, Some(Reason::NotEntitled)),
        ("resources/subscribe", r#"{"uri":"hr://else"}"#, Some(Reason::ResourceUnknown)),
        ("resources/unsubscribe", r#"{"uri":"hr://reports/2026"}"#, None),
        ("resources/unsubscribe", r#"{"uri":"hr://else"}"#, Some(Reason::ResourceUnknown)),
        ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"brief me"}}"#, None),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/prompt","name":"else"}}"#,
            Some(Reason::PromptUnknown),
        ),
        ("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"hr://people/{id}"}}"#, None),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","uri":"hr://people/{id}/payslip"}}"#,
            Some(Reason::NotEntitled),
        ),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","uri":"hr://people/{name}"}}"#,
            Some(Reason::ResourceUnknown),
        ),
        ("subscriptions/listen", r#"{"notifications":{"toolsListChanged":true}}"#, None),
        (
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["hr://handbook","hr://reports/a"]}}"#,
            None,
        ),
        (
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["hr://handbook","hr://reports/pay"]}}"#,
            Some(Reason::NotEntitled),
        ),
        (
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["hr://handbook","hr://else"]}}"#,
            Some(Reason::ResourceUnknown),
        ),
        ("tools/list", "{}", None),
        ("prompts/list", "{}", None),
        ("resources/list", "{}", None),
        ("resources/templates/list", "{}", None),
        ("ping", "{}", None),
        ("logging/setLevel", r#"{"level":"info"}"#, None),
        ("tasks/list", "{}", Some(Reason::MethodNotAllowed)),
        ("sampling/createMessage", "{}", Some(Reason::MethodNotAllowed)),
        ("tools/List", "{}", Some(Reason::MethodNotAllowed)),
        ("server/other", "{}", Some(Reason::MethodNotAllowed)),
    ] {
        let message = message(method, params);
        let decision = decide(&bundle, &bob(&["hr:read"]), Operation::from(message.target()), NOW);
        assert_eq!(decision.refusal().map(|r| r.reason), verdict, "{method} {params}");
    }
}

#[test]
fn c14_a_server_without_rows_serves_nothing_but_its_protocol() {
    let bundle = bundle(policy_document());
    let uris = ["hr://handbook".to_owned()];
    for operation in [
        Operation::GetPrompt("brief me"),
        Operation::ReadResource("hr://handbook"),
        Operation::UseTemplate("hr://people/{id}"),
        Operation::Subscribe(&uris),
        Operation::Http(HttpMethod::Get, "/"),
        Operation::Other,
    ] {
        let refusal = refusal(decide(&bundle, &alice(&ALL), operation, NOW));
        assert!(refusal.challenge.is_empty(), "{operation:?}");
    }
}

#[test]
fn c14_a16_a_subscription_asks_for_what_all_its_resources_need_at_once() {
    let uris = ["hr://reports/pay".to_owned(), "hr://handbook".to_owned()];
    let refusal = refusal(decide(&mcp(), &alice(&[]), Operation::Subscribe(&uris), NOW));
    assert_eq!(refusal.reason, Reason::InsufficientScope);
    assert_eq!(refusal.challenge, scopes(&["hr:read", "hr:salary:read"]));
}

#[test]
fn c14_d35_a_hidden_prompt_is_told_as_one_that_does_not_exist() {
    let hidden = refusal(decide(&mcp(), &bob(&["hr:read"]), Operation::GetPrompt("pay.secret"), NOW));
    let unknown = refusal(decide(&mcp(), &bob(&["hr:read"]), Operation::GetPrompt("nothing"), NOW));
    for refusal in [hidden, unknown] {
        assert!(!refusal.explain && refusal.challenge.is_empty());
        assert_eq!(refusal.hidden_as, Reason::PromptUnknown);
    }
}

#[test]
fn c15_a_list_shows_what_may_be_used_or_would_be_after_a_step_up() {
    let bundle = mcp();
    let policy = policy(&bundle);
    for (kind, entry, to_bob, to_alice) in [
        (ListKind::Prompts, "brief me", true, true),
        (ListKind::Prompts, "pay.review", false, true),
        (ListKind::Prompts, "pay.secret", false, false),
        (ListKind::Prompts, "nothing", false, false),
        (ListKind::Resources, "hr://handbook", true, true),
        (ListKind::Resources, "hr://reports/pay", false, true),
        (ListKind::Resources, "hr://else", false, false),
        (ListKind::ResourceTemplates, "hr://people/{id}", true, true),
        (ListKind::ResourceTemplates, "hr://people/{id}/payslip", false, true),
        (ListKind::ResourceTemplates, "hr://reports/{year}", true, true),
        (ListKind::ResourceTemplates, "hr://repor{rest}", false, false),
        (ListKind::ResourceTemplates, "hr://{anything}", false, false),
        (ListKind::ResourceTemplates, "hr://reports/../{x}", false, false),
        (ListKind::Tools, "directory.search", true, true),
    ] {
        let operation = Operation::of_entry(kind, entry);
        assert_eq!(shows(policy, &bob(&["hr:read"]), operation), to_bob, "{entry} to bob");
        assert_eq!(shows(policy, &alice(&["hr:read"]), operation), to_alice, "{entry} to alice");
    }
}

#[test]
fn c14_a_server_is_asked_only_what_its_protocol_has() {
    assert!(!permitted(&api(), Operation::CallTool("directory.search")));
    assert!(!permitted(&mcp(), Operation::Http(HttpMethod::Get, "/")));
}

#[test]
fn a_request_of_an_api_is_denied_by_the_name_of_its_row() {
    use HttpMethod::{Get, Post};
    let mut bundle = api();
    bundle.deny = DenyList::default().and(b"tool items\ntool v1\ntool root.");
    for (method, path, denied) in [
        (Get, "/v1/items", true),
        (Get, "/v1/items/7", true),
        // Each by the one row that it falls under, and not by its path.
        (Get, "/v1/items/salary", false),
        (Get, "/v1/items/7/notes", false),
        (Post, "/v1/items", false),
        (Get, "/", false),
        (Get, "/items", false),
    ] {
        let operation = Operation::Http(method, path);
        let decided = decide(&bundle, &bob(&["hr:read"]), operation, NOW);
        let is_denied = decided.refusal().is_some_and(|r| r.reason == Reason::DeniedByNamespace);
        assert_eq!(is_denied, denied, "{method:?} {path}");
        assert_eq!(decide_unknown_caller(&bundle, operation).is_err(), denied, "{method:?} {path}");
    }
}

#[test]
fn a_limit_counts_a_request_of_an_api_by_its_row() {
    use HttpMethod::{Get, Post};
    let bundle = api();
    let policy = bundle.policy().unwrap();
    let limit = |per, tools: &[&str]| RateLimit {
        name: name("burst"),
        per,
        requests: 1,
        period: 60,
        tools: tools.iter().map(|row| ToolName::new(*row).unwrap()).collect(),
    };
    let caller = bob(&["hr:read"]);
    let key = |limit: &RateLimit, method, path: &str| {
        let key = limit.key(policy, &caller, Operation::Http(method, path));
        key.map(|key| key.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let each = limit(Per::Tool, &[]);
    assert_eq!(key(&each, Get, "/v1/items/7"), Some(vec!["items".to_owned()]));
    assert_eq!(key(&each, Get, "/v1/items"), key(&each, Get, "/v1/items/8"), "the same row");
    assert_ne!(key(&each, Get, "/v1/items/salary"), key(&each, Get, "/v1/items/7"));
    // What no row matches is counted too, all of it together.
    assert_eq!(key(&each, Get, "/made/up"), Some(Vec::new()));
    assert_eq!(key(&each, Post, "/v1/items"), Some(Vec::new()));
    let one = limit(Per::Subject, &["items"]);
    assert!(key(&one, Get, "/v1/items").is_some());
    for (method, path) in [(Get, "/v1/items/salary"), (Post, "/v1/items/7/notes"), (Get, "/items")] {
        assert_eq!(key(&one, method, path), None, "{method:?} {path}");
    }
}

#[test]
fn rows_without_scopes_twice_named_or_with_scopes_nobody_defined_do_not_load() {
    let fails = |change: &dyn Fn(&mut behalf_policy::bundle::document::ServerDocument)| {
        let mut document = policy_document();
        change(&mut document.servers[0]);
        Bundle::load(support::document(document), String::new()).unwrap_err()
    };
    let row = || resource("row", PatternType::Exact, "hr://a", "hr:read");
    assert_eq!(
        fails(&|s| s.prompts = vec![prompt("p", "none:such", Denial::Explain)]),
        LoadError::Undefined("none:such".to_owned())
    );
    assert_eq!(
        fails(&|s| s.prompts = vec![PromptDocument { scopes: scopes(&[]), ..prompt("p", "x", Denial::Hide) }]),
        LoadError::Empty("scopes of p".to_owned())
    );
    assert_eq!(fails(&|s| s.resources = vec![row(), row()]), LoadError::Duplicate("row".to_owned()));
    assert_eq!(
        fails(&|s| s.routes = vec![route("r", &[], PatternType::Exact, "/", "hr:read")]),
        LoadError::Empty("methods of r".to_owned())
    );
    for origin in
        ["null", "*", "https://*.example.com", "https://a/", "https://A", "https://a:443", "a", "https://a?b"]
    {
        let fails = fails(&|s| s.allowed_origins = [origin.to_owned()].into());
        assert_eq!(fails, LoadError::Url(origin.to_owned()), "c21_d36 {origin}");
    }
}
