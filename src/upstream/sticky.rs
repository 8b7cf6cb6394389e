//! Which backend has this client been with? A signed cookie that names it without telling an address.
//!
//! The cookie holds an opaque id of the backend, when it ends, and a signature. The id is a keyed hash of the backend's
//! name, so the same secret gives the same ids after a restart and on other front doors, and nobody else can tell who
//! is meant or make a cookie that leads elsewhere. What is not signed by us, or has ended, is no cookie at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};

use super::choice::Choice;
use super::{Pick, Upstream};
use crate::backend::{Seat, State};
use crate::config::{self, Secret};

const ID: usize = 8;
const END: usize = 8;
/// 128 bits: nobody guesses them.
const SIGNATURE: usize = 16;

/// The sessions of one upstream.
pub struct Sticky {
    /// What the operator asked for.
    pub config: config::Sticky,
    key: Key,
    seats: HashMap<[u8; ID], Seat>,
    ids: HashMap<Seat, [u8; ID]>,
}

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The seat of the backend.
    pub seat: Seat,
    /// Whether it ends so soon that it should be renewed: half of its time is over.
    pub ends_soon: bool,
}

impl Sticky {
    /// The sessions of this upstream, if it has any.
    pub fn of(upstream: &Upstream, secret: &Secret) -> Option<Self> {
        let members = upstream.members().iter().map(|member| (&*member.backend.name, member.backend.seat));
        Some(Self::new(upstream.config.sticky.clone()?, &upstream.config.name, members, secret))
    }

    pub(crate) fn new<'a>(
        config: config::Sticky,
        upstream: &str,
        members: impl Iterator<Item = (&'a str, Seat)>,
        secret: &Secret,
    ) -> Self {
        // A key of its own for each upstream: a cookie of one is nothing to another.
        let key: [u8; 32] = sign(&Key::new(HMAC_SHA256, secret.bytes()), &[b"sticky of ", upstream.as_bytes()]);
        let key = Key::new(HMAC_SHA256, &key);
        let ids: HashMap<_, [u8; ID]> =
            members.map(|(name, seat)| (seat, sign(&key, &[b"id of ", name.as_bytes()]))).collect();
        let seats = ids.iter().map(|(&seat, &id)| (id, seat)).collect();
        Self { config, key, seats, ids }
    }

    /// The session of a cookie; `None` if it is not ours, has ended, or its backend is gone.
    pub fn read(&self, cookie: &str, now: SystemTime) -> Option<Session> {
        let bytes = unhex(cookie)?;
        let (told, signature) = bytes.split_last_chunk::<SIGNATURE>()?;
        verify_slices_are_equal(&self.signature(told), signature).ok()?;
        let (id, end) = told.split_first_chunk::<ID>()?;
        let left = u64::from_be_bytes(end.try_into().ok()?).checked_sub(unix_secs(now)).filter(|&left| left > 0)?;
        let seat = *self.seats.get(id)?;
        Some(Session { seat, ends_soon: left <= self.config.ttl.as_secs() / 2 })
    }

    /// The cookie for a backend.
    pub fn cookie(&self, seat: Seat, now: SystemTime) -> Option<String> {
        let end = unix_secs(now).saturating_add(self.config.ttl.as_secs());
        let mut bytes = Vec::with_capacity(ID + END + SIGNATURE);
        bytes.extend(self.ids.get(&seat)?);
        bytes.extend(end.to_be_bytes());
        bytes.extend(self.signature(&bytes));
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn signature(&self, told: &[u8]) -> [u8; SIGNATURE] {
        sign(&self.key, &[b"cookie ", told])
    }
}

impl Upstream {
    /// The backend on this seat, if it may be chosen now, has a place left for which nobody waits, and is not among
    /// `tried`.
    pub fn pick_again(self: &Arc<Self>, seat: Seat, tried: &[Seat]) -> Option<Pick> {
        if self.is_limited {
            return if self.queue.is_empty() { self.claim_again(seat, tried) } else { None };
        }
        self.may_serve_again(seat, tried).then(|| self.taken(seat, None)).flatten()
    }

    /// The same, whoever waits.
    pub(super) fn claim_again(self: &Arc<Self>, seat: Seat, tried: &[Seat]) -> Option<Pick> {
        self.may_serve_again(seat, tried).then(|| self.claimed(seat, None)).flatten()
    }

    /// Whether the backend on this seat may be chosen now, however much it has, and is not among `tried`.
    pub fn may_serve_again(&self, seat: Seat, tried: &[Seat]) -> bool {
        let place = self.place(seat).filter(|_| !tried.contains(&seat));
        let Some(member) = place.and_then(|place| self.members.get(place)) else { return false };
        // Whatever its tier: a session that has begun on a backup stays there.
        let fit = member.weight > 0 && member.backend.state() == State::Healthy;
        let chosen = |choice: &Arc<Choice>| choice.contains(seat) && !choice.care().on_trial.contains(&seat);
        fit || self.choice.load().as_ref().is_some_and(chosen)
    }
}

/// The first bytes of a keyed hash.
fn sign<const N: usize>(key: &Key, parts: &[&[u8]]) -> [u8; N] {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut first = [0; N];
    first.iter_mut().zip(context.sign().as_ref()).for_each(|(ours, byte)| *ours = *byte);
    first
}

fn unhex(text: &str) -> Option<[u8; ID + END + SIGNATURE]> {
    let mut bytes = [0; ID + END + SIGNATURE];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != bytes.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(high)? * 16 + digit(low)?) as u8;
    }
    Some(bytes)
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::SameSite;

    fn sticky(secret: &str, upstream: &str, names: &[&str]) -> Sticky {
        let config = config::Sticky { cookie: "s".into(), ttl: Duration::from_secs(3_600), same_site: SameSite::Lax };
        let members = names.iter().copied().zip((0..).map(Seat));
        Sticky::new(config, upstream, members, &Secret::new(secret.as_bytes()))
    }

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + secs)
    }

    #[test]
    fn a_cookie_leads_to_its_backend_until_it_ends() {
        let sticky = sticky("a secret of the house", "app", &["a", "b"]);
        let cookie = sticky.cookie(Seat(1), at(0)).unwrap();
        let session = |ends_soon| Some(Session { seat: Seat(1), ends_soon });
        assert_eq!(sticky.read(&cookie, at(0)), session(false));
        assert_eq!(sticky.read(&cookie, at(1_799)), session(false));
        assert_eq!(sticky.read(&cookie, at(1_800)), session(true));
        assert_eq!(sticky.read(&cookie, at(3_599)), session(true));
        assert_eq!(sticky.read(&cookie, at(3_600)), None);
        assert_eq!(sticky.cookie(Seat(2), at(0)), None);
    }

    #[test]
    fn another_process_with_the_same_secret_understands_it() {
        let cookie = sticky("a secret of the house", "app", &["a", "b"]).cookie(Seat(1), at(0)).unwrap();
        let read = |secret, upstream, names: &[&str]| {
            sticky(secret, upstream, names).read(&cookie, at(0)).map(|session| session.seat)
        };
        assert_eq!(read("a secret of the house", "app", &["x", "y", "b"]), Some(Seat(2)), "seats may differ");
        assert_eq!(read("a secret of the house", "app", &["a"]), None, "the backend is gone");
        assert_eq!(read("another secret of ours", "app", &["a", "b"]), None);
        assert_eq!(read("a secret of the house", "web", &["a", "b"]), None);
    }

    #[test]
    fn a_cookie_tells_nothing_of_the_inside() {
        let cookie = sticky("a secret of the house", "app", &["10.0.0.1:80"]).cookie(Seat(0), at(0)).unwrap();
        assert_eq!(cookie.len(), 64);
        assert!(cookie.bytes().all(|byte| byte.is_ascii_hexdigit()), "{cookie}");
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_no_cookie(position in 0..64_usize, digit in "[0-9a-f]", any in ".{0,80}") {
            let sticky = sticky("a secret of the house", "app", &["a", "b"]);
            let cookie = sticky.cookie(Seat(1), at(0)).unwrap();
            let mut changed = cookie.clone();
            changed.replace_range(position..=position, &digit);
            prop_assert_eq!(sticky.read(&changed, at(0)).is_some(), changed == cookie);
            prop_assert_eq!(sticky.read(&any, at(0)), None);
        }
    }
}
