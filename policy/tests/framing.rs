//! Streams of HTTP/1.1 messages, byte by byte.

#![cfg(test)]

use behalf_policy::framing::{Framing, FramingRefusal, Stop};
use proptest::prelude::*;

/// Follows a whole stream: how many bytes were good, and why no more.
fn follow(framing: &mut Framing, stream: &[u8]) -> (usize, Option<FramingRefusal>) {
    match framing.follow(stream) {
        Ok(()) => (stream.len(), None),
        Err(Stop { good, why, .. }) => (good, Some(why)),
    }
}

fn request(stream: &str) -> Option<FramingRefusal> {
    follow(&mut Framing::requests(), stream.as_bytes()).1
}

fn answer(stream: &str, head_only: bool) -> Option<FramingRefusal> {
    let mut framing = Framing::answers();
    framing.asked(head_only);
    follow(&mut framing, stream.as_bytes()).1
}

#[test]
fn d17_requests_that_two_parsers_could_read_differently() {
    use FramingRefusal::{
        BareCarriageReturn, BareLineFeed, Control, EmptyLine, FieldName, Folded, Length, LengthAndCoding,
        SeveralLengths, StartLine, TooLong, TransferCoding,
    };
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(600_000));
    for (stream, want) in [
        ("\r\nGET / HTTP/1.1\r\n\r\n", EmptyLine),
        ("\nGET / HTTP/1.1\r\n\r\n", EmptyLine),
        ("GET / HTTP/1.1\n\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", BareCarriageReturn),
        ("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", BareCarriageReturn),
        ("GET / HTTP/1.1\r\nA: b\r\r\n\r\n", BareCarriageReturn),
        ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Control),
        ("GET / HTTP/1.1\r\nA: b\x0bc\r\n\r\n", Control),
        ("GET / HTTP/1.1\r\nA: b\x7fc\r\n\r\n", Control),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\nA: b\r\n \r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nA\t: b\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nA b\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nA(b): c\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nÄ: c\r\n\r\n", FieldName),
        ("GET  / HTTP/1.1\r\n\r\n", StartLine),
        ("GET / HTTP/1.1 \r\n\r\n", StartLine),
        ("GET /a b HTTP/1.1\r\n\r\n", StartLine),
        ("GET /a#b HTTP/1.1\r\n\r\n", StartLine),
        ("GET /ä HTTP/1.1\r\n\r\n", StartLine),
        ("GET /\t HTTP/1.1\r\n\r\n", StartLine),
        ("GET /\r\n\r\n", StartLine),
        ("GET / HTTP/2.0\r\n\r\n", StartLine),
        ("GET / HTTP/1.2\r\n\r\n", StartLine),
        ("GET / http/1.1\r\n\r\n", StartLine),
        ("GET / HTTP/0.9\r\n\r\n", StartLine),
        ("PRI * HTTP/2.0\r\n\r\n", StartLine),
        ("G@T / HTTP/1.1\r\n\r\n", StartLine),
        (" GET / HTTP/1.1\r\n\r\n", StartLine),
        ("\u{16}\u{3}", Control),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", SeveralLengths),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", SeveralLengths),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: 1 1\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", LengthAndCoding),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", LengthAndCoding),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\nTRANSFER-ENCODING: chunked\r\n\r\n", LengthAndCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", TransferCoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Control),
        ("POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", TransferCoding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferCoding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferCoding,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", TransferCoding),
        (endless.as_str(), TooLong),
    ] {
        assert_eq!(request(stream), Some(want), "{:?}", &stream[..stream.len().min(80)]);
        assert!(want.reason().starts_with("Framing"));
    }
}

#[test]
fn d17_chunks_that_two_parsers_could_read_differently() {
    use FramingRefusal::{
        BareCarriageReturn, BareLineFeed, ChunkEnd, ChunkExtension, ChunkSize, Folded, TooLong,
    };
    let long = format!("0\r\nx: {}", "a".repeat(17_000));
    for (chunks, want) in [
        (long.as_str(), TooLong),
        ("5;a=b\r\nhello\r\n0\r\n\r\n", ChunkExtension),
        ("5;\r\nhello\r\n0\r\n\r\n", ChunkExtension),
        ("0;a\r\n\r\n", ChunkExtension),
        ("5 \r\nhello", ChunkSize),
        (" 5\r\nhello", ChunkSize),
        ("\r\n", ChunkSize),
        ("0x5\r\n", ChunkSize),
        ("-5\r\n", ChunkSize),
        ("g\r\n", ChunkSize),
        ("00000000000000005\r\n", ChunkSize),
        ("10000000000000005\r\n", ChunkSize),
        ("5\nhello", ChunkSize),
        ("5\rhello", BareCarriageReturn),
        ("5\r\nhello!\r\n", ChunkEnd),
        ("5\r\nhello\n", ChunkEnd),
        ("5\r\nhello\r0", ChunkEnd),
        ("0\r\n\n", BareLineFeed),
        ("0\r\nA: b\n\r\n", BareLineFeed),
        ("0\r\nA: b\r\r\n", BareCarriageReturn),
        ("0\r\nA: b\r\n c\r\n\r\n", Folded),
    ] {
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(request(&stream), Some(want), "{chunks:?}");
    }
}

#[test]
fn d17_requests_that_have_one_reading() {
    for stream in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a.test/b?c=d HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n\r\0 xPOST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding:  Chunked \r\n\r\n5\r\n\n\r\0\n\r\r\n000F\r\n0123456789abcde\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nA:\r\nB: \t c\td \r\nE: f:g\r\nH: caf\u{e9}\r\n\r\n",
    ] {
        assert_eq!(request(stream), None, "{stream:?}");
    }
}

#[test]
fn d17_answers_that_two_parsers_could_read_differently() {
    use FramingRefusal::{
        BareLineFeed, ChunkSize, Control, Folded, Interim, LengthAndCoding, NoBodyHere, SeveralLengths,
        StartLine, TransferCoding, Unasked,
    };
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17);
    for (stream, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndCoding),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", SeveralLengths),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", SeveralLengths),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransferCoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", TransferCoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TransferCoding),
        ("HTTP/1.1 200 OK\n\n", BareLineFeed),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Folded),
        ("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", Control),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", Unasked),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", Unasked),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nH", Unasked),
        ("HTTP/1.1 204 No Content\r\n\r\nx", Unasked),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody", Unasked),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody", NoBodyHere),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", NoBodyHere),
        ("HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nbody", NoBodyHere),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", Interim),
        (flood.as_str(), Interim),
        ("HTTP/1.1 099 What\r\n\r\n", StartLine),
        ("HTTP/1.1 20 OK\r\n\r\n", StartLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", StartLine),
        ("HTTP/1.1  200 OK\r\n\r\n", StartLine),
        ("HTTP/2 200\r\n\r\n", StartLine),
        ("ICY 200 OK\r\n\r\n", StartLine),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n", ChunkSize),
    ] {
        assert_eq!(answer(stream, false), Some(want), "{stream:?}");
    }
    assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", true), Some(Unasked), "of a HEAD");
    assert_eq!(follow(&mut Framing::answers(), b"HTTP/1.1 408 Timeout\r\n").1, Some(Unasked));
}

#[test]
fn d17_answers_that_have_one_reading() {
    for stream in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 \r\n\r\nuntil the end\r\n\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 400\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nhi\r\n0;c\r\nA: b\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nold",
    ] {
        assert_eq!(answer(stream, false), None, "{stream:?}");
    }
    assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true), None);
    let mut framing = Framing::answers();
    for _ in 0..3 {
        framing.asked(false);
        assert_eq!(follow(&mut framing, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").1, None);
    }
}

#[test]
fn d17_only_what_stands_before_the_doubt_goes_on_and_nothing_after() {
    let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut framing = Framing::requests();
    let stop = framing.follow(format!("{good}GET /b HTTP/1.1\nHost: a\r\n\r\n").as_bytes()).unwrap_err();
    assert_eq!((stop.good, stop.in_head), (good.len() + "GET /b HTTP/1.1".len(), true));
    assert_eq!(framing.follow(good.as_bytes()).unwrap_err().good, 0, "it stays refused");
    let mut framing = Framing::requests();
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let stop = framing.follow(format!("{head}1;x\r\n").as_bytes()).unwrap_err();
    assert_eq!((stop.good, stop.in_head, framing.heads()), (head.len() + 1, false, 1));
}

#[test]
fn d17_http_2_is_told_from_a_request_by_its_whole_preface() {
    let http2 = |stream: &[u8]| follow(&mut Framing::requests_or_http2(), stream);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames = [preface.as_slice(), b"\0\0\0\x04\0\n\n"].concat();
    assert_eq!(http2(&frames), (frames.len(), None));
    for stream in [
        "GET / HTTP/1.1\r\n\r\n",
        "PRINT / HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nPRI",
    ] {
        assert_eq!(http2(stream.as_bytes()).1, None, "{stream}");
    }
    for (stream, why) in [
        ("PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n", FramingRefusal::StartLine),
        ("PRI * HTTP/2.0\r\nA: b\r\n\r\n", FramingRefusal::StartLine),
        ("PRI * HTTP/2.0\n\n", FramingRefusal::BareLineFeed),
        ("GET / HTTP/1.1\n", FramingRefusal::BareLineFeed),
        ("GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FramingRefusal::StartLine),
    ] {
        assert_eq!(http2(stream.as_bytes()).1, Some(why), "{stream}");
    }
    assert_eq!(request(std::str::from_utf8(preface).unwrap()), Some(FramingRefusal::StartLine));
}

#[test]
fn a_head_request_is_known() {
    let mut framing = Framing::requests();
    framing.follow(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!((framing.heads(), framing.head_only()), (1, true));
    framing.follow(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!((framing.heads(), framing.head_only()), (2, false));
}

proptest! {
    /// However a network cuts a stream, it is read the same.
    #[test]
    fn d17_pieces_change_nothing(
        parts in prop::collection::vec(prop_oneof![
            Just("GET / HTTP/1.1\r\n"), Just("POST / HTTP/1.1\r\n"), Just("HTTP/1.1 200 OK\r\n"), Just("\r\n"), Just("\n"),
            Just("\r"), Just("Content-Length: 3\r\n"), Just("Transfer-Encoding: chunked\r\n"), Just("3\r\n"), Just("abc"),
            Just("0\r\n"), Just("A: b\r\n"), Just(" "), Just("\0"), Just(";"),
        ], 0..14),
        cuts in prop::collection::vec(0_usize..40, 0..8),
        answers in any::<bool>(),
    ) {
        let stream = parts.concat().into_bytes();
        let new = || {
            let mut framing = if answers { Framing::answers() } else { Framing::requests() };
            framing.asked(false);
            framing
        };
        let whole = follow(&mut new(), &stream);
        let (mut framing, mut rest, mut good, mut why) = (new(), stream.as_slice(), 0, None);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            if why.is_none() {
                let (more, stopped) = follow(&mut framing, piece);
                good += more;
                why = stopped;
            }
        }
        prop_assert_eq!((good, why), whole);
    }
}
