//! Cases made from a grammar of calls, with the mutations that have fooled some reader. Each case is made from its
//! number alone.

use behalf_fuzz::driver;

use crate::Case;

/// The driver's chance, one for each case.
pub(crate) struct Chance(driver::Chance);

impl Chance {
    pub(crate) fn of(number: u64) -> Self {
        Self(driver::Chance::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed_0be4_a1f0_0d5e))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A value as it will be written. Keys and scalars are JSON text already, so that they can be written wrongly.
#[derive(Debug, Clone)]
enum Node {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Raw(String),
}

#[rustfmt::skip]
const METHODS: &[&str] = &[
    "tools/call", "tools/call", "tools/call", "tools/call", "tools/call", "tools/list", "prompts/get", "resources/read",
    "ping", "notifications/progress", "custom/method", "tasks/get", "completion/complete",
];
const TOOLS: &[&str] = &["salary.get", "directory.search", "leave_list", "a", "A-1.b_c"];
#[rustfmt::skip]
const KEYS: &[&str] = &[
    "employee", "Employee", "amount", "q", "name", "arguments", "method", "id", "_meta", "", " ", "a b", "\u{e9}", "e\u{301}", "\u{1f600}",
    "__proto__", "constructor", "\u{17f}", "\u{212a}", "x\u{0}y", "\"", "\\", "1", "0", "-1", "length",
];
#[rustfmt::skip]
const RESERVED: &[&str] =
    &["name", "arguments", "method", "params", "id", "jsonrpc", "_meta", "uri", "ref", "taskId", "result", "error", "requestState"];
#[rustfmt::skip]
const TEXTS: &[&str] = &[
    "", "a", "salary.get", "alice", "\u{0}", "\n", "\u{7f}", "\u{80}", "\u{e9}", "\u{2028}", "\u{feff}", "\u{ffff}", "\u{1f600}", "\u{10ffff}",
    "{\"name\":\"x\"}", "\\u0061", "</script>", "NaN", "null", "\u{202e}x",
];
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "0", "-0", "1", "-1", "1.0", "1e2", "1E+2", "1e-2", "0.1", "1e400", "-1e400", "9007199254740993", "9223372036854775808",
    "18446744073709551616", "123456789012345678901234567890", "5e-324", "1e-400", "0.30000000000000004", "2.2250738585072011e-308",
];
#[rustfmt::skip]
const WRONG: &[&str] = &[
    "01", "1.", ".5", "+1", "NaN", "Infinity", "-Infinity", "0x1", "undefined", "'a'", "\"\\ud800\"", "\"\\udc00\"", "\"\\x41\"", "\"\t\"",
    "\"a", "True", "nul", "1 2", "", "\"\\u00e\"", "\"\\ud83d\\ud83d\"", "//", "/**/1", "[1,]", "{,}", "{\"a\"}", "{\"a\":}", "[,]",
];

/// The case of this number.
pub(crate) fn case(number: u64) -> Case {
    let mut chance = Chance::of(number);
    let method = chance.pick(METHODS);
    let tool = chance.pick(TOOLS);
    let modern = chance.one_in(3);
    let mut root = call(&mut chance, method, tool, modern);
    // A third is left as it is: what passes must be the same call, too.
    let changes = [0, 0, 0, 1, 1, 1, 2, 3][chance.below(8)];
    for _ in 0..changes {
        mutate(&mut chance, &mut root);
    }
    let mut text = String::new();
    let spaced = chance.one_in(4);
    write(&mut chance, &root, spaced, &mut text);
    let mut body = text.into_bytes();
    if chance.one_in(6) {
        break_bytes(&mut chance, &mut body);
    }
    let named = matches!(method, "tools/call" | "prompts/get" | "resources/read" | "tasks/get");
    let headers = modern.then(|| (method.to_owned(), named.then(|| tool.to_owned())));
    Case { body, headers }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn text(value: &str) -> Node {
    Node::Raw(quoted(value))
}

fn call(chance: &mut Chance, method: &str, tool: &str, modern: bool) -> Node {
    let mut params = Vec::new();
    match method {
        "resources/read" => params.push((quoted("uri"), text(tool))),
        "tasks/get" => params.push((quoted("taskId"), text(tool))),
        "completion/complete" => {
            let reference = [("type", "ref/prompt"), ("name", tool)];
            let reference = reference.map(|(key, value)| (quoted(key), text(value))).to_vec();
            params.push((quoted("ref"), Node::Map(reference)));
        }
        "tools/call" | "prompts/get" => params.push((quoted("name"), text(tool))),
        _ => {}
    }
    if !chance.one_in(8) {
        let arguments = (0..chance.below(4)).map(|_| (quoted(chance.pick(KEYS)), value(chance, 4))).collect();
        params.push((quoted("arguments"), Node::Map(arguments)));
    }
    if modern || chance.one_in(5) {
        let mut meta = vec![(quoted("progressToken"), value(chance, 1))];
        if modern {
            meta.push((quoted("io.modelcontextprotocol/protocolVersion"), text("2026-07-28")));
            meta.push((quoted("io.modelcontextprotocol/clientCapabilities"), Node::Map(Vec::new())));
        }
        params.push((quoted("_meta"), Node::Map(meta)));
    }
    if chance.one_in(2) {
        params.reverse();
    }
    let mut root = vec![(quoted("jsonrpc"), text("2.0"))];
    if !method.starts_with("notifications/") {
        root.push((
            quoted("id"),
            Node::Raw(chance.pick(&["1", "\"a\"", "9007199254740991", "-3"]).to_owned()),
        ));
    }
    root.push((quoted("method"), text(method)));
    root.push((quoted("params"), Node::Map(params)));
    if chance.one_in(3) {
        root.reverse();
    }
    Node::Map(root)
}

fn value(chance: &mut Chance, depth: usize) -> Node {
    match chance.below(if depth == 0 { 6 } else { 9 }) {
        0 => Node::Raw(chance.pick(&["null", "true", "false"]).to_owned()),
        1 | 2 => Node::Raw(chance.pick(NUMBERS).to_owned()),
        3..=5 => text(chance.pick(TEXTS)),
        6 => Node::List((0..chance.below(4)).map(|_| value(chance, depth - 1)).collect()),
        _ => {
            let mut members: Vec<(String, Node)> = Vec::new();
            for _ in 0..chance.below(4) {
                let key = quoted(chance.pick(KEYS));
                // Duplicates are for the mutations: here they would leave too little that passes.
                if members.iter().all(|(known, _)| *known != key) {
                    members.push((key, value(chance, depth - 1)));
                }
            }
            Node::Map(members)
        }
    }
}

fn mutate(chance: &mut Chance, root: &mut Node) {
    if chance.one_in(12) {
        *root = match chance.below(3) {
            0 => Node::List(vec![root.clone()]),
            1 => Node::List(vec![root.clone(), root.clone()]),
            _ => Node::Map(vec![(quoted("params"), root.clone())]),
        };
        return;
    }
    let mut path = chance.below(4);
    let mut at = root;
    // Mostly the envelope and `params`, where it matters; sometimes deeper.
    while path > 0 {
        path -= 1;
        let Node::Map(members) = at else { break };
        let maps: Vec<usize> = (0..members.len()).filter(|i| matches!(members[*i].1, Node::Map(_))).collect();
        if maps.is_empty() {
            break;
        }
        let chosen = maps[chance.below(maps.len())];
        let Node::Map(members) = at else { unreachable!() };
        at = &mut members[chosen].1;
    }
    let Node::Map(members) = at else { return };
    let place = chance.below(members.len() + 1);
    let known = chance.below(members.len());
    match chance.below(9) {
        0 => members.insert(place, (quoted(chance.pick(RESERVED)), value(chance, 2))),
        1 => members.insert(place, (respelled(chance, RESERVED), value(chance, 2))),
        2 => members.insert(place, (respelled(chance, RESERVED), text(chance.pick(TOOLS)))),
        3 if !members.is_empty() => {
            let mut twin = members[known].clone();
            if chance.one_in(2) {
                twin.1 = value(chance, 2);
            }
            if chance.one_in(2) {
                let key: String = serde_json::from_str(&twin.0).unwrap_or_default();
                twin.0 = respelled(chance, &[&key]);
            }
            members.insert(place, twin);
        }
        4 if !members.is_empty() => members[known].1 = value(chance, 3),
        5 if !members.is_empty() => members[known].1 = Node::Raw(chance.pick(WRONG).to_owned()),
        6 if !members.is_empty() => {
            let key: String = serde_json::from_str(&members[known].0).unwrap_or_default();
            members[known].0 = escaped(chance, &key);
            if let Node::Raw(raw) = &members[known].1
                && let Ok(value) = serde_json::from_str::<String>(raw)
            {
                members[known].1 = Node::Raw(escaped(chance, &value));
            }
        }
        7 if !members.is_empty() => {
            let gone = members.remove(known);
            if chance.one_in(2) {
                members.insert(place.min(members.len()), (quoted("__proto__"), Node::Map(vec![gone])));
            }
        }
        _ if !members.is_empty() => {
            let depth = [10, 50, 63, 64, 70, 130][chance.below(6)];
            members[known].1 = Node::Raw(format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        }
        _ => {}
    }
}

/// A name in a spelling that is another name to one reader and the same to the next.
fn respelled(chance: &mut Chance, from: &[&str]) -> String {
    let name = chance.pick(from);
    let changed = match chance.below(12) {
        0 => name.to_uppercase(),
        1 => format!(
            "{}{}",
            &name.get(..1).unwrap_or_default().to_uppercase(),
            name.get(1..).unwrap_or_default()
        ),
        2 => name.replace('s', "\u{17f}"),
        3 => name.replace('k', "\u{212a}"),
        4 => format!("{name}\0"),
        5 => format!("{name}\0{}", chance.pick(TEXTS)),
        6 => format!("{name} "),
        7 => format!("\u{feff}{name}"),
        8 => name.replace('a', "\u{ff41}"),
        9 => format!("{name}\u{200d}"),
        10 => name.replace('i', "\u{131}"),
        _ => return escaped(chance, name),
    };
    quoted(&changed)
}

/// The same text with some of its characters as `\u` escapes.
fn escaped(chance: &mut Chance, text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if chance.one_in(2) {
            let upper = chance.one_in(2);
            for unit in c.encode_utf16(&mut [0; 2]) {
                let digits = format!("{unit:04x}");
                out.push_str("\\u");
                out.push_str(&if upper { digits.to_uppercase() } else { digits });
            }
        } else if c == '/' && chance.one_in(2) {
            out.push_str("\\/");
        } else {
            let whole = quoted(&c.to_string());
            out.push_str(&whole[1..whole.len() - 1]);
        }
    }
    out.push('"');
    out
}

fn write(chance: &mut Chance, node: &Node, spaced: bool, out: &mut String) {
    let space = |chance: &mut Chance, out: &mut String| {
        if spaced {
            out.push_str(chance.pick(&["", " ", "\n", "\t", "\r\n", "  "]));
        }
    };
    match node {
        Node::Raw(raw) => out.push_str(raw),
        Node::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                space(chance, out);
                write(chance, item, spaced, out);
            }
            out.push(']');
        }
        Node::Map(members) => {
            out.push('{');
            for (at, (key, item)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                space(chance, out);
                out.push_str(key);
                space(chance, out);
                out.push(':');
                space(chance, out);
                write(chance, item, spaced, out);
                space(chance, out);
            }
            out.push('}');
        }
    }
}

fn break_bytes(chance: &mut Chance, body: &mut Vec<u8>) {
    let place = chance.below(body.len());
    let wide = |body: &[u8], order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        String::from_utf8_lossy(body).encode_utf16().flat_map(order).collect()
    };
    match chance.below(14) {
        0 => drop(body.splice(0..0, *b"\xef\xbb\xbf")),
        1 => *body = [&b"\xff\xfe"[..], &wide(body, u16::to_le_bytes)].concat(),
        2 => *body = wide(body, u16::to_be_bytes),
        3 => body.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"),
        4 => {
            let copy = body.clone();
            body.extend_from_slice(&copy);
        }
        5 => body.extend_from_slice(
            chance.pick::<[u8]>(&[b"\0", b",", b"//", b" x", b"]", b"}", b"\x1a", b"\xff"]),
        ),
        6 => drop(body.splice(place..place, *b"/* */")),
        7 => drop(body.splice(
            place..place,
            chance.pick::<[u8]>(&[b"\xc0\xae", b"\xed\xa0\x80", b"\xff", b"\x80", b"\xc3"]).to_vec(),
        )),
        8 => drop(body.splice(place..place, *b",")),
        9 => body.truncate(place),
        10 => drop(body.remove(place)),
        11 => body[place] ^= 1 << chance.below(8),
        12 => body[place] = u8::try_from(chance.below(256)).unwrap(),
        _ => {
            let other = chance.below(body.len());
            body.swap(place, other);
        }
    }
}
