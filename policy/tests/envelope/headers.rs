use behalf_policy::envelope::{
    EnvelopeReason, Era, HeaderField, HeaderView, Limits, Message, SUPPORTED_VERSIONS, check_headers,
};

use crate::{call, legacy, with_headers};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn modern(method: &str, params: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}{META}}}}}"#)
}

fn modern_call() -> String {
    modern("tools/call", r#""name":"salary.get""#)
}

#[track_caller]
fn refused(body: &str, version: &str, method: &str, name: &str, want: EnvelopeReason) {
    let error = with_headers(body, version, method, name).unwrap_err();
    assert_eq!(error.reason(), want, "{version} {method} {name}");
    assert_eq!(error.http_status(), 400);
    assert_eq!(error.id(), Some("1"));
}

#[test]
fn c1_the_request_chooses_the_era() {
    let message = with_headers(&modern_call(), "2026-07-28", "tools/call", "salary.get").unwrap();
    assert_eq!((message.era(), message.protocol_version()), (Era::Modern, "2026-07-28"));
    let message = legacy(&call("")).unwrap();
    assert_eq!((message.era(), message.protocol_version()), (Era::Legacy, "2025-03-26"));
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let message = with_headers(&call(""), version, "-", "-").unwrap();
        assert_eq!((message.era(), message.protocol_version()), (Era::Legacy, version));
    }
    // A header alone makes it modern; a request must then state the version in `_meta` too.
    refused(&call(""), "2026-07-28", "tools/call", "salary.get", EnvelopeReason::MissingMeta);
    let error = with_headers(&call(""), "2026-07-28", "tools/call", "salary.get").unwrap_err();
    assert_eq!(error.jsonrpc_code(), -32602);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    assert_eq!(with_headers(note, "2026-07-28", "-", "-").unwrap().era(), Era::Modern);
    assert_eq!(with_headers(note, "2026-07-28", "notifications/x", "-").unwrap().era(), Era::Modern);
}

#[test]
fn c7_the_version_header_and_meta_agree() {
    let body = modern_call();
    refused(&body, "-", "tools/call", "salary.get", EnvelopeReason::HeaderMissing);
    for version in [
        "2025-11-25",
        "2025-03-26",
        "2026-07-29",
        "2026-07-2",
        "2026-07-28 x",
        "latest",
        "2026-07-28,2026-07-28",
    ] {
        refused(&body, version, "tools/call", "salary.get", EnvelopeReason::HeaderMismatch);
    }
    for version in ["", " ", "\t"] {
        refused(&body, version, "tools/call", "salary.get", EnvelopeReason::HeaderMalformed);
    }
    for value in ["1", "null", "[]", r#"["2026-07-28"]"#, "{}"] {
        let body = call(&format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":{value}}}"#));
        refused(&body, "2026-07-28", "tools/call", "salary.get", EnvelopeReason::BadMeta);
        refused(&body, "-", "-", "-", EnvelopeReason::BadMeta);
    }
    let error = with_headers(&body, "2025-11-25", "tools/call", "salary.get").unwrap_err();
    assert_eq!(error.jsonrpc_code(), -32020);
}

#[test]
fn c7_c13_an_unsupported_version_is_refused() {
    for version in ["2024-10-07", "2025-01-01", "2026-07-27", "2026-07-29", "2027-01-01", "9999-99-99"] {
        let error = with_headers(&call(""), version, "-", "-").unwrap_err();
        assert_eq!(
            (error.reason(), error.http_status()),
            (EnvelopeReason::UnsupportedVersion, 400),
            "{version}"
        );
        assert_eq!((error.jsonrpc_code(), error.requested_version()), (-32022, Some(version)));
    }
    let long = "9".repeat(65);
    for version in ["x", "1.0", "2025-11-25x", "2025/11/25", "DRAFT-2026-v1", "2025-11-25, 2025-11-25", &long]
    {
        let error = with_headers(&call(""), version, "-", "-").unwrap_err();
        assert_eq!(error.reason(), EnvelopeReason::UnsupportedVersion);
        assert_eq!(error.requested_version(), Some(version).filter(|v| v.len() <= 64));
        assert_eq!(
            error.supported_versions(),
            SUPPORTED_VERSIONS,
            "such a request can be made in any of them"
        );
    }
    for stated in ["2025-11-25", "2027-01-01"] {
        let body = call(&format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{stated}"}}"#));
        refused(&body, stated, "tools/call", "salary.get", EnvelopeReason::UnsupportedVersion);
        let error = with_headers(&body, stated, "tools/call", "salary.get").unwrap_err();
        assert_eq!(
            error.supported_versions(),
            ["2026-07-28"],
            "no version with sessions takes a stateless request"
        );
    }
    assert_eq!(SUPPORTED_VERSIONS.len(), 5);
}

#[test]
fn c13_a_method_that_the_modern_era_does_not_have_any_more_is_one_that_nobody_knows() {
    use behalf_policy::envelope::Target;
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/result",
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        );
        let message = with_headers(&body, "2026-07-28", method, "-").unwrap();
        assert_eq!(*message.target(), Target::Other(method.to_owned()));
        refused(&body, "2026-07-28", "tools/list", "-", EnvelopeReason::HeaderMismatch);
    }
}

#[test]
fn c8_a_modern_request_mirrors_its_method_and_name() {
    let body = modern_call();
    refused(&body, "2026-07-28", "-", "salary.get", EnvelopeReason::HeaderMissing);
    refused(&body, "2026-07-28", "tools/call", "-", EnvelopeReason::HeaderMissing);
    refused(&body, "2026-07-28", "-", "-", EnvelopeReason::HeaderMissing);
    for method in ["tools/list", "Tools/Call", "tools/call/", "ping", "=?base64?dG9vbHMvY2FsbA==?="] {
        refused(&body, "2026-07-28", method, "salary.get", EnvelopeReason::HeaderMismatch);
    }
    for name in
        ["salary.update", "Salary.get", "salary", "salary.get.", "salary.get, salary.get", "salary%2Eget"]
    {
        refused(&body, "2026-07-28", "tools/call", name, EnvelopeReason::HeaderMismatch);
    }
    for name in ["salary.get", " salary.get", "salary.get\t ", "=?base64?c2FsYXJ5LmdldA==?="] {
        assert!(with_headers(&body, " 2026-07-28\t", " tools/call ", name).is_ok(), "{name:?}");
    }
    for (method, params, name) in [
        ("prompts/get", r#""name":"p""#, "p"),
        ("resources/read", r#""uri":"file:///x y""#, "file:///x y"),
        ("tasks/get", r#""taskId":"t""#, "t"),
        ("tasks/update", r#""taskId":"t""#, "t"),
        ("tasks/cancel", r#""taskId":"t""#, "t"),
    ] {
        let body = modern(method, params);
        assert!(with_headers(&body, "2026-07-28", method, name).is_ok(), "{method}");
        refused(&body, "2026-07-28", method, "-", EnvelopeReason::HeaderMissing);
        refused(&body, "2026-07-28", method, "other", EnvelopeReason::HeaderMismatch);
    }
    // A name where the body has none is a disagreement as well.
    for method in ["tools/list", "server/discover", "custom/method"] {
        let body = modern(method, "");
        assert!(with_headers(&body, "2026-07-28", method, "-").is_ok());
        refused(&body, "2026-07-28", method, "salary.get", EnvelopeReason::HeaderMismatch);
        refused(&body, "2026-07-28", "-", "-", EnvelopeReason::HeaderMissing);
    }
}

#[test]
fn c8_legacy_headers_are_not_needed_but_agree_when_present() {
    let body = call("");
    for (method, name) in [("-", "-"), ("tools/call", "-"), ("-", "salary.get"), ("tools/call", "salary.get")]
    {
        for version in ["-", "2025-11-25"] {
            assert!(with_headers(&body, version, method, name).is_ok());
        }
    }
    for (method, name) in
        [("tools/list", "-"), ("-", "salary.update"), ("tools/call", "x"), ("x", "salary.get")]
    {
        for version in ["-", "2025-11-25"] {
            refused(&body, version, method, name, EnvelopeReason::HeaderMismatch);
        }
    }
    refused(&body, "-", "", "-", EnvelopeReason::HeaderMalformed);
    refused(&body, "-", "-", " ", EnvelopeReason::HeaderMalformed);
}

#[test]
fn c9_the_base64_form_of_a_name_is_exact() {
    let read = |uri: &str, name: &str| {
        let body = modern("resources/read", &format!(r#""uri":"{uri}""#));
        with_headers(&body, "2026-07-28", "resources/read", name).map(|_| ()).map_err(|e| e.reason())
    };
    assert_eq!(read("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="), Ok(()));
    assert_eq!(read(" padded ", "=?base64?IHBhZGRlZCA=?="), Ok(()));
    assert_eq!(read("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="), Ok(()));
    assert_eq!(read("=?base64?=", "=?base64?="), Ok(()));
    assert_eq!(read("=?BASE64?YQ==?=", "=?BASE64?YQ==?="), Ok(()));
    for (uri, name) in [
        ("a", "=?BASE64?YQ==?="),
        ("a", "=?Base64?YQ==?="),
        ("a", "=?base64?YQ=="),
        ("a", "?base64?YQ==?="),
        ("a", "=?base64?Yg==?="),
        ("a", "=?base64??="),
        ("a", "=?base64?=?base64?YQ==?=?=x"),
        (" padded ", " padded "),
    ] {
        assert_eq!(read(uri, name), Err(EnvelopeReason::HeaderMismatch), "{name}");
    }
    for name in [
        "=?base64?YQ?=",
        "=?base64?YQ=?=",
        "=?base64?YQ===?=",
        "=?base64?YR==?=",
        "=?base64?Y Q==?=",
        "=?base64?%%%?=",
        "=?base64?_w==?=",
        "=?base64?/w==?=",
        "=?base64?wK8=?=",
        "=?base64?AA==?=",
        "=?base64?YQ0K?=",
        "=?base64?7aCA?=",
        "=?base64?=?base64?YQ==?=?=",
        "=?base64?literal?=",
        "é",
        "a\u{0}",
        "a\nb",
        "a\u{7f}",
    ] {
        assert_eq!(read("a", name), Err(EnvelopeReason::HeaderMalformed), "{name:?}");
    }
}

#[test]
fn d15_a_mirrored_header_occurs_once() {
    let body = modern_call();
    let good = HeaderView {
        protocol_version: HeaderField::once("2026-07-28"),
        method: HeaderField::once("tools/call"),
        name: HeaderField::once("salary.get"),
    };
    let read = |headers: HeaderView<'_>| {
        Message::read(body.as_bytes(), &headers, &Limits::default()).map(|_| ()).map_err(|e| e.reason())
    };
    assert_eq!(read(good), Ok(()));
    let twice = |value| HeaderField::from_values([Some(value), Some(value)]);
    assert_eq!(twice("x"), HeaderField { value: Some("x"), count: 2 });
    let unreadable = HeaderField::from_values([None]);
    for (repeated, want) in [(true, EnvelopeReason::HeaderRepeated), (false, EnvelopeReason::HeaderMalformed)]
    {
        let bad = |value| if repeated { twice(value) } else { unreadable };
        for headers in [
            HeaderView { protocol_version: bad("2026-07-28"), ..good },
            HeaderView { method: bad("tools/call"), ..good },
            HeaderView { name: bad("salary.get"), ..good },
        ] {
            assert_eq!(read(headers), Err(want));
        }
    }
    let message = Message::read(body.as_bytes(), &good, &Limits::default()).unwrap();
    assert!(check_headers(&good, &message).is_ok());
    assert_eq!(
        check_headers(&HeaderView::default(), &message).unwrap_err().reason(),
        EnvelopeReason::HeaderMissing
    );
    let legacy_version = HeaderView { protocol_version: HeaderField::once("2025-11-25"), ..good };
    assert_eq!(
        check_headers(&legacy_version, &message).unwrap_err().reason(),
        EnvelopeReason::HeaderMismatch
    );
}
