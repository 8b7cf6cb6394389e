//! What happened? The access log and the tables of backends: they watch, and change nothing.

pub mod access_log;
pub mod dashboard;
