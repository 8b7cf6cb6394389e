//! Which key does a request show? In `X-API-Key`, in `Authorization: Bearer`, or in a query parameter.
//!
//! What is shown twice, or in two places that say different things, is refused: whoever reads on behind us might take the
//! other one.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::answer::{Credentials, Refusal};

/// Where most clients put a key.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const MISSING: Refusal = Refusal::Unauthenticated(Credentials::Missing);
const MALFORMED: Refusal = Refusal::Unauthenticated(Credentials::Malformed);

/// The one key that a request shows. `parameter` is the name of the query parameter that may hold it.
pub(super) fn shown<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    parameter: Option<&str>,
) -> Result<Cow<'a, [u8]>, Refusal> {
    let in_field = only(headers, &X_API_KEY)?.map(Cow::Borrowed);
    let in_bearer = only(headers, &AUTHORIZATION)?.and_then(bearer).map(Cow::Borrowed);
    let in_query = match (query, parameter) {
        (Some(query), Some(parameter)) => in_query(query, parameter)?,
        (Some(_) | None, Some(_) | None) => None,
    };
    let mut found = [in_field, in_bearer, in_query].into_iter().flatten();
    let first = found.next().ok_or(MISSING)?;
    if first.is_empty() || found.any(|other| other != first) {
        return Err(MALFORMED);
    }
    Ok(first)
}

/// The value of a field, which must not be there twice.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(MALFORMED),
        (value, None) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
    }
}

/// What follows `Bearer` (RFC 6750, section 2.1); another scheme is not for us.
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_whole = rest.first().is_none_or(|byte| *byte == b' ');
    (scheme.eq_ignore_ascii_case(b"bearer") && is_whole).then(|| rest.trim_ascii())
}

fn in_query<'a>(query: &'a str, parameter: &str) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    let mut values = query.split('&').filter_map(|pair| value_of(pair, parameter));
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(MALFORMED),
        (Some(value), None) => decode(value).ok_or(MALFORMED).map(Some),
        (None, None) => Ok(None),
    }
}

/// The query without this parameter, if it is there; what else there is stays as it is, byte for byte.
pub(super) fn without(query: &str, parameter: &str) -> Option<String> {
    let others = || query.split('&').filter(|pair| value_of(pair, parameter).is_none());
    (others().count() < query.split('&').count()).then(|| others().collect::<Vec<_>>().join("&"))
}

/// The value of a pair, as it is written, if the pair has this name.
fn value_of<'a>(pair: &'a str, parameter: &str) -> Option<&'a str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let is_it = name == parameter || decode(name).is_some_and(|name| *name == *parameter.as_bytes());
    is_it.then_some(value)
}

/// Without percent-encoding (RFC 3986, section 2.1). A `+` stays one: a key that has one shall not need another spelling.
fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        decoded.push(if byte == b'%' { digit()? << 4 | digit()? } else { byte });
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], query: &str, expected: Result<&str, Credentials>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let found = shown(&headers, Some(query), Some("api_key"));
        let found = found.as_deref().map(|key| std::str::from_utf8(key).unwrap());
        assert_eq!(found, expected.map_err(Refusal::Unauthenticated).as_ref().map(|key| *key), "{fields:?} {query}");
    }

    #[test]
    fn a_key_is_found_wherever_it_may_be() {
        check(&[("x-api-key", "abc")], "", Ok("abc"));
        check(&[("authorization", "Bearer abc")], "", Ok("abc"));
        check(&[("authorization", "bEARER   abc")], "", Ok("abc"));
        check(&[], "a=1&api_key=abc&b=2", Ok("abc"));
        check(&[], "%61pi%5Fkey=a%62c", Ok("abc"));
        check(&[], "api_key=a+c", Ok("a+c"));
        check(&[("x-api-key", "abc"), ("authorization", "Bearer abc")], "api_key=abc", Ok("abc"));
        check(&[("x-api-key", "abc"), ("authorization", "Basic eDp5")], "", Ok("abc"));
    }

    #[test]
    fn several_keys_are_as_bad_as_a_broken_one() {
        for (fields, query) in [
            (&[("x-api-key", "a"), ("authorization", "Bearer b")][..], ""),
            (&[("x-api-key", "a")], "api_key=b"),
            (&[("x-api-key", "a"), ("x-api-key", "a")], ""),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer a")], ""),
            (&[], "api_key=a&api_key=a"),
            (&[], "api_key=a&%61pi_key=a"),
            (&[], "api_key=%4"),
            (&[], "api_key=%zz"),
            (&[], "api_key="),
            (&[], "api_key"),
            (&[("x-api-key", "")], ""),
            (&[("authorization", "Bearer")], ""),
            (&[("x-api-key", "a")], "api_key="),
        ] {
            check(fields, query, Err(Credentials::Malformed));
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        check(&[], "", Err(Credentials::Missing));
        check(&[("authorization", "Basic eDp5")], "API_KEY=a&xapi_key=b&api_key2=c", Err(Credentials::Missing));
        check(&[("authorization", "Bearerabc")], "", Err(Credentials::Missing));
        assert_eq!(shown(&HeaderMap::new(), Some("api_key=a"), None), Err(MISSING));
    }

    #[test]
    fn the_rest_of_a_query_stays_as_it_is() {
        for (query, left) in [
            ("api_key=a", Some("")),
            ("x=%20+&api_key=a&&y", Some("x=%20+&&y")),
            ("%61pi_key=a&api_key=b&z=1", Some("z=1")),
            ("x=api_key", None),
            ("", None),
        ] {
            assert_eq!(without(query, "api_key").as_deref(), left, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(query: String, parameter: String, value: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                headers.append(X_API_KEY, value.clone());
                headers.append(AUTHORIZATION, value);
            }
            let _ = shown(&headers, Some(&query), Some(&parameter));
            let _ = bearer(&value);
        }

        #[test]
        fn what_is_taken_from_a_query_is_not_found_in_it_again(query in "[a-c%&=61]{0,40}") {
            if let Some(left) = without(&query, "a") {
                prop_assert_eq!(without(&left, "a"), None);
                prop_assert_eq!(in_query(&left, "a"), Ok(None));
            }
        }
    }
}
