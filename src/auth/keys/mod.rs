//! Does this key open the door? Stores of API keys, and what a request shows of one.
//!
//! A store is found again after a reload by its path, with what it has read; what reads it ends with the last route
//! that asks it.

mod live;
mod shown;
mod sqlite;
mod table;
mod text;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::header::{AUTHORIZATION, REFERER};
use http::{HeaderValue, Uri};
use jiff::Timestamp;
use pingora::http::RequestHeader;

use self::live::Live;
use self::shown::{X_API_KEY, bearer, shown, without};
use self::table::{Door, Table};
use super::{Asked, Identity};
use crate::answer::Refusal;
use crate::config::{Key, KeySource, OnStoreError};
use crate::files::{Followed, Library, Unusable};

pub use self::sqlite::{Database, Listed, StoreError};
pub use self::text::NewKey;

/// The databases of keys that are in use.
#[derive(Debug, Default)]
pub struct Stores(Mutex<Vec<Weak<Live>>>);

/// What a route asks for a key.
#[derive(Debug)]
pub(super) struct Keys {
    store: Store,
    /// The query parameter that may hold one.
    parameter: Option<Box<str>>,
}

#[derive(Debug)]
enum Store {
    File(Arc<Followed<Table>>),
    Live { store: Arc<Live>, on_error: OnStoreError, stale_for: Option<Duration> },
}

/// What is told of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// The database.
    pub path: PathBuf,
    /// Whether it could be read when it was looked at last.
    pub is_usable: bool,
    /// The keys that are in use.
    pub keys: usize,
}

impl Stores {
    /// What is to be told of each.
    pub fn reports(&self) -> Vec<StoreReport> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.iter().filter_map(Weak::upgrade).map(|store| store.report()).collect()
    }

    fn open(&self, path: &Path) -> Arc<Live> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store| store.strong_count() > 0);
        let known = stores.iter().filter_map(Weak::upgrade).find(|store| store.reads(path));
        known.unwrap_or_else(|| {
            let store = Arc::new(Live::open(path));
            stores.push(Arc::downgrade(&store));
            store
        })
    }
}

impl Keys {
    pub(super) fn new(
        source: &KeySource,
        parameter: Option<&str>,
        (files, stores): (&Library, &Stores),
    ) -> Result<Self, Unusable> {
        let store = match source {
            KeySource::File(path) => Store::File(files.open(path, Table::of_file)?),
            KeySource::Sqlite { path, on_error, stale_for } => {
                Store::Live { store: stores.open(path), on_error: *on_error, stale_for: *stale_for }
            }
        };
        Ok(Self { store, parameter: parameter.map(Into::into) })
    }

    /// Whose key it is; `None` where a store that was never read lets everybody in.
    pub(super) fn identify(&self, asked: &Asked<'_>) -> Result<Option<Identity>, Refusal> {
        let live;
        let file;
        let table: &Table = match &self.store {
            Store::File(followed) => {
                file = followed.now();
                &file
            }
            Store::Live { store, on_error, stale_for } => match (store.now(), on_error) {
                // A key that was taken back meanwhile shall not open for ever.
                (Some(_), OnStoreError::Deny) if stale_for.is_some_and(|time| store.is_older_than(time)) => {
                    return Err(Refusal::AuthUnavailable);
                }
                (Some(table), _) => {
                    live = table;
                    &live
                }
                (None, OnStoreError::Allow) => return Ok(None),
                (None, OnStoreError::Deny) => return Err(Refusal::AuthUnavailable),
            },
        };
        let key = shown(asked.headers, asked.query, self.parameter.as_deref())?;
        let door = Door { route: asked.route, method: asked.method, address: asked.address, now: Timestamp::now };
        let key = table.open(&key, door)?;
        let Key { name, plan, id, .. } = key;
        Ok(Some(Identity { name: Some(name.clone()), plan: plan.clone(), key: id.clone(), claims: None }))
    }

    /// Takes the key from where it was shown.
    pub(super) fn hide(&self, keep: bool, head: &mut RequestHeader) {
        hide(self.parameter.as_deref(), keep, head);
    }
}

/// An `Authorization` of another kind is the backend's own.
fn hide(parameter: Option<&str>, keep: bool, head: &mut RequestHeader) {
    if !keep {
        head.remove_header(&X_API_KEY);
        if head.headers.get_all(AUTHORIZATION).iter().any(|value| bearer(value.as_bytes()).is_some()) {
            head.remove_header(&AUTHORIZATION);
        }
    }
    // Whatever `keep` says: what is in a URL ends up in logs.
    if let Some(parameter) = parameter {
        if let Some(uri) = without_parameter(&head.uri, parameter) {
            head.set_uri(uri);
        }
        hide_in_referer(head, parameter);
    }
}

/// The target without this parameter, if it is there; a query that is empty then goes too.
fn without_parameter(uri: &Uri, parameter: &str) -> Option<Uri> {
    let target = target_without(uri.path(), uri.query()?, parameter)?;
    let mut parts = uri.clone().into_parts();
    // It fits, being a part of what was there.
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A target without the keys that these parameters of its query hold.
pub fn without_keys<'a>(target: &'a str, parameters: &[Arc<str>]) -> Cow<'a, str> {
    let mut left = Cow::Borrowed(target);
    for parameter in parameters {
        let shorter = left.split_once('?').and_then(|(before, query)| target_without(before, query, parameter));
        if let Some(shorter) = shorter {
            left = Cow::Owned(shorter);
        }
    }
    left
}

fn target_without(before: &str, query: &str, parameter: &str) -> Option<String> {
    let left = without(query, parameter)?;
    Some(if left.is_empty() { before.to_owned() } else { format!("{before}?{left}") })
}

/// The page that a browser comes from may have been asked for with a key too.
fn hide_in_referer(head: &mut RequestHeader, parameter: &str) {
    let mut referers = head.headers.get_all(REFERER).iter();
    let (Some(referer), second) = (referers.next(), referers.next()) else { return };
    let (Ok(text), None) = (referer.to_str(), second) else {
        head.remove_header(&REFERER);
        return;
    };
    // RFC 9110, section 10.1.3: it has no fragment.
    let shorter = text.split_once('?').and_then(|(before, query)| target_without(before, query, parameter));
    if let Some(shorter) = shorter.and_then(|text| HeaderValue::from_str(&text).ok()) {
        // Fails only when there are more fields than a head can hold.
        let _ = head.insert_header(REFERER, shorter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_out_of_every_form_of_a_target() {
        for (uri, left) in [
            ("/a?api_key=1", Some("/a")),
            ("/a?x=1&api_key=1&y=%20", Some("/a?x=1&y=%20")),
            ("https://example.com:8443/a?api_key=1&x", Some("https://example.com:8443/a?x")),
            ("https://example.com?api_key=1", Some("https://example.com/")),
            ("/a?x", None),
            ("/api_key=1", None),
            ("*", None),
        ] {
            let found = without_parameter(&uri.parse().unwrap(), "api_key").map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), left, "{uri}");
        }
    }

    #[test]
    fn a_key_is_taken_from_the_head_wherever_it_stands() {
        for keep in [false, true] {
            let mut head = RequestHeader::build("GET", b"/a?api_key=1&b=2", None).unwrap();
            let page = "https://example.com/page?api_key=1&c=3";
            for (name, value) in [("x-api-key", "1"), ("authorization", "Bearer 1"), ("referer", page)] {
                head.append_header(name, value).unwrap();
            }
            hide(Some("api_key"), keep, &mut head);
            assert_eq!(head.uri, "/a?b=2");
            assert_eq!(head.headers["referer"], "https://example.com/page?c=3");
            assert_eq!(head.headers.contains_key("x-api-key"), keep);
            assert_eq!(head.headers.contains_key("authorization"), keep);
        }
    }

    #[test]
    fn a_second_referer_hides_no_key() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for page in ["https://example.com/", "https://example.com/page?api_key=1"] {
            head.append_header("referer", page).unwrap();
        }
        hide(Some("api_key"), false, &mut head);
        assert!(!head.headers.contains_key("referer"));
    }

    #[test]
    fn what_is_no_key_stays_where_it_is() {
        let mut head = RequestHeader::build("GET", b"/a?b=2", None).unwrap();
        for (name, value) in [("authorization", "Basic eDp5"), ("referer", "https://example.com/?api_keys=1")] {
            head.append_header(name, value).unwrap();
        }
        let before = head.clone();
        hide(Some("api_key"), false, &mut head);
        assert_eq!((&head.uri, &head.headers), (&before.uri, &before.headers));
    }
}
