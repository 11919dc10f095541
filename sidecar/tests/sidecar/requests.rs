//! What is refused whatever policy says: targets, hosts, media types, bodies.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Call, World};

#[tokio::test]
async fn c21_d15_d36_other_paths_verbs_hosts_and_origins_do_not_reach_the_server() {
    let world = World::start().await;
    let alice = world.alice();
    let list = || Call::list().token(&alice);
    let calls = [
        (list().at("/"), 404, "UnknownPath"),
        (list().at("/mcp/"), 404, "UnknownPath"),
        (list().at("//mcp"), 404, "UnknownPath"),
        (list().at("/mcp;x=1"), 404, "UnknownPath"),
        (list().at("/x/../mcp"), 404, "UnknownPath"),
        (list().at("/%6dcp"), 404, "UnknownPath"),
        (list().at("/metrics"), 404, "UnknownPath"),
        (list().at("/readyz"), 404, "UnknownPath"),
        (list().at("/mcp?a=b"), 400, "QueryNotAllowed"),
        (list().method(Method::PUT), 405, "VerbNotAllowed"),
        (list().method(Method::OPTIONS), 405, "VerbNotAllowed"),
        (list().method(Method::PATCH), 405, "VerbNotAllowed"),
        (list().header("upgrade", "websocket"), 400, "UpgradeNotAllowed"),
        (list().header("upgrade", "h2c"), 400, "UpgradeNotAllowed"),
        (list().header("origin", "https://evil.example"), 403, "OriginNotAllowed"),
        (list().header("origin", "null"), 403, "OriginNotAllowed"),
        (list().header("origin", "https://hr.example.com.evil.example"), 403, "OriginNotAllowed"),
    ];
    for (call, status, reason) in calls {
        let answer = world.send(call).await;
        assert_eq!(answer.status, status, "{reason} {answer:?}");
        let record = world.last_record().await;
        assert_eq!(record["reason"], reason);
        assert_eq!(record["status"], status);
    }
    assert!(world.server.seen().is_empty());
    let own = list().header("origin", "https://hr.example.com");
    assert_eq!(world.send(own).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn c22_d25_only_plain_json_is_read() {
    let world = World::start().await;
    let alice = world.alice();
    let list = || Call::list().token(&alice);
    let calls = [
        (list().without("content-type"), 415),
        (list().without("content-type").header("content-type", "text/plain"), 415),
        (list().without("content-type").header("content-type", "application/json; charset=utf-16"), 415),
        (list().header("content-type", "application/json"), 415),
        (list().header("content-encoding", "gzip"), 415),
        (list().without("accept"), 406),
        (list().without("accept").header("accept", "application/json"), 406),
    ];
    for (call, status) in calls {
        let answer = world.send(call).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["error"]["code"].is_i64());
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c3_d19_to_d26_a_message_that_could_be_read_in_two_ways_is_refused() {
    let world = World::start().await;
    let alice = world.alice();
    let big = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"x\":\"{}\"}}}}",
        "x".repeat(4 * 1024 * 1024)
    );
    let bodies: Vec<(&str, Vec<u8>, u16)> = vec![
        ("c3 batch", b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]".to_vec(), 400),
        ("d24 empty", Vec::new(), 400),
        ("d24 two objects", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}{}".to_vec(), 400),
        ("d19 duplicate", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"method\":\"tools/call\"}".to_vec(), 400),
        ("d20 look-alike", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"directory.search\",\"Name\":\"salary.get\"}}".to_vec(), 400),
        ("d19 bom", b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}".to_vec(), 400),
        ("d25 utf-16", "{\"jsonrpc\":\"2.0\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(), 400),
        ("d23 no version", b"{\"id\":1,\"method\":\"ping\"}".to_vec(), 400),
        ("d23 tools/call without an id", b"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"directory.search\"}}".to_vec(), 400),
        ("d26 too large", big.into_bytes(), 413),
    ];
    for (name, body, status) in bodies {
        let answer = world.send(Call::body(body).token(&alice)).await;
        assert_eq!(answer.status, status, "{name} {answer:?}");
        assert_eq!(answer.json()["jsonrpc"], "2.0", "{name}");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c7_c8_headers_that_mirror_the_body_must_agree_with_it() {
    let world = World::start().await;
    let alice = world.alice();
    let call =
        || Call::modern("tools/call", json!({"name": "directory.search", "arguments": {}})).token(&alice);
    assert_eq!(world.send(call()).await.status, 200);
    let before = world.server.seen().len();
    for bad in [
        call().without("mcp-name"),
        call().without("mcp-name").header("mcp-name", "salary.get"),
        call().header("mcp-name", "directory.search"),
        call().without("mcp-method").header("mcp-method", "tools/list"),
        call().without("mcp-protocol-version").header("mcp-protocol-version", "2025-06-18"),
    ] {
        let answer = world.send(bad).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["code"], -32_020, "{answer:?}");
        assert_eq!(answer.json()["id"], 7);
    }
    let unknown = Call::list().token(&alice).header("mcp-protocol-version", "2099-01-01");
    let answer = world.send(unknown).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], -32_022);
    assert_eq!(answer.json()["error"]["data"]["requested"], "2099-01-01");
    assert_eq!(answer.json()["error"]["data"]["supported"][0], "2026-07-28");
    assert_eq!(world.server.seen().len(), before);
    world.stop().await;
}

/// Sends bytes as they are and gives what comes back until the sidecar closes.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.app.addresses.inbound).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // What was not read any more when the sidecar closed makes an error of the end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn d15_d17_requests_that_are_not_plain_http_do_not_reach_the_server() {
    let world = World::start().await;
    let alice = world.alice();
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    let head = format!(
        "Connection: close\r\nAuthorization: Bearer {alice}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    );
    let length = body.len();
    let requests = [
        format!(
            "POST http://evil.example/mcp HTTP/1.1\r\nHost: evil.example\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        ),
        format!("POST /mcp HTTP/1.1\r\nHost: a\r\nHost: b\r\n{head}Content-Length: {length}\r\n\r\n{body}"),
        format!(
            "POST /mcp HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {length}\r\nContent-Length: 3\r\n\r\n{body}"
        ),
        format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{head}Transfer-Encoding: xchunked\r\n\r\n{body}"),
        format!(
            "POST /mcp HTTP/1.1\r\nHost: a\r\n{head}X: a\r\n folded\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{head}X : a\r\nContent-Length: {length}\r\n\r\n{body}"),
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ];
    let count = requests.len();
    for request in requests {
        let answer = raw(&world, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{request}\n{answer}");
    }
    let records = world.records_of(count).await;
    assert_eq!(records.len(), count);
    assert!(records.iter().all(|r| r["decision"] == "Refuse"));
    assert!(world.server.seen().is_empty());
}

/// What the record says, and what of the request is doubtful; `@` stands for its good headers, and `{}`
/// for the good body's length.
const DOUBTFUL: [(&str, &str); 16] = [
    (
        "FramingLengthAndCoding",
        "POST /mcp HTTP/1.1\r\n@Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "FramingLengthAndCoding",
        "POST /mcp HTTP/1.1\r\n@Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n",
    ),
    ("FramingSeveralLengths", "POST /mcp HTTP/1.1\r\n@Content-Length: {}\r\nContent-Length: {}\r\n\r\n"),
    ("FramingLength", "POST /mcp HTTP/1.1\r\n@Content-Length: +{}\r\n\r\n"),
    ("FramingTransferCoding", "POST /mcp HTTP/1.1\r\n@Transfer-Encoding: chunked, identity\r\n\r\n"),
    ("FramingTransferCoding", "POST /mcp HTTP/1.0\r\n@Transfer-Encoding: chunked\r\n\r\n"),
    ("FramingBareLineFeed", "POST /mcp HTTP/1.1\r\n@X: a\nContent-Length: {}\r\n\r\n"),
    ("FramingBareLineFeed", "POST /mcp HTTP/1.1\n@Content-Length: {}\r\n\r\n"),
    ("FramingControlCharacter", "POST /mcp HTTP/1.1\r\n@X: a\0b\r\nContent-Length: {}\r\n\r\n"),
    ("FramingFoldedHeader", "POST /mcp HTTP/1.1\r\n@X: a\r\n b\r\nContent-Length: {}\r\n\r\n"),
    ("FramingHeaderName", "POST /mcp HTTP/1.1\r\n@Content-Length : {}\r\n\r\n"),
    ("FramingStartLine", "POST /mcp#x HTTP/1.1\r\n@Content-Length: {}\r\n\r\n"),
    ("FramingStartLine", "PRI * HTTP/2.0\r\n\r\nPOST /mcp HTTP/1.1\r\n@Content-Length: {}\r\n\r\n"),
    ("BodyUnreadable", "POST /mcp HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n"),
    ("BodyUnreadable", "POST /mcp HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n1 \r\n"),
    ("BodyUnreadable", "POST /mcp HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n1\r\n{}\n"),
];

#[tokio::test]
async fn d17_nothing_behind_a_doubtful_request_is_a_request() {
    let world = World::start().await;
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    let headers = format!(
        "Host: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n",
        world.alice()
    );
    let good = format!(
        "POST /mcp HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for (n, (reason, doubtful)) in DOUBTFUL.into_iter().enumerate() {
        let doubtful = doubtful.replace('@', &headers).replace("{}", &body.len().to_string());
        let answer = raw(&world, format!("{doubtful}{body}{good}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{doubtful}\n{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{doubtful}\n{answer}");
        let records = world.records_of(n + 1).await;
        assert_eq!((records.len(), &records[n]["reason"]), (n + 1, &json!(reason)), "{doubtful}");
    }
    assert!(world.server.seen().is_empty());
    assert!(
        raw(&world, good.as_bytes()).await.starts_with("HTTP/1.1 200 "),
        "nothing was wrong with the second"
    );
}

#[tokio::test]
async fn the_kept_host_is_judged_before_it_is_kept() {
    let world = World::with(|policy| policy["servers"][0]["host"] = "Keep".into()).await;
    let alice = world.alice();
    let answer = world.send(Call::list().token(&alice)).await;
    assert_eq!(answer.status, 421);
    assert_eq!(world.last_record().await["reason"], "HostNotAllowed");
    assert!(world.server.seen().is_empty());
    assert_eq!(world.send(Call::list().token(&alice).header("host", "hr.example.com")).await.status, 200);
    assert_eq!(world.server.last().header("host"), Some("hr.example.com"));
    world.stop().await;
}

#[tokio::test]
async fn d17_http_2_is_judged_like_http_1() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let world = World::start().await;
    let to = world.app.addresses.inbound;
    let stream = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |call: Call| {
        let mut request = http::Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = format!("http://hr.example.com{}", call.path).parse().unwrap();
        *request.headers_mut() = call.headers;
        request
    };
    let alice = world.alice();
    let cases = [
        (Call::tool("salary.get").token(&alice), 200),
        (Call::tool("salary.get"), 401),
        (Call::tool("salary.get").token(&alice).token(&alice), 400),
        (Call::tool("salary.get").token(&alice).header("host", "evil.example"), 400),
        (Call::tool("salary.get").token(&world.bob()), 403),
    ];
    let count = cases.len();
    for (call, status) in cases {
        let answer = sender.send_request(request(call)).await.unwrap();
        assert_eq!(answer.status(), status);
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(world.server.seen().len(), 1);
    assert_eq!(world.records_of(count).await.len(), count);
    connection.abort();
}
