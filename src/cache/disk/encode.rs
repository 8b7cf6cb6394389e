//! The bytes that stand for the head of a stored response, and back. Numbers are big-endian, what has a length has it in
//! front; the first byte is the version of this form, and a head of another version is not read.
//!
//! Reading never panics and never copies a field: what is read are slices of the bytes that came in, and the room for
//! lists is bounded by what can still follow.

use bytes::{BufMut, Bytes, BytesMut};

/// The form of a head as this version of the program writes it.
const VERSION: u8 = 1;

/// What is kept of a response, apart from its body. Moments are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its status code.
    pub status: u16,
    /// Its fields, names as they were sent, in their order.
    pub fields: Vec<(Bytes, Bytes)>,
    /// When the request was sent whose answer this is: a purge after this moment concerns it.
    pub stored_at: u64,
    /// When its age was zero.
    pub born: u64,
    /// Until when it is fresh.
    pub fresh_until: u64,
    /// For how long after that it may be served while it is fetched anew, in milliseconds.
    pub stale_while_revalidate: u64,
    /// For how long after that it may be served when no backend answers well, in milliseconds.
    pub stale_if_error: u64,
    /// Whether that is only when there is no answer at all.
    pub only_when_cut_off: bool,
    /// Whether a client may ask for it though it is stale.
    pub may_be_stale: bool,
    /// The names of the request's fields that chose it.
    pub vary: Vec<Bytes>,
    /// What those fields were, as a hash.
    pub variance: Option<[u8; 16]>,
    /// The URL that it answers, as purges name it.
    pub url: Bytes,
    /// The tags that it can be purged by.
    pub tags: Vec<Bytes>,
}

impl Head {
    /// The bytes that stand for it; `None` if one part of it is too long for its length to be written.
    pub fn encode(&self) -> Option<Bytes> {
        let mut to = BytesMut::with_capacity(self.encoded_len());
        to.put_u8(VERSION);
        to.put_u16(self.status);
        let moments = [self.stored_at, self.born, self.fresh_until];
        moments.into_iter().for_each(|moment| to.put_u64(moment));
        to.put_u64(self.stale_while_revalidate);
        to.put_u64(self.stale_if_error);
        let flags = [self.only_when_cut_off, self.may_be_stale, self.variance.is_some()];
        flags.into_iter().for_each(|flag| to.put_u8(flag.into()));
        to.put_slice(self.variance.as_ref().map_or(&[], |hash| &hash[..]));
        put(&mut to, &self.url)?;
        put_list(&mut to, &self.vary)?;
        put_list(&mut to, &self.tags)?;
        to.put_u32(u32::try_from(self.fields.len()).ok()?);
        for (name, value) in &self.fields {
            put(&mut to, name)?;
            put(&mut to, value)?;
        }
        Some(to.freeze())
    }

    /// The head that the bytes stand for; `None` if they stand for none, wholly and exactly.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != VERSION {
            return None;
        }
        let head = Self {
            status: from.u16()?,
            stored_at: from.u64()?,
            born: from.u64()?,
            fresh_until: from.u64()?,
            stale_while_revalidate: from.u64()?,
            stale_if_error: from.u64()?,
            only_when_cut_off: from.flag()?,
            may_be_stale: from.flag()?,
            variance: from.variance()?,
            url: from.bytes()?,
            vary: from.list()?,
            tags: from.list()?,
            fields: from.fields()?,
        };
        from.0.is_empty().then_some(head)
    }

    /// How many bytes `encode` makes of it.
    fn encoded_len(&self) -> usize {
        let list = |list: &[Bytes]| 4 + list.iter().map(|one| 4 + one.len()).sum::<usize>();
        let fields = self.fields.iter().map(|(name, value)| 8 + name.len() + value.len()).sum::<usize>();
        let fixed = 1 + 2 + 5 * 8 + 3 + self.variance.map_or(0, |hash| hash.len());
        fixed + 4 + self.url.len() + list(&self.vary) + list(&self.tags) + 4 + fields
    }
}

fn put(to: &mut BytesMut, bytes: &[u8]) -> Option<()> {
    to.put_u32(u32::try_from(bytes.len()).ok()?);
    to.put_slice(bytes);
    Some(())
}

fn put_list(to: &mut BytesMut, list: &[Bytes]) -> Option<()> {
    to.put_u32(u32::try_from(list.len()).ok()?);
    list.iter().try_for_each(|one| put(to, one))
}

/// Takes from the front of what is left, and gives `None` where there is not enough.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.array()?))
    }

    /// A length, or a count of things of at least `least` bytes each, that what is left can hold.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        (count <= self.0.len() / least).then_some(count)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.count(1)?;
        self.take(length)
    }

    fn list(&mut self) -> Option<Vec<Bytes>> {
        let count = self.count(4)?;
        (0..count).map(|_| self.bytes()).collect()
    }

    fn fields(&mut self) -> Option<Vec<(Bytes, Bytes)>> {
        let count = self.count(8)?;
        (0..count).map(|_| Some((self.bytes()?, self.bytes()?))).collect()
    }

    fn variance(&mut self) -> Option<Option<[u8; 16]>> {
        if self.flag()? { Some(Some(self.array()?)) } else { Some(None) }
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            2..=u8::MAX => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn some_bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    prop_compose! {
        fn head()(
            status in any::<u16>(),
            moments in any::<[u64; 5]>(),
            fields in vec((some_bytes(), some_bytes()), 0..8),
            vary in vec(some_bytes(), 0..4),
            tags in vec(some_bytes(), 0..4),
            variance in any::<Option<[u8; 16]>>(),
            url in some_bytes(),
            (only_when_cut_off, may_be_stale) in any::<(bool, bool)>(),
        ) -> Head {
            let [stored_at, born, fresh_until, stale_while_revalidate, stale_if_error] = moments;
            Head { status, fields, stored_at, born, fresh_until, stale_while_revalidate, stale_if_error, only_when_cut_off, may_be_stale, vary, variance, url, tags }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(head in head()) {
            let bytes = head.encode().unwrap();
            prop_assert_eq!(bytes.len(), head.encoded_len());
            prop_assert_eq!(Head::decode(bytes), Some(head));
        }

        #[test]
        fn a_head_that_is_cut_short_or_too_long_is_none(head in head(), cut in any::<prop::sample::Index>()) {
            let bytes = head.encode().unwrap();
            prop_assert_eq!(Head::decode(bytes.slice(..cut.index(bytes.len()))), None);
            prop_assert_eq!(Head::decode(Bytes::from([&bytes[..], b"x"].concat())), None);
        }

        #[test]
        fn any_bytes_are_a_head_or_none_and_take_no_more_room_than_they_have(bytes in vec(any::<u8>(), 0..400)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(head) = Head::decode(Bytes::from(bytes.clone())) {
                prop_assert_eq!(head.encoded_len(), bytes.len());
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(head in head(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = head.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Head::decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_count_that_cannot_follow_makes_no_room() {
        let mut from = Reader(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
        assert_eq!(from.list(), None);
    }
}
