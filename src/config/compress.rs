//! Which answers are made smaller, and how? The checked form of a route's `compress`.

use std::fmt;

/// A content coding that we speak (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
    /// RFC 1950: what HTTP calls `deflate` has the frame of zlib.
    Deflate,
}

impl Coding {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Br, Self::Gzip, Self::Deflate];

    /// Its name in `Accept-Encoding` and `Content-Encoding`, in the configuration and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which answers of a route are made smaller, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The codings that are offered; of those that a client likes best, the first. Never empty.
    pub algorithms: Vec<Coding>,
    /// An answer that announces fewer bytes is left as it is.
    pub min_size: u64,
    /// The types of content that are worth it.
    pub types: Vec<MediaRange>,
    /// How hard each coding tries.
    pub levels: Levels,
    /// Whether an answer in a coding that the client cannot read is decoded.
    pub decode: bool,
    /// Whether the bodies of requests are decoded for the backend.
    pub decode_requests: bool,
    /// From which share of all our processor time on the levels step down, in percent; `None` is never.
    pub max_cpu: Option<u8>,
}

/// How hard each coding tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 19.
    pub zstd: u8,
    /// 0 to 11.
    pub br: u8,
    /// 1 to 9.
    pub gzip: u8,
    /// 1 to 9.
    pub deflate: u8,
}

impl Levels {
    /// How hard this coding tries.
    pub fn of(&self, coding: Coding) -> u8 {
        match coding {
            Coding::Zstd => self.zstd,
            Coding::Br => self.br,
            Coding::Gzip => self.gzip,
            Coding::Deflate => self.deflate,
        }
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { zstd: 3, br: 4, gzip: 5, deflate: 5 }
    }
}

/// A set of media types, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaRange {
    /// Just this one: `application/json`.
    Exact(String),
    /// All of a type: `text/*` is kept as `text/`.
    Type(String),
    /// All with a suffix (RFC 6838, section 4.2.8): `*/*+json` is kept as `+json`.
    Suffix(String),
    /// `*/*`
    All,
}
