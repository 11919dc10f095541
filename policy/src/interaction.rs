//! What a provider, or a downstream, wants of the caller before it serves them: another login, certain claims, consent.
//!
//! They say it to us, who hold no browser and cannot log anybody in, so it has to be passed back to the caller. What they
//! wrote is not passed on: it is read strictly, within bounds, and written anew by [`crate::challenge::interaction`].

mod answer;
mod header;

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose};
use serde_json::{Map, Value};

pub use answer::{Answered, answered, first_event};

use crate::bundle::document::Assurance;
use crate::strict_json;

/// No claims request is longer than this many bytes of JSON.
pub const MAX_CLAIMS: usize = 4096;
/// No challenge names more classes of login than this.
const MAX_CLASSES: usize = 8;
/// The longest name of a class, bytes.
const MAX_CLASS: usize = 128;

/// What is wanted of the caller.
#[derive(Clone, PartialEq, Eq)]
pub enum Interaction {
    /// A token with these claims (OpenID Connect Core §5.5).
    Claims(ClaimsRequest),
    /// A login that is recent or strong enough (RFC 9470 §3).
    LogIn(Assurance),
    /// The caller's consent.
    Consent,
    /// The caller; no more was said, or no more that can be read.
    Any,
}

/// A `claims` request: one JSON object, in the one form that it has here.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimsRequest(String);

/// Shows the kind alone: what somebody else wrote does not come into logs.
impl fmt::Debug for Interaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claims(_) => "Claims(..)",
            Self::LogIn(_) => "LogIn(..)",
            Self::Consent => "Consent",
            Self::Any => "Any",
        })
    }
}

impl Interaction {
    /// Reads the error answer of a token endpoint; none when it wants something else, or nothing, of the caller.
    ///
    /// The codes are those of OpenID Connect Core §3.1.2.6 and RFC 9470 §3. Entra ID says `invalid_grant` for them too,
    /// with `claims` or with a `suberror` that tells them apart.
    #[must_use]
    pub fn of_error(answer: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let claims = text("claims").and_then(|claims| ClaimsRequest::read(claims.as_bytes()));
        let other = match (text("error")?, text("suberror")) {
            ("consent_required", _)
            | ("interaction_required" | "invalid_grant", Some("consent_required")) => Self::Consent,
            ("interaction_required" | "login_required" | "insufficient_claims", _)
            | ("invalid_grant", Some("basic_action")) => Self::Any,
            ("insufficient_user_authentication", _) => {
                let max_age = match answer.get("max_age") {
                    Some(Value::Number(seconds)) => Some(seconds.to_string()),
                    Some(Value::String(seconds)) => Some(seconds.clone()),
                    Some(_) => return Some(Self::Any),
                    None => None,
                };
                let asked = answer.get("acr_values").map(|classes| classes.as_str().ok_or(Unreadable));
                let asked = asked.transpose().and_then(|classes| log_in(classes, max_age.as_deref()));
                asked.unwrap_or(Self::Any)
            }
            ("invalid_grant", _) => return claims.map(Self::Claims),
            _ => return None,
        };
        Some(claims.map_or(other, Self::Claims))
    }

    /// Reads the `WWW-Authenticate` lines of a downstream's 401; none when they ask for nothing that only the caller has,
    /// or when one of them cannot be read.
    #[must_use]
    pub fn of_challenges<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for line in lines {
            for challenge in header::challenges(line)? {
                if !["bearer", "dpop"].contains(&challenge.scheme.as_str()) {
                    continue;
                }
                let asked = match challenge.get("error") {
                    Some("insufficient_claims") => {
                        challenge.get("claims").and_then(ClaimsRequest::of_base64).map(Self::Claims)
                    }
                    Some("insufficient_user_authentication") => {
                        log_in(challenge.get("acr_values"), challenge.get("max_age")).ok()
                    }
                    _ => continue,
                };
                found = found.or(asked);
            }
        }
        found
    }
}

impl ClaimsRequest {
    /// Reads a JSON object that asks for something.
    fn read(json: &[u8]) -> Option<Self> {
        if json.len() > MAX_CLAIMS {
            return None;
        }
        let object = strict_json::object(json).ok().filter(|object| !object.is_empty())?;
        // Members in the order of their names, nothing between them.
        let text = Value::Object(object).to_string();
        (text.len() <= MAX_CLAIMS).then_some(Self(text))
    }

    /// From base64 or base64url, with or without padding.
    fn of_base64(text: &str) -> Option<Self> {
        const ANY: GeneralPurposeConfig =
            general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
        if text.len() > MAX_CLAIMS.saturating_mul(2) {
            return None;
        }
        let url = text.contains(['-', '_']);
        let engine = GeneralPurpose::new(if url { &alphabet::URL_SAFE } else { &alphabet::STANDARD }, ANY);
        Self::read(&engine.decode(text).ok()?)
    }

    /// As it stands in a challenge.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

/// What was asked of a login cannot be repeated.
struct Unreadable;

fn log_in(classes: Option<&str>, max_age: Option<&str>) -> Result<Interaction, Unreadable> {
    let printable = |class: &str| class.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    let fits = |class: &&str| !class.is_empty() && class.len() <= MAX_CLASS && printable(class);
    let acr_values: Vec<String> = match classes {
        Some(classes) => {
            let classes: Vec<&str> = classes.split(' ').collect();
            if classes.len() > MAX_CLASSES || !classes.iter().all(fits) {
                return Err(Unreadable);
            }
            classes.into_iter().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let max_age = match max_age {
        Some(seconds) if digits(seconds) => Some(seconds.parse().map_err(|_| Unreadable)?),
        Some(_) => return Err(Unreadable),
        None => None,
    };
    if acr_values.is_empty() && max_age.is_none() {
        return Ok(Interaction::Any);
    }
    Ok(Interaction::LogIn(Assurance { max_age, acr_values }))
}
