//! The headers that mirror arguments of a tool (MCP 2026-07-28 basic/transports/streamable-http, Custom Headers from
//! Tool Parameters): `Mcp-Param-<name>` says what the argument says that the tool's schema annotates with
//! `x-mcp-header: <name>`.
//!
//! Which arguments those are is the server's to say, in the lists of its tools. As with the other mirrored headers
//! nothing is decided by them; they are compared, so that whoever routed by one routed by what the server gets.

use super::error::{EnvelopeError, EnvelopeReason};
use super::headers::{HeaderField, sentinel};
use super::json::{self, Duplicates, Limits, Node, Value};
use super::message::{Era, Kind, Message};
use super::target::Target;

/// What every such header begins with, in lower case.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// The member of a property's schema that names its header.
const ANNOTATION: &str = "x-mcp-header";
/// A tool mirrors no more arguments than this, so that what is remembered of it is bounded.
const MAX_PARAMS: usize = 64;
/// A header's name, or a member's name on the way to the argument, has no more bytes than this.
const MAX_NAME: usize = 128;
/// Integers beyond are no mirrored ones (2^53 − 1).
const MAX_SAFE: i64 = 9_007_199_254_740_991;

/// Why a tool's annotations are not taken: all of them are without effect then. Holds nothing of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The name is no string, empty, no token of RFC 9110 §5.6.2, or too long.
    #[error("the name of a mirrored header is none")]
    Name,
    /// Two properties name the same header, whatever the case of its letters.
    #[error("two properties name the same mirrored header")]
    Twice,
    /// The property is neither string nor integer nor boolean.
    #[error("a mirrored property is neither string nor integer nor boolean")]
    Type,
    /// It stands where no chain of `properties` alone leads.
    #[error("a mirrored property is not reached along properties alone")]
    Place,
    /// More of them, or deeper, than is taken.
    #[error("the mirrored properties are over a limit")]
    TooMany,
}

/// The headers that mirror a tool's arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirroredParams(Vec<Param>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    /// Name of the header in lower case, with its prefix.
    header: String,
    /// Names of the members that lead to the argument.
    path: Vec<String>,
}

impl MirroredParams {
    /// Reads the annotations of an `inputSchema`.
    ///
    /// # Errors
    /// One of them breaks a rule of the standard; then the tool's definition is invalid as a whole.
    pub(crate) fn of_schema(schema: &Node<'_>) -> Result<Self, AnnotationError> {
        let mut found = Self::default();
        found.descend(schema, &mut Vec::new())?;
        found.0.sort_unstable_by(|a, b| a.header.cmp(&b.header));
        if found.0.windows(2).any(|pair| matches!(pair, [a, b] if a.header == b.header)) {
            return Err(AnnotationError::Twice);
        }
        Ok(found)
    }

    /// Whether nothing is mirrored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The headers' names, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|param| param.header.as_str())
    }

    /// A schema that a chain of `properties` leads to, and what is below it.
    fn descend(&mut self, schema: &Node<'_>, path: &mut Vec<String>) -> Result<(), AnnotationError> {
        for member in schema.members().unwrap_or_default() {
            match (member.key.as_ref(), member.node.members()) {
                (ANNOTATION, _) if path.is_empty() => return Err(AnnotationError::Place),
                (ANNOTATION, _) => self.annotated(&member.node, schema, path)?,
                ("properties", Some(properties)) => {
                    for property in properties {
                        path.push(property.key.as_ref().to_owned());
                        self.descend(&property.node, path)?;
                        path.pop();
                    }
                }
                // What stands in these is data of the schema's author, and no schema.
                ("default" | "const" | "enum" | "examples", _) => {}
                _ => nowhere(&member.node)?,
            }
        }
        Ok(())
    }

    fn annotated(
        &mut self,
        name: &Node<'_>,
        schema: &Node<'_>,
        path: &[String],
    ) -> Result<(), AnnotationError> {
        let name = name.as_str().filter(|name| is_token(name)).ok_or(AnnotationError::Name)?;
        let kind = schema.get("type").and_then(Node::as_str);
        if !matches!(kind, Some("string" | "integer" | "boolean")) {
            return Err(AnnotationError::Type);
        }
        if self.0.len() >= MAX_PARAMS || path.iter().any(|step| step.len() > MAX_NAME) {
            return Err(AnnotationError::TooMany);
        }
        let header = format!("{PARAM_PREFIX}{}", name.to_ascii_lowercase());
        self.0.push(Param { header, path: path.to_vec() });
        Ok(())
    }

    /// Checks that the headers of a stateless `tools/call` say what its arguments say. `field` gives the header of a
    /// name in lower case. With `demanded` an argument that is there must have its header.
    ///
    /// # Errors
    /// A header that is repeated, malformed or different, there without its argument or, if demanded, missing; never
    /// with its value.
    pub fn check<'h>(
        &self,
        message: &Message,
        field: impl Fn(&str) -> HeaderField<'h>,
        demanded: bool,
    ) -> Result<(), EnvelopeError> {
        let called = matches!(message.target(), Target::ToolCall { .. }) && message.kind() == Kind::Request;
        if !called || message.era() != Era::Modern || self.is_empty() {
            return Ok(());
        }
        let arguments = message.arguments().unwrap_or("{}");
        // The envelope has read them already, within its limits.
        let arguments = json::read(arguments.as_bytes(), &Limits::default(), Duplicates::Refused);
        let arguments = arguments.map_err(|_| EnvelopeReason::BadParams);
        let checked = arguments.and_then(|arguments| {
            self.0.iter().try_for_each(|param| {
                let argument = param.path.iter().try_fold(&arguments, |node, step| node.get(step));
                agree(&field(&param.header), argument, demanded)
            })
        });
        checked.map_err(|reason| EnvelopeError::from(reason).of(message))
    }
}

/// An annotation in a part of the schema that no chain of `properties` leads to. Depth and size were bounded when the
/// list was read.
fn nowhere(node: &Node<'_>) -> Result<(), AnnotationError> {
    for member in node.members().unwrap_or_default() {
        if member.key == ANNOTATION {
            return Err(AnnotationError::Place);
        }
        nowhere(&member.node)?;
    }
    let mut found = Ok(());
    let elements = node.elements(&mut |raw| {
        if found.is_ok() {
            found = json::read(raw.as_bytes(), &Limits::default(), Duplicates::Refused)
                .map_err(|_| AnnotationError::Place)
                .and_then(|element| nowhere(&element));
        }
    });
    elements.map_err(|_| AnnotationError::Place).and(found)
}

fn agree(
    header: &HeaderField<'_>,
    argument: Option<&Node<'_>>,
    demanded: bool,
) -> Result<(), EnvelopeReason> {
    let argument = argument.filter(|node| !matches!(node.value, Value::Null));
    let (header, argument) = match (read(header)?, argument) {
        (None, Some(_)) if demanded => return Err(EnvelopeReason::HeaderMissing),
        (None, _) => return Ok(()),
        (Some(_), None) => return Err(EnvelopeReason::HeaderMismatch),
        (Some(header), Some(argument)) => (header, argument),
    };
    let header = sentinel(header)?;
    let same = match &argument.value {
        Value::String(text) => *text == header,
        Value::Bool => argument.raw == header,
        Value::Number => integer(&header).is_some_and(|number| integer(argument.raw) == Some(number)),
        // No header says these.
        Value::Null | Value::Array | Value::Object(_) => false,
    };
    if same { Ok(()) } else { Err(EnvelopeReason::HeaderMismatch) }
}

/// As [`HeaderField::read`], but an argument may be empty.
fn read<'h>(header: &HeaderField<'h>) -> Result<Option<&'h str>, EnvelopeReason> {
    match (header.count, header.value) {
        (1, Some(value)) if value.trim_matches([' ', '\t']).is_empty() => Ok(Some("")),
        _ => header.read(),
    }
}

/// The value of a JSON number that is an integer within the safe range, however it is written (`42`, `42.0`, `4.2e1`).
/// Exact: nothing is rounded.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (mantissa, ""),
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !plain(whole) || !plain(fraction) {
        return None;
    }
    let bare = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if bare.is_empty() || !plain(bare) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let trailing = all.len().saturating_sub(all.trim_end_matches('0').len());
    // How many zeros follow the significant digits; fewer than none is a fraction.
    let zeros = exponent.parse::<i64>().ok()?;
    let zeros =
        zeros.checked_add(i64::try_from(trailing).ok()?)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let factor = 10_i64.checked_pow(u32::try_from(zeros).ok()?)?;
    let value = significant.parse::<i64>().ok()?.checked_mul(factor)?;
    (value <= MAX_SAFE).then_some(if negative { value.saturating_neg() } else { value })
}

/// `token` of RFC 9110 §5.6.2, of a length that a header's name may have.
fn is_token(name: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(tchar)
}
