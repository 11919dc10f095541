//! Challenges in a `WWW-Authenticate` line (RFC 9110 §11.2, §11.6.1).

/// The longest line that is read, bytes.
const MAX_LINE: usize = 16 * 1024;
/// So many parts has a line at most.
const MAX_PARTS: usize = 64;

/// One challenge with its parameters.
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    /// Names in lower case.
    params: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of a line; none when it breaks the grammar or a challenge says a parameter twice.
pub(super) fn challenges(line: &str) -> Option<Vec<Challenge>> {
    if line.len() > MAX_LINE {
        return None;
    }
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = line;
    for _ in 0..MAX_PARTS {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(found);
        }
        let (name, after) = token(rest)?;
        let name = name.to_ascii_lowercase();
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        if let Some(value) = value {
            let (value, after) = value_of(value.trim_start_matches([' ', '\t']))?;
            let challenge = found.last_mut()?;
            if challenge.get(&name).is_some() {
                return None;
            }
            challenge.params.push((name, value));
            rest = ended(after)?;
        } else {
            found.push(Challenge { scheme: name, params: Vec::new() });
            rest = without_token68(after)?;
        }
    }
    None
}

/// What follows a scheme, without the one value that some schemes have in place of parameters.
fn without_token68(after: &str) -> Option<&str> {
    let Some(after) = after.strip_prefix([' ', '\t']) else { return ended(after) };
    let part = after.split(',').next().unwrap_or_default();
    let bare = part.trim_matches([' ', '\t']).trim_end_matches('=');
    let of_it = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    if bare.bytes().all(of_it) { after.get(part.len()..) } else { Some(after) }
}

/// A part ends at a comma or with the line.
fn ended(after: &str) -> Option<&str> {
    let after = after.trim_start_matches([' ', '\t']);
    (after.is_empty() || after.starts_with(',')).then_some(after)
}

fn token(text: &str) -> Option<(&str, &str)> {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !tchar(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at_checked(end)).flatten()
}

/// A token or a quoted string.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, after)| (value.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at.saturating_add(1)..)?)),
            '\\' => value.push(chars.next()?.1),
            c if c.is_ascii_control() && c != '\t' => return None,
            c => value.push(c),
        }
    }
    None
}
