//! Which other requests does a stored response answer (RFC 9111, section 4.1)?

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION, REFERER, USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::Xxh3;

use super::list::{Quotes, members, split};

/// More than any site needs; each is looked up and hashed on every hit.
const MOST_NAMES: usize = 16;

/// Fields that each request reaches the backend with as we write them: who asked us, by which way, under which number.
/// What depends on them depends on more than the client has sent. The rest of what is forwarded says what the key says.
const WRITTEN_HERE: &[&str] = &["forwarded", "via", "x-forwarded-for", "x-request-id"];

/// Fields in which a comma separates nothing, so that the white space around it may mean something.
const NO_LISTS: &[HeaderName] = &[AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION, REFERER, USER_AGENT];

/// What of the request has chosen the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Nothing but what the key has.
    Nothing,
    /// These fields, each once and in order.
    Fields(Vec<HeaderName>),
    /// What no cache can know: `*`, a name that is none, a field that is not the client's, or more names than we look at.
    Star,
}

impl Vary {
    /// What a response says.
    pub fn of(fields: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for name in members(fields, &VARY, Quotes::Plain) {
            match HeaderName::from_bytes(name) {
                Ok(name) if name.as_str() != "*" && !WRITTEN_HERE.contains(&name.as_str()) => names.push(name),
                Ok(_) | Err(_) => return Self::Star,
            }
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        match names.len() {
            0 => Self::Nothing,
            1..=MOST_NAMES => Self::Fields(names),
            _ => Self::Star,
        }
    }
}

/// A number for what a request says in these fields: another one for other values, the same for values that mean the same.
///
/// The seed is a secret of the store. Without it, whoever may choose values could look for two with the same number, and
/// have others served what was meant for his own.
pub fn variance(names: &[HeaderName], request: &HeaderMap, seed: u64) -> u128 {
    let mut hash = Hash(Xxh3::with_seed(seed));
    for name in names {
        hash.put(name.as_str().as_bytes());
        if !request.contains_key(name) {
            hash.absent();
        } else if *name == ACCEPT_ENCODING {
            hash.encodings(request);
        } else if *name == ACCEPT_LANGUAGE {
            hash.lowercase(request);
        } else if NO_LISTS.contains(name) {
            hash.list(request.get_all(name).into_iter().map(http::HeaderValue::as_bytes));
        } else {
            hash.list(members(request, name, Quotes::Escaped));
        }
    }
    hash.0.digest128()
}

/// Every text goes in with its length before it, and every list with its end, so that no two lists look the same.
struct Hash(Xxh3);

impl Hash {
    fn put(&mut self, text: &[u8]) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn list<'a>(&mut self, members: impl Iterator<Item = &'a [u8]>) {
        members.for_each(|member| self.put(member));
        self.0.update(&u64::MAX.to_le_bytes());
    }

    /// A field that is not there is not one without members.
    fn absent(&mut self) {
        self.0.update(&(u64::MAX - 1).to_le_bytes());
    }

    /// Their order means nothing, nor does a weight of one (RFC 9110, sections 12.4.2 and 12.5.3).
    fn encodings(&mut self, request: &HeaderMap) {
        let mut all: Vec<Vec<u8>> = members(request, &ACCEPT_ENCODING, Quotes::Escaped).map(encoding).collect();
        all.sort_unstable();
        all.dedup();
        self.list(all.iter().map(Vec::as_slice));
    }

    /// Their order is not touched: many servers take the first of equals (RFC 9110, section 12.5.4).
    fn lowercase(&mut self, request: &HeaderMap) {
        let all: Vec<_> = members(request, &ACCEPT_LANGUAGE, Quotes::Escaped).map(encoding).collect();
        self.list(all.iter().map(Vec::as_slice));
    }
}

/// In small letters, without white space, and without a weight that says nothing.
fn encoding(member: &[u8]) -> Vec<u8> {
    let parts = split(member, b";", Quotes::Escaped).map(|part| {
        let lower = part.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase);
        lower.collect::<Vec<_>>()
    });
    let is_full = |part: &[u8]| matches!(part, b"q=1" | b"q=1." | b"q=1.0" | b"q=1.00" | b"q=1.000");
    parts.filter(|part| !is_full(part)).collect::<Vec<_>>().join(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::samples::head;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> Vary {
        let fields: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::of(&head(&fields))
    }

    #[test]
    fn a_star_anywhere_is_a_star_as_rfc_9111_section_4_1_says() {
        for lines in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"], &["Foo", "Bar,*"]]
        {
            assert_eq!(of(lines), Vary::Star, "{lines:?}");
        }
    }

    #[test]
    fn names_are_one_sorted_list_over_all_lines() {
        let names = |names: &[&str]| Vary::Fields(names.iter().map(|name| name.parse().unwrap()).collect());
        assert_eq!(of(&["Foo, ,bar", "BAR,baz"]), names(&["bar", "baz", "foo"]));
        assert_eq!(of(&[]), Vary::Nothing);
        assert_eq!(of(&["", " , "]), Vary::Nothing);
    }

    #[test]
    fn what_cannot_be_told_apart_is_a_star() {
        assert_eq!(of(&["foo bar"]), Vary::Star);
        assert_eq!(of(&["\"foo\""]), Vary::Star);
        let many: Vec<_> = (0..=MOST_NAMES).map(|n| format!("a{n}")).collect();
        assert_eq!(of(&[&many.join(",")]), Vary::Star);
        assert_ne!(of(&[&many[1..].join(",")]), Vary::Star);
    }

    fn number(name: &'static str, lines: &[&str]) -> u128 {
        let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
        variance(&[HeaderName::from_static(name)], &head(&fields), 7)
    }

    #[track_caller]
    fn check(name: &'static str, one: &[&str], other: &[&str], same: bool) {
        assert_eq!(number(name, one) == number(name, other), same, "{name}: {one:?} {other:?}");
    }

    #[test]
    fn lines_and_white_space_of_a_list_do_not_matter_as_rfc_9111_section_4_1_says() {
        check("foo", &["1, 2"], &["1", "2"], true);
        check("foo", &["1,2"], &["1 ,\t2 "], true);
        check("foo", &["1, 2"], &["2, 1"], false);
        check("foo", &["1, 2"], &["12"], false);
        check("foo", &["a b"], &["ab"], false);
        check("foo", &["A"], &["a"], false);
        check("foo", &["\"a, b\""], &["\"a,b\""], false);
    }

    #[test]
    fn an_absent_field_is_not_an_empty_one() {
        check("foo", &[], &[""], false);
        check("foo", &[], &[], true);
        check("foo", &[], &["1"], false);
    }

    #[test]
    fn what_is_no_list_is_compared_as_it_stands() {
        check("cookie", &["a=1, b"], &["a=1,b"], false);
        check("user-agent", &["x (a, b)"], &["x (a,b)"], false);
        check("cookie", &["a=1"], &["a=1"], true);
    }

    #[test]
    fn encodings_have_no_order_as_rfc_9110_section_12_5_3_says() {
        check("accept-encoding", &["gzip, br"], &["BR;q=1.0 , gzip"], true);
        check("accept-encoding", &["gzip, gzip"], &["gzip"], true);
        check("accept-encoding", &["gzip"], &["gzip;q=0"], false);
        check("accept-encoding", &["gzip; q=0.5"], &["gzip;q=0.5"], true);
        check("accept-encoding", &["gzip"], &["br"], false);
        check("accept-encoding", &[""], &[], false);
    }

    #[test]
    fn languages_keep_their_order_and_lose_their_case() {
        check("accept-language", &["en, de"], &[" eN ,   De"], true);
        check("accept-language", &["en, de"], &["de, en"], false);
        check("accept-language", &["en;q=1, de"], &["en,de"], true);
        check("accept-language", &["en, de;q=0.1"], &["en, de"], false);
    }

    #[test]
    fn values_of_two_fields_do_not_run_into_each_other() {
        let names = [HeaderName::from_static("a"), HeaderName::from_static("b")];
        let number = |fields: &[(&str, &str)]| variance(&names, &head(fields), 7);
        assert_ne!(number(&[("a", "1"), ("b", "2")]), number(&[("a", "1, b, 2")]));
        assert_ne!(number(&[("a", "1")]), number(&[("b", "1")]));
        assert_ne!(number(&[("a", "1"), ("b", "")]), number(&[("a", ""), ("b", "1")]));
        assert_eq!(number(&[("b", "2"), ("a", "1"), ("c", "3")]), number(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn what_we_write_ourselves_tells_no_requests_apart() {
        for name in WRITTEN_HERE {
            let spelled = format!("accept, {}", name.to_uppercase());
            assert_eq!(Vary::of(&head(&[("vary", &spelled)])), Vary::Star, "{name}");
        }
        assert_ne!(Vary::of(&head(&[("vary", "x-forwarded-proto")])), Vary::Star, "it is in the key");
    }

    #[test]
    fn another_seed_gives_another_number() {
        let fields = head(&[("foo", "1")]);
        let names = [HeaderName::from_static("foo")];
        assert_ne!(variance(&names, &fields, 1), variance(&names, &fields, 2));
    }

    proptest! {
        #[test]
        fn only_the_same_members_have_the_same_number(one in "[ab, ]{0,6}", other in "[ab, ]{0,6}") {
            let members = |text: &str| text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            let same = members(&one) == members(&other);
            prop_assert_eq!(number("foo", &[&one]) == number("foo", &[&other]), same);
        }

        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(any::<u8>(), 0..40)) {
            for name in [VARY, ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE] {
                let mut fields = HeaderMap::new();
                if let Ok(value) = http::HeaderValue::from_bytes(&line) {
                    fields.append(name.clone(), value);
                }
                Vary::of(&fields);
                variance(&[name], &fields, 0);
            }
        }
    }
}
