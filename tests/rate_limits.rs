//! Rate limits through the front door: who is refused, what he is told, and that nobody gets more than is allowed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::backend::response;
use support::{Act, Backend, Lb, Response, Script};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn limited(backend: &Backend, limits: &str) -> support::front_door::Builder {
    Lb::with_backends([backend]).yaml_route(&format!("rate_limits: [{limits}]"))
}

async fn statuses(lb: &Lb, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(lb.get("/").await.status);
    }
    statuses
}

fn field<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.header(name).unwrap_or("")
}
