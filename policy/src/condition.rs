//! Conditions on a tool's arguments: expressions of the Common Expression Language, the language of Kubernetes
//! admission, kept to a part of it that is total and bounded. A library reads them; what they are worth is found here,
//! because the library takes a member of something that has none, or 1 and 1.0, for merely unequal.
//!
//! A condition only ever asks for more. Where its expression is true for a call, the call needs further scopes or
//! groups; where it cannot be evaluated, the call is refused. So no condition, whatever it says, lets anything through
//! that was refused without it.

mod arguments;
mod check;
mod evaluate;

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::parser::Expression as Node;

pub use self::arguments::Arguments;
pub use self::check::ConditionError;
use crate::claims::Caller;
use crate::envelope::folded;

/// No expression is longer than this many bytes.
pub const MAX_EXPRESSION: usize = 1024;
/// Arguments of a tool with conditions are no larger than this many bytes; larger ones are refused.
pub const MAX_ARGUMENTS: usize = 64 * 1024;
/// An array or object in such arguments has no more members than this.
pub const MAX_MEMBERS: usize = 256;

/// Name of the variable that holds `params.arguments`.
const ARGUMENTS: &str = "arguments";
/// Name of the variable that says who calls.
const CALLER: &str = "caller";

/// Why a condition could not be judged; the call is refused then. Says nothing of the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unjudged {
    /// The arguments are no object, too large, or hold a number that some parser rounds.
    #[error("the arguments cannot be judged")]
    Arguments,
    /// A member is named nearly as one that the expression names: a server may take one for the other.
    #[error("a member of the arguments can be taken for another")]
    Ambiguous,
    /// The expression has no value here: a member is missing, or of another type.
    #[error("the condition has no value for these arguments")]
    Expression,
}

/// An expression over `arguments` and `caller` that is true or false.
#[derive(Clone)]
pub struct Expression {
    source: String,
    root: Arc<Node>,
    /// Members that it names, as they are written.
    names: Arc<BTreeSet<String>>,
    /// The same, as a careless parser compares names.
    folded: Arc<BTreeSet<String>>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl Expression {
    /// Reads an expression, once, when it is loaded.
    ///
    /// # Errors
    /// It is too long, cannot be read, or uses what could fail to end or has no meaning here. The message says what.
    pub fn compile(source: &str) -> Result<Self, ConditionError> {
        let (root, names) = check::compile(source)?;
        let folded = names.iter().map(|name| folded(name)).collect();
        Ok(Self {
            source: source.to_owned(),
            root: Arc::new(root),
            names: Arc::new(names),
            folded: Arc::new(folded),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is true for these arguments and this caller.
    ///
    /// # Errors
    /// It is neither true nor false: the call is refused.
    pub fn holds(&self, arguments: &Arguments, caller: &Caller) -> Result<bool, Unjudged> {
        if arguments.can_be_taken_for(&self.names, &self.folded) {
            return Err(Unjudged::Ambiguous);
        }
        evaluate::holds(&self.root, &arguments.json, caller)
    }
}
