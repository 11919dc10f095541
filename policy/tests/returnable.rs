//! What answers give to come back with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole crate is a test")]

use behalf_policy::returnable::{EventReader, Returnable, in_message};

fn state(text: &str) -> Returnable {
    Returnable::State(text.to_owned())
}

fn task(text: &str) -> Returnable {
    Returnable::Task(text.to_owned())
}

#[test]
fn c19_states_and_tasks_are_found_where_the_protocol_puts_them() {
    for (message, found) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"a b"}}"#,
            vec![state("a b")],
        ),
        (r#"{"id":1,"result":{"requestState":"\u0061\/"}}"#, vec![state("a/")]),
        (r#"{"id":1,"result":{"resultType":"task","taskId":"t"}}"#, vec![task("t")]),
        (r#"{"id":1,"result":{"task":{"taskId":"t","status":"working"}}}"#, vec![task("t")]),
        (r#"{"id":1,"result":{"content":[{"text":"requestState taskId"}]}}"#, vec![]),
        (r#"{"id":1,"result":{"structuredContent":{"requestState":"x"}}}"#, vec![]),
        (r#"{"id":1,"error":{"requestState":"x"}}"#, vec![]),
        (r#"{"id":1,"params":{"requestState":"x"}}"#, vec![]),
        (r#"{"id":1,"result":{"requestState":7}}"#, vec![]),
        (r#"{"id":1,"result":{"requestState":"x"}"#, vec![]),
        ("requestState", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(in_message(message.as_bytes()), found, "{message}");
    }
}

#[test]
fn c19_an_event_stream_gives_the_same_however_it_is_cut() {
    let stream = ": hi\r\n\r\nid: 1\r\ndata: {\"id\":1,\ndata: \"result\":{\"requestState\":\"a\"}}\n\n\
                  data:{\"id\":2,\"result\":{\"taskId\":\"t\"}}\r\revent: x\n\ndata: {\"id\":3,\"result\":{\"requestState\":\"open\"}}\n";
    for size in 1..stream.len() {
        let mut reader = EventReader::new(1 << 16);
        let found: Vec<_> = stream.as_bytes().chunks(size).flat_map(|chunk| reader.feed(chunk)).collect();
        assert_eq!(found, [state("a"), task("t")], "{size}");
    }
}

#[test]
fn d26_an_event_over_the_limit_gives_nothing_and_the_next_one_does() {
    let mut reader = EventReader::new(64);
    let large = format!("data: {{\"result\":{{\"requestState\":\"{}\"}}}}\n\n", "a".repeat(64));
    assert_eq!(reader.feed(large.as_bytes()), []);
    assert_eq!(reader.feed(b"data: {\"result\":{\"requestState\":\"b\"}}\n\n"), [state("b")]);
}
