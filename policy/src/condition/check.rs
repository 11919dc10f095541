//! Which expressions are taken: those that always end, soon, and whose names mean something.

use std::collections::BTreeSet;

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr};
use cel::parser::Parser;

use super::arguments::MAX_SAFE;
use super::{ARGUMENTS, CALLER, MAX_EXPRESSION};

/// Brackets stand no deeper than this; a parser that calls itself must not run out of stack.
const MAX_BRACKETS: usize = 8;
/// Nodes of an expression after its macros are written out.
const MAX_NODES: usize = 256;
/// Operators with a bounded cost that mean the same in every implementation.
const OPERATORS: &[&str] = &[
    "_?_:_",
    "_&&_",
    "_||_",
    "!_",
    "-_",
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_[_]",
    "@in",
    "@not_strictly_false",
];
/// Functions with a bounded cost.
const FUNCTIONS: &[&str] = &["size", "startsWith", "endsWith", "contains"];
/// What is known of the caller.
const OF_CALLER: &[&str] = &["subject", "client", "kind", "groups", "scopes", "attributes"];

/// Why an expression is not taken. The text is for whoever wrote the expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Longer than [`MAX_EXPRESSION`] bytes, or too deep.
    #[error("the expression is longer than {MAX_EXPRESSION} bytes or too deeply nested")]
    TooLarge,
    /// No expression of the language.
    #[error("the expression cannot be read: {0}")]
    Syntax(String),
    /// A function, macro or operator that is not offered.
    #[error(
        "{0} is not offered here; offered are comparisons, logic, in, has, all, exists, size, startsWith, endsWith, contains"
    )]
    NotOffered(String),
    /// A name that is neither `arguments` nor `caller`, or a member that `caller` does not have.
    #[error(
        "{0} is not known here; known are arguments and caller.{{subject,client,kind,groups,scopes,attributes}}"
    )]
    Unknown(String),
    /// The value of the expression is no truth value, whatever the arguments.
    #[error("the expression is not a condition: it is never true or false")]
    NotACondition,
}

/// The tree of an expression and the names of members that it looks at.
pub(super) fn compile(source: &str) -> Result<(IdedExpr, BTreeSet<String>), ConditionError> {
    if source.len() > MAX_EXPRESSION || too_deep(source) {
        return Err(ConditionError::TooLarge);
    }
    if source.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Err(ConditionError::Syntax("it holds control characters".to_owned()));
    }
    let root = Parser::default().parse(source).map_err(|errors| {
        let first = errors.errors.first().map_or_else(String::new, |error| error.msg.clone());
        ConditionError::Syntax(first)
    })?;
    let mut check = Check { names: BTreeSet::new(), bound: Vec::new(), nodes: 0 };
    check.node(&root)?;
    if !can_be_true(&root.expr) {
        return Err(ConditionError::NotACondition);
    }
    Ok((root, check.names))
}

/// Counts what nests, without minding string literals: what is in them only makes this stricter.
fn too_deep(source: &str) -> bool {
    let mut depth = 0_usize;
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return true;
        }
    }
    // Each of these opens a level without a bracket.
    source.matches('?').count() > MAX_BRACKETS
        || source.matches("!!").count() > MAX_BRACKETS
        || source.matches("--").count() > MAX_BRACKETS
}

#[expect(clippy::cast_precision_loss, reason = "what is rounded is beyond the bound all the same")]
fn is_exact(literal: &LiteralValue) -> bool {
    match literal {
        LiteralValue::Int(it) => (*it.inner() as f64).abs() <= MAX_SAFE,
        LiteralValue::UInt(it) => (*it.inner() as f64) <= MAX_SAFE,
        LiteralValue::Double(it) => it.inner().abs() <= MAX_SAFE,
        LiteralValue::Bytes(_) => false,
        _ => true,
    }
}

fn can_be_true(expr: &Expr) -> bool {
    match expr {
        Expr::Call(call) => call.func_name != "size" && call.func_name != "-_",
        Expr::Comprehension(_) | Expr::Select(_) | Expr::Literal(LiteralValue::Boolean(_)) => true,
        _ => false,
    }
}

struct Check {
    names: BTreeSet<String>,
    /// Variables of the macros around the node; two at a time: one of the macro, one of its result.
    bound: Vec<String>,
    nodes: usize,
}

impl Check {
    fn node(&mut self, node: &IdedExpr) -> Result<(), ConditionError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ConditionError::TooLarge);
        }
        match &node.expr {
            Expr::Literal(literal) if is_exact(literal) => Ok(()),
            Expr::Literal(_) => Err(ConditionError::NotOffered("a number beyond 2^53".to_owned())),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    return Err(ConditionError::NotOffered("?".to_owned()));
                }
                list.elements.iter().try_for_each(|element| self.node(element))
            }
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
                    return Err(ConditionError::NotOffered(call.func_name.clone()));
                }
                // A search in a text, once per element of a list, is the one product of two lengths there could be.
                if name == "contains" && !self.bound.is_empty() {
                    return Err(ConditionError::NotOffered("contains inside all or exists".to_owned()));
                }
                if name == "_[_]" {
                    self.index(&call.args)?;
                }
                let target = call.target.as_deref();
                target.into_iter().chain(&call.args).try_for_each(|part| self.node(part))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) | Expr::Struct(_) => Err(ConditionError::NotOffered("{}".to_owned())),
            Expr::Unspecified => Err(ConditionError::Syntax("it is empty".to_owned())),
        }
    }

    fn ident(&self, name: &str) -> Result<(), ConditionError> {
        if name == ARGUMENTS || self.bound.iter().any(|bound| bound == name) {
            return Ok(());
        }
        // `caller` alone is good for nothing; its members are met in `select`.
        Err(ConditionError::Unknown(name.to_owned()))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<(), ConditionError> {
        let mut field = &select.field;
        let mut operand = &select.operand.expr;
        while let Expr::Select(inner) = operand {
            (field, operand) = (&inner.field, &inner.operand.expr);
        }
        if matches!(operand, Expr::Ident(name) if name == CALLER) {
            let known = OF_CALLER.contains(&field.as_str());
            return if known { Ok(()) } else { Err(ConditionError::Unknown(format!("caller.{field}"))) };
        }
        self.names.insert(select.field.clone());
        self.node(&select.operand)
    }

    /// A member is named by a literal, so that it is known which members count.
    fn index(&mut self, args: &[IdedExpr]) -> Result<(), ConditionError> {
        match args.get(1).map(|key| &key.expr) {
            Some(Expr::Literal(LiteralValue::String(name))) => {
                self.names.insert(name.inner().to_owned());
                Ok(())
            }
            Some(Expr::Literal(LiteralValue::Int(_))) => Ok(()),
            _ => Err(ConditionError::NotOffered("an index that is not written out".to_owned())),
        }
    }

    fn comprehension(&mut self, it: &ComprehensionExpr) -> Result<(), ConditionError> {
        // One list in another would be a product of two lengths.
        if !self.bound.is_empty() || it.iter_var2.is_some() {
            return Err(ConditionError::NotOffered("all or exists inside another".to_owned()));
        }
        if it.iter_var == ARGUMENTS || it.iter_var == CALLER {
            return Err(ConditionError::Unknown(format!("a variable named {}", it.iter_var)));
        }
        self.node(&it.iter_range)?;
        self.node(&it.accu_init)?;
        self.bound = vec![it.iter_var.clone(), it.accu_var.clone()];
        let inside =
            [&it.loop_cond, &it.loop_step, &it.result].into_iter().try_for_each(|part| self.node(part));
        self.bound.clear();
        inside
    }
}
