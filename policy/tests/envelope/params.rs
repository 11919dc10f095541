use std::cell::RefCell;

use behalf_policy::envelope::{
    AnnotationError, EnvelopeReason, Era, HeaderField, Limits, ListKind, Message, MirroredParams,
};
use behalf_policy::listing::{Onlooker, SseFilter, filter_list};
use serde_json::{Value, json};

use crate::{legacy, with_headers};

/// Keeps everything, and what it is told of the tools.
#[derive(Default)]
struct Learner(RefCell<Vec<(String, Result<MirroredParams, AnnotationError>)>>);

impl Onlooker for &Learner {
    fn keeps(&self, _: ListKind, name: &str) -> bool {
        name != "hidden"
    }

    fn mirrors(&self, tool: &str, params: &dyn Fn() -> Result<MirroredParams, AnnotationError>) {
        self.0.borrow_mut().push((tool.to_owned(), params()));
    }
}

fn list(tools: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string()
}

/// What the schema of one tool says.
fn params(schema: &Value) -> Result<MirroredParams, AnnotationError> {
    let learner = Learner::default();
    let list = list(&json!([{"name": "t", "inputSchema": schema}]));
    filter_list(list.as_bytes(), ListKind::Tools, &&learner, Era::Modern, &Limits::default()).unwrap();
    let (name, params) = learner.0.borrow_mut().pop().unwrap();
    assert_eq!(name, "t");
    params
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "level": {"type": "integer", "x-mcp-header": "Level"},
        "deep": {"type": "object", "properties": {"er": {"type": "boolean", "x-mcp-header": "dry-Run"}}},
        "query": {"type": "string", "default": {"x-mcp-header": "no schema"}},
    }})
}

fn call(arguments: &str) -> Message {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"t","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
    );
    with_headers(&body, "2026-07-28", "tools/call", "t").unwrap()
}

fn check(message: &Message, headers: &[(&str, &str)], demanded: bool) -> Result<(), EnvelopeReason> {
    let field = |name: &str| {
        HeaderField::from_values(headers.iter().filter(|(n, _)| *n == name).map(|(_, value)| Some(*value)))
    };
    params(&schema()).unwrap().check(message, field, demanded).map_err(|error| {
        assert_eq!((error.http_status(), error.jsonrpc_code(), error.id()), (400, -32020, Some("7")));
        error.reason()
    })
}

#[test]
fn c10_headers_that_say_what_the_arguments_say_pass() {
    let ok = |arguments: &str, headers: &[(&str, &str)]| {
        assert_eq!(check(&call(arguments), headers, true), Ok(()), "{arguments} {headers:?}");
    };
    ok("{}", &[]);
    ok(r#"{"region":null,"deep":null}"#, &[]);
    ok(r#"{"deep":{}}"#, &[]);
    ok(r#"{"deep":"not an object"}"#, &[]);
    ok(r#"{"query":"x"}"#, &[("mcp-param-query", "anything"), ("mcp-param-other", "\u{7f}")]);
    ok(r#"{"region":"us-west1"}"#, &[("mcp-param-region", "us-west1")]);
    ok(r#"{"region":"us-west1"}"#, &[("mcp-param-region", " us-west1\t")]);
    ok(r#"{"region":""}"#, &[("mcp-param-region", "")]);
    ok(r#"{"region":"Hello, 世界"}"#, &[("mcp-param-region", "=?base64?SGVsbG8sIOS4lueVjA==?=")]);
    ok(r#"{"region":" padded "}"#, &[("mcp-param-region", "=?base64?IHBhZGRlZCA=?=")]);
    ok(r#"{"region":"line1\nline2"}"#, &[("mcp-param-region", "=?base64?bGluZTEKbGluZTI=?=")]);
    ok(r#"{"region":"=?base64?literal?="}"#, &[("mcp-param-region", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=")]);
    ok(r#"{"region":"SGVsbG8="}"#, &[("mcp-param-region", "SGVsbG8=")]);
    ok(r#"{"region":"=?base64?SGVsbG8="}"#, &[("mcp-param-region", "=?base64?SGVsbG8=")]);
    ok(r#"{"deep":{"er":false}}"#, &[("mcp-param-dry-run", "false")]);
    for number in ["42", "42.0", "4.2e1", "4200e-2", "420E-1", "0.42e+2"] {
        ok(&format!(r#"{{"level":{number}}}"#), &[("mcp-param-level", "42")]);
        ok(r#"{"level":42}"#, &[("mcp-param-level", number)]);
    }
    for number in ["9007199254740991", "-9007199254740991", "0"] {
        ok(&format!(r#"{{"level":{number}}}"#), &[("mcp-param-level", number)]);
    }
    ok(r#"{"level":-0}"#, &[("mcp-param-level", "0")]);
    ok(r#"{"level":100}"#, &[("mcp-param-level", "1e2")]);
}

#[test]
fn c10_a_known_header_that_is_missing_doubled_malformed_or_different_is_refused() {
    use EnvelopeReason::{HeaderMalformed, HeaderMismatch, HeaderMissing, HeaderRepeated};
    let refused = |arguments: &str, headers: &[(&str, &str)], why: EnvelopeReason| {
        assert_eq!(check(&call(arguments), headers, true), Err(why), "{arguments} {headers:?}");
        // What a list need not have told the caller may be missing; what is said must still be true.
        let lenient = if why == HeaderMissing { Ok(()) } else { Err(why) };
        assert_eq!(check(&call(arguments), headers, false), lenient, "{arguments} {headers:?}");
    };
    let west = r#"{"region":"us-west1"}"#;
    refused(west, &[], HeaderMissing);
    refused(r#"{"region":""}"#, &[], HeaderMissing);
    refused(r#"{"deep":{"er":true}}"#, &[], HeaderMissing);
    refused(west, &[("mcp-param-region", "us-west1"), ("mcp-param-region", "us-west1")], HeaderRepeated);
    for value in ["us-west2", "US-WEST1", "", "us-west1 x", "\"us-west1\""] {
        refused(west, &[("mcp-param-region", value)], HeaderMismatch);
    }
    for value in ["=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "=?base64?/w==?=", "ünprintable", "a\u{7f}"]
    {
        refused(r#"{"region":"Hello"}"#, &[("mcp-param-region", value)], HeaderMalformed);
    }
    // Said of nothing.
    refused("{}", &[("mcp-param-region", "us-west1")], HeaderMismatch);
    refused("{}", &[("mcp-param-region", "")], HeaderMismatch);
    refused(r#"{"region":null}"#, &[("mcp-param-region", "null")], HeaderMismatch);
    // An object in the chain that is none, and values that no header says.
    refused(r#"{"deep":"x"}"#, &[("mcp-param-dry-run", "true")], HeaderMismatch);
    refused(r#"{"region":["us-west1"]}"#, &[("mcp-param-region", "us-west1")], HeaderMismatch);
    refused(r#"{"region":{"a":1}}"#, &[("mcp-param-region", "{\"a\":1}")], HeaderMismatch);
    refused(r#"{"deep":{"er":true}}"#, &[("mcp-param-dry-run", "True")], HeaderMismatch);
    refused(r#"{"deep":{"er":true}}"#, &[("mcp-param-dry-run", "1")], HeaderMismatch);
    for number in [
        "43",
        "+42",
        "042",
        "0x2a",
        "42.",
        ".42e2",
        "42e",
        "42 0",
        "forty-two",
        "",
        "42.0000000000000000001",
        "4.2e99999999999999999999",
    ] {
        refused(r#"{"level":42}"#, &[("mcp-param-level", number)], HeaderMismatch);
    }
    // Beyond 2^53 - 1 some reader rounds, and fractions are no integers.
    for number in ["9007199254740992", "-9007199254740992", "1e300", "1.5"] {
        refused(&format!(r#"{{"level":{number}}}"#), &[("mcp-param-level", number)], HeaderMismatch);
    }
    refused(r#"{"level":9007199254740991}"#, &[("mcp-param-level", "9007199254740991.4")], HeaderMismatch);
}

#[test]
fn c10_only_stateless_tool_calls_mirror_arguments() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"region":"a"}}}"#;
    let wrong = [("mcp-param-region", "b")];
    assert_eq!(check(&legacy(body).unwrap(), &wrong, true), Ok(()), "versions before do not know them");
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let list = with_headers(list, "2026-07-28", "tools/list", "-").unwrap();
    assert_eq!(check(&list, &wrong, true), Ok(()));
}

#[test]
fn c10_annotations_that_break_a_rule_make_the_definition_invalid() {
    use AnnotationError::{Name, Place, TooMany, Twice, Type};
    let property = |property: Value| json!({"type": "object", "properties": {"a": property}});
    let named = |name: Value| property(json!({"type": "string", "x-mcp-header": name}));
    for name in ["", "My Region", "Region:Primary", "Région", "Region\t1", "Region\r\n", "a/b", "\"a\""] {
        assert_eq!(params(&named(json!(name))).unwrap_err(), Name, "{name}");
    }
    for name in [json!(null), json!(1), json!(["Region"]), json!({}), json!("x".repeat(129))] {
        assert_eq!(params(&named(name)).unwrap_err(), Name);
    }
    for kind in [json!("number"), json!("object"), json!("array"), json!("null"), json!(["string"]), json!(1)]
    {
        let schema = property(json!({"type": kind, "x-mcp-header": "Region"}));
        assert_eq!(params(&schema).unwrap_err(), Type);
    }
    assert_eq!(params(&property(json!({"x-mcp-header": "Region"}))).unwrap_err(), Type);
    let two = |first: &str, second: &str| {
        json!({"properties": {"a": {"type": "string", "x-mcp-header": first},
            "b": {"properties": {"c": {"type": "string", "x-mcp-header": second}}}}})
    };
    assert_eq!(params(&two("Region", "Region")).unwrap_err(), Twice);
    assert_eq!(params(&two("MyField", "myfield")).unwrap_err(), Twice);
    let good = json!({"properties": {"a": {"type": "string", "x-mcp-header": "Region"}}});
    for place in [
        json!({"x-mcp-header": "Region", "type": "string"}),
        property(json!({"type": "array", "items": good.clone()})),
        property(json!({"type": "array", "items": {"type": "string", "x-mcp-header": "Region"}})),
        json!({"oneOf": [good.clone()]}),
        json!({"anyOf": [{}, good.clone()]}),
        json!({"allOf": [[good.clone()]]}),
        json!({"not": good.clone()}),
        json!({"if": good.clone()}),
        json!({"$defs": {"d": good.clone()}}),
        json!({"additionalProperties": {"type": "string", "x-mcp-header": "Region"}}),
        json!({"patternProperties": {"^a": {"type": "string", "x-mcp-header": "Region"}}}),
    ] {
        assert_eq!(params(&place).unwrap_err(), Place, "{place}");
    }
    let many: serde_json::Map<String, Value> = (0..65)
        .map(|n| (format!("p{n}"), json!({"type": "string", "x-mcp-header": format!("P{n}")})))
        .collect();
    assert_eq!(params(&json!({"properties": many})).unwrap_err(), TooMany);
}

#[test]
fn c10_what_is_no_schema_mirrors_nothing() {
    for schema in [json!({}), json!(true), json!("x"), json!({"properties": []}), json!(null)] {
        assert!(params(&schema).unwrap().is_empty(), "{schema}");
    }
    // A property may have the name of a keyword.
    let property = json!({"properties": {"properties": {"type": "string", "x-mcp-header": "A"},
        "x-mcp-header": {"type": "string"}}});
    assert_eq!(params(&property).unwrap().headers().collect::<Vec<_>>(), ["mcp-param-a"]);
}

#[test]
fn c10_lists_tell_of_every_tool_in_json_and_in_events() {
    let tools = json!([{"name": "shown", "inputSchema": schema()}, {"name": "hidden", "inputSchema": schema()},
        {"name": "bare"}, {"title": "nameless", "inputSchema": schema()}]);
    let (whole, events) = (Learner::default(), Learner::default());
    let body = list(&tools);
    filter_list(body.as_bytes(), ListKind::Tools, &&whole, Era::Modern, &Limits::default()).unwrap();
    let mut filter = SseFilter::new(Some((ListKind::Tools, "1")), Era::Modern, Limits::default(), &events);
    filter.feed(format!("data: {body}\n\n").as_bytes()).unwrap();
    assert_eq!(whole.0.borrow().as_slice(), events.0.borrow().as_slice());
    let learnt: Vec<_> =
        whole.0.borrow().iter().map(|(name, p)| (name.clone(), p.clone().unwrap())).collect();
    let names: Vec<_> = learnt.iter().map(|(name, params)| (name.as_str(), params.is_empty())).collect();
    assert_eq!(names, [("shown", false), ("hidden", false), ("bare", true)]);
    assert_eq!(
        learnt[0].1.headers().collect::<Vec<_>>(),
        ["mcp-param-dry-run", "mcp-param-level", "mcp-param-region"]
    );
    // Whatever else stands beside them.
    let prompts =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"prompts": [{"name": "p", "inputSchema": schema()}]}});
    let other = Learner::default();
    filter_list(prompts.to_string().as_bytes(), ListKind::Prompts, &&other, Era::Modern, &Limits::default())
        .unwrap();
    assert!(other.0.borrow().is_empty());
}
