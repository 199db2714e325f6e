//! Which moment of a file system is meant: `--as-of`.

use super::size;
use crate::format::Tid;
use jiff::{SignedDuration, Span, Timestamp};

/// A moment, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// `0x0000000100003e80`.
    Tid(Tid),
    /// `2026-07-01T12:00:00Z`; without an offset, in the local time zone.
    Time(Timestamp),
    /// `2h`, `30d`: so long ago.
    Ago(SignedDuration),
    /// Anything else: a snapshot's label.
    Label(String),
}

impl AsOf {
    /// The moment in time that is meant, if it was said as one; `now` is when the command started.
    pub fn time(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            AsOf::Time(time) => Some(*time),
            AsOf::Ago(span) => Some(now.checked_sub(*span).unwrap_or(Timestamp::MIN)),
            AsOf::Tid(_) | AsOf::Label(_) => None,
        }
    }
}

/// Reads the argument of `--as-of`.
pub fn parse(text: &str) -> Result<AsOf, String> {
    if text.is_empty() {
        return Err("write a TID (0x…), a time, a duration ago (2h, 30d) or a label".into());
    }
    if text.starts_with("0x") {
        return size::tid(text).map(AsOf::Tid);
    }
    if let Some(span) = ago(text) {
        return Ok(AsOf::Ago(span));
    }
    if let Some(time) = time(text) {
        return Ok(AsOf::Time(time));
    }
    Ok(AsOf::Label(text.to_owned()))
}

/// A duration: numbers with the units `w d h m s`, as `2h` or `1d12h`. A day is 24 hours.
fn ago(text: &str) -> Option<SignedDuration> {
    let mut seconds = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().ok()?;
        let mut units = rest[digits..].chars();
        let unit = match units.next()? {
            'w' => 7 * 86_400,
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = units.as_str();
    }
    // Longer ago than time can be counted is as good as the beginning of time.
    let longest = Timestamp::MAX.as_second() - Timestamp::MIN.as_second();
    Some(SignedDuration::from_secs(seconds.min(longest)))
}

fn time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let date_time: jiff::civil::DateTime = text.parse().ok()?;
    let zone = jiff::tz::TimeZone::system();
    zone.to_timestamp(date_time).ok()
}

/// Seconds since 1970 as RFC 3339 in UTC, for output; the epoch's own second, which the medium uses
/// for "no time", as `-`.
pub fn show_seconds(seconds: u32) -> String {
    match seconds {
        0 => "-".into(),
        n => Timestamp::UNIX_EPOCH
            .checked_add(Span::new().seconds(i64::from(n)))
            .map_or_else(|_| n.to_string(), |time| time.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind() {
        assert_eq!(parse("0x100003e80"), Ok(AsOf::Tid(Tid(0x1_0000_3e80))));
        assert!(parse("0xzz").is_err());
        assert_eq!(parse("90m"), Ok(AsOf::Ago(SignedDuration::from_secs(5400))));
        assert_eq!(
            parse("1d12h"),
            Ok(AsOf::Ago(SignedDuration::from_hours(36)))
        );
        assert_eq!(
            parse("2020-07-01T12:00:00Z"),
            Ok(AsOf::Time("2020-07-01T12:00:00Z".parse().unwrap()))
        );
        assert!(matches!(parse("2020-07-01 12:00"), Ok(AsOf::Time(_))));
        assert!(matches!(parse("2020-07-01"), Ok(AsOf::Time(_))));
        assert_eq!(
            parse("before upgrade"),
            Ok(AsOf::Label("before upgrade".into()))
        );
        assert_eq!(parse("30"), Ok(AsOf::Label("30".into())));
        assert!(parse("").is_err());
    }

    #[test]
    fn moments() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let two = parse("2h").unwrap().time(now).unwrap();
        assert_eq!(two.to_string(), "2026-11-24T10:00:00Z");
        assert_eq!(
            parse("9223372036854775807s").unwrap().time(now),
            Some(Timestamp::MIN)
        );
        assert_eq!(parse("x").unwrap().time(now), None);
    }

    #[test]
    fn shown() {
        assert_eq!(show_seconds(0), "-");
        assert_eq!(show_seconds(1_593_604_800), "2020-07-01T12:00:00Z");
    }

    proptest! {
        #[test]
        fn anything_means_something(text in ".{1,20}") {
            let _ = parse(&text);
        }
    }
}
