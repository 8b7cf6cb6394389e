//! May they come in? What a route asks of a request before anything else is done for it, in order.
//!
//! What is asked for takes part in a reload like all else, but what it knows outlives one: see [`Lasting`].

use std::hash::RandomState;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::cached::head_of;
use super::exchange::Exchange;
use super::rates::Rates;
use crate::answer::{Forbidden, Refusal};
use crate::auth::{Asked, Gate, Sources};
use crate::config::{self, Config, Maintenance, SecurityHeaders};
use crate::files::Unusable;
use crate::filter::Answer;
use crate::filter::cors::Cors;
use crate::filter::error_pages::ErrorPages;
use crate::filter::networks::{Lists, Networks};
use crate::limit::rate::{Table, Verdicts, Which};
use crate::observe::metrics::Ledger;
use crate::observe::tracing::Tracers;

/// What outlives reloads: what is known of those who come in, and what is told of them.
#[derive(Debug, Default)]
pub struct Lasting {
    /// Where gates and lists find what they know.
    pub sources: Sources,
    /// What the rate limits have counted; as soon as there is a configuration that says how much is remembered.
    counts: OnceLock<Arc<Table>>,
    /// What became of the requests of each route.
    pub ledger: Ledger,
    /// Who traces requests.
    pub tracers: Tracers,
}

impl Lasting {
    /// How many keys the rate limits count now, and each by itself at most.
    pub fn rate_entries(&self) -> Option<(usize, usize)> {
        self.counts.get().map(|table| table.entries())
    }

    fn counts(&self, config: &Config) -> &Arc<Table> {
        let entries = config.server.rate_limits.entries;
        self.counts.get_or_init(|| Arc::new(Table::new(entries, RandomState::new(), Instant::now())))
    }
}

/// What each route asks, in their order; `None` is nothing. Made before a snapshot, because it can fail.
pub struct Admissions(pub(super) Vec<Option<Arc<Admission>>>);

impl Admissions {
    /// What the routes of a configuration ask.
    pub fn new(config: &Config, lasting: &Lasting) -> Result<Self, Unusable> {
        let all = config.routes.iter().map(|route| Admission::of(route, config, lasting));
        let all = all.collect::<Result<_, _>>()?;
        // Now that nothing can fail any more.
        lasting.counts(config).resize(config.server.rate_limits.entries);
        Ok(Self(all))
    }
}

/// What one route asks, and what it says to whoever is asked.
pub struct Admission {
    addresses: Option<Lists>,
    pub(super) maintenance: Option<Closed>,
    pub(super) pages: Option<ErrorPages>,
    pub(super) cors: Option<Cors>,
    pub(super) security_headers: Option<SecurityHeaders>,
    gate: Option<Gate>,
    pub(super) rates: Option<Rates>,
}

impl Admission {
    fn of(route: &config::Route, config: &Config, lasting: &Lasting) -> Result<Option<Arc<Self>>, Unusable> {
        let admission = Self {
            addresses: Lists::new(&route.allow, &route.deny, &lasting.sources.files)?,
            maintenance: route.maintenance.as_ref().map(Closed::new),
            pages: route.errors.as_ref().map(|it| ErrorPages::new(it, &lasting.sources.files)).transpose()?,
            cors: route.cors.as_ref().map(Cors::new),
            security_headers: route.security_headers.clone(),
            gate: route.auth.as_ref().map(|auth| Gate::new(auth, &lasting.sources)).transpose()?,
            rates: Rates::new(route, lasting.counts(config), config.server.rate_limits.headers),
        };
        let Self { addresses, maintenance, pages, cors, security_headers, gate, rates } = &admission;
        let asks = addresses.is_some() || maintenance.is_some() || gate.is_some() || rates.is_some();
        let asks = asks || pages.is_some() || cors.is_some() || security_headers.is_some();
        Ok(asks.then(|| Arc::new(admission)))
    }

    /// What the rate limits have said so far, by their names.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Arc<str>, &Verdicts)> {
        self.rates.iter().flat_map(Rates::verdicts)
    }

    /// Whether a client at this address is let in at all.
    fn admit_address(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        if self.addresses.as_ref().is_some_and(|lists| !lists.admit(address)) {
            return Err(Refusal::Forbidden(Forbidden::Address));
        }
        self.maintenance.as_ref().map_or(Ok(()), |closed| closed.admit(address))
    }

    /// The answer to a browser that asks for a page what it may do; it asks without credentials.
    fn preflight(&self, head: &RequestHeader) -> Option<Answer> {
        self.cors.as_ref()?.preflight(head)
    }
}

/// A route that is closed, but for some.
pub(super) struct Closed {
    retry_after: u32,
    body: String,
    except: Networks,
}

impl Closed {
    fn new(config: &Maintenance) -> Self {
        let retry_after = u32::try_from(config.retry_after.as_secs()).unwrap_or(u32::MAX);
        Self { retry_after, body: config.body.clone(), except: Networks::new(config.except.iter().copied()) }
    }

    fn admit(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        match address.is_some_and(|address| self.except.contains(address)) {
            true => Ok(()),
            false => Err(Refusal::Maintenance { retry_after: self.retry_after }),
        }
    }

    /// What clients read, and of which type it is.
    pub(super) fn words(&self) -> (&'static str, String) {
        let is_html = self.body.trim_start().starts_with('<');
        (if is_html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" }, self.body.clone())
    }
}

impl Exchange {
    /// Asks what the route asks of whoever sends this request.
    pub(super) async fn admit(&mut self, session: &mut Session) -> ControlFlow<Answer> {
        if self.in_background {
            return self.admit_as_before(session);
        }
        let Some(admission) = self.plan.as_ref().and_then(|plan| plan.admission.clone()) else {
            return ControlFlow::Continue(());
        };
        let admitted = match admission.admit_address(self.sender.client) {
            Ok(()) => match admission.preflight(session.req_header()) {
                Some(answer) => return ControlFlow::Break(answer),
                None => self.pass(&admission, session).await,
            },
            Err(refusal) => Err(refusal),
        };
        admitted.map_or_else(|refusal| ControlFlow::Break(Answer::Refuse(refusal)), ControlFlow::Continue)
    }

    /// Whoever a request in the background is made for was admitted, to that route alone: without the credentials it may look
    /// like a request for another.
    fn admit_as_before(&self, session: &mut Session) -> ControlFlow<Answer> {
        let plan = self.plan.as_ref().filter(|plan| self.admitted_to.as_ref() == Some(&plan.name));
        let Some(plan) = plan else { return ControlFlow::Break(Answer::Refuse(Refusal::NoRoute)) };
        if let Some(gate) = plan.admission.as_ref().and_then(|admission| admission.gate.as_ref()) {
            gate.introduce(self.identity.as_deref(), session.req_header_mut());
        }
        ControlFlow::Continue(())
    }

    /// What costs least is asked first. Whoever has used up what he may have makes us compare no password, and whoever shows
    /// a wrong one is charged for it.
    async fn pass(&mut self, admission: &Admission, session: &mut Session) -> Result<(), Refusal> {
        let Some(gate) = &admission.gate else { return self.charge(admission, session.req_header(), Which::All) };
        if self.caching().is_some() {
            self.note_head(session);
        }
        // What a client says of itself must not be counted as somebody else's.
        gate.forget_claims(session.req_header_mut());
        self.look_at_rates(admission, session.req_header())?;
        let identified = self.identify(gate, session.req_header()).await;
        let which = if identified.is_ok() { Which::All } else { Which::Anonymous };
        // By the same head as before: afterwards the credentials are gone.
        self.charge(admission, session.req_header(), which)?;
        identified?;
        // Here too, and not only in what is sent on: so that the cache sees what the backend sees.
        gate.introduce(self.identity.as_deref(), session.req_header_mut());
        Ok(())
    }

    /// Notes by which number a request in the background, which begins with the head as it came in, can be told for this one.
    pub(super) fn note_head(&mut self, session: &Session) {
        if session.req_header().version != Version::HTTP_2 && self.head_as_it_came.is_none() {
            self.head_as_it_came = Some(head_of(session.as_downstream()));
        }
    }

    async fn identify(&mut self, gate: &Gate, head: &RequestHeader) -> Result<(), Refusal> {
        let asked = Asked {
            headers: &head.headers,
            query: head.uri.query(),
            method: &head.method,
            route: self.plan.as_ref().map_or("", |plan| &plan.name),
            address: self.sender.client,
        };
        self.identity = gate.identify(&asked).await?.map(Arc::new);
        Ok(())
    }

    /// Tells the backend who it is. Here nothing that the client says of its connection can take it away again.
    pub(super) fn introduce(&self, head: &mut RequestHeader) {
        let gate = self.plan.as_ref().and_then(|plan| plan.admission.as_ref()?.gate.as_ref());
        if let (Some(gate), Some(identity)) = (gate, &self.identity) {
            gate.introduce(Some(identity), head);
        }
    }

    /// Whether whoever got this far had to show credentials.
    pub(super) fn is_guarded(&self) -> bool {
        let admission = self.plan.as_ref().and_then(|plan| plan.admission.as_ref());
        admission.is_some_and(|admission| admission.gate.is_some())
    }

    /// What a client whose credentials are not good is asked for.
    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        self.plan.as_ref()?.admission.as_ref()?.gate.as_ref().map(Gate::challenge)
    }
}
