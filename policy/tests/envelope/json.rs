use behalf_policy::envelope::{EnvelopeReason, HeaderView, Limits, Message};
use proptest::prelude::*;
use serde_json::Value;

use crate::{call, legacy, reason};

#[test]
fn d19_duplicate_members_are_refused_at_every_depth_after_unescaping() {
    for body in [
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
        &call(r#","name":"salary.update""#),
        &call(r#","n\u0061me":"salary.update""#),
        &call(r#","arguments":{},"arguments":{}"#),
        &call(r#","arguments":{"a":1,"a":1}"#),
        &call(r#","arguments":{"a":1,"\u0061":1}"#),
        &call(r#","arguments":{"a":{"b":[{"c":1,"c":2}]}}"#),
        &call(r#","arguments":{"a":[[[{"/":1,"\/":2}]]]}"#),
        &call(r#","arguments":{"😀":1,"\ud83d\ude00":2}"#),
        &call(r#","_meta":{"x":1,"x":2}"#),
        &call(r#","_meta":{"x":{"y":1,"y":2}}"#),
        &call(r#","_meta":{},"_meta":{}"#),
        &call(r#","inputResponses":{"q":{"a":1,"a":2}}"#),
    ] {
        assert_eq!(reason(body), EnvelopeReason::DuplicateMember, "{body}");
    }
}

#[test]
fn d19_what_is_not_exactly_one_json_value_is_refused() {
    for value in [
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "undefined",
        "True",
        "TRUE",
        "nul",
        "nulll",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "-.5",
        "1e",
        "1e+",
        "1E-",
        "-",
        "--1",
        "0x10",
        "1_000",
        "1 2",
        "'a'",
        "a",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        "]",
        "{",
        "{a:1}",
        "{'a':1}",
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a" 1}"#,
        r#"{"a":}"#,
        r#"{"a":1"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":1;"b":2}"#,
        "{1:2}",
        "{null:2}",
        "// c\n1",
        "/* c */1",
        "#1",
        "",
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\udc00\ud800""#,
        r#""\uD8""#,
        r#""\u00g0""#,
        r#""\x41""#,
        r#""\'""#,
        r#""\0""#,
        r#""\U0041""#,
        r#""\"#,
        r#"""#,
        "\"\u{0}\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\u{1f}\"",
        "\u{a0}1",
        "\u{feff}1",
        "\u{2028}1",
        "\u{b}1",
        "\u{c}1",
    ] {
        let body = call(&format!(r#","arguments":{{"v":{value}}}"#));
        assert_eq!(reason(&body), EnvelopeReason::BodyNotJson, "{body:?}");
    }
    for body in ["", " ", "\n", "{", "}", "nul", "\u{0}", "\u{0}{}", "{}\u{0}"] {
        assert_eq!(reason(body), EnvelopeReason::BodyNotJson, "{body:?}");
    }
}

#[test]
fn d24_a_second_value_after_the_first_is_refused() {
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for tail in [ping, "\n{}", " {}", "x", ",", "]", "}", "null", "\u{0}", "\u{feff}", ";", "\n\n[]"] {
        assert_eq!(reason(&format!("{ping}{tail}")), EnvelopeReason::BodyNotJson, "{tail:?}");
    }
}

#[test]
fn d19_d25_only_utf_8_without_a_byte_order_mark() {
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let utf16: Vec<u8> = ping.iter().flat_map(|b| [*b, 0]).collect();
    let with = |bytes: &[u8]| {
        [br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":""#, bytes, b"\"}}"].concat()
    };
    for (body, want) in [
        ([b"\xef\xbb\xbf", &ping[..]].concat(), EnvelopeReason::BodyNotUtf8),
        ([b"\xff\xfe", &utf16[..]].concat(), EnvelopeReason::BodyNotUtf8),
        ([b"\xfe\xff", &ping[..]].concat(), EnvelopeReason::BodyNotUtf8),
        (utf16, EnvelopeReason::BodyNotJson),
        (with(b"\xc0\xaf"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xc1\xa1"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xe0\x80\xaf"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xf0\x80\x80\xaf"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xed\xa0\x80"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xed\xa0\xbd\xed\xb8\x80"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xf4\x90\x80\x80"), EnvelopeReason::BodyNotUtf8),
        (with(b"\x80"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xe9"), EnvelopeReason::BodyNotUtf8),
        (with(b"\xff"), EnvelopeReason::BodyNotUtf8),
    ] {
        let got = Message::read(&body, &HeaderView::default(), &Limits::default()).unwrap_err().reason();
        assert_eq!(got, want, "{body:?}");
    }
}

#[test]
fn d26_size_depth_and_member_count_are_bounded() {
    let read = |body: &str, limits: Limits| {
        Message::read(body.as_bytes(), &HeaderView::default(), &limits).map(|_| ()).map_err(|e| e.reason())
    };
    let nested = |n: usize| call(&format!(r#","arguments":{{"v":{}{}}}"#, "[".repeat(n), "]".repeat(n)));
    let objects = |n: usize| call(&format!(r#","arguments":{}1{}"#, r#"{"v":"#.repeat(n), "}".repeat(n)));
    let all = Limits::default();
    // The message, its params and its arguments are three levels.
    assert_eq!(read(&nested(61), all), Ok(()));
    assert_eq!(read(&nested(62), all), Err(EnvelopeReason::BodyTooDeep));
    assert_eq!(read(&nested(100_000), all), Err(EnvelopeReason::BodyTooDeep));
    assert_eq!(read(&objects(62), all), Ok(()));
    assert_eq!(read(&objects(63), all), Err(EnvelopeReason::BodyTooDeep));
    assert_eq!(read(&"[".repeat(1_000_000), all), Err(EnvelopeReason::BodyTooDeep));
    assert_eq!(read(&nested(62), Limits { depth: 1000, ..all }), Err(EnvelopeReason::BodyTooDeep));
    assert_eq!(read(&nested(1), Limits { depth: 3, ..all }), Err(EnvelopeReason::BodyTooDeep));

    let body = call("");
    assert_eq!(read(&body, Limits { bytes: body.len(), ..all }), Ok(()));
    assert_eq!(read(&body, Limits { bytes: body.len() - 1, ..all }), Err(EnvelopeReason::BodyTooLarge));
    // jsonrpc, id, method, params, name.
    assert_eq!(read(&body, Limits { keys: 5, ..all }), Ok(()));
    assert_eq!(read(&body, Limits { keys: 4, ..all }), Err(EnvelopeReason::TooManyMembers));
    let many = (0..20_000).map(|i| format!(r#""k{i}":0"#)).collect::<Vec<_>>().join(",");
    assert_eq!(read(&call(&format!(r#","arguments":{{{many}}}"#)), all), Err(EnvelopeReason::TooManyMembers));
    assert_eq!(
        read(&call(&format!(r#","arguments":{{"v":[{{{many}}}]}}"#)), all),
        Err(EnvelopeReason::TooManyMembers)
    );
}

#[test]
fn d21_numbers_in_arguments_stay_the_text_they_were() {
    for number in [
        "9007199254740993",
        "-9007199254740993",
        "123456789012345678901234567890",
        "1.0",
        "1",
        "-0",
        "-0.0",
        "0",
        "1e2",
        "1E+2",
        "1e-400",
        "1e400",
        "0.10000000000000000000001",
        "1.7976931348623157e309",
    ] {
        let message = legacy(&call(&format!(r#","arguments":{{"v": {number} }}"#))).unwrap();
        assert_eq!(message.arguments(), Some(format!(r#"{{"v":{number}}}"#).as_str()));
        let forwarded = String::from_utf8(message.forward_body(None)).unwrap();
        assert!(forwarded.contains(&format!(r#""v":{number}}}"#)), "{forwarded}");
    }
}

#[test]
fn strings_are_read_with_every_escape() {
    let body = r#"{"jsonrpc":"2.0","id":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","method":"pi\u006Eg"}"#;
    let message = legacy(body).unwrap();
    assert_eq!(message.method(), Some("ping"));
    let id: Value = serde_json::from_str(message.id_text().unwrap()).unwrap();
    assert_eq!(id, Value::String("\"\\/\u{8}\u{c}\n\r\té😀".to_owned()));
}

/// Any JSON value, written in ways a tidy writer would not choose.
fn json_text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[a-z]{0,4}".prop_map(|s| format!("\"{s}\"")),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        any::<char>().prop_map(|c| {
            let mut units = [0; 2];
            let units: Vec<_> = c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04X}")).collect();
            format!("\"{}\"", units.concat())
        }),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
        string.clone(),
    ];
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t"), Just("\r\n")];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        let member = (string.clone(), space.clone(), inner.clone());
        prop_oneof![
            (prop::collection::vec(inner, 0..5), space.clone())
                .prop_map(|(v, s)| { format!("[{s}{}{s}]", v.join(&format!("{s},{s}"))) }),
            prop::collection::vec(member, 0..5).prop_map(|v| {
                let members: Vec<_> = v.into_iter().map(|(k, s, v)| format!("{s}{k}{s}:{s}{v}{s}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn d19_any_value_is_read_as_serde_json_reads_it_or_has_duplicates(value in json_text()) {
        let body = call(&format!(r#","arguments":{{"v":{value}}}"#));
        let theirs: Value = serde_json::from_str(&body).unwrap();
        match legacy(&body) {
            Ok(message) => {
                let ours: Value = serde_json::from_str(message.arguments().unwrap()).unwrap();
                prop_assert_eq!(&ours, &theirs["params"]["arguments"]);
            }
            Err(error) => prop_assert_eq!(error.reason(), EnvelopeReason::DuplicateMember),
        }
    }

    #[test]
    fn d19_what_serde_json_cannot_read_is_not_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let read = Message::read(&bytes, &HeaderView::default(), &Limits::default());
        if serde_json::from_slice::<Value>(&bytes).is_err() {
            prop_assert!(read.is_err());
        }
    }

    #[test]
    fn d19_a_body_with_one_byte_changed_is_read_as_serde_json_reads_it_or_refused(
        at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut body = call(r#","arguments":{"a":[1,-2.5e3,"x\u00e9\n"],"b":{"c":null,"d":true}}"#).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(message) = Message::read(&body, &HeaderView::default(), &Limits::default()) {
            let theirs: Value = serde_json::from_slice(&body).unwrap();
            let ours: Value = serde_json::from_slice(&message.forward_body(None)).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }
}
