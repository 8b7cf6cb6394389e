//! What is on the page of metrics? Gathers every count that there is, when somebody asks.
//!
//! A family is written by the one who knows its numbers, in the order of the catalogue. What is gone from the
//! configuration is on no page. Nothing here is on a request's way.

mod listeners;
mod process;
mod requests;
mod stores;
mod upstreams;

use super::Inner;
use crate::observe::metrics::Page;
use crate::observe::metrics::catalogue as c;

impl Inner {
    /// The whole page.
    pub(super) fn scrape(&self) -> String {
        let snapshot = self.snapshot.load_full();
        let mut page = Page::default();
        requests::requests(&mut page, &snapshot, &self.refused.requests(), self.in_flight.count());
        let seats = upstreams::seats(&snapshot, &self.gone_upstreams());
        upstreams::attempts(&mut page, &seats);
        requests::retries(&mut page, &snapshot);
        upstreams::backends(&mut page, &seats);
        upstreams::whole(&mut page, &snapshot);
        requests::access(&mut page, &snapshot, &self.lasting);
        requests::cached(&mut page, &snapshot);
        stores::cache(&mut page, self.cache);
        stores::compression(&mut page, &self.workshop.counts.sums());
        listeners::connections(&mut page, &self.fronts);
        listeners::tls(&mut page, &self.fronts);
        self.configuration(&mut page);
        process::runtimes(&mut page, &self.workers);
        process::process(&mut page);
        page.finish()
    }

    fn configuration(&self, page: &mut Page) {
        page.family(&c::RELOADS, |series| {
            series.put(["done"], self.reloads.done.get());
            series.put(["failed"], self.reloads.not_done.get());
        });
        let (is_good, at) = self.reloads.last();
        page.single(&c::RELOAD_OK, u8::from(is_good));
        page.single(&c::RELOADED_AT, at);
        let hash = self.loaded().hash.clone();
        page.family(&c::CONFIG, |series| series.put([&*hash], 1));
        let losses = self.access_log.losses();
        page.family(&c::LOG_DROPPED, |series| {
            series.put(["access"], losses.access);
            series.put(["usage"], losses.usage);
            series.put(["loki"], losses.loki);
        });
        let spans = &self.lasting.tracers.counts;
        page.family(&c::SPANS, |series| {
            series.put(["exported"], spans.exported.get());
            series.put(["dropped"], spans.dropped.get());
        });
        page.family(&c::BUILD, |series| series.put([env!("CARGO_PKG_VERSION")], 1));
    }
}
