//! What a request is about: the shape, the name and the bounds of what its method names.

use behalf_policy::envelope::{CompletionRef, EnvelopeReason, ListKind, Target};

use crate::{call, legacy, reason, refused, target};

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
