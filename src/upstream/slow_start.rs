//! How much of its weight has a backend that has just come? A tenth at first, then more step by step.
//!
//! A cold server is slow: its caches are empty, its code is not compiled, its connections are not there. So one that
//! joins a running upstream, or turns HEALTHY after it was out, takes `weight * max(10%, elapsed / window)` (the curve
//! is Envoy's). Those that are there when the upstream begins have nobody beside them that is warm, and take all.
//! Weights are whole numbers, so elapsed time counts in twentieths of the window.
//!
//! Time comes in as an argument. A task looks again while somebody's share grows, and only then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Upstream;
use crate::backend::{Seat, State};
use crate::config;

/// A full share, in steps.
const STEPS: u32 = 20;

/// The least share, in steps.
const LEAST: u32 = 2;

/// How often shares are looked at, at most.
const OFTEN: Duration = Duration::from_millis(250);

/// Elapsed time counts as this much at least, as in Envoy.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Who has just come to an upstream.
#[derive(Clone, Debug)]
pub struct SlowStart {
    window: Duration,
    /// Those that are not warm.
    cold: HashMap<Seat, Cold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cold {
    /// It does not serve.
    Out,
    /// It serves since then.
    Since(Instant),
}

impl SlowStart {
    /// Everybody is warm but those that join, and those that were not warm before.
    pub fn new(window: Duration, old: Option<&Self>, joining: &[Seat]) -> Self {
        let mut cold = old.map(|old| old.cold.clone()).unwrap_or_default();
        cold.extend(joining.iter().map(|&seat| (seat, Cold::Out)));
        Self { window, cold }
    }

    /// Forgets all but those on these seats, or it would look at who is gone for ever.
    pub fn keep(&mut self, stays: impl Fn(Seat) -> bool) {
        self.cold.retain(|seat, _| stays(*seat));
    }

    /// Takes note of a state.
    pub fn note(&mut self, seat: Seat, state: State, now: Instant) {
        match (state, self.cold.get(&seat)) {
            (State::Unreachable | State::Ejected, _) => {
                self.cold.insert(seat, Cold::Out);
            }
            (State::Healthy, Some(Cold::Out)) => {
                self.cold.insert(seat, Cold::Since(now));
            }
            (State::Healthy, Some(&Cold::Since(began))) if now.saturating_duration_since(began) >= self.window => {
                self.cold.remove(&seat);
            }
            (State::Healthy | State::Pending | State::Throttled | State::Draining, _) => {}
        }
    }

    /// The weights of those who serve together, in whole numbers that may all be larger than they were.
    pub fn weights(&self, members: &[(Seat, u32)], now: Instant) -> Vec<u32> {
        let steps: Vec<_> = members.iter().map(|&(seat, _)| self.steps(seat, now)).collect();
        let alike = steps.iter().all(|one| steps.first() == Some(one));
        let weight = |(&(_, weight), steps): (&(Seat, u32), u32)| if alike { weight } else { weight * steps };
        members.iter().zip(steps).map(weight).collect()
    }

    /// When to look again; `None` while nobody's share grows.
    pub fn next_look(&self) -> Option<Duration> {
        let grows = self.cold.values().any(|cold| *cold != Cold::Out);
        grows.then(|| (self.window / STEPS).max(OFTEN))
    }

    fn steps(&self, seat: Seat, now: Instant) -> u32 {
        match self.cold.get(&seat) {
            None => STEPS,
            Some(Cold::Out) => LEAST,
            Some(&Cold::Since(began)) => {
                let elapsed = now.saturating_duration_since(began).max(AT_ONCE);
                let steps = elapsed.as_secs_f64() / self.window.as_secs_f64() * f64::from(STEPS);
                (steps as u32).clamp(LEAST, STEPS)
            }
        }
    }
}

/// Who is not warm in an upstream that is built anew: those that join one that runs already, and who was not warm there.
pub(super) fn slow_start(
    config: &config::Upstream,
    old: Option<&Upstream>,
    by_seat: &[Option<usize>],
    joining: &[Seat],
) -> Option<Mutex<SlowStart>> {
    let window = Some(config.slow_start).filter(|window| !window.is_zero())?;
    let before = old.and_then(|old| old.slow_start.as_ref()).map(|before| lock(before).clone());
    let joining = if old.is_some() { joining } else { &[] };
    let mut now = SlowStart::new(window, before.as_ref(), joining);
    now.keep(|seat| by_seat.get(seat.0 as usize).is_some_and(Option::is_some));
    Some(Mutex::new(now))
}

impl Upstream {
    /// Takes note of the states as they are now, if it matters who has just come.
    pub(super) fn note_states(&self) -> Option<(MutexGuard<'_, SlowStart>, Instant)> {
        let (mut slow_start, now) = (lock(self.slow_start.as_ref()?), Instant::now());
        for member in &self.members {
            slow_start.note(member.backend.seat, member.backend.state(), now);
        }
        Some((slow_start, now))
    }
}

fn lock(slow_start: &Mutex<SlowStart>) -> MutexGuard<'_, SlowStart> {
    slow_start.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Seat = Seat(0);
    const B: Seat = Seat(1);

    /// Begun at once, with a window of 40 s; `B` joins.
    struct Scene {
        start: SlowStart,
        began: Instant,
    }

    impl Scene {
        fn new(joining: &[Seat]) -> Self {
            Self { start: SlowStart::new(Duration::from_secs(40), None, joining), began: Instant::now() }
        }

        fn note(&mut self, seat: Seat, state: State, secs: u64) {
            self.start.note(seat, state, self.began + Duration::from_secs(secs));
        }

        #[track_caller]
        fn check(&mut self, secs: u64, expected: [u32; 2]) {
            let now = self.began + Duration::from_secs(secs);
            assert_eq!(self.start.weights(&[(A, 1), (B, 3)], now), expected, "after {secs} s");
        }
    }

    #[test]
    fn who_joins_begins_with_a_tenth_and_grows_in_steps() {
        let mut scene = Scene::new(&[B]);
        scene.note(A, State::Healthy, 0);
        scene.note(B, State::Healthy, 0);
        for (secs, steps) in [(0, 2), (4, 2), (5, 2), (6, 3), (20, 10), (39, 19)] {
            scene.check(secs, [20, 3 * steps]);
        }
        assert_eq!(scene.start.next_look(), Some(Duration::from_secs(2)));
        scene.note(B, State::Healthy, 40);
        scene.check(40, [1, 3]);
        assert_eq!(scene.start.next_look(), None);
    }

    #[test]
    fn who_was_out_grows_from_when_it_is_back() {
        let mut scene = Scene::new(&[]);
        scene.note(A, State::Healthy, 0);
        scene.note(B, State::Healthy, 0);
        scene.check(1, [1, 3]);
        scene.note(B, State::Unreachable, 2);
        assert_eq!(scene.start.next_look(), None, "nobody grows");
        scene.note(B, State::Healthy, 100);
        scene.check(110, [20, 15]);
        scene.note(B, State::Unreachable, 111);
        scene.note(B, State::Healthy, 200);
        scene.check(200, [20, 6]);
    }

    #[test]
    fn when_all_are_new_nobody_is() {
        let mut scene = Scene::new(&[]);
        scene.note(A, State::Pending, 0);
        scene.note(A, State::Healthy, 1);
        scene.note(B, State::Healthy, 9);
        scene.check(10, [1, 3]);
        assert_eq!(scene.start.next_look(), None);

        let mut scene = Scene::new(&[A, B]);
        scene.check(0, [1, 3]);
        scene.note(A, State::Healthy, 1);
        scene.note(B, State::Healthy, 1);
        scene.check(20, [1, 3]);
    }

    #[test]
    fn nobody_looks_again_for_one_who_is_gone() {
        let mut scene = Scene::new(&[B]);
        scene.note(B, State::Healthy, 0);
        assert!(scene.start.next_look().is_some());
        scene.start.keep(|seat| seat == A);
        assert_eq!(scene.start.next_look(), None);
        scene.check(20, [1, 3]);
    }

    #[test]
    fn a_reload_keeps_who_was_growing() {
        let mut scene = Scene::new(&[B]);
        scene.note(B, State::Healthy, 0);
        scene.start = SlowStart::new(Duration::from_secs(80), Some(&scene.start), &[]);
        scene.check(20, [20, 15]);
    }
}
