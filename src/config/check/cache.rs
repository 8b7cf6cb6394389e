//! Does it make sense what is stored, where, and under which key?
//!
//! A key that is too narrow gives one user's answer to another; what leads there is refused. What only makes the cache
//! useless is a warning.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, header};

use super::{Check, Names};
use crate::config::file::{self, File, Marked};
use crate::config::problem::{Problems, suggest};
use crate::config::{CacheDisk, CacheStore, Caching, Config, KeyParts, QueryParts};

/// Below this, what keeps the responses in order takes more room than they.
const SIZE_MIN: u64 = 1 << 20;

/// The store is in parts that are full one by one; an object must fit into one without emptying it.
const OBJECTS_AT_LEAST: u64 = 4;

/// A tier on disk is written in blocks of some MiB; a few of them are no tier.
const DISK_MIN: u64 = 64 << 20;

/// The whole of it is read, and kept, before the answer is looked up.
const KEY_BODY_MAX: u64 = 64 << 10;

const STORED: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

impl Check<'_> {
    pub(super) fn cache_store(&mut self, store: &file::CacheStore) -> CacheStore {
        let (size, most) = (store.size.0, store.size.0 / OBJECTS_AT_LEAST);
        if size < SIZE_MIN {
            let what = "in less than 1MiB, what keeps the responses in order takes more room than they";
            let help = "write at least 1MiB; nothing is stored where no route has `cache`";
            self.problems.error(&store.size.at, what, help);
        } else if store.max_object.written && store.max_object.0 > most && !self.problems.speak_of(&store.size.at.key) {
            let what =
                "an object may take a quarter of `cache.size` at most: a few that are larger would empty the store";
            self.problems.error(&store.max_object.at, what, "write less here, or more there");
        }
        if store.max_object.0 == 0 {
            let help = "write for example 8MiB; nothing is stored where no route has `cache`";
            self.problems.error(&store.max_object.at, "no object is as small as that", help);
        }
        let (max_object, eviction) = (store.max_object.0.min(most), *store.eviction);
        CacheStore { size, max_object, eviction, disk: self.cache_disk(store) }
    }

    fn cache_disk(&mut self, store: &file::CacheStore) -> Option<CacheDisk> {
        let disk = store.disk.as_ref()?;
        if disk.size.0 < DISK_MIN {
            let help = "write at least 64MiB, or leave `disk` out";
            self.problems.error(&disk.size.at, "a tier of less than 64MiB holds next to nothing", help);
        }
        Some(CacheDisk { path: self.files.kept_in(&disk.path, self.problems), size: disk.size.0 })
    }

    pub(super) fn caching(&mut self, route: &Marked<file::Route>) -> Option<Arc<Caching>> {
        let caching = route.cache.as_ref()?;
        if route.upstream.is_none() && !self.spoken(route, "upstream") {
            self.problems.error(&route.cache.at, "nothing is fetched that could be stored", "leave `cache` out");
        }
        let methods = self.cached_methods(caching);
        self.cached_bodies(caching, &methods);
        self.what_comes_to_nothing(route, caching, &methods);
        let none = "give it more than 0; `none` leaves it to what the origin says";
        self.some_time(&caching.ttl, "what is fresh for no time need not be stored", none);
        self.some_time(&caching.stale_while_revalidate, "nothing is done in no time", none);
        self.some_time(&caching.stale_if_error, "nothing is done in no time", none);
        self.some_time(&caching.lock, "nobody waits for no time", "give it more than 0; with `none` nobody waits");
        let mut tags = Names::default();
        caching.tags.iter().for_each(|tag| tags.claim(tag.as_str(), &tag.at, "the field", self.problems));
        Some(Arc::new(Caching {
            ttl: *caching.ttl,
            methods,
            key: self.cache_key(&caching.key),
            heuristic: *caching.heuristic,
            stale_while_revalidate: *caching.stale_while_revalidate,
            stale_if_error: *caching.stale_if_error,
            lock: *caching.lock,
            bypass: caching.bypass.iter().map(|part| part.value.clone()).collect(),
            store_set_cookie: *caching.store_set_cookie,
            tags: caching.tags.iter().map(|tag| tag.value.clone()).collect(),
        }))
    }

    fn some_time(&mut self, time: &Marked<Option<Duration>>, what: &str, help: &str) {
        if time.is_some_and(|time| time.is_zero()) {
            self.problems.error(&time.at, what, help);
        }
    }

    fn cached_methods(&mut self, caching: &file::Caching) -> Vec<Method> {
        let mut methods = Vec::new();
        for method in caching.methods.iter() {
            if !STORED.contains(method) {
                let what = format!("what {} gets is not stored", method.value);
                let help = suggest(method.as_str(), "methods", STORED.iter().map(Method::as_str));
                self.problems.error(&method.at, what, help);
            } else if !methods.contains(&method.value) {
                methods.push(method.value.clone());
            }
        }
        let head = caching.methods.iter().find(|method| method.value == Method::HEAD);
        if let (Some(head), false) = (head, methods.contains(&Method::GET)) {
            let what = "HEAD is answered by what GET has stored, which is not in this list";
            self.problems.error(&head.at, what, "add GET, or leave HEAD out");
        }
        if methods.is_empty() && !self.problems.speak_of(&caching.methods.at.key) {
            let help = "leave `cache` out of the route, or `methods` to its default";
            self.problems.error(&caching.methods.at, "nothing would be stored", help);
        }
        methods
    }

    /// POST says with its body what it asks for, and no other method does.
    fn cached_bodies(&mut self, caching: &file::Caching, methods: &[Method]) {
        let body = &caching.key.body;
        if body.0 > KEY_BODY_MAX {
            let what = "the whole body is read before the answer is looked up, so 64KiB are the most";
            self.problems.error(&body.at, what, "write at most 64KiB; what is larger is sent on and not stored");
        }
        let post = caching.methods.iter().find(|method| method.value == Method::POST);
        if let (Some(post), 0, false) = (post, body.0, self.problems.speak_of(&body.at.key)) {
            let help = "add `key: { body: 64KiB }` where POST only asks and changes nothing, else leave POST out";
            self.problems.error(&post.at, "without the body in the key, all POSTs to one URL would be one", help);
        }
        if body.0 > 0 && !methods.contains(&Method::POST) && !self.problems.speak_of(&caching.methods.at.key) {
            let help = "add POST to `methods` if it only asks and changes nothing, else leave `body` out";
            self.problems.error(&body.at, "only POST has a body that could be part of the key", help);
        }
    }

    fn cache_key(&mut self, key: &file::CacheKey) -> KeyParts {
        let mut names = [Names::default(), Names::default(), Names::default()];
        let [headers, cookies, parameters] = &mut names;
        for name in key.headers.iter() {
            headers.claim(name.as_str(), &name.at, "the field", self.problems);
            self.field_of_one_user(name);
        }
        for cookie in key.cookies.iter() {
            cookies.claim(&cookie.0, &cookie.at, "the cookie", self.problems);
        }
        let query = match &key.query.value {
            file::Query::All => QueryParts::All,
            file::Query::Only(names) if !names.is_empty() => {
                names.iter().for_each(|name| parameters.claim(name, &name.at, "the parameter", self.problems));
                QueryParts::Only(names.iter().map(|name| name.value.clone()).collect())
            }
            file::Query::None | file::Query::Only(_) => QueryParts::None,
        };
        KeyParts {
            query,
            headers: key.headers.iter().map(|name| name.value.clone()).collect(),
            cookies: key.cookies.iter().map(|cookie| cookie.0.clone()).collect(),
            body: key.body.0,
        }
    }

    fn field_of_one_user(&mut self, name: &Marked<HeaderName>) {
        let help = match name.value {
            header::COOKIE => "name the cookies that answers depend on in `key.cookies`",
            header::AUTHORIZATION => {
                "leave it out: an answer to it is stored only if the origin says that all may have it"
            }
            _ => return,
        };
        let what = format!("hardly two users send the same `{}`, so none would have what another fetched", name.value);
        self.problems.warning(&name.at, what, help);
    }

    fn what_comes_to_nothing(&mut self, route: &file::Route, caching: &file::Caching, methods: &[Method]) {
        let hedge = route.retry.as_ref().map(|retry| &retry.hedge).filter(|hedge| hedge.is_some());
        if let Some(hedge) = hedge {
            let what = "a fetch that fills the cache is not hedged, and most of this route's are";
            self.problems.warning(&hedge.at, what, "leave `hedge` or `cache` out of this route");
        }
        // GET implies HEAD, and HEAD is stored with GET only.
        let taken = |method: &Method| route.r#match.methods.iter().any(|taken| taken.value == *method);
        if !route.r#match.methods.is_empty() && !methods.is_empty() && !methods.iter().any(taken) {
            let what = "nothing would be stored: the route's `match.methods` has none of these";
            self.problems.warning(&caching.methods.at, what, "leave `cache` out, or make the two lists meet");
        }
    }
}

/// The store is there, and nothing comes into it: to nginx's operators, where it is and who uses it are one line each.
pub(super) fn unused_store(file: &File, config: &Config, problems: &mut Problems) {
    let used = config.routes.iter().any(|route| route.cache.is_some());
    if !used && config.cache != CacheStore::default() {
        let help = "add `cache: {}` to the routes whose answers may be stored";
        problems.warning(&file.cache.at, "no route stores anything", help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Eviction, Part, Surroundings, parse};

    fn config(store: &str, route: &str) -> Config {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [127.0.0.1:8000] }} }}\n\
             routes: [{{ upstream: app, cache: {route} }}]\ncache: {store}\n"
        );
        let around = Surroundings { keeps_files: Box::new(|_| Ok(())), ..Surroundings::of_process("/etc/app".into()) };
        parse(&text, "f", &around).unwrap_or_else(|problems| panic!("{text}{problems:#?}")).config
    }

    fn caching(route: &str) -> Caching {
        Caching::clone(config("{}", route).routes[0].cache.as_ref().unwrap())
    }

    #[test]
    fn nothing_is_stored_unless_a_route_says_so() {
        assert_eq!(config("{}", "none").routes[0].cache, None);
    }

    #[test]
    fn a_route_that_says_nothing_else_goes_by_what_the_origin_says() {
        let key = KeyParts { query: QueryParts::All, headers: Vec::new(), cookies: Vec::new(), body: 0 };
        let expected = Caching {
            ttl: None,
            methods: vec![Method::GET, Method::HEAD],
            key,
            heuristic: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            lock: Some(Duration::from_secs(5)),
            bypass: Vec::new(),
            store_set_cookie: false,
            tags: vec![HeaderName::from_static("surrogate-key"), HeaderName::from_static("cache-tag")],
        };
        assert_eq!(caching("{}"), expected);
    }

    #[test]
    fn a_method_that_is_named_twice_counts_once() {
        assert_eq!(caching("{ methods: [GET, HEAD, GET] }").methods, [Method::GET, Method::HEAD]);
    }

    #[test]
    fn parts_of_the_key_are_what_is_written() {
        let route = "{ methods: [POST], key: { query: [b, a], headers: [X-Country], cookies: [Lang], body: 4KiB } }";
        let expected = KeyParts {
            query: QueryParts::Only(vec!["b".into(), "a".into()]),
            headers: vec![HeaderName::from_static("x-country")],
            cookies: vec!["Lang".into()],
            body: 4096,
        };
        assert_eq!(caching(route).key, expected);
        for none in ["none", "null", "[]"] {
            assert_eq!(caching(&format!("{{ key: {{ query: {none} }} }}")).key.query, QueryParts::None, "{none}");
        }
    }

    #[test]
    fn what_passes_the_cache_by_is_a_field_a_cookie_or_a_parameter() {
        let expected = [
            Part::Header(HeaderName::from_static("x-preview")),
            Part::Cookie("Sid".into()),
            Part::Query("no cache".into()),
        ];
        assert_eq!(
            caching("{ lock: none, bypass: [header:X-Preview, cookie:Sid, \"query:no cache\"] }").bypass,
            expected
        );
    }

    #[test]
    fn the_largest_object_of_a_small_store_is_a_quarter_of_it() {
        assert_eq!(config("{}", "{}").cache, CacheStore::default());
        assert_eq!(config("{ size: 16MiB }", "{}").cache.max_object, 4 << 20);
        assert_eq!(config("{ size: 16MiB, max_object: 4MiB }", "{}").cache.max_object, 4 << 20);
    }

    #[test]
    fn what_goes_first_is_what_was_used_longest_ago_unless_another_order_is_written() {
        assert_eq!(config("{}", "{}").cache.eviction, Eviction::Lru);
        assert_eq!(config("{ eviction: s3_fifo }", "{}").cache.eviction, Eviction::S3Fifo);
    }

    #[test]
    fn the_folder_of_the_second_tier_starts_at_the_file() {
        let disk = config("{ disk: { path: tier } }", "{}").cache.disk.unwrap();
        assert_eq!(disk, CacheDisk { path: "/etc/app/tier".into(), size: 10 << 30 });
    }
}
