//! Which backends does a URL name? A JSON list, asked for again and again.
//!
//! Whatever is not a list is a failure, and so is an answer that does not come.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::{Discovery, Failure, Found};
use crate::config::HttpUrl;
use crate::config::members::{Rules, members_of_json};
use crate::fetch::Fetch;

/// A longer answer is no list of backends.
const LONGEST: usize = 8 << 20;

/// A URL with a list of backends.
pub struct PolledList {
    fetch: Fetch,
    interval: Duration,
    https_by_address: bool,
    was_asked: bool,
}

impl PolledList {
    /// The list at this URL.
    pub fn new(url: HttpUrl, interval: Duration, rules: Rules<'_>) -> Self {
        let https_by_address = rules.https_by_address;
        Self { fetch: Fetch::new(url, LONGEST), interval, https_by_address, was_asked: false }
    }
}

#[async_trait]
impl Discovery for PolledList {
    async fn next(&mut self) -> Result<Found, Failure> {
        if std::mem::replace(&mut self.was_asked, true) {
            // A tenth more or less, so that many who ask drift apart.
            sleep(self.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
        let rules = Rules { https_by_address: self.https_by_address, folder: None };
        let members = self.fetch.ask().await.and_then(|text| members_of_json(&text, rules));
        members.map(Found::from).map_err(|why| Failure(format!("{}: {why}", self.fetch.url())))
    }
}
