//! How often was each of these words said? For words that are few, such as the reasons of failures.
//!
//! A word has its place from the first time on. Places are looked through one after another, the first words first, so
//! what is usual is found at once; that takes no lock. There is a bound: what comes when all places are taken is counted
//! together, so that nobody can make memory grow by making up words.

use std::sync::OnceLock;

use super::Count;

/// Words besides the first; there are about forty reasons, and some statuses.
const MORE: usize = 63;

/// What is counted together when all places are taken.
const OTHER: &str = "other";

/// Words, and how often each was said.
#[derive(Debug, Default)]
pub struct Words {
    first: Place,
    /// Made when there is a second word: most have only one.
    more: OnceLock<Box<[Place]>>,
    other: Count,
}

#[derive(Debug, Default)]
struct Place {
    word: OnceLock<Box<str>>,
    said: Count,
}

impl Place {
    /// Whether this is the place of the word, which takes it if it is free.
    fn is_of(&self, word: &str) -> bool {
        &**self.word.get_or_init(|| word.into()) == word
    }
}

impl Words {
    /// Counts a word.
    pub fn say(&self, word: &str) {
        if self.first.is_of(word) {
            return self.first.said.one();
        }
        let more = self.more.get_or_init(|| (0..MORE).map(|_| Place::default()).collect());
        more.iter().find(|place| place.is_of(word)).map_or(&self.other, |place| &place.said).one();
    }

    /// The words that were said, in the order of their first time.
    pub fn get(&self) -> Vec<(&str, u64)> {
        let more = self.more.get().into_iter().flatten();
        let places = std::iter::once(&self.first).chain(more);
        let said = places.map_while(|place| Some((&**place.word.get()?, place.said.get())));
        said.chain([(OTHER, self.other.get())]).filter(|(_, count)| *count > 0).collect()
    }

    /// How often anything was said.
    pub fn sum(&self) -> u64 {
        self.get().iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_counted_by_itself() {
        let words = Words::default();
        assert_eq!(words.get(), []);
        for word in ["ok", "reset", "ok", "late", "ok", "reset"] {
            words.say(word);
        }
        assert_eq!(words.get(), [("ok", 3), ("reset", 2), ("late", 1)]);
        assert_eq!(words.sum(), 6);
    }

    #[test]
    fn made_up_words_take_no_more_than_their_places() {
        let words = Words::default();
        (0..1000).for_each(|number| words.say(&format!("word {number}")));
        assert_eq!(words.get().len(), MORE + 2);
        assert_eq!(words.get().last(), Some(&(OTHER, 1000 - 64)));
        assert_eq!(words.sum(), 1000);
    }

    #[test]
    fn threads_that_say_the_same_share_one_place() {
        let words = Words::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|number| words.say(["a", "b", "c"][number % 3])));
            }
        });
        let mut said = words.get();
        said.sort_unstable();
        assert_eq!(said, [("a", 1336), ("b", 1332), ("c", 1332)]);
    }
}
