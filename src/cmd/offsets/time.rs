//! A point in time as an operator writes it. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// Below this a number of milliseconds lies before March 1973, and is most probably one of seconds.
const LEAST: u64 = 100_000_000_000;
const FORMS: &str = "write it with a zone, as 2026-11-21T18:00:00Z or 2026-11-21T18:00:00+08:00, or as milliseconds \
                     since 1970 (UTC)";

/// Milliseconds since 1970 (UTC) from RFC 3339 with a zone, or from a number of them.
///
/// # Errors
/// It is none, or may mean two things: what, and what to write instead.
pub fn parse(text: &str) -> Result<u64, String> {
    if text.chars().all(|digit| digit.is_ascii_digit()) && !text.is_empty() {
        let ms = text.parse::<u64>().ok().filter(|ms| instant(*ms).is_some());
        return match ms {
            Some(ms @ LEAST..) => Ok(ms),
            Some(seconds) => {
                let as_seconds = instant(seconds * 1000).map(|time| format!(", as seconds {time}")).unwrap_or_default();
                Err(format!(
                    "as milliseconds this is {}{as_seconds}: {FORMS}",
                    instant(seconds).map(|time| time.to_string()).unwrap_or_default()
                ))
            }
            None => Err(format!("as milliseconds this is no time before the year 10000; {FORMS}")),
        };
    }
    match text.parse::<Timestamp>() {
        Ok(time) => {
            u64::try_from(time.as_millisecond()).map_err(|_| format!("lies before 1970, which no record does; {FORMS}"))
        }
        Err(_) if text.parse::<DateTime>().is_ok() => Err(format!("has no zone, and may mean many times; {FORMS}")),
        Err(error) => Err(format!("is no time ({error}); {FORMS}")),
    }
}

fn instant(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

/// As RFC 3339 in UTC.
pub fn show(ms: u64) -> String {
    instant(ms).map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_zone_or_milliseconds() {
        for text in ["2023-11-14T22:13:20Z", "2023-11-15T06:13:20+08:00", "1700000000000", "2023-11-14T22:13:20.000Z"] {
            assert_eq!(parse(text), Ok(1_700_000_000_000), "{text}");
        }
        assert_eq!(show(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(parse("2023-11-14T22:13:20.5Z"), Ok(1_700_000_000_500));
    }

    #[test]
    fn what_may_mean_two_things_is_none() {
        assert!(parse("1700000000").unwrap_err().contains("as seconds 2023-11-14T22:13:20Z"));
        assert!(parse("1700000000000000").unwrap_err().contains("no time before the year 10000"));
        for text in ["2023-11-14T22:13:20", "2023-11-14 22:13", "2023-11-14"] {
            assert!(parse(text).unwrap_err().contains("has no zone"), "{text}: {:?}", parse(text));
        }
        for text in ["", "yesterday", "2023-02-30T00:00:00Z", "2023-11-14T25:00:00Z", "-5", "99999999999999999999999"] {
            assert!(parse(text).unwrap_err().contains("since 1970 (UTC)"), "{text}: {:?}", parse(text));
        }
        assert!(parse("1969-12-31T23:59:59Z").unwrap_err().contains("before 1970"));
    }
}
