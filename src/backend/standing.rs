//! How is a backend, and for how long? Its state as everybody may read it at any time, in two atomics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not probed yet.
    Pending,
    /// Takes requests.
    Healthy,
    /// Asked to be left alone for a while.
    Throttled,
    /// Failed live requests, and is left alone for a while; then single requests try it.
    Ejected,
    /// Fails its probes.
    Unreachable,
    /// Takes no new requests, because the operator says so.
    Draining,
}

impl State {
    /// All of them, the best first.
    pub const ALL: [Self; 6] =
        [Self::Healthy, Self::Pending, Self::Draining, Self::Throttled, Self::Ejected, Self::Unreachable];

    /// The word for logs, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Healthy => "HEALTHY",
            Self::Throttled => "THROTTLED",
            Self::Ejected => "EJECTED",
            Self::Unreachable => "UNREACHABLE",
            Self::Draining => "DRAINING",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A state with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// When it ends by itself, if it does.
    pub until: Option<SystemTime>,
    /// EJECTED, and its time is over: single requests try it.
    pub on_trial: bool,
}

impl From<State> for Standing {
    fn from(state: State) -> Self {
        Self { state, until: None, on_trial: false }
    }
}

/// The code of EJECTED and on trial, beside those of the states.
const ON_TRIAL: u8 = u8::MAX;

/// A standing that many read and one writes. The time may lag behind the state for a moment; it is only shown.
#[derive(Debug)]
pub(super) struct Shown {
    code: AtomicU8,
    until_ms: AtomicU64,
}

impl Default for Shown {
    fn default() -> Self {
        Self { code: AtomicU8::new(State::Pending as u8), until_ms: AtomicU64::new(0) }
    }
}

impl Shown {
    pub(super) fn state(&self) -> State {
        let code = self.code.load(Relaxed);
        let known = State::ALL.into_iter().find(|state| *state as u8 == code);
        known.unwrap_or(State::Ejected)
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.code.load(Relaxed) == ON_TRIAL
    }

    /// How long it still lasts.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        let until = self.until_ms.load(Relaxed);
        let until = (until > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(until))?;
        Some(until.duration_since(now).unwrap_or_default())
    }

    pub(super) fn set(&self, standing: Standing) {
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = standing.until.map_or(0, |until| u64::try_from(since(until).as_millis()).unwrap_or(u64::MAX));
        self.until_ms.store(until, Relaxed);
        self.code.store(if standing.on_trial { ON_TRIAL } else { standing.state as u8 }, Relaxed);
    }
}
