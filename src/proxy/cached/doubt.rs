//! Might a backend read it otherwise than we do? What an attacker writes so that his answer is stored for others.
//!
//! Where backends differ, whatever one of them may take for a part of the key is a part of it, or keeps the answer out
//! of the store. Nobody honest writes so, and whoever does has a key of his own.

use http::header::{CONNECTION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::direct::head::members;

/// Fields with which some backends let a request be taken for another one: its answer is not what its address says.
const DISGUISES: [&str; 9] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-original-host",
    "x-http-host-override",
];

/// Fields that some backends make addresses of, besides those that we set ourselves.
const ADDRESSES: [&str; 13] = [
    "x-forwarded-server",
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-ssl",
    "x-host",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "proxy-host",
    // To CGI it is the proxy by which the program goes out.
    "proxy",
];

/// What a `Connection` names that is no field, or none that tells answers apart.
const USUAL: [&str; 7] = ["close", "keep-alive", "upgrade", "te", "http2-settings", "proxy-connection", "trailer"];

/// The lines of a request that are part of every key, because backends may heed them.
pub(super) fn lines(fields: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    fields.iter().filter(|(name, _)| {
        matches!(name.as_str().as_bytes().first(), Some(b'x' | b'f' | b'p'))
            && DISGUISES.iter().chain(&ADDRESSES).any(|known| is_alike(name, known))
    })
}

/// Whether a request may be another one to the backend than to us, so that its answer is for nobody else. `matter` are
/// the fields that tell its answers apart.
pub(super) fn is_disguised(request: &HeaderMap, matter: &[HeaderName]) -> bool {
    request.keys().any(|name| {
        let looks_like = |other: &HeaderName| name != other && is_alike(name, other.as_str());
        DISGUISES.iter().any(|known| is_alike(name, known)) || matter.iter().any(looks_like)
    }) || takes_a_field_away(request)
}

/// Whether its `Connection` names a field that it has: the backend does not get that one, and we have seen it.
fn takes_a_field_away(request: &HeaderMap) -> bool {
    members(request, &CONNECTION).any(|member| {
        let name = HeaderName::from_bytes(member);
        name.is_ok_and(|name| !USUAL.contains(&name.as_str()) && request.contains_key(name))
    })
}

/// To CGI and its heirs `X_Host` is `X-Host`.
fn is_alike(name: &HeaderName, other: &str) -> bool {
    let (name, other) = (name.as_str().as_bytes(), other.as_bytes());
    let same = |(one, other): (&u8, &u8)| one == other || (*one == b'_' && *other == b'-');
    name.len() == other.len() && name.iter().zip(other).all(same)
}

/// The parts of a query between ampersands that some backend may take for this parameter. Some separate by semicolons
/// too: a part that has one counts whole.
pub(super) fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter(move |part| part.split(';').any(|pair| may_be_called(pair.as_bytes(), name)))
}

/// The cookies that some backend may take for this one, as they stand.
pub(super) fn cookies<'a>(fields: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs =
        fields.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| matches!(byte, b';' | b',')));
    pairs.map(<[u8]>::trim_ascii).filter(move |pair| may_be_called(pair, name))
}

/// Whether what stands before `=` may be this name, by the rules of any backend: percent-decoded or not, in any case,
/// as an array, with the blanks around it cut off, and with other characters in the place of some.
fn may_be_called(pair: &[u8], name: &str) -> bool {
    let written = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    if written == name.as_bytes() {
        return true;
    }
    if written.windows(2).any(|two| two.eq_ignore_ascii_case(b"%u")) {
        return true;
    }
    let decoded = percent_decoded(written).filter(u8::is_ascii_graphic);
    let mut plain = decoded.skip_while(|byte| matches!(byte, b'+' | b'?')).take_while(|byte| *byte != b'[').peekable();
    let mut wanted = name.bytes();
    loop {
        match (plain.next(), wanted.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if folded(one) == folded(other) => {}
            (Some(b'+'), None) => {}
            (_, _) => return false,
        }
    }
}

fn percent_decoded(mut text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    std::iter::from_fn(move || {
        let (&first, rest) = text.split_first()?;
        text = rest;
        let pair = rest.split_first_chunk::<2>().filter(|_| first == b'%');
        let decoded = pair.and_then(|([high, low], after)| Some((digit(*high)? << 4 | digit(*low)?, after)));
        let Some((byte, after)) = decoded else { return Some(first) };
        text = after;
        Some(byte)
    })
}

fn folded(byte: u8) -> u8 {
    if matches!(byte, b'.' | b'+') { b'_' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_parameter_is_found_however_it_is_written() {
        for part in [
            "q=1",
            "q",
            "%71=1",
            "Q=1",
            "q[]=1",
            "q%5b0%5d=1",
            "+q=1",
            "%20q=1",
            "q%00=1",
            "?q=1",
            "x=1;q=2",
            "q+=1",
            "%u0071=1",
        ] {
            assert_eq!(parameters(part, "q").collect::<Vec<_>>(), [part]);
        }
        for part in ["p=q", "qq=1", "", "=q", "x=%26q=1", "pq", "p%71"] {
            assert_eq!(parameters(part, "q").count(), 0, "{part}");
        }
        assert_eq!(parameters("a.b=1&a+b=2&a_b=3&ab=4", "a_b").collect::<Vec<_>>(), ["a.b=1", "a+b=2", "a_b=3"]);
    }

    #[test]
    fn cookies_are_all_that_may_have_the_name() {
        let fields = fields(&[("cookie", "lang=en; x=1;Lang=de"), ("cookie", "lang=fr, l%61ng=it")]);
        let found: Vec<&[u8]> = cookies(&fields, "lang").collect();
        assert_eq!(found, [&b"lang=en"[..], b"Lang=de", b"lang=fr", b"l%61ng=it"]);
    }

    #[test]
    fn a_field_that_connection_takes_away_is_a_disguise() {
        assert!(is_disguised(&fields(&[("connection", "close, X-Lang"), ("x-lang", "de")]), &[]));
        assert!(!is_disguised(&fields(&[("connection", "close, X-Lang"), ("x-other", "de")]), &[]));
        assert!(!is_disguised(&fields(&[("connection", "keep-alive, Upgrade"), ("upgrade", "h2c")]), &[]));
    }

    #[test]
    fn a_name_with_an_underscore_is_the_one_with_a_hyphen_where_that_matters() {
        let lang = [HeaderName::from_static("x-lang")];
        assert!(is_disguised(&fields(&[("x_lang", "de")]), &lang));
        assert!(!is_disguised(&fields(&[("x-lang", "de")]), &lang));
        assert!(!is_disguised(&fields(&[("x_lang", "de")]), &[]));
        assert!(is_disguised(&fields(&[("x_original_url", "/")]), &[]));
        assert_eq!(lines(&fields(&[("x_host", "a"), ("x-forwarded-prefix", "b"), ("x-else", "c")])).count(), 2);
    }
}
