//! What is in a usage event? One JSON object a request.

use std::io;

use serde::Serialize;

use crate::observe::access_log::Entry;

/// One request, for a bill. Fields without a value are `null`, so that every event has the same shape.
#[derive(Serialize)]
struct Event<'a> {
    id: String,
    time: String,
    identity: Option<&'a str>,
    plan: Option<&'a str>,
    /// The public part of a key, never the key.
    key: Option<&'a str>,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    method: &'a str,
    status: Option<u16>,
    reason: &'a str,
    cache: Option<&'a str>,
    requests: u32,
    bytes_in: u64,
    bytes_out: u64,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u32>,
    /// The id of the request, by which it is found in the access log.
    request: &'a str,
}

/// Gives events their ids.
pub(super) struct Events {
    boot: u64,
    count: u64,
}

impl Events {
    /// With ids that begin with this number, which no other process has.
    pub(super) fn new(boot: u64) -> Self {
        Self { boot, count: 0 }
    }

    /// Writes the event of an entry, with the end of its line.
    pub(super) fn write(&mut self, entry: &Entry, line: &mut Vec<u8>) -> io::Result<()> {
        self.count += 1;
        let account = &entry.account;
        let event = Event {
            // Of our own making: what a proxy in front of us calls a request may not be unique.
            id: format!("{:016x}-{}", self.boot, self.count),
            time: jiff::Timestamp::try_from(entry.time).map_or_else(|_| String::new(), |stamp| format!("{stamp:.3}")),
            identity: entry.identity.as_deref(),
            plan: account.plan.as_deref(),
            key: account.key.as_deref(),
            route: entry.route.as_deref(),
            upstream: entry.upstream.as_deref(),
            method: &entry.method,
            status: entry.status,
            reason: entry.reason,
            cache: entry.cache.as_deref(),
            requests: 1,
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
            ms: entry.total.as_micros() as f64 / 1000.0,
            cost: account.cost,
            request: &entry.id,
        };
        serde_json::to_writer(&mut *line, &event)?;
        line.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::Account;

    #[test]
    fn an_event_says_who_what_and_how_much() {
        let account = Account { plan: Some("gold".into()), key: Some("Zk3uT9aB".into()), cost: Some(5) };
        let entry = Entry {
            id: "7f".into(),
            identity: Some("ci".into()),
            method: "POST".into(),
            route: Some("api".into()),
            status: Some(200),
            cache: Some("hit".into()),
            bytes_in: 3,
            bytes_out: 4,
            total: std::time::Duration::from_micros(1500),
            account,
            ..Entry::default()
        };
        let (mut events, mut line) = (Events::new(0xab), Vec::new());
        events.write(&entry, &mut line).unwrap();
        events.write(&Entry::default(), &mut line).unwrap();
        let lines: Vec<_> = std::str::from_utf8(&line).unwrap().lines().collect();
        let expected = concat!(
            r#"{"id":"00000000000000ab-1","time":"1970-01-01T00:00:00.000Z","identity":"ci","plan":"gold","key":"Zk3uT9aB","#,
            r#""route":"api","upstream":null,"method":"POST","status":200,"reason":"ok","cache":"hit","requests":1,"#,
            r#""bytes_in":3,"bytes_out":4,"ms":1.5,"cost":5,"request":"7f"}"#,
        );
        assert_eq!(lines[0], expected);
        assert!(lines[1].contains(r#""id":"00000000000000ab-2""#) && !lines[1].contains("cost"), "{}", lines[1]);
    }
}
