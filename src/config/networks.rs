//! Which addresses are on a list? Those that the configuration names, and files with one network a line; `#` begins a
//! comment.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// A list of addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddressList {
    /// Networks in the configuration.
    pub networks: Vec<IpNet>,
    /// Files with more, which are read again when they change.
    pub files: Vec<PathBuf>,
}

impl AddressList {
    /// Whether nothing is listed. A file that is empty is something: it may be filled later.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.files.is_empty()
    }
}

/// A line that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: `{text}` is no network")]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    /// The beginning of what stands there.
    pub text: String,
}

/// Reads a list: networks as `10.0.0.0/8` or `fd00::/8`, or single addresses.
///
/// Bits behind the prefix do not matter. A list that has one bad line is refused as a whole: it is not known whom that
/// line was to keep out.
pub fn parse(text: &str) -> Result<Vec<IpNet>, BadLine> {
    const SHOWN: usize = 60;
    let mut networks = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
        if entry.is_empty() {
            continue;
        }
        let network = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
        let bad = || BadLine { number, text: entry.chars().take(SHOWN).filter(|c| !c.is_control()).collect() };
        networks.push(network.ok_or_else(bad)?);
    }
    Ok(networks)
}
