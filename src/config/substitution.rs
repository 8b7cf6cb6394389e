//! Which path becomes which? A pattern, and what is made of the parts that it captures.
//!
//! The pattern must match the whole path, in time that grows with the path alone. Whatever the parts hold, the result is a
//! path in its one spelling that leads nowhere but down: a dot segment that comes about by putting parts together is
//! refused, not resolved.

use regex::bytes::{Captures, Regex, RegexBuilder};

use crate::path;

/// What a pattern may be long.
const PATTERN_MAX: usize = 1024;

/// What a compiled pattern may take, in bytes; `\d{1,100}` nested thrice would take gigabytes.
const COMPILED_MAX: usize = 1 << 20;

/// No longer path is ever sent: the type for URIs holds no more.
const PATH_MAX: usize = 60 << 10;

/// A pattern and what takes the place of a path that it matches.
#[derive(Clone, Debug)]
pub struct Substitution {
    pattern: Regex,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.pieces == other.pieces
    }
}

/// Why a pattern is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is too long.
    #[error("it has more than {PATTERN_MAX} bytes")]
    TooLong,
    /// It would take too much memory.
    #[error("it would take more than 1 MiB: say less often how often something is repeated")]
    TooLarge,
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// Why nothing can be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Nobody knows what the `$` means.
    #[error("there is a `$` without a number or a name in braces behind it")]
    LonelyDollar,
    /// The pattern has no such group.
    #[error("the pattern has no group `{0}`")]
    NoSuchGroup(String),
    /// It is no path, whatever the groups hold.
    #[error("it makes no path")]
    NoPath,
}

/// Why a path cannot be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// What comes out is no path, or leads elsewhere.
    #[error("the rewritten path is none")]
    NoPath,
    /// It is too long.
    #[error("the rewritten path is too long")]
    TooLong,
}

/// Reads a pattern.
pub(crate) fn pattern(text: &str) -> Result<Regex, BadPattern> {
    if text.len() > PATTERN_MAX {
        return Err(BadPattern::TooLong);
    }
    // By itself first: what cannot be read alone might be read with something around it, and mean another thing.
    compiled(text)?;
    compiled(&format!("^(?:{text})$"))
}

fn compiled(text: &str) -> Result<Regex, BadPattern> {
    // Paths are ASCII: every other byte in them is escaped.
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX);
    builder.build().map_err(|error| {
        if let regex::Error::CompiledTooBig(_) = error {
            return BadPattern::TooLarge;
        }
        let words = error.to_string();
        let last = words.lines().last().unwrap_or_default();
        BadPattern::Unreadable(last.trim_start_matches("error: ").to_owned())
    })
}

impl Substitution {
    /// Reads both; `None` if they make no sense.
    pub fn read(text: &str, to: &str) -> Option<Self> {
        Self::new(pattern(text).ok()?, to).ok()
    }

    /// Puts what `to` says in the place of a path that the pattern matches.
    pub(crate) fn new(pattern: Regex, to: &str) -> Result<Self, BadTemplate> {
        let pieces = pieces(to, &pattern)?;
        let made = Self { pattern, pieces };
        // With something harmless for each group.
        made.join(|_| "x").map_err(|_| BadTemplate::NoPath)?;
        Ok(made)
    }

    /// What becomes of a path in its one spelling; `None` if the pattern does not match it.
    pub fn apply(&self, path: &str) -> Option<Result<String, Unfit>> {
        // What OPTIONS may ask for (RFC 9110, section 9.3.7) is no path.
        let captures = self.pattern.captures(path.as_bytes()).filter(|_| path != "*")?;
        Some(self.join(|group| captured(&captures, group)))
    }

    fn join<'a>(&self, group: impl Fn(usize) -> &'a str) -> Result<String, Unfit> {
        // Where there is a slash already, two become one.
        let mut joined = String::from("/");
        for piece in &self.pieces {
            joined.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Group(number) => group(*number),
            });
            if joined.len() > PATH_MAX {
                return Err(Unfit::TooLong);
            }
        }
        path::settle(&joined).map(|path| path.into_owned()).map_err(|_| Unfit::NoPath)
    }
}

/// What a group holds; nothing where it took no part.
fn captured<'a>(captures: &Captures<'a>, group: usize) -> &'a str {
    captures.get(group).and_then(|part| std::str::from_utf8(part.as_bytes()).ok()).unwrap_or_default()
}

fn pieces(to: &str, pattern: &Regex) -> Result<Vec<Piece>, BadTemplate> {
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), to);
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = reference(after).ok_or(BadTemplate::LonelyDollar)?;
        pieces.push(Piece::Text(std::mem::take(&mut text)));
        pieces.push(Piece::Group(group(name, pattern).ok_or_else(|| BadTemplate::NoSuchGroup(name.to_owned()))?));
        rest = after;
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

/// The name or number behind a `$`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(inside) = text.strip_prefix('{') {
        return inside.split_once('}');
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(number, _)| !number.is_empty())
}

fn group(name: &str, pattern: &Regex) -> Option<usize> {
    let numbered = name.parse().ok().filter(|number| *number < pattern.captures_len());
    numbered.or_else(|| pattern.capture_names().position(|known| known == Some(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(text: &str, to: &str) -> Substitution {
        Substitution::new(pattern(text).unwrap(), to).unwrap()
    }

    fn check(text: &str, to: &str, path: &str, expected: Option<Result<&str, Unfit>>) {
        let result = made(text, to).apply(path);
        assert_eq!(result.as_ref().map(|it| it.as_deref().map_err(|unfit| *unfit)), expected, "{text} {to} {path}");
    }

    #[test]
    fn the_whole_path_is_matched_and_parts_of_it_are_used() {
        check("/users/([0-9]+)(/.*)?", "/u/$1$2", "/users/17/posts", Some(Ok("/u/17/posts")));
        check("/users/([0-9]+)(/.*)?", "/u/$1$2", "/users/17", Some(Ok("/u/17")));
        check("/users/([0-9]+)", "/u/$1", "/users/17/posts", None);
        check("/a|/a/b", "/c", "/a/b", Some(Ok("/c")));
        check("/(?<year>\\d{4})/(?<rest>.*)", "/${rest}/${year}", "/2026/x/y", Some(Ok("/x/y/2026")));
        check("(/.*)\\.html", "$1", "/a/b.html", Some(Ok("/a/b")));
        check("/([^/]*)/?", "$1", "/a", Some(Ok("/a")));
        check("/(.)(.)", "/$2${1}0$0", "/ab", Some(Ok("/ba0/ab")));
        check("/a", "/$$1", "/a", Some(Ok("/$1")));
        check("/a(/.*)", "/b/$1", "/a/", Some(Ok("/b/")));
        check("/%2F(.*)", "/$1", "/%2Fx%2Fy", Some(Ok("/x%2Fy")));
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        check("/(.*)", "/x/.$1", "/", Some(Err(Unfit::NoPath)));
        check("/a(.*)", "/x/.$1", "/a./y", Some(Err(Unfit::NoPath)));
        check("/a(.*)", "/x/.$1", "/a.y", Some(Ok("/x/..y")));
        check("/%(..)(.*)", "/x/$1", "/%2F", Some(Ok("/x/2F")));
        check("/(.*%)2F(.*)", "/$1$2", "/%2F2e", Some(Err(Unfit::NoPath)));
        let long = format!("/{}", "a".repeat(PATH_MAX / 2));
        check("/(.*)", "/$1/$1", &long, Some(Err(Unfit::TooLong)));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let bad = |to: &str| Substitution::new(pattern("/(?<a>.)").unwrap(), to).unwrap_err();
        assert_eq!(bad("/$2"), BadTemplate::NoSuchGroup("2".into()));
        assert_eq!(bad("/${b}"), BadTemplate::NoSuchGroup("b".into()));
        assert_eq!(bad("/$99999999999999999999"), BadTemplate::NoSuchGroup("99999999999999999999".into()));
        for to in ["/$", "/$a", "/${a", "/$-"] {
            assert_eq!(bad(to), BadTemplate::LonelyDollar, "{to}");
        }
        for to in ["/a b", "/a?b", "/../a", "/%2", "/%2$1", "/./$1", "/a#"] {
            assert_eq!(bad(to), BadTemplate::NoPath, "{to}");
        }
        assert_eq!(pattern("(a{1000}){1000}").unwrap_err(), BadPattern::TooLarge);
        assert_eq!(pattern(&"a".repeat(PATTERN_MAX + 1)).unwrap_err(), BadPattern::TooLong);
        for text in ["(", "a)(b", "[", "(?x) a # )", "\\p{Greek}", "(a)\\1"] {
            assert!(matches!(pattern(text), Err(BadPattern::Unreadable(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_captured_the_result_is_a_settled_path(
            path in "(/[a-z.;%2eF~-]{0,6}){1,4}", text in "/\\(\\.\\*\\)|\\(\\.\\*\\)\\(\\..*\\)|/(\\(\\[\\^/\\]\\*\\)/?){1,2}",
            to in "(/?[a-z.]{0,2}\\$1){1,3}",
        ) {
            let (Ok(normal), Ok(pattern)) = (path::normalise(&path), pattern(&text)) else { return Ok(()) };
            let Ok(made) = Substitution::new(pattern, &to) else { return Ok(()) };
            if let Some(Ok(result)) = made.apply(&normal) {
                prop_assert!(result.starts_with('/') && !result.starts_with("//"));
                let again = path::normalise(&result);
                prop_assert_eq!(again.as_deref(), Ok(result.as_str()));
            }
        }
    }
}
