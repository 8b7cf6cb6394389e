//! What happened? The access log, the tables of backends and the metrics: they watch, and change nothing. Says too which lines of the
//! log must not come too often.

pub mod access_log;
pub mod dashboard;
mod json;
mod loki;
pub mod metrics;
pub mod seldom;
mod stamps;
pub mod status;
pub mod tracing;
mod usage;
mod writing;
