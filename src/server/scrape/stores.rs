//! What is kept, and what was made smaller? The cache in memory and on disk, and the codings.

use crate::cache::Cache;
use crate::compress::{Outcome, Sum, Work};
use crate::observe::metrics::Page;
use crate::observe::metrics::catalogue::{self as c, Family};

pub(super) fn cache(page: &mut Page, cache: &'static Cache) {
    let store = cache.store();
    let (stored, evicted) = store.turnover();
    page.single(&c::CACHE_OBJECTS, store.len());
    page.single(&c::CACHE_BYTES, store.bytes());
    page.single(&c::CACHE_LIMIT, store.size());
    page.single(&c::CACHE_STORED, stored);
    page.single(&c::CACHE_EVICTIONS, evicted);
    let disk = cache.disk_numbers();
    page.family(&c::DISK_BYTES, |series| series.put_some([], disk.map(|disk| disk.size)));
    page.family(&c::DISK_LOOKUPS, |series| {
        series.put_some(["hit"], disk.map(|disk| disk.hits));
        series.put_some(["miss"], disk.map(|disk| disk.misses));
    });
    page.family(&c::DISK_MISSES, |series| {
        series.put_some(["unusable"], disk.map(|disk| disk.refused));
        series.put_some(["busy"], disk.map(|disk| disk.busy));
    });
    page.family(&c::DISK_STORED, |series| {
        series.put_some(["stored"], disk.map(|disk| disk.stored));
        series.put_some(["dropped"], disk.map(|disk| disk.dropped));
        series.put_some(["too_large"], disk.map(|disk| disk.too_large));
    });
    page.family(&c::DISK_WRITTEN, |series| series.put_some([], disk.map(|disk| disk.written)));
    page.family(&c::DISK_READ, |series| series.put_some([], disk.map(|disk| disk.read)));
}

pub(super) fn compression(page: &mut Page, sums: &[Sum]) {
    codings(page, &c::CODED_ANSWERS, sums, |sum| sum.answers as f64);
    codings(page, &c::CODED_IN, sums, |sum| sum.outcome.before as f64);
    codings(page, &c::CODED_OUT, sums, |sum| sum.outcome.after as f64);
    codings(page, &c::CODED_SECONDS, sums, |sum| sum.outcome.took.as_secs_f64());
}

fn codings(page: &mut Page, family: &'static Family, sums: &[Sum], of: fn(&Sum) -> f64) {
    page.family(family, |series| {
        for sum @ Sum { outcome: Outcome { work, .. }, .. } in sums {
            let (coding, direction) = match work {
                Work::Encode(coding) => (coding, "encode"),
                Work::Decode(coding) => (coding, "decode"),
            };
            series.put([coding.name(), direction], of(sum));
        }
    });
}
