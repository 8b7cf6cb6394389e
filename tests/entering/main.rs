//! Who comes in, how, and what is refused? Connections, routes, credentials and limits, through the front door.
//!
//! Many files and one program: each test program is linked with all of Portcullis, which takes longer than its tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod address_lists;
mod api_keys;
mod attacks;
mod attacks_http2;
mod attacks_paths;
mod auth;
mod browsers;
mod certificates;
mod commands;
mod deploy;
mod documents;
mod error_pages;
mod explain;
mod hygiene;
mod keys_command;
mod listening;
mod proxy_protocol;
mod public_api;
mod rate_limits;
mod real_clients;
mod reasons;
mod refusals;
mod rewriting;
mod routing;
mod timeouts;
mod tokens;
