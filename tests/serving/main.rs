//! Who serves it, and what if they fail? Balancing, health, retries and reloads, through the front door.
//!
//! Many files and one program: each test program is linked with all of Portcullis, which takes longer than its tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod balancing;
mod both_ways;
mod dashboard;
mod discovery;
mod draining;
mod failover;
mod handover;
mod health;
mod hedging;
mod leaving;
mod limits;
mod logs;
mod long_bodies;
mod metrics;
mod obedience;
mod passive_health;
mod programs;
mod quotas;
mod reload;
mod retries;
mod slow_start;
mod status_page;
mod sticky;
mod tiers;
mod tracing;
mod uploads;
