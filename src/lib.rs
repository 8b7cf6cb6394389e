//! Portcullis, a programmable load balancer and TLS front door.
//!
//! The modules stand in the order in which a reader meets them: what the operator asked for, who serves, what happens
//! to a request, and the rooms that each answer one question about it. `docs/ARCHITECTURE.md` has the map.

pub mod answer;
pub mod auth;
pub mod backend;
pub mod balance;
pub mod cache;
pub mod cli;
pub mod compress;
pub mod config;
pub mod count;
pub mod custom;
pub mod demo;
pub mod fetch;
pub mod files;
pub mod filter;
pub mod fuzzing;
pub mod health;
pub mod limit;
pub mod observe;
pub mod path;
pub mod program;
pub mod proxy;
pub mod proxy_protocol;
pub mod retry;
pub mod route;
pub mod server;
pub mod upstream;

pub use http::{HeaderName, HeaderValue, StatusCode};
pub use program::Program;
pub use server::FrontDoor;
