//! Which tier serves how much? Shares by health, before a policy chooses inside a tier.
//!
//! Tier 0 serves alone while it is healthy enough. How healthy a tier is, is the share of its backends that are fit,
//! times the *overflow* factor, and at most 1: with 140% a tier of ten carries everything while eight are fit, since
//! whoever plans for less than a quarter in reserve has no reserve. What a tier cannot carry goes on to the next. If
//! all tiers together are less than healthy, they share everything in proportion, and those in *panic* use all of
//! their backends: see [`eligible`].
//!
//! Backends of weight 0 take nothing and count for nothing. The rule is Envoy's, with one addition: backends that have
//! not been probed yet count as fit, or a start would look like a breakdown; yet they serve only while no tier has a
//! HEALTHY one.

use std::collections::BTreeMap;

use super::eligible::{Candidate, eligible, in_panic};
use crate::backend::State;

/// When a tier has enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What the share of fit backends is multiplied with; at least 1.
    pub overflow: f64,
    /// With strictly fewer alive than this share, all are used.
    pub panic_threshold: f64,
}

/// A tier that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Its number in the configuration.
    pub number: u32,
    /// How much of all requests it takes: more than 0, and together 1.
    pub share: f64,
    /// The places of those who may be chosen, in their order: at least one.
    pub places: Vec<usize>,
    /// Whether they are chosen whatever their state.
    pub in_panic: bool,
}

/// The tiers that serve, in order; none if nobody may be chosen. `backends` are pairs of a tier and a candidate.
///
/// ```
/// use portcullis::backend::State::{Healthy, Unreachable};
/// use portcullis::upstream::eligible::Candidate;
/// use portcullis::upstream::tiers::{Rule, tiers};
/// let backend = |tier, state| (tier, Candidate { state, weight: 1 });
/// let backends = [backend(0, Healthy), backend(0, Unreachable), backend(1, Healthy)];
/// let serving = tiers(&backends, Rule { overflow: 1.4, panic_threshold: 0.5 });
/// assert_eq!(serving.iter().map(|tier| format!("{:.1}", tier.share)).collect::<Vec<_>>(), ["0.7", "0.3"]);
/// ```
pub fn tiers(backends: &[(u32, Candidate)], rule: Rule) -> Vec<Tier> {
    let groups = groups(backends);
    let Some(best) = groups.iter().filter_map(Group::best).min() else { return last_hope(&groups, rule) };
    let healths: Vec<f64> = groups.iter().map(|group| group.health(best, rule.overflow)).collect();
    let sum: f64 = healths.iter().sum();
    let mut left = 1.0;
    let mut serving = Vec::new();
    for (group, health) in groups.iter().zip(healths) {
        let share = f64::min(left, health / sum.min(1.0));
        left -= share;
        // What is less than one request in a billion is a rounding error.
        if share > 1e-9 {
            let threshold = if sum < 1.0 { rule.panic_threshold } else { 0.0 };
            serving.extend(group.tier(share, threshold));
        }
    }
    serving
}

/// Nobody is fit: the first tier in panic is asked all the same.
fn last_hope(groups: &[Group], rule: Rule) -> Vec<Tier> {
    groups.iter().find_map(|group| group.tier(1.0, rule.panic_threshold)).into_iter().collect()
}

/// The backends of one tier that have a weight, with their places.
struct Group {
    number: u32,
    places: Vec<usize>,
    candidates: Vec<Candidate>,
}

fn groups(backends: &[(u32, Candidate)]) -> Vec<Group> {
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for (place, &(number, candidate)) in backends.iter().enumerate().filter(|(_, (_, backend))| backend.weight > 0) {
        let empty = || Group { number, places: Vec::new(), candidates: Vec::new() };
        let group = groups.entry(number).or_insert_with(empty);
        group.places.push(place);
        group.candidates.push(candidate);
    }
    groups.into_values().collect()
}

/// How willingly a backend in this state is asked: 0 first; `None` only in a panic, if at all.
pub(super) fn rank(state: State) -> Option<u8> {
    match state {
        State::Healthy => Some(0),
        State::Pending => Some(1),
        State::Ejected => Some(2),
        State::Unreachable | State::Throttled | State::Draining => None,
    }
}

impl Group {
    /// The rank of its best backend.
    fn best(&self) -> Option<u8> {
        self.candidates.iter().filter_map(|candidate| rank(candidate.state)).min()
    }

    /// From 0 to 1; nothing while another tier has better backends.
    fn health(&self, best: u8, overflow: f64) -> f64 {
        if self.best() != Some(best) {
            return 0.0;
        }
        let fit = |candidate: &&Candidate| rank(candidate.state).is_some_and(|rank| rank <= best.max(1));
        let fit = self.candidates.iter().filter(fit).count() as f64;
        f64::min(1.0, overflow * fit / self.candidates.len() as f64)
    }

    fn tier(&self, share: f64, panic_threshold: f64) -> Option<Tier> {
        let chosen = eligible(&self.candidates, panic_threshold);
        let places: Vec<_> = chosen.into_iter().filter_map(|place| self.places.get(place).copied()).collect();
        let in_panic = in_panic(&self.candidates, panic_threshold);
        (!places.is_empty()).then_some(Tier { number: self.number, share, places, in_panic })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { overflow: 1.4, panic_threshold: 0.5 };

    /// Tiers from 0 on, with a blank between them; `H`, `P` and `U` as the states, `0` for a HEALTHY one of weight 0.
    fn backends(tiers: &str) -> Vec<(u32, Candidate)> {
        let backend = |number, letter| {
            let state = match letter {
                'H' | '0' => State::Healthy,
                'P' => State::Pending,
                _ => State::Unreachable,
            };
            (number, Candidate { state, weight: u32::from(letter != '0') })
        };
        let numbered = (0..).zip(tiers.split(' '));
        numbered.flat_map(|(number, tier)| tier.chars().map(move |letter| backend(number, letter))).collect()
    }

    /// The shares in percent, and the places, of the tiers that serve.
    #[track_caller]
    fn check_rule(states: &str, rule: Rule, expected: &[(u32, &[usize])]) {
        let tiers = tiers(&backends(states), rule);
        let seen: Vec<_> = tiers.iter().map(|tier| ((tier.share * 100.0).round() as u32, &*tier.places)).collect();
        assert_eq!(seen, expected, "{states} at {rule:?}");
    }

    #[track_caller]
    fn check(states: &str, expected: &[(u32, &[usize])]) {
        check_rule(states, RULE, expected);
    }

    #[test]
    fn tier_0_serves_alone_while_it_is_healthy_enough() {
        check("HH H", &[(100, &[0, 1])]);
        check("HHHU HH", &[(100, &[0, 1, 2])]);
        check("HHHHH UU", &[(100, &[0, 1, 2, 3, 4])]);
    }

    #[test]
    fn what_a_tier_cannot_carry_goes_on_to_the_next() {
        check("HU H", &[(70, &[0]), (30, &[2])]);
        check("HUUU HU H", &[(35, &[0]), (65, &[4])]);
        check("HUUU HUUU H", &[(35, &[0]), (35, &[4]), (30, &[8])]);
        check_rule("HHHU H", Rule { overflow: 1.0, ..RULE }, &[(75, &[0, 1, 2]), (25, &[4])]);
        check_rule("HUUU H", Rule { overflow: 4.0, ..RULE }, &[(100, &[0])]);
    }

    #[test]
    fn a_tier_without_anybody_is_passed_over() {
        check("UU H", &[(100, &[2])]);
        check("UU UU H", &[(100, &[4])]);
        check("0 H", &[(100, &[1])]);
        check(" H", &[(100, &[0])]);
    }

    #[test]
    fn tiers_that_are_too_weak_together_share_in_proportion() {
        check("HHUUU HUUUU", &[(67, &[0, 1, 2, 3, 4]), (33, &[5, 6, 7, 8, 9])]);
        check_rule("HHUUU HUUUU", Rule { panic_threshold: 0.3, ..RULE }, &[(67, &[0, 1]), (33, &[5, 6, 7, 8, 9])]);
        check_rule("HHUUU HUUUU", Rule { panic_threshold: 0.0, ..RULE }, &[(67, &[0, 1]), (33, &[5])]);
    }

    #[test]
    fn half_alive_is_no_panic_and_a_healthy_tier_prevents_one() {
        check("HU", &[(100, &[0])]);
        check("HUU", &[(100, &[0, 1, 2])]);
        check("HUU H", &[(47, &[0]), (53, &[3])]);
    }

    #[test]
    fn pending_backends_serve_while_nobody_is_healthy_and_count_as_fit() {
        check("PP P", &[(100, &[0, 1])]);
        check("HPP H", &[(100, &[0])]);
        check("PP H", &[(100, &[2])]);
        check("UP P", &[(70, &[1]), (30, &[2])]);
        check("UU P", &[(100, &[2])]);
    }

    #[test]
    fn when_nobody_is_left_the_first_tier_is_asked_unless_that_is_switched_off() {
        check("UU U", &[(100, &[0, 1])]);
        check_rule("UU U", Rule { panic_threshold: 0.0, ..RULE }, &[]);
        check("", &[]);
        check("0", &[]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_nobody_serves_while_there_is_someone_better(
            states in "[HPU0]{0,5}( [HPU0]{0,5}){0,3}", panic_threshold in 0.0..=1.0, overflow in 1.0..=3.0,
        ) {
            let backends = backends(&states);
            let tiers = tiers(&backends, Rule { overflow, panic_threshold });
            let sum: f64 = tiers.iter().map(|tier| tier.share).sum();
            prop_assert!(tiers.is_empty() || (sum - 1.0).abs() < 1e-6, "{:?}", tiers);
            prop_assert!(tiers.iter().all(|tier| tier.share > 0.0 && !tier.places.is_empty()));
            prop_assert!(tiers.is_sorted_by(|a, b| a.number < b.number));
            let chosen = || tiers.iter().flat_map(|tier| &tier.places).map(|&place| backends[place].1);
            prop_assert!(chosen().all(|one| one.weight > 0));
            let is_healthy = |one: &Candidate| one.state == State::Healthy && one.weight > 0;
            let healthy = backends.iter().any(|(_, one)| is_healthy(one));
            prop_assert!(!healthy || chosen().any(|one| is_healthy(&one)));
            prop_assert!(tiers.iter().any(|tier| tier.in_panic) || chosen().all(|one| one.state != State::Unreachable));
            let alive = backends.iter().any(|(_, one)| one.weight > 0 && one.state != State::Unreachable);
            prop_assert!(!tiers.is_empty() || !alive);
        }
    }
}
