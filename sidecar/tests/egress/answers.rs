//! Raw answers of a downstream: passed on when they have one reading, else nothing of them, and never
//! another request on the connection they came on.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::tap::{OK, Say, Taken, Tap};
use crate::world::World;

enum Want {
    /// The server gets this status and body.
    Gets(u16, &'static str),
    /// The server gets 502 with this reason.
    Refused(&'static str),
    /// The answer breaks off.
    Cut,
}

use Want::{Cut, Gets, Refused};

/// `{T}` stands for the token that was attached.
fn table() -> Vec<(Vec<String>, Want)> {
    let one = |text: &str| vec![text.to_owned()];
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40);
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(600_000));
    let mut rows: Vec<(Vec<String>, Want)> = Vec::new();
    for (text, reason) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "FramingLengthAndCoding",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "FramingLengthAndCoding",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "FramingSeveralLengths"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "FramingSeveralLengths"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "FramingLength"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "FramingLength"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "FramingTransferCoding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", "FramingTransferCoding"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "FramingTransferCoding"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "FramingBareLineFeed"),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", "FramingControlCharacter"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "FramingFoldedHeader"),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "FramingHeaderName"),
        ("HTTP/2 200\r\nContent-Length: 2\r\n\r\nok", "FramingStartLine"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "FramingStartLine"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "FramingInterimAnswer"),
        (flood.as_str(), "FramingInterimAnswer"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", "FramingNoBodyHere"),
        // Split answers: what follows was never asked for.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
            "FramingUnaskedAnswer",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n", "FramingUnaskedAnswer"),
        // What would carry the token to the server.
        (
            "HTTP/1.1 302 Found\r\nLocation: https://x.test/?t={T}\r\nContent-Length: 0\r\n\r\n",
            "TokenInAnswer",
        ),
        ("HTTP/1.1 200 OK\r\nX-Echo: Bearer {T}\r\nContent-Length: 2\r\n\r\nok", "TokenInAnswer"),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\u{1f}x",
            "DownstreamAnswerEncoded",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "DownstreamAnswerEncoded",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: identity, gzip\r\nContent-Length: 2\r\n\r\nxx",
            "DownstreamAnswerEncoded",
        ),
    ] {
        rows.push((one(text), Refused(reason)));
    }
    rows.push((vec![large], Refused("DownstreamUnreachable")));
    for pieces in [
        vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "c{T}"],
        vec![
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "3\r\nabc\r\n",
            "5\r\nhello\r\n",
            "x\r\n",
        ],
        vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "2\r\nhello\r\n0\r\n\r\n"],
        vec![
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
            "data: hello\n\n",
            "data: {T}\n\n",
        ],
    ] {
        rows.push((pieces.into_iter().map(str::to_owned).collect(), Cut));
    }
    for (text, status, body) in [
        (OK, 200, "ok"),
        (
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2;ext\r\nok\r\n0\r\nX-Late: 1\r\n\r\n",
            200,
            "ok",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            201,
            "",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, ""),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, "no"),
    ] {
        rows.push((one(text), Gets(status, body)));
    }
    rows
}

#[tokio::test]
async fn d16_d17_an_answer_passes_whole_or_its_connection_ends_with_it() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    for (n, (pieces, want)) in table().into_iter().enumerate() {
        let close = matches!(want, Cut);
        let shown = format!("row {n}: {:?}", &pieces[0].chars().take(120).collect::<String>());
        tap.says(move |taken: &Taken| {
            let bad = taken.line().contains("/row");
            let pieces = pieces.iter().map(|p| p.replace("{T}", &taken.bearer()).into_bytes()).collect();
            if bad { Say { pieces, close } } else { Say::bytes(OK) }
        });
        let answer = world.get(&format!("/payroll/row-{n}-"), alice.as_str()).await;
        let good = match want {
            Gets(status, body) => {
                assert_eq!(
                    (answer.status, String::from_utf8_lossy(&answer.body).as_ref(), answer.cut),
                    (status, body, false),
                    "{shown}"
                );
                assert!(!answer.head.to_ascii_lowercase().contains("x-late"), "{shown}");
                true
            }
            Refused(reason) => {
                assert_eq!((answer.status, answer.reason().as_str()), (502, reason), "{shown}");
                assert_eq!(world.last().await["reason"], reason, "{shown}");
                false
            }
            Cut => {
                assert!(answer.cut || answer.status == 0 || answer.status == 502, "{shown}");
                let recorded = async {
                    while world.last().await["decision"] != "Refuse" && answer.status != 502 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(30), recorded).await.expect("a record of the cut");
                assert!(!String::from_utf8_lossy(&answer.body).contains("eyJ"), "{shown}");
                false
            }
        };
        assert_eq!(world.get(&format!("/payroll/after-{n}-"), alice.as_str()).await.status, 200, "{shown}");
        let lines = tap.connection_of(&format!("row-{n}-"));
        let last = lines.last().is_some_and(|line| line.contains(&format!("row-{n}-")));
        assert!(good || last, "{shown}: {lines:?} came on a connection that was given up");
    }
    let asked = tap.all().0;
    assert!(
        asked.iter().all(|t| t.head.contains("accept-encoding: identity")),
        "an answer that can be searched"
    );
}

#[tokio::test]
async fn a_token_at_the_very_end_of_an_answer_ends_its_connection_as_well() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    // The answer is whole, so that the connection could be used again but for what it carried.
    tap.says(|taken: &Taken| {
        let body = format!("your token is {}", taken.bearer());
        Say::bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let answer = world.get("/payroll/echo", alice.as_str()).await;
    assert!(answer.cut || answer.status == 0);
    assert!(!String::from_utf8_lossy(&answer.body).contains("eyJ"));
    tap.says(|_| Say::bytes(OK));
    assert_eq!(world.get("/payroll/after", alice.as_str()).await.status, 200);
    assert_eq!(tap.connection_of("/echo").len(), 1);
}

#[tokio::test]
async fn connections_are_kept_and_never_shared_between_rows() {
    let tap = Tap::start().await;
    let (url, ca) = (format!("https://localhost:{}", tap.port), tap.ca.clone());
    let downstream = tap.downstream();
    let world = World::with(|d| {
        downstream(d);
        // Another row of the very same origin and CA.
        d["serve"]["downstreams"][1]["url"] = json!(url);
        d["serve"]["downstreams"][1]["caBundle"] = json!(ca);
        d["serve"]["servers"][0]["tools"][0]["downstreams"] = json!([
            {"name": "payroll", "scopes": ["payroll:read"]}, {"name": "ledger", "scopes": ["ledger:read"]}]);
    })
    .await;
    let alice = world.open("alice");
    for path in ["/payroll/1", "/ledger/1", "/payroll/2", "/ledger/2", "/payroll/3", "/ledger/3"] {
        assert_eq!(world.get(path, alice.as_str()).await.status, 200, "{path}");
    }
    let connections = tap.connections.lock().unwrap().clone();
    assert_eq!(connections.len(), 2, "one kept for each row");
    for connection in &connections {
        let payroll = connection.iter().filter(|t| t.line().contains("/api/")).count();
        assert!(connection.len() == 3 && (payroll == 0 || payroll == 3), "{connection:?}");
        let tokens: std::collections::BTreeSet<_> = connection.iter().map(Taken::bearer).collect();
        assert_eq!(tokens.len(), 1);
    }
}

#[tokio::test]
async fn d17_an_answer_before_the_request_was_sent_makes_no_request_of_its_rest() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    let smuggled = format!(
        "GET /payroll/smuggled HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        alice.as_str()
    );
    for target in ["/payroll/early", "/nowhere/early"] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Early: 1\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\nstart",
            alice.as_str(),
            "start".len() + 2 * smuggled.len()
        );
        let mut stream = TcpStream::connect(world.egress).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut came = [0; 9];
        stream.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"HTTP/1.1 ", "the answer comes before the body has");
        // The rest of the announced body, and that is all: it may be read or not, it is no request.
        let _ = stream.write_all(smuggled.as_bytes()).await;
        let _ = stream.write_all(smuggled.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection ends");
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{target}: one answer");
    }
    let (all, _) = tap.all();
    assert!(all.iter().all(|t| !t.line().contains("smuggled")), "{all:?}");
    assert_eq!(world.records().await.len(), 2, "one request each");
}
