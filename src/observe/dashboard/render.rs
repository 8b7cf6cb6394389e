//! How does a table look? Pure: a report in, text out.
//!
//! Text from outside (error words, names) is escaped, so a backend cannot write control codes to an operator's
//! terminal. Without colour there is no control code at all.

use std::fmt::Write;
use std::time::Duration;

use crate::backend::State;

use super::{CacheLine, CodingLine, Report, Row, Table};

/// Rows of one table; what matters most in a longer one still fits a screen.
const MOST_ROWS: usize = 20;
/// Characters of a backend's name.
const LONGEST_NAME: usize = 40;
const GAP: &str = "  ";
const NOTHING: &str = "-";

const HEADINGS: [&str; 12] = [
    "BACKEND",
    "STATE",
    "WEIGHT",
    "IN-FLIGHT",
    "QUOTA LEFT",
    "REQ/S",
    "ERRORS",
    "P50",
    "P99",
    "FAILS",
    "HEALTHY",
    "LAST ERROR",
];
/// The columns of words; numbers stand to the right.
const WORDS: [bool; 12] = [true, true, false, false, false, false, false, false, false, false, false, true];
const STATE: usize = 1;
/// Left out where no backend has a quota.
const QUOTA: usize = 4;
const LAST_ERROR: usize = 11;

/// Draws the tables for a terminal of this width, or as wide as they are. Columns that do not fit are left out from
/// the right; the last error of a backend in trouble then stands below its row.
pub fn render(report: &Report, width: Option<usize>, color: bool) -> String {
    let mut text = String::new();
    let width = width.unwrap_or(usize::MAX);
    for table in &report.tables {
        draw(&mut text, table, width, color);
    }
    if let Some(cache) = &report.cache {
        line(&mut text, &clip(&cache_line(cache), width));
    }
    for (heading, decoded) in [("compressed", false), ("decoded", true)] {
        let codings: Vec<_> = report.codings.iter().filter(|line| line.decoded == decoded).map(coding_words).collect();
        if !codings.is_empty() {
            line(&mut text, &clip(&format!("{heading} since the last table: {}", codings.join("; ")), width));
        }
    }
    if !report.refused.is_empty() {
        let counts: Vec<_> = report.refused.iter().map(|(label, count)| format!("{label} {count}")).collect();
        line(&mut text, &clip(&format!("refused since the last table: {}", counts.join(", ")), width));
    }
    text
}

/// `cache: 93 % hits of 1200 requests since the last table, 340 objects, 12 of 256 MiB`
fn cache_line(cache: &CacheLine) -> String {
    let asked = cache.hits + cache.misses;
    let share = match asked {
        0 => "no requests".to_owned(),
        asked => format!("{} % hits of {asked} request{}", 100 * cache.hits / asked, plural(asked)),
    };
    let (objects, used, size) = (cache.objects, mebibytes(cache.bytes), mebibytes(cache.size));
    let objects = format!("{objects} object{}", plural(objects as u64));
    format!("cache: {share} since the last table, {objects}, {used} of {size} MiB")
}

/// `zstd 120 answers, 12.4 to 2.1 MiB (17 %) in 130ms`
fn coding_words(line: &CodingLine) -> String {
    let CodingLine { coding, answers, before, after, .. } = *line;
    let share = (100 * after).checked_div(before).unwrap_or(100);
    let (sizes, took) = (format!("{} to {} MiB", mebibytes(before), mebibytes(after)), latency(line.took));
    format!("{coding} {answers} answer{}, {sizes} ({share} %) in {took}", plural(answers))
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Rounded up, so that what is there never shows as nothing.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{}", tenths / 10, tenths % 10)
    } else {
        tenths.div_ceil(10).to_string()
    }
}

fn draw(text: &mut String, table: &Table, width: usize, color: bool) {
    let (shown, cut) = select(&table.rows);
    let cells: Vec<_> = shown.iter().map(|row| cells(row)).collect();
    let columns = Columns::fit(&cells, width);
    let noun = if table.rows.len() == 1 { " backend" } else { " backends" };
    let waiting = table.waiting.filter(|&waiting| waiting > 0).map(|waiting| format!(", {waiting} waiting"));
    let words = format!("{}{}", summary(table.rows.iter(), noun), waiting.unwrap_or_default());
    line(text, &clip(&format!("{}: {words}", escape(&table.upstream)), width));
    columns.draw(text, &HEADINGS.map(str::to_owned), None);
    for (row, cells) in shown.iter().zip(&cells) {
        columns.draw(text, cells, color.then_some(row.state));
        if columns.count <= LAST_ERROR && row.state != State::Healthy && row.last_error.is_some() {
            line(text, &clip(&format!("{GAP}{GAP}last error: {}", cells[LAST_ERROR]), width));
        }
    }
    if !cut.is_empty() {
        line(text, &clip(&format!("... and {}", summary(cut.into_iter(), " more")), width));
    }
}

/// The rows that are shown and those that are not. When there are too many, those in trouble come first.
fn select(rows: &[Row]) -> (Vec<&Row>, Vec<&Row>) {
    let mut shown: Vec<_> = rows.iter().collect();
    if shown.len() <= MOST_ROWS {
        return (shown, Vec::new());
    }
    shown.sort_by_key(|row| match row.state {
        State::Unreachable => 0,
        State::Ejected => 1,
        State::Throttled => 2,
        State::Pending => 3,
        State::Draining => 4,
        State::Healthy => 5,
    });
    let cut = shown.split_off(MOST_ROWS);
    (shown, cut)
}

/// `480 more, 478 HEALTHY, 2 UNREACHABLE`
fn summary<'a>(rows: impl Iterator<Item = &'a Row>, what: &str) -> String {
    let states: Vec<_> = rows.map(|row| row.state).collect();
    let mut words = format!("{}{what}", states.len());
    for state in State::ALL {
        let count = states.iter().filter(|&&other| other == state).count();
        if count > 0 {
            let _ = write!(words, ", {count} {}", state.as_str());
        }
    }
    words
}

fn cells(row: &Row) -> [String; 12] {
    let tier = if row.tier > 0 { format!(" tier {}", row.tier) } else { String::new() };
    [
        clip(&escape(&row.backend), LONGEST_NAME),
        state(row),
        format!("{}{tier}", row.weight),
        row.most.map_or(row.in_flight.to_string(), |most| format!("{}/{most}", row.in_flight)),
        row.left.as_ref().map_or(NOTHING.to_owned(), |(left, quota)| format!("{left} of {quota}")),
        row.rate.map_or(NOTHING.to_owned(), rate),
        row.errors.to_string(),
        row.p50.map_or(NOTHING.to_owned(), latency),
        row.p99.map_or(NOTHING.to_owned(), latency),
        row.failures_in_row.to_string(),
        healthy(row),
        row.last_error.as_ref().map_or(NOTHING.to_owned(), |(what, ago)| format!("{} ({})", escape(what), age(*ago))),
    ]
}

/// `EJECTED 30s`: with what is left of it, rounded up so that it never says 0.
fn state(row: &Row) -> String {
    let word = row.state.as_str();
    match row.state_left.map(|left| left.as_secs_f64().ceil() as u64) {
        _ if row.on_trial => format!("{word} trial"),
        None => word.to_owned(),
        Some(seconds @ ..=120) => format!("{word} {}s", seconds.max(1)),
        Some(seconds) => format!("{word} {}m", seconds.div_ceil(60)),
    }
}

/// How wide each column is, and how many there are.
struct Columns {
    widths: [usize; 12],
    count: usize,
}

impl Columns {
    fn fit(cells: &[[String; 12]], limit: usize) -> Self {
        let mut widths = HEADINGS.map(str::len);
        for row in cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        if cells.iter().all(|row| row[QUOTA] == NOTHING) {
            widths[QUOTA] = 0;
        }
        // The last error may be cut short, so it only needs room for its heading and a few words.
        let needed = |column: usize| if column == LAST_ERROR { widths[column].min(24) } else { widths[column] };
        let mut used = 0;
        let fitting = (0..HEADINGS.len()).take_while(|&column| {
            used += needed(column) + gap(&widths, column);
            used <= limit
        });
        let count = fitting.count().max(STATE + 1);
        if count > LAST_ERROR && limit != usize::MAX {
            let before: usize = (1..=LAST_ERROR).map(|column| widths[column - 1] + gap(&widths, column)).sum();
            widths[LAST_ERROR] = widths[LAST_ERROR].min(limit - before);
        }
        Self { widths, count }
    }

    fn draw(&self, text: &mut String, cells: &[String; 12], color: Option<State>) {
        let mut drawn = String::new();
        for column in 0..self.count {
            let width = self.widths[column];
            if width == 0 {
                continue;
            }
            let cell = clip(&cells[column], width);
            let padded = if WORDS[column] { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            if column > 0 {
                drawn.push_str(GAP);
            }
            match color.filter(|_| column == STATE) {
                Some(state) => {
                    let _ = write!(drawn, "\x1b[{}m{padded}\x1b[0m", hue(state));
                }
                None => drawn.push_str(&padded),
            }
        }
        line(text, drawn.trim_end());
    }
}

/// Before a column: none before the first, nor before one that is left out.
fn gap(widths: &[usize], column: usize) -> usize {
    if column == 0 || widths.get(column) == Some(&0) { 0 } else { GAP.len() }
}

fn hue(state: State) -> u8 {
    match state {
        State::Healthy => 32,
        State::Pending | State::Throttled | State::Draining => 33,
        State::Ejected | State::Unreachable => 31,
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// At most this many characters; what was cut shows as two dots.
fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let dots = width.min(2);
    let kept = text.chars().take(width - dots);
    kept.chain("..".chars().take(dots)).collect()
}

/// Writes control characters, and those that change the direction of the text, as escapes.
fn escape(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// When it was last well; its last probe may be a while ago, which says nothing of how it is.
fn healthy(row: &Row) -> String {
    match row.state {
        State::Healthy => "now".to_owned(),
        State::Pending | State::Throttled | State::Ejected | State::Unreachable | State::Draining => {
            row.last_healthy.map_or("never".to_owned(), age)
        }
    }
}

fn rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn latency(latency: Duration) -> String {
    let micros = latency.as_micros() as f64;
    if micros < 1000.0 {
        format!("{micros}us")
    } else if micros < 10_000.0 {
        format!("{:.1}ms", micros / 1000.0)
    } else if micros < 1_000_000.0 {
        format!("{:.0}ms", micros / 1000.0)
    } else {
        format!("{:.1}s", micros / 1_000_000.0)
    }
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        0 => "now".to_owned(),
        seconds @ 1..60 => format!("{seconds}s ago"),
        seconds @ 60..3600 => format!("{}m ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h ago", seconds / 3600),
        seconds => format!("{}d ago", seconds / 86_400),
    }
}
