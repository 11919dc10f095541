//! The `tools/list` answer as its caller may see it.

#![cfg(test)]

#[path = "listing/sse.rs"]
mod sse;

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

proptest! {
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
