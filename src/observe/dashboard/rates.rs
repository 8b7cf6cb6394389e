//! How many requests a second? Two samples of a total, and the time between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Table;

/// Samples closer together than this say little: one request in a millisecond is not a thousand a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// The last two samples that are [`SHORTEST`] apart: one of them is always old enough to compare with, soon.
#[derive(Debug, Default)]
pub(super) struct Rates {
    older: Option<Sample>,
    newer: Option<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    totals: HashMap<(Arc<str>, Arc<str>), u64>,
}

impl Sample {
    fn of(tables: &[Table], at: Instant) -> Self {
        let rows = tables.iter().flat_map(|table| table.rows.iter().map(|row| (table.upstream.clone(), row)));
        let totals = rows.map(|(upstream, row)| ((upstream, row.backend.clone()), row.requests)).collect();
        Self { at, totals }
    }

    fn is_old_enough(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= SHORTEST
    }
}

impl Rates {
    /// Fills in the rates of all rows, and keeps their totals for the next time.
    pub(super) fn fill(&mut self, tables: &mut [Table], now: Instant) {
        let earlier = [&self.newer, &self.older].into_iter().flatten().find(|sample| sample.is_old_enough(now));
        for table in tables.iter_mut() {
            for row in &mut table.rows {
                row.rate = earlier.and_then(|sample| {
                    let before = sample.totals.get(&(table.upstream.clone(), row.backend.clone()))?;
                    let seconds = now.saturating_duration_since(sample.at).as_secs_f64();
                    // A backend that was removed and came back counts from 0 again.
                    Some(row.requests.saturating_sub(*before) as f64 / seconds)
                });
            }
        }
        if self.newer.as_ref().is_none_or(|newer| newer.is_old_enough(now)) {
            self.older = self.newer.take();
            self.newer = Some(Sample::of(tables, now));
        }
    }
}
