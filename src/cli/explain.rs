//! What would happen to this request? `portcullis explain`: for a person, or with `--json` for a program.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::Uri;

use super::{UNAVAILABLE, USAGE, fail, find_and_read, say};
use crate::custom::Additions;
use crate::proxy::explain::{Came, Explanation, Outcome, Question, Verdict, explain};
use crate::server::tls::install_crypto;
use crate::upstream::survey::Surveyed;

/// The request would be refused.
const REFUSED: u8 = 1;

const EXAMPLES: &str = "Examples:
  portcullis explain -c edge.yaml GET https://shop.example/cart
  portcullis explain GET http://shop.example/cart -H 'X-Beta: 1' --from 203.0.113.7
  portcullis explain POST https://10.0.0.1/api --host api.example --json

Nothing is sent and nothing is opened: backends are taken as PENDING, as they are after a start, names are not resolved.
Exit codes: 0 it is forwarded or answered as the route says, 1 it is refused, 64 bad flags, 69 the configuration cannot be
used here, 78 bad configuration";

/// What to explain.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The method
    #[arg(value_name = "METHOD")]
    method: String,
    /// The URL, with http or https
    #[arg(value_name = "URL")]
    url: Uri,
    /// A field of the request, such as 'X-Beta: 1'; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address that it comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    /// The host that it names, in place of that of the URL
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self, additions: &Arc<Additions>) -> ExitCode {
        let question = match self.question() {
            Ok(question) => question,
            Err(wrong) => return fail(USAGE, wrong),
        };
        let checked = match find_and_read(self.config.clone(), additions) {
            Ok((_, checked)) => checked,
            Err(code) => return code,
        };
        install_crypto();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(UNAVAILABLE, error),
        };
        match runtime.block_on(explain(&checked.config, &question)) {
            Ok(explanation) => self.tell(&explanation),
            Err(error) => fail(UNAVAILABLE, error),
        }
    }

    fn tell(&self, explanation: &Explanation) -> ExitCode {
        let text = if self.json {
            serde_json::to_string_pretty(explanation).unwrap_or_default()
        } else {
            text_of(explanation).trim_end().to_owned()
        };
        match (say(text), &explanation.outcome) {
            (code, _) if code != ExitCode::SUCCESS => code,
            (_, Outcome::Refused { .. }) => ExitCode::from(REFUSED),
            (code, Outcome::Forwarded | Outcome::Answered { .. }) => code,
        }
    }

    fn question(&self) -> Result<Question, String> {
        let tls = match self.url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(format!("{} is no URL with http or https", self.url)),
        };
        let authority = self.url.authority().ok_or_else(|| "the URL names no host".to_owned())?;
        let host = self.host.clone().unwrap_or_else(|| authority.as_str().to_owned());
        if host.contains(['\r', '\n']) || self.method.contains(char::is_whitespace) {
            return Err("a method and a host have no blanks".to_owned());
        }
        let field = |text: &String| match text.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(format!("{text:?} is no field: write 'NAME: VALUE'")),
        };
        Ok(Question {
            method: self.method.clone(),
            tls,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            target: self.url.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            host,
            fields: self.headers.iter().map(field).collect::<Result<_, _>>()?,
            from: self.from,
        })
    }
}

/// For a person. A write to a text cannot fail.
fn text_of(found: &Explanation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", found.request);
    let _ = writeln!(text, "listener   {}", found.listener);
    let believed = if found.trusted { ", a trusted proxy speaks for it" } else { "" };
    let _ = writeln!(text, "client     {}{believed}", found.client.as_deref().unwrap_or("unknown"));
    routes(&mut text, &found.routes);
    for step in &found.steps {
        let verdict = match step.verdict {
            Verdict::Passes => "",
            Verdict::Answers => "  <- answers",
            Verdict::Refuses => "  <- refuses",
            Verdict::NotReached => "  (not reached)",
        };
        let _ = writeln!(text, "  {:<18} {}{verdict}", step.step, step.what);
    }
    cache(&mut text, found);
    upstream(&mut text, found);
    if !found.head.is_empty() {
        let _ = writeln!(text, "the backend gets");
        for line in &found.head {
            let _ = writeln!(text, "  {line}");
        }
    }
    for note in &found.notes {
        let _ = writeln!(text, "note       {note}");
    }
    let _ = match &found.outcome {
        Outcome::Forwarded => writeln!(text, "outcome    forwarded"),
        Outcome::Answered { status, fields } => writeln!(text, "outcome    answered {status} {}", fields.join(", ")),
        Outcome::Refused { status, reason, words } => writeln!(text, "outcome    refused {status} {reason}: {words}"),
    };
    text
}

fn routes(text: &mut String, came: &Came) {
    let why = if came.why.is_empty() { "takes everything".to_owned() } else { came.why.join(", ") };
    let _ = match &came.route {
        Some(route) => writeln!(text, "route      {route}: {why}"),
        None => writeln!(text, "route      none"),
    };
    for other in &came.others {
        let _ = match other.missing.as_slice() {
            [] => writeln!(text, "  not {}: it matches too, and is less specific", other.route),
            missing => writeln!(text, "  not {}: it wants {}", other.route, missing.join(", ")),
        };
    }
    if came.more > 0 {
        let _ = writeln!(text, "  nor {} others", came.more);
    }
}

fn cache(text: &mut String, found: &Explanation) {
    let Some(cache) = &found.cache else { return };
    let _ = writeln!(text, "cache      {}", cache.url.as_deref().unwrap_or_default());
    if !cache.parts.is_empty() {
        let _ = writeln!(text, "  told apart by {}", cache.parts.join(", "));
    }
    let _ = match (cache.bypass, cache.not_stored, cache.fresh_for_s) {
        (Some(why), _, _) => writeln!(text, "  passed by: {why}"),
        (None, Some(why), _) => writeln!(text, "  looked up, and not stored: {why}"),
        (None, None, Some(seconds)) if seconds > 0 => {
            writeln!(text, "  looked up, and stored; fresh for {seconds} s if the answer says nothing of it")
        }
        (None, None, _) => writeln!(text, "  looked up, and stored if the answer says for how long"),
    };
}

fn upstream(text: &mut String, found: &Explanation) {
    let Some(upstream) = &found.upstream else { return };
    let _ = writeln!(text, "upstream   {}: {}, at most {} attempts", upstream.name, upstream.policy, upstream.attempts);
    let line = |text: &mut String, number: &str, backend: &Surveyed, why: String| {
        let most = backend.most.map_or_else(String::new, |most| format!(", at most {most} at once"));
        let Surveyed { backend, state, tier, weight, .. } = backend;
        let _ = writeln!(text, "  {number:>3} {backend} {state}, tier {tier}, weight {weight}{most}{why}");
    };
    for (number, backend) in (1..).zip(&upstream.candidates) {
        let late = backend.why.map_or("", |_| ", once no other is left");
        line(text, &format!("{number}."), backend, late.to_owned());
    }
    for backend in &upstream.excluded {
        let why = backend.why.map_or_else(String::new, |why| format!(", not asked: {why:?}").to_lowercase());
        line(text, "-", backend, why);
    }
}
