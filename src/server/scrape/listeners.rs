//! What happened to the connections of clients? The counts of each listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::observe::metrics::Page;
use crate::observe::metrics::catalogue::{self as c, Family};
use crate::proxy::Gateway;
use crate::server::counters::Counters;
use crate::server::front::Front;

type Fronts = [Arc<Front<Gateway>>];

pub(super) fn connections(page: &mut Page, fronts: &Fronts) {
    each(page, &c::CONNECTIONS, fronts, |counters| &counters.open);
    each(page, &c::CONNECTIONS_ACCEPTED, fronts, |counters| &counters.accepted);
    page.family(&c::CONNECTIONS_REFUSED, |series| {
        for front in fronts {
            let (label, Counters { over_total, over_address, not_introduced, .. }) = (front.label(), front.counters());
            series.put([label, "max_connections"], over_total.load(Relaxed));
            series.put([label, "max_connections_per_address"], over_address.load(Relaxed));
            series.put([label, "proxy_protocol"], not_introduced.load(Relaxed));
        }
    });
}

pub(super) fn tls(page: &mut Page, fronts: &Fronts) {
    page.family(&c::HANDSHAKES, |series| {
        for front in fronts {
            let versions = front.counters().handshakes.get();
            versions.into_iter().for_each(|(version, count)| series.put([front.label(), version], count));
        }
    });
    page.family(&c::HANDSHAKE_FAILURES, |series| {
        for front in fronts {
            let reasons = front.counters().failed_handshakes.get();
            reasons.into_iter().for_each(|(reason, count)| series.put([front.label(), reason], count));
        }
    });
    page.family(&c::RESUMPTIONS, |series| {
        fronts.iter().for_each(|front| series.put_some([front.label()], front.tls().map(|tls| tls.resumed())));
    });
    page.family(&c::CERTIFICATE_EXPIRY, |series| {
        for front in fronts {
            let expiries = front.tls().map(|tls| tls.expiries()).unwrap_or_default();
            expiries.iter().for_each(|expiry| series.put([front.label(), &expiry.certificate], expiry.at));
        }
    });
}

fn each(page: &mut Page, family: &'static Family, fronts: &Fronts, of: fn(&Counters) -> &AtomicU64) {
    page.family(family, |series| {
        fronts.iter().for_each(|front| series.put([front.label()], of(front.counters()).load(Relaxed)));
    });
}
