//! When is it too late? A deadline that moves often, and a timer that is armed seldom.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that can be moved for free.
///
/// The system's timer is moved only when it would ring too late; when it rings too early it is set again. So a busy
/// connection, whose deadline moves with every request, touches it about once in an idle time.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Moves the deadline.
    pub(crate) fn set_at(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Starts the span now.
    pub(crate) fn set(&mut self, span: Duration) {
        self.set_at(Instant::now() + span);
    }

    /// Starts the span now, unless a deadline stands already.
    pub(crate) fn start(&mut self, span: Duration) {
        if self.deadline.is_none() {
            self.set(span);
        }
    }

    /// There is no deadline any more.
    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }

    /// Whether the deadline has passed. If not, the task is woken then.
    pub(crate) fn has_rung(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if sleep.deadline() >= deadline => return true,
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn rings(timer: &mut Timer) {
        poll_fn(|cx| if timer.has_rung(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_wherever_that_was_moved() {
        let mut timer = Timer::default();
        for seconds in [60, 10, 30, 60] {
            let start = Instant::now();
            timer.set(Duration::from_secs(60));
            assert!(!poll_fn(|cx| Poll::Ready(timer.has_rung(cx))).await);
            timer.set(Duration::from_secs(seconds));
            rings(&mut timer).await;
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test]
    async fn without_a_deadline_it_never_rings() {
        let mut timer = Timer::default();
        timer.set(Duration::ZERO);
        timer.clear();
        assert!(!poll_fn(|cx| Poll::Ready(timer.has_rung(cx))).await);
    }
}
