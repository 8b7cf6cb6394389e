//! Do we know the answer? Which responses may be kept, for whom, and for how long; and where they are kept.
//!
//! `rules` are RFC 9111 as pure functions: they hold nothing and read no clock. `store` is the memory that answers are
//! kept in, `disk` a second tier below it, `tier` what joins the two, and `storage` lends them to Pingora's cache, whose state machine the corridor
//! drives.

pub mod disk;
pub mod key;
pub mod purge;
pub mod rules;
mod shared;
pub mod storage;
pub mod store;
pub mod tier;

pub use key::Key;
pub use purge::Purge;
pub use shared::Cache;
pub use store::Store;
