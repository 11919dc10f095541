//! Which URIs and paths fall under the pattern of a row: those of one reading; and which patterns do not load.

use behalf_policy::bundle::{Bundle, HttpMethod, LoadError};
use behalf_policy::decide::{Operation, decide};
use behalf_policy::decision::Reason;
use behalf_policy::pattern::PatternType;

use super::support::*;
use super::{ALL, api, mcp, permitted, refusal, resource, route};

#[test]
fn d15_a_uri_that_can_be_read_two_ways_falls_under_no_pattern() {
    let bundle = mcp();
    for uri in [
        "hr://reports/a",
        "hr://reports/a/b",
        "hr://reports/a%20b",
        "hr://reports/%C3%A9",
        "hr://people/42",
        "hr://people/a@b.example",
        "file:///srv/docs",
        "file:///srv/docs/a.md",
        "hr://find?q=a%26b",
    ] {
        assert!(permitted(&bundle, Operation::ReadResource(uri)), "{uri}");
    }
    for uri in [
        "hr://reports",
        "hr://reportsx/a",
        "hr://reports/../handbook2",
        "hr://reports/a/../../x",
        "hr://reports/%2e%2e/x",
        "hr://reports/%252e%252e/x",
        "hr://reports/a%2Fb",
        "hr://reports/a%5cb",
        "hr://reports/a\\b",
        "hr://reports//pay",
        "hr://reports/pa%79",
        "hr://reports/PAY",
        "hr://reports/pay/",
        "hr://reports/pay;x",
        "hr://reports/pay%3bx",
        "hr://reports/pay?x",
        "hr://reports/pay#x",
        "hr://reports/pay%00",
        "hr://reports/a b",
        "hr://reports/é",
        "hr://reports/%ff",
        "hr://reports/%2",
        "hr://people/",
        "hr://people/a/b",
        "hr://people/a%2fpayslip",
        "hr://people/{id}",
        "file:///srv/docsecret",
        "file:///srv/docs/../etc/passwd",
        "file://host/srv/docs/a",
        "FILE:///srv/docs/a",
        "hr://find?q=a&r=b",
        "hr://find?q=",
        "https://reports/a",
        "",
    ] {
        assert!(!permitted(&bundle, Operation::ReadResource(uri)), "{uri}");
    }
}

#[test]
fn d15_a_path_that_can_be_read_two_ways_falls_under_no_route() {
    use HttpMethod::{Get, Post};
    let bundle = api();
    for (method, path) in [
        (Get, "/"),
        (Get, "/v1/items"),
        (Get, "/v1/items/"),
        (Get, "/v1/items/7"),
        (Get, "/v1/items/7/notes"),
        (Post, "/v1/items/7/notes"),
        (Get, "/v1/items/a%20b"),
    ] {
        assert!(permitted(&bundle, Operation::Http(method, path)), "{path}");
    }
    for (method, path) in [
        (Post, "/v1/items/7"),
        (Post, "/v1/items/7/8/notes"),
        (Post, "/v1/items//notes"),
        (Post, "/v1/items/%2e/notes"),
        (Get, "/v1/items/salary"),
        (Get, "/v1/items/salary/"),
        (Get, "/v1/items/SALARY"),
        (Get, "/v1/items/s%61lary"),
        (Get, "/v1/items/./salary"),
        (Get, "/v1/items/x/../salary"),
        (Get, "/v1/items/x/%2e%2e/salary"),
        (Get, "/v1/items/x/%252e%252e/salary"),
        (Get, "/v1/items//salary"),
        (Get, "/v1/items/x%2f..%2fsalary"),
        (Get, "/v1/items%2fsalary"),
        (Get, "/v1/items/salary;a=b"),
        (Get, "/v1/items/;/salary"),
        (Get, "/v1/items/x\\..\\salary"),
        (Get, "/v1/items/salary%00"),
        (Get, "/v1/itemsx"),
        (Get, "/V1/items/7"),
        (Get, "//v1/items"),
        (Get, "/v2"),
        (Get, "v1/items"),
        (Get, "*"),
        (Get, ""),
        (HttpMethod::Head, "/v1/items"),
        (HttpMethod::Options, "/v1/items"),
        (HttpMethod::Delete, "/v1/items/7"),
    ] {
        assert!(!permitted(&bundle, Operation::Http(method, path)), "{method:?} {path}");
    }
    let refusal = refusal(decide(&bundle, &alice(&ALL), Operation::Http(Get, "/v2"), NOW));
    assert_eq!((refusal.reason, refusal.explain), (Reason::RouteUnknown, false));
}

#[test]
fn a_pattern_that_matches_nothing_or_more_than_it_seems_to_does_not_load() {
    use PatternType::{Exact, Prefix, Template};
    for (type_, uri) in [
        (Exact, ""),
        (Exact, "no-scheme"),
        (Exact, "hr://a b"),
        (Exact, "hr://é"),
        (Exact, "hr://{id}"),
        (Prefix, "hr://a/../"),
        (Prefix, "hr://a//b/"),
        (Prefix, "hr://%61/"),
        (Prefix, "*"),
        (Prefix, "hr://{id}/"),
        (Template, "hr://plain"),
        (Template, "hr://{a}{b}"),
        (Template, "hr://{}"),
        (Template, "hr://{+path}"),
        (Template, "hr://{a*}"),
        (Template, "hr://{a"),
        (Template, "hr://a}"),
        (Template, "{scheme}://a"),
    ] {
        let mut document = policy_document();
        document.servers[0].resources = vec![resource("row", type_, uri, "hr:read")];
        let loaded = Bundle::load(super::support::document(document), String::new());
        assert_eq!(loaded, Err(LoadError::Pattern("row".to_owned())), "{type_:?} {uri}");
    }
    for path in ["v1", "hr://a", "/a?b", "/a;b", "/../a"] {
        let mut document = policy_document();
        document.servers[0].routes = vec![route("row", &[HttpMethod::Get], Prefix, path, "hr:read")];
        let loaded = Bundle::load(super::support::document(document), String::new());
        assert_eq!(loaded, Err(LoadError::Pattern("row".to_owned())), "{path}");
    }
}
