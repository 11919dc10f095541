//! HTTP/1.1 as bytes, and the path of a request.

use behalf_policy::framing::{Framing, FramingRefusal};
use behalf_policy::raw_path;

pub(crate) fn requests(data: &[u8]) {
    pieces_change_nothing(data, Framing::requests);
    // What may be HTTP/2 is HTTP/1 as soon as it is not its preface.
    if !b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".starts_with(data.get(..24.min(data.len())).unwrap_or_default()) {
        let (mut either, mut plain) = (Framing::requests_or_http2(), Framing::requests());
        let (one, other) = (followed(&mut either, data, data.len()), followed(&mut plain, data, data.len()));
        assert_eq!(one.map(|stop| stop.1), other.map(|stop| stop.1));
        assert_eq!(either.heads(), plain.heads());
    }
    let mut framing = Framing::requests();
    let stop = followed(&mut framing, data, data.len());
    let good = data.get(..stop.map_or(data.len(), |(good, _)| good)).unwrap_or_default();
    let ends = good.windows(4).filter(|four| four == b"\r\n\r\n").count();
    assert!(framing.heads() <= ends as u64, "more requests than ends of heads");
}

pub(crate) fn answers(data: &[u8]) {
    pieces_change_nothing(data, || {
        let mut framing = Framing::answers();
        framing.asked(!data.len().is_multiple_of(2));
        framing
    });
    if !data.is_empty() {
        let unasked = Framing::answers().follow(data).map_err(|stop| stop.why);
        assert_eq!(unasked, Err(FramingRefusal::Unasked));
    }
}

/// Where it stopped, from the beginning, and why.
fn followed(framing: &mut Framing, data: &[u8], piece: usize) -> Option<(usize, FramingRefusal)> {
    let mut before = 0;
    for piece in data.chunks(piece.max(1)) {
        if let Err(stop) = framing.follow(piece) {
            assert!(stop.good <= piece.len());
            let again = framing.follow(b"GET / HTTP/1.1\r\n\r\n").map_err(|stop| (stop.good, stop.why));
            assert_eq!(again, Err((0, stop.why)), "a stream that stopped goes on");
            return Some((before + stop.good, stop.why));
        }
        before += piece.len();
    }
    None
}

fn pieces_change_nothing(data: &[u8], new: impl Fn() -> Framing) {
    let mut whole = new();
    let stop = followed(&mut whole, data, data.len());
    for piece in [1, 2, 7, 64] {
        let mut framing = new();
        assert_eq!(followed(&mut framing, data, piece), stop, "cut into {piece}");
        assert_eq!((framing.heads(), framing.head_only()), (whole.heads(), whole.head_only()));
    }
}

pub(crate) fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if raw_path::check(text).is_err() {
        return;
    }
    assert!(text.starts_with('/') && !text.starts_with("//"));
    let mut decoded = data.to_vec();
    for _ in 0..3 {
        let lower = decoded.to_ascii_lowercase();
        assert!(!lower.contains(&0) && !lower.contains(&b'\\') && !lower.contains(&b';'), "{text}");
        let dots = |segment: &[u8]| segment == b"." || segment == b"..";
        assert!(!lower.split(|byte| *byte == b'/').any(dots), "{text}");
        decoded = percent_decoded(&decoded);
    }
    let joined = raw_path::join("/base", text);
    assert!(joined.starts_with("/base/") && joined.ends_with(text), "{joined}");
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|_| *byte == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        out.push(digits.unwrap_or(*byte));
        at += if digits.is_some() { 3 } else { 1 };
    }
    out
}
