use behalf_policy::envelope::{HeaderView, Limits, Message, Target};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{call, legacy, with_headers};

fn forwarded(body: &str, handle: Option<&str>) -> String {
    String::from_utf8(legacy(body).unwrap().forward_body(handle)).unwrap()
}

#[test]
fn d19_the_judged_message_is_written_anew() {
    for (body, want) in [
        (
            " {\r\n \"method\" : \"pi\\u006eg\" , \"id\" : 1 , \"jsonrpc\" : \"2.0\" } ",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        ),
        (
            r#"{"params":{"arguments":{ "a" : [ 1 , "x y" ] },"n\u0061me":"salary\u002eget"},"method":"tools\/call","id":"\u0031","jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{"arguments":{"a":[1,"x y"]},"name":"salary.get"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{},"a":"\u00e9"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"é","_meta":{}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","result":{"a": 1.0,"_meta":{"behalf.dev/x":1}},"id":-5}"#,
            r#"{"jsonrpc":"2.0","id":-5,"result":{"a":1.0,"_meta":{"behalf.dev/x":1}}}"#,
        ),
    ] {
        assert_eq!(forwarded(body, None), want);
    }
}

#[test]
fn a_handle_goes_into_meta_which_is_made_when_absent() {
    for (rest, want) in [
        ("", r#","_meta":{"behalf.dev/handle":"h1"}"#),
        (r#","_meta":{}"#, r#","_meta":{"behalf.dev/handle":"h1"}"#),
        (r#","_meta":{"a":1},"arguments":{}"#, r#","arguments":{},"_meta":{"a":1,"behalf.dev/handle":"h1"}"#),
        (r#","_meta":{"behalf.dev/handle":"forged"}"#, r#","_meta":{"behalf.dev/handle":"h1"}"#),
    ] {
        assert_eq!(forwarded(&call(rest), Some("h1")), call(want));
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(
        forwarded(ping, Some("h\"1")),
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"behalf.dev/handle":"h\"1"}}}"#
    );
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(forwarded(answer, Some("h1")), answer);
}

#[test]
fn d38_what_a_caller_sends_under_our_names_is_gone_in_every_spelling() {
    for key in [
        "behalf.dev/handle",
        "behalf.dev/",
        "behalf.dev/anything",
        r"behalf\u002edev\/handle",
        "Behalf.dev/handle",
        "BEHALF.DEV/HANDLE",
        "behalf.Dev/handle",
        "ｂehalf.dev/handle",
        "behalf．dev/handle",
        "behalf․dev/handle",
        "behalf.dev／handle",
        r"be\u200bhalf.dev/handle",
        r"\ufeffbehalf.dev/handle",
        r"\u0000behalf.dev/handle",
        r"behalf.dev\u0000/handle",
        " behalf.dev/handle",
        "behalf.dev /handle",
        r"\tbehalf.dev/handle",
        "𝒃ehalf.dev/x",
        r"behalf.dev\u00ad/handle",
        r"beh\ufe0falf.dev/handle",
    ] {
        let body = call(&format!(r#","_meta":{{"a":1,"{key}":"forged","z":2}}"#));
        assert_eq!(forwarded(&body, None), call(r#","_meta":{"a":1,"z":2}"#), "{key}");
        assert_eq!(
            forwarded(&body, Some("h")),
            call(r#","_meta":{"a":1,"z":2,"behalf.dev/handle":"h"}"#),
            "{key}"
        );
    }
    // Other people's names stay.
    for key in [
        "behalf.dev",
        "behalf.development/x",
        "x.behalf.dev/x",
        "behalf/dev",
        "dev.behalf/handle",
        "traceparent",
    ] {
        let body = call(&format!(r#","_meta":{{"{key}":"v"}}"#));
        assert_eq!(forwarded(&body, None), body);
    }
}

#[test]
fn c25_trace_context_and_c19_request_state_are_kept() {
    let body = call(
        r#","requestState":"eyJ\/a b\"=","inputResponses":{"q":{"action":"accept"}},"_meta":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=1,b=2","baggage":"k=v"}"#,
    );
    let ours: Value = serde_json::from_str(&forwarded(&body, None)).unwrap();
    assert_eq!(ours, serde_json::from_str::<Value>(&body).unwrap());
    assert_eq!(ours["params"]["requestState"], "eyJ/a b\"=");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), value(), 0..5).prop_map(|m| m.into_iter().collect())
}

/// A key of ours in one of many spellings.
fn ours() -> impl Strategy<Value = String> {
    ("[a-z]{0,6}", any::<u64>()).prop_map(|(rest, bits)| {
        let spelled = "behalf.dev/".chars().enumerate().flat_map(|(at, c)| {
            let choice = (bits >> (at * 2)) & 3;
            let c = if choice == 1 { c.to_ascii_uppercase() } else { c };
            // The full-width form of printable ASCII.
            let c = if choice == 2 { char::from_u32(u32::from(c) + 0xfee0).unwrap() } else { c };
            [Some(c), (choice == 3).then_some('\u{200b}')].into_iter().flatten()
        });
        spelled.chain(rest.chars()).collect()
    })
}

proptest! {
    #[test]
    fn d21_a_forwarded_message_means_what_was_sent(
        arguments in object(), meta in object(), extra in value(), pretty in any::<bool>()
    ) {
        let body = json!({"jsonrpc": "2.0", "id": "i", "method": "tools/call",
            "params": {"name": "salary.get", "arguments": arguments, "_meta": meta, "task": extra}});
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let message = legacy(&text).unwrap();
        let again: Value = serde_json::from_slice(&message.forward_body(None)).unwrap();
        // Both sides read by the same reader: it does not always give back the float it printed.
        prop_assert_eq!(&again, &serde_json::from_str::<Value>(&text).unwrap());
        prop_assert_eq!(message.target(), &Target::ToolCall { name: "salary.get".to_owned() });
        // What was written anew is read as the same message.
        let bytes = message.forward_body(None);
        let second = Message::read(&bytes, &HeaderView::default(), &Limits::default()).unwrap();
        prop_assert_eq!(&second.forward_body(None), &bytes);
        prop_assert!(second == message);
    }

    #[test]
    fn d38_with_or_without_a_handle_nothing_else_of_ours_is_forwarded(
        meta in object(), forged in prop::collection::btree_map(ours(), value(), 0..4),
        handle in prop::option::of("[A-Za-z0-9_-]{22}")
    ) {
        let mut sent = meta.clone();
        sent.extend(forged);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "a", "_meta": sent}}).to_string();
        let again: Value = serde_json::from_str(&forwarded(&body, handle.as_deref())).unwrap();
        let mut want = meta;
        if let Some(handle) = handle {
            want.insert("behalf.dev/handle".to_owned(), handle.into());
        }
        let want: Value = serde_json::from_str(&Value::Object(want).to_string()).unwrap();
        prop_assert_eq!(&again["params"]["_meta"], &want);
    }

    #[test]
    fn d22_an_accepted_call_names_the_tool_that_serde_json_finds(
        name in "[a-zA-Z0-9_./ -]{0,12}", method in prop_oneof![Just("tools/call"), Just("tools/Call"), Just("ping")]
    ) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": name}});
        match with_headers(&body.to_string(), "-", "-", "-") {
            Ok(message) => {
                prop_assert_eq!(message.method(), Some(method));
                if let Target::ToolCall { name: judged } = message.target() {
                    prop_assert_eq!(judged, &name);
                } else {
                    prop_assert_ne!(method, "tools/call");
                }
            }
            Err(_) => prop_assert!(name.is_empty() || name.contains([' ', '/'])),
        }
    }
}
