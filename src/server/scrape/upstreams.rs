//! How are the backends, and what was asked of them? Those of the configuration, and those that are gone and still at work.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::{Backend, Counts, Reading, State};
use crate::observe::metrics::Page;
use crate::observe::metrics::catalogue::{self as c, Family};
use crate::proxy::Snapshot;
use crate::upstream::Upstream;

/// A backend at this moment.
pub(super) struct Seat {
    backend: Arc<Backend>,
    reading: Reading,
    weight: u32,
    tier: u32,
    in_flight: u32,
    most: Option<u32>,
}

/// All backends, each name of an upstream once: one that is gone gives way to the one that has taken its name.
pub(super) fn seats(snapshot: &Snapshot, gone: &[Arc<Upstream>]) -> Vec<Seat> {
    let mut upstreams: Vec<_> = snapshot.upstreams.values().collect();
    upstreams.sort_by(|a, b| a.name().cmp(b.name()));
    let mut seats: Vec<_> = upstreams.iter().flat_map(|upstream| members(upstream)).collect();
    seats.extend(upstreams.into_iter().chain(gone).flat_map(|upstream| leavers(upstream)));
    let mut seen = HashSet::new();
    seats.retain(|seat| seen.insert((seat.backend.upstream.clone(), seat.backend.name.clone())));
    seats
}

fn members(upstream: &Upstream) -> Vec<Seat> {
    let seat = |member: &crate::upstream::Member| Seat {
        backend: member.backend.clone(),
        reading: member.backend.reading(),
        weight: member.weight,
        tier: member.tier,
        in_flight: upstream.in_flight(&member.backend),
        most: member.most(),
    };
    upstream.members().iter().map(seat).collect()
}

fn leavers(upstream: &Upstream) -> Vec<Seat> {
    let seat = |leaver: &crate::upstream::Leaver| Seat {
        backend: leaver.backend().clone(),
        reading: leaver.backend().reading(),
        weight: 0,
        tier: leaver.config.tier,
        in_flight: upstream.in_flight(leaver.backend()),
        most: None,
    };
    upstream.leavers().iter().map(seat).collect()
}

impl Seat {
    fn labels(&self) -> [&str; 2] {
        [&self.backend.upstream, &self.backend.name]
    }
}

pub(super) fn attempts(page: &mut Page, seats: &[Seat]) {
    page.family(&c::ATTEMPTS, |series| {
        for seat in seats {
            let [upstream, backend] = seat.labels();
            let outcomes = seat.backend.counts.outcomes.get();
            outcomes.into_iter().for_each(|(outcome, count)| series.put([upstream, backend, outcome], count));
        }
    });
}

pub(super) fn backends(page: &mut Page, seats: &[Seat]) {
    page.family(&c::BACKEND_STATE, |series| {
        for seat in seats {
            let ([upstream, backend], now) = (seat.labels(), seat.backend.state());
            State::ALL.iter().for_each(|it| series.put([upstream, backend, it.as_str()], u8::from(*it == now)));
        }
    });
    each(page, &c::BACKEND_TRIAL, seats, |seat| Some(u8::from(seat.backend.is_on_trial())));
    each(page, &c::BACKEND_IN_FLIGHT, seats, |seat| Some(seat.in_flight));
    each(page, &c::BACKEND_LIMIT, seats, |seat| seat.most);
    each(page, &c::BACKEND_WEIGHT, seats, |seat| Some(seat.weight));
    each(page, &c::BACKEND_TIER, seats, |seat| Some(seat.tier));
    each(page, &c::BACKEND_REQUESTS, seats, |seat| Some(seat.reading.requests));
    each(page, &c::BACKEND_ERRORS, seats, |seat| Some(seat.reading.errors));
    each(page, &c::BACKEND_P50, seats, |seat| seat.reading.p50.map(|time| time.as_secs_f64()));
    each(page, &c::BACKEND_P99, seats, |seat| seat.reading.p99.map(|time| time.as_secs_f64()));
    each(page, &c::BACKEND_EJECTIONS, seats, |seat| Some(seat.backend.counts.ejections.get()));
    pairs(page, &c::BACKEND_PROBES, seats, |Counts { probes_passed, probes_failed, .. }| {
        [("passed", probes_passed.get()), ("failed", probes_failed.get())]
    });
    each(page, &c::BACKEND_LAST_HEALTHY, seats, |seat| seat.reading.last_healthy.map(since_1970));
    pairs(page, &c::BACKEND_CONNECTIONS, seats, |Counts { connected, reused, .. }| {
        [("new", connected.get()), ("reused", reused.get())]
    });
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// One value a backend, if it has one.
fn each<T: std::fmt::Display>(
    page: &mut Page,
    family: &'static Family,
    seats: &[Seat],
    of: impl Fn(&Seat) -> Option<T>,
) {
    page.family(family, |series| seats.iter().for_each(|seat| series.put_some(seat.labels(), of(seat))));
}

/// Two counts a backend, each with its word.
fn pairs(page: &mut Page, family: &'static Family, seats: &[Seat], of: fn(&Counts) -> [(&'static str, u64); 2]) {
    page.family(family, |series| {
        for seat in seats {
            let [upstream, backend] = seat.labels();
            of(&seat.backend.counts).into_iter().for_each(|(word, count)| series.put([upstream, backend, word], count));
        }
    });
}

fn is_ready(member: &crate::upstream::Member) -> bool {
    member.weight > 0 && matches!(member.backend.state(), State::Healthy | State::Pending)
}

/// What is counted of upstreams as a whole: how many of each are ready, and who waits for one.
pub(super) fn whole(page: &mut Page, snapshot: &Snapshot) {
    let mut upstreams: Vec<_> = snapshot.upstreams.values().collect();
    upstreams.sort_by(|a, b| a.name().cmp(b.name()));
    page.family(&c::UPSTREAM_READY, |series| {
        for upstream in &upstreams {
            let ready = upstream.members().iter().filter(|member| is_ready(member)).count();
            series.put([upstream.name()], ready);
        }
    });
    page.family(&c::QUEUE_LENGTH, |series| {
        upstreams.iter().for_each(|upstream| series.put_some([upstream.name()], upstream.waiting()));
    });
    page.family(&c::QUEUE_WAITS, |series| {
        for (upstream, (outcomes, _)) in upstreams.iter().filter_map(|upstream| Some((upstream, upstream.waits()?))) {
            outcomes.get().iter().for_each(|(outcome, count)| series.put([upstream.name(), outcome], count));
        }
    });
    page.family(&c::QUEUE_SECONDS, |series| {
        for (upstream, (_, times)) in upstreams.iter().filter_map(|upstream| Some((upstream, upstream.waits()?))) {
            series.spread([upstream.name()], &times.get());
        }
    });
}
