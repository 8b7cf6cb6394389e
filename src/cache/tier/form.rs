//! How is what is in memory written down, and read again? And what is worth it?

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;

use crate::cache::disk::encode::Head;
use crate::cache::disk::{Found, milliseconds};
use crate::cache::store::{Facts, Object};

/// A moment that is far enough for everybody, and that can be added to a time.
const FAR: u64 = 1 << 50;

/// Whether somebody may be served by a copy later: while it is fresh, after asking whether it still holds, or stale.
pub(super) fn is_of_use(object: &Object, now: SystemTime) -> bool {
    let Object { facts, head, .. } = object;
    let may_be_confirmed = [ETAG, LAST_MODIFIED].iter().any(|name| head.headers.contains_key(name));
    // Everything may serve for a moment while we are cut off; that alone is not worth a write.
    let when_it_fails = !facts.only_when_cut_off && !facts.stale_if_error.is_zero();
    facts.fresh_until > now || may_be_confirmed || !facts.stale_while_revalidate.is_zero() || when_it_fails
}

/// What is written of an object, besides its body.
pub(super) fn head(object: &Object, url: &[u8]) -> Head {
    let Object { head, facts, .. } = object;
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    };
    let span = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(FAR).min(FAR);
    Head {
        status: head.status.as_u16(),
        fields: head.headers.iter().map(field).collect(),
        stored_at: milliseconds(facts.asked_at),
        born: milliseconds(facts.born),
        fresh_until: milliseconds(facts.fresh_until),
        stale_while_revalidate: span(facts.stale_while_revalidate),
        stale_if_error: span(facts.stale_if_error),
        only_when_cut_off: facts.only_when_cut_off,
        may_be_stale: facts.may_be_stale,
        vary: facts.vary.iter().map(|name| Bytes::copy_from_slice(name.as_str().as_bytes())).collect(),
        variance: facts.variance.map(u128::to_be_bytes),
        url: Bytes::copy_from_slice(url),
        tags: facts.tags.iter().map(|tag| Bytes::copy_from_slice(tag.as_bytes())).collect(),
    }
}

/// What lies where the key alone leads, beside an answer that differs by request fields. No tag means it: it leads to
/// answers with others too.
pub(super) fn head_of_signpost(variant: &Head) -> Head {
    let vary = |(name, _): &&(Bytes, Bytes)| name.eq_ignore_ascii_case(b"vary");
    let fields = variant.fields.iter().filter(vary).cloned().collect();
    Head { fields, variance: None, tags: Vec::new(), ..variant.clone() }
}

/// The facts of a signpost in memory: of no variant that there is, and created when everything was, because Pingora
/// takes no variant that is older than what led to it.
pub(super) fn signpost(facts: Facts) -> Facts {
    Facts { variance: Some(0), born: UNIX_EPOCH, ..facts }
}

/// An object as it was, but for its body. What a purge has made stale is so since `now`. In memory it counts as asked
/// for `now` too: what was purged before has been looked at on disk.
pub(super) fn revive(found: &Found, now: SystemTime) -> Option<(ResponseHeader, Facts)> {
    let Found { head: written, stale, .. } = found;
    let status = StatusCode::from_u16(written.status).ok()?;
    let mut head = ResponseHeader::build_no_case(status, Some(written.fields.len())).ok()?;
    for (name, value) in &written.fields {
        let value = HeaderValue::from_maybe_shared(value.clone()).ok()?;
        head.append_header(HeaderName::from_bytes(name).ok()?, value).ok()?;
    }
    let fresh_until = moment(written.fresh_until);
    let outdated = now.checked_sub(Duration::from_millis(1)).unwrap_or(UNIX_EPOCH);
    let facts = Facts {
        born: moment(written.born),
        asked_at: now,
        fresh_until: if *stale { fresh_until.min(outdated) } else { fresh_until },
        stale_while_revalidate: Duration::from_millis(written.stale_while_revalidate),
        stale_if_error: Duration::from_millis(written.stale_if_error),
        only_when_cut_off: written.only_when_cut_off,
        may_be_stale: written.may_be_stale,
        variance: written.variance.map(u128::from_be_bytes),
        vary: written.vary.iter().map(|name| HeaderName::from_bytes(name).ok()).collect::<Option<Arc<[_]>>>()?,
        tags: written
            .tags
            .iter()
            .map(|tag| Some(std::str::from_utf8(tag).ok()?.into()))
            .collect::<Option<Arc<[_]>>>()?,
    };
    Some((head, facts))
}

fn moment(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.min(FAR))
}
