//! How does an answer get to the client? Part by part, as fast as the client takes it.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::proxy::{ProxyHttp, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::Trip;
use super::answer::Answer;
use super::link::{Turn, at_once};
use super::sending::from_client;
use crate::proxy::reply::never_has_a_body;

/// Parts of an answer that go through a module together.
const AT_ONCE: usize = 4;

impl Trip<'_> {
    /// Passes the answer on.
    pub(super) async fn relay(&mut self) -> Result<()> {
        let (head, is_all) = loop {
            let head = self.next_head().await?;
            let is_all = self.link.answer.is_over();
            if !head.status.is_informational() {
                break (head, is_all);
            }
            self.session.write_response_header(head, false).await.map_err(|error| error.into_down())?;
        };
        let relayed = if self.exchange.is_recoded || !is_of_a_client(self.session) {
            // Boxed, since few come here.
            Box::pin(self.relay_by_tasks(HttpTask::Header(head, is_all))).await
        } else {
            self.relay_plainly(head, is_all).await
        };
        if relayed.as_ref().is_err_and(|error| *error.esource() == ErrorSource::Upstream) {
            self.let_out();
        }
        relayed?;
        self.session.as_downstream_mut().finish_body().await.map_err(|error| error.into_down())?;
        Ok(())
    }

    /// The head of the next answer, ready for the client. Meanwhile the backend gets what there is of the body.
    async fn next_head(&mut self) -> Result<Box<ResponseHeader>> {
        // What is wrong with the connection has mostly been seen first where we wrote.
        let said = self.next(Answer::head).await?;
        let mut head = said.map_err(|error| self.sending.broke_off.take().unwrap_or(error))?;
        self.gateway.meet_answer(self.session, &mut head, self.exchange)?;
        frame_answer(&mut head, &self.session.req_header().method)?;
        self.gateway.complete_answer(self.session, &mut head, self.exchange)?;
        // Only now: the rooms say whether it was HTTP/2. Towards HTTP/1.1 Pingora writes no other; HTTP/2 has none in its head.
        head.set_version(Version::HTTP_11);
        Ok(head)
    }

    /// From one connection to the other, with nothing in between.
    async fn relay_plainly(&mut self, head: Box<ResponseHeader>, is_all: bool) -> Result<()> {
        if is_all {
            self.exchange.response_ended()?;
        }
        match &mut *self.session.downstream_session {
            // On HTTP/2 what is last says so.
            ServerSession::H2(http2) => http2.write_response_header(head, is_all),
            other @ (ServerSession::H1(_) | ServerSession::Subrequest(_) | ServerSession::Custom(_)) => {
                other.write_response_header(head).await
            }
        }
        .map_err(|error| error.into_down())?;
        let mut is_over = is_all;
        while !is_over {
            // Of an answer there may always be more, so that whoever waits for the first of the two would never get to the
            // other.
            self.send_at_once()?;
            let piece = self.next(Answer::part).await??;
            // Until the client has taken this one, the backend is not asked for more.
            self.exchange.watch.pause();
            if let ServerSession::H1(http1) = &mut *self.session.downstream_session {
                if !piece.is_empty() {
                    http1.write_body(&piece).await.map_err(|error| error.into_down())?;
                }
                is_over = self.link.answer.is_over();
                if is_over {
                    self.exchange.response_ended()?;
                }
            } else {
                is_over = self.pass_piece(piece).await?;
            }
            if !is_over {
                self.exchange.response_moved(Instant::now());
            }
        }
        Ok(())
    }

    /// What comes next of the answer. Meanwhile the backend gets what there is of the body.
    async fn next<T>(&mut self, mut look: impl FnMut(&mut Answer) -> Result<Option<T>>) -> Result<Result<T>> {
        loop {
            let is_open = self.sending.is_open;
            let waits_for_room = is_open && !self.link.outbox.has_room();
            let turn = tokio::select! {
                biased;
                turn = self.link.turn(waits_for_room, &mut look) => turn,
                piece = from_client(self.session, is_open), if !waits_for_room => {
                    self.send(piece?)?;
                    continue;
                }
            };
            match turn {
                Turn::Said(said) => return Ok(said.map_err(|error| error.into_up())),
                Turn::Room => {}
                Turn::BrokeOff(error) => self.sending.break_off(error),
            }
        }
    }

    /// Lets out what has been written and waits for more, before the connection ends: that much of the answer has come. Who
    /// has no room for it is not waited for.
    fn let_out(&mut self) {
        if let ServerSession::H1(http1) = &mut *self.session.downstream_session {
            // Within a body Pingora does so nowhere but here, whatever the failure is.
            let failed = HttpTask::Failed(Error::new(ErrorType::InternalError));
            let _ = at_once(http1.response_duplex_vec(vec![HttpTask::Body(None, false), failed]));
        }
    }

    /// The same for HTTP/2: whether it is the last has to be known before it is written.
    async fn pass_piece(&mut self, piece: Bytes) -> Result<bool> {
        let is_last = self.link.answer.is_over();
        if is_last {
            self.exchange.response_ended()?;
        }
        self.exchange.give_time_to_read(self.session, piece.len());
        let client = self.session.as_downstream_mut();
        client.write_response_body(piece, is_last).await.map_err(|error| error.into_down())?;
        Ok(is_last)
    }

    /// By way of what stands between us and the client: a module that recodes, or a session that holds back. What has come
    /// already goes together, since a module lets out what it has where the backend pauses.
    async fn relay_by_tasks(&mut self, head: HttpTask) -> Result<()> {
        let mut next = Some(head);
        loop {
            let task = match next.take() {
                Some(task) => task,
                None => {
                    self.send_at_once()?;
                    let piece = self.next(Answer::part).await??;
                    self.task_of(piece)
                }
            };
            let mut tasks = vec![task];
            while tasks.len() < AT_ONCE && tasks.last().is_some_and(|task| !task.is_end()) {
                match at_once(self.link.turn(false, Answer::part)) {
                    Some(Turn::Said(Ok(piece))) => tasks.push(self.task_of(piece)),
                    // What has come before it is passed on first.
                    Some(Turn::Said(Err(error))) => tasks.push(HttpTask::Failed(error.into_up())),
                    Some(Turn::BrokeOff(error)) => self.sending.break_off(error),
                    Some(Turn::Room) | None => break,
                }
            }
            let mut is_over = false;
            for task in &mut tasks {
                is_over |= task.is_end();
                if let HttpTask::Body(data, ended) = task {
                    self.gateway.upstream_response_body_filter(self.session, data, *ended, self.exchange)?;
                    self.gateway.response_body_filter(self.session, data, *ended, self.exchange)?;
                }
            }
            self.exchange.recode_aside(self.session, &mut tasks).await?;
            if self.session.write_response_tasks(tasks).await? || is_over {
                return Ok(());
            }
        }
    }

    fn task_of(&self, piece: Bytes) -> HttpTask {
        HttpTask::Body((!piece.is_empty()).then_some(piece), self.link.answer.is_over())
    }
}

/// Without a length the client finds the end by chunks, on HTTP/1.1: also where HTTP/2 has ended with the head.
pub(in crate::proxy) fn frame_answer(head: &mut ResponseHeader, method: &Method) -> Result<()> {
    let bodiless = *method == Method::HEAD || never_has_a_body(head.status) || head.status.is_informational();
    let framed = head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING);
    if bodiless || framed {
        return Ok(());
    }
    head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
}

/// Whether nobody stands in for the client.
pub(super) fn is_of_a_client(session: &Session) -> bool {
    matches!(session.as_downstream(), ServerSession::H1(_) | ServerSession::H2(_))
}
