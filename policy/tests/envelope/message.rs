//! What a message is: JSON-RPC as it is defined, and what an error says of one that is not.

use behalf_policy::envelope::{EnvelopeReason, Era, HeaderView, Kind, Limits, Message, Target};

use crate::{call, legacy, reason, target, with_headers};

#[test]
fn c3_d24_batches_are_refused() {
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for body in [
        "[]".to_owned(),
        "[[]]".to_owned(),
        format!("[{ping}]"),
        format!("[{ping},{}]", call("")),
        format!("[[{ping}]]"),
        format!(" [ {ping} ] "),
    ] {
        let error = legacy(&body).unwrap_err();
        assert_eq!(
            (error.reason(), error.http_status(), error.jsonrpc_code()),
            (EnvelopeReason::Batch, 400, -32600)
        );
    }
    for body in ["null", "true", "1", "\"tools/call\""] {
        assert_eq!(reason(body), EnvelopeReason::NotAnObject);
    }
}

#[test]
fn d23_jsonrpc_is_exactly_two_point_zero() {
    for version in
        [r#""1.0""#, r#""2""#, r#""2.00""#, r#"" 2.0""#, "2.0", "2", "null", r#"["2.0"]"#, r#"{"2.0":1}"#]
    {
        let body = format!(r#"{{"jsonrpc":{version},"id":1,"method":"ping"}}"#);
        assert_eq!(reason(&body), EnvelopeReason::NotJsonRpc, "{body}");
    }
    assert_eq!(reason(r#"{"id":1,"method":"ping"}"#), EnvelopeReason::NotJsonRpc);
    assert_eq!(reason("{}"), EnvelopeReason::NotJsonRpc);
}

#[test]
fn d21_d23_an_id_is_a_string_or_an_integer_every_parser_keeps() {
    let long = format!("\"{}\"", "x".repeat(257));
    for id in [
        "null",
        "true",
        "[]",
        "[1]",
        "{}",
        r#"{"id":1}"#,
        "1.0",
        "1.5",
        "-0",
        "-0.0",
        "1e0",
        "1E2",
        "0e0",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551617",
        &long,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let error = legacy(&body).unwrap_err();
        assert_eq!((error.reason(), error.id()), (EnvelopeReason::BadId, None), "{id}");
    }
    for (id, want) in [
        ("0", "0"),
        ("-1", "-1"),
        ("9007199254740991", "9007199254740991"),
        (r#""""#, r#""""#),
        (r#""\u0061\/""#, r#""a/""#),
        (r#""1""#, r#""1""#),
    ] {
        let message = legacy(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).unwrap();
        assert_eq!((message.id_text(), message.kind()), (Some(want), Kind::Request));
    }
}

#[test]
fn d23_a_message_is_a_call_or_an_answer() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#,
    ] {
        assert_eq!(reason(body), EnvelopeReason::AmbiguousMessage, "{body}");
    }
    for extra in
        [r#""x":1"#, r#""meta2":{}"#, r#""name":"a""#, r#""arguments":{}"#, r#""_meta":{}"#, r#""":0"#]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping",{extra}}}"#);
        assert_eq!(reason(&body), EnvelopeReason::UnknownMember, "{body}");
    }
}

#[test]
fn d23_a_method_is_exact_text() {
    let long = format!("\"{}\"", "a".repeat(129));
    for method in [
        "null",
        "1",
        "[]",
        r#"["tools/call"]"#,
        "{}",
        r#""""#,
        r#"" tools/call""#,
        r#""tools/call ""#,
        r#""tools /call""#,
        r#""tools/call\u0000""#,
        r#""tools/call\n""#,
        r#""tools\\call""#,
        r#""tools/cåll""#,
        r#""tools/\uff43all""#,
        r#""tools/call\u200b""#,
        r#""tools%2Fcall""#,
        r#""tools/call;a""#,
        r#""tools/call?""#,
        &long,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method},"params":{{"name":"a"}}}}"#);
        assert_eq!(reason(&body), EnvelopeReason::BadMethod, "{body}");
    }
    // Well-formed but another method: policy refuses what it does not know.
    for method in
        ["Tools/Call", "TOOLS/CALL", "tools.call", "tools//call", "/tools/call", "tools/call/", "toolscall"]
    {
        assert_eq!(target(method, r#"{"name":"a"}"#), Target::Other(method.to_owned()));
    }
}

#[test]
fn d23_a_call_without_an_id_is_refused() {
    for method in [
        "tools/call",
        "prompts/get",
        "resources/read",
        "tools/list",
        "initialize",
        "ping",
        "x",
        "notifications",
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"name":"salary.get","uri":"x:y"}}}}"#
        );
        assert_eq!(reason(&body), EnvelopeReason::RequestWithoutId, "{body}");
    }
    let message = legacy(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap();
    assert_eq!(message.target(), &Target::ClientNotification("notifications/initialized".to_owned()));
    assert_eq!((message.kind(), message.id_text()), (Kind::Notification, None));
    assert_eq!(target("notifications/cancelled", "{}"), Target::Other("notifications/cancelled".to_owned()));
}

#[test]
fn c4_responses_belong_to_the_session_era() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"a","error":{"code":-1,"message":"no"}}"#,
    ] {
        let message = legacy(body).unwrap();
        assert_eq!((message.kind(), message.method()), (Kind::Response, None));
        assert_eq!(with_headers(body, "2025-11-25", "-", "-").unwrap().era(), Era::Legacy);
        let error = with_headers(body, "2026-07-28", "-", "-").unwrap_err();
        assert_eq!((error.reason(), error.http_status()), (EnvelopeReason::ResponseNotAllowed, 400));
        assert_eq!(
            with_headers(body, "-", "tools/call", "-").unwrap_err().reason(),
            EnvelopeReason::HeaderMismatch
        );
    }
    for body in [r#"{"jsonrpc":"2.0","result":{}}"#, r#"{"jsonrpc":"2.0","id":null,"error":{}}"#] {
        assert_eq!(reason(body), EnvelopeReason::BadId);
    }
}

#[test]
fn c12_an_error_has_a_code_of_the_right_range_and_the_id() {
    for reason in EnvelopeReason::ALL {
        let code = reason.jsonrpc_code();
        let defined = [-32700, -32600, -32602, -32020, -32022].contains(&code);
        assert!(defined || !(-32768..=-32000).contains(&code), "{reason:?}");
        assert!((400..500).contains(&reason.http_status()));
        assert_eq!(format!("{reason:?}"), reason.as_str());
        assert!(!reason.message().is_empty());
    }
    let error = legacy(r#"{"jsonrpc":"2.0","id":"\u0037","method":"tools/call","params":[]}"#).unwrap_err();
    assert_eq!((error.id(), error.jsonrpc_code()), (Some(r#""7""#), -32602));
    let error = legacy(r#"{"jsonrpc":"2.0","id":7,"method":"ping","x":1}"#).unwrap_err();
    assert_eq!((error.id(), error.jsonrpc_code()), (Some("7"), -32600));
    assert_eq!(legacy(r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}"#).unwrap_err().id(), None);
    assert_eq!(legacy("{").unwrap_err().jsonrpc_code(), -32700);
    let small = Limits { bytes: 1, ..Limits::default() };
    assert_eq!(Message::read(b"{}", &HeaderView::default(), &small).unwrap_err().http_status(), 413);
}

#[test]
fn d1_neither_errors_nor_debug_text_show_what_was_sent() {
    let secret = "hunter2";
    let message =
        legacy(&call(&format!(r#","arguments":{{"p":"{secret}"}},"_meta":{{"t":"{secret}"}}"#))).unwrap();
    assert!(!format!("{message:?}").contains(secret));
    for body in [
        call(&format!(r#","Name":"{secret}""#)),
        call(&format!(r#","{secret}":1,"{secret}":1"#)),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{secret} "}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{secret} "}}}}"#),
    ] {
        let error = legacy(&body).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
    let error = with_headers(&call(""), secret, "-", "-").unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
}
