//! How are the values written? Seconds, dates, and lists of items with parameters.

use std::time::{Duration, SystemTime};

use jiff::civil::{DateTime, date};
use jiff::fmt::strtime;

/// Enough for any wait, and far from where sums overflow.
const LONGEST: u64 = 100 * 365 * 86_400;

/// As many seconds as this began to be later than any wait: about the year 2001.
const AS_A_TIMESTAMP: u64 = 1_000_000_000;
/// The same in milliseconds.
const AS_MILLISECONDS: u64 = AS_A_TIMESTAMP * 1000;

/// An item of a list: `"name";key=value;key=value`.
pub(super) struct Item<'a> {
    /// With its quotes, if it has any.
    pub(super) name: &'a str,
    parameters: &'a str,
}

impl<'a> Item<'a> {
    /// The value of a parameter, as it is written.
    pub(super) fn parameter(&self, key: &str) -> Option<&'a str> {
        let mut pairs = split(self.parameters, b';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// The items of a list (RFC 9651, section 3.1), as far as we need to understand them.
pub(super) fn items(text: &str) -> impl Iterator<Item = Item<'_>> {
    split(text, b',').map(str::trim).filter(|item| !item.is_empty()).map(|item| {
        let name = split(item, b';').next().unwrap_or_default();
        let parameters = item.get(name.len() + 1..).unwrap_or_default();
        Item { name: name.trim(), parameters }
    })
}

/// The parts between separators that do not stand in quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let ends = byte == separator && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = quoted && byte == b'\\' && !escaped;
            ends
        });
        rest = end.and_then(|end| text.get(end + 1..));
        text.get(..end.unwrap_or(text.len()))
    })
}

/// Whole seconds, or with a fraction, which is rounded up. More than any wait is as much as any wait.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let more = fraction.bytes().any(|byte| byte != b'0');
    let whole = whole.parse().unwrap_or(u64::MAX).min(LONGEST * 1000);
    Some(Duration::from_secs(whole + u64::from(more)))
}

/// Seconds, or a moment in seconds or milliseconds since 1970: nobody ever said which of them it is.
pub(super) fn reset(text: &str, now: &impl Fn() -> SystemTime) -> Option<Duration> {
    let number = seconds(text)?;
    let since_1970 = match number.as_secs() {
        ..AS_A_TIMESTAMP => return Some(number),
        AS_A_TIMESTAMP..AS_MILLISECONDS => number,
        AS_MILLISECONDS.. => Duration::from_millis(number.as_secs()),
    };
    Some((SystemTime::UNIX_EPOCH + since_1970).duration_since(now()).unwrap_or_default())
}

/// A date in any of the three forms that HTTP has ever had (RFC 9110, section 5.6.7).
pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let parsed: DateTime = forms.iter().find_map(|form| strtime::parse(form, text).ok()?.to_datetime().ok())?;
    // Not over a `Timestamp`, which ends a day before the year 9999 does.
    let since_1970 = u64::try_from(parsed.duration_since(date(1970, 1, 1).at(0, 0, 0, 0)).as_secs()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970))
}
