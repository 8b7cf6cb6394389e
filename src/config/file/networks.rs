//! What may be written about addresses? The entries of `allow` and `deny`.

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::decode::{Decode, scalar};
use super::leaves::FilePath;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;

/// A network, or where there are more.
#[derive(Clone, Debug)]
pub(crate) enum Addresses {
    Network(IpNet),
    File(FilePath),
}

impl Decode for Addresses {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write 10.0.0.0/8, \"fd00::/8\", one address, or file:PATH for a list of them";
        let text = &scalar(node, at, "a network or a file", help, problems)?.text;
        match text.strip_prefix("file:") {
            Some("") => {
                problems.error(at, "`file:` names no file", "write file:PATH");
                None
            }
            Some(path) => Some(Self::File(FilePath(path.to_owned()))),
            None => IpNet::decode(node, at, problems).map(Self::Network),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
