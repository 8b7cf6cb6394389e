//! What goes wrong? Each scene says how its backends are at any moment, and what the configuration says.

/// How a backend is at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    /// It answers; a request takes this many times as long as usual.
    Serves(f64),
    /// It answers 503 at once, and its probes pass.
    FailsFast,
    /// It answers every other request with 503 at once, and its probes pass.
    FailsHalf,
    /// It serves so many requests in every ten seconds, and answers the others 429 with the time that is left.
    Limited(u32),
    /// It takes requests and never answers; its probes pass.
    Hangs,
    /// It refuses connections.
    Down,
}

/// One scene.
pub(crate) struct Scene {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) what: &'static str,
    pub(crate) backends: usize,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    /// Keys of the upstream beside the defaults, in the language of the configuration.
    pub(crate) upstream: &'static str,
    /// The route's `retry`.
    pub(crate) retry: &'static str,
    /// The quota of the odd ones.
    pub(crate) quota: &'static str,
    /// The last so many are in tier 1.
    pub(crate) second_tier: usize,
    /// Who is odd: the first so many.
    pub(crate) odd: usize,
    /// How the odd ones are after so many seconds.
    pub(crate) mood: fn(f64) -> Mood,
}

/// Ten backends, each of which could answer 400 requests a second, at 60% of what they can.
const TEN: Scene = Scene {
    file: "",
    title: "",
    what: "",
    backends: 10,
    rate: 2_400.0,
    seconds: 60,
    upstream: "",
    retry: "{}",
    quota: "",
    second_tier: 0,
    odd: 1,
    mood: |_| Mood::Serves(1.0),
};

/// A server that has just come takes eight times as long at first, and as long as usual after 20 s.
fn warming(secs: f64) -> Mood {
    Mood::Serves((8.0 - 7.0 * secs / 20.0).max(1.0))
}

fn from(secs: f64, begin: f64, end: f64, within: Mood) -> Mood {
    if (begin..end).contains(&secs) { within } else { Mood::Serves(1.0) }
}

/// A restart after 20 s that takes 5 s.
fn restart(secs: f64) -> Mood {
    if secs < 25.0 { from(secs, 20.0, 25.0, Mood::Down) } else { warming(secs - 25.0) }
}

/// All scenes.
pub(crate) fn scenes() -> Vec<Scene> {
    let few = one_odd().into_iter().chain(quotas()).chain(one_coming());
    few.chain(many_odd()).chain(large()).collect()
}

fn one_odd() -> [Scene; 6] {
    [
        Scene {
            file: "one-slow",
            title: "One slow",
            what: "One of ten takes ten times as long as the others, which neither probes nor failures tell.",
            mood: |_| Mood::Serves(10.0),
            ..TEN
        },
        Scene {
            file: "one-hanging",
            title: "One hanging",
            what: "One of ten takes requests after 10 s and never answers; its probes pass. Whoever waits is served elsewhere \
                   after a second (`timeouts: { first_byte: 1s }`).",
            upstream: "timeouts: { first_byte: 1s }",
            mood: |secs| from(secs, 10.0, 60.0, Mood::Hangs),
            ..TEN
        },
        Scene {
            file: "one-flapping",
            title: "One flapping",
            what: "One of ten refuses connections for 3 s out of every 6 s.",
            mood: |secs| if secs % 6.0 < 3.0 { Mood::Serves(1.0) } else { Mood::Down },
            ..TEN
        },
        Scene {
            file: "one-failing-fast",
            title: "One failing fast",
            what: "One of ten answers 503 within a millisecond, and passes its probes: whoever looks at loads takes it \
                   for the best of all.",
            mood: |_| Mood::FailsFast,
            ..TEN
        },
        Scene {
            file: "one-failing-fast-alone",
            title: "One failing fast, and the policy alone",
            what: "The same with `passive_health: none` and `retry: none`: what each policy does by itself.",
            upstream: "passive_health: none",
            retry: "none",
            mood: |_| Mood::FailsFast,
            ..TEN
        },
        Scene {
            file: "one-failing-half",
            title: "One failing every other request",
            what: "One of ten answers every other request with 503, so that failures seldom come in a row, with `breaker: {}`.",
            upstream: "breaker: {}",
            mood: |_| Mood::FailsHalf,
            ..TEN
        },
    ]
}

fn quotas() -> [Scene; 2] {
    [
        Scene {
            file: "quota-told",
            title: "Quota exhaustion, told by the backend",
            what: "One of ten serves 1000 requests in every ten seconds, which is less than half of its share, and answers \
                   the others with 429 and `Retry-After`, which is obeyed.",
            mood: |_| Mood::Limited(1_000),
            ..TEN
        },
        Scene {
            file: "quota-kept",
            title: "Quota exhaustion, kept by us",
            what: "The same with `quota: [1000/10s]` on that backend: it never has to say no.",
            quota: "1000/10s",
            mood: |_| Mood::Limited(1_000),
            ..TEN
        },
    ]
}

fn one_coming() -> [Scene; 2] {
    [
        Scene {
            file: "cold-start",
            title: "Cold start",
            what: "One of ten is restarted after 20 s, is back after 25 s, and needs 20 s to warm up.",
            mood: restart,
            ..TEN
        },
        Scene {
            file: "cold-start-slowly",
            title: "Cold start with slow_start: 20s",
            what: "The same, with slow start.",
            upstream: "slow_start: 20s",
            mood: restart,
            ..TEN
        },
    ]
}

fn many_odd() -> [Scene; 4] {
    [
        Scene {
            file: "all-down",
            title: "All down",
            what: "All ten refuse connections from the 20th to the 25th second.",
            odd: 10,
            mood: |secs| from(secs, 20.0, 25.0, Mood::Down),
            ..TEN
        },
        Scene {
            file: "half-down",
            title: "Half down",
            what: "Five of ten refuse connections from the 20th to the 30th second; the other five could answer 2000 of \
                   the 2400 requests a second.",
            odd: 5,
            mood: |secs| from(secs, 20.0, 30.0, Mood::Down),
            ..TEN
        },
        Scene {
            file: "half-a-tier-down",
            title: "Half of a tier down",
            what: "Eight of twelve are tier 0, four are tier 1. Four of the eight refuse connections from the 20th to the \
                   40th second; the other four could answer 1600 of the 1900 requests a second.",
            backends: 12,
            second_tier: 4,
            rate: 1_900.0,
            odd: 4,
            mood: |secs| from(secs, 20.0, 40.0, Mood::Down),
            ..TEN
        },
        Scene {
            file: "thundering-return",
            title: "Thundering return",
            what: "Five of ten are down from the start and come back together, cold, after 20 s. The load is what the \
                   five others can just carry.",
            odd: 5,
            rate: 1_900.0,
            mood: |secs| if secs < 20.0 { Mood::Down } else { warming(secs - 20.0) },
            ..TEN
        },
    ]
}

/// Very many backends, for a second.
fn large() -> [Scene; 2] {
    [
        Scene {
            file: "two-thousand",
            title: "Two thousand backends",
            what: "Of two thousand, a hundred take ten times as long as the others. 1.6 million requests, all policies \
                   together.",
            backends: 2_000,
            rate: 240_000.0,
            seconds: 1,
            odd: 100,
            mood: |_| Mood::Serves(10.0),
            ..TEN
        },
        Scene {
            file: "thousand-failing",
            title: "A thousand backends, fifty failing fast",
            what: "After a fifth of a second, fifty of a thousand begin to answer 503 within a millisecond.",
            backends: 1_000,
            rate: 120_000.0,
            seconds: 1,
            odd: 50,
            mood: |secs| from(secs, 0.2, 9.0, Mood::FailsFast),
            ..TEN
        },
    ]
}
