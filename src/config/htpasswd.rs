//! Whose passwords are these? A file of names and hashes of passwords, as `htpasswd -B` writes it.
//!
//! Only hashes that are slow to guess are taken: bcrypt and argon2. No problem that is told shows a hash.

use std::collections::HashMap;
use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;
use bcrypt::HashParts;

/// A bcrypt hash of a higher cost takes seconds: it would be the server's own denial of service.
const BCRYPT_COST_MAX: u32 = 15;

/// Memory for one argon2 hash, in KiB: 256 MiB.
const ARGON2_MEMORY_MAX: u32 = 256 << 10;

/// Memory times passes of one argon2 hash, in KiB: about a second. RFC 9106 recommends 192 MiB in all where memory is scarce.
const ARGON2_WORK_MAX: u64 = 1 << 20;

/// The names and their passwords' hashes.
#[derive(Debug, Default)]
pub struct Users {
    places: HashMap<Box<str>, usize>,
    stored: Vec<Stored>,
}

/// A password, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored {
    /// `$2y$` and its relatives.
    Bcrypt(Box<str>),
    /// `$argon2id$` and its relatives (RFC 9106).
    Argon2(Box<str>),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stored(..)")
    }
}

impl Users {
    /// Reads a file, or says which line is wrong and why.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let mut users = Self::default();
        let lines = text.lines().map(str::trim).enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let at = |why: &str| format!("line {}: {why}", index + 1);
            let (name, hash) = line.split_once(':').ok_or_else(|| at("it has no `:` between a name and a hash"))?;
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(at("the name is empty, or has characters that cannot be seen"));
            }
            if users.places.insert(name.into(), users.stored.len()).is_some() {
                return Err(at("this name is there already"));
            }
            users.stored.push(Stored::read(hash).map_err(at)?);
        }
        if users.stored.is_empty() { Err("it names nobody".to_owned()) } else { Ok(users) }
    }

    /// The password of this name.
    pub fn find(&self, name: &str) -> Option<&Stored> {
        self.stored.get(*self.places.get(name)?)
    }

    /// Somebody's, by any number, so that a name that nobody has takes as long as one that is there. Where hashes cost
    /// differently, the same number is always the same somebody.
    pub fn any(&self, number: usize) -> Option<&Stored> {
        self.stored.get(number.checked_rem(self.stored.len())?)
    }
}

impl Stored {
    fn read(hash: &str) -> Result<Self, &'static str> {
        if hash.starts_with("$2") {
            let parts = HashParts::from_str(hash).map_err(|_| "this is no whole bcrypt hash")?;
            if parts.get_cost() > BCRYPT_COST_MAX {
                return Err("a bcrypt cost of more than 15 takes seconds for each request: make it with a lower one");
            }
            return Ok(Self::Bcrypt(hash.into()));
        }
        if hash.starts_with("$argon2") {
            let parsed = PasswordHash::new(hash).map_err(|_| "this is no whole argon2 hash")?;
            let params = argon2::Params::try_from(&parsed).map_err(|_| "this is no whole argon2 hash")?;
            if params.m_cost() > ARGON2_MEMORY_MAX {
                return Err("an argon2 hash with more than 256 MiB takes too much memory for each request");
            }
            if u64::from(params.m_cost()) * u64::from(params.t_cost()) > ARGON2_WORK_MAX {
                return Err("an argon2 hash of more than 1 GiB in all its passes takes seconds for each request");
            }
            return Ok(Self::Argon2(hash.into()));
        }
        Err("the password is not stored as bcrypt or argon2: make it with `htpasswd -B`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuuFuhxWRTXIsURoluSTZ1N4tYaWGn9oOi";
    const ARGON2: &str =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$/W8LPvoaai7U3XREtgKuI78eDZLHrsDSFj5hpFvetZc";

    #[test]
    fn names_and_slow_hashes_are_read() {
        let users = Users::read(format!("# staff\n\nann:{BCRYPT}\n  bob:{ARGON2}\n").as_bytes()).unwrap();
        assert_eq!(users.find("ann"), Some(&Stored::Bcrypt(BCRYPT.into())));
        assert_eq!(users.find("bob"), Some(&Stored::Argon2(ARGON2.into())));
        assert_eq!(users.find("# staff"), None);
        assert_eq!([0, 1, 2].map(|number| users.any(number)), ["ann", "bob", "ann"].map(|name| users.find(name)));
        assert_eq!(format!("{users:?}").matches("Stored(..)").count(), 2, "no hash is shown");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_the_hash() {
        let costly = BCRYPT.replace("$04$", "$16$");
        let mistakes: &[(&str, &str)] = &[
            ("", "it names nobody"),
            ("# nobody\n", "it names nobody"),
            ("ann", "line 1: it has no `:`"),
            (":x", "line 1: the name is empty"),
            ("\nann:$apr1$x$y", "line 2: the password is not stored as bcrypt or argon2"),
            ("ann:{SHA}x", "line 1: the password is not stored as bcrypt or argon2"),
            ("ann:$2y$04$short", "line 1: this is no whole bcrypt hash"),
            ("ann:$argon2id$v=19$", "line 1: this is no whole argon2 hash"),
            (
                &format!("ann:{}", ARGON2.replace("m=64,t=1", "m=262145,t=1")),
                "line 1: an argon2 hash with more than 256",
            ),
            (
                &format!("ann:{}", ARGON2.replace("m=64,t=1", "m=64,t=16385")),
                "line 1: an argon2 hash of more than 1 GiB",
            ),
            (&format!("ann:{}", ARGON2.replace("m=64", "m=4294967296")), "line 1: this is no whole argon2 hash"),
            (&format!("ann:{costly}"), "line 1: a bcrypt cost of more than 15"),
            (&format!("ann:{BCRYPT}\nann:{BCRYPT}"), "line 2: this name is there already"),
        ];
        for (text, expected) in mistakes {
            let why = Users::read(text.as_bytes()).unwrap_err();
            assert!(why.starts_with(expected), "{text}: {why}");
            assert!(!why.contains('$'), "{why}");
        }
        assert_eq!(Users::read(b"\xff:x").unwrap_err(), "it is not UTF-8 text");
    }
}
