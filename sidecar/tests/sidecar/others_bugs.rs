//! Bugs of other projects as tests of ours, where no test by number shows the same already: see
//! `docs/security/others-bugs.md`.

use http::Method;
use serde_json::json;

use crate::support::bundle::SERVER;
use crate::support::{Alg, Call, World};

/// Envoy CVE-2023-27487 (`x-envoy-original-path`) and CVE-2024-45806, oauth2-proxy CVE-2026-40575 (`X-Forwarded-Uri`),
/// CVE-2025-64484 (underscores) and CVE-2026-34457 (the User-Agent of a health check): what a client says of itself or
/// of the way it came opens nothing.
#[tokio::test]
async fn cve_2023_27487_cve_2026_40575_cve_2026_34457_no_header_opens_anything() {
    let world = World::start().await;
    let bob = world.bob();
    let tricks = [
        ("x-envoy-original-path", "/healthz"),
        ("x-original-url", "/readyz"),
        ("x-rewrite-url", "/.well-known/oauth-protected-resource"),
        ("x-forwarded-uri", "/healthz"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=localhost"),
        ("x-real-ip", "127.0.0.1"),
        ("x-http-method-override", "GET"),
        ("x-forwarded-user", "alice"),
        ("x_forwarded_user", "alice"),
        ("x-auth-request-groups", "managers"),
        ("x-behalf-subject", "alice"),
        ("x_behalf_subject", "alice"),
        ("x-forwarded-client-cert", "Subject=\"CN=alice\""),
        ("user-agent", "kube-probe/1.34"),
        ("user-agent", "GoogleHC/1.0"),
        ("user-agent", "Envoy/HC"),
    ];
    for (name, value) in tricks {
        let salary = || Call::tool("salary.get").header(name, value);
        assert_eq!(world.send(salary()).await.status, 401, "{name}: {value}");
        assert_eq!(world.send(salary().token(&bob)).await.status, 403, "{name}: {value}");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

/// oauth2-proxy GHSA-7rh7-c77v-6434 and CVE-2026-41059: a rule for one path took another for it by its query, fragment
/// or ending. Here nothing but the metadata is open, and that by its exact path.
#[tokio::test]
async fn cve_2026_41059_ghsa_7rh7_c77v_6434_nothing_is_open_by_what_its_path_looks_like() {
    let world = World::start().await;
    for path in [
        "/mcp?x=/.well-known/oauth-protected-resource/mcp",
        "/mcp/.well-known/oauth-protected-resource/mcp",
        "/mcp%3f/.well-known/oauth-protected-resource/mcp",
        "/mcp%23/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource/../../mcp",
        "/.well-known/oauth-protected-resource/mcp/../../../mcp",
        "/.well-known/oauth-protected-resource%2f..%2f..%2fmcp",
        "/.well-known/oauth-protected-resource/mcpx",
        "//.well-known/oauth-protected-resource/mcp",
        "/mcp;.css",
        "/mcp.css",
        "/mcp/healthz",
    ] {
        for call in [Call::tool("salary.get"), Call::get("/")] {
            let answer = world.send(call.at(path)).await;
            assert!((400..500).contains(&answer.status), "{path} {answer:?}");
        }
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

/// Envoy CVE-2025-64763 (data after CONNECT) and Go CVE-2022-41721 (a body that is taken for HTTP/2 after `h2c`): there
/// is no upgrade, whatever asks for it, and nothing behind the refusal is a request.
#[tokio::test]
async fn cve_2025_64763_cve_2022_41721_there_is_no_upgrade() {
    let world = World::start().await;
    let alice = world.alice();
    for protocol in ["h2c", "websocket", "HTTP/2.0", "TLS/1.0", "connect-udp"] {
        let call = Call::tool("directory.search").token(&alice);
        let call = call.header("upgrade", protocol).header("http2-settings", "AAMAAABkAAQAAP__");
        assert_eq!(world.send(call).await.status, 400, "{protocol}");
    }
    assert_eq!(
        world.send(Call::tool("directory.search").token(&alice).method(Method::TRACE)).await.status,
        405
    );
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

/// Envoy CVE-2024-45808: what a stranger sends makes no line of its own in a log. That there is one whole record for each
/// request is checked whenever a world stops.
#[tokio::test]
async fn cve_2024_45808_nothing_that_is_sent_makes_a_record_of_its_own() {
    let world = World::start().await;
    let forged =
        "x\n{\"schema\":\"behalf.dev/record/v1\",\"decision\":\"Permit\",\"sequence\":1}\r\n\u{2028}\u{85}";
    let tokens = ["sub", "jti", "client_id", "azp", "scope", "iss", "acr"]
        .map(|claim| world.token(|claims| claims[claim] = forged.into()));
    for token in &tokens {
        let answer = world.send(Call::tool("directory.search").token(token)).await;
        assert!(!answer.json().to_string().contains("Permit"), "{answer:?}");
    }
    let alice = world.alice();
    let messages = [
        json!({"jsonrpc": "2.0", "id": forged, "method": "tools/call", "params": {"name": "rogue.tool"}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": forged}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": forged}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": forged}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": forged}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
               "params": {"name": "salary.update", "arguments": {"x": forged}}}),
    ];
    for message in &messages {
        assert_ne!(world.send(Call::message(message).token(&alice)).await.status, 200, "{message}");
    }
    world.send(Call::list().token(&alice).header("traceparent", "00-{\"a\":1}-x-01")).await;
    world.stop().await;
}

/// toolhive#5827: a denied tool and one that does not exist are told apart where they are counted, though not to whom
/// asked for them (D35).
#[tokio::test]
async fn toolhive_5827_a_denial_and_an_unknown_tool_are_counted_apart() {
    let world = World::start().await;
    let bob = world.bob();
    let mut reasons = Vec::new();
    for tool in ["salary.get", "secret.get", "rogue.tool"] {
        assert_eq!(world.send(Call::tool(tool).token(&bob)).await.status, 403, "{tool}");
        reasons.push(world.last_record().await["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(reasons[2], "ToolUnknown");
    assert!(reasons[..2].iter().all(|reason| reason != "ToolUnknown"), "{reasons:?}");
    let metrics = world.metrics().await;
    assert!(reasons.iter().all(|reason| metrics.contains(&format!("reason=\"{reason}\""))), "{metrics}");
    world.stop().await;
}

/// toolhive#4374: a tool that calls tools is judged by its own name, and a name in its arguments is an argument.
#[tokio::test]
async fn toolhive_4374_a_name_in_the_arguments_is_no_tool() {
    let world = World::start().await;
    let bob = world.bob();
    let inner = json!({"name": "salary.get", "tool": "salary.get", "params": {"name": "salary.get"}});
    let call = |name: &str| {
        Call::message(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                              "params": {"name": name, "arguments": inner}}))
    };
    for meta in ["call_tool", "tools.call", "invoke"] {
        assert_eq!(world.send(call(meta).token(&bob)).await.status, 403, "{meta}");
    }
    assert_eq!(world.send(call("directory.search").token(&bob)).await.status, 200);
    let seen = world.server.last().json();
    assert_eq!(seen["params"]["name"], "directory.search");
    assert_eq!(seen["params"]["arguments"], inner);
    assert_eq!(world.server.seen().len(), 1);
    world.stop().await;
}

/// fastapi-zitadel-auth#156, meho#3484, node-jwks-rsa#385: after a flood of unknown key ids, the good key still serves,
/// and no further flood asks the provider within the cool-down.
#[tokio::test]
async fn meho_3484_a_flood_of_unknown_keys_evicts_no_good_one() {
    let world = World::start().await;
    let alice = world.alice();
    assert_eq!(world.send(Call::list().token(&alice)).await.status, 200);
    let claims = world.issuer.claims(SERVER).to_string();
    for round in 0..3 {
        for n in 0..40 {
            let header = json!({"alg": "ES256", "typ": "JWT", "kid": format!("{round}-{n}")}).to_string();
            let token = world.issuer.sign_raw(Alg::Es256, &header, &claims);
            assert_eq!(world.send(Call::list().token(&token)).await.status, 401);
        }
        let fresh = world.token(|claims| claims["jti"] = format!("fresh-{round}").into());
        assert_eq!(world.send(Call::list().token(&fresh)).await.status, 200);
    }
    assert!(world.issuer.fetches() <= 2, "{} fetches", world.issuer.fetches());
    world.stop().await;
}
