//! The `tools/list` answer as its caller may see it.

#![cfg(test)]

use behalf_policy::envelope::{Era, Limits, ListKind};
use behalf_policy::listing::{ListingError, SseFilter, filter_list};
use proptest::prelude::*;

fn allowed(_: ListKind, name: &str) -> bool {
    name.starts_with("ok")
}

fn json(body: &str, era: Era) -> Result<String, ListingError> {
    let out = filter_list(body.as_bytes(), ListKind::Tools, &allowed, era, &Limits::default())?;
    Ok(String::from_utf8(out).unwrap())
}

fn sse_in(chunks: &[&[u8]], era: Era, limits: Limits) -> Result<Vec<u8>, ListingError> {
    let mut filter = SseFilter::new(Some((ListKind::Tools, "1")), era, limits, allowed);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(filter.feed(chunk)?);
    }
    out.extend(filter.finish()?);
    Ok(out)
}

fn sse(stream: &str) -> Result<String, ListingError> {
    sse_in(&[stream.as_bytes()], Era::Legacy, Limits::default()).map(|out| String::from_utf8(out).unwrap())
}

const MIXED: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok.a"},{"name":"no"},{"name":"ok.b"}]}}"#;
const FILTERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok.a"},{"name":"ok.b"}]}}"#;

#[test]
fn c15_only_the_forbidden_entries_go_and_order_and_cursor_stay() {
    let body = r#" {"jsonrpc":"2.0", "id":1,
        "result": {"nextCursor": "c\u0031", "ttlMs": 1e3, "tools": [
            {"name":"ok.z", "inputSchema":{"a" : [1.0, 2]}}, {"name":"no.a"},
            {"description":"x","name":"ok.a"} , {"name":"no.b","x":{"name":"ok"}}], "_meta":{"b": 1}}} "#;
    let want = r#" {"jsonrpc":"2.0", "id":1,
        "result": {"nextCursor": "c\u0031", "ttlMs": 1e3, "tools": [{"name":"ok.z", "inputSchema":{"a" : [1.0, 2]}},{"description":"x","name":"ok.a"}], "_meta":{"b": 1}}} "#;
    assert_eq!(json(body, Era::Legacy).unwrap(), want);
    assert_eq!(json(MIXED, Era::Legacy).unwrap(), FILTERED);
    for untouched in [
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[ ]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"ok"} , {"name":"ok2"} ]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"cacheScope":"public","tools":[]}}"#,
    ] {
        assert_eq!(json(untouched, Era::Legacy).unwrap(), untouched);
    }
}

#[test]
fn c15_d35_a_modern_page_is_private() {
    for (result, want) in [
        (r#"{"tools":[],"cacheScope":"public"}"#, r#"{"tools":[],"cacheScope":"private"}"#),
        (r#"{"cacheScope" : "public" ,"tools":[]}"#, r#"{"cacheScope" : "private" ,"tools":[]}"#),
        (r#"{"cacheScope":"private","tools":[]}"#, r#"{"cacheScope":"private","tools":[]}"#),
        (r#"{"cacheScope":null,"tools":[{"name":"no"}]}"#, r#"{"cacheScope":"private","tools":[]}"#),
        (r#"{"cacheScope":{"a":["public"]},"tools":[]}"#, r#"{"cacheScope":"private","tools":[]}"#),
        (
            r#"{"tools":[{"name":"ok"}],"ttlMs":5}"#,
            r#"{"cacheScope":"private","tools":[{"name":"ok"}],"ttlMs":5}"#,
        ),
        (r#"{ "tools":[]}"#, r#"{"cacheScope":"private", "tools":[]}"#),
    ] {
        let of = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        assert_eq!(json(&of(result), Era::Modern).unwrap(), of(want));
    }
}

#[test]
fn c15_an_entry_that_is_not_plainly_named_goes() {
    for entry in [
        "{}",
        "null",
        "1",
        "true",
        r#""ok""#,
        "[]",
        r#"[{"name":"ok"}]"#,
        r#"{"name":null}"#,
        r#"{"name":1}"#,
        r#"{"name":["ok"]}"#,
        r#"{"name":{"name":"ok"}}"#,
        r#"{"Name":"ok"}"#,
        r#"{"name ":"ok"}"#,
        r#"{"title":"ok"}"#,
        r#"{"name":"ok","name":"no"}"#,
        r#"{"name":"no","name":"ok"}"#,
        r#"{"name":"ok","n\u0061me":"ok"}"#,
        r#"{"name":"ok","a":{"b":1,"b":2}}"#,
        r#"{"name":"ok","a":[{"b":1,"b":2}]}"#,
        r#"{"name":""}"#,
        r#"{"name":"\u0000ok"}"#,
        r#"{"name":"OK"}"#,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"ok"}},{entry}]}}}}"#);
        let want = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok"}]}}"#;
        assert_eq!(json(&body, Era::Legacy).unwrap(), want, "{entry}");
    }
    let escaped = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"\u006fk"}]}}"#;
    assert_eq!(json(escaped, Era::Legacy).unwrap(), escaped);
}

#[test]
fn c15_an_answer_that_cannot_be_read_is_refused_whole() {
    for (body, want) in [
        ("", ListingError::NotJson),
        ("{", ListingError::NotJson),
        ("<html>", ListingError::NotJson),
        ("\u{feff}{}", ListingError::NotJson),
        (&format!("{MIXED}{MIXED}"), ListingError::NotJson),
        (&format!("{MIXED}\n{{}}"), ListingError::NotJson),
        (r#"{"id":1,"result":{"tools":[],"tools":[{"name":"no"}]}}"#, ListingError::NotJson),
        (r#"{"id":1,"result":{"tools":[]},"result":{"tools":[{"name":"no"}]}}"#, ListingError::NotJson),
        (r#"{"id":1,"result":{"tools":[]},"r\u0065sult":{"tools":[{"name":"no"}]}}"#, ListingError::NotJson),
        (r#"{"id":1,"result":{"tools":[{"name":"\ud800"}]}}"#, ListingError::NotJson),
        (&format!("[{MIXED}]"), ListingError::Batch),
        ("[]", ListingError::Batch),
        ("null", ListingError::Shape),
        ("{}", ListingError::Shape),
        (r#"{"jsonrpc":"2.0","id":1}"#, ListingError::Shape),
        (r#"{"id":1,"result":null}"#, ListingError::Shape),
        (r#"{"id":1,"result":[]}"#, ListingError::Shape),
        (r#"{"id":1,"result":{}}"#, ListingError::Shape),
        (r#"{"id":1,"result":{"tools":null}}"#, ListingError::Shape),
        (r#"{"id":1,"result":{"tools":{"name":"no"}}}"#, ListingError::Shape),
        (r#"{"id":1,"result":{"Tools":[{"name":"no"}]}}"#, ListingError::Shape),
        (r#"{"id":1,"result":{"tools":[]},"error":{}}"#, ListingError::Shape),
        (r#"{"id":1,"result":{"tools":[]},"method":"x"}"#, ListingError::Shape),
        (
            &format!(r#"{{"id":1,"result":{{"tools":{}{}}}}}"#, "[".repeat(80), "]".repeat(80)),
            ListingError::TooLarge,
        ),
    ] {
        for era in [Era::Legacy, Era::Modern] {
            assert_eq!(json(body, era), Err(want), "{body}");
        }
    }
    let small = Limits { bytes: MIXED.len() - 1, ..Limits::default() };
    assert_eq!(
        filter_list(MIXED.as_bytes(), ListKind::Tools, &allowed, Era::Legacy, &small),
        Err(ListingError::TooLarge)
    );
    for error in [ListingError::TooLarge, ListingError::NotJson, ListingError::Batch, ListingError::Shape] {
        assert_eq!(error.reason(), format!("List{error:?}"));
    }
}

#[test]
fn c15_an_error_answer_passes_as_it_is() {
    let body =
        r#" {"jsonrpc":"2.0","id":1, "error":{"code":-1,"message":"no","data":{"tools":[{"name":"no"}]}}} "#;
    for era in [Era::Legacy, Era::Modern] {
        assert_eq!(json(body, era).unwrap(), body);
    }
}

#[test]
fn c5_only_the_event_with_the_response_is_written_anew() {
    for end in ["\n", "\r\n", "\r"] {
        let lines = |lines: &[&str]| lines.iter().map(|l| format!("{l}{end}")).collect::<Vec<_>>().concat();
        let (data, want) = (format!("data:{MIXED}"), format!("data: {FILTERED}"));
        let before = [
            ": hello",
            "",
            "retry: 100",
            "id: 0",
            "data:",
            "",
            "event: ping",
            "data: 12:00 not json",
            "",
            r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"tools":[{"name":"no"}]}}"#,
            "",
            r#"data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#,
            "",
            r#"data: {"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#,
            "",
            r#"data: {"jsonrpc":"2.0","id":2,"result":{"x":1}}"#,
            "",
            "data: 7",
            "",
            "data",
            "",
            "x: y",
            "",
        ];
        let stream =
            [&lines(&before), &lines(&["id: 7", "event: message", &data, ": c", "retry: 5", "", ": end"])];
        let wanted =
            [&lines(&before), &lines(&["id: 7", "event: message", &want, ": c", "retry: 5", "", ": end"])];
        assert_eq!(sse(&stream.map(String::as_str).concat()).unwrap(), wanted.map(String::as_str).concat());
    }
}

#[test]
fn c5_data_on_several_lines_becomes_one() {
    let split = MIXED.replacen(',', ",\ndata: ", 2).replacen('[', "[\ndata:  ", 1);
    let stream = format!("data: {split}\nid: 1\n\n");
    assert_eq!(sse(&stream).unwrap(), format!("data: {FILTERED}\nid: 1\n\n"));
    let kept = "data: {\"id\":1,\ndata: \"result\":{\"tools\":[{\"name\":\"ok\",\ndata: \"x\":1}]}}\n\n";
    assert_eq!(sse(kept).unwrap(), "data: {\"id\":1,\"result\":{\"tools\":[{\"name\":\"ok\",\"x\":1}]}}\n\n");
}

#[test]
fn c15_the_response_is_found_however_it_is_dressed() {
    let second = MIXED.replace(r#""id":1"#, r#""id":2"#);
    for (stream, want) in [
        (format!("\u{feff}data: {MIXED}\n\n"), format!("data: {FILTERED}\n\n")),
        (format!("data: {MIXED}\n\n"), format!("data: {FILTERED}\n\n")),
        (format!("data:{MIXED}"), format!("data: {FILTERED}")),
        (format!("data: {MIXED}\n"), format!("data: {FILTERED}\n")),
        (format!("event: other\ndata: {MIXED}\n\n"), format!("event: other\ndata: {FILTERED}\n\n")),
        (format!("data:   {MIXED}  \r\n\r\n"), format!("data:   {FILTERED}  \r\n\r\n")),
        (
            format!("data: {}\n\n", MIXED.replace('1', "1.0")),
            format!("data: {}\n\n", FILTERED.replace('1', "1.0")),
        ),
        (format!("data: {second}\n\n"), format!("data: {}\n\n", FILTERED.replace(r#""id":1"#, r#""id":2"#))),
        (
            format!("data: {}\n\n", MIXED.replace("\"id\":1,", "")),
            format!("data: {}\n\n", FILTERED.replace("\"id\":1,", "")),
        ),
        (format!("data\ndata: {MIXED}\n\n"), format!("data: {FILTERED}\n\n")),
        (format!("data: {MIXED}\n\ndata: {MIXED}\n\n"), format!("data: {FILTERED}\n\ndata: {FILTERED}\n\n")),
    ] {
        assert_eq!(sse(&stream).unwrap(), want, "{stream}");
    }
    let modern = sse_in(&[format!("data: {MIXED}\n\n").as_bytes()], Era::Modern, Limits::default()).unwrap();
    let modern = String::from_utf8(modern).unwrap();
    assert!(modern.contains(r#""result":{"cacheScope":"private","tools":"#), "{modern}");
}

#[test]
fn c15_a_stream_that_cannot_be_read_is_cut() {
    for (stream, want) in [
        ("data: hello\n\n".to_owned(), ListingError::NotJson),
        ("event: message\ndata: {\n\n".to_owned(), ListingError::NotJson),
        (format!("data: {MIXED}{MIXED}\n\n"), ListingError::NotJson),
        (format!("data: {MIXED}\ndata: {MIXED}\n\n"), ListingError::NotJson),
        ("data: {\"id\":1,\"result\":{\"tools\":[]},\"result\":{}}\n\n".to_owned(), ListingError::NotJson),
        (
            "event: x\ndata: {\"id\":1,\"result\":{\"tools\":[]},\"result\":{}}\n\n".to_owned(),
            ListingError::NotJson,
        ),
        (format!("data: [{MIXED}]\n\n"), ListingError::Batch),
        ("data: {\"id\":1,\"result\":{}}\n\n".to_owned(), ListingError::Shape),
        ("data: {\"id\":1,\"result\":{\"tools\":{}}}\n\n".to_owned(), ListingError::Shape),
        ("data: {\"id\":2,\"result\":{\"tools\":1}}\n\n".to_owned(), ListingError::Shape),
        ("data: {\"id\":1,\"result\":{\"tools\":[]},\"error\":{}}\n\n".to_owned(), ListingError::Shape),
        ("data: {\"id\":1,\"result\":{\"tools\":[]},\"method\":\"m\"}\n\n".to_owned(), ListingError::Shape),
        ("data: {\"id\":1".to_owned(), ListingError::NotJson),
        (format!("event: x\ndata: y\ndata: {MIXED}\n\n"), ListingError::NotJson),
        (format!("event: x\ndata: {MIXED}\ndata: {MIXED}\n\n"), ListingError::NotJson),
    ] {
        assert_eq!(sse(&stream), Err(want), "{stream}");
    }
    let mut filter = SseFilter::new(Some((ListKind::Tools, "1")), Era::Legacy, Limits::default(), allowed);
    assert_eq!(filter.feed(b"data: x\n\n"), Err(ListingError::NotJson));
    assert_eq!(filter.feed(b": fine\n\n"), Err(ListingError::NotJson));
    assert_eq!(filter.finish(), Err(ListingError::NotJson));
}

#[test]
fn d26_one_event_is_bounded_however_it_arrives() {
    let limits = Limits { bytes: 256, ..Limits::default() };
    let run = |chunks: &[&[u8]]| sse_in(chunks, Era::Legacy, limits);
    let ping = |n: usize| ["event: ping\ndata: ".to_owned(), "x".repeat(n), "\n\n".to_owned()].concat();
    assert_eq!(run(&[ping(200).as_bytes()]), Ok(ping(200).into_bytes()));
    assert_eq!(run(&[ping(300).as_bytes()]), Err(ListingError::TooLarge));
    assert_eq!(run(&[b":", &[b'x'; 256]]), Err(ListingError::TooLarge));
    assert_eq!(run(&[&[b'x'; 100], &[b'x'; 100], &[b'x'; 57]]), Err(ListingError::TooLarge));
    assert_eq!(run(&[b"id: 1\n".repeat(20).as_slice()]), Err(ListingError::TooLarge));
    assert_eq!(run(&[b"\rx".repeat(40).as_slice()]), Err(ListingError::TooLarge));
    assert_eq!(run(&[b"x\r".repeat(40).as_slice()]), Err(ListingError::TooLarge));
    let many = b": keep-alive\n\n".repeat(100);
    assert_eq!(run(&[&many]), Ok(many.clone()));
    let events = b"event: ping\ndata: x\n\n".repeat(100);
    assert_eq!(run(&[&events]), Ok(events.clone()));
}

#[test]
fn c5_nothing_complete_is_held_back() {
    let mut filter = SseFilter::new(Some((ListKind::Tools, "1")), Era::Legacy, Limits::default(), allowed);
    for part in [": ping\n", ":\r", "\n", "\n", "event: ping\r\ndata: x\r\n\r\n", "data:\n\n", "\r"] {
        let want = part.as_bytes().to_vec();
        assert_eq!(filter.feed(part.as_bytes()), Ok(want), "{part:?}");
    }
    assert_eq!(filter.feed(b"\n"), Ok(b"\n".to_vec()));
    assert_eq!(filter.feed(b"id: 5"), Ok(Vec::new()));
    assert_eq!(filter.feed(b"\n\n"), Ok(b"id: 5\n\n".to_vec()));
    assert_eq!(filter.finish(), Ok(Vec::new()));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just(String::new()),
        Just(format!("data: {MIXED}")),
        Just(r#"data: {"method":"x"}"#.to_owned()),
        Just("data:".to_owned()),
        "id: [0-9]{1,3}",
        ": [a-zé ]{0,6}",
        Just("event: ping".to_owned()),
        Just("data: x".to_owned()),
    ]
}

fn stream() -> impl Strategy<Value = String> {
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (any::<bool>(), prop::collection::vec((line(), end), 0..12)).prop_map(|(bom, lines)| {
        let text: String = lines.into_iter().map(|(line, end)| line + end).collect();
        if bom { format!("\u{feff}{text}") } else { text }
    })
}

proptest! {
    #[test]
    fn c5_how_a_stream_is_cut_makes_no_difference(
        stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)
    ) {
        let bytes = stream.as_bytes();
        let whole = sse_in(&[bytes], Era::Modern, Limits::default());
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&sse_in(&single, Era::Modern, Limits::default()), &whole);
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for to in at {
            chunks.push(&bytes[from..to]);
            from = to;
        }
        chunks.push(&bytes[from..]);
        prop_assert_eq!(&sse_in(&chunks, Era::Modern, Limits::default()), &whole);
        if let Ok(out) = whole {
            prop_assert!(!String::from_utf8(out).unwrap().contains(r#""name":"no""#));
        }
    }

    #[test]
    fn c5_a_stream_without_a_response_passes_byte_for_byte(
        lines in prop::collection::vec((line(), prop_oneof![Just("\n"), Just("\r\n"), Just("\r")]), 0..12)
    ) {
        let stream: String =
            lines.into_iter().filter(|(l, _)| !l.starts_with("data: ") || l.contains("method"))
                .map(|(l, end)| l + end).collect();
        if let Ok(out) = sse(&stream) {
            prop_assert_eq!(out, stream);
        }
    }

    #[test]
    fn c15_a_json_answer_keeps_exactly_the_allowed_names_in_order(
        names in prop::collection::vec("(ok|no)[a-z]{0,3}", 0..8), modern in any::<bool>()
    ) {
        let tools: Vec<_> = names.iter().map(|n| serde_json::json!({"name": n, "inputSchema": {}})).collect();
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "c"}});
        let era = if modern { Era::Modern } else { Era::Legacy };
        let out: serde_json::Value = serde_json::from_str(&json(&body.to_string(), era).unwrap()).unwrap();
        let kept: Vec<_> = out["result"]["tools"].as_array().unwrap().iter()
            .map(|t| t["name"].as_str().unwrap()).collect();
        prop_assert_eq!(kept, names.iter().filter(|n| allowed(ListKind::Tools, n)).collect::<Vec<_>>());
        prop_assert_eq!(&out["result"]["nextCursor"], "c");
        prop_assert_eq!(out["result"].get("cacheScope").is_some(), modern);
    }
}

#[test]
fn c15_every_list_is_filtered_by_what_names_its_entries() {
    for (kind, list, key) in [
        (ListKind::Prompts, "prompts", "name"),
        (ListKind::Resources, "resources", "uri"),
        (ListKind::ResourceTemplates, "resourceTemplates", "uriTemplate"),
    ] {
        let of = |entries: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"{list}":[{entries}],"nextCursor":"n","ttlMs":9}}}}"#
            )
        };
        let mixed = of(&format!(
            r#"{{"{key}":"ok.z"}},{{"{key}":"no"}},{{"title":"ok"}},{{"{key}":"ok.a","title":"no"}}"#
        ));
        let want = of(&format!(r#"{{"{key}":"ok.z"}},{{"{key}":"ok.a","title":"no"}}"#));
        let keep = |of: ListKind, name: &str| of == kind && name.starts_with("ok");
        let out = filter_list(mixed.as_bytes(), kind, &keep, Era::Legacy, &Limits::default()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), want);
        for asked in [Some((kind, "1")), Some((kind, "\"x\"")), None] {
            let mut filter = SseFilter::new(asked, Era::Legacy, Limits::default(), keep);
            let mut out = filter.feed(format!("data: {mixed}\n\n").as_bytes()).unwrap();
            out.extend(filter.finish().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), format!("data: {want}\n\n"), "{asked:?}");
        }
        // Another list than the one that was asked for shows what nobody judged.
        let asked = ListKind::Tools;
        assert_eq!(
            filter_list(mixed.as_bytes(), asked, &keep, Era::Legacy, &Limits::default()),
            Err(ListingError::Shape)
        );
    }
}

#[test]
fn c15_a_second_list_in_one_result_is_filtered_as_well() {
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok"}],"prompts":[{"name":"no"}]}}"#;
    let want = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok"}],"prompts":[]}}"#;
    assert_eq!(json(body, Era::Legacy).unwrap(), want);
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"ok"}],"prompts":{"name":"no"}}}"#;
    assert_eq!(json(body, Era::Legacy), Err(ListingError::Shape));
}
