//! The value of an expression. Total: there is a value or a refusal for every expression that [`super::check`] takes, in a
//! time that its bounds and those of the arguments give.
//!
//! Stricter than the language asks: values of different types are not compared, but for null, so that a member of an
//! unexpected type is refused and never merely "not equal".

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr};
use serde_json::{Map, Value as Json};

use super::{ARGUMENTS, CALLER, Unjudged};
use crate::bundle::document::CallerKind;
use crate::claims::Caller;

/// A value, borrowed from the arguments, the caller or the expression.
#[derive(Clone)]
enum Value<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'a str),
    List(Vec<Value<'a>>),
    Object(&'a Map<String, Json>),
    Attributes(&'a Caller),
}

type Judged<'a> = Result<Value<'a>, Unjudged>;

/// Says that an expression has no value.
const NONE: Unjudged = Unjudged::Expression;

/// Whether an expression is true.
pub(super) fn holds(expression: &IdedExpr, arguments: &Json, caller: &Caller) -> Result<bool, Unjudged> {
    let scope = Scope { arguments, caller, bound: None };
    truth(scope.value(&expression.expr))
}

fn truth(value: Judged<'_>) -> Result<bool, Unjudged> {
    match value? {
        Value::Bool(truth) => Ok(truth),
        _ => Err(NONE),
    }
}

/// What names stand for.
#[derive(Clone, Copy)]
struct Scope<'a, 'b> {
    arguments: &'a Json,
    caller: &'a Caller,
    bound: Option<Bound<'a, 'b>>,
}

/// Variables of `all` or `exists`: the element, and the result so far, which may be none yet.
#[derive(Clone, Copy)]
struct Bound<'a, 'b> {
    element: (&'a str, Option<&'b Value<'a>>),
    result: (&'a str, &'b Judged<'a>),
}

impl<'a> Scope<'a, '_> {
    fn value(self, expr: &'a Expr) -> Judged<'a> {
        match expr {
            Expr::Literal(literal) => literal_of(literal),
            Expr::Ident(name) => self.named(name),
            Expr::Select(select) => self.selected(select),
            Expr::List(list) => list
                .elements
                .iter()
                .map(|one| self.value(&one.expr))
                .collect::<Result<_, _>>()
                .map(Value::List),
            Expr::Call(call) => self.called(call),
            Expr::Comprehension(it) => self.folded(it),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Err(NONE),
        }
    }

    fn named(self, name: &str) -> Judged<'a> {
        if let Some(bound) = self.bound {
            if bound.element.0 == name {
                return bound.element.1.cloned().ok_or(NONE);
            }
            if bound.result.0 == name {
                return bound.result.1.clone();
            }
        }
        if name == ARGUMENTS { Ok(of_json(self.arguments)) } else { Err(NONE) }
    }

    fn selected(self, select: &'a SelectExpr) -> Judged<'a> {
        let field = select.field.as_str();
        if matches!(&select.operand.expr, Expr::Ident(name) if name == CALLER) {
            let known = self.of_caller(field)?;
            return if select.test { Ok(Value::Bool(!matches!(known, Value::Null))) } else { Ok(known) };
        }
        let member = match self.value(&select.operand.expr)? {
            Value::Object(object) => object.get(field).map(of_json),
            Value::Attributes(caller) => caller.login.attributes.get(field).map(|text| Value::Text(text)),
            _ => return Err(NONE),
        };
        if select.test { Ok(Value::Bool(member.is_some())) } else { member.ok_or(NONE) }
    }

    fn of_caller(self, field: &str) -> Judged<'a> {
        let caller = self.caller;
        Ok(match field {
            "subject" => Value::Text(caller.subject.as_str()),
            "client" => caller.client.as_ref().map_or(Value::Null, |client| Value::Text(client.as_str())),
            "kind" => Value::Text(match caller.kind {
                CallerKind::User => "User",
                CallerKind::Workload => "Workload",
            }),
            "groups" => texts(&caller.groups, |group| group.as_str()),
            "scopes" => texts(&caller.scopes, |scope| scope.as_str()),
            "attributes" => Value::Attributes(caller),
            _ => return Err(NONE),
        })
    }

    fn called(self, call: &'a CallExpr) -> Judged<'a> {
        let mut parts = call.target.as_deref().into_iter().chain(&call.args).map(|part| &part.expr);
        let (first, second, third) = (parts.next().ok_or(NONE)?, parts.next(), parts.next());
        match (call.func_name.as_str(), second, third) {
            ("!_", None, None) => truth(self.value(first)).map(|it| Value::Bool(!it)),
            ("-_", None, None) => match self.value(first)? {
                Value::Number(number) => Ok(Value::Number(-number)),
                _ => Err(NONE),
            },
            ("size", None, None) => size(&self.value(first)?),
            ("@not_strictly_false", None, None) => {
                Ok(Value::Bool(!matches!(self.value(first), Ok(Value::Bool(false)))))
            }
            ("_&&_", Some(second), None) => self.either(first, second, false),
            ("_||_", Some(second), None) => self.either(first, second, true),
            ("_?_:_", Some(second), Some(third)) => {
                if truth(self.value(first))? {
                    self.value(second)
                } else {
                    self.value(third)
                }
            }
            (name, Some(second), None) => {
                let (left, right) = (self.value(first)?, self.value(second)?);
                match name {
                    "_[_]" => indexed(left, &right),
                    "@in" => contained(&left, &right).map(Value::Bool),
                    "_==_" => equal(&left, &right).map(Value::Bool),
                    "_!=_" => equal(&left, &right).map(|it| Value::Bool(!it)),
                    _ => compared(name, &left, &right).map(Value::Bool),
                }
            }
            _ => Err(NONE),
        }
    }

    /// `&&` and `||` of the language: what decides, decides, whether or not the other side has a value.
    fn either(self, first: &'a Expr, second: &'a Expr, deciding: bool) -> Judged<'a> {
        let first = truth(self.value(first));
        if first == Ok(deciding) {
            return Ok(Value::Bool(deciding));
        }
        let second = truth(self.value(second));
        if second == Ok(deciding) {
            return Ok(Value::Bool(deciding));
        }
        first.and(second).map(Value::Bool)
    }

    /// `all` and `exists`, as the language writes them out.
    fn folded(self, it: &'a ComprehensionExpr) -> Judged<'a> {
        let Value::List(elements) = self.value(&it.iter_range.expr)? else { return Err(NONE) };
        let mut result = self.value(&it.accu_init.expr);
        for element in &elements {
            let within = Scope {
                bound: Some(Bound {
                    element: (&it.iter_var, Some(element)),
                    result: (&it.accu_var, &result),
                }),
                ..self
            };
            if !truth(within.value(&it.loop_cond.expr))? {
                break;
            }
            result = within.value(&it.loop_step.expr);
        }
        let bound = Bound { element: (&it.iter_var, None), result: (&it.accu_var, &result) };
        Scope { bound: Some(bound), ..self }.value(&it.result.expr)
    }
}

fn texts<'a, T>(set: &'a BTreeSet<T>, text: impl Fn(&'a T) -> &'a str) -> Value<'a> {
    Value::List(set.iter().map(|one| Value::Text(text(one))).collect())
}

fn of_json(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(it) => Value::Bool(*it),
        // Bounded when the arguments were read, so that nothing is rounded here.
        Json::Number(it) => Value::Number(it.as_f64().unwrap_or(f64::NAN)),
        Json::String(it) => Value::Text(it),
        Json::Array(it) => Value::List(it.iter().map(of_json).collect()),
        Json::Object(it) => Value::Object(it),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the expression was checked to hold no number that is rounded"
)]
fn literal_of(literal: &LiteralValue) -> Judged<'_> {
    Ok(match literal {
        LiteralValue::Boolean(it) => Value::Bool(*it.inner()),
        LiteralValue::Int(it) => Value::Number(*it.inner() as f64),
        LiteralValue::UInt(it) => Value::Number(*it.inner() as f64),
        LiteralValue::Double(it) => Value::Number(*it.inner()),
        LiteralValue::String(it) => Value::Text(it.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::Bytes(_) => return Err(NONE),
    })
}

#[expect(clippy::cast_precision_loss, reason = "no text or list is that long")]
fn size<'a>(value: &Value<'_>) -> Judged<'a> {
    let size = match value {
        Value::Text(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Object(object) => object.len(),
        _ => return Err(NONE),
    };
    Ok(Value::Number(size as f64))
}

fn indexed<'a>(of: Value<'a>, key: &Value<'_>) -> Judged<'a> {
    match (of, key) {
        (Value::Object(object), Value::Text(name)) => object.get(*name).map(of_json).ok_or(NONE),
        (Value::Attributes(caller), Value::Text(name)) => {
            caller.login.attributes.get(*name).map(|text| Value::Text(text)).ok_or(NONE)
        }
        (Value::List(list), Value::Number(at)) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared back")]
            let index = *at as usize;
            #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "no list is that long")]
            let exact = index as f64 == *at;
            if exact { list.into_iter().nth(index).ok_or(NONE) } else { Err(NONE) }
        }
        _ => Err(NONE),
    }
}

fn contained(one: &Value<'_>, within: &Value<'_>) -> Result<bool, Unjudged> {
    match (one, within) {
        (_, Value::List(list)) => {
            let mut unlike = false;
            for element in list {
                match equal(one, element) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(_) => unlike = true,
                }
            }
            if unlike { Err(NONE) } else { Ok(false) }
        }
        (Value::Text(name), Value::Object(object)) => Ok(object.contains_key(*name)),
        _ => Err(NONE),
    }
}

fn equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool, Unjudged> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        #[expect(clippy::float_cmp, reason = "numbers that every parser reads alike are compared exactly")]
        (Value::Number(left), Value::Number(right)) => Ok(left == right),
        (Value::Text(left), Value::Text(right)) => Ok(left == right),
        (Value::List(left), Value::List(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            left.iter().zip(right).try_fold(true, |same, (left, right)| Ok(same & equal(left, right)?))
        }
        (Value::Object(left), Value::Object(right)) => Ok(left == right),
        _ => Err(NONE),
    }
}

fn compared(name: &str, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Unjudged> {
    if let (Value::Text(left), Value::Text(right)) = (left, right) {
        match name {
            "startsWith" => return Ok(left.starts_with(right)),
            "endsWith" => return Ok(left.ends_with(right)),
            "contains" => return Ok(left.contains(right)),
            _ => {}
        }
    }
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.partial_cmp(right).ok_or(NONE)?,
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        _ => return Err(NONE),
    };
    match name {
        "_<_" => Ok(order.is_lt()),
        "_<=_" => Ok(order.is_le()),
        "_>_" => Ok(order.is_gt()),
        "_>=_" => Ok(order.is_ge()),
        _ => Err(NONE),
    }
}
