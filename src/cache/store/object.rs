//! What is kept of a response? Its head, what is known of its freshness, and its body.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;

use super::body::Body;
use super::budget::Charge;

/// What a field costs beside its bytes: its place in the map, its name and its value there.
const PER_FIELD: u64 = 128;

/// What an object costs beside its fields, its key and its body: itself, its place in the store and in the order in which
/// objects leave, and marks of those that have left; each with what tables have to spare and what the allocator adds. It
/// is measured: the resident memory of 60,000 objects without a body, under either order.
const PER_OBJECT: u64 = 1600;

/// What is known of a stored response besides its head and its body.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When its age was zero (RFC 9111, section 4.2.3).
    pub born: SystemTime,
    /// When the backend was asked for it: a purge since then means it too.
    pub asked_at: SystemTime,
    /// Until when it is fresh.
    pub fresh_until: SystemTime,
    /// How long it may be served after that while it is fetched anew (RFC 5861, section 3).
    pub stale_while_revalidate: Duration,
    /// How long it may be served after that when no backend answers well (RFC 5861, section 4).
    pub stale_if_error: Duration,
    /// Whether that is only when there is no answer at all.
    pub only_when_cut_off: bool,
    /// Whether a client may ask for it though it is stale.
    pub may_be_stale: bool,
    /// Which of the answers to its key it is; `None` when there is only one.
    pub variance: Option<u128>,
    /// The request fields that tell them apart, in order.
    pub vary: Arc<[HeaderName]>,
    /// What it can be purged by.
    pub tags: Arc<[Box<str>]>,
}

impl Facts {
    /// Makes it stale from this moment, if it is not so before.
    pub(super) fn expire(&mut self, since: SystemTime) {
        self.fresh_until = self.fresh_until.min(since);
    }
}

/// `content-length` and the longest number.
const LENGTH_FIELD: u64 = 14 + 20;

/// A stored response.
#[derive(Debug)]
pub struct Object {
    /// Its head, without what belongs to one connection or one client.
    pub head: ResponseHeader,
    /// What else is known of it.
    pub facts: Facts,
    /// When the backend gave it, or said that it still holds.
    pub answered_at: SystemTime,
    pub(super) body: Arc<Body>,
    /// Given back when nobody holds the object any more.
    pub(super) charge: Charge,
}

impl Object {
    /// Bytes that it costs without its body, under a key of so many bytes.
    pub(super) fn cost(head: &ResponseHeader, facts: &Facts, key: usize) -> u64 {
        let field = |(name, value): (&HeaderName, &HeaderValue)| PER_FIELD + (name.as_str().len() + value.len()) as u64;
        let fields: u64 = head.headers.iter().map(field).sum();
        let tags: u64 = facts.tags.iter().map(|tag| 24 + tag.len() as u64).sum();
        PER_OBJECT + fields + tags + 32 * facts.vary.len() as u64 + key as u64
    }

    /// The same before the length of the body is known, so with room for the field that will tell it.
    pub(super) fn cost_with_length(head: &ResponseHeader, facts: &Facts, key: usize) -> u64 {
        let length = if head.headers.contains_key(CONTENT_LENGTH) { 0 } else { PER_FIELD + LENGTH_FIELD };
        Self::cost(head, facts, key) + length
    }

    /// Its body, if it is complete and in one piece: a clone, no copy.
    pub fn body_in_one_piece(&self) -> Option<Bytes> {
        self.body.in_one_piece()
    }

    /// Its body in pieces, if it is complete: clones, no copies.
    pub fn pieces(&self) -> Option<Arc<[Bytes]>> {
        self.body.pieces()
    }

    /// When the backend was asked for what is on disk of it, in milliseconds since the Unix epoch; 0 is never.
    pub fn copied_at(&self) -> u64 {
        self.body.copied_at.load(Relaxed)
    }

    /// Notes that a copy on disk is from this moment.
    pub fn note_copy(&self, asked_at: u64) {
        self.body.copied_at.store(asked_at, Relaxed);
    }

    /// The length of its body, once that is complete.
    pub fn length(&self) -> Option<u64> {
        self.body.len()
    }

    /// The bytes that it takes now, with its body.
    pub(super) fn weight(&self) -> u64 {
        self.charge.bytes() + self.body.weight()
    }

    /// How old it is.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.facts.born).unwrap_or_default()
    }

    /// Whether it is fresh.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        now < self.facts.fresh_until
    }
}

/// The same head in memory of its own: what Pingora has parsed refers to the buffer of a connection.
pub(super) fn compact(head: &ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut values = BytesMut::with_capacity(head.headers.values().map(HeaderValue::len).sum());
    for value in head.headers.values() {
        values.extend_from_slice(value.as_bytes());
    }
    let mut values: Bytes = values.freeze();
    let mut compact = ResponseHeader::build_no_case(head.status, Some(head.headers.len()))?;
    if head.get_reason_phrase() != head.status.canonical_reason() {
        compact.set_reason_phrase(head.get_reason_phrase())?;
    }
    for (name, value) in &head.headers {
        // The copy of a value that was valid is valid.
        let copy = HeaderValue::from_maybe_shared(values.split_to(value.len())).unwrap_or_else(|_| value.clone());
        compact.append_header(name, copy)?;
    }
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_head_says_the_same() -> pingora::Result<()> {
        let mut head = ResponseHeader::build(299, None)?;
        head.set_reason_phrase(Some("Fine"))?;
        for (name, value) in [("etag", "\"1\""), ("link", "a"), ("x-own", ""), ("link", "b")] {
            head.append_header(name, value)?;
        }
        let compact = compact(&head)?;
        assert_eq!((compact.status, compact.get_reason_phrase()), (head.status, Some("Fine")));
        assert_eq!(compact.headers, head.headers);
        Ok(())
    }
}
