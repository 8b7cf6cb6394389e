//! What becomes of each request? Arrivals, queues, services, probes and attempts in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use portcullis::backend::{Moment, Seat};
use portcullis::balance::Ask;
use portcullis::config::{self, Balance, Config, Retry};
use portcullis::health::Age;
use portcullis::retry::{self, Budget, Circumstances, Failure, Verdict};

use super::pool::{Pick, Pool};
use super::scene::{Mood, Scene};

/// Requests that a backend works on at once; others wait in line.
const WORKERS: usize = 8;

/// How long a request takes on average, in microseconds.
const SERVICE: f64 = 20_000.0;

const REFUSAL: u64 = 300;
const FAST_FAILURE: u64 = 1_000;

/// A client waits this long.
const PATIENCE: u64 = 5_000_000;

/// The time of a quota, in microseconds.
const QUOTA: u64 = 10_000_000;

/// What became of a scene under one policy.
pub(crate) struct Run {
    /// When each request came, how long it took (both in microseconds), and whether it was answered.
    pub(crate) answers: Vec<(u64, u64, bool)>,
    /// Attempts at each backend.
    pub(crate) attempts: Vec<u64>,
}

pub(crate) struct World<'a> {
    scene: &'a Scene,
    now: u64,
    began: Instant,
    chance: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    servers: Vec<Server>,
    /// The places of those that are over are used again.
    requests: Vec<Request>,
    free: Vec<usize>,
    next_number: u64,
    pool: Pool,
    retry: Retry,
    budget: Budget,
    wake: Option<Age>,
    run: Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Probe(usize),
    /// A state ends by itself.
    Wake,
    /// What became of an attempt, and whether a worker had it in hand.
    Done {
        attempt: Attempt,
        worker: bool,
        outcome: Outcome,
    },
    /// A retry whose pause is over.
    Again {
        request: usize,
        number: u64,
    },
    /// The client goes.
    Leave(Attempt),
}

/// One try of one request at one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    request: usize,
    number: u64,
    seat: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Answer,
    Refused,
    Broken,
    Late,
    Unavailable,
    /// 429, and how long to wait.
    Throttled(u64),
}

#[derive(Default)]
struct Server {
    busy: usize,
    waiting: VecDeque<Attempt>,
    /// When its next probe is due.
    probe: u64,
    /// How many it has seen, for moods that count.
    seen: u32,
    quota_ends: u64,
}

struct Request {
    came: u64,
    sent: u64,
    /// Unique to the request and the attempt under way.
    number: u64,
    tried: Vec<Seat>,
    attempts: usize,
    retries: u32,
    rounds: u32,
    pick: Option<Pick>,
}

/// What the program makes of the scene's configuration.
fn configuration(scene: &Scene) -> Config {
    let first_tier = scene.backends - scene.second_tier;
    let backend = |place: usize| {
        let (address, tier) =
            (std::net::Ipv4Addr::from_bits(0x0A00_0001 + place as u32), u32::from(place >= first_tier));
        let quota = if place < scene.odd { scene.quota } else { "" };
        format!("{{ url: \"http://{address}:80\", tier: {tier}, quota: [{quota}] }}")
    };
    let backends: Vec<_> = (0..scene.backends).map(backend).collect();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:80\" }}]\nupstreams:\n  app:\n    backends: [{}]\n    {}\nroutes:\n  - \
         upstream: app\n    retry: {}\n",
        backends.join(", "),
        scene.upstream,
        scene.retry
    );
    config::parse(&text, scene.file, &config::Surroundings::of_process(".".into())).unwrap().config
}

impl<'a> World<'a> {
    pub(crate) fn new(scene: &'a Scene, balance: &Balance) -> Self {
        let (began, mut config) = (Instant::now(), configuration(scene));
        let upstream = config::Upstream { balance: balance.clone(), ..config.upstreams.remove(0) };
        Self {
            scene,
            now: 0,
            began,
            chance: 42,
            events: BinaryHeap::new(),
            next_event: 0,
            servers: (0..scene.backends).map(|_| Server::default()).collect(),
            requests: Vec::new(),
            free: Vec::new(),
            next_number: 0,
            pool: Pool::new(upstream, began),
            retry: config.routes.remove(0).retry,
            budget: Budget::new(began),
            wake: None,
            run: Run { answers: Vec::new(), attempts: vec![0; scene.backends] },
        }
    }

    pub(crate) fn run(mut self) -> Run {
        for seat in 0..self.servers.len() {
            self.probe(seat);
        }
        self.watch_time();
        self.after(0, Event::Arrive);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::Probe(seat) if self.servers[seat].probe == at => self.probe(seat),
                Event::Probe(_) => {}
                Event::Wake => self.pool.pass_time(Age::from_micros(at)),
                Event::Done { attempt, worker, outcome } => self.done(attempt, worker, outcome),
                Event::Again { request, number } if self.requests[request].number == number => {
                    self.attempt(request, None)
                }
                Event::Leave(attempt) if self.is_under_way(attempt) => self.leave(attempt),
                Event::Again { .. } | Event::Leave(_) => {}
            }
            self.watch_time();
        }
        self.run
    }

    fn after(&mut self, time: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now + time, self.next_event, event)));
    }

    /// The pool wants to choose again when a state has changed, and to be woken when something ends.
    fn watch_time(&mut self) {
        self.pool.settle(self.age());
        if self.pool.wake != self.wake {
            self.wake = self.pool.wake;
            let end = self.wake.map(|wake| wake.as_micros() as u64).filter(|end| *end < self.scene.seconds * 1_000_000);
            if let Some(end) = end {
                self.after(end.saturating_sub(self.now), Event::Wake);
            }
        }
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

    fn age(&self) -> Age {
        Age::from_micros(self.now)
    }

    fn clock(&self) -> Instant {
        self.began + self.age()
    }

    fn arrive(&mut self) {
        if self.is_over() {
            return;
        }
        let (came, tried) = (self.now, Vec::new());
        let request = Request { came, sent: came, number: 0, tried, attempts: 0, retries: 0, rounds: 0, pick: None };
        let place = match self.free.pop() {
            Some(place) => {
                self.requests[place] = request;
                place
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        if self.retry.attempts > 1 {
            self.budget.deposit(self.clock());
        }
        self.attempt(place, None);
        let next = self.about(1e6 / self.scene.rate);
        self.after(next, Event::Arrive);
    }

    fn pick(&mut self, request: usize) -> Option<Pick> {
        let random = self.random();
        let ask = Ask { hash: random.rotate_left(29), random, now: self.moment() };
        self.pool.pick(&ask, &self.requests[request].tried, self.age())
    }

    fn attempt(&mut self, request: usize, picked: Option<Pick>) {
        let Some(pick) = picked.or_else(|| self.pick(request)) else { return self.end(request, false) };
        self.next_number += 1;
        let attempt = Attempt { request, number: self.next_number, seat: pick.seat.0 as usize };
        let asked = &mut self.requests[request];
        (asked.sent, asked.number, asked.pick) = (self.now, attempt.number, Some(pick));
        asked.attempts += 1;
        self.run.attempts[attempt.seat] += 1;
        match self.mood(attempt.seat) {
            Mood::Down => self.fails(REFUSAL, attempt, Outcome::Refused),
            Mood::FailsFast => self.fails(FAST_FAILURE, attempt, Outcome::Unavailable),
            Mood::FailsHalf if self.counts(attempt.seat).is_multiple_of(2) => {
                self.fails(FAST_FAILURE, attempt, Outcome::Unavailable);
            }
            Mood::Limited(most) => match self.over_quota(attempt.seat, most) {
                Some(wait) => self.fails(FAST_FAILURE, attempt, Outcome::Throttled(wait)),
                None => self.takes(attempt, 1.0),
            },
            Mood::Hangs => {
                self.fails(self.pool.config.timeouts.first_byte.as_micros() as u64, attempt, Outcome::Late);
                self.leaves_at_last(attempt);
            }
            Mood::Serves(factor) => self.takes(attempt, factor),
            Mood::FailsHalf => self.takes(attempt, 1.0),
        }
    }

    fn fails(&mut self, after: u64, attempt: Attempt, outcome: Outcome) {
        self.after(after, Event::Done { attempt, worker: false, outcome });
    }

    fn counts(&mut self, seat: usize) -> u32 {
        self.servers[seat].seen += 1;
        self.servers[seat].seen
    }

    /// Counts one request against the quota; how long it is used up, if it is.
    fn over_quota(&mut self, seat: usize, most: u32) -> Option<u64> {
        let (now, server) = (self.now, &mut self.servers[seat]);
        if now >= server.quota_ends {
            (server.quota_ends, server.seen) = (now - now % QUOTA + QUOTA, 0);
        }
        server.seen += 1;
        // In whole seconds, rounded up, as `Retry-After` has it.
        (server.seen > most).then(|| (server.quota_ends - now).div_ceil(1_000_000) * 1_000_000)
    }

    fn takes(&mut self, attempt: Attempt, factor: f64) {
        if self.servers[attempt.seat].busy == WORKERS {
            self.servers[attempt.seat].waiting.push_back(attempt);
            return self.leaves_at_last(attempt);
        }
        self.serve(attempt, factor);
    }

    /// The client has no more patience, unless it is served before.
    fn leaves_at_last(&mut self, attempt: Attempt) {
        let left = (self.requests[attempt.request].came + PATIENCE).saturating_sub(self.now);
        self.after(left, Event::Leave(attempt));
    }

    fn is_under_way(&self, attempt: Attempt) -> bool {
        self.requests[attempt.request].number == attempt.number
    }

    fn leave(&mut self, attempt: Attempt) {
        let waited = self.now - self.requests[attempt.request].sent;
        let (seat, now) = (Seat(attempt.seat as u32), self.moment());
        self.pool.loads.estimates().unwrap().waited(seat, Duration::from_micros(waited), now);
        self.give_back(attempt.request);
        self.end(attempt.request, false);
    }

    fn give_back(&mut self, request: usize) {
        if let Some(pick) = self.requests[request].pick.take() {
            self.pool.give_back(pick, self.age());
        }
    }

    fn serve(&mut self, attempt: Attempt, factor: f64) {
        self.servers[attempt.seat].busy += 1;
        let time = self.about(SERVICE * factor);
        self.after(time, Event::Done { attempt, worker: true, outcome: Outcome::Answer });
    }

    fn done(&mut self, attempt: Attempt, worker: bool, outcome: Outcome) {
        let mood = self.mood(attempt.seat);
        if worker {
            self.servers[attempt.seat].busy -= 1;
            self.next_in_line(attempt.seat, mood);
        }
        if !self.is_under_way(attempt) {
            return;
        }
        let outcome = if worker && mood == Mood::Down { Outcome::Broken } else { outcome };
        let took = self.now - self.requests[attempt.request].sent;
        let doubted = self.learn(Seat(attempt.seat as u32), outcome, took);
        self.give_back(attempt.request);
        if doubted {
            self.hurry(attempt.seat);
        }
        match failure(outcome) {
            None => self.end(attempt.request, true),
            Some(failure) => self.once_more(attempt, failure),
        }
    }

    /// Tells the estimates and the states; says whether the backend is in doubt.
    fn learn(&mut self, seat: Seat, outcome: Outcome, took: u64) -> bool {
        let (moment, now) = (self.moment(), self.age());
        let estimates = self.pool.loads.estimates().unwrap();
        match outcome {
            Outcome::Answer => {
                estimates.answered(seat, Duration::from_micros(took), moment);
                self.pool.succeeded(seat, now);
                false
            }
            Outcome::Throttled(wait) => {
                let wait = Duration::from_micros(wait);
                estimates.failed(seat, Some(wait), moment);
                if self.pool.config.obey.retry_after {
                    self.pool.throttled(seat, wait, now);
                }
                false
            }
            Outcome::Refused | Outcome::Broken | Outcome::Late | Outcome::Unavailable => {
                estimates.failed(seat, None, moment);
                self.pool.failed(seat, now)
            }
        }
    }

    fn once_more(&mut self, attempt: Attempt, failure: Failure) {
        let request = attempt.request;
        let asked = &mut self.requests[request];
        asked.tried.push(Seat(attempt.seat as u32));
        let time_left = Duration::from_micros((asked.came + PATIENCE).saturating_sub(self.now));
        let now = Circumstances {
            attempts: asked.attempts,
            retries: asked.retries,
            idempotent: true,
            replayable: true,
            had_free_try: false,
            response_begun: false,
            time_left,
        };
        match retry::decide(&self.retry, failure, &now) {
            Verdict::MoveOn => self.attempt(request, None),
            Verdict::Retry => self.retry(request, failure),
            Verdict::SameAgain | Verdict::GiveUp(_) => self.end(request, false),
        }
    }

    fn retry(&mut self, request: usize, failure: Failure) {
        let elsewhere = self.pick(request);
        let possible = elsewhere.is_some() || retry::may_use_the_same(failure);
        if !possible || !self.budget.withdraw(&self.retry.budget, self.clock()) {
            if let Some(pick) = elsewhere {
                self.pool.give_back(pick, self.age());
            }
            return self.end(request, false);
        }
        self.requests[request].retries += 1;
        if elsewhere.is_some() {
            return self.attempt(request, elsewhere);
        }
        let random = self.random();
        let asked = &mut self.requests[request];
        let pause = retry::back_off(asked.rounds, random);
        asked.rounds += 1;
        asked.tried.clear();
        let number = asked.number;
        self.after(pause.as_micros() as u64, Event::Again { request, number });
    }

    fn next_in_line(&mut self, seat: usize, mood: Mood) {
        if mood == Mood::Down {
            for attempt in std::mem::take(&mut self.servers[seat].waiting) {
                self.fails(REFUSAL, attempt, Outcome::Broken);
            }
        }
        // Nobody waits any more for the answers to those whose clients have left.
        while let Some(next) = self.servers[seat].waiting.pop_front() {
            if self.is_under_way(next) {
                let factor = if let Mood::Serves(factor) = mood { factor } else { 1.0 };
                return self.serve(next, factor);
            }
        }
    }

    fn end(&mut self, request: usize, good: bool) {
        let asked = &mut self.requests[request];
        asked.number = 0;
        self.run.answers.push((asked.came, (self.now - asked.came).min(PATIENCE), good));
        self.free.push(request);
    }

    fn moment(&self) -> Moment {
        Moment::after(self.age())
    }

    fn probe(&mut self, seat: usize) {
        if self.is_over() {
            return;
        }
        let up = self.mood(seat) != Mood::Down;
        self.pool.probed(Seat(seat as u32), up, self.age());
        let random = self.random();
        let pause = self.pool.pause(Seat(seat as u32), random).as_micros() as u64;
        self.servers[seat].probe = self.now + pause;
        self.after(pause, Event::Probe(seat));
    }

    /// Somebody in doubt is probed sooner.
    fn hurry(&mut self, seat: usize) {
        let soon = self.now + self.pool.fast_pause().as_micros() as u64;
        if self.servers[seat].probe > soon && !self.is_over() {
            self.servers[seat].probe = soon;
            self.after(soon - self.now, Event::Probe(seat));
        }
    }
}

fn failure(outcome: Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Answer => None,
        Outcome::Refused => Some(Failure::Connect),
        Outcome::Broken => Some(Failure::Reset),
        Outcome::Late => Some(Failure::Timeout),
        Outcome::Unavailable => Some(Failure::Status(503)),
        Outcome::Throttled(_) => Some(Failure::Throttled),
    }
}
