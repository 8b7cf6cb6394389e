//! What becomes of each request? Arrivals, queues, services, probes and attempts in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use portcullis::backend::{Lease, Loads, Moment, Seat, State};
use portcullis::balance::{Ask, Members, Policy, Ready, build};
use portcullis::config::Balance;
use portcullis::upstream::eligible::Candidate;
use portcullis::upstream::slow_start::SlowStart;
use portcullis::upstream::tiers::{Rule, tiers};

use super::scene::{Mood, Scene};

/// Requests that a backend works on at once; others wait in line.
const WORKERS: usize = 8;

/// How long a request takes on average, in microseconds.
const SERVICE: f64 = 20_000.0;

const REFUSAL: u64 = 300;
const FAST_FAILURE: u64 = 1_000;
const PROBES_EVERY: u64 = 500_000;
const FALL: u32 = 3;
const RISE: u32 = 2;
const ATTEMPTS: usize = 3;

/// A client waits this long.
const PATIENCE: u64 = 5_000_000;

/// What became of a scene under one policy.
pub(crate) struct Run {
    /// When each request came, how long it took (both in microseconds), and whether it was answered.
    pub(crate) answers: Vec<(u64, u64, bool)>,
    /// Attempts at each backend.
    pub(crate) attempts: Vec<u64>,
}

pub(crate) struct World<'a> {
    scene: &'a Scene,
    balance: &'a Balance,
    now: u64,
    began: Instant,
    chance: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    servers: Vec<Server>,
    requests: Vec<Request>,
    loads: Loads,
    slow_start: SlowStart,
    choice: Option<(Members, Box<dyn Policy>)>,
    run: Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Probe,
    /// A request and its backend, whether a worker had it in hand, and whether it is an answer.
    Done {
        request: usize,
        seat: usize,
        worker: bool,
        good: bool,
    },
}

struct Server {
    state: State,
    row: u32,
    busy: usize,
    waiting: VecDeque<usize>,
}

struct Request {
    came: u64,
    sent: u64,
    tried: Vec<Seat>,
    lease: Option<Lease>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scene: &'a Scene, balance: &'a Balance) -> Self {
        let server = |_| Server { state: State::Pending, row: 0, busy: 0, waiting: VecDeque::new() };
        let run = Run { answers: Vec::new(), attempts: vec![0; scene.backends] };
        Self {
            scene,
            balance,
            now: 0,
            began: Instant::now(),
            chance: 42,
            events: BinaryHeap::new(),
            next_event: 0,
            servers: (0..scene.backends).map(server).collect(),
            requests: Vec::new(),
            loads: Loads::with_seats(scene.backends).with_estimates(),
            slow_start: SlowStart::new(scene.slow_start.max(Duration::from_secs(1)), None, &[]),
            choice: None,
            run,
        }
    }

    pub(crate) fn run(mut self) -> Run {
        self.first_probes();
        self.after(0, Event::Arrive);
        self.after(PROBES_EVERY, Event::Probe);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::Probe => self.probe(),
                Event::Done { request, seat, worker, good } => self.done(request, seat, worker, good),
            }
        }
        self.run
    }

    fn after(&mut self, time: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now + time, self.next_event, event)));
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A time that is exponentially distributed about this mean.
    fn about(&mut self, mean: f64) -> u64 {
        let unit = ((self.random() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        (-unit.ln() * mean) as u64
    }

    fn mood(&self, seat: usize) -> Mood {
        let secs = self.now as f64 / 1e6;
        if seat < self.scene.odd { (self.scene.mood)(secs) } else { Mood::Serves(1.0) }
    }

    fn is_over(&self) -> bool {
        self.now >= self.scene.seconds * 1_000_000
    }

    fn arrive(&mut self) {
        if self.is_over() {
            return;
        }
        self.requests.push(Request { came: self.now, sent: self.now, tried: Vec::new(), lease: None });
        self.attempt(self.requests.len() - 1);
        let next = self.about(1e6 / self.scene.rate);
        self.after(next, Event::Arrive);
    }

    fn attempt(&mut self, request: usize) {
        let random = self.random();
        let ask = Ask { hash: random.rotate_left(29), random, now: self.moment() };
        let chosen = self.choice.as_ref().and_then(|(members, policy)| {
            Some(policy.choose(Ready::new(members, &self.loads, &self.requests[request].tried)?, &ask))
        });
        let Some(seat) = chosen else { return self.end(request, false) };
        let lease = self.loads.lease(seat);
        let now = self.now;
        let asked = &mut self.requests[request];
        (asked.sent, asked.lease) = (now, Some(lease));
        asked.tried.push(seat);
        let seat = seat.0 as usize;
        self.run.attempts[seat] += 1;
        match self.mood(seat) {
            Mood::Down => self.after(REFUSAL, Event::Done { request, seat, worker: false, good: false }),
            Mood::FailsFast => self.after(FAST_FAILURE, Event::Done { request, seat, worker: false, good: false }),
            Mood::Serves(_) if self.servers[seat].busy == WORKERS => self.servers[seat].waiting.push_back(request),
            Mood::Serves(factor) => self.serve(request, seat, factor),
        }
    }

    fn serve(&mut self, request: usize, seat: usize, factor: f64) {
        self.servers[seat].busy += 1;
        let time = self.about(SERVICE * factor);
        self.after(time, Event::Done { request, seat, worker: true, good: true });
    }

    fn done(&mut self, request: usize, seat: usize, worker: bool, good: bool) {
        let mood = self.mood(seat);
        self.requests[request].lease = None;
        if worker {
            self.servers[seat].busy -= 1;
            self.next_in_line(seat, mood);
        }
        let took = self.now - self.requests[request].sent;
        let good = good && mood != Mood::Down && took < PATIENCE;
        let (estimates, of, now) = (self.loads.estimates().unwrap(), Seat(seat as u32), self.moment());
        if good {
            estimates.answered(of, Duration::from_micros(took), now);
            return self.end(request, true);
        }
        estimates.failed(of, None, now);
        // A status is an answer: only what a connection failed of goes elsewhere.
        let again = mood == Mood::Down && self.requests[request].tried.len() < ATTEMPTS && took < PATIENCE;
        if again { self.attempt(request) } else { self.end(request, false) }
    }

    fn next_in_line(&mut self, seat: usize, mood: Mood) {
        match mood {
            Mood::Serves(factor) => {
                if let Some(next) = self.servers[seat].waiting.pop_front() {
                    self.serve(next, seat, factor);
                }
            }
            Mood::Down | Mood::FailsFast => {
                for request in std::mem::take(&mut self.servers[seat].waiting) {
                    self.after(REFUSAL, Event::Done { request, seat, worker: false, good: false });
                }
            }
        }
    }

    fn end(&mut self, request: usize, good: bool) {
        let came = self.requests[request].came;
        self.run.answers.push((came, (self.now - came).min(PATIENCE), good));
    }

    fn moment(&self) -> Moment {
        Moment::after(Duration::from_micros(self.now))
    }

    fn first_probes(&mut self) {
        for seat in 0..self.servers.len() {
            let up = self.mood(seat) != Mood::Down;
            self.servers[seat].state = if up { State::Healthy } else { State::Unreachable };
        }
        self.choose_again();
    }

    fn probe(&mut self) {
        for seat in 0..self.servers.len() {
            let (up, server) = (self.mood(seat) != Mood::Down, &mut self.servers[seat]);
            let agrees = up == (server.state == State::Healthy);
            server.row = if agrees { 0 } else { server.row + 1 };
            let (enough, next) = if up { (RISE, State::Healthy) } else { (FALL, State::Unreachable) };
            if server.row >= enough {
                (server.state, server.row) = (next, 0);
            }
        }
        self.choose_again();
        if !self.is_over() {
            self.after(PROBES_EVERY, Event::Probe);
        }
    }

    fn choose_again(&mut self) {
        let now = self.began + Duration::from_micros(self.now);
        for (server, seat) in self.servers.iter().zip((0..).map(Seat)) {
            self.slow_start.note(seat, server.state, now);
        }
        let backends: Vec<_> =
            self.servers.iter().map(|server| (0, Candidate { state: server.state, weight: 1 })).collect();
        let serving = tiers(&backends, Rule { overflow: 1.4, panic_threshold: 0.5 });
        let places = serving.first().map_or(&[][..], |tier| &tier.places);
        let mut members: Vec<_> = places.iter().map(|&place| (Seat(place as u32), 1)).collect();
        if !self.scene.slow_start.is_zero() && serving.first().is_some_and(|tier| !tier.in_panic) {
            let weights = self.slow_start.weights(&members, now);
            members.iter_mut().zip(weights).for_each(|((_, weight), grown)| *weight = grown);
        }
        let Some(members) = Members::new(members) else { return self.choice = None };
        let same = |old: &Members| old.seats() == members.seats() && old.weights() == members.weights();
        if !self.choice.as_ref().is_some_and(|(old, _)| same(old)) {
            let policy = build(self.balance, &members, |Seat(seat)| format!("backend-{seat}"), self.now);
            self.choice = Some((members, policy));
        }
    }
}
