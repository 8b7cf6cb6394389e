//! What is logged, and where does it go? The `log` section, checked.

use std::path::PathBuf;
use std::time::Duration;

use super::{HttpUrl, Secret};

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// Where access log lines go.
    pub access: AccessLog,
    /// What such a line looks like.
    pub form: LogForm,
    /// When its file is put aside; `None` is never.
    pub rotate: Option<Rotate>,
    /// Where usage events go; `None` is nowhere.
    pub usage: Option<Usage>,
    /// The Loki that lines are pushed to.
    pub loki: Option<Loki>,
    /// When the tables of backends are written.
    pub dashboard: Dashboard,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    None,
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

/// What a line of the access log looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// One JSON object.
    Json,
    /// nginx's `combined`.
    Combined,
    /// Text with fields in it.
    Template(Vec<Piece>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// What the field says of the request.
    Field(LogField),
}

/// What a template may say of a request.
macro_rules! log_fields {
    ($($name:literal => $field:ident: $about:literal,)*) => {
        /// What a template may say of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum LogField {
            $(#[doc = $about] $field,)*
        }

        impl LogField {
            /// The names of all, as a template calls them.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The field of this name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

log_fields! {
    "time" => Time: "When the request arrived, as RFC 3339 writes it.",
    "id" => Id: "The request id.",
    "trace_id" => TraceId: "The trace that it is in, where requests are traced.",
    "client" => Client: "The client's address.",
    "identity" => Identity: "Who sent it, where the route has `auth`.",
    "dry_run" => DryRun: "The limits in a dry run that would have refused it.",
    "method" => Method: "The method.",
    "host" => Host: "The host that was asked for.",
    "path" => Path: "The path, without the query.",
    "route" => Route: "The route.",
    "upstream" => Upstream: "The upstream.",
    "backend" => Backend: "The backend of the last attempt.",
    "attempts" => Attempts: "How many attempts there were.",
    "status" => Status: "The status that the client got.",
    "bytes_in" => BytesIn: "Bytes of the request's body.",
    "bytes_out" => BytesOut: "Bytes of the response's body.",
    "total_ms" => Total: "From the first byte to the last, in milliseconds.",
    "first_byte_ms" => FirstByte: "Until the head of the backend's response.",
    "connect_ms" => Connect: "To connect to the backend.",
    "protocol" => Protocol: "The version of HTTP.",
    "tls" => Tls: "The version of TLS.",
    "cache" => Cache: "How the cache served it.",
    "encoding" => Encoding: "The coding that the body left with.",
    "reason" => Reason: "How it ended.",
    "time_clf" => TimeClf: "When it ended, as nginx's `$time_local` writes it, in UTC.",
    "request" => Request: "The request line, with the query.",
    "referer" => Referer: "The page that the client came from.",
    "user_agent" => UserAgent: "What the client calls itself.",
}

impl LogForm {
    /// Whether lines hold what the log does not know unless it is asked: the request line, or fields of the head.
    pub fn quotes_the_head(&self) -> bool {
        let quotes =
            |piece: &Piece| matches!(piece, Piece::Field(LogField::Request | LogField::Referer | LogField::UserAgent));
        match self {
            Self::Json => false,
            Self::Combined => true,
            Self::Template(pieces) => pieces.iter().any(quotes),
        }
    }
}

/// When a file of lines is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// With so many bytes.
    pub size: u64,
    /// So many files are kept beside the one that is written.
    pub keep: u32,
}

/// Where usage events go.
#[derive(Clone, Debug, PartialEq)]
pub enum Usage {
    /// To the end of this file, which is put aside like that of the access log.
    File(PathBuf, Option<Rotate>),
    /// To a URL, in batches.
    Http(UsageHttp),
}

/// How usage events are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageHttp {
    /// Where to.
    pub url: HttpUrl,
    /// Where they wait until they have arrived.
    pub spool: PathBuf,
    /// The most bytes that wait there.
    pub spool_size: u64,
    /// Shown to whoever takes them.
    pub token: Option<Secret>,
    /// The authorities that are believed, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The most events of a request.
    pub batch: usize,
    /// How long an event waits for others.
    pub interval: Duration,
}

/// The Loki that access log lines are pushed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Loki {
    /// Its push API.
    pub url: HttpUrl,
    /// What all lines are labelled with; at least one.
    pub labels: Vec<(String, String)>,
    /// For whom, where it serves several.
    pub tenant: Option<String>,
    /// What is shown to it.
    pub login: Option<Login>,
    /// The authorities that are believed, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The most lines of a push.
    pub batch: usize,
    /// How long a line waits for others.
    pub interval: Duration,
}

/// What is shown to a server of somebody's.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// A token.
    Bearer(Secret),
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// When the tables of backends are written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashboard {
    /// Never.
    None,
    /// When a backend's state changes.
    OnChange,
    /// When a state changes, and at this interval.
    Every(Duration),
}
