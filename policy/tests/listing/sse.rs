//! A list inside an event stream: only the event with the response is written anew, however the stream is cut.

use behalf_policy::envelope::{Era, Limits, ListKind};
use behalf_policy::listing::{ListingError, SseFilter};
use proptest::prelude::*;

use crate::{FILTERED, MIXED, allowed};

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
}
