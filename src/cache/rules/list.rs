//! What are the members of a list (RFC 9110, section 5.6.1)? Over all lines of a field, without the empty ones.
//!
//! A quote that nothing closes is a byte like others: what comes after it shall not be hidden by it.

use http::HeaderMap;
use http::HeaderName;

/// How a quoted text ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// At a quote without a backslash before it, as in a quoted-string (RFC 9110, section 5.6.4).
    Escaped,
    /// At the next quote: in an entity tag, a backslash is a letter (RFC 9110, section 8.8.3).
    Plain,
}

/// The members of a field, line after line.
pub(super) fn members<'a>(
    fields: &'a HeaderMap,
    name: &HeaderName,
    quotes: Quotes,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    fields.get_all(name).into_iter().flat_map(move |line| split(line.as_bytes(), b",", quotes))
}

/// The parts between separators that do not stand in quotes, trimmed, without the empty ones.
pub(super) fn split<'a>(text: &'a [u8], separators: &'a [u8], quotes: Quotes) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = text;
    // Once nothing closes a quote, nothing closes any that follow: to look again for each would take quadratic time.
    let mut unclosed = false;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = part(rest, separators, quotes, &mut unclosed);
            let (found, more) = rest.split_at(end);
            rest = more.get(1..).unwrap_or_default();
            if !trim(found).is_empty() {
                return Some(trim(found));
            }
        }
        None
    })
}

/// Where the part ends that the text begins with.
fn part(text: &[u8], separators: &[u8], quotes: Quotes, unclosed: &mut bool) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if separators.contains(byte) {
            break;
        }
        at += 1;
        if *byte == b'"' && !*unclosed {
            match closing(&text[at..], quotes) {
                Some(length) => at += length + 1,
                None => *unclosed = true,
            }
        }
    }
    at
}

/// Where the quote is that closes what stands before it.
pub(super) fn closing(text: &[u8], quotes: Quotes) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = quotes == Quotes::Escaped && *byte == b'\\' && !escaped;
        closes
    })
}

/// Without the white space around it.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

/// Whether this is a token (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, quotes: Quotes, expected: &[&str]) {
        let found: Vec<_> = split(text.as_bytes(), b",", quotes).map(|part| String::from_utf8_lossy(part)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn empty_members_are_left_out_as_rfc_9110_section_5_6_1_2_says() {
        check("", Quotes::Escaped, &[]);
        check(" , ,\t", Quotes::Escaped, &[]);
        check("a,, b\t,", Quotes::Escaped, &["a", "b"]);
    }

    #[test]
    fn a_comma_in_quotes_ends_no_member() {
        check(r#"a="b, c", d"#, Quotes::Escaped, &[r#"a="b, c""#, "d"]);
        check(r#"a="b\", c", d"#, Quotes::Escaped, &[r#"a="b\", c""#, "d"]);
    }

    #[test]
    fn a_backslash_in_an_entity_tag_is_a_letter() {
        check(r#""a\", "b""#, Quotes::Plain, &[r#""a\""#, r#""b""#]);
    }

    #[test]
    fn an_unclosed_quote_hides_nothing() {
        check(r#"a="b, c"#, Quotes::Escaped, &[r#"a="b"#, "c"]);
        check(r#""x", a="b, c\", d"#, Quotes::Escaped, &[r#""x""#, r#"a="b"#, r#"c\""#, "d"]);
    }
}
