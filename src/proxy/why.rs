//! Why was it answered like that? What an operator is told who asks for it: `Portcullis-Debug` with the admin token.
//!
//! Nothing is noted for anybody else. Without a token in the configuration not even the field is looked for; with one, it
//! never gets further than this, whatever it holds.

use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::exchange::Exchange;
use crate::limit::rate::Standing;
use crate::upstream::Upstream;
use crate::upstream::survey::Surveyed;

const DEBUG: HeaderName = HeaderName::from_static("portcullis-debug");
const TRACE: HeaderName = HeaderName::from_static("portcullis-trace");

/// The longest value of the field, so that it fits into what clients take of a head.
const LONGEST: usize = 4096;

/// How many backends of a choice are shown, as long as that fits.
const SHOWN: [usize; 5] = [64, 16, 4, 1, 0];

/// What is noted of a request besides what every exchange knows.
#[derive(Default)]
pub(super) struct Why {
    choices: Vec<Choice>,
}

/// Among whom it was chosen, and when.
struct Choice {
    at: Duration,
    backends: Vec<Surveyed>,
}

#[derive(Serialize)]
struct Limit<'a> {
    limit: &'a str,
    remaining: u32,
    cost: u32,
    exceeded: bool,
    dry_run: bool,
}

impl<'a> From<&'a Standing> for Limit<'a> {
    fn from(standing: &'a Standing) -> Self {
        Self {
            limit: &standing.limit.name,
            remaining: standing.remaining,
            cost: standing.cost,
            exceeded: standing.exceeded,
            dry_run: standing.limit.dry_run,
        }
    }
}

impl Exchange {
    /// Begins to note what happens, if an operator asks for it.
    pub(super) fn begin_why(&mut self, session: &mut Session) {
        let Some(token) = &self.snapshot.operators else { return };
        let mut shown = session.req_header().headers.get_all(&DEBUG).iter();
        let Some(first) = shown.next() else { return };
        let is_theirs = verify_slices_are_equal(first.as_bytes(), token.bytes()).is_ok() && shown.next().is_none();
        // A request in the background is found by the head as it came.
        self.note_head(session);
        session.req_header_mut().remove_header(&DEBUG);
        self.why = (is_theirs && !self.in_background).then(Box::default);
    }

    /// Notes among whom the next backend is chosen.
    pub(super) fn note_choice(&mut self, upstream: &Upstream) {
        if let Some(why) = &mut self.why {
            why.choices.push(Choice { at: self.began.elapsed(), backends: upstream.survey(&self.tried) });
        }
    }

    /// Tells the operator what has happened so far.
    pub(super) fn tell_why(&self, session: &Session, head: &mut ResponseHeader) -> Result<()> {
        if self.why.is_none() {
            return Ok(());
        }
        let fits = |text: &String| text.len() <= LONGEST;
        let texts = SHOWN.iter().filter_map(|shown| Some(visible(&self.why_json(session, *shown)?.to_string())));
        let text = texts.into_iter().find(fits).unwrap_or_else(|| r#"{"error":"too long"}"#.to_owned());
        match HeaderValue::try_from(text) {
            Ok(value) => head.insert_header(TRACE, value),
            Err(_) => Ok(()),
        }
    }

    /// All of it, for the log; `None` where nobody has asked.
    pub(super) fn whole_why(&self, session: &Session) -> Option<Box<Json>> {
        self.why_json(session, usize::MAX).map(Box::new)
    }

    fn why_json(&self, session: &Session, shown: usize) -> Option<Json> {
        let why = self.why.as_ref()?;
        let plan = self.plan.as_ref();
        let choices: Vec<_> = why.choices.iter().map(|choice| choice.json(shown)).collect();
        Some(json!({
            "id": self.request.id.to_str().unwrap_or_default(),
            "client": self.sender.client,
            "listener": self.connection.as_ref().and_then(|connection| connection.listener_name.as_deref()),
            "route": plan.map(|plan| &*plan.name),
            "upstream": plan.and_then(|plan| Some(&**plan.upstream.as_ref()?.name())),
            "filters": plan.map(|plan| plan.filters.names()),
            "identity": self.identity.as_ref().and_then(|identity| identity.name.as_deref()),
            "limits": self.standings.iter().map(Limit::from).collect::<Vec<_>>(),
            "cache": self.cache_word(session),
            "choices": choices,
            "attempts": self.told_attempts(),
            "refused": self.refusal.map(|refusal| refusal.label()),
            "connect_ms": self.connect.map(millis),
            "first_byte_ms": self.first_byte.map(millis),
            "ms": millis(self.began.elapsed()),
        }))
    }

    fn told_attempts(&self) -> Vec<Json> {
        let over = self.attempts.iter().map(|ended| {
            json!({ "backend": &*ended.backend.name, "outcome": &*ended.outcome, "ms": millis(ended.took), "no_retry": ended.no_retry })
        });
        let now = self.attempt.as_ref().map(|attempt| {
            let took = Instant::now().saturating_duration_since(attempt.began);
            json!({ "backend": &*attempt.pick.backend().name, "outcome": "under_way", "ms": millis(took) })
        });
        over.chain(now).collect()
    }
}

impl Choice {
    fn json(&self, shown: usize) -> Json {
        let (candidates, excluded): (Vec<_>, Vec<_>) = self.backends.iter().partition(|backend| backend.why.is_none());
        let more = candidates.len().saturating_sub(shown) + excluded.len().saturating_sub(shown);
        json!({
            "at_ms": millis(self.at),
            "candidates": candidates.into_iter().take(shown).collect::<Vec<_>>(),
            "excluded": excluded.into_iter().take(shown).collect::<Vec<_>>(),
            "more": more,
        })
    }
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// JSON in visible ASCII alone: whatever else stands in its texts becomes an escape.
fn visible(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, ' '..='~') {
            text.push(letter);
            continue;
        }
        let mut units = [0; 2];
        for unit in letter.encode_utf16(&mut units) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_visible_ascii_and_still_the_same_json() {
        let value = json!({ "route": "caf\u{e9} \u{1f600}\u{7f}", "n": 1 });
        let text = visible(&value.to_string());
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text}");
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), value);
    }
}
