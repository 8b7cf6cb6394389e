//! How is a configuration shown to whoever asks what is in effect? As JSON, or as YAML that can be pasted into the file.
//!
//! An [`Outline`] has no secret in it; what replaces a part of it here has none either.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::changes::Changes;
use super::outline::{Field, Outline, Spelled};
use super::{Backend, Config, Upstream};
use crate::proxy_protocol::Version;

const HIDDEN: &str = "(not shown)";

impl Outline {
    /// What is in effect: the file, with the backends of these upstreams in place of those that it names, and this level
    /// of the log. Whoever was discovered is there too.
    pub fn in_effect<'a>(&self, upstreams: impl Iterator<Item = &'a Upstream>, level: log::LevelFilter) -> Self {
        let mut whole = self.clone();
        if let Some(sections) = whole.0.field_mut("upstreams") {
            for upstream in upstreams {
                let backends = upstream.backends.iter().map(spelled).collect();
                put(sections.field_mut(&upstream.name), "backends", Spelled::List(backends));
            }
        }
        put(whole.0.field_mut("log"), "level", Spelled::Text(word(level)));
        whole
    }

    /// As JSON, with all defaults.
    pub fn json(&self) -> Json {
        json_of(&self.0)
    }

    /// As YAML, with all defaults.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        block(&mut text, &self.0, 0, false);
        text
    }

    /// The sections in which changes differ from the file, as they would have to stand there. Who is discovered stands in
    /// no file: what was changed of those is told in comments.
    pub fn to_paste(&self, file: &Config, changes: &Changes) -> String {
        let mut fields = Vec::new();
        let mut notes = String::new();
        for name in changes.upstreams() {
            let Some(upstream) = file.upstreams.iter().find(|upstream| upstream.name == *name) else { continue };
            let added = added(upstream, changes);
            let list = self.0.field("upstreams").and_then(|all| all.field(name)).and_then(|it| it.field("backends"));
            let backends = Spelled::List(changed_list(upstream, list, changes));
            let section = Spelled::Map(vec![written("backends", backends)]);
            fields.push(written(name, section));
            for it in changes.differences(file).iter().filter(|it| it.upstream == *name) {
                let of_file = upstream.backends.iter().chain(&added);
                if !of_file.into_iter().any(|known| known.name == it.backend) {
                    let _ = writeln!(notes, "# {name}: {} was discovered, and is {}", it.backend, it.what.word());
                }
            }
        }
        let mut sections = Vec::new();
        if !fields.is_empty() {
            sections.push(written("upstreams", Spelled::Map(fields)));
        }
        if let Some(level) = changes.log_level {
            sections.push(written("log", Spelled::Map(vec![written("level", Spelled::Text(word(level)))])));
        }
        if sections.is_empty() {
            return "# Nothing differs from the file.\n".to_owned();
        }
        let mut text = notes;
        text.push_str("# In place of what the file says of these keys.\n");
        block(&mut text, &Spelled::Map(sections), 0, true);
        text
    }
}

/// The word for a level in the file.
pub fn word(level: log::LevelFilter) -> String {
    match level {
        log::LevelFilter::Off => "none".to_owned(),
        other => other.as_str().to_ascii_lowercase(),
    }
}

/// Those that only a change has brought.
fn added(upstream: &Upstream, changes: &Changes) -> Vec<Backend> {
    let mut now = upstream.clone();
    changes.apply(&mut now);
    now.backends.into_iter().filter(|it| !upstream.backends.iter().any(|known| known.name == it.name)).collect()
}

/// The `backends` of the file with the changes: what the file says of each is kept, as it was written.
fn changed_list(upstream: &Upstream, list: Option<&Spelled>, changes: &Changes) -> Vec<Spelled> {
    let mut now = upstream.clone();
    changes.apply(&mut now);
    let items: &[Spelled] = if let Some(Spelled::List(items)) = list { items } else { &[] };
    let spell = |it: &Backend| {
        let place = upstream.backends.iter().position(|known| known.name == it.name);
        let known = place.and_then(|place| Some((upstream.backends.get(place)?, items.get(place)?)));
        let weight = if it.drained { 0 } else { it.weight };
        match known {
            Some((known, item)) if known.weight == weight => item.clone(),
            Some((_, item)) => {
                let mut item = item.clone();
                put(Some(&mut item), "weight", Spelled::Text(weight.to_string()));
                item
            }
            None => spelled(&Backend { weight, ..it.clone() }),
        }
    };
    now.backends.iter().map(spell).collect()
}

/// A backend as the file would say it.
fn spelled(backend: &Backend) -> Spelled {
    let place = backend.target.show();
    let url = if backend.tls { format!("https://{place}") } else { place.to_string() };
    let quotas: Vec<_> = backend.limits.quota.iter().map(|quota| Spelled::Text(quota.to_string())).collect();
    let most = backend.limits.max_connections;
    let or_none = |text: Option<String>| Spelled::Text(text.unwrap_or_else(|| "none".to_owned()));
    let field = |key: &str, value, written| Field { key: key.to_owned(), value, written };
    let weight = if backend.drained { 0 } else { backend.weight };
    Spelled::Map(vec![
        field("url", Spelled::Text(url), true),
        field("name", Spelled::Text(backend.name.to_string()), backend.name != place),
        field("weight", Spelled::Text(weight.to_string()), weight != 1),
        field("tier", Spelled::Text(backend.tier.to_string()), backend.tier != 0),
        field("max_connections", or_none(most.map(|most| most.to_string())), most.is_some()),
        field("quota", Spelled::List(quotas), !backend.limits.quota.is_empty()),
        field("send_proxy", or_none(backend.send_proxy.map(proxy_word)), backend.send_proxy.is_some()),
    ])
}

fn written(key: &str, value: Spelled) -> Field {
    Field { key: key.to_owned(), value, written: true }
}

fn proxy_word(version: Version) -> String {
    match version {
        Version::V1 => "v1".to_owned(),
        Version::V2 => "v2".to_owned(),
    }
}

/// Gives a key of a mapping another value.
fn put(map: Option<&mut Spelled>, key: &str, value: Spelled) {
    let Some(Spelled::Map(fields)) = map else { return };
    match fields.iter_mut().find(|field| field.key == key) {
        Some(field) => (field.value, field.written) = (value, true),
        None => fields.push(written(key, value)),
    }
}

fn json_of(value: &Spelled) -> Json {
    match value {
        Spelled::Text(text) => match text.as_str() {
            "none" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => text.parse::<u64>().map_or_else(|_| text.into(), Json::from),
        },
        Spelled::Hidden(_) => HIDDEN.into(),
        Spelled::List(items) => items.iter().map(json_of).collect(),
        Spelled::Map(fields) => {
            let mut map = json!({});
            fields.iter().for_each(|field| map[&field.key] = json_of(&field.value));
            map
        }
    }
}

/// A mapping or a list in lines of their own, indented by so much; `only_written` leaves out what stands at its default.
fn block(text: &mut String, value: &Spelled, indent: usize, only_written: bool) {
    match value {
        Spelled::Map(fields) => {
            for (index, field) in fields.iter().filter(|field| field.written || !only_written).enumerate() {
                // The first one of an item stands behind the item's dash.
                if index > 0 || !text.ends_with("- ") {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&plain(&field.key));
                text.push(':');
                below(text, &field.value, indent, only_written);
            }
        }
        Spelled::List(items) => {
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push_str("- ");
                match item {
                    Spelled::Map(fields) if fields.iter().any(|field| field.written || !only_written) => {
                        block(text, item, indent + 2, only_written);
                    }
                    other => {
                        text.truncate(text.len() - 1);
                        below(text, other, indent, only_written);
                    }
                }
            }
        }
        Spelled::Text(_) | Spelled::Hidden(_) => below(text, value, indent, only_written),
    }
}

/// A value behind its key or its dash.
fn below(text: &mut String, value: &Spelled, indent: usize, only_written: bool) {
    match value {
        Spelled::Text(words) => {
            let _ = writeln!(text, " {}", plain(words));
        }
        Spelled::Hidden(_) => {
            let _ = writeln!(text, " \"{HIDDEN}\"");
        }
        Spelled::List(items) if items.is_empty() => text.push_str(" []\n"),
        Spelled::Map(fields) if !fields.iter().any(|field| field.written || !only_written) => text.push_str(" {}\n"),
        Spelled::List(_) | Spelled::Map(_) => {
            text.push('\n');
            block(text, value, indent + 2, only_written);
        }
    }
}

/// A scalar, in quotes unless it needs none in any YAML.
fn plain(words: &str) -> String {
    let first = words.starts_with(|c: char| c.is_ascii_alphanumeric() || "/._$".contains(c));
    let rest = words.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@%+*?=${}".contains(c));
    let old_boolean = ["on", "off", "yes", "no", "y", "n"].iter().any(|word| words.eq_ignore_ascii_case(word));
    match first && rest && !words.ends_with(':') && !old_boolean {
        true => words.to_owned(),
        false => Json::from(words).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::changes::Wish;
    use crate::config::members::{Rules, entry};
    use crate::config::{Surroundings, parse};

    const FILE: &str = "\
listeners: [{ address: 127.0.0.1:0 }]
server: { secret: 0123456789abcdef }
admin: { token: fedcba9876543210 }
upstreams:
  app: { backends: [\"${WHERE}\", { url: 10.0.0.2:80, name: b, weight: 3, quota: [240/m] }], health_check: { path: /up } }
  other: { backends: [10.0.0.9:80] }
routes: [{ upstream: app }]
";

    fn checked(text: &str) -> Config {
        let mut around = Surroundings::of_process("".into());
        around.environment = Box::new(|_| Some("10.0.0.1:80".to_owned()));
        parse(text, "f", &around).unwrap_or_else(|problems| panic!("{text}{problems:#?}")).config
    }

    fn changed() -> (Config, Changes) {
        let (config, mut changes) = (checked(FILE), Changes::default());
        let app = &config.upstreams[0];
        changes.wish(app, "10.0.0.1:80", &Wish::Drain).unwrap();
        changes.wish(app, "b", &Wish::Weigh(5)).unwrap();
        let new = entry(&json!({ "url": "https://c.internal", "tier": 1 }), Rules::of(app, None)).unwrap();
        changes.add(app, new).unwrap();
        (config, changes)
    }

    #[test]
    fn differences_are_printed_as_they_would_stand_in_the_file() {
        let (config, mut changes) = changed();
        changes.log_level = Some(log::LevelFilter::Debug);
        let expected = "\
# In place of what the file says of these keys.
upstreams:
  app:
    backends:
      - url: ${WHERE}
        weight: 0
      - url: 10.0.0.2:80
        name: b
        weight: 5
        quota:
          - 240/m
      - url: https://c.internal:443
        tier: 1
log:
  level: debug
";
        assert_eq!(config.outline.to_paste(&config, &changes), expected);
        assert_eq!(config.outline.to_paste(&config, &Changes::default()), "# Nothing differs from the file.\n");
    }

    #[test]
    fn what_was_pasted_leaves_no_difference() {
        let (config, mut changes) = changed();
        let pasted = config.outline.to_paste(&config, &changes);
        let rest = FILE.lines().filter(|line| !line.starts_with("  app:") && !line.starts_with("upstreams:"));
        let rest: String = rest.map(|line| format!("{line}\n")).filter(|line| !line.starts_with("  other")).collect();
        let next = checked(&format!("{rest}{pasted}"));
        changes.settle(&next);
        let words: Vec<_> = changes.differences(&next).iter().map(|it| it.what.word()).collect();
        assert_eq!(words, [""; 0]);
    }

    #[test]
    fn what_is_in_effect_has_defaults_and_no_secret() {
        let (mut config, changes) = changed();
        changes.apply_to(&mut config);
        let whole = config.outline.in_effect(config.upstreams.iter(), log::LevelFilter::Warn);
        let json = whole.json();
        assert_eq!(json["upstreams"]["app"]["backends"][1]["weight"], 5);
        assert_eq!(json["upstreams"]["app"]["backends"][2]["url"], "https://c.internal:443");
        assert_eq!((&json["log"]["level"], &json["server"]["grace_period"]), (&json!("warn"), &json!("20s")));
        for shown in [json.to_string(), whole.yaml()] {
            assert!(shown.contains(HIDDEN) && !shown.contains("fedcba") && !shown.contains("012345"), "{shown}");
        }
    }

    #[test]
    fn words_that_mean_more_in_yaml_are_quoted() {
        for (words, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("", "\"\""),
            ("*/*", "\"*/*\""),
            ("a: b", "\"a: b\""),
            ("no", "\"no\""),
            ("a #b", "\"a #b\""),
            ("[::1]:80", "\"[::1]:80\""),
            ("x\ny", "\"x\\ny\""),
        ] {
            assert_eq!(plain(words), shown);
        }
    }
}
