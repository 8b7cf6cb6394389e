//! Portcullis, a programmable load balancer and TLS front door.
//!
//! [`Program`] is a front door with filters and ways to balance of one's own, which [`custom`] describes; [`FrontDoor`] is
//! one inside another program. That is all that is promised: `tests/public_api.txt` lists it, and it changes by the rules
//! of semantic versioning.
//!
//! The other modules are for Portcullis itself, its tests and its measurements, and may change with any version. They
//! stand in no documentation but their own first lines; `docs/ARCHITECTURE.md` has the map.

pub mod custom;

pub use config::Address;
pub use http::{HeaderName, HeaderValue, StatusCode};
pub use program::Program;
pub use server::FrontDoor;

#[doc(hidden)]
pub mod answer;
#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod backend;
#[doc(hidden)]
pub mod balance;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod compress;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod count;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod fetch;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod hashed;
#[doc(hidden)]
pub mod health;
#[doc(hidden)]
pub mod limit;
#[doc(hidden)]
pub mod observe;
#[doc(hidden)]
pub mod path;
#[doc(hidden)]
pub mod program;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod proxy_protocol;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod route;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod upstream;
