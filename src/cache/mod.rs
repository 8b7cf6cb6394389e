//! Do we know the answer? What may be answered from memory, and for how long.
//!
//! [`rules`] says what HTTP allows. It holds nothing and reads no clock.

pub mod rules;
