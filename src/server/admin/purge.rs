//! What shall be forgotten? `POST /cache/purge`, and `GET /cache` for how the cache is, answered in JSON.
//!
//! What a purge means is read in `cache::purge`. Who may ask is decided as for [`super::members`].

use std::time::SystemTime;

use serde_json::json;

use super::members::Reply;
use crate::cache::{Cache, Purge};

const PURGE: &[u8] = b"/cache/purge";
const STATUS: &[u8] = b"/cache";

/// Whether a path is one of these.
pub(super) fn is_meant(path: &[u8]) -> bool {
    path == STATUS || path.starts_with(b"/cache/")
}

/// The methods of such a path.
pub(super) fn allowed(path: &[u8]) -> &'static str {
    if path == PURGE { "POST" } else { "GET" }
}

/// Does what is asked for.
pub(super) async fn answer(cache: &'static Cache, method: &[u8], target: &[u8], body: &[u8]) -> Reply {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match (path, method) {
        (PURGE, b"POST") => purge(cache, query, body).await,
        (PURGE, _) => Reply::error("405 Method Not Allowed", "a purge is a POST: curl -X POST ..."),
        (STATUS, b"GET") => status(cache),
        (STATUS, _) => Reply::error("405 Method Not Allowed", "only GET; to purge, POST to /cache/purge"),
        _ => Reply::error("404 Not Found", "there are /cache and /cache/purge"),
    }
}

async fn purge(cache: &'static Cache, query: &[u8], body: &[u8]) -> Reply {
    let Ok(query) = std::str::from_utf8(query) else {
        return Reply::error("400 Bad Request", "the query is not UTF-8");
    };
    match Purge::read(query, body, SystemTime::now()) {
        Ok(purge) => {
            let purged = cache.purge(&purge).await;
            log::info!(target: "portcullis::admin", "purged {purged} objects: {:?}", purge.what);
            Reply::of("200 OK", &json!({ "purged": purged }))
        }
        Err(error) => Reply::error("400 Bad Request", error.to_string()),
    }
}

fn status(cache: &'static Cache) -> Reply {
    let (store, (hits, misses)) = (cache.store(), cache.counts.get());
    let ratio = (hits + misses > 0).then(|| (hits as f64 / (hits + misses) as f64 * 1e4).round() / 1e4);
    Reply::of(
        "200 OK",
        &json!({
            "bytes": store.bytes(),
            "size": store.size(),
            "objects": store.len(),
            "hits": hits,
            "misses": misses,
            "hit_ratio": ratio,
        }),
    )
}
