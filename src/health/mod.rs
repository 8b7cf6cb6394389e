//! Who is alive? Probes, and what their results make of a backend.

pub mod ladder;

/// Stub.
pub struct WatchHandle;
pub fn watch(b: std::sync::Arc<crate::backend::Backend>, _c: &crate::config::Upstream, _t: &std::sync::Arc<crate::backend::PeerTls>, changed: std::sync::Arc<dyn Fn(&crate::backend::Backend, crate::backend::State, crate::backend::State)+Send+Sync>) -> WatchHandle { b.set_state(crate::backend::State::Healthy); changed(&b, crate::backend::State::Pending, crate::backend::State::Healthy); WatchHandle }
