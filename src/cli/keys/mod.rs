//! What can be typed about API keys? `portcullis keys`: new, list, revoke, rotate.
//!
//! A key is shown once, when it is made, and never again: what the store keeps of it cannot be turned back.

mod listing;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use ipnet::IpNet;
use jiff::Timestamp;

use super::{UNAVAILABLE, USAGE, fail, find_and_read, say};
use crate::auth::keys::{Database, NewKey, StoreError};
use crate::config::units;
use crate::config::{Config, Key, KeyLimits, KeySource, is_a_key_name};
use crate::custom::Additions;

/// Longer than anybody needs two keys for one thing.
const LONGEST_OVERLAP: Duration = Duration::from_secs(365 * 86_400);

const EXAMPLES: &str = "Examples:
  portcullis keys new --name ci --plan gold --route api --expires 90d
  portcullis keys new --name ci --hash-only >> keys.yaml     for a store that is a file
  portcullis keys rotate ci --overlap 24h                    a new key; the old one ends tomorrow
  portcullis keys revoke Zk3uT9aB                            by its id, or by the name for all of an owner's

What is changed holds within a second in every front door that reads the store; none needs a reload.
Exit codes: 0 fine, 64 bad flags or no such key, 69 the store cannot be used, 78 bad configuration";

/// A command about API keys.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Keys {
    /// Make a key and print it, once
    New(New),
    /// Show the keys of a store, never their secrets
    List {
        #[command(flatten)]
        place: Place,
        /// Print a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Take a key back, or all keys of an owner; it ends at once
    Revoke {
        #[command(flatten)]
        place: Place,
        /// The id of a key, or the name of its owner
        #[arg(value_name = "ID|NAME")]
        which: String,
    },
    /// Make another key for an owner, with the same limits; the old one ends after a while
    Rotate {
        #[command(flatten)]
        place: Place,
        /// The owner
        name: String,
        /// How long the old key opens beside the new one, such as 24h
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = overlap)]
        overlap: Duration,
        /// When the new key ends: a time, or how long from now; left out, when the old one would have
        #[arg(long, value_name = "TIME", value_parser = end)]
        expires: Option<End>,
    },
}

/// Which store is meant.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store in its `keys` section; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct New {
    #[command(flatten)]
    place: Place,
    /// Whose it is; shown in the access log
    #[arg(long, value_parser = name)]
    name: String,
    /// What its owner pays for
    #[arg(long, value_parser = name)]
    plan: Option<String>,
    /// A route that it opens [default: all]; may be given again, as may the next two
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// A method that it opens; GET implies HEAD
    #[arg(long = "method", value_name = "METHOD", value_parser = method)]
    methods: Vec<Method>,
    /// A network or an address that it opens from
    #[arg(long = "address", value_name = "CIDR", value_parser = network)]
    addresses: Vec<IpNet>,
    /// It does not open before: a time (2027-01-31T12:00:00Z), or how long from now (7d)
    #[arg(long, value_name = "TIME", value_parser = end)]
    not_before: Option<End>,
    /// It ends: a time (2027-01-31T12:00:00Z), or how long from now (90d)
    #[arg(long, value_name = "TIME", value_parser = end)]
    expires: Option<End>,
    /// Change no store: print the entry for a file of keys on standard output, and the key on standard error
    #[arg(long)]
    hash_only: bool,
}

/// A moment, or how far it is away.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    At(Timestamp),
    In(Duration),
}

impl End {
    /// In whole seconds, as stores have it.
    fn from(self, now: Timestamp) -> Timestamp {
        let at = match self {
            Self::At(time) => time,
            Self::In(duration) => now.checked_add(duration).unwrap_or(Timestamp::MAX),
        };
        Timestamp::from_second(at.as_second()).unwrap_or(at)
    }
}

fn end(text: &str) -> Result<End, String> {
    if let Ok(time) = text.parse() {
        return Ok(End::At(time));
    }
    let help = "write a time with its zone, as 2027-01-31T12:00:00Z, or how long from now, as 90d";
    units::duration(text).map(End::In).map_err(|_| help.to_owned())
}

fn overlap(text: &str) -> Result<Duration, String> {
    let time = units::duration(text).map_err(|error| error.to_string())?;
    if time <= LONGEST_OVERLAP { Ok(time) } else { Err("more than a year is no overlap".to_owned()) }
}

fn name(text: &str) -> Result<String, String> {
    let help = "it needs 1 to 300 visible letters; it is shown in logs, so it must not be a key";
    if is_a_key_name(text) { Ok(text.to_owned()) } else { Err(help.to_owned()) }
}

fn method(text: &str) -> Result<Method, String> {
    text.to_ascii_uppercase().parse().map_err(|_| "write GET, POST, PUT, ...".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().or_else(|_| address());
    net.map(|net| net.trunc()).map_err(|_| "write 10.0.0.0/8, fd00::/8 or one address".to_owned())
}

/// Why a command did nothing.
enum Failed {
    /// It was said already.
    Said(ExitCode),
    Usage(String),
    Store(PathBuf, StoreError),
}

impl From<ExitCode> for Failed {
    fn from(code: ExitCode) -> Self {
        Self::Said(code)
    }
}

impl Keys {
    /// Does what was asked.
    pub(super) fn run(self, additions: &Arc<Additions>) -> ExitCode {
        let now = Timestamp::now();
        let done = match self {
            Self::New(new) => new.run(additions, now),
            Self::List { place, json } => place.path(additions).and_then(|path| list(path, json, now)),
            Self::Revoke { place, which } => place.path(additions).and_then(|path| revoke(path, &which, now)),
            Self::Rotate { place, name, overlap, expires } => {
                place.path(additions).and_then(|path| rotate(path, &name, (now, overlap), expires))
            }
        };
        match done {
            Ok(code) | Err(Failed::Said(code)) => code,
            Err(Failed::Usage(what)) => fail(USAGE, what),
            Err(Failed::Store(path, error)) => fail(UNAVAILABLE, about(&path, &error)),
        }
    }
}

fn about(path: &std::path::Path, error: &StoreError) -> String {
    let help = match error {
        StoreError::Missing => "`portcullis keys new` makes it with its first key",
        StoreError::Locked => "try again; `fuser FILE` shows who has it open",
        StoreError::Full => "nothing was changed; make room and try again",
        StoreError::ReadOnly | StoreError::NotOpened => "run this as the user that owns the file and its folder",
        StoreError::NotAStore | StoreError::BadKey { .. } => {
            "name another file, or put a copy from before back; `sqlite3 FILE 'PRAGMA integrity_check'` says more"
        }
        StoreError::Newer => "use that version",
        StoreError::TooMany => "one store is not made for so many",
        StoreError::Other(_) => "nothing was changed",
    };
    format!("{}: {error}\n  help: {help}", path.display())
}

impl Place {
    fn path(self, additions: &Arc<Additions>) -> Result<PathBuf, Failed> {
        self.find(additions).map(|(_, path)| path)
    }

    /// The configuration, and the database that is meant.
    fn find(self, additions: &Arc<Additions>) -> Result<(Config, PathBuf), Failed> {
        let config = find_and_read(self.config, additions)?.1.config;
        let names = || config.keys.iter().map(|store| &*store.name).collect::<Vec<_>>().join(", ");
        let store = match &self.store {
            Some(name) => config.keys.iter().find(|store| *store.name == **name).ok_or_else(|| {
                let help =
                    if config.keys.is_empty() { "there are none".to_owned() } else { format!("they are {}", names()) };
                Failed::Usage(format!("no store of keys is called `{name}`\n  help: {help}"))
            })?,
            None => match &config.keys[..] {
                [only] => only,
                [] => {
                    let help = "add `keys: { team: { sqlite: keys.db } }`";
                    return Err(Failed::Usage(format!("the configuration has no store of keys\n  help: {help}")));
                }
                [_, _, ..] => {
                    let what =
                        format!("there are several stores of keys\n  help: choose one with --store: {}", names());
                    return Err(Failed::Usage(what));
                }
            },
        };
        match &store.source {
            KeySource::Sqlite { path, .. } => {
                let path = path.clone();
                Ok((config, path))
            }
            KeySource::File(path) => Err(Failed::Usage(format!(
                "`{}` is a file, which is changed by hand: {}\n  help: `portcullis keys new --hash-only --name NAME >> {}` \
                 makes a key and puts its entry there",
                store.name,
                path.display(),
                path.display(),
            ))),
        }
    }
}

impl New {
    fn run(self, additions: &Arc<Additions>, now: Timestamp) -> Result<ExitCode, Failed> {
        let made = NewKey::make();
        let key = self.key(&made, now);
        if let (Some(from), Some(until)) = (key.not_before, key.expires)
            && until <= from
        {
            return Err(Failed::Usage("--expires is not after --not-before".to_owned()));
        }
        if key.expires.is_some_and(|end| end <= now) {
            return Err(Failed::Usage("--expires is a time that is over".to_owned()));
        }
        if self.hash_only {
            let _ = writeln!(io::stderr().lock(), "The key, which is shown only now: {}", made.text());
            return Ok(say(listing::entry(&key)));
        }
        let (config, path) = self.place.find(additions)?;
        if let Some(unknown) = self.routes.iter().find(|name| !config.routes.iter().any(|route| *route.name == **name))
        {
            let names: Vec<_> = config.routes.iter().map(|route| &*route.name).collect();
            let help = format!("the routes are {}", names.join(", "));
            return Err(Failed::Usage(format!("no route is called `{unknown}`\n  help: {help}")));
        }
        let mut database = Database::open_or_make(&path).map_err(|error| Failed::Store(path.clone(), error))?;
        database.add(&key, now).map_err(|error| Failed::Store(path, error))?;
        Ok(say(made.text()))
    }

    fn key(&self, made: &NewKey, now: Timestamp) -> Key {
        Key {
            id: Some(made.id.as_str().into()),
            hash: made.hash(),
            name: self.name.as_str().into(),
            plan: self.plan.as_deref().map(Into::into),
            limits: KeyLimits {
                routes: self.routes.iter().map(|route| route.as_str().into()).collect(),
                methods: self.methods.clone(),
                addresses: self.addresses.clone(),
            },
            not_before: self.not_before.map(|end| end.from(now)),
            expires: self.expires.map(|end| end.from(now)),
            revoked: None,
        }
    }
}

fn list(path: PathBuf, as_json: bool, now: Timestamp) -> Result<ExitCode, Failed> {
    let keys = Database::open(&path).and_then(|mut database| database.list());
    let keys = keys.map_err(|error| Failed::Store(path, error))?;
    Ok(if as_json { say(listing::in_json(&keys, now)) } else { say(listing::in_rows(&keys, now)) })
}

fn revoke(path: PathBuf, which: &str, now: Timestamp) -> Result<ExitCode, Failed> {
    let broken = |error| Failed::Store(path.clone(), error);
    let mut database = Database::open(&path).map_err(broken)?;
    let revoked = database.revoke(which, now).map_err(broken)?;
    match revoked.len() {
        0 if database.knows(which).map_err(broken)? => Ok(say(format_args!("{which} was revoked before"))),
        0 => Err(no_key(which)),
        _ => Ok(say(format_args!("revoked {}", revoked.join(", ")))),
    }
}

fn rotate(
    path: PathBuf,
    name: &str,
    (now, overlap): (Timestamp, Duration),
    expires: Option<End>,
) -> Result<ExitCode, Failed> {
    let broken = |error| Failed::Store(path.clone(), error);
    let expires = expires.map(|end| end.from(now));
    if expires.is_some_and(|end| end <= now) {
        return Err(Failed::Usage("--expires is a time that is over".to_owned()));
    }
    let made = NewKey::make();
    let end = End::In(overlap).from(now);
    let next = |old: &Key| {
        let id = Some(made.id.as_str().into());
        (Key { id, hash: made.hash(), not_before: None, expires: expires.or(old.expires), ..old.clone() }, ())
    };
    let mut database = Database::open(&path).map_err(broken)?;
    match database.rotate(name, (now, end), next).map_err(broken)? {
        Some(()) => {
            let _ = writeln!(io::stderr().lock(), "The old key ends at {end}. The new one, which is shown only now:");
            Ok(say(made.text()))
        }
        None => Err(no_key(name)),
    }
}

fn no_key(which: &str) -> Failed {
    // What was typed may be a key itself, which belongs on no screen.
    let which = if is_a_key_name(which) { format!("`{which}`") } else { "that".to_owned() };
    let help = "`portcullis keys list` shows all; a key is named by the part between its first `_` and the second";
    Failed::Usage(format!("there is no good key of {which}\n  help: {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_how_far_away_it_is() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        for (text, expected) in [("1d", "2026-01-02T00:00:00Z"), ("2027-01-31T13:00:00+01:00", "2027-01-31T12:00:00Z")]
        {
            assert_eq!(end(text).unwrap().from(now).to_string(), expected, "{text}");
        }
        for text in ["", "tomorrow", "2027-01-31", "90", "-1d", "2027-01-31T12:00:00"] {
            assert!(end(text).is_err(), "{text}");
        }
        assert!(overlap("366d").is_err() && overlap("0s").is_ok());
    }
}
