//! What we see of a body, and whether the others see the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_policy::envelope::{HeaderField, HeaderView, Limits, Message, Target};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Case;
use crate::readers::{Seen, SerdeCall, WAYS};

/// A value read from text that [`Message::read`] accepted, without help of any library that is compared with.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

struct Cursor<'a>(std::iter::Peekable<std::str::Chars<'a>>);

impl Cursor<'_> {
    fn next(&mut self) -> char {
        self.0.next().unwrap()
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.0.next_if_eq(&wanted).is_some()
    }

    fn word(&mut self, is: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.0.next_if(|c| is(*c))).collect()
    }

    fn tree(&mut self) -> Tree {
        match self.0.peek().unwrap() {
            '{' => {
                self.next();
                let mut map = BTreeMap::new();
                while !self.eat('}') {
                    let key = self.string();
                    assert!(self.eat(':'));
                    assert_eq!(map.insert(key, self.tree()), None, "a duplicate was let through");
                    self.eat(',');
                }
                Tree::Map(map)
            }
            '[' => {
                self.next();
                let mut list = Vec::new();
                while !self.eat(']') {
                    list.push(self.tree());
                    self.eat(',');
                }
                Tree::List(list)
            }
            '"' => Tree::Text(self.string()),
            'a'..='z' => match self.word(|c| c.is_ascii_lowercase()).as_str() {
                "null" => Tree::Null,
                word => Tree::Bool(word.parse().unwrap()),
            },
            _ => Tree::Number(
                self.word(|c| matches!(c, '+' | '-' | '.' | 'e' | 'E' | '0'..='9')).parse().unwrap(),
            ),
        }
    }

    fn string(&mut self) -> String {
        assert!(self.eat('"'));
        let mut units: Vec<u16> = Vec::new();
        loop {
            let plain = match self.next() {
                '"' => break,
                '\\' => match self.next() {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let hex: String = (0..4).map(|_| self.next()).collect();
                        units.push(u16::from_str_radix(&hex, 16).unwrap());
                        continue;
                    }
                    plain => plain,
                },
                plain => plain,
            };
            units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
        }
        String::from_utf16(&units).expect("a lone surrogate was let through")
    }
}

impl Tree {
    /// From compact text.
    fn read(text: &str) -> Self {
        let mut cursor = Cursor(text.chars().peekable());
        let tree = cursor.tree();
        assert_eq!(cursor.0.next(), None, "something follows");
        tree
    }

    /// The form that every reader digests: see the readers' own `canonical`.
    fn canonical(&self, out: &mut Vec<u8>) {
        let text = |text: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(format!("s{}:", text.len()).as_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        match self {
            Self::Null => out.push(b'n'),
            Self::Bool(value) => out.push(if *value { b't' } else { b'f' }),
            Self::Number(value) => {
                let bits = if *value == 0.0 { 0 } else { value.to_bits() };
                out.extend_from_slice(format!("d{bits:016x}").as_bytes());
            }
            Self::Text(value) => text(value, out),
            Self::List(items) => {
                out.push(b'[');
                for item in items {
                    item.canonical(out);
                }
                out.push(b']');
            }
            Self::Map(members) => {
                out.push(b'{');
                for (key, value) in members {
                    text(key, out);
                    value.canonical(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Whether `serde_json` read the same; a double may be one unit in the last place off.
    #[expect(clippy::float_cmp, reason = "the same double is meant, and a minus before zero does not count")]
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Number(a), Value::Number(b)) => {
                let b = b.as_f64().unwrap();
                *a == b || a.to_bits().abs_diff(b.to_bits()) <= 1
            }
            (Self::Text(a), Value::String(b)) => a == b,
            (Self::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is(b)),
            (Self::Map(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.is(b)))
            }
            _ => false,
        }
    }
}

/// The call we judged.
#[derive(Debug)]
pub(crate) struct Call {
    method: String,
    name: String,
    uri: String,
    arguments: Option<Tree>,
}

impl Call {
    fn of(message: &Message) -> Self {
        let text = |name: &str| match message.param(name).map(Tree::read) {
            None | Some(Tree::Null) => String::new(),
            Some(Tree::Text(text)) => text,
            Some(_) => "?".to_owned(),
        };
        let call = Self {
            method: message.method().unwrap_or_default().to_owned(),
            name: text("name"),
            uri: text("uri"),
            arguments: message.arguments().map(Tree::read).filter(|tree| *tree != Tree::Null),
        };
        // What policy is asked about is what the message says.
        if let Target::ToolCall { name } = message.target() {
            assert_eq!((call.method.as_str(), &call.name), ("tools/call", name));
        } else {
            assert_ne!(call.method, "tools/call");
        }
        call
    }

    /// As the readers write it.
    pub(crate) fn text(&self) -> String {
        let text = |text: &str| match text {
            "" => "-".to_owned(),
            "?" => "?".to_owned(),
            text => format!("s{}", STANDARD.encode(text)),
        };
        let arguments = self.arguments.as_ref().map_or("-".to_owned(), |tree| {
            let mut out = Vec::new();
            tree.canonical(&mut out);
            let digest = Sha256::digest(&out);
            let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap();
            digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
        });
        [text(&self.method), text(&self.name), text(&self.uri), arguments].join("|")
    }

    fn is(&self, seen: &SerdeCall) -> bool {
        let arguments = match (&self.arguments, &seen.arguments) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.is(theirs),
            _ => false,
        };
        arguments && self.method == seen.method && self.name == seen.name && self.uri == seen.uri
    }
}

/// What became of a case with us.
pub(crate) struct Ours {
    pub(crate) refused: Option<&'static str>,
    call: Option<Call>,
    pub(crate) forwarded: Option<Vec<u8>>,
}

pub(crate) fn ours(case: &Case) -> Ours {
    let (version, name) = match &case.headers {
        None => (None, None),
        Some((method, name)) => (Some(method), name.as_ref()),
    };
    let headers = HeaderView {
        protocol_version: version.map_or_else(HeaderField::default, |_| HeaderField::once("2026-07-28")),
        method: field(version),
        name: field(name),
    };
    match Message::read(&case.body, &headers, &Limits::default()) {
        Err(error) => Ours { refused: Some(error.reason().as_str()), call: None, forwarded: None },
        Ok(message) => {
            let handle = case.body.len().is_multiple_of(2).then_some("behalf_AAAAAAAAAAAAAAAAAAAAAA");
            let forwarded = message.forward_body(handle.filter(|_| message.method().is_some()));
            Ours { refused: None, call: Some(Call::of(&message)), forwarded: Some(forwarded) }
        }
    }
}

fn field(value: Option<&String>) -> HeaderField<'_> {
    value.map_or_else(HeaderField::default, |value| HeaderField::once(value))
}

/// A number that no double holds, or with more digits than Python takes: some readers refuse it, which is no call.
fn has_extreme_number(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let tokens = text.split(|c: char| !matches!(c, '+' | '-' | '.' | 'e' | 'E' | '0'..='9'));
    tokens
        .filter(|token| token.len() > 3)
        .any(|token| token.parse::<f64>().is_ok_and(f64::is_infinite) || token.len() > 4_300)
}

/// What was found over all cases.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    permitted: u64,
    calls: u64,
    refused: u64,
    /// Of the refused, how many the readers see as more than one call, and how many as one.
    ambiguous: u64,
    plain: u64,
    /// Of the permitted, how many some reader refuses for a number, or for the type of a name that is judged by nobody.
    declined: u64,
    differences: Vec<String>,
    differing: u64,
}

impl Findings {
    /// Of a case that we let through: both what came and what we forward must be our call to everybody.
    pub(crate) fn permitted(&mut self, case: &Case, ours: &Ours, original: &Seen, forwarded: &Seen) {
        let (Some(call), Some(body)) = (&ours.call, &ours.forwarded) else { return };
        let wanted = call.text();
        self.calls += u64::from(call.method == "tools/call");
        let untyped = call.name == "?" || call.uri == "?";
        let excused = untyped || has_extreme_number(&case.body);
        let mut declined = false;
        for (what, bytes, seen) in [("came", &case.body, original), ("forwarded", body, forwarded)] {
            let mut differ = |way: &str, theirs: String| {
                self.differing += 1;
                if self.differences.len() < 20 {
                    let shown = String::from_utf8_lossy(bytes);
                    let theirs = format!("{way}: {theirs}\n    we: {wanted}");
                    self.differences.push(format!("what {what}: {shown}\n    {theirs}"));
                }
            };
            for (way, theirs) in WAYS.iter().zip(&seen.by) {
                match theirs.as_str() {
                    "x" if excused => declined = true,
                    theirs if theirs == wanted => {}
                    theirs => differ(way, theirs.to_owned()),
                }
            }
            for (way, theirs) in ["serde_json, a value", "serde_json, a struct"].iter().zip(&seen.serde) {
                match theirs {
                    None if excused => declined = true,
                    Some(theirs) if call.is(theirs) => {}
                    theirs => differ(way, format!("{theirs:?}")),
                }
            }
        }
        self.declined += u64::from(declined);
    }

    /// What would have become of it without us.
    pub(crate) fn count(&mut self, ours: &Ours, came: &Seen) {
        if ours.refused.is_none() {
            self.permitted += 1;
            return;
        }
        self.refused += 1;
        let calls: BTreeSet<&str> = came.by.iter().map(String::as_str).filter(|seen| *seen != "x").collect();
        self.ambiguous += u64::from(calls.len() > 1);
        self.plain += u64::from(calls.len() == 1);
    }

    /// # Panics
    /// When a reader saw another call, or when the cases show nothing.
    pub(crate) fn verdict(&self) {
        assert!(
            self.differences.is_empty(),
            "{} times another call was seen:\n{}",
            self.differing,
            self.differences.join("\n")
        );
        let all = self.permitted + self.refused;
        assert!(self.calls * 10 > all, "too few calls pass for this to show anything: {self}");
        assert!(self.ambiguous * 100 > all, "too few cases are dangerous: {self}");
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { permitted, calls, refused, ambiguous, plain, declined, differing, .. } = self;
        write!(
            f,
            "{permitted} let through ({calls} tool calls; {declined} that some reader declines), \
             {refused} refused ({ambiguous} are several calls to the readers, {plain} one), {differing} differences"
        )
    }
}
