//! What is in a usage event? One JSON object a request.

use crate::observe::access_log::Entry;
use crate::observe::json::{Object, field};
use crate::observe::stamps::Stamps;

/// Gives events their ids.
pub(super) struct Events {
    boot: u64,
    count: u64,
    stamps: Stamps,
}

impl Events {
    /// With ids that begin with this number, which no other process has.
    pub(super) fn new(boot: u64) -> Self {
        Self { boot, count: 0, stamps: Stamps::default() }
    }

    /// Writes the event of an entry, with the end of its line. Fields without a value are `null`, so that every event has the
    /// same shape.
    pub(super) fn write(&mut self, entry: &Entry, line: &mut Vec<u8>) {
        self.count += 1;
        let account = &entry.account;
        let stamp = self.stamps.rfc3339(entry.time);
        let mut event = Object::new(line);
        // Of our own making: what a proxy in front of us calls a request may not be unique.
        event.shown(field!("id"), Some(format_args!("{:016x}-{}", self.boot, self.count)));
        event.ascii(field!("time"), Some(stamp.as_ref().map_or(b"", |stamp| stamp)));
        event.text(field!("identity"), entry.identity.as_deref());
        event.text(field!("plan"), account.plan.as_deref());
        // The public part of a key, never the key.
        event.text(field!("key"), account.key.as_deref());
        event.text(field!("route"), entry.route.as_deref());
        event.text(field!("upstream"), entry.upstream.as_deref());
        event.text(field!("method"), &*entry.method);
        event.number(field!("status"), entry.status.map(u64::from));
        event.text(field!("reason"), entry.reason);
        event.text(field!("cache"), entry.cache.as_deref());
        event.number(field!("requests"), 1);
        event.number(field!("bytes_in"), entry.bytes_in);
        event.number(field!("bytes_out"), entry.bytes_out);
        event.millis(field!("ms"), entry.total);
        if let Some(cost) = account.cost {
            event.number(field!("cost"), u64::from(cost));
        }
        // By which it is found in the access log.
        event.text(field!("request"), &*entry.id);
        event.end();
        line.push(b'\n');
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
        events.write(&entry, &mut line);
        events.write(&Entry::default(), &mut line);
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
