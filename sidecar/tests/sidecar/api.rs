//! A plain HTTP API behind the sidecar: method and path are judged, everything else as for MCP.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Call, Reply, World};

fn api(serve: &mut Value) {
    let server = &mut serve["servers"][0];
    server["protocol"] = json!("HTTP");
    server["allowedOrigins"] = json!(["https://app.example.com"]);
    let row = |name: &str, methods: &[&str], kind: &str, path: &str, scope: &str, denial: &str| {
        json!({"name": name, "methods": methods, "path": {"type": kind, "value": path}, "scopes": [scope],
               "denial": denial})
    };
    server["routes"] = json!([
        row("items", &["GET", "HEAD"], "Prefix", "/v1/items", "hr:read", "Explain"),
        row("add", &["POST"], "Exact", "/v1/items", "hr:read", "Explain"),
        row("salary", &["GET"], "Exact", "/v1/items/salary", "hr:salary:read", "Explain"),
        row("secret", &["GET"], "Exact", "/v1/items/secret", "hr:salary:read", "Hide"),
        row("notes", &["PUT"], "Template", "/v1/items/{id}/notes", "hr:read", "Explain"),
    ]);
    let mut pay = row("pay", &["POST"], "Exact", "/v1/pay", "hr:salary:read", "Explain");
    pay["downstreams"] = json!([{"name": "payroll", "scopes": ["payroll:read"]}]);
    server["routes"].as_array_mut().unwrap().push(pay);
}

fn request(method: Method, path: &str) -> Call {
    Call::get(path).method(method)
}

fn reason(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["status"], answer.status);
    body["reason"].as_str().unwrap().to_owned()
}

fn echo(world: &World) {
    world.server.behave(|_| Some(Reply::new(200, "application/json", "{}").header("x-own", "1")));
}

#[tokio::test]
async fn a_route_has_its_own_limit() {
    let world = World::with(|policy| {
        api(policy);
        policy["rateLimits"] =
            json!([{"name": "notes", "per": "Subject", "requests": 1, "period": 60, "tools": ["notes"]}]);
    })
    .await;
    echo(&world);
    let bob = world.bob();
    let send = |method: Method, path: &str| world.send(request(method, path).token(&bob));
    assert_eq!(send(Method::PUT, "/mcp/v1/items/7/notes").await.status, 200);
    let refused = send(Method::PUT, "/mcp/v1/items/8/notes").await;
    assert_eq!((refused.status, reason(&refused).as_str()), (429, "RateLimited"));
    assert_eq!(refused.header("retry-after"), Some("60"));
    let record = world.last_record().await;
    assert_eq!(record["rateLimit"], json!({"name": "notes", "per": "Subject"}));
    assert_eq!(send(Method::GET, "/mcp/v1/items/7").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn c14_a_route_is_judged_by_method_and_path_and_the_rest_is_refused() {
    let world = World::with(api).await;
    echo(&world);
    let bob = world.bob();
    for (method, path, status, why) in [
        (Method::GET, "/mcp/v1/items", 200, None),
        (Method::GET, "/mcp/v1/items/7?q=a%20b&q=%2e%2e", 200, None),
        (Method::HEAD, "/mcp/v1/items/7", 200, None),
        (Method::PUT, "/mcp/v1/items/7/notes", 200, None),
        (Method::GET, "/mcp/v1/items/salary", 403, Some("NotEntitled")),
        (Method::GET, "/mcp/v1/items/secret", 404, Some("RouteUnknown")),
        (Method::GET, "/mcp/v1/else", 404, Some("RouteUnknown")),
        (Method::DELETE, "/mcp/v1/items", 404, Some("RouteUnknown")),
        (Method::OPTIONS, "/mcp/v1/items", 404, Some("RouteUnknown")),
        (Method::TRACE, "/mcp/v1/items", 405, Some("VerbNotAllowed")),
        (Method::from_bytes(b"get").unwrap(), "/mcp/v1/items", 405, Some("VerbNotAllowed")),
        (Method::GET, "/v1/items", 404, Some("UnknownPath")),
        (Method::GET, "/mcpx/v1/items", 404, Some("UnknownPath")),
        (Method::GET, "/mcp/v1/items?access_token=x", 400, Some("InvalidRequest")),
    ] {
        let before = world.server.seen().len();
        let answer = world.send(request(method.clone(), path).token(&bob)).await;
        assert_eq!(answer.status, status, "{method} {path}");
        match why {
            None => {
                let seen = world.server.last();
                assert_eq!((&seen.method, seen.target.as_str()), (&method, path));
                assert_eq!(seen.header("authorization"), None);
                assert_eq!(answer.header("x-own"), Some("1"));
            }
            Some(why) => {
                if method != Method::HEAD {
                    assert_eq!(reason(&answer), why, "{method} {path}");
                }
                assert_eq!(world.server.seen().len(), before, "{method} {path}");
            }
        }
    }
    let records = world.stop().await;
    assert_eq!(records[0]["tool"], "items");
    assert_eq!(records[0]["method"], "HTTP GET");
    assert_eq!(records[4]["tool"], "salary");
}

#[tokio::test]
async fn d15_a_path_that_can_be_read_two_ways_reaches_no_server() {
    let world = World::with(api).await;
    let bob = world.bob();
    for path in [
        "/mcp/v1/items/../admin",
        "/mcp/v1/items/%2e%2e/admin",
        "/mcp/v1/items/%2E./admin",
        "/mcp/v1/items/%252e%252e/admin",
        "/mcp/v1/items/.",
        "/mcp/v1/items//salary",
        "/mcp//v1/items",
        "//mcp/v1/items",
        "/mcp/v1/items/a%2fb",
        "/mcp/v1/items/a%5cb",
        "/mcp/v1/items/salary;x=1",
        "/mcp/v1/items/salary%3bx",
        "/mcp/v1/items/salary/",
        "/mcp/v1/items/SALARY",
        "/mcp/v1/items/s%61lary",
        "/mcp/v1/items/a%00",
        "/mcp/v1/items/%ff",
        "/mcp/v1/items/%zz",
        "/mcp/../mcp/v1/items",
        "/%6dcp/v1/items",
        "/MCP/v1/items",
    ] {
        let answer = world.send(request(Method::GET, path).token(&bob)).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(world.server.seen().is_empty(), "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn d15_no_header_makes_the_server_take_another_method_or_path() {
    let world = World::with(api).await;
    echo(&world);
    let mut call = request(Method::GET, "/mcp/v1/items").token(&world.bob());
    let names = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x_http_method_override",
        "cookie",
        "x-forwarded-for",
    ];
    for name in names {
        call = call.header(name, "DELETE");
    }
    assert_eq!(world.send(call.header("x-own", "1")).await.status, 200);
    let seen = world.server.last();
    assert_eq!(seen.header("x-own"), Some("1"));
    for name in names {
        assert_eq!(seen.header(name), None, "{name}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a1_a16_challenges_of_an_api_are_those_of_mcp() {
    let world = World::with(api).await;
    let answer = world.send(request(Method::GET, "/mcp/v1/items")).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (401, "NoCredentials"));
    assert!(answer.challenge().unwrap().contains("resource_metadata="));
    let before = world.token(|claims| claims["scope"] = "hr:read".into());
    let answer = world.send(request(Method::GET, "/mcp/v1/items/salary").token(&before)).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (403, "InsufficientScope"));
    assert!(answer.challenge().unwrap().contains("scope=\"hr:read hr:salary:read\""));
    let answer = world.send(request(Method::GET, "/mcp/v1/items/secret").token(&before)).await;
    assert_eq!((answer.status, reason(&answer).as_str(), answer.challenge()), (404, "RouteUnknown", None));
    let wrong = world.token(|claims| claims["aud"] = "https://else.example.com".into());
    let answer = world.send(request(Method::GET, "/mcp/v1/items").token(&wrong)).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (401, "InvalidToken"));
    world.stop().await;
}

#[tokio::test]
async fn d26_bodies_pass_as_they_come_up_to_their_bound() {
    let world = World::with(api).await;
    echo(&world);
    let bob = world.bob();
    let post = |body: Vec<u8>| {
        let mut call =
            request(Method::POST, "/mcp/v1/items").header("content-type", "application/octet-stream");
        call.body = body.into();
        call.token(&bob)
    };
    let body = vec![0xff; 3 * 1024 * 1024];
    assert_eq!(world.send(post(body.clone())).await.status, 200);
    assert_eq!(world.server.last().body, body);
    assert_eq!(world.server.last().header("content-length"), Some("3145728"));
    let answer = world.send(post(vec![0; 32 * 1024 * 1024 + 1])).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (413, "BodyTooLarge"));
    assert_eq!(world.server.seen().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn d1_a_route_with_downstreams_gets_a_handle_by_header_and_no_other_does() {
    let world = World::with(api).await;
    echo(&world);
    let alice = world.alice();
    assert_eq!(world.send(request(Method::POST, "/mcp/v1/pay").token(&alice)).await.status, 200);
    let handle = world.server.last().header("authorization").unwrap().to_owned();
    assert!(handle.starts_with("Bearer behalf_"));
    assert_eq!(world.send(request(Method::GET, "/mcp/v1/items/salary").token(&alice)).await.status, 200);
    assert_eq!(world.server.last().header("authorization"), None);
    world.stop().await;
}

#[tokio::test]
async fn c21_d36_a_listed_page_may_ask_call_and_see_the_answer_and_no_other() {
    for change in [api as fn(&mut Value), |serve: &mut Value| {
        serve["servers"][0]["allowedOrigins"] = json!(["https://app.example.com"]);
    }] {
        let world = World::with(change).await;
        echo(&world);
        let preflight = |origin: &str| {
            request(Method::OPTIONS, "/mcp")
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization, mcp-method")
        };
        for origin in ["https://app.example.com", "https://hr.example.com"] {
            let answer = world.send(preflight(origin)).await;
            assert_eq!(answer.status, 204);
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, mcp-method"));
            assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            // The challenge of the call itself can be read by the script that must log in.
            let answer = world.send(request(Method::POST, "/mcp").header("origin", origin)).await;
            assert!(answer.status >= 400);
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            let exposed = answer.header("access-control-expose-headers").unwrap();
            for name in ["WWW-Authenticate", "DPoP-Nonce", "Mcp-Session-Id", "Retry-After"] {
                assert!(exposed.contains(name), "{name}");
            }
        }
        for origin in [
            "null",
            "https://evil.example.com",
            "https://app.example.com.evil.com",
            "https://evilapp.example.com",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://APP.example.com",
            "https://app.example.com/",
            "https://app.example.com https://evil.example.com",
            "*",
            "",
        ] {
            for call in [
                preflight(origin),
                request(Method::POST, "/mcp").token(&world.alice()).header("origin", origin),
            ] {
                let answer = world.send(call).await;
                assert_eq!(answer.status, 403, "{origin}");
                assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
                assert_eq!(world.last_record().await["reason"], "OriginNotAllowed");
            }
        }
        let twice = preflight("https://app.example.com").header("origin", "https://app.example.com");
        assert_eq!(world.send(twice).await.status, 403);
        assert!(world.server.seen().is_empty());
        world.stop().await;
    }
}

#[tokio::test]
async fn d16_the_server_says_nothing_about_who_may_see_its_answers() {
    let world = World::with(api).await;
    world.server.behave(|_| {
        Some(
            Reply::new(200, "application/json", "{}")
                .header("access-control-allow-origin", "*")
                .header("access-control-allow-credentials", "true")
                .header("www-authenticate", "Basic")
                .header("set-cookie", "a=b")
                .header("behalf-request-id", "forged"),
        )
    });
    let answer = world.send(request(Method::GET, "/mcp/v1/items").token(&world.bob())).await;
    for name in
        ["access-control-allow-origin", "access-control-allow-credentials", "www-authenticate", "set-cookie"]
    {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_ne!(answer.header("behalf-request-id"), Some("forged"));
    world.stop().await;
}

#[tokio::test]
async fn c21_the_metadata_can_be_read_by_every_page() {
    let world = World::start().await;
    let path = "/.well-known/oauth-protected-resource/mcp";
    let answer = world.send(request(Method::GET, path).header("origin", "https://else.example.com")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    let preflight = request(Method::OPTIONS, path)
        .header("origin", "https://else.example.com")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "mcp-protocol-version");
    let answer = world.send(preflight).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
    world.stop().await;
}
