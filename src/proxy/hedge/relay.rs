//! How does an answer get to the client? Part by part, as fast as the client takes it.

use http::Version;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{ProxyHttp, Session};

use super::call::{End, Link};
use crate::proxy::Gateway;
use crate::proxy::direct::frame_answer;
use crate::proxy::exchange::Exchange;
use crate::proxy::queue::client_gone;

impl Gateway {
    /// Passes an answer on, and says whether it has been read to its end.
    pub(super) async fn relay(
        &self,
        session: &mut Session,
        exchange: &mut Box<Exchange>,
        link: &mut Link,
        (mut head, mut end): (Box<ResponseHeader>, End),
    ) -> Result<End> {
        frame_answer(&mut head, &session.req_header().method)?;
        self.response_filter(session, &mut head, exchange).await?;
        // Only now: the rooms say whether it was HTTP/2. Towards HTTP/1.1 Pingora writes no other; HTTP/2 has none in its head.
        head.set_version(Version::HTTP_11);
        let mut sent = session.write_response_tasks(vec![HttpTask::Header(head, end == End::Here)]).await?;
        while end == End::Later && !sent {
            let mut task = tokio::select! {
                task = link.next() => task?,
                gone = client_gone(session) => return Err(gone),
            };
            end = task.is_end().into();
            if let HttpTask::Body(data, ended) = &mut task {
                self.upstream_response_body_filter(session, data, *ended, exchange)?;
            }
            sent = session.write_response_tasks(vec![task]).await?;
        }
        session.as_downstream_mut().finish_body().await.map_err(|error| error.into_down())?;
        Ok(end)
    }
}
