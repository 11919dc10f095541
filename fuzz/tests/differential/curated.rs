//! Cases written by hand: what has gone wrong somewhere, and what a parser's manual warns of.

use crate::Case;

/// Values, put into the arguments, the name and the method of a call.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "0", "-0", "-0.0", "0.0", "1.0", "1e0", "1E+2", "1e400", "-1e400", "1e-400", "1e308", "5e-324", "2.2250738585072011e-308",
    "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807",
    "9223372036854775808", "18446744073709551615", "18446744073709551616", "123456789012345678901234567890",
    "0.1", "0.30000000000000004", "100000000000000000000000.5", "1.7976931348623157e308", "1.7976931348623159e308",
    "01", "-01", "1.", ".5", "+1", "0x10", "1_000", "1e", "1e+", "--1", "NaN", "-NaN", "Infinity", "-Infinity", "nan", "inf",
    "True", "None", "undefined", "nul", "'x'", "`x`", "\"\"", "\"x", "\"\t\"", "\"\n\"", "\"\\x41\"", "\"\\u004\"",
    "\"\\u0000\"", "\"a\\u0000b\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\ud800x\"", "\"\\uD83D\\u0041\"",
    "\"\\/\"", "\"\\'\"", "\"\\a\"", "\"\\v\"", "\"\\0\"", "\"\u{7f}\"", "\"\u{2028}\"", "\"\u{feff}\"", "\"e\u{301}\"", "\"\u{e9}\"",
    "\"sala\u{0430}y.get\"", "\"salary.get \"", "\" salary.get\"", "\"SALARY.GET\"", "\"salary\\u002eget\"", "\"salary.get\\u0000\"",
    "[]", "{}", "[[]]", "[1,]", "[,1]", "{,}", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "{\"a\":1,\"A\":2}",
    "{\"__proto__\":{\"x\":1}}", "{\"constructor\":{\"prototype\":{}}}", "{\"\":0}", "{\"a\":{\"a\":1},\"b\":[{\"a\":1}]}",
    "{1:2}", "{a:1}", "{'a':1}", "/**/1", "1//", "null", "true", "false",
];

/// Members that stand beside the true ones.
#[rustfmt::skip]
const BESIDE: &[&str] = &[
    "\"name\":\"salary.get\"", "\"n\\u0061me\":\"salary.get\"", "\"Name\":\"salary.get\"", "\"NAME\":\"salary.get\"",
    "\"name\\u0000\":\"salary.get\"", "\"name\\u0000x\":\"salary.get\"", "\"name \":\"salary.get\"", "\"\u{feff}name\":\"salary.get\"",
    "\"\u{ff4e}ame\":\"salary.get\"", "\"na\u{200b}me\":\"salary.get\"", "\"argument\u{17f}\":{\"x\":1}", "\"Arguments\":{\"x\":1}",
    "\"arguments\":{\"x\":1}", "\"arg\\u0075ments\":{\"x\":1}", "\"_Meta\":{}", "\"_meta\":{\"x\":1}", "\"\u{212a}\":1", "\"tas\u{212a}Id\":\"1\"",
    "\"__proto__\":{\"name\":\"salary.get\"}", "\"__proto__\":{\"arguments\":{\"x\":1}}", "\"\\u005f_proto__\":{\"arguments\":{\"x\":1}}",
    "\"constructor\":{\"name\":\"salary.get\"}", "\"toString\":1", "\"uri\":\"file:///x\"", "\"URI\":\"file:///x\"", "\"name\":null",
    "\"x\":1", "\"x\":1e400", "\"x\":{\"name\":\"salary.get\"}",
];

/// Members of the envelope that stand beside the true ones.
#[rustfmt::skip]
const ENVELOPE: &[&str] = &[
    "\"method\":\"tools/call\"", "\"Method\":\"ping\"", "\"METHOD\":\"ping\"", "\"m\\u0065thod\":\"ping\"", "\"method\\u0000\":\"ping\"",
    "\"param\u{17f}\":{\"name\":\"salary.get\"}", "\"Params\":{\"name\":\"salary.get\"}", "\"params\":{\"name\":\"salary.get\"}",
    "\"params\":[\"salary.get\"]", "\"params\":null", "\"result\":{}", "\"error\":{}", "\"Result\":{}", "\"id\":2", "\"ID\":2",
    "\"jsonrpc\":\"1.0\"", "\"JSONRPC\":\"2.0\"", "\"__proto__\":{\"method\":\"ping\"}", "\"__proto__\":{\"params\":{\"name\":\"salary.get\"}}",
    "\"x\":1",
];

const CALL: &str = "\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"";

pub(crate) fn cases() -> Vec<Case> {
    let mut texts: Vec<String> = Vec::new();
    for value in VALUES {
        texts.push((*value).to_owned());
        for name in ["\"directory.search\"", value] {
            texts.push(format!("{{{CALL},\"params\":{{\"name\":{name},\"arguments\":{{\"x\":{value}}}}}}}"));
            texts.push(format!("{{{CALL},\"params\":{{\"name\":{name},\"arguments\":{value}}}}}"));
            texts.push(format!(
                "{{{CALL},\"params\":{{\"arguments\":{{\"x\":[{value}]}},\"name\":{name},\"y\":{value}}}}}"
            ));
        }
        texts.push(format!("{{{CALL},\"params\":{value}}}"));
        texts.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":{value},\"method\":\"ping\"}}"));
        texts.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":{value}}}"));
        texts.push(format!("{{\"jsonrpc\":{value},\"id\":1,\"method\":\"ping\"}}"));
        texts.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{value}}}"));
    }
    for beside in BESIDE {
        let params = "\"name\":\"directory.search\",\"arguments\":{\"q\":\"x\"}";
        texts.push(format!("{{{CALL},\"params\":{{{params},{beside}}}}}"));
        texts.push(format!("{{{CALL},\"params\":{{{beside},{params}}}}}"));
        texts.push(format!("{{{CALL},\"params\":{{\"name\":\"directory.search\",{beside}}}}}"));
        texts.push(format!("{{{CALL},\"params\":{{{params},\"_meta\":{{{beside}}}}}}}"));
        texts.push(format!(
            "{{{CALL},\"params\":{{\"name\":\"directory.search\",\"arguments\":{{{beside}}}}}}}"
        ));
    }
    for beside in ENVELOPE {
        let params = "\"params\":{\"name\":\"directory.search\"}";
        texts.push(format!("{{{CALL},{params},{beside}}}"));
        texts.push(format!("{{{beside},{CALL},{params}}}"));
        texts.push(format!("{{{CALL},{beside}}}"));
    }
    for depth in [10, 59, 60, 61, 62, 63, 64, 65, 127, 128, 129, 1_000, 10_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        texts.push(format!("{{{CALL},\"params\":{{\"name\":\"a\",\"arguments\":{{\"x\":{deep}}}}}}}"));
    }
    texts.push(format!(
        "{{{CALL},\"params\":{{\"name\":\"a\",\"arguments\":{{\"x\":{}}}}}}}",
        "9".repeat(5_000)
    ));
    let good = format!("{{{CALL},\"params\":{{\"name\":\"directory.search\",\"arguments\":{{}}}}}}");
    for (before, after) in [
        ("", ""),
        ("\u{feff}", ""),
        (" \t\r\n", " \t\r\n"),
        ("\u{b}", ""),
        ("\u{a0}", ""),
        ("", "\0"),
        ("", ","),
        ("", "x"),
        ("", "{}"),
        ("", "\n{}"),
        ("{}", ""),
        ("[", "]"),
        ("[[", "]]"),
        ("(", ")"),
        ("//\n", ""),
        ("/**/", ""),
        ("#\n", ""),
        (")]}',\n", ""),
        ("\u{1e}", "\n"),
        ("data: ", "\n\n"),
        ("\"", "\""),
    ] {
        texts.push(format!("{before}{good}{after}"));
    }
    let mut bodies: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    let utf16 = |order: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    bodies.push(utf16(u16::to_le_bytes));
    bodies.push(utf16(u16::to_be_bytes));
    bodies.push([b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat());
    bodies.push([b"\xfe\xff".to_vec(), utf16(u16::to_be_bytes)].concat());
    bodies.push(good.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect());
    bodies.push(good.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect());
    for wrong in
        [&b"\xc0\xae"[..], b"\xe0\x80\xae", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xff", b"\x80", b"\xc3"]
    {
        let (before, after) = good.split_once("directory").unwrap();
        bodies.push([before.as_bytes(), b"directory", wrong, after.as_bytes()].concat());
        bodies.push([b"{\"x", wrong, b"\":1}"].concat());
    }
    let mut cases: Vec<Case> = bodies.iter().map(|body| Case { body: body.clone(), headers: None }).collect();
    let modern = Some(("tools/call".to_owned(), Some("directory.search".to_owned())));
    cases.extend(bodies.into_iter().map(|body| Case { body, headers: modern.clone() }));
    cases
}
