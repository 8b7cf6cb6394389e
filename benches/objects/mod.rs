//! What measurements of the cache store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use pingora::http::ResponseHeader;
use portcullis::cache::key::Key;
use portcullis::cache::store::{Facts, Store};

/// Stores so many bytes, whatever they are: nobody here asks how fresh they are.
pub(crate) fn put(store: &'static Store, key: Key, len: usize) {
    let head = ResponseHeader::build(StatusCode::OK, None).unwrap();
    let mut filling = store.begin(key, &head, facts(), Some(len as u64)).unwrap();
    assert!(filling.write(&vec![0; len]) && filling.finish());
}

fn facts() -> Facts {
    Facts {
        born: SystemTime::UNIX_EPOCH,
        asked_at: SystemTime::UNIX_EPOCH,
        fresh_until: SystemTime::UNIX_EPOCH,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        only_when_cut_off: false,
        may_be_stale: true,
        variance: None,
        vary: Arc::new([]),
        tags: Arc::new([]),
    }
}
