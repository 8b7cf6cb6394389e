//! What does a purge mean? What an operator writes, read and brought into the form in which addresses are stored.
//!
//! Pure: the time comes in as an argument.

use std::time::SystemTime;

use serde_json::Value as Json;

use super::store::Depth;

/// Bytes of an address or a tag; no request has a longer one.
const LENGTH_MAX: usize = 8 * 1024;

/// What the one who asks may say.
const FORMS: &str = "say what to purge with one of url=, prefix=, host=, tag= or all=true; and soft=true to revalidate";

/// One purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What is meant.
    pub what: What,
    /// Whether it is stale from now on, and not gone.
    pub soft: bool,
    /// When it was asked for. An answer that a backend was asked for before is meant too.
    pub at: SystemTime,
}

/// What a purge means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// All there is.
    Everything,
    /// What is stored for one of these addresses, which are in the form of [`crate::cache::Key`]. There are two where no
    /// scheme was named.
    Url(Vec<String>),
    /// What is stored for addresses that begin so.
    Prefix(Vec<String>),
    /// What is stored for a host, at whatever port; in lower case.
    Host(String),
    /// What has a tag.
    Tag(String),
}

/// Why a purge is refused, in a line for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPurge {
    /// Neither what nor how is clear.
    #[error("{FORMS}")]
    NothingNamed,
    /// More than one thing is named.
    #[error("{0}= beside another: one purge means one thing; send one for each")]
    Twice(String),
    /// A word that means nothing.
    #[error("unknown {0:?}; {FORMS}. In a query `&` is written %26: easier is curl --data-urlencode 'url=...'")]
    Unknown(String),
    /// A word that is neither true nor false.
    #[error("{0}={1:?} is neither true nor false")]
    NotBool(&'static str, String),
    /// `all=false`.
    #[error("all=false purges nothing; {FORMS}")]
    NotAll,
    /// There is nothing behind the word.
    #[error("{0}= is empty; everything is purged by all=true")]
    Empty(&'static str),
    /// It is too long.
    #[error("{0}= has more than {LENGTH_MAX} bytes")]
    TooLong(&'static str),
    /// No host is named.
    #[error("{1:?} names no host; write {0}=https://HOST/PATH or {0}=HOST/PATH")]
    NoHost(&'static str, String),
    /// A scheme that nothing is stored under.
    #[error("{0:?} is neither http:// nor https://")]
    Scheme(String),
    /// Where only a host belongs there is more.
    #[error("host={0:?} is more than a host; for part of a site there is prefix=")]
    NotAHost(String),
    /// A tag has a space or a comma.
    #[error("tag={0:?} has a space or a comma, which part tags; send one purge for each")]
    NotATag(String),
    /// The body is no JSON object of words.
    #[error("the body is not a JSON object like {{\"url\": \"https://example.com/a\", \"soft\": true}}")]
    NotJson,
    /// Percent signs that mean nothing.
    #[error("{0:?} has a percent sign that is not followed by two hexadecimal digits, or is not UTF-8")]
    NotEncoded(String),
}

impl Purge {
    /// Reads a purge from the query of a request and its body, which is JSON or has the form of a query.
    pub fn read(query: &str, body: &[u8], at: SystemTime) -> Result<Self, BadPurge> {
        let mut pairs = pairs(query)?;
        let body = body.trim_ascii();
        if body.starts_with(b"{") {
            pairs.extend(json_pairs(body)?);
        } else {
            pairs.extend(self::pairs(std::str::from_utf8(body).map_err(|_| BadPurge::NotJson)?)?);
        }
        Self::of(pairs, at)
    }

    fn of(pairs: Vec<(String, String)>, at: SystemTime) -> Result<Self, BadPurge> {
        let (mut what, mut soft) = (None, false);
        for (name, value) in pairs {
            let new = match &*name {
                "soft" => {
                    soft = boolean("soft", &value)?;
                    continue;
                }
                "all" if boolean("all", &value)? => What::Everything,
                "all" => return Err(BadPurge::NotAll),
                "url" => What::Url(addresses("url", &value)?),
                "prefix" => What::Prefix(addresses("prefix", &value)?),
                "host" => host(&value)?,
                "tag" => What::Tag(tag(&value)?),
                _ => return Err(BadPurge::Unknown(name)),
            };
            if what.replace(new).is_some() {
                return Err(BadPurge::Twice(name));
            }
        }
        what.map(|what| Self { what, soft, at }).ok_or(BadPurge::NothingNamed)
    }

    /// What becomes of what is meant.
    pub fn depth(&self) -> Depth {
        if self.soft { Depth::Soft(self.at) } else { Depth::Hard }
    }

    /// Whether an object is meant that is stored for an address, with these tags.
    pub fn matches(&self, url: &[u8], tags: &[Box<str>]) -> bool {
        match &self.what {
            What::Everything => true,
            What::Url(urls) => urls.iter().any(|one| one.as_bytes() == url),
            What::Prefix(prefixes) => prefixes.iter().any(|prefix| url.starts_with(prefix.as_bytes())),
            What::Host(host) => host_of(url) == host.as_bytes(),
            What::Tag(tag) => tags.iter().any(|one| **one == **tag),
        }
    }
}

/// The host of a stored address, without its port.
fn host_of(url: &[u8]) -> &[u8] {
    let rest = url.splitn(2, |byte| *byte == b'/').nth(1).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or_default();
    let authority = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
    let name = authority.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = authority[name..].iter().position(|byte| *byte == b':');
    colon.map_or(authority, |at| &authority[..name + at])
}

/// The words of a query. A `+` is one: addresses have them, and those who encode write a space as `%20`.
fn pairs(query: &str) -> Result<Vec<(String, String)>, BadPurge> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decoded = |text: &str| decoded(text).ok_or_else(|| BadPurge::NotEncoded(text.to_owned()));
        Ok((decoded(name)?, decoded(value)?))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?];
                u8::try_from(digits[0] * 16 + digits[1]).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn json_pairs(body: &[u8]) -> Result<Vec<(String, String)>, BadPurge> {
    let Ok(Json::Object(fields)) = serde_json::from_slice(body) else { return Err(BadPurge::NotJson) };
    let pair = |(name, value)| match value {
        Json::String(text) => Ok((name, text)),
        Json::Bool(is) => Ok((name, is.to_string())),
        Json::Null | Json::Number(_) | Json::Array(_) | Json::Object(_) => Err(BadPurge::NotJson),
    };
    fields.into_iter().map(pair).collect()
}

fn boolean(name: &'static str, value: &str) -> Result<bool, BadPurge> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(BadPurge::NotBool(name, value.to_owned())),
    }
}

fn checked<'a>(name: &'static str, value: &'a str) -> Result<&'a str, BadPurge> {
    match value.trim() {
        "" => Err(BadPurge::Empty(name)),
        long if long.len() > LENGTH_MAX => Err(BadPurge::TooLong(name)),
        value => Ok(value),
    }
}

fn tag(value: &str) -> Result<String, BadPurge> {
    let value = checked("tag", value)?;
    let parted = value.contains([' ', ',']);
    if parted { Err(BadPurge::NotATag(value.to_owned())) } else { Ok(value.to_owned()) }
}

/// A host at all its ports, or what is stored for one port of it.
fn host(value: &str) -> Result<What, BadPurge> {
    let value = checked("host", value)?;
    if value.contains(['/', '?', '#', '@']) {
        return Err(BadPurge::NotAHost(value.to_owned()));
    }
    match split_port(value) {
        (_, Some(_)) => addresses("host", value).map(What::Prefix),
        (name, None) => Ok(What::Host(name.to_ascii_lowercase())),
    }
}

/// A host and its port, if it has one. A colon within brackets is of an address.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        Some(_) | None => (authority, None),
    }
}

/// The addresses that are meant by one: with its scheme, or both.
fn addresses(name: &'static str, value: &str) -> Result<Vec<String>, BadPurge> {
    let value = checked(name, value)?;
    let (schemes, rest) = match value.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (&["https"][..], rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (&["http"][..], rest),
        Some((scheme, _)) if !scheme.contains(['/', '?', '.']) => return Err(BadPurge::Scheme(value.to_owned())),
        Some(_) | None => (&["https", "http"][..], value),
    };
    // What stands after the # never leaves a browser.
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = split_port(authority);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if host.is_empty() || host.contains(['@', ' ']) || !port.is_none_or(is_port) {
        return Err(BadPurge::NoHost(name, value.to_owned()));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let (host, path) = (host.to_ascii_lowercase(), sendable(path));
    let one = |scheme: &&str| {
        let usual = if *scheme == "https" { "443" } else { "80" };
        let port = port.filter(|port| *port != usual).map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{slash}{path}")
    };
    Ok(schemes.iter().map(one).collect())
}

/// A path as clients send it: what is no character of an address with percent signs.
fn sendable(path: &str) -> String {
    let mut sent = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' => sent.push(char::from(byte)),
            other => sent.push_str(&format!("%{other:02X}")),
        }
    }
    sent
}

#[cfg(test)]
mod tests;
