use behalf_policy::envelope::{
    CompletionRef, EnvelopeReason, Era, HeaderView, Kind, Limits, ListKind, Message, Target,
};

use crate::{call, legacy, reason, refused, with_headers};

fn target(method: &str, params: &str) -> Target {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    legacy(&body).unwrap().target().clone()
}

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
fn d19_params_and_what_is_judged_in_them_have_their_shape() {
    for params in
        ["null", "[]", r#"["salary.get"]"#, r#"[{"name":"salary.get"}]"#, r#""salary.get""#, "1", "true"]
    {
        assert_eq!(refused("tools/call", params), EnvelopeReason::BadParams, "{params}");
    }
    for params in [
        "{}",
        r#"{"name":null}"#,
        r#"{"name":1}"#,
        r#"{"name":["salary.get"]}"#,
        r#"{"name":{"name":"salary.get"}}"#,
        r#"{"uri":"salary.get"}"#,
        r#"{"name":"salary.get","arguments":null}"#,
        r#"{"name":"salary.get","arguments":[]}"#,
        r#"{"name":"salary.get","arguments":"{}"}"#,
        r#"{"name":"salary.get","arguments":1}"#,
        r#"{"name":"salary.get","inputResponses":[]}"#,
        r#"{"name":"salary.get","requestState":{}}"#,
    ] {
        assert_eq!(refused("tools/call", params), EnvelopeReason::BadParams, "{params}");
    }
    assert_eq!(reason(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#), EnvelopeReason::BadParams);
    for meta in ["null", "[]", "1", r#""x""#, "true"] {
        assert_eq!(reason(&call(&format!(r#","_meta":{meta}"#))), EnvelopeReason::BadMeta, "{meta}");
    }
    for (method, params) in [
        ("prompts/get", "{}"),
        ("prompts/get", r#"{"name":["a"]}"#),
        ("resources/read", r#"{"name":"a"}"#),
        ("resources/subscribe", "{}"),
        ("resources/unsubscribe", r#"{"uri":["a:b"]}"#),
        ("tasks/get", r#"{"id":"a"}"#),
        ("completion/complete", "{}"),
        ("completion/complete", r#"{"ref":"ref/prompt"}"#),
        ("completion/complete", r#"{"ref":{"type":"ref/prompt"}}"#),
        ("completion/complete", r#"{"ref":{"type":"ref/resource","name":"a"}}"#),
        ("completion/complete", r#"{"ref":{"type":"ref/other","name":"a"}}"#),
        ("completion/complete", r#"{"ref":{"name":"a"}}"#),
        ("subscriptions/listen", "{}"),
        ("subscriptions/listen", r#"{"notifications":[]}"#),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":"a:b"}}"#),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":[1]}}"#),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":[["a:b"]]}}"#),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["a:b",null]}}"#),
        ("subscriptions/listen", r#"{"notifications":{"toolsListChanged":"yes"}}"#),
        ("subscriptions/listen", r#"{"notifications":{"everything":true}}"#),
    ] {
        assert_eq!(refused(method, params), EnvelopeReason::BadParams, "{method} {params}");
    }
}

#[test]
fn c27_d22_a_tool_name_is_exact_and_plain() {
    let long = "a".repeat(129);
    for name in [
        "",
        " ",
        "salary.get ",
        " salary.get",
        r"salary.get\u0000",
        r"salary.get\n",
        r"salary\tget",
        "salary get",
        "salary/get",
        "salary:get",
        r"salary\\get",
        "salary%2Eget",
        "sаlary.get",
        r"salary.get\u200b",
        r"sa\u00adlary.get",
        "salary．get",
        "ſalary.get",
        "\u{212a}ey",
        "café",
        r"cafe\u0301",
        "😀",
        "tool*",
        "a,b",
        "=?base64?c2FsYXJ5LmdldA==?=",
        "salary.get?",
        "salary.get#",
        "{salary.get}",
        "$x",
        "a@b",
        "a+b",
        "~",
        &long,
    ] {
        let got = refused("tools/call", &format!(r#"{{"name":"{name}"}}"#));
        assert_eq!(got, EnvelopeReason::BadToolName, "{name}");
    }
    let longest = "a".repeat(128);
    for (name, want) in [
        ("salary.get", "salary.get"),
        ("Salary.Get", "Salary.Get"),
        (r"sal\u0061ry.get", "salary.get"),
        ("_-.", "_-."),
        ("..", ".."),
        ("c2FsYXJ5LmdldA", "c2FsYXJ5LmdldA"),
        (&longest, &longest),
    ] {
        assert_eq!(
            target("tools/call", &format!(r#"{{"name":"{name}"}}"#)),
            Target::ToolCall { name: want.to_owned() }
        );
    }
}

#[test]
fn d26_names_uris_and_state_are_bounded() {
    let long = "a".repeat(8193);
    for (method, params) in [
        ("prompts/get", r#"{"name":""}"#.to_owned()),
        ("prompts/get", r#"{"name":"a\u0000"}"#.to_owned()),
        ("prompts/get", r#"{"name":"a\nb"}"#.to_owned()),
        ("prompts/get", r#"{"name":"a\u0085b"}"#.to_owned()),
        ("prompts/get", format!(r#"{{"name":"{}"}}"#, "a".repeat(1025))),
        ("resources/read", r#"{"uri":""}"#.to_owned()),
        ("resources/read", r#"{"uri":"a:\r\nb"}"#.to_owned()),
        ("resources/read", format!(r#"{{"uri":"{long}"}}"#)),
        ("tasks/cancel", r#"{"taskId":""}"#.to_owned()),
        ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["a:b",""]}}"#.to_owned()),
        ("subscriptions/listen", r#"{"notifications":{"taskIds":["a\u0000"]}}"#.to_owned()),
    ] {
        assert_eq!(refused(method, &params), EnvelopeReason::BadTargetName, "{method} {params:.60}");
    }
    let many = vec![r#""a:b""#; 1025].join(",");
    assert_eq!(
        refused(
            "subscriptions/listen",
            &format!(r#"{{"notifications":{{"resourceSubscriptions":[{many}]}}}}"#)
        ),
        EnvelopeReason::BadParams
    );
    let state = |n| call(&format!(r#","requestState":"{}""#, "s".repeat(n)));
    assert_eq!(reason(&state(65537)), EnvelopeReason::RequestStateTooLarge);
    assert!(legacy(&state(65536)).is_ok());
}

#[test]
fn c14_every_known_method_has_its_target() {
    let name = |s: &str| s.to_owned();
    for (method, params, want) in [
        ("prompts/get", r#"{"name":"Größe 1"}"#, Target::GetPrompt { name: name("Größe 1") }),
        ("resources/read", r#"{"uri":"file:///a%20b"}"#, Target::ReadResource { uri: name("file:///a%20b") }),
        (
            "resources/subscribe",
            r#"{"uri":"a:b"}"#,
            Target::Subscribe { uris: vec![name("a:b")], tasks: vec![] },
        ),
        (
            "resources/unsubscribe",
            r#"{"uri":"a:b"}"#,
            Target::Subscribe { uris: vec![name("a:b")], tasks: vec![] },
        ),
        (
            "subscriptions/listen",
            r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:b","c:\u0064"],"taskIds":["t"]}}"#,
            Target::Subscribe { uris: vec![name("a:b"), name("c:d")], tasks: vec![name("t")] },
        ),
        (
            "subscriptions/listen",
            r#"{"notifications":{}}"#,
            Target::Subscribe { uris: vec![], tasks: vec![] },
        ),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}}"#,
            Target::Complete { reference: CompletionRef::Prompt(name("p")) },
        ),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","uri":"a:{b}"}}"#,
            Target::Complete { reference: CompletionRef::Resource(name("a:{b}")) },
        ),
        ("tasks/get", r#"{"taskId":"t"}"#, Target::Task { id: name("t") }),
        ("tasks/update", r#"{"taskId":"t"}"#, Target::Task { id: name("t") }),
        ("tasks/cancel", r#"{"taskId":"t"}"#, Target::Task { id: name("t") }),
        ("tasks/result", r#"{"taskId":"t"}"#, Target::Task { id: name("t") }),
        ("tasks/list", "{}", Target::Other(name("tasks/list"))),
        ("tools/list", "{}", Target::List(ListKind::Tools)),
        ("prompts/list", "{}", Target::List(ListKind::Prompts)),
        ("resources/list", "{}", Target::List(ListKind::Resources)),
        ("resources/templates/list", "{}", Target::List(ListKind::ResourceTemplates)),
        ("initialize", "{}", Target::Initialize),
        ("server/discover", "{}", Target::Discover),
        ("ping", "{}", Target::Ping),
        ("logging/setLevel", r#"{"level":"info"}"#, Target::SetLevel),
        ("roots/list", "{}", Target::Other(name("roots/list"))),
        ("sampling/createMessage", "{}", Target::Other(name("sampling/createMessage"))),
    ] {
        assert_eq!(target(method, params), want, "{method}");
    }
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
