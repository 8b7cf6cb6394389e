//! Work in the background about one backend: its probes, its resolver.

use std::future::Future;

use tokio::task::AbortHandle;

/// A task that ends when this is dropped, so that nothing goes on about a backend that is gone.
#[derive(Debug)]
#[must_use = "the task ends when this is dropped"]
pub struct Task(AbortHandle);

impl Task {
    /// Starts it; needs a tokio runtime.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
