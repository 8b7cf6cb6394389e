//! What became of requests? The counts of each route, and of those that no route matched.

use std::sync::Arc;

use crate::count::{Count, Words};
use crate::observe::dashboard::Totals;
use crate::observe::metrics::catalogue::{self as c, Family};
use crate::observe::metrics::{Page, RouteCounts};
use crate::proxy::{Lasting, Plan, Snapshot};

/// The routes in the order of the configuration, and then the one without a name: of what matched none of them.
fn routes(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &RouteCounts)> {
    let named = snapshot.plans.iter().map(|plan| (&*plan.name, &*plan.counts));
    named.chain([("", &*snapshot.unrouted)])
}

pub(super) fn requests(page: &mut Page, snapshot: &Snapshot, early: &Totals, in_flight: usize) {
    page.family(&c::REQUESTS, |series| {
        for (route, counts) in routes(snapshot) {
            for (status, protocol, count) in counts.answers() {
                series.put([route, &status, protocol], count);
            }
        }
    });
    words(page, &c::REQUEST_FAILURES, snapshot, |counts| &counts.failures);
    page.family(&c::REQUESTS_REFUSED_EARLY, |series| {
        early.iter().for_each(|(reason, count)| series.put([reason], count));
    });
    page.family(&c::FIRST_BYTE, |series| {
        routes(snapshot).for_each(|(route, counts)| series.spread([route], &counts.first_byte.get()));
    });
    page.family(&c::DURATION, |series| {
        routes(snapshot).for_each(|(route, counts)| series.spread([route], &counts.total.get()));
    });
    sums(page, &c::REQUEST_BYTES, snapshot, |counts| &counts.bytes_in);
    sums(page, &c::RESPONSE_BYTES, snapshot, |counts| &counts.bytes_out);
    page.single(&c::IN_FLIGHT, in_flight);
}

pub(super) fn retries(page: &mut Page, snapshot: &Snapshot) {
    sums(page, &c::RETRIES, snapshot, |counts| &counts.retries);
    sums(page, &c::HEDGES, snapshot, |counts| &counts.hedges);
    words(page, &c::NO_RETRIES, snapshot, |counts| &counts.no_retries);
}

/// Who may come in, and how often.
pub(super) fn access(page: &mut Page, snapshot: &Snapshot, lasting: &Lasting) {
    page.family(&c::RATE_LIMIT, |series| {
        let admissions = |plan: &Arc<Plan>| Some((plan.name.clone(), plan.admission.clone()?));
        for (route, admission) in snapshot.plans.iter().filter_map(admissions) {
            for (limit, verdicts) in admission.verdicts() {
                series.put([&route, limit, "allowed"], verdicts.allowed.get());
                series.put([&route, limit, "refused"], verdicts.refused.get());
                series.put([&route, limit, "would_refuse"], verdicts.would_refuse.get());
            }
        }
    });
    let (entries, most) = lasting.rate_entries().unwrap_or_default();
    page.single(&c::RATE_ENTRIES, entries);
    page.single(&c::RATE_ENTRIES_LIMIT, most);
    words(page, &c::AUTH, snapshot, |counts| &counts.auth);
    page.family(&c::FOLLOWED_UP, |series| {
        let files = lasting.sources.files.reports();
        files.iter().for_each(|(path, is_usable)| series.put([&path.to_string_lossy()], u8::from(*is_usable)));
    });
    let stores = lasting.sources.keys.reports();
    page.family(&c::KEY_STORE_UP, |series| {
        stores.iter().for_each(|store| series.put([&store.path.to_string_lossy()], u8::from(store.is_usable)));
    });
    page.family(&c::KEY_STORE_KEYS, |series| {
        stores.iter().for_each(|store| series.put([&store.path.to_string_lossy()], store.keys));
    });
}

/// How the cache has served, by route.
pub(super) fn cached(page: &mut Page, snapshot: &Snapshot) {
    words(page, &c::CACHE_REQUESTS, snapshot, |counts| &counts.cache);
}

fn words(page: &mut Page, family: &'static Family, snapshot: &Snapshot, of: impl Fn(&RouteCounts) -> &Words) {
    page.family(family, |series| {
        for (route, counts) in routes(snapshot) {
            of(counts).get().iter().for_each(|(word, count)| series.put([route, word], count));
        }
    });
}

fn sums(page: &mut Page, family: &'static Family, snapshot: &Snapshot, of: impl Fn(&RouteCounts) -> &Count) {
    page.family(family, |series| {
        routes(snapshot).for_each(|(route, counts)| series.put([route], of(counts).get()));
    });
}
