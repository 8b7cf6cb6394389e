//! How long, how large, which share? Numbers with their unit, as the file writes them.
//!
//! A number that has a unit never stands bare, for nobody remembers whether `30` were seconds or milliseconds. Each
//! reader says in words what it wants; it knows no place and no key.

use std::time::Duration;

/// Why a text is not a number with a unit: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Only digits.
    #[error("`{0}` has no unit")]
    Bare(String),
    /// Neither a number nor a unit we know.
    #[error("`{0}` is not {1}")]
    Unreadable(String, &'static str),
    /// More than we can count.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Ten years: no timer of ours needs more, and sums of a few cannot overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A duration such as `250ms`, `1s`, `5m`, `1h` or `1d`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (count, unit) = split(text, "a duration")?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(UnitError::Bare(text.to_owned())),
        _ => return Err(UnitError::Unreadable(text.to_owned(), "a duration")),
    };
    let duration = count.checked_mul(millis).map(Duration::from_millis).filter(|duration| *duration <= LONGEST);
    duration.ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// A size in bytes such as `64KiB`, `8MiB` or `1GiB`.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let (count, unit) = split(text, "a size")?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err(UnitError::Bare(text.to_owned())),
        _ => return Err(UnitError::Unreadable(text.to_owned(), "a size")),
    };
    count.checked_mul(bytes).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// A share such as `50%`, as a fraction: 0.5.
pub fn share(text: &str) -> Result<f64, UnitError> {
    let (count, unit) = split(text, "a share")?;
    match unit {
        "%" if count <= 100_000 => Ok(count as f64 / 100.0),
        "%" => Err(UnitError::TooLarge(text.to_owned())),
        "" => Err(UnitError::Bare(text.to_owned())),
        _ => Err(UnitError::Unreadable(text.to_owned(), "a share")),
    }
}

/// A part of a whole such as `1%` or `0.1%`, as a fraction of at most 1.
pub fn part(text: &str) -> Result<f64, UnitError> {
    let unreadable = || UnitError::Unreadable(text.to_owned(), "a part of a whole");
    let (number, has_unit) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent = number.parse::<f64>().ok().filter(|_| is_plain).ok_or_else(unreadable)?;
    match percent {
        _ if !has_unit => Err(UnitError::Bare(text.to_owned())),
        percent if percent > 100.0 => Err(UnitError::TooLarge(text.to_owned())),
        percent => Ok(percent / 100.0),
    }
}

/// A number within a time such as `100/s`, `240/m` or `1800/10m`.
pub fn rate(text: &str) -> Result<(u64, Duration), UnitError> {
    let (count, rest) = split(text, "a number within a time")?;
    let unreadable = || UnitError::Unreadable(text.to_owned(), "a number within a time");
    let window = match rest.strip_prefix('/') {
        Some(window) if window.starts_with(|first: char| first.is_ascii_digit()) => duration(window),
        Some(unit) => duration(&format!("1{unit}")),
        None if rest.is_empty() => return Err(UnitError::Bare(text.to_owned())),
        None => return Err(unreadable()),
    };
    window.map(|window| (count, window)).map_err(|_| unreadable())
}

/// Bytes within a time such as `1KiB/s` or `300KiB/m`, as whole bytes a second.
pub fn byte_rate(text: &str) -> Result<u64, UnitError> {
    const WHAT: &str = "bytes within a time";
    let unreadable = || UnitError::Unreadable(text.to_owned(), WHAT);
    let (amount, window) = text.split_once('/').ok_or_else(unreadable)?;
    let bytes = size(amount).map_err(|_| unreadable())?;
    let counted = if window.starts_with(|first: char| first.is_ascii_digit()) { "" } else { "1" };
    let window = duration(&format!("{counted}{window}")).map_err(|_| unreadable())?;
    let millis = window.as_millis().try_into().ok().filter(|millis: &u64| *millis > 0).ok_or_else(unreadable)?;
    bytes.checked_mul(1000).map(|bytes| bytes / millis).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// A duration as the file would write it, in its largest whole unit.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units.into_iter().find(|(_, size)| millis > 0 && millis.is_multiple_of(*size));
    match whole {
        Some((unit, size)) => format!("{}{unit}", millis / size),
        None if millis == 0 => "0s".into(),
        None => format!("{millis}ms"),
    }
}

fn split<'a>(text: &'a str, what: &'static str) -> Result<(u64, &'a str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(UnitError::Unreadable(text.to_owned(), what));
    }
    let count = text[..digits].parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    Ok((count, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        let cases = [("250ms", 250), ("1s", 1_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_shown_duration_reads_as_itself() {
        for text in ["250ms", "1s", "90s", "5m", "1h", "1d", "0s", "1500ms"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn rates_are_read_with_and_without_a_number_of_units() {
        let seconds = Duration::from_secs;
        let cases = [("100/s", 100, 1), ("240/m", 240, 60), ("1800/10m", 1_800, 600), ("20000/d", 20_000, 86_400)];
        for (text, count, window) in cases {
            assert_eq!(rate(text), Ok((count, seconds(window))), "{text}");
        }
        assert_eq!(rate("240"), Err(UnitError::Bare("240".into())));
        for text in ["240/", "240/10", "240m", "240/x", "/m", "240/m/s", "-1/s", "1.5/s"] {
            assert!(matches!(rate(text), Err(UnitError::Unreadable(..))), "{text}");
        }
    }

    #[test]
    fn rates_of_bytes_are_bytes_a_second() {
        for (text, rate) in [("1KiB/s", 1024), ("300KiB/m", 5120), ("1MiB/10s", 104_857), ("1B/s", 1), ("1B/m", 0)] {
            assert_eq!(byte_rate(text), Ok(rate), "{text}");
        }
        for text in ["1KiB", "1KiB/", "1024/s", "1KB/s", "1KiB/0s", "1KiB/5", "/s", "1KiB/s/s"] {
            assert!(matches!(byte_rate(text), Err(UnitError::Unreadable(..))), "{text}");
        }
        assert!(matches!(byte_rate("17179869183GiB/s"), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn sizes_and_shares_are_read() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("8MiB"), Ok(8 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(share("125%"), Ok(1.25));
    }

    #[test]
    fn a_bare_number_a_wrong_unit_and_an_endless_one_are_told_apart() {
        assert_eq!(duration("30"), Err(UnitError::Bare("30".into())));
        assert_eq!(size("64"), Err(UnitError::Bare("64".into())));
        assert_eq!(size("64KB"), Err(UnitError::Unreadable("64KB".into(), "a size")));
        assert_eq!(duration("soon"), Err(UnitError::Unreadable("soon".into(), "a duration")));
        assert_eq!(duration("99999999999999999999s"), Err(UnitError::TooLarge("99999999999999999999s".into())));
        assert_eq!(size("99999999999GiB"), Err(UnitError::TooLarge("99999999999GiB".into())));
    }

    #[test]
    fn a_part_of_a_whole_may_be_small_and_never_more_than_all() {
        for (text, expected) in [("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005), ("1%", 0.01)] {
            assert_eq!(part(text), Ok(expected), "{text}");
        }
        assert_eq!(part("0.1"), Err(UnitError::Bare("0.1".into())));
        assert_eq!(part("100.1%"), Err(UnitError::TooLarge("100.1%".into())));
        for text in ["", "%", "-1%", "1e1%", "inf%", "NaN%", "1 %", "1.2.3%"] {
            assert_eq!(part(text), Err(UnitError::Unreadable(text.into(), "a part of a whole")), "{text}");
        }
    }
}
