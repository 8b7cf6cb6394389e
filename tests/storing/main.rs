//! Do stored and coded answers arrive as they should? The cache and compression, through the front door.
//!
//! Many files and one program: each test program is linked with all of Portcullis, which takes longer than its tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod cache_disk;
mod cache_poison;
mod cache_purge;
mod cache_revalidation;
mod cache_streams;
mod cache_suite;
mod compression;
mod compression_cache;
mod compression_clients;
mod compression_decoding;
mod compression_negotiation;
mod compression_requests;
mod compression_stored;
mod compression_streams;
mod response_date;
