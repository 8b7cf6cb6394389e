//! What does a key look like? `pck_`, eight letters by which it is named, `_`, and 32 letters that nobody can guess.
//!
//! A key of ours has 190 bits of chance, so its SHA-256 tells nothing: a slow hash, as for passwords that people choose,
//! would only slow us down.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;

use crate::config::{KEY_PREFIX, KeyHash};

/// Letters that can be marked with a double click, in a URL as in a shell.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const ID_LETTERS: usize = 8;
const SECRET_LETTERS: usize = 32;

/// The fewest bytes of a key that an operator brings: those of 128 bits, if they are well chosen.
pub(super) const SHORTEST: usize = 16;

/// More than any key has; what is longer is not worth a hash.
pub(super) const LONGEST: usize = 512;

/// A key that was made just now. Nobody keeps it but its owner.
pub struct NewKey {
    /// The part by which it is named.
    pub id: String,
    text: String,
}

impl NewKey {
    /// Makes one, of the system's chance.
    pub fn make() -> Self {
        let (id, secret) = (letters(ID_LETTERS), letters(SECRET_LETTERS));
        Self { text: format!("{KEY_PREFIX}{id}_{secret}"), id }
    }

    /// The whole key: to be shown once.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a store keeps.
    pub fn hash(&self) -> KeyHash {
        hash(self.text.as_bytes())
    }
}

/// What a store keeps of a key.
pub(super) fn hash(key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    KeyHash(hash)
}

/// So many letters, each as likely as any other: bytes beyond the last whole round of 62 are thrown away.
fn letters(count: usize) -> String {
    let fair = 256 - 256 % LETTERS.len();
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        rand::fill(&mut bytes).expect("aws-lc ends the process rather than give no random bytes");
        let drawn = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        let letters = drawn.filter_map(|byte| LETTERS.get(byte % LETTERS.len()));
        text.extend(letters.take(count - text.len()).map(|letter| char::from(*letter)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_itself_and_is_never_made_twice() {
        let (one, two) = (NewKey::make(), NewKey::make());
        assert_ne!(one.text(), two.text());
        let parts: Vec<_> = one.text().split('_').collect();
        assert_eq!(parts[..2], ["pck", &one.id]);
        assert_eq!((parts[1].len(), parts[2].len(), parts.len()), (8, 32, 3));
        assert!(parts[2].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn every_letter_is_drawn() {
        let drawn = letters(62 * 200);
        for letter in LETTERS {
            let count = drawn.bytes().filter(|byte| byte == letter).count();
            assert!((100..300).contains(&count), "{}: {count} of 200", char::from(*letter));
        }
    }

    #[test]
    fn the_hash_is_that_of_every_other_program() {
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc").show(), known);
    }
}
