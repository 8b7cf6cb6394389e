//! What does HTTP allow a cache that many share? RFC 9111, and what RFC 9110, 9213 and 5861 add to it.
//!
//! Pure: no clock, no store; what they know comes in as an argument. Where a field cannot be understood, the reading is
//! taken that stores less and reuses less. RFC 8246 (`immutable`) is for caches of one user, and is not read at all.

mod age;
mod asked;
mod conditional;
mod date;
mod directives;
mod etag;
mod fields;
mod freshness;
mod invalidated;
mod judge;
mod list;
mod targeted;
mod vary;

pub use asked::{Asked, Use};
pub use conditional::{if_range_holds, is_for_the_origin, not_modified};
pub use directives::{Directives, Reach};
pub use fields::{Cookies, confirms, merge, strip};
pub use invalidated::{Target, invalidated, is_safe};
pub use judge::{Lifetime, NotStored, Terms, judge};
pub use vary::{Vary, variance};

#[cfg(test)]
mod samples;
