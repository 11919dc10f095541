//! Paths of calls that leave the pod.

#![cfg(test)]

use behalf_policy::raw_path::{PathRefusal, check, join};
use proptest::prelude::*;

#[test]
fn d15_a_path_that_could_leave_its_base_is_refused() {
    use PathRefusal::{
        Backslash, Character, Control, DotSegment, EmptyFirstSegment, NotAbsolute, NotUtf8, Percent,
        Semicolon,
    };
    for (path, want) in [
        ("", NotAbsolute),
        ("a", NotAbsolute),
        ("*", NotAbsolute),
        ("../a", NotAbsolute),
        ("%2fa", NotAbsolute),
        ("https://payroll.example/", NotAbsolute),
        ("\\a", NotAbsolute),
        (" /a", NotAbsolute),
        ("//", EmptyFirstSegment),
        ("//evil.example/a", EmptyFirstSegment),
        ("///a", EmptyFirstSegment),
        ("/%2f", EmptyFirstSegment),
        ("/%2Fevil.example/a", EmptyFirstSegment),
        ("/%252fevil.example/a", EmptyFirstSegment),
        ("/%252Fevil.example/a", EmptyFirstSegment),
        ("/.", DotSegment),
        ("/..", DotSegment),
        ("/./a", DotSegment),
        ("/../a", DotSegment),
        ("/a/.", DotSegment),
        ("/a/..", DotSegment),
        ("/a/../b", DotSegment),
        ("/a/./b", DotSegment),
        ("/%2e", DotSegment),
        ("/%2e%2e/a", DotSegment),
        ("/%2E%2E/a", DotSegment),
        ("/.%2e/a", DotSegment),
        ("/%2e./a", DotSegment),
        ("/a/%2e%2e", DotSegment),
        ("/a%2f..%2fb", DotSegment),
        ("/a/..%2fb", DotSegment),
        ("/a%2f../b", DotSegment),
        ("/a%2f%2e%2e%2fb", DotSegment),
        ("/%252e%252e/a", DotSegment),
        ("/%252e%252e%252fa", DotSegment),
        ("/..%252fa", DotSegment),
        ("/%25%32%65/a", DotSegment),
        ("/%2%65", Percent),
        ("/%EF%BC%8E%EF%BC%8E/a", DotSegment),
        ("/%E2%80%A4%E2%80%A4/a", DotSegment),
        ("/%25EF%25BC%258E/a", DotSegment),
        ("/\\", Backslash),
        ("/a\\..\\b", Backslash),
        ("/%5c", Backslash),
        ("/a%5C..%5Cb", Backslash),
        ("/%255c", Backslash),
        ("/a%255C%252e%252e", Backslash),
        ("/%EF%BC%BC", Backslash),
        ("/;", Semicolon),
        ("/a;jsessionid=1/b", Semicolon),
        ("/..;/a", Semicolon),
        ("/a%3bb", Semicolon),
        ("/..%3B/a", Semicolon),
        ("/a%253bb", Semicolon),
        ("/a\u{0}b", Control),
        ("/%00", Control),
        ("/a%00b", Control),
        ("/%2500", Control),
        ("/a%0d%0aHost:%20x", Control),
        ("/a\r\nb", Control),
        ("/a%09b", Control),
        ("/a%250ab", Control),
        ("/a%7f", Control),
        ("/a%c2%85b", Control),
        ("/%c0%ae%c0%ae/a", NotUtf8),
        ("/%c0%afa", NotUtf8),
        ("/%e0%80%af", NotUtf8),
        ("/%25c0%25ae/a", NotUtf8),
        ("/%ff", NotUtf8),
        ("/%ed%a0%80", NotUtf8),
        ("/%", Percent),
        ("/a%2", Percent),
        ("/a%zz", Percent),
        ("/%u002e%u002e/a", Percent),
        ("/%-1", Percent),
        ("/% 20", Character),
        ("/a b", Character),
        ("/a?b", Character),
        ("/a#b", Character),
        ("/é", Character),
        ("/．．/a", DotSegment),
        ("/a\"b", Character),
        ("/<a>", Character),
        ("/{a}", Character),
        ("/a|b", Character),
        ("/a^b", Character),
        ("/a`b", Character),
        ("/[a]", Character),
    ] {
        assert_eq!(check(path), Err(want), "{path:?}");
        assert!(want.reason().starts_with("Path"));
    }
}

#[test]
fn d15_an_ordinary_path_passes() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a/b/c",
        "/a//b",
        "/v1/people/alice@example.com",
        "/v1/people/alice%40example.com",
        "/salary/2026-07",
        "/projects/group%2Fname/issues",
        "/discount/100%25",
        "/discount/100%25off",
        "/a%20b",
        "/%E4%B8%96%E7%95%8C",
        "/caf%C3%A9",
        "/...",
        "/a..b/.hidden/x.",
        "/.well-known/x",
        "/..a",
        "/a:b,c=d+e!f$g&h'(i)*~_-",
        "/%3Fa%23b",
        "/odata/People('x')",
        "/%5Ba%5D",
    ] {
        assert_eq!(check(path), Ok(()), "{path:?}");
    }
}

#[test]
fn d15_a_path_is_joined_byte_for_byte() {
    for (base, raw, want) in [
        ("", "/a", "/a"),
        ("/", "/a", "/a"),
        ("/", "/", "/"),
        ("/api", "/a", "/api/a"),
        ("/api/", "/a", "/api/a"),
        ("/api/", "/", "/api/"),
        ("/api/v1", "/a%2Fb/%7e?q=%2e%2e&x=/../", "/api/v1/a%2Fb/%7e?q=%2e%2e&x=/../"),
        ("/api", "/a//b?", "/api/a//b?"),
        ("/api", "/A%2fb%2F", "/api/A%2fb%2F"),
    ] {
        assert_eq!(join(base, raw), want);
    }
}

/// What a careless origin makes of a path: decoded so often, then resolved.
fn resolved(path: &str, times: usize) -> Option<Vec<String>> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..times {
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok());
            let byte = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            match byte.and_then(|d| u8::from_str_radix(d, 16).ok()) {
                Some(byte) if bytes[at] == b'%' => {
                    out.push(byte);
                    at += 3;
                }
                _ => {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
        }
        bytes = out;
    }
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            ".." => drop(segments.pop()?),
            "" | "." => {}
            other => segments.push(other.to_owned()),
        }
    }
    Some(segments)
}

proptest! {
    #[test]
    fn d15_no_accepted_path_leaves_its_base(
        parts in prop::collection::vec(prop_oneof![
            Just("/"), Just("."), Just(".."), Just("%2e"), Just("%2E"), Just("%2f"), Just("%252e"), Just("%252F"),
            Just("%5c"), Just("%255c"), Just("\\"), Just(";"), Just("%3b"), Just("%25"), Just("2e"), Just("2f"),
            Just("a"), Just("%"), Just("%00"), Just("%c0%ae"), Just("%41"),
        ], 0..10)
    ) {
        let path = format!("/{}", parts.concat());
        if check(&path).is_ok() {
            for times in 0..=2 {
                let plain = resolved(&join("/base", &path), times);
                prop_assert!(plain.is_some_and(|s| s.first().is_some_and(|s| s == "base")), "{}", path);
            }
        }
    }

    #[test]
    fn d15_checking_never_fails_on_any_text(path in any::<String>()) {
        let _ = check(&path);
        let _ = check(&format!("/{path}"));
    }
}
