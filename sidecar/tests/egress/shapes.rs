//! Requests that are refused by their shape alone, though they carry a live handle.

use std::time::Duration;

use serde_json::json;

use crate::world::World;

/// D15, D17 and the rules of the raw path: refused with a live handle, so by the shape alone.
#[tokio::test]
async fn shapes_that_are_refused() {
    let world = World::start().await;
    let alice = world.open("alice");
    let handle = alice.as_str();
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:15102\r\n");
    let with = |extra: &str| format!("{}{extra}", line("GET /payroll/x"));
    let table: Vec<(String, u16, &str)> = vec![
        (line("TRACE /payroll/x"), 405, "MethodNotCarried"),
        (line("PROPFIND /payroll/x"), 405, "MethodNotCarried"),
        (line("CONNECT localhost:443"), 405, "MethodNotCarried"),
        (line("GET http://payroll.hr.svc/x"), 421, "HostNotAllowed"),
        (line("GET https://127.0.0.1:15102/payroll/x"), 403, "OriginNotInCatalogue"),
        (line("OPTIONS *"), 404, "UnknownDownstream"),
        (line("GET /"), 404, "UnknownDownstream"),
        (line("GET //payroll/x"), 404, "UnknownDownstream"),
        (line("GET /PAYROLL/x"), 404, "UnknownDownstream"),
        (line("GET /pay%72oll/x"), 404, "UnknownDownstream"),
        (line("GET /payroll;a/x"), 404, "UnknownDownstream"),
        (line("GET /../payroll/x"), 404, "UnknownDownstream"),
        (line("GET /payroll/../x"), 400, "PathDotSegment"),
        (line("GET /payroll/a/..%2fx"), 400, "PathDotSegment"),
        (line("GET /payroll/%2e%2e/x"), 400, "PathDotSegment"),
        (line("GET /payroll/%252e%252e/x"), 400, "PathDotSegment"),
        (line("GET /payroll//x"), 400, "PathEmptyFirstSegment"),
        (line("GET /payroll/%2fx"), 400, "PathEmptyFirstSegment"),
        (line("GET /payroll/a;b"), 400, "PathSemicolon"),
        (line("GET /payroll/a%3bb"), 400, "PathSemicolon"),
        (line("GET /payroll/a%5cb"), 400, "PathBackslash"),
        (line("GET /payroll/a%00b"), 400, "PathControl"),
        (line("GET /payroll/a%zzb"), 400, "PathPercent"),
        (line("GET /payroll/a%c0%afb"), 400, "PathNotUtf8"),
        (line(&format!("GET /payroll/{handle}")), 400, "HandleInTarget"),
        (line(&format!("GET /payroll/x?h={handle}")), 400, "HandleInTarget"),
        (line(&format!("GET /payroll/{}", "a".repeat(17 * 1024))), 414, "TargetTooLong"),
        (with("Upgrade: websocket\r\n"), 400, "UpgradeNotCarried"),
        (with("Expect: 200-maybe\r\n"), 417, "ExpectationFailed"),
        (with("Host: localhost\r\n"), 400, "DuplicateHeader"),
        (with("Authorization: Bearer second\r\n"), 400, "DuplicateHeader"),
        (with("Content-Type: a/b\r\nContent-Type: a/c\r\n"), 400, "DuplicateHeader"),
        (with("Behalf-Handle: a\r\nbehalf_handle: b\r\n"), 400, "DuplicateHeader"),
        ("GET /payroll/x HTTP/1.1\r\nHost: payroll.hr.svc\r\n".to_owned(), 421, "HostNotAllowed"),
        ("GET /payroll/x HTTP/1.1\r\nHost: localhost.evil.test\r\n".to_owned(), 421, "HostNotAllowed"),
        ("GET /payroll/x HTTP/1.1\r\n".to_owned(), 421, "HostNotAllowed"),
        (with(&format!("X: {}\r\n", "a".repeat(70 * 1024))), 431, "HeadTooLarge"),
        // What the parser itself refuses is recorded all the same.
        (with(&format!("X: {}\r\n", "a".repeat(200 * 1024))), 431, ""),
        (line("GET /payroll/x\"<>"), 400, ""),
    ];
    for (n, (request, status, reason)) in table.iter().enumerate() {
        let request = format!("{request}Connection: close\r\nAuthorization: Bearer {handle}\r\n\r\n");
        let answer = world.raw(&request).await;
        assert_eq!((answer.status, answer.reason().as_str()), (*status, *reason), "{n}: {}", &request[..60]);
        assert!(!answer.head.contains(handle) && !String::from_utf8_lossy(&answer.body).contains(handle));
        let recorded = async {
            loop {
                let records = world.records().await;
                if records.len() > n {
                    break records;
                }
                tokio::task::yield_now().await;
            }
        };
        let records = tokio::time::timeout(Duration::from_secs(30), recorded).await.expect("a record");
        assert_eq!(records.len(), n + 1, "{n}: one record each");
        let expected = if reason.is_empty() { "MalformedRequest" } else { reason };
        assert_eq!((&records[n]["reason"], &records[n]["status"]), (&json!(expected), &json!(status)), "{n}");
        assert_eq!(records[n]["decision"], "Refuse");
    }
    assert_eq!((world.idp.exchanges(), world.payroll.all().len()), (0, 0));
}
