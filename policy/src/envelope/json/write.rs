//! Writing what was read.

/// Appends verified JSON without the whitespace between its tokens; strings stay as they are.
pub(crate) fn compact_into(raw: &str, out: &mut String) {
    out.reserve(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in raw.chars() {
        if in_string {
            out.push(c);
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                in_string = false;
            }
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
            in_string = c == '"';
        }
    }
}

/// Appends `text` as a JSON string, escaping only what RFC 8259 §7 says must be.
pub(crate) fn quote_into(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u32| HEX.get(n as usize & 15).map_or('0', |b| char::from(*b));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => {
                out.push_str("\\u00");
                out.push(digit(u32::from(c) >> 4));
                out.push(digit(u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
