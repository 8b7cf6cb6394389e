//! What happened? The access log and the tables of backends: they watch, and change nothing. Says too which lines of the
//! log must not come too often.

pub mod access_log;
pub mod dashboard;
mod loki;
pub mod seldom;
mod usage;
mod writing;
