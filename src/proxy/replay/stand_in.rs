//! Whom does Pingora read a request from? A session of ours in the place of the client's, which remembers the body.
//!
//! Pingora begins each attempt by asking for retry buffering. That rewinds: the body is read from its beginning again,
//! first what is remembered, then what the client has yet to send. All else goes straight to the client's own session.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};

use super::memory::Memory;
use super::{Place, nobody};
use crate::retry::Kept;

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// A session whose body can be read from its beginning again.
pub(super) struct StandIn {
    client: ServerSession,
    memory: Option<Memory>,
    /// Where the client's own session goes when this one is dropped.
    place: Arc<Place>,
}

impl StandIn {
    pub(super) fn new(client: ServerSession, kept: Kept, place: Arc<Place>) -> Self {
        Self { client, memory: Some(Memory::new(kept)), place }
    }

    /// One that leaves bodies to the client's session.
    pub(super) fn without_memory(client: ServerSession, place: Arc<Place>) -> Self {
        Self { client, memory: None, place }
    }

    /// Before anything is written: what has been said meanwhile about the connection.
    fn prepare_to_write(&mut self) {
        if self.place.ends_connection() {
            self.client.set_keepalive(None);
        }
    }

    /// Remembers what has been read from the client.
    fn read(&mut self, read: Option<Bytes>) -> Option<Bytes> {
        if let (Some(bytes), Some(memory)) = (&read, &mut self.memory) {
            memory.remember(bytes);
        }
        read
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.place.put(std::mem::replace(&mut self.client, nobody()));
    }
}

#[async_trait]
impl CustomSession for StandIn {
    fn enable_retry_buffering(&mut self) {
        match &mut self.memory {
            Some(memory) => memory.rewind(),
            None => self.client.enable_retry_buffering(),
        }
    }

    /// What is remembered comes as the body does, piece by piece.
    fn get_retry_buffer(&self) -> Option<Bytes> {
        if self.memory.is_some() { None } else { self.client.get_retry_buffer() }
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.memory.as_ref().map_or_else(|| self.client.retry_buffer_truncated(), Memory::is_lost)
    }

    fn is_body_done(&mut self) -> bool {
        self.memory.as_ref().is_none_or(Memory::is_read) && self.client.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.client.is_body_empty()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        if let Some(piece) = self.memory.as_mut().and_then(Memory::next) {
            return Ok(Some(piece));
        }
        let read = self.client.read_request_body().await?;
        Ok(self.read(read))
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if let Some(piece) = self.memory.as_mut().and_then(Memory::next) {
            return Ok(Some(piece));
        }
        let read = self.client.read_body_or_idle(no_body_expected).await?;
        Ok(self.read(read))
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.client.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.prepare_to_write();
        self.client.write_response_header(head).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _end: bool) -> Result<()> {
        self.prepare_to_write();
        self.client.write_response_header_ref(head).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.client.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client.write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        if self.place.is_holding() {
            return self.place.hold_back(tasks);
        }
        self.prepare_to_write();
        let is_final = |task: &HttpTask| matches!(task, HttpTask::Header(head, _) if !head.status.is_informational());
        if let Some(memory) = self.memory.as_mut().filter(|_| tasks.iter().any(is_final)) {
            memory.read_once_more();
        }
        self.client.response_duplex_vec(tasks).await
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.client.shutdown().await;
    }

    async fn finish(&mut self) -> Result<()> {
        self.client.finish_body().await
    }

    fn req_header(&self) -> &RequestHeader {
        self.client.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.client.req_header_mut()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.client.response_written()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.client.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.client.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.client.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.client.request_summary()
    }

    fn body_bytes_sent(&self) -> usize {
        self.client.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.client.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.client.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.client.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.client.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.client.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.client.to_h1_raw()
    }

    fn is_upgrade_req(&self) -> bool {
        self.client.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.client.was_upgraded()
    }

    // Messages beside the body are of protocols that are not ours.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        no_messages()
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        no_messages()
    }
}

fn no_messages() -> Result<()> {
    Error::e_explain(ErrorType::InternalError, "nothing was taken that could be given back")
}
