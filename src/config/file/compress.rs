//! What may be written about making answers smaller? The shape of a route's `compress`.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar};
use super::leaves::{Share, SizeOrZero};
use super::section::section;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::{Kind, Node};
use crate::config::{Coding, MediaRange};

section! {
    /// Which answers are made smaller for clients that read it, and how.
    Compress {
        /// The codings that are offered, from zstd, br, gzip and deflate; of those that a client likes best, the first.
        algorithms: Vec<Marked<Coding>> = "[zstd, br, gzip]",
        /// An answer that announces fewer bytes is left as it is. 0: none is.
        min_size: SizeOrZero = "1KiB",
        /// The types of content that are worth it: `text/html`, `text/*`, `*/*+json`, `*/*`.
        types: Vec<Marked<MediaRange>> = "[\
            text/*, application/json, */*+json, application/xml, */*+xml, application/javascript, \
            application/x-javascript, application/wasm, application/x-ndjson, application/jsonl, \
            application/yaml, application/toml, application/sql, application/rtf, \
            application/vnd.ms-fontobject, application/vnd.apple.mpegurl, application/x-mpegurl, font/ttf, \
            font/otf, font/collection, image/bmp, image/x-icon, image/vnd.microsoft.icon]",
        /// How hard each coding tries: more is smaller, and takes longer.
        levels: Levels = "{}",
        /// Whether an answer in a coding that the client cannot read is decoded.
        decode: bool = "true",
        /// Whether the bodies of requests are decoded for the backend.
        decode_requests: bool = "false",
        /// From which share of all our processor time on the levels step down, from 1% to 99%. `none`: they do not.
        max_cpu: Option<Share> = "null",
    }
    later {}
}

section! {
    /// How hard each coding tries.
    Levels {
        /// From 1 to 19.
        zstd: Level<1, 19> = "3",
        /// From 0 to 11.
        br: Level<0, 11> = "4",
        /// From 1 to 9.
        gzip: Level<1, 9> = "5",
        /// From 1 to 9.
        deflate: Level<1, 9> = "5",
    }
    later {}
}

/// How hard a coding tries, which each counts in its own way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level<const LEAST: u8, const MOST: u8>(pub(crate) u8);

impl<const LEAST: u8, const MOST: u8> Level<LEAST, MOST> {
    /// Whether there is none that is faster.
    pub(crate) fn is_least(self) -> bool {
        self.0 == LEAST
    }
}

impl<const LEAST: u8, const MOST: u8> Decode for Level<LEAST, MOST> {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = format!("a whole number from {LEAST} to {MOST}");
        let help = "write it in digits; more is smaller, and takes longer";
        let scalar = scalar(node, at, &wanted, help, problems)?;
        let digits = scalar.kind() == Kind::Number && scalar.text.bytes().all(|byte| byte.is_ascii_digit());
        let level = scalar.text.parse().ok().filter(|level| digits && (LEAST..=MOST).contains(level));
        level.map(Self).or_else(|| refuse(node, at, &wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// What people also call them.
const OTHER_NAMES: [(&str, &str); 4] =
    [("brotli", "br"), ("zstandard", "zstd"), ("x-gzip", "gzip"), ("zlib", "deflate")];

impl Decode for Coding {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "zstd, br, gzip or deflate";
        let text = &scalar(node, at, wanted, "write for example [br, gzip]", problems)?.text;
        Self::ALL.into_iter().find(|coding| coding.name() == text).or_else(|| {
            let meant = OTHER_NAMES.iter().find(|(other, _)| text.eq_ignore_ascii_case(other)).map(|(_, name)| *name);
            let help = suggest(meant.unwrap_or(text), "algorithms", Self::ALL.map(Self::name));
            refuse(node, at, wanted, &help, problems)
        })
    }

    fn schema() -> Json {
        json!({ "enum": Self::ALL.map(Self::name) })
    }
}

impl Decode for MediaRange {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "a type of content";
        let help = "write text/html, text/* or, in quotes, \"*/*+json\"";
        let text = scalar(node, at, wanted, help, problems)?.text.to_ascii_lowercase();
        let range = match text.split_once('/') {
            Some(("*", "*")) => Some(Self::All),
            Some(("*", rest)) => suffix(rest).map(|suffix| Self::Suffix(suffix.to_owned())),
            Some((kind, "*")) if is_name(kind) => Some(Self::Type(format!("{kind}/"))),
            Some((kind, name)) if is_name(kind) && is_name(name) => Some(Self::Exact(text.clone())),
            Some(_) | None => None,
        };
        range.or_else(|| refuse(node, at, wanted, &how_to_write(&text).unwrap_or_else(|| help.to_owned()), problems))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([^/;, ]+/[^/;, ]+|\\$\\{.*)$" })
    }
}

/// `+json` of `*+json`.
fn suffix(name: &str) -> Option<&str> {
    let suffix = name.strip_prefix('*')?;
    suffix.strip_prefix('+').filter(|name| is_name(name)).map(|_| suffix)
}

/// What was meant, where it can be told.
fn how_to_write(text: &str) -> Option<String> {
    if let Some((media, _)) = text.split_once(';') {
        return Some(format!("only the type counts: leave the parameters out and write {}", media.trim_end()));
    }
    let suffix = suffix(text.split_once('/').map_or(text, |(_, name)| name))
        .or_else(|| text.strip_prefix('+').and(Some(text)))?;
    Some(format!("a suffix is one of all types: write \"*/*{suffix}\", with its quotes"))
}

/// The characters of a name in RFC 6838, section 4.2.
fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    !name.is_empty() && name.bytes().all(letter)
}
