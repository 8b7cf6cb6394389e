//! Which path does a request mean, for matching? One spelling for each path.
//!
//! Dot segments are removed (RFC 3986 section 5.2.4), also written as `%2e`; several slashes become one; escapes of
//! unreserved characters are decoded, other escapes get upper-case digits, and what should have been escaped is. An
//! escaped slash or a backslash is never a border: they stay `%2F` and `%5C`, inside their segment.
//!
//! The result is for matching only. It never yields `//`, `/./` or `/../`, and normalising it changes nothing.

use std::borrow::Cow;

/// Why a path is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits behind it.
    #[error("the path has a % without two hexadecimal digits")]
    BadEscape,
    /// A byte that no path may hold: a space, a control character, `?`, `#`, or an escaped NUL.
    #[error("the path has a byte that no path may hold")]
    BadByte,
    /// `..` beyond the root. RFC 3986 would stay at the root, but a backend that reads the path in its own way might
    /// not, and clients resolve dots before they send.
    #[error("the path leads above the root")]
    AboveRoot,
    /// `..` where readers differ about what it takes away: behind an empty segment, beside an escaped slash, or before a
    /// semicolon, which ends a segment for some. We would find one route, and the backend might serve what belongs to
    /// another.
    #[error("the path has a .. that can be read in two ways")]
    Ambiguous,
    /// A dot segment in a path that was put together.
    #[error("the path has a . or .. that nobody wrote")]
    Dots,
}

/// The one spelling of a path; borrowed if it has that already. `*`, which OPTIONS may ask for, stays as it is.
///
/// ```
/// use portcullis::path::normalise;
/// assert_eq!(normalise("/a//%7Eb/%2e/x/../c%2f")?, "/a/~b/c%2F");
/// # Ok::<(), portcullis::path::PathError>(())
/// ```
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw == "*" || is_plain(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    let segments = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?.split('/');
    // Empty, or begins with a slash and does not end with one.
    let mut path = String::with_capacity(raw.len());
    let (mut ends_in_name, mut behind_empty) = (false, false);
    for segment in segments {
        let start = path.len();
        path.push('/');
        push_segment(segment, &mut path)?;
        let name = path.get(start + 1..).unwrap_or_default();
        if (name == ".." && behind_empty) || climbs_for_some(name) {
            return Err(PathError::Ambiguous);
        }
        behind_empty = segment.is_empty();
        ends_in_name = !matches!(name, "" | "." | "..");
        if name == ".." {
            path.truncate(start);
            path.truncate(path.rfind('/').ok_or(PathError::AboveRoot)?);
        } else if !ends_in_name {
            path.truncate(start);
        }
    }
    if !ends_in_name {
        path.push('/');
    }
    Ok(Cow::Owned(path))
}

/// The one spelling of a path that was put together from parts: a dot segment in it is nobody's wish, so it is not resolved.
pub fn settle(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let settled = normalise(raw)?;
    // Names are neither joined nor made; only dots take some of them away.
    let names = |path: &str| path.split('/').filter(|name| !name.is_empty()).count();
    if names(raw) == names(&settled) { Ok(settled) } else { Err(PathError::Dots) }
}

/// Whether a segment would leave its place if its escaped slashes were taken for borders, or what stands behind a semicolon
/// for nothing, as servlets take it.
fn climbs_for_some(name: &str) -> bool {
    let climbs = |part: &str| part == ".." || part.starts_with("..;") || part.starts_with(".;");
    name.contains(['%', ';']) && name.split("%2F").flat_map(|part| part.split("%5C")).any(climbs)
}

/// The byte that two hexadecimal digits behind a `%` stand for.
pub(crate) fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Whether there is nothing to do: the usual case, without an allocation. It may say no too often, never yes.
fn is_plain(raw: &str) -> bool {
    let mut last = 0;
    let plain = |&byte: &u8| {
        let doubtful = last == b'/' && matches!(byte, b'/' | b'.');
        last = byte;
        !doubtful && byte != b'%' && (byte == b'/' || is_kept(byte))
    };
    raw.starts_with('/') && raw.as_bytes().iter().all(plain)
}

fn push_segment(segment: &str, path: &mut String) -> Result<(), PathError> {
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            match first {
                0..=b' ' | 0x7F | b'?' | b'#' => return Err(PathError::BadByte),
                byte if is_kept(byte) => path.push(char::from(byte)),
                byte => push_escaped(byte, path),
            }
            continue;
        }
        match escaped_byte(after).ok_or(PathError::BadEscape)? {
            0 => return Err(PathError::BadByte),
            byte if is_unreserved(byte) => path.push(char::from(byte)),
            byte => push_escaped(byte, path),
        }
        rest = after.get(2..).unwrap_or_default();
    }
    Ok(())
}

fn push_escaped(byte: u8, path: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    path.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a segment as it is: `pchar` of RFC 3986 section 3.3, without escapes.
fn is_kept(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, normal: &str) {
        assert_eq!(normalise(raw).as_deref(), Ok(normal), "{raw}");
    }

    #[test]
    fn a_plain_path_is_borrowed() {
        for plain in ["/", "/a", "/a/b.c/", "/a/b;v=1/@x:y", "*"] {
            assert!(matches!(normalise(plain), Ok(Cow::Borrowed(same)) if same == plain), "{plain}");
        }
    }

    #[test]
    fn dot_segments_are_removed_however_they_are_written() {
        check("/a/b/../c", "/a/c");
        check("/a/./b/.", "/a/b/");
        check("/a/b/..", "/a/");
        check("/a/%2e%2E/b", "/b");
        check("/a/.%2e/b", "/b");
        check("/a/..", "/");
        check("/.hidden/...", "/.hidden/...");
    }

    #[test]
    fn several_slashes_are_one() {
        check("//", "/");
        check("//a///b//", "/a/b/");
    }

    #[test]
    fn an_escaped_slash_stays_inside_its_segment() {
        check("/a%2fb", "/a%2Fb");
        check("/a/b..%2fc", "/a/b..%2Fc");
    }

    #[test]
    fn an_escape_is_taken_off_once() {
        check("/%252e%252e/a", "/%252e%252e/a");
        check("/%7euser/%41", "/~user/A");
        check("/caf\u{e9}", "/caf%C3%A9");
        check("/caf%c3%a9", "/caf%C3%A9");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (raw, error) in [
            ("", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("**", PathError::NotAbsolute),
            ("/%00", PathError::BadByte),
            ("/a b", PathError::BadByte),
            ("/a?b", PathError::BadByte),
            ("/a\u{7f}", PathError::BadByte),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/..", PathError::AboveRoot),
            ("/a/../%2e./b", PathError::AboveRoot),
            ("/a//../b", PathError::Ambiguous),
            ("/a/..%2fb", PathError::Ambiguous),
            ("/a/%2e%2e%2fb", PathError::Ambiguous),
            ("/a/b%2f..", PathError::Ambiguous),
            ("/a/..%5cb", PathError::Ambiguous),
            ("/a\\..\\b", PathError::Ambiguous),
            ("/a/..;/b", PathError::Ambiguous),
            ("/a/%2e%2e;v=1/b", PathError::Ambiguous),
            ("/a/b%2f..;/c", PathError::Ambiguous),
            ("/a/.;/b", PathError::Ambiguous),
        ] {
            assert_eq!(normalise(raw), Err(error), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(
            raw in "/([/.a%]|%2[eEfF5]|%[0-9a-fA-F]{2}|\u{e9}|\\\\){0,24}",
        ) {
            if let Ok(once) = normalise(&raw) {
                prop_assert_eq!(normalise(&once), Ok(Cow::Borrowed(&*once)));
                prop_assert!(once.starts_with('/'));
                for never in ["//", "/./", "/../", "\\"] {
                    prop_assert!(!once.contains(never), "{}", once);
                }
                prop_assert!(!once.ends_with("/.") && !once.ends_with("/.."), "{}", once);
            }
        }

        #[test]
        fn anything_at_all_is_answered(raw in ".*") {
            let _ = normalise(&raw);
        }
    }
}
