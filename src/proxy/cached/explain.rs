//! What would the cache do with a request? For whoever explains it: the same key and the same rules, and no store.

use http::StatusCode;
use http::header::{CACHE_CONTROL, DATE};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::answer::httpdate;
use crate::cache::Cache;
use crate::cache::key::url_of;
use crate::proxy::exchange::Exchange;
use crate::proxy::explain::CacheSays;

/// What an origin says that wants its answer to be stored.
const STORE_ME: &str = "max-age=60";

impl Exchange {
    /// The key, and whether an answer would be stored; `None` where the route has no cache.
    pub(in crate::proxy) fn explain_cache(
        &mut self,
        session: &mut Session,
        cache: &'static Cache,
    ) -> Option<CacheSays> {
        let caching = self.caching()?.clone();
        self.begin_caching(session, cache);
        let bypass = self.cached.as_ref().and_then(|cached| cached.miss).map(super::outcome::Miss::label);
        let key = self.key(session.req_header(), None)?;
        let mut answer = ResponseHeader::build(StatusCode::OK, Some(2)).ok()?;
        answer.insert_header(DATE, httpdate(std::time::SystemTime::now())).ok()?;
        let silent = self.lifetime(session, &answer).ok().map(|lifetime| lifetime.fresh_for.as_secs());
        answer.insert_header(CACHE_CONTROL, STORE_ME).ok()?;
        let not_stored = self.lifetime(session, &answer).err().map(|(miss, _)| miss.label());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut parts: Vec<_> = caching.key.headers.iter().map(|name| format!("header:{name}")).collect();
        parts.extend(caching.key.cookies.iter().map(|name| format!("cookie:{name}")));
        Some(CacheSays {
            url: Some(text(url_of(key.encoded()))),
            parts,
            bypass,
            not_stored: not_stored.filter(|_| bypass.is_none()),
            fresh_for_s: silent.filter(|_| bypass.is_none()),
        })
    }
}
