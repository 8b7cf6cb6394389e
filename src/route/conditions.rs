//! Does a route want a request for other reasons than host and path? Listener, method, fields and query.
//!
//! A field or parameter must have just the wanted value each time it occurs: if it occurs twice with different values,
//! we and the backend could each believe another one.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::RequestView;
use crate::config::Match;

/// What a match asks for besides host and path.
#[derive(Debug)]
pub(super) struct Conditions {
    listener: Option<Arc<str>>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Vec<(String, String)>,
}

impl Conditions {
    pub(super) fn new(matches: &Match) -> Self {
        Self {
            listener: matches.listener.clone(),
            methods: matches.methods.clone(),
            headers: matches.headers.clone(),
            query: matches.query.clone(),
        }
    }

    /// How many there are: any number of methods is one, because they are alternatives.
    pub(super) fn count(&self) -> usize {
        let alternatives = usize::from(self.listener.is_some()) + usize::from(!self.methods.is_empty());
        alternatives + self.headers.len() + self.query.len()
    }

    pub(super) fn hold(&self, head: &RequestView<'_>) -> bool {
        self.listener.as_deref().is_none_or(|listener| head.listener == Some(listener))
            && self.method_holds(head.method)
            && self.headers.iter().all(|(name, value)| all_are(value, head.headers.get_all(name)))
            && self.query.iter().all(|(name, value)| all_are(value.as_str(), parameters(head.query, name)))
    }

    fn method_holds(&self, method: &Method) -> bool {
        // RFC 9110 section 9.3.2: HEAD is GET without the content.
        let implied = *method == Method::HEAD && self.methods.contains(&Method::GET);
        self.methods.is_empty() || self.methods.contains(method) || implied
    }
}

/// Whether there is at least one value, and no other than the wanted one.
fn all_are<W: ?Sized, V: PartialEq<W>>(wanted: &W, values: impl IntoIterator<Item = V>) -> bool {
    let mut values = values.into_iter().peekable();
    values.peek().is_some() && values.all(|value| value == *wanted)
}

/// The values of the parameters of one name.
fn parameters<'a>(query: Option<&'a str>, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let pairs = query.unwrap_or_default().split('&');
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// Takes off the encoding of a form: `+` is a space, and what is badly encoded stays as it is.
fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| crate::path::escaped_byte(after)).flatten();
        bytes.push(match (first, escaped) {
            (_, Some(byte)) => byte,
            (b'+', None) => b' ',
            (other, None) => other,
        });
        rest = after.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn check(matches: &Match, method: &Method, headers: &[(&'static str, &str)], query: Option<&str>) -> bool {
        let fields = headers.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        fields.for_each(|(name, value): (_, HeaderValue)| {
            map.append(name, value);
        });
        let head = RequestView { listener: Some("edge"), host: "", path: "/", method, headers: &map, query };
        Conditions::new(matches).hold(&head)
    }

    #[test]
    fn get_implies_head_but_not_the_other_way_round() {
        let get = Match { methods: vec![Method::GET], ..Match::default() };
        assert!(check(&get, &Method::HEAD, &[], None));
        assert!(!check(&get, &Method::POST, &[], None));
        let head = Match { methods: vec![Method::HEAD], ..Match::default() };
        assert!(!check(&head, &Method::GET, &[], None));
    }

    #[test]
    fn a_field_must_be_there_with_just_this_value() {
        let beta = (HeaderName::from_static("x-beta"), HeaderValue::from_static("1"));
        let matches = Match { headers: vec![beta], ..Match::default() };
        assert!(check(&matches, &Method::GET, &[("x-beta", "1")], None));
        assert!(!check(&matches, &Method::GET, &[], None));
        assert!(!check(&matches, &Method::GET, &[("x-beta", "10")], None));
        assert!(!check(&matches, &Method::GET, &[("x-beta", "1"), ("x-beta", "2")], None));
    }

    #[test]
    fn a_parameter_is_compared_decoded() {
        let matches = Match { query: vec![("q".into(), "a b&c".into())], ..Match::default() };
        assert!(check(&matches, &Method::GET, &[], Some("x=1&q=a+b%26c")));
        assert!(check(&matches, &Method::GET, &[], Some("%71=a%20b%26c")));
        assert!(!check(&matches, &Method::GET, &[], Some("q=a+b&c")));
        assert!(!check(&matches, &Method::GET, &[], Some("q=a+b%26c&q=other")));
        assert!(!check(&matches, &Method::GET, &[], None));
    }

    #[test]
    fn a_bad_escape_stays_as_it_is() {
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
        assert_eq!(decoded("%2B+"), "+ ");
    }

    #[test]
    fn a_listener_is_known_by_name() {
        let edge = Match { listener: Some("edge".into()), ..Match::default() };
        let inner = Match { listener: Some("inner".into()), ..Match::default() };
        assert!(check(&edge, &Method::GET, &[], None));
        assert!(!check(&inner, &Method::GET, &[], None));
    }
}
