//! Are two entity tags the same (RFC 9110, section 8.8.3.2)?

/// Whether a tag says that what it stands for may differ in bytes.
pub(super) fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

/// The weak comparison: good enough for "you have it already".
pub(super) fn is_like(one: &[u8], other: &[u8]) -> bool {
    !opaque(one).is_empty() && opaque(one) == opaque(other)
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The strong comparison: the same bytes.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    !is_weak(one) && !one.is_empty() && one == other
}
