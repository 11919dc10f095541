//! Expressions over a tool's arguments: what is taken, what they are worth, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::condition::{
    Arguments, ConditionError, Expression, MAX_ARGUMENTS, MAX_EXPRESSION, Unjudged,
};
use support::{alice, bob};

fn holds(source: &str, arguments: &str) -> Result<bool, Unjudged> {
    let arguments = Arguments::read(Some(arguments))?;
    Expression::compile(source).unwrap().holds(&arguments, &alice(&["hr:read"]))
}

#[test]
fn a_condition_reads_arguments_and_caller() {
    let rows = [
        ("arguments.employee != caller.subject", r#"{"employee":"bob"}"#, true),
        ("arguments.employee != caller.subject", r#"{"employee":"alice"}"#, false),
        ("arguments.amount > 1000", r#"{"amount":1001}"#, true),
        ("arguments.amount > 1000", r#"{"amount":1000.0}"#, false),
        ("arguments.amount == 1", r#"{"amount":1.0}"#, true),
        ("arguments.amount > 1000", r#"{"amount":1e3}"#, false),
        ("'managers' in caller.groups", "{}", true),
        ("caller.client == 'agent-ui'", "{}", true),
        ("caller.kind == 'User'", "{}", true),
        ("'hr:read' in caller.scopes", "{}", true),
        ("has(arguments.employee)", "{}", false),
        ("has(arguments.employee)", r#"{"employee":null}"#, true),
        ("!has(arguments.region) || arguments.region in ['eu', 'us']", r#"{"region":"eu"}"#, true),
        ("arguments.employees.all(e, e == caller.subject)", r#"{"employees":["alice","alice"]}"#, true),
        ("arguments.employees.all(e, e == caller.subject)", r#"{"employees":["alice","bob"]}"#, false),
        ("arguments.employees.exists(e, e != caller.subject)", r#"{"employees":["alice","bob"]}"#, true),
        ("arguments.query.contains('drop')", r#"{"query":"a drop b"}"#, true),
        ("arguments.path.startsWith('/public/')", r#"{"path":"/public/a"}"#, true),
        ("size(arguments.ids) > 2", r#"{"ids":[1,2,3]}"#, true),
        ("arguments['a-b'] == 'x'", r#"{"a-b":"x"}"#, true),
        ("arguments.list[0] == 'x'", r#"{"list":["x"]}"#, true),
        ("arguments.deep.er.est == true", r#"{"deep":{"er":{"est":true}}}"#, true),
        ("arguments.none == null", r#"{"none":null}"#, true),
    ];
    for (source, arguments, wanted) in rows {
        assert_eq!(holds(source, arguments), Ok(wanted), "{source} over {arguments}");
    }
    let other = Expression::compile("arguments.employee != caller.subject").unwrap();
    let arguments = Arguments::read(Some(r#"{"employee":"alice"}"#)).unwrap();
    assert_eq!(other.holds(&arguments, &bob(&[])), Ok(true), "another caller");
}

#[test]
fn what_has_no_value_is_neither_true_nor_false() {
    let rows = [
        ("arguments.employee != caller.subject", "{}"),
        ("arguments.employee == 'a' && arguments.other == 'b'", r#"{"employee":"a"}"#),
        ("arguments.amount > 1000", r#"{"amount":"2000"}"#),
        ("arguments.amount > 1000", r#"{"amount":null}"#),
        ("arguments.employee.startsWith('a')", r#"{"employee":["a"]}"#),
        ("arguments.list[3] == 'x'", r#"{"list":["x"]}"#),
        ("arguments.a.b == 'x'", r#"{"a":"b"}"#),
        ("arguments.employee == 'a'", r#"{"employee":["a"]}"#),
        ("arguments.employee in ['a']", r#"{"employee":1}"#),
        ("arguments.a == true", r#"{"a":"true"}"#),
        ("arguments.list.all(e, e == 'x')", r#"{"list":"x"}"#),
        ("arguments.list.all(e, e == 'x')", r#"{"list":["x",1]}"#),
        ("arguments.list == [1]", r#"{"list":["1"]}"#),
        ("arguments.flag", r#"{"flag":"true"}"#),
        ("arguments.flag", r#"{"flag":1}"#),
        ("caller.attributes.employee == arguments.employee", r#"{"employee":"a"}"#),
    ];
    for (source, arguments) in rows {
        assert_eq!(holds(source, arguments), Err(Unjudged::Expression), "{source} over {arguments}");
    }
}

#[test]
fn d21_a_number_that_some_parser_rounds_is_not_judged() {
    for number in ["9007199254740993", "-9007199254740993", "18446744073709551616", "1e16", "1e300", "-1e17"]
    {
        let arguments = format!(r#"{{"amount":1,"other":{number}}}"#);
        assert_eq!(holds("arguments.amount == 1", &arguments), Err(Unjudged::Arguments), "{number}");
    }
    assert_eq!(holds("arguments.amount == 9007199254740991", r#"{"amount":9007199254740991}"#), Ok(true));
    assert_eq!(holds("arguments.amount == 0", r#"{"amount":-0}"#), Ok(true));
}

#[test]
fn d20_cve_2026_27896_a_member_that_a_server_may_take_for_the_judged_one_is_refused() {
    let spellings = [
        "Employee",
        "EMPLOYEE",
        "employe\u{0065}\u{200b}",
        "employee\\u0000x",
        "employee ",
        "em_ployee",
        "em-ployee",
        "ｅmployee",
        "__proto__",
        "__proto__",
    ];
    for spelling in spellings {
        let arguments = format!(r#"{{"employee":"alice","{spelling}":"bob"}}"#);
        let judged = holds("arguments.employee != caller.subject", &arguments);
        assert_eq!(judged, Err(Unjudged::Ambiguous), "{spelling:?}");
        let alone = format!(r#"{{"{spelling}":"bob"}}"#);
        let judged = holds("has(arguments.employee) && arguments.employee != caller.subject", &alone);
        assert_eq!(judged, Err(Unjudged::Ambiguous), "{spelling:?} alone");
        let deeper = format!(r#"{{"employee":"alice","x":[{{"{spelling}":1}}]}}"#);
        assert_eq!(holds("arguments.employee != caller.subject", &deeper), Err(Unjudged::Ambiguous));
    }
    assert_eq!(holds("arguments.employee == 'a'", r#"{"employee":"a","Other":1,"employees":2}"#), Ok(true));
}

#[test]
fn d26_arguments_beyond_their_bounds_are_not_judged() {
    let source = "arguments.a == 1";
    let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let members: Vec<String> = (0..257).map(|n| format!("\"k{n}\":1")).collect();
    let refused = [
        format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(MAX_ARGUMENTS)),
        format!(r#"{{"a":1,"b":[{}]}}"#, many.join(",")),
        format!(r#"{{"a":1,"b":{{{}}}}}"#, members.join(",")),
        "[]".to_owned(),
        "null".to_owned(),
        "\"a\"".to_owned(),
        "{".to_owned(),
    ];
    for arguments in refused {
        let judged = holds(source, &arguments);
        assert_eq!(judged, Err(Unjudged::Arguments), "{}", arguments.get(..40).unwrap_or(&arguments));
    }
    let none = Arguments::read(None).unwrap();
    let none = Expression::compile("!has(arguments.a)").unwrap().holds(&none, &alice(&[]));
    assert_eq!(none, Ok(true), "no arguments are an empty object");
}

#[test]
fn an_expression_that_could_run_long_or_means_nothing_is_not_taken() {
    let not_offered = [
        "arguments.a.matches('(a+)+')",
        "arguments.a + arguments.a == 'aa'",
        "arguments.a * 2 > 1",
        "arguments.a.map(x, x) == []",
        "arguments.a.filter(x, x == 1) == []",
        "arguments.a.exists_one(x, x == 1)",
        "arguments.a.all(x, arguments.b.all(y, x == y))",
        "arguments.a.all(x, arguments.b.contains(x))",
        "arguments[arguments.b] == 1",
        "{'a': 1} == arguments",
        "string(arguments.a) == '1'",
        "arguments.a == 9007199254740993",
        "arguments.a == b'x'",
        "caller == arguments.a",
        "caller.token == 'a'",
        "caller['subject'] == 'a'",
        "request.a == 1",
        "arguments.now() == 1",
        "timestamp('2026-01-01T00:00:00Z') > timestamp(arguments.a)",
        "arguments.a.all(caller, caller == 1)",
        "arguments.a.all(arguments, arguments == 1)",
    ];
    for source in not_offered {
        let refused = Expression::compile(source).unwrap_err();
        let named = matches!(refused, ConditionError::NotOffered(_) | ConditionError::Unknown(_));
        assert!(named, "{source}: {refused:?}");
    }
    for source in [
        "",
        " ",
        "arguments.?a.hasValue()",
        "arguments.a ==",
        "a b",
        "arguments.a == 'x",
        "\u{1}",
        "arguments.a == 1\u{0}",
    ] {
        assert!(matches!(Expression::compile(source), Err(ConditionError::Syntax(_))), "{source:?}");
    }
    for source in ["1", "'a'", "arguments", "[arguments.a]", "size(arguments)", "-arguments.a"] {
        assert_eq!(Expression::compile(source), Err(ConditionError::NotACondition), "{source}");
    }
    let deep = format!("{}arguments.a{} == 1", "(".repeat(400), ")".repeat(400));
    let long = format!("arguments.a == '{}'", "x".repeat(MAX_EXPRESSION));
    let bangs = format!("{}has(arguments.a)", "!".repeat(600));
    let wide = vec!["arguments.a == 1"; 60].join("&&");
    for source in [deep, long, bangs, wide] {
        assert_eq!(
            Expression::compile(&source),
            Err(ConditionError::TooLarge),
            "{}",
            source.get(..30).unwrap()
        );
    }
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever is written as an expression and as arguments, there is an answer.
        #[test]
        fn every_text_is_judged_or_refused(source in "[a-c.()\\[\\]'!=<>&|?:, 0-9{}\"-]{0,60}", arguments in ".{0,60}") {
            if let Ok(expression) = Expression::compile(&source) {
                let _ = Arguments::read(Some(&arguments)).and_then(|it| expression.holds(&it, &alice(&[])));
            }
        }

        /// Expressions of the part that is taken, over arguments of every shape.
        #[test]
        fn every_expression_that_is_taken_ends(
            parts in prop::collection::vec(prop::sample::select(vec![
                "arguments.a", "arguments.b.c", "caller.subject", "caller.groups", "caller.attributes.x", "1", "-1",
                "'x'", "null", "true", "[1, 'x']", "size(arguments.a)", "arguments.a[0]", "arguments['a']",
            ]), 2..6),
            operators in prop::collection::vec(prop::sample::select(vec![
                "==", "!=", "<", ">=", "in", "&&", "||",
            ]), 5),
            arguments in prop::sample::select(vec![
                "{}", r#"{"a":1}"#, r#"{"a":"x","b":{"c":[1]}}"#, r#"{"a":[1,2],"b":null}"#, r#"{"a":{"c":1},"b":{"c":1.5}}"#,
            ]),
        ) {
            let mut source = parts[0].to_owned();
            for (operator, part) in operators.iter().zip(&parts[1..]) {
                source = format!("{source} {operator} {part}");
            }
            if let Ok(expression) = Expression::compile(&source) {
                let _ = Arguments::read(Some(arguments)).and_then(|it| expression.holds(&it, &alice(&["hr:read"])));
            }
        }
    }
}
