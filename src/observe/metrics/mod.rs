//! What does a monitoring system see? The catalogue of metrics, what is counted for it on a request's way, and how a page
//! of them is written.
//!
//! What is counted elsewhere already (for the dashboard, by the cache, by a listener) is read from there when a page is
//! written, so that there are never two counts of one thing. Who gathers all of it is the server's `scrape`.

pub mod catalogue;
mod manual;
mod page;
mod routes;

pub use self::manual::manual;
pub use self::page::{CONTENT_TYPE, Page, Series};
pub use self::routes::{Ledger, RouteCounts, protocol};
