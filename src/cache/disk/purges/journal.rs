//! The list of purges as bytes: records, one behind the other, so that one more is one short write.
//!
//! A record has its length, a checksum and what it says. What follows the first record that is not whole may have been a
//! purge: since it cannot be known which, whoever reads such bytes has to take everything for purged.

use bytes::BufMut;
use xxhash_rust::xxh3::xxh3_64;

use super::{MOST_BYTES, Purge, Purges, What};

/// What the bytes begin with; the last byte is the version of this form.
const MAGIC: &[u8; 8] = b"ptcpurg\x01";
/// A length and a checksum.
const FRONT: usize = 4 + 8;
/// The kind, whether it is soft, and the moment.
const FIXED: usize = 1 + 1 + 8;

/// What the bytes of a journal say.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// The purges up to the first record that is not whole.
    pub purges: Purges,
    /// Whether there was none such.
    pub whole: bool,
}

/// The whole list, as a journal of its own.
pub fn write(purges: &Purges) -> Vec<u8> {
    let mut to = MAGIC.to_vec();
    purges.all().for_each(|purge| append(&mut to, &purge));
    to
}

/// One more purge, at the end of a journal. A pattern beyond the length of all patterns together is one that is cut:
/// then everything is purged, which is more than was asked for and never less.
pub fn append(to: &mut Vec<u8>, purge: &Purge) {
    let (kind, pattern) = match &purge.what {
        What::Everything => (0, &[][..]),
        What::Key(key) => (1, &key.to_be_bytes()[..]),
        What::Url(url) => (2, &url[..]),
        What::Prefix(prefix) => (3, &prefix[..]),
        What::Host(host) => (4, &host[..]),
        What::Tag(tag) => (5, &tag[..]),
    };
    let fits = pattern.len() <= MOST_BYTES;
    let (kind, pattern) = if fits { (kind, pattern) } else { (0, &[][..]) };
    let mut says = Vec::with_capacity(FIXED + pattern.len());
    says.put_u8(kind);
    says.put_u8(u8::from(purge.soft));
    says.put_u64(purge.at);
    says.put_slice(pattern);
    to.put_u32(u32::try_from(says.len()).unwrap_or(u32::MAX));
    to.put_u64(xxh3_64(&says));
    to.extend(says);
}

/// The purges of a journal.
pub fn read(bytes: &[u8]) -> Read {
    let mut purges = Purges::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Read { purges, whole: false } };
    while !rest.is_empty() {
        let Some((purge, left)) = first(rest) else { return Read { purges, whole: false } };
        purges.add(purge);
        rest = left;
    }
    Read { purges, whole: true }
}

/// The first record, and what follows it.
fn first(bytes: &[u8]) -> Option<(Purge, &[u8])> {
    let (front, rest) = bytes.split_at_checked(FRONT)?;
    let length = u32::from_be_bytes(front[..4].try_into().ok()?);
    let (says, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    if xxh3_64(says).to_be_bytes() != front[4..] {
        return None;
    }
    let (fixed, pattern) = says.split_at_checked(FIXED)?;
    let what = match fixed[0] {
        0 if pattern.is_empty() => What::Everything,
        1 => What::Key(u128::from_be_bytes(pattern.try_into().ok()?)),
        2 => What::Url(pattern.to_vec()),
        3 => What::Prefix(pattern.to_vec()),
        4 => What::Host(pattern.to_vec()),
        5 => What::Tag(pattern.to_vec()),
        0 | 6..=u8::MAX => return None,
    };
    let at = u64::from_be_bytes(fixed[2..].try_into().ok()?);
    Some((Purge { what, at, soft: fixed[1] != 0 }, rest))
}
