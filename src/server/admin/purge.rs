//! What shall be forgotten? Purges of the cache, and how the cache is, answered in JSON.
//!
//! What a purge means is read in `cache::purge`.

use std::fmt::Display;
use std::time::SystemTime;

use serde_json::json;

use super::operator::Reply;
use crate::cache::{Cache, Purge};

/// Forgets what is meant.
pub(super) async fn purge(cache: &'static Cache, query: &str, body: &[u8], who: &impl Display) -> Reply {
    match Purge::read(query, body, SystemTime::now()) {
        Ok(purge) => {
            let purged = cache.purge(&purge).await;
            log::info!(target: "portcullis::admin", "{who}: purged {purged} objects: {:?}", purge.what);
            Reply::of("200 OK", &json!({ "purged": purged }))
        }
        Err(error) => {
            let help = "say one of ?url=, ?prefix=, ?host=, ?tag= and ?all=true, with %-signs for what is no letter";
            Reply::problem("400 Bad Request", error.to_string(), help)
        }
    }
}

/// How the cache is.
pub(super) fn status(cache: &'static Cache) -> Reply {
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
