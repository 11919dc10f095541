//! Rows of a tool set that are no tools.

use behalf_crds::v1alpha1::AcceptedReason;
use behalf_plan::catalog::check;
use behalf_policy::bundle::Protocol;
use serde_json::{Value, json};

use crate::fixtures::{catalog, catalog_value, gathered_with, identity_value, plan, provider_value, written};

fn with_rows() -> Value {
    let mut value = catalog_value();
    let set = &mut value["spec"]["toolSets"][0];
    set["prompts"] = json!([{"name": "brief me", "scopes": ["hr:read"], "denial": "Hide"}]);
    set["resources"] = json!([
        {"name": "handbook", "uri": {"value": "hr://handbook"}, "scopes": ["hr:read"]},
        {"name": "reports", "uri": {"type": "Prefix", "value": "hr://reports/"}, "scopes": ["hr:salary:read"]},
    ]);
    set["routes"] = json!([
        {"name": "items", "methods": ["GET", "HEAD"], "path": {"type": "Prefix", "value": "/v1/items"}, "scopes": ["hr:read"]},
        {"name": "pay", "methods": ["POST"], "path": {"type": "Template", "value": "/v1/items/{id}/pay"},
         "scopes": ["hr:salary:read"],
         "downstreams": [{"name": "payroll", "scopes": ["payroll:read"]}, {"name": "ledger", "scopes": ["ledger:read"]}]},
    ]);
    value
}

#[test]
fn c14_prompts_resources_and_routes_reach_the_bundle() {
    let mut identity = identity_value();
    identity["spec"]["servers"][0]["protocol"] = json!("HTTP");
    identity["spec"]["servers"][0]["allowedOrigins"] = json!(["https://app.example.com"]);
    let policy = written(&plan(&gathered_with(identity, with_rows(), provider_value("corp"))));
    let server = &policy.servers[0];
    assert_eq!(server.protocol, Protocol::Http);
    assert!(server.allowed_origins.contains("https://app.example.com"));
    assert_eq!(server.prompts[0].name.as_str(), "brief me");
    assert_eq!(server.resources.len(), 2);
    assert_eq!(server.routes.len(), 2);
    // The ledger is in the catalogue's row, but the identity does not list it.
    let leads: Vec<_> = server.routes[1].downstreams.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(leads, ["payroll"]);
}

#[test]
fn a_limit_of_an_api_names_its_routes_and_no_tools() {
    for (protocol, row, accepted) in [
        ("HTTP", "pay", true),
        ("HTTP", "salary.get", false),
        ("HTTP", "handbook", false),
        ("MCP", "salary.get", true),
        ("MCP", "pay", false),
    ] {
        let mut identity = identity_value();
        identity["spec"]["servers"][0]["protocol"] = json!(protocol);
        identity["spec"]["rateLimits"] =
            json!([{"name": "few", "per": "Tool", "requests": 1, "period": "1s", "tools": [row]}]);
        let desired = plan(&gathered_with(identity, with_rows(), provider_value("corp")));
        if accepted {
            assert_eq!(written(&desired).rate_limits.len(), 1, "{protocol} {row}");
            continue;
        }
        assert_eq!(desired.accepted.reason, AcceptedReason::UnknownTool, "{protocol} {row}");
        let rows = if protocol == "HTTP" { ".routes[*].name" } else { ".tools[*].name" };
        assert!(desired.accepted.message.contains(rows), "{}", desired.accepted.message);
    }
}

#[test]
fn a_row_that_cannot_be_right_is_named_with_what_to_change() {
    for (pointer, value, reason, says) in [
        ("/prompts/0/scopes", json!(["hr:typo"]), AcceptedReason::UnknownScope, "Prompt brief me"),
        ("/prompts/0/scopes", json!([]), AcceptedReason::Invalid, "prompt brief me"),
        ("/resources/0/scopes", json!(["hr:typo"]), AcceptedReason::UnknownScope, "Resource handbook"),
        ("/resources/0/uri/value", json!("handbook"), AcceptedReason::Invalid, "A URI has a scheme"),
        ("/resources/1/uri/value", json!("hr://a/../"), AcceptedReason::Invalid, "dot segments"),
        ("/resources/1/name", json!("handbook"), AcceptedReason::Invalid, "handbook is twice"),
        ("/routes/0/path/value", json!("v1"), AcceptedReason::Invalid, "starts with a slash"),
        ("/routes/1/path/value", json!("/v1/{a}{b}"), AcceptedReason::Invalid, "side by side"),
        ("/routes/0/methods", json!([]), AcceptedReason::Invalid, "Name at least one"),
        ("/routes/1/downstreams/0/name", json!("nowhere"), AcceptedReason::UnknownDownstream, "Route pay"),
        ("/routes/1/downstreams/0/scopes", json!(["x"]), AcceptedReason::ScopeAboveCeiling, "Route pay"),
    ] {
        let mut rows = with_rows();
        *rows["spec"]["toolSets"][0].pointer_mut(pointer).unwrap() = value;
        let problem = check(&catalog(rows)).unwrap_err();
        assert_eq!(problem.reason, reason, "{pointer}");
        assert!(problem.message.contains(says), "{pointer}: {}", problem.message);
    }
}

#[test]
fn c21_an_origin_that_no_browser_writes_is_not_accepted() {
    for origin in
        ["https://app.example.com/", "https://App.example.com", "null", "https://app.example.com:443"]
    {
        let mut identity = identity_value();
        identity["spec"]["servers"][0]["allowedOrigins"] = json!([origin]);
        let desired = plan(&gathered_with(identity, catalog_value(), provider_value("corp")));
        assert_eq!(desired.accepted.reason, AcceptedReason::Invalid, "{origin}");
    }
}
