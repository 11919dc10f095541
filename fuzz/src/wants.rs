//! What providers and downstreams want of callers, and headers that mirror arguments.

use std::cell::RefCell;

use behalf_policy::challenge;
use behalf_policy::envelope::{
    AnnotationError, Era, HeaderField, HeaderView, Limits, ListKind, Message, MirroredParams,
};
use behalf_policy::interaction::{Answered, Interaction, MAX_CLAIMS, answered, first_event};
use behalf_policy::listing::{Onlooker, filter_list};
use behalf_policy::strict_json;
use serde_json::{Value, json};

use crate::fixture;

/// What is told is bounded, printable and read again as the same; what is no answer fails no call.
pub(crate) fn wants(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    let found = match first % 3 {
        0 => strict_json::object(rest).ok().as_ref().and_then(Interaction::of_error),
        1 => Interaction::of_challenges(text.lines()),
        _ => {
            let event = first_event(rest, true);
            let whole = serde_json::from_slice::<Value>(rest).ok();
            if answered(rest, "7") == Answered::Failed {
                let whole = whole.as_ref();
                assert!(whole.is_none_or(|it| it["id"] == 7), "another's answer fails the call");
                assert!(whole.is_none_or(|it| it["result"]["isError"] == true || it["error"].is_object()));
            }
            assert!(event.is_some_and(|data| data.len() <= rest.len()), "an event is more than its stream");
            None
        }
    };
    let Some(wanted) = found else { return };
    for policy in fixture::policies() {
        let told = challenge::interaction(policy, &wanted);
        assert!(told.bytes().all(|b| (b' '..=b'~').contains(&b)), "a header that is none");
        assert!(told.len() < 2 * MAX_CLAIMS, "a challenge without bound");
        let again = Interaction::of_challenges([told.as_str()]);
        let same = match &wanted {
            Interaction::Claims(_) | Interaction::LogIn(_) => again.as_ref() == Some(&wanted),
            Interaction::Consent | Interaction::Any => again == Some(Interaction::Any),
        };
        assert!(same, "what is told says something else");
    }
}

#[derive(Default)]
struct Taker(RefCell<Option<MirroredParams>>);

impl Onlooker for Taker {
    fn keeps(&self, _: ListKind, _: &str) -> bool {
        true
    }

    fn mirrors(&self, _: &str, params: &dyn Fn() -> Result<MirroredParams, AnnotationError>) {
        *self.0.borrow_mut() = params().ok();
    }
}

/// A schema's headers.
fn mirrored(schema: &[u8]) -> Option<MirroredParams> {
    let taker = Taker::default();
    let schema = std::str::from_utf8(schema).ok()?;
    let list =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}}}"#);
    filter_list(list.as_bytes(), ListKind::Tools, &taker, Era::Modern, &Limits::default()).ok()?;
    taker.0.take()
}

/// A header that passes says what the argument says; one that is demanded is there.
pub(crate) fn params(data: &[u8]) {
    if let Some(params) = mirrored(data) {
        let names: Vec<&str> = params.headers().collect();
        assert!(names.len() <= 64 && names.windows(2).all(|pair| pair.first() != pair.last()));
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()))
        );
    }
    let schema = json!({"properties": {"a": {"type": "integer", "x-mcp-header": "A"}}}).to_string();
    let Some(known) = mirrored(schema.as_bytes()) else { return };
    let Some(cut) = data.iter().position(|b| *b == b'\n') else { return };
    let (header, argument) = data.split_at_checked(cut).unwrap_or_default();
    let header = std::str::from_utf8(header).ok();
    let Ok(argument) = std::str::from_utf8(argument) else { return };
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"a":{argument}}},{meta}}}}}"#
    );
    let view = HeaderView {
        protocol_version: HeaderField::once("2026-07-28"),
        method: HeaderField::once("tools/call"),
        name: HeaderField::once("t"),
    };
    let Ok(message) = Message::read(body.as_bytes(), &view, &Limits::default()) else { return };
    let arguments = message.arguments().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(value) = arguments.map(|arguments| arguments["a"].clone()) else { return };
    let missing = known.check(&message, |_| HeaderField::default(), true).is_ok();
    assert_eq!(missing, value.is_null(), "what is there must be said");
    let Some(text) = header else { return };
    if known.check(&message, |_| HeaderField::once(text), true).is_err() {
        return;
    }
    let text = text.trim_matches([' ', '\t']);
    match value {
        Value::Number(number) => {
            let said = text.parse::<f64>().ok();
            let decoded = text.starts_with("=?base64?");
            assert!(decoded || said == number.as_f64(), "another number");
        }
        Value::String(value) => assert!(text == value || text.starts_with("=?base64?"), "another text"),
        Value::Bool(value) => assert!(text == value.to_string() || text.starts_with("=?base64?")),
        Value::Null | Value::Array(_) | Value::Object(_) => unreachable!("no header says these"),
    }
}
