//! The list of purges against a list that is merely searched, and its journal against damage.

use proptest::collection::vec;
use proptest::prelude::*;

use super::journal::{self, append, read, write};
use super::*;

const NO_TAGS: &[&[u8]] = &[];

fn purge(what: What, at: u64) -> Purge {
    Purge { what, at, soft: false }
}

fn after(purges: &[Purge]) -> Purges {
    let mut all = Purges::default();
    purges.iter().for_each(|purge| all.add(purge.clone()));
    all
}

fn verdict(what: What, url: &str) -> Verdict {
    after(&[purge(what, 10)]).verdict(7, url.as_bytes(), &["red", "blue"], 10)
}

#[test]
fn a_purge_concerns_what_it_names() {
    let url = "https://Shop.example:8443/shoes/1?size=9";
    for (what, concerned) in [
        (What::Everything, true),
        (What::Key(7), true),
        (What::Key(8), false),
        (What::Url(url.into()), true),
        (What::Url("https://Shop.example:8443/shoes/1".into()), false),
        (What::Prefix("https://Shop.example:8443/shoes/".into()), true),
        (What::Prefix("".into()), true),
        (What::Prefix(format!("{url}&").into()), false),
        (What::Host("shop.EXAMPLE".into()), true),
        (What::Host("shop.example:8443".into()), true),
        (What::Host("shop.example:443".into()), false),
        (What::Host("example".into()), false),
        (What::Tag("blue".into()), true),
        (What::Tag("blu".into()), false),
    ] {
        assert_eq!(verdict(what.clone(), url) == Verdict::Gone, concerned, "{what:?}");
    }
}

#[test]
fn a_host_in_brackets_is_told_from_its_port() {
    assert_eq!(host(b"http://[2001:db8::1]:80/x"), (&b"[2001:db8::1]:80"[..], &b"[2001:db8::1]"[..]));
    assert_eq!(host(b"http://[2001:db8::1]"), (&b"[2001:db8::1]"[..], &b"[2001:db8::1]"[..]));
    assert_eq!(host(b"a?b:c"), (&b"a"[..], &b"a"[..]));
    assert_eq!(host(b""), (&b""[..], &b""[..]));
}

#[test]
fn what_is_stored_after_a_purge_is_not_concerned() {
    let purges = after(&[purge(What::Url("u".into()), 10)]);
    assert_eq!(purges.verdict(0, b"u", NO_TAGS, 10), Verdict::Gone);
    assert_eq!(purges.verdict(0, b"u", NO_TAGS, 11), Verdict::Untouched);
}

#[test]
fn a_soft_purge_leaves_a_stale_object_and_a_hard_one_nothing() {
    let soft = Purge { soft: true, ..purge(What::Url("u".into()), 20) };
    let purges = after(&[purge(What::Url("u".into()), 10), soft]);
    assert_eq!(purges.verdict(0, b"u", NO_TAGS, 10), Verdict::Gone);
    assert_eq!(purges.verdict(0, b"u", NO_TAGS, 11), Verdict::Stale);
    assert_eq!(purges.verdict(0, b"u", NO_TAGS, 21), Verdict::Untouched);
}

#[test]
fn too_many_purges_make_the_floor_rise_and_bring_nothing_back() {
    let mut purges = Purges::default();
    let total = 2 * MOST as u64;
    for at in 1..=total {
        purges.add(purge(What::Key(at.into()), at));
        assert!(purges.last.len() <= MOST);
    }
    assert!((1..=total).all(|at| purges.verdict(at.into(), b"", NO_TAGS, at) == Verdict::Gone));
    assert_eq!(purges.verdict(total.into(), b"", NO_TAGS, total + 1), Verdict::Untouched);
    assert_eq!(purges.verdict(u128::MAX, b"", NO_TAGS, total), Verdict::Untouched, "what is new is not thrown away");
}

#[test]
fn long_patterns_are_bounded_too() {
    let mut purges = Purges::default();
    for at in 1..=100 {
        purges.add(purge(What::Prefix(vec![b'a'; MOST_BYTES / 10 + at as usize]), at));
        assert!(purges.bytes <= MOST_BYTES);
    }
    purges.add(purge(What::Tag(vec![b'a'; MOST_BYTES + 1]), 200));
    assert_eq!((purges.bytes, purges.prefixes.len()), (0, 0));
    assert_eq!(purges.verdict(1, b"u", NO_TAGS, 200), Verdict::Gone);
}

#[test]
fn what_can_concern_nothing_is_forgotten() {
    let mut purges = after(&[purge(What::Key(1), 10), purge(What::Prefix("p".into()), 20)]);
    purges.forget_before(20);
    assert_eq!(purges, after(&[purge(What::Prefix("p".into()), 20)]));
    purges.forget_before(21);
    assert_eq!(purges, Purges::default());
}

#[test]
fn a_journal_that_is_cut_anywhere_is_not_whole_or_ends_with_a_record() {
    let purges = [purge(What::Key(1), 10), purge(What::Tag("red".into()), 20)];
    let mut bytes = write(&Purges::default());
    let mut ends = vec![bytes.len()];
    for purge in &purges {
        append(&mut bytes, purge);
        ends.push(bytes.len());
    }
    for cut in 0..=bytes.len() {
        let expected = ends.iter().position(|end| *end == cut);
        let found = read(&bytes[..cut]);
        assert_eq!(found.whole, expected.is_some(), "{cut}");
        if let Some(count) = expected {
            assert_eq!(found.purges, after(&purges[..count]));
        }
    }
}

#[test]
fn a_pattern_beyond_all_bounds_is_written_as_a_purge_of_everything() {
    let mut bytes = write(&Purges::default());
    append(&mut bytes, &purge(What::Tag(vec![b'a'; MOST_BYTES + 1]), 5));
    assert_eq!(read(&bytes).purges, after(&[purge(What::Everything, 5)]));
}

fn some_purge() -> impl Strategy<Value = Purge> {
    let text = || "[ab]{0,3}".prop_map(String::into_bytes);
    let what = prop_oneof![
        1 => Just(What::Everything),
        4 => (0..4_u128).prop_map(What::Key),
        4 => text().prop_map(What::Url),
        4 => text().prop_map(What::Prefix),
        4 => text().prop_map(What::Host),
        4 => text().prop_map(What::Tag),
    ];
    (what, 1..30_u64, any::<bool>()).prop_map(|(what, at, soft)| Purge { what, at, soft })
}

/// What one purge makes of an object whose URL is nothing but a host.
fn plain(purge: &Purge, key: u128, url: &[u8], tag: &[u8], stored_at: u64) -> Verdict {
    let concerned = match &purge.what {
        What::Everything => true,
        What::Key(other) => *other == key,
        What::Url(other) | What::Host(other) => other == url,
        What::Prefix(prefix) => url.starts_with(prefix),
        What::Tag(other) => other == tag,
    };
    match concerned && stored_at <= purge.at {
        true if purge.soft => Verdict::Stale,
        true => Verdict::Gone,
        false => Verdict::Untouched,
    }
}

proptest! {
    #[test]
    fn the_verdict_is_that_of_the_hardest_purge(
        purges in vec(some_purge(), 0..12),
        key in 0..4_u128,
        url in "[ab]{0,3}",
        tag in "[ab]{0,3}",
        stored_at in 1..30_u64,
    ) {
        let single = purges.iter().map(|purge| plain(purge, key, url.as_bytes(), tag.as_bytes(), stored_at));
        let expected = single.max().unwrap_or(Verdict::Untouched);
        prop_assert_eq!(after(&purges).verdict(key, url.as_bytes(), &[&tag], stored_at), expected);
    }

    #[test]
    fn a_journal_says_what_was_written(purges in vec(some_purge(), 0..12)) {
        let list = after(&purges);
        prop_assert_eq!(read(&write(&list)), journal::Read { purges: list.clone(), whole: true });
        let mut bytes = write(&Purges::default());
        purges.iter().for_each(|purge| append(&mut bytes, purge));
        prop_assert_eq!(read(&bytes), journal::Read { purges: list, whole: true });
    }

    #[test]
    fn a_damaged_journal_never_passes_for_whole(
        purges in vec(some_purge(), 1..6),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut bytes = write(&Purges::default());
        purges.iter().for_each(|purge| append(&mut bytes, purge));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(!read(&bytes).whole);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = read(&[&write(&Purges::default())[..], &bytes].concat());
    }
}
