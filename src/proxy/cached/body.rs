//! Is the question the same? The digest of a short request body, for APIs that are asked by POST.
//!
//! Pingora keeps what is read here and shows it to the backend from the beginning.

use http::Version;
use http::header::EXPECT;
use pingora::Result;
use pingora::proxy::Session;
use xxhash_rust::xxh3::Xxh3;

use super::Cached;
use crate::cache::{Cache, Key};
use crate::proxy::exchange::Exchange;

/// Tells a client that waits for it that the body may come: the backend is asked only once it is here.
pub(super) async fn ask_for_it(session: &mut Session) -> Result<()> {
    let head = session.req_header_mut();
    if head.remove_header(&EXPECT).is_some() && head.version >= Version::HTTP_11 {
        session.as_downstream_mut().write_continue_response().await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// Reads a body of at most `limit` bytes; `None` if it is longer, and then its rest is still to be read.
pub(super) async fn digest(session: &mut Session, limit: u64) -> Result<Option<u128>> {
    session.as_downstream_mut().enable_retry_buffering();
    let mut hash = Xxh3::with_seed(Key::seed());
    let mut length = 0;
    while let Some(bytes) = session.as_downstream_mut().read_request_body().await.map_err(|error| error.into_down())? {
        length += bytes.len() as u64;
        if length > limit {
            return Ok(None);
        }
        hash.update(&bytes);
    }
    Ok((!session.as_downstream().retry_buffer_truncated()).then(|| hash.digest128()))
}

impl Exchange {
    /// Remembers the digest until the cache is switched on.
    pub(super) fn keep_digest(&mut self, cache: &'static Cache, digest: Option<u128>) {
        self.cached = digest.map(|digest| Box::new(Cached::new(cache, Some(digest))));
    }
}
