//! What does systemd want to know? When we serve, when we leave, and who we are (sd_notify(3)).
//!
//! Under any other service manager, and by hand, nothing is said to anybody.

use sd_notify::NotifyState;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// We serve.
    Ready,
    /// We leave.
    Stopping,
    /// Another process is the service from now on.
    MainPid(u32),
}

/// Tells systemd, if it has started us with `Type=notify`.
pub(super) fn tell(facts: &[Fact]) {
    let states: Vec<_> = facts.iter().map(|fact| fact.state()).collect();
    if let Err(error) = sd_notify::notify(&states) {
        log::warn!("systemd cannot be told how we are: {error}");
    }
}

impl Fact {
    fn state(self) -> NotifyState<'static> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Stopping => NotifyState::Stopping,
            Self::MainPid(pid) => NotifyState::MainPid(pid),
        }
    }
}
