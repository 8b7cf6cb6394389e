//! What may be written about live requests and the state of a backend?

use std::num::NonZeroU32;

use super::leaves::{Share, Timeout};
use super::section::section;

section! {
    /// What live requests do to the state of a backend.
    PassiveHealth {
        /// Failures in a row that eject a backend.
        consecutive_failures: NonZeroU32 = "5",
        /// How long a first ejection lasts; the next ones last longer.
        ejection: Timeout = "30s",
        /// How long an ejection lasts at most.
        max_ejection: Timeout = "5m",
        /// The share of the backends that may be ejected at once: always one, never the last that is ready.
        max_ejected: Share = "50%",
    }
    later {}
}

section! {
    /// The share of failures that ejects a backend.
    Breaker {
        /// The share of failures.
        trip_at: Share = "50%",
        /// Of fewer requests than this, it says nothing.
        of_at_least: NonZeroU32 = "20",
        /// The requests that count: those of this last while.
        window: Timeout = "10s",
    }
    later {}
}

section! {
    /// What backends may ask of us.
    Obey {
        /// To wait, with `Retry-After` on a 429 or a 503.
        retry_after: bool = "true",
        /// To wait, with `RateLimit` or `X-RateLimit-*` fields that say that a quota is used up.
        rate_limit_fields: bool = "true",
        /// How long at most.
        max: Timeout = "10m",
    }
    later {}
}
