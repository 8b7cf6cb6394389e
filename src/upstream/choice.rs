//! Among whom does a policy choose right now? The tiers that serve, each with its share, its members and its policy.
//!
//! It is built when a state has changed, and never changes itself: a request sees one choice, whole.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::eligible::Candidate;
use super::slow_start::SlowStart;
use super::tiers::{Rule, Tier, tiers};
use super::{Member, Upstream};
use crate::backend::{Loads, Seat, State};
use crate::balance::{self, Ask, Members, Policy, Ready};

/// Who may be chosen now: at least one tier.
pub struct Choice {
    tiers: Box<[Serving]>,
    /// Who serves when those on trial are busy with theirs; nobody while there is no trial.
    instead: Box<[Serving]>,
    care: Care,
}

/// Those that a request is given only with care; nearly always nobody.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// One request at a time may try them.
    pub on_trial: Vec<Seat>,
    /// Their quota is nearly used up, and they are passed over most of the time.
    pub low: Vec<Seat>,
}

/// A tier that serves.
pub struct Serving {
    /// Its number in the configuration.
    pub number: u32,
    /// How much of all requests it takes.
    pub share: f64,
    /// Those who may be chosen.
    pub members: Members,
    /// How they are chosen.
    pub policy: Box<dyn Policy>,
}

impl Serving {
    /// A seat of this tier that was not tried.
    fn choose(&self, loads: &Loads, ask: &Ask, tried: &[Seat]) -> Option<Seat> {
        Some(self.policy.choose(Ready::new(&self.members, loads, tried)?, ask))
    }
}

impl Choice {
    /// `None` when no tier serves.
    pub fn new(
        tiers: impl IntoIterator<Item = Serving>,
        instead: impl IntoIterator<Item = Serving>,
        care: Care,
    ) -> Option<Self> {
        let tiers: Box<[Serving]> = tiers.into_iter().collect();
        (!tiers.is_empty()).then(|| Self { tiers, instead: instead.into_iter().collect(), care })
    }

    /// A seat that was not tried, of those who serve while a trial goes on.
    pub fn instead(&self, loads: &Loads, ask: &Ask, tried: &[Seat]) -> Option<Seat> {
        self.instead.iter().find_map(|tier| tier.choose(loads, ask, tried))
    }

    /// Who is given requests only with care.
    pub fn care(&self) -> &Care {
        &self.care
    }

    /// A seat that was not tried, of the tier that the request falls to, or else of another one.
    pub fn choose(&self, loads: &Loads, ask: &Ask, tried: &[Seat]) -> Option<Seat> {
        let own = self.tier_of(ask);
        let choose = |tier: &Serving| tier.choose(loads, ask, tried);
        self.tiers.get(own).and_then(choose).or_else(|| self.tiers.iter().find_map(choose))
    }

    /// Those who may be chosen, tier by tier.
    pub fn members(&self) -> impl Iterator<Item = &Members> {
        self.tiers.iter().map(|tier| &tier.members)
    }

    /// Whether this one may be chosen.
    pub fn contains(&self, seat: Seat) -> bool {
        self.tiers.iter().any(|tier| tier.members.seats().contains(&seat))
    }

    /// The numbers of the tiers, and what each takes of all requests.
    fn shares(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.tiers.iter().map(|tier| (tier.number, tier.share))
    }

    /// Whether it says the same as these tiers with these members.
    pub fn is(&self, tiers: &[(Tier, Members)], care: &Care) -> bool {
        let same = |(ours, (theirs, members)): (&Serving, &(Tier, Members))| {
            let members_too = ours.members.seats() == members.seats() && ours.members.weights() == members.weights();
            ours.number == theirs.number && ours.share == theirs.share && members_too
        };
        self.care == *care && self.tiers.len() == tiers.len() && self.tiers.iter().zip(tiers).all(same)
    }

    /// By the key and not by chance, where there is a key, so that it keeps its tier too. The half of the hash that
    /// policies look at last comes first here: otherwise a tier would only ever see a part of all hashes.
    fn tier_of(&self, ask: &Ask) -> usize {
        if self.tiers.len() == 1 {
            return 0;
        }
        let drawn = ask.hash.rotate_left(32) as f64 / u64::MAX as f64;
        let mut end = 0.0;
        let shares = self.tiers.iter().take(self.tiers.len() - 1);
        shares
            .take_while(|tier| {
                end += tier.share;
                end <= drawn
            })
            .count()
    }
}

impl Upstream {
    /// Works out anew who may be chosen; one at a time, or an older choice might replace a newer one. Says when it has to
    /// be done again even if no state changes.
    pub(super) fn choose_again(&self) -> Option<Duration> {
        let _turn = self.choosing.lock();
        let slow_start = self.note_states();
        let tiers = self.tiers(State::Healthy);
        self.tell_panic(tiers.iter().any(|tier| tier.in_panic));
        let with_members = |tier| self.with_members(tier, slow_start.as_ref());
        let tiers: Vec<_> = tiers.into_iter().filter_map(with_members).collect();
        let (old, care) = (self.choice.load(), self.care());
        // Those on trial serve with care, so it must be known who serves instead.
        let instead = (!care.on_trial.is_empty()).then(|| self.tiers(State::Ejected));
        let instead: Vec<_> = instead.into_iter().flatten().filter_map(with_members).collect();
        let look_again = slow_start.as_ref().and_then(|(slow_start, _)| slow_start.next_look());
        if care.on_trial.is_empty() && old.as_ref().is_some_and(|old| old.is(&tiers, &care)) {
            return look_again;
        }
        let serving = |(tier, members)| self.serving(&tier, members);
        let choice = Choice::new(tiers.into_iter().map(serving), instead.into_iter().map(serving), care);
        self.tell_shares(old.as_deref(), choice.as_ref());
        self.choice.store(choice.map(Arc::new));
        self.queue.look();
        look_again
    }

    /// The tiers that serve, if those on trial count as if they were in this state.
    fn tiers(&self, on_trial: State) -> Vec<Tier> {
        let candidate = |member: &Member| {
            let state = if member.backend.is_on_trial() { on_trial } else { member.backend.state() };
            (member.tier, Candidate { state, weight: member.weight })
        };
        let candidates: Vec<_> = self.members.iter().map(candidate).collect();
        tiers(&candidates, Rule { overflow: self.config.overflow, panic_threshold: self.config.panic_threshold })
    }

    /// Says when a panic begins and when it ends.
    fn tell_panic(&self, now: bool) {
        let (before, name) = (self.in_panic.swap(now, Relaxed), self.name());
        let threshold = self.config.panic_threshold * 100.0;
        match (before, now) {
            (false, true) => log::warn!(
                "upstream {name}: panic: less than {threshold}% of its backends are alive and no other tier helps, so all \
                 are asked whatever their state"
            ),
            (true, false) => log::info!("upstream {name}: the panic is over"),
            (true, true) | (false, false) => {}
        }
    }

    /// The members of a tier, with their weights.
    fn with_members(
        &self,
        tier: Tier,
        slow_start: Option<&(MutexGuard<'_, SlowStart>, Instant)>,
    ) -> Option<(Tier, Members)> {
        let chosen = tier.places.iter().filter_map(|&place| self.members.get(place));
        let mut members: Vec<_> = chosen.map(|member| (member.backend.seat, member.weight)).collect();
        // In a panic some of them are out: to spare those that are back would be to overload the others.
        if let Some((slow_start, now)) = slow_start.filter(|_| !tier.in_panic) {
            let weights = slow_start.weights(&members, *now);
            members.iter_mut().zip(weights).for_each(|((_, weight), grown)| *weight = grown);
        }
        Some((tier, Members::new(members)?))
    }

    /// A tier with a policy for these members.
    fn serving(&self, tier: &Tier, members: Members) -> Serving {
        let start = self.turns.fetch_add(1, Relaxed);
        let policy = balance::build(&self.config.balance, &members, |seat| self.name_of(seat), start);
        Serving { number: tier.number, share: tier.share, members, policy }
    }

    /// Says when the tiers begin to share otherwise.
    fn tell_shares(&self, old: Option<&Choice>, new: Option<&Choice>) {
        let shares = |choice: Option<&Choice>| choice.map_or(Vec::new(), |choice| choice.shares().collect());
        let (old, new) = (shares(old), shares(new));
        let only_the_first = |shares: &[(u32, f64)]| shares.iter().all(|&(tier, _)| Some(tier) == self.first_tier());
        if new.is_empty() || old == new || (only_the_first(&old) && only_the_first(&new)) {
            return;
        }
        let words: Vec<_> = new.iter().map(|(tier, share)| format!("tier {tier} {:.0}%", share * 100.0)).collect();
        log::info!("upstream {}: of all requests {}", self.name(), words.join(", "));
    }

    fn first_tier(&self) -> Option<u32> {
        self.members.iter().filter(|member| member.weight > 0).map(|member| member.tier).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Moment;
    use crate::balance::build;
    use crate::config::{Balance, HashKey};

    /// Tiers with these shares in percent; tier 0 has the seats 0 and 1, tier 1 the seats 2 and 3, and so on.
    fn choice(balance: &Balance, shares: &[u32]) -> Choice {
        let serving = |(number, &share): (u32, &u32)| {
            let members = Members::new([0, 1].map(|one| (Seat(2 * number + one), 1))).unwrap();
            let policy = build(balance, &members, |Seat(seat)| seat.to_string(), 0);
            Serving { number, share: f64::from(share) / 100.0, members, policy }
        };
        Choice::new((0..).zip(shares).map(serving), [], Care::default()).unwrap()
    }

    fn asks(count: u64) -> impl Iterator<Item = Ask> {
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        (0..count).map(move |n| Ask { hash: hash(n), random: hash(!n), now: Moment::default() })
    }

    fn counts(choice: &Choice, tried: &[Seat]) -> [u32; 6] {
        let loads = Loads::with_seats(6);
        let mut counts = [0; 6];
        for ask in asks(6_000) {
            let Seat(seat) = choice.choose(&loads, &ask, tried).unwrap();
            counts[seat as usize] += 1;
        }
        counts
    }

    #[test]
    fn each_tier_gets_its_share_and_shares_it_evenly() {
        let hash = Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 };
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConnections, Balance::PeakEwma, hash] {
            let counts = counts(&choice(&balance, &[70, 20, 10]), &[]);
            for (count, expected) in counts.into_iter().zip([2_100, 2_100, 600, 600, 300, 300]) {
                assert!(count.abs_diff(expected) < 200, "{balance:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_tier_that_was_tried_hands_over_to_the_others() {
        let choice = choice(&Balance::RoundRobin, &[70, 30]);
        let counts = counts(&choice, &[Seat(0), Seat(1), Seat(3)]);
        assert_eq!(counts, [0, 0, 6_000, 0, 0, 0]);
        let all = [0, 1, 2, 3].map(Seat);
        assert_eq!(choice.choose(&Loads::with_seats(4), &asks(1).next().unwrap(), &all), None);
    }

    #[test]
    fn a_key_keeps_its_tier() {
        let choice = choice(&Balance::ConsistentHash { key: HashKey::Path, bounded_load: 1.25 }, &[50, 50]);
        let loads = Loads::with_seats(4);
        for ask in asks(100) {
            let first = choice.choose(&loads, &ask, &[]);
            assert!((0..5).all(|random| choice.choose(&loads, &Ask { random, ..ask }, &[]) == first));
        }
    }
}
