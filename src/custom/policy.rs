//! How may a program choose among backends? By what is known of each at this moment.

/// A way to choose that a program adds.
///
/// It is called for each attempt at a backend, by many threads at once, so it must be quick and must not block.
pub trait Policy: Send + Sync {
    /// Which of the candidates shall serve, by its place in the list, which is never empty. A number beyond the list is
    /// taken for the first.
    ///
    /// The candidates are in the order of the configuration: those that are ready and have not been tried for this
    /// request. One that has no place left may be among them: if it is chosen, the choice is made once more without it. `random` is a fresh number for those who leave something to chance.
    fn choose(&self, candidates: &[Candidate<'_>], random: u64) -> usize;
}

/// A backend that could serve.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name: `host:port` unless the file gives one.
    pub name: &'a str,
    /// Its weight, at least 1.
    pub weight: u32,
    /// Its requests in flight.
    pub in_flight: u32,
}
