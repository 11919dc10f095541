use behalf_policy::envelope::{EnvelopeReason, Target};

use crate::{call, legacy, reason, refused};

#[test]
fn d20_members_that_some_parser_takes_for_a_reserved_one_are_refused() {
    for key in [
        "JSONRPC",
        "Id",
        "ID",
        "\u{131}d",
        "\u{130}d",
        "Method",
        "METHOD",
        "method ",
        " method",
        r"method\u0000",
        r"\u0000method",
        r"me\u200bthod",
        r"\ufeffmethod",
        "ｍｅｔｈｏｄ",
        "Params",
        "param\u{17f}",
        "Result",
        "Error",
        "error\u{2060}",
        "_method",
        "me-thod",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","{key}":1}}"#);
        assert_eq!(reason(&body), EnvelopeReason::LookAlikeMember, "{body}");
    }
    for key in [
        "Name",
        "NAME",
        "nAme",
        r"name\u0000",
        r"name\u0000x",
        "name ",
        r"\tname",
        r"na\u00adme",
        r"name\ufe0f",
        r"n\u2063ame",
        "ｎame",
        "𝐧𝐚𝐦𝐞",
        "ⁿame",
        "Arguments",
        "argument\u{17f}",
        r"arguments\u007f",
        "_Meta",
        "_META",
        "meta",
        "Meta",
        "__meta",
        "＿meta",
        "task_id",
        "TaskId",
        "taskid",
        "task-id",
        "tas\u{212a}Id",
        "URI",
        "Uri",
        "ur\u{131}",
        "Ref",
        "Notifications",
        "input_responses",
        "InputResponses",
        "inputresponses",
        "request_state",
        "RequestState",
        "requeststate",
        "Result",
        "JsonRpc",
        "Method",
        "Params",
        "ID",
    ] {
        assert_eq!(reason(&call(&format!(r#","{key}":1"#))), EnvelopeReason::LookAlikeMember, "{key}");
    }
}

#[test]
fn d20_look_alikes_in_meta_and_in_judged_objects_are_refused() {
    for key in [
        "Name",
        r"name\u0000",
        "Arguments",
        "_Meta",
        "TaskId",
        "Id",
        "Result",
        "IO.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/protocolversion",
        r"io.modelcontextprotocol/protocolVersion\u0000",
        "io.modelcontextprotocol／protocolVersion",
        "io.modelcontextprotocol/clientcapabilities",
    ] {
        assert_eq!(
            reason(&call(&format!(r#","_meta":{{"{key}":1}}"#))),
            EnvelopeReason::LookAlikeMember,
            "{key}"
        );
    }
    for (method, params) in [
        ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"a","Name":"b"}}"#),
        ("completion/complete", r#"{"ref":{"type":"ref/prompt","Type":"ref/resource","name":"a"}}"#),
        ("subscriptions/listen", r#"{"notifications":{"resourcesubscriptions":["a:b"]}}"#),
        ("subscriptions/listen", r#"{"notifications":{"resource_subscriptions":["a:b"]}}"#),
    ] {
        assert_eq!(refused(method, params), EnvelopeReason::LookAlikeMember, "{params}");
    }
}

#[test]
fn d20_look_alikes_are_the_callers_own_business_deeper_down() {
    for rest in [
        r#","arguments":{"Name":1,"name\u0000":2,"name":3,"_Meta":{},"ID":4,"meta":5}"#,
        r#","inputResponses":{"Name":{"Name":1,"name":2}}"#,
        r#","_meta":{"x":{"Name":1,"_META":2},"task_id":"t","progressToken":1,"name":"n"}"#,
        r#","task":{"TTL":1,"Id":2}"#,
        r#","namer":1,"uris":[],"identity":1,"argument":{"Name":1}"#,
    ] {
        let message = legacy(&call(rest)).unwrap();
        assert_eq!(message.target(), &Target::ToolCall { name: "salary.get".to_owned() }, "{rest}");
    }
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"Name":1,"name":2,"RESULT":3}}"#;
    assert_eq!(legacy(answer).unwrap().target(), &Target::Response);
}

/// Found by the differential test: a server in JavaScript that copies what it parsed by assignment read arguments from
/// the prototype that nobody had judged.
#[test]
fn d20_a_member_that_becomes_the_prototype_is_refused() {
    for key in ["__proto__", r"\u005f_proto__", r"__\u0070roto__"] {
        let in_params = call(&format!(r#","{key}":{{"arguments":{{"employee":"bob"}}}}"#));
        assert_eq!(reason(&in_params), EnvelopeReason::LookAlikeMember, "{key}");
        let in_meta = call(&format!(r#","_meta":{{"{key}":{{}}}}"#));
        assert_eq!(reason(&in_meta), EnvelopeReason::LookAlikeMember, "{key}");
    }
    let reference = r#"{"ref":{"type":"ref/prompt","name":"a","__proto__":{"uri":"b"}}}"#;
    assert_eq!(refused("completion/complete", reference), EnvelopeReason::LookAlikeMember);
    for plain in ["proto", "constructor", "prototype", "__proto"] {
        assert!(legacy(&call(&format!(r#","{plain}":1"#))).is_ok(), "{plain}");
    }
}
