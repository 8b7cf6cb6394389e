//! Which requests are the same to the cache? The key of a response: written down first, then hashed.
//!
//! What is written is kept beside what is stored and compared when that is found, so that a collision, even one made on
//! purpose, is a miss and never somebody else's answer. The hash has a seed of this process, so that nobody can make
//! keys that fall on one another. What `Vary` names, and a request's body, go in as such a hash of 128 bits alone.
//! Where there is a tier on disk the seed is kept there, so that what tells answers apart is the same after a restart.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_128_with_seed;

static SEED: OnceLock<u64> = OnceLock::new();

/// Bytes of [`Key::encoded`] before its text.
const URL_HASH: usize = 16;

/// What a response is stored under: the method and the address, each in a line, and then the other parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What unsafe methods and purges speak of: the address alone.
    pub url: u128,
    /// The whole key.
    pub page: u128,
    encoded: Vec<u8>,
}

/// Writes a key down, part by part.
#[derive(Debug)]
pub struct Writing {
    encoded: Vec<u8>,
    url_end: usize,
}

impl Writing {
    /// Begins with the method and the address, which has no line feed in it.
    pub fn begin(method: &str, url: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut encoded = Vec::with_capacity(160);
        encoded.extend_from_slice(&[0; URL_HASH]);
        encoded.extend_from_slice(method.as_bytes());
        encoded.push(b'\n');
        url(&mut encoded);
        let url_end = encoded.len();
        encoded.push(b'\n');
        Self { encoded, url_end }
    }

    /// Adds a part. Its length goes first, so that no value can pass for two parts; a part that is not there differs
    /// from an empty one.
    pub fn part(&mut self, name: &str, value: Option<&[u8]>) {
        self.encoded.extend_from_slice(name.as_bytes());
        let length = value.map_or(u32::MAX, |value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
        self.encoded.extend_from_slice(&length.to_be_bytes());
        self.encoded.extend_from_slice(value.unwrap_or_default());
    }

    /// The key that has been written.
    pub fn end(self) -> Key {
        let Self { mut encoded, url_end } = self;
        let method_and_url = encoded.get(URL_HASH..url_end).unwrap_or_default();
        // The method is not part of an address: whoever changes what is there changes it for all of them.
        let url = Key::hash_url(method_and_url.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default());
        let page = xxh3_128_with_seed(encoded.get(URL_HASH..).unwrap_or_default(), Key::seed());
        if let Some(room) = encoded.get_mut(..URL_HASH) {
            room.copy_from_slice(&url.to_be_bytes());
        }
        Key { url, page, encoded }
    }
}

impl Key {
    /// The secret of this process that is in every hash.
    pub fn seed() -> u64 {
        *SEED.get_or_init(|| RandomState::new().hash_one("cache"))
    }

    /// Takes this for the secret; `false` if the process has one already. To be called before the first key is made.
    pub fn set_seed(seed: u64) -> bool {
        *SEED.get_or_init(|| seed) == seed
    }

    /// The hash of an address, as in [`Key::url`].
    pub fn hash_url(url: &[u8]) -> u128 {
        xxh3_128_with_seed(url, Self::seed())
    }

    /// The key that these bytes of [`Key::encoded`] stand for; `None` if they stand for none.
    pub fn decode(encoded: &[u8], page: u128) -> Option<Self> {
        let url = u128::from_be_bytes(encoded.get(..URL_HASH)?.try_into().ok()?);
        Some(Self { url, page, encoded: encoded.to_vec() })
    }

    /// All of it in bytes, to be kept.
    pub fn into_encoded(self) -> Vec<u8> {
        self.encoded
    }

    /// Its text: the same in every process.
    pub fn text(&self) -> &[u8] {
        self.encoded.get(URL_HASH..).unwrap_or_default()
    }

    /// All of it in bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// The address in an encoded key: scheme, host, path and query.
pub fn url_of(encoded: &[u8]) -> &[u8] {
    encoded.get(URL_HASH..).unwrap_or_default().split(|byte| *byte == b'\n').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: &str, url: &str, parts: &[(&str, Option<&str>)]) -> Key {
        let mut writing = Writing::begin(method, |text| text.extend_from_slice(url.as_bytes()));
        for (name, value) in parts {
            writing.part(name, value.map(str::as_bytes));
        }
        writing.end()
    }

    #[test]
    fn an_address_is_the_same_for_every_method() {
        let (get, post) = (key("GET", "https://a/b?c", &[]), key("POST", "https://a/b?c", &[]));
        assert_eq!((get.url, get.page == post.page), (post.url, false));
        assert_eq!(get.url, Key::hash_url(b"https://a/b?c"));
        assert_eq!(url_of(get.encoded()), b"https://a/b?c");
    }

    #[test]
    fn no_value_passes_for_two_parts_and_an_empty_one_is_not_none() {
        let one = key("GET", "u", &[("a", Some("1\nb=1:2"))]);
        let two = key("GET", "u", &[("a", Some("1")), ("b", Some("2"))]);
        let (empty, none) = (key("GET", "u", &[("a", Some(""))]), key("GET", "u", &[("a", None)]));
        assert!(one.page != two.page && empty.page != none.page);
        assert!(one.encoded() != two.encoded() && empty.encoded() != none.encoded());
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let key = key("GET", "https://a/", &[("x", Some("y"))]);
        assert_eq!(Key::decode(key.encoded(), key.page), Some(key.clone()));
        assert_eq!(Key::decode(b"short", 1), None);
    }
}
