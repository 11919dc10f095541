//! Raw bytes against the way out: the downstream gets them as they came, under its base path, or gets
//! nothing, and never another request of that connection.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tap::Tap;
use crate::world::{World, parse};

/// What becomes of a row.
enum Want {
    /// The downstream gets this request line and body.
    Gets(String, &'static str),
    /// It gets nothing; the server gets this status, the record this reason.
    Nothing(u16, &'static str),
    /// It gets no whole request; the status is one of a failure, the record has this reason.
    Broken(&'static str),
}

use Want::{Broken, Gets, Nothing};

/// Paths below `/payroll` that could leave the base path, or that somebody might read so.
const BAD_PATHS: [(&str, &str); 38] = [
    ("/../admin", "PathDotSegment"),
    ("/..", "PathDotSegment"),
    ("/.", "PathDotSegment"),
    ("/a/../../admin", "PathDotSegment"),
    ("/..%2fadmin", "PathDotSegment"),
    ("/..%2Fadmin", "PathDotSegment"),
    ("/%2e%2e/admin", "PathDotSegment"),
    ("/%2E%2e/admin", "PathDotSegment"),
    ("/.%2e/admin", "PathDotSegment"),
    ("/%2e%2e%2fadmin", "PathDotSegment"),
    ("/a%2f..%2f..%2fadmin", "PathDotSegment"),
    ("/%252e%252e/admin", "PathDotSegment"),
    ("/%252e%252e%252fadmin", "PathDotSegment"),
    ("/..%252fadmin", "PathDotSegment"),
    ("/%25%32%65%25%32%65/admin", "PathDotSegment"),
    ("/%ef%bc%8e%ef%bc%8e/admin", "PathDotSegment"),
    ("//admin", "PathEmptyFirstSegment"),
    ("//evil.test/admin", "PathEmptyFirstSegment"),
    ("/%2fadmin", "PathEmptyFirstSegment"),
    ("/%252fadmin", "PathEmptyFirstSegment"),
    ("/a;b", "PathSemicolon"),
    ("/..;/admin", "PathSemicolon"),
    ("/a%3bb", "PathSemicolon"),
    ("/a%253bb", "PathSemicolon"),
    ("/a\\..\\admin", "PathBackslash"),
    ("/..%5cadmin", "PathBackslash"),
    ("/..%255cadmin", "PathBackslash"),
    ("/%ef%bc%bc", "PathBackslash"),
    ("/a%00", "PathControl"),
    ("/a%2500", "PathControl"),
    ("/a%0d%0aHost:%20evil.test", "PathControl"),
    ("/a%7f", "PathControl"),
    ("/%c0%ae%c0%ae/admin", "PathNotUtf8"),
    ("/%c0%afadmin", "PathNotUtf8"),
    ("/a%", "PathPercent"),
    ("/a%2", "PathPercent"),
    ("/%u002e%u002e/admin", "PathPercent"),
    ("/a|b", "PathCharacter"),
];

/// Heads with a framing or a form that two parsers could read differently; `@` stands for a good head
/// without its end.
const BAD_HEADS: [(&str, u16, &str); 52] = [
    ("GET /payroll/a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingStartLine"),
    ("GET /payroll/a#b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingStartLine"),
    ("GET /payroll/\u{e4} HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingStartLine"),
    ("GET /payroll/\u{1}a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingControlCharacter"),
    ("GET  /payroll/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingStartLine"),
    ("GET /payroll/a HTTP/1.2\r\nHost: localhost\r\n\r\n", 400, "FramingStartLine"),
    ("GET /payroll/a\r\n\r\n", 400, "FramingStartLine"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "FramingStartLine"),
    ("\r\nGET /payroll/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "FramingEmptyLine"),
    ("GET /payroll/a HTTP/1.1\nHost: localhost\n\n", 400, "FramingBareLineFeed"),
    ("@X: a\n\r\n", 400, "FramingBareLineFeed"),
    ("@X: a\rY: b\r\n\r\n", 400, "FramingBareCarriageReturn"),
    ("@X: a\0b\r\n\r\n", 400, "FramingControlCharacter"),
    ("@X: a\r\n folded\r\n\r\n", 400, "FramingFoldedHeader"),
    ("@X: a\r\n\tfolded\r\n\r\n", 400, "FramingFoldedHeader"),
    ("GET /payroll/a HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, "FramingFoldedHeader"),
    ("@X : a\r\n\r\n", 400, "FramingHeaderName"),
    ("@Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "FramingHeaderName"),
    ("@Content-Length\t: 4\r\n\r\n", 400, "FramingHeaderName"),
    ("@: a\r\n\r\n", 400, "FramingHeaderName"),
    ("@no colon\r\n\r\n", 400, "FramingHeaderName"),
    ("@Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "FramingLengthAndCoding"),
    ("@Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, "FramingLengthAndCoding"),
    ("@Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody", 400, "FramingSeveralLengths"),
    ("@Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody", 400, "FramingSeveralLengths"),
    ("@Content-Length: 4, 4\r\n\r\nbody", 400, "FramingLength"),
    ("@Content-Length: +4\r\n\r\nbody", 400, "FramingLength"),
    ("@Content-Length: 0x4\r\n\r\nbody", 400, "FramingLength"),
    ("@Content-Length: -1\r\n\r\n", 400, "FramingLength"),
    ("@Content-Length: 99999999999999999999\r\n\r\n", 400, "FramingLength"),
    ("@Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Transfer-Encoding: identity\r\n\r\n", 400, "FramingTransferCoding"),
    ("@Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", 400, "UpgradeNotCarried"),
    ("@Expect: 200-maybe\r\n\r\n", 417, "ExpectationFailed"),
    ("@Host: localhost\r\n\r\n", 400, "DuplicateHeader"),
    ("@Authorization: Bearer other\r\n\r\n", 400, "DuplicateHeader"),
    ("GET /payroll/a HTTP/1.1\r\n\r\n", 421, "HostNotAllowed"),
    ("GET /payroll/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", 421, "HostNotAllowed"),
    ("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 405, "MethodNotCarried"),
    ("CONNECT payroll.hr.svc:443 HTTP/1.1\r\nHost: payroll.hr.svc:443\r\n\r\n", 405, "MethodNotCarried"),
    ("TRACE /payroll/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "MethodNotCarried"),
    ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "UnknownDownstream"),
    ("GET http://evil.test/api/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", 403, "OriginNotInCatalogue"),
    ("GET https://evil.test/api/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", 403, "OriginNotInCatalogue"),
    (
        "GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
        403,
        "OriginNotInCatalogue",
    ),
    ("GET http://localhost/api/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, "OriginNotInCatalogue"),
    ("GET ftp://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 403, "OriginNotInCatalogue"),
    ("GET http://evil.test/api/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 421, "HostNotAllowed"),
];

/// Absolute targets at the downstream's own origin (`~`) that it does not get.
const BAD_AT_ORIGIN: [(&str, &str, u16, &str); 14] = [
    ("http://~/admin", "~", 404, "OutsideBasePath"),
    ("http://~/", "~", 404, "OutsideBasePath"),
    ("http://~", "~", 404, "OutsideBasePath"),
    ("http://~/apis/a", "~", 404, "OutsideBasePath"),
    ("http://~/API/a", "~", 404, "OutsideBasePath"),
    ("http://~/%61pi/a", "~", 404, "OutsideBasePath"),
    ("http://~/api/../admin", "~", 400, "PathDotSegment"),
    ("http://~/api%2f..%2fadmin", "~", 400, "PathDotSegment"),
    ("http://~/api//admin", "~", 400, "PathEmptyFirstSegment"),
    ("http://~/api/%2fadmin", "~", 400, "PathEmptyFirstSegment"),
    ("http://user@~/api/a", "~", 421, "HostNotAllowed"),
    ("http://user@~/api/a", "user@~", 403, "OriginNotInCatalogue"),
    ("http://~/api/a", "evil.test", 421, "HostNotAllowed"),
    ("http://~/api/a", "127.0.0.1", 421, "HostNotAllowed"),
];

const BAD_BODIES: [(&str, &str); 8] = [
    ("5;a=b\r\nhello\r\n0\r\n\r\n", "FramingChunkExtension"),
    ("5\r\nhello\r\n0;a=b\r\n\r\n", "FramingChunkExtension"),
    ("5 \r\nhello\r\n0\r\n\r\n", "FramingChunkSize"),
    ("0x5\r\nhello\r\n0\r\n\r\n", "FramingChunkSize"),
    ("5\nhello\r\n0\r\n\r\n", "FramingChunkSize"),
    ("5\r\nhello!\r\n0\r\n\r\n", "FramingChunkEnd"),
    ("11111111111111111\r\nhello", "FramingChunkSize"),
    ("5\r\nhello\r\n0\r\nX: a\n\r\n", "FramingBareLineFeed"),
];

fn table(origin: &str) -> Vec<(String, Want)> {
    const HEAD: &str = "POST /payroll/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {H}\r\n";
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {{H}}\r\n\r\n")
    };
    let mut rows = Vec::new();
    for (path, reason) in BAD_PATHS {
        rows.push((get(&format!("/payroll{path}"), "localhost"), Nothing(400, reason)));
    }
    for (head, status, reason) in BAD_HEADS {
        rows.push((head.replace('@', HEAD), Nothing(status, reason)));
    }
    for (target, host, status, reason) in BAD_AT_ORIGIN {
        let row = get(&target.replace('~', origin), &host.replace('~', origin));
        rows.push((row, Nothing(status, reason)));
    }
    for (body, reason) in BAD_BODIES {
        rows.push((format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}"), Broken(reason)));
    }
    for target in ["//payroll/a", "/", "/PAYROLL/a", "/pay%72oll/a", "/payroll;a/b", "/../payroll/a"] {
        rows.push((get(target, "localhost"), Nothing(404, "UnknownDownstream")));
    }
    let large = "a".repeat(70 * 1024);
    rows.push((format!("{HEAD}X: {large}\r\n\r\n"), Nothing(431, "HeadTooLarge")));
    rows.push((
        get(&format!("/payroll/{}", "a".repeat(17 * 1024)), "localhost"),
        Nothing(414, "TargetTooLong"),
    ));
    // What is carried.
    for (path, gets) in [
        ("", "/api"),
        ("/", "/api/"),
        ("/salaries/a%20b?year=2026&x=%2e%2e/..//;%00", "/api/salaries/a%20b?year=2026&x=%2e%2e/..//;%00"),
        ("?a=b", "/api?a=b"),
        ("/a//b/...", "/api/a//b/..."),
        ("/%E4%B8%96%e7%95%8c", "/api/%E4%B8%96%e7%95%8c"),
        ("/100%25", "/api/100%25"),
        ("/a%2Fb", "/api/a%2Fb"),
    ] {
        let row = get(&format!("/payroll{path}"), "127.0.0.1:15102");
        rows.push((row, Gets(format!("GET {gets} HTTP/1.1"), "")));
    }
    for (target, gets) in [
        (format!("http://{origin}/api/salaries?x=%2e"), "/api/salaries?x=%2e"),
        (format!("https://{origin}/api/a%20b"), "/api/a%20b"),
        (format!("HTTP://{}/api", origin.to_uppercase()), "/api"),
        (format!("http://{origin}/api?a"), "/api?a"),
    ] {
        rows.push((get(&target, origin), Gets(format!("GET {gets} HTTP/1.1"), "")));
    }
    // As a well-known client sends it to a proxy.
    rows.push((
        format!(
            "GET http://{origin}/api/a HTTP/1.1\r\nHost: {origin}\r\nAuthorization: Bearer {{H}}\r\nProxy-Connection: Keep-Alive\r\n\
             Proxy-Authorization: Basic eDp5\r\n\r\n"
        ),
        Gets("GET /api/a HTTP/1.1".to_owned(), ""),
    ));
    let post = "POST /api/a HTTP/1.1";
    for (rest, body) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Content-Length: 0\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", "hello"),
        (
            "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer trailing\r\n\r\n",
            "hello",
        ),
        ("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        ("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n", ""),
        (
            "Connection: x-secret\r\nX-Secret: smuggled\r\nTransfer_Encoding: chunked\r\nContent_Length: 9\r\n\r\n",
            "",
        ),
    ] {
        rows.push((format!("{HEAD}{rest}"), Gets(post.to_owned(), body)));
    }
    rows
}

/// Sends and reads until the end of the connection; gives all that came.
pub(crate) async fn talk(world: &World, bytes: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    // The other side may have closed before it has read everything.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut came = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut came)).await;
    assert!(read.is_ok(), "the connection ends: {:?}", &bytes[..bytes.len().min(120)]);
    came
}

#[tokio::test]
async fn d15_d17_the_downstream_gets_the_bytes_or_nothing_and_no_other_request() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    let handle = alice.as_str();
    let rows = table(&format!("localhost:{}", tap.port));
    let carried = rows.iter().filter(|(_, want)| matches!(want, Gets(..))).count();
    assert!(rows.len() >= 100 && rows.len() > 4 * carried, "{} rows, {carried} carried", rows.len());
    for (n, (row, want)) in rows.iter().enumerate() {
        let shown = format!("row {n}: {:?}", &row.chars().take(160).collect::<String>());
        let before = tap.all().0.len();
        // A second request stands right behind: nothing is wrong with it but what stands before it.
        let next = format!(
            "GET /payroll/next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {handle}\r\n\r\n"
        );
        let came = talk(&world, &format!("{}{next}", row.replace("{H}", handle))).await;
        let answer = parse(&came, false);
        let text = String::from_utf8_lossy(&came);
        let answers = text.matches("HTTP/1.1 ").count() - text.matches("HTTP/1.1 100 ").count();
        assert!(!text.contains(handle), "{shown}");
        let (all, _) = tap.all();
        let new = &all[before..];
        match want {
            Gets(line, body) => {
                let first = new.first().unwrap_or_else(|| panic!("{shown}: {text}"));
                assert_eq!(
                    (first.line(), first.body.as_slice()),
                    (line.as_str(), body.as_bytes()),
                    "{shown}"
                );
                assert!(first.bearer().starts_with("eyJ"), "{shown}");
                let lower = first.head.to_ascii_lowercase();
                for gone in [
                    "behalf",
                    "upgrade",
                    "http2-settings",
                    "smuggled",
                    "trailing",
                    "x-secret",
                    "expect",
                    "proxy-",
                ] {
                    assert!(!lower.contains(gone), "{shown}: {gone}");
                }
                assert!(!lower.contains("transfer_encoding") && !lower.contains("content_length"), "{shown}");
                assert!(new.len() <= 2, "{shown}");
                assert!(new.get(1).is_none_or(|second| second.line() == "GET /api/next HTTP/1.1"), "{shown}");
            }
            Nothing(status, reason) => {
                assert_eq!((new.len(), answers), (0, 1), "{shown}: {text}");
                assert_eq!(answer.status, *status, "{shown}");
                assert_eq!(reason_of(&world, n).await, *reason, "{shown}");
            }
            Broken(reason) => {
                assert_eq!(new.len(), 0, "{shown}: {text}");
                assert!(answers <= 1 && (answer.status == 0 || answer.status >= 400), "{shown}: {text}");
                assert_eq!(reason_of(&world, n).await, *reason, "{shown}");
            }
        }
    }
}

/// The reason of the newest record, once it is there.
async fn reason_of(world: &World, row: usize) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let last = world.records().await.pop();
        if let Some(reason) = last.as_ref().and_then(|r| r["reason"].as_str())
            && last.as_ref().is_some_and(|r| r["status"] != json!(200))
        {
            return reason.to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "row {row} leaves a record: {last:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_url_of_two_rows_is_told_apart_by_its_base_path_or_refused() {
    let tap = Tap::start().await;
    let downstream = tap.downstream();
    let at = |path: &'static str, port: u16| format!("https://localhost:{port}{path}");
    let mut world = World::with(|d| {
        downstream(d);
        d["serve"]["downstreams"][1]["url"] = json!(at("/api/ledger", tap.port));
        d["serve"]["downstreams"][1]["caBundle"] = json!(tap.ca);
    })
    .await;
    let alice = world.open("alice");
    let origin = format!("localhost:{}", tap.port);
    let ask = async |world: &World, path: &str| {
        let head = format!(
            "GET http://{origin}{path} HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            alice.as_str()
        );
        let answer = parse(&talk(world, &head).await, false);
        (answer.status, answer.reason())
    };
    assert_eq!(ask(&world, "/api/a").await, (200, String::new()));
    assert_eq!(
        ask(&world, "/api/ledger/a").await,
        (403, "DownstreamNotPermitted".to_owned()),
        "the longer one"
    );
    assert_eq!(ask(&world, "/api/ledgers").await, (200, String::new()));
    world
        .publish(|d| {
            downstream(d);
            d["serve"]["downstreams"][1]["url"] = json!(at("/api", tap.port));
            d["serve"]["downstreams"][1]["caBundle"] = json!(tap.ca);
        })
        .await;
    assert_eq!(ask(&world, "/api/a").await, (400, "AmbiguousDownstream".to_owned()));
    assert_eq!(tap.all().0.len(), 2);
}
