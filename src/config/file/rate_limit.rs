//! What may be written about how much a client may have? The shape of `rate_limits`, of routes and of the server.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::decode::{Decode, Map, refuse, scalar};
use super::leaves::with_unit;
use super::section::section;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;
use crate::config::units;
use crate::config::{RateFields, RateKey};

section! {
    /// How many requests each client may make.
    RateLimit {
        /// What clients and logs call it. Limits of one name are one limit, whichever routes they are in.
        name: Option<String> = "null",
        /// So many within such a time: `100/s`, `1800/10m`, `1/d`.
        rate: Rate,
        /// So many at once, before the rate holds. Left out it is the number in `rate`.
        burst: Option<NonZeroU32> = "null",
        /// Who has a count of his own: `client_address` (of IPv6 each network of 64 bits), `api_key` (whom `auth` let in),
        /// `header:NAME`, `claim:NAME`, or `route`, which is one count for all.
        key: RateKey = "client_address",
        /// What a request costs.
        cost: NonZeroU32 = "1",
        /// What it costs with these methods; 0 is free.
        costs: Map<u32> = "{}",
        /// Whether it is only counted, and told in the log whom it would have refused.
        dry_run: bool = "false",
    }
    later {}
}

section! {
    /// What is remembered of all `rate_limits` together, and what clients are told.
    RateLimiting {
        /// So many keys have a count of their own; those that come when all are in use share some.
        entries: NonZeroU32 = "200000",
        /// The fields that tell clients what they have left: `draft` (RateLimit), `legacy` (X-RateLimit-*), `both` or `none`.
        headers: RateFields = "draft",
    }
    later {}
}

/// So many requests within such a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) period: Duration,
}

/// One a nanosecond, if it is in a second.
const RATE_MAX: u64 = 1_000_000_000;

const RATE: (&str, &str) = ("a number within a time", "write a number, `/` and a time: 100/s, 1800/10m, 1/d");

impl Decode for Rate {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (count, period) = with_unit(node, at, RATE, units::rate, problems)?;
        let (what, help) = match u32::try_from(count) {
            Ok(0) => {
                ("nothing could ever pass", "`respond: { status: 403 }` refuses everything; else leave the limit out")
            }
            _ if period.is_zero() => ("no time is as short as that", RATE.1),
            Ok(count) if count <= RATE_MAX as u32 => return Some(Self { count, period }),
            Ok(_) | Err(_) => ("this limits nothing", "write at most 1000000000, or leave the limit out"),
        };
        problems.error(at, what, help);
        None
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+/[0-9]*(ms|s|m|h|d)|\\$\\{.*)$" })
    }
}

impl Decode for RateKey {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "client_address, api_key, header:NAME, claim:NAME or route";
        let help = "choose what tells those apart who shall have a count of their own";
        let text = &scalar(node, at, wanted, help, problems)?.text;
        let key = match text.split_once(':') {
            None if text == "client_address" => Some(Self::ClientAddress),
            None if text == "api_key" => Some(Self::ApiKey),
            None if text == "route" => Some(Self::Route),
            Some(("header", name)) => name.parse::<HeaderName>().ok().map(Self::Header),
            Some(("claim", name)) if !name.is_empty() => Some(Self::Claim(name.into())),
            Some(_) | None => None,
        };
        key.or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        let named = json!({ "type": "string", "pattern": "^((header|claim):.+|\\$\\{.*)$" });
        json!({ "anyOf": [{ "enum": ["client_address", "api_key", "route"] }, named] })
    }
}

impl Decode for RateFields {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) =
            ("`draft`, `legacy`, `both` or `none`", "`draft` is what the IETF is about to make a standard");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "draft" => Some(Self::Draft),
            "legacy" => Some(Self::Legacy),
            "both" => Some(Self::Both),
            "none" => Some(Self::None),
            _ => refuse(node, at, wanted, help, problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["draft", "legacy", "both", "none"] })
    }
}
