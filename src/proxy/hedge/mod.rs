//! Is one backend enough? Where a route hedges, a late answer to GET or HEAD is asked for a second time, of another
//! backend, and the first good one is passed on.
//!
//! Pingora asks one backend at a time, so the first round of such a request runs here: the same steps in the same order,
//! on connections of our own. What fails goes the usual way: another attempt is made as for requests that do not hedge.

mod call;
mod race;
mod relay;

use std::time::{Duration, Instant};

use http::Method;
use pingora::http::ResponseHeader;
use pingora::proxy::{ProxyHttp, Session};
use pingora::{Error, Result};

use self::call::{End, Heard};
use self::race::Said;
use super::Gateway;
use super::direct::head;
use super::exchange::Exchange;
use crate::backend;

/// A quantile of fewer answers is mostly chance.
const ANSWERS_MIN: u64 = 50;

impl Gateway {
    /// Answers a request that is hedged; says whether it has been answered.
    pub(super) async fn hedge(&self, session: &mut Session, exchange: &mut Box<Exchange>) -> Result<bool> {
        match exchange.hedges_after(session) {
            // Boxed: other requests shall not carry the room for it.
            Some(delay) => Box::pin(self.answer_first_round(session, exchange, delay)).await,
            None => Ok(false),
        }
    }

    async fn answer_first_round(
        &self,
        session: &mut Session,
        exchange: &mut Box<Exchange>,
        delay: Duration,
    ) -> Result<bool> {
        let Heard { mut link, head, .. } = match self.race(session, exchange, delay).await? {
            Said::Heard(heard) => heard,
            Said::Nothing(peer, error) => return again(self.fail_to_connect(session, &peer, exchange, error)),
        };
        let relayed = match head {
            Ok(head) => match exchange.passes_on(session, &head.0) {
                Ok(()) => self.relay(session, exchange, &mut link, head).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match relayed {
            Ok(end) => {
                if end == End::Here {
                    link.release().await;
                }
                Ok(true)
            }
            Err(error) => again(self.error_while_proxy(&link.peer, session, error, exchange, link.reused)),
        }
    }
}

/// Leaves what shall be tried again to the way of all others.
fn again(error: Box<Error>) -> Result<bool> {
    if error.retry() { Ok(false) } else { Err(error) }
}

impl Exchange {
    /// Whether an answer is passed on, and not given up for another attempt or a page.
    fn passes_on(&mut self, session: &Session, head: &ResponseHeader) -> Result<()> {
        self.give_up_for_another(session, head)?;
        self.replace_answer(session, head)
    }

    /// After how long another backend is asked too; `None` where that is never done.
    fn hedges_after(&self, session: &mut Session) -> Option<Duration> {
        let plan = self.plan.as_ref()?;
        let (hedge, upstream) = (plan.hedge.as_ref()?, plan.upstream.as_ref()?);
        let head = session.req_header();
        let safe = matches!(head.method, Method::GET | Method::HEAD) && head::names_no_fields(head);
        if !safe || session.is_upgrade_req() || !session.is_body_done() {
            return None;
        }
        let backends = || upstream.members().iter().map(|member| &*member.backend);
        hedge.get(Instant::now(), |share| backend::quantile(backends(), share, ANSWERS_MIN))
    }
}
