//! What a server answers, and what that means for the records. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use ureq::http::StatusCode;

use crate::logging::foreign;

/// How much of a body is kept. What is to be hidden in it has to be whole.
pub(super) const KEPT: usize = 8 << 10;
/// How much of it is shown in the log.
const BODY_SHOWN: usize = 300;
/// Of a header of an answer, in the log.
const SHOWN: usize = 200;

/// A whole answer, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) location: Option<String>,
    /// How its body begins, at most [`KEPT`] bytes.
    pub(super) beginning: Vec<u8>,
}

/// What is shown nowhere, also if the server repeats it.
#[derive(Default)]
pub(super) struct Mask(Vec<Vec<u8>>);

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Mask {
    /// Hides these, of which none may be empty.
    pub(super) fn new(secrets: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut all: Vec<Vec<u8>> = secrets.filter(|secret| !secret.is_empty()).collect();
        // Who is a part of another one must not leave the rest of it.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// The text with `***` in place of each of them.
    pub(super) fn hide(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((first, behind)) = rest.split_first() {
            if let Some(after) = self.0.iter().find_map(|secret| rest.strip_prefix(secret.as_slice())) {
                out.extend_from_slice(b"***");
                rest = after;
            } else {
                out.push(*first);
                rest = behind;
            }
        }
        out
    }
}

impl Answer {
    /// The same, with what is to be hidden hidden.
    pub(super) fn masked(self, mask: &Mask) -> Self {
        let text = |text: String| String::from_utf8_lossy(&mask.hide(text.as_bytes())).into_owned();
        Self {
            retry_after: self.retry_after.map(text),
            location: self.location.map(text),
            beginning: mask.hide(&self.beginning),
            ..self
        }
    }
}

/// What becomes of the records of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are delivered.
    Taken,
    /// They are given again.
    Again,
    /// One of them is to blame, or all together.
    Refused,
}

/// What a status means. `retry_status`: those from 400 to 499 that are to be tried again, too.
pub(super) fn verdict(status: u16, retry_status: &BTreeSet<u16>) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        408 | 425 | 429 => Verdict::Again,
        400..=499 if !retry_status.contains(&status) => Verdict::Refused,
        // A redirect is not followed: who goes where an answer sends him takes records and secrets along. To reject
        // records for it would throw all of them away, and the configuration is to blame.
        _ => Verdict::Again,
    }
}

/// What `Retry-After` asks for, from `now` on (RFC 9110, 10.2.3): a number of seconds, or a date in one of HTTP's three
/// forms. `None`: it makes no sense.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a u64 holds are many all the same.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let of_gmt = |time: DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let old = |form: &str| strtime::parse(form, text).ok()?.to_datetime().ok().and_then(of_gmt);
    let at = rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
        .or_else(|| old("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|| old("%a %b %e %H:%M:%S %Y"))?;
    Some(SystemTime::from(at).duration_since(now).unwrap_or(Duration::ZERO))
}

/// The beginning of what somebody else wrote, so that no line of the log becomes another one by it.
pub(super) fn shown(bytes: &[u8], most: usize) -> String {
    let cut = bytes.get(..most).unwrap_or(bytes);
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("'{}{dots}'", foreign(&String::from_utf8_lossy(cut)))
}

/// `503 Service Unavailable, Retry-After '30': 'busy'; …`
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(reason) = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        if let Some(time) = &self.retry_after {
            write!(f, ", Retry-After {}", shown(time.as_bytes(), SHOWN))?;
        }
        if let Some(location) = &self.location {
            write!(f, ", Location {}", shown(location.as_bytes(), SHOWN))?;
        }
        if !self.beginning.is_empty() {
            write!(f, ": {}", shown(&self.beginning, BODY_SHOWN))?;
        }
        let advice = match self.status {
            300..=399 => "a redirect is not followed; correct url, and start the worker again",
            401 | 403 => "see that the secret is right and may do this; SIGHUP reads it again",
            404 | 405 | 410 => "see that url and method are right",
            200..=599 => return Ok(()),
            _ => "which is no status that ends a request",
        };
        write!(f, "; {advice}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        let (none, some) = (BTreeSet::new(), BTreeSet::from([401, 404]));
        for status in [200, 201, 202, 204, 206, 299] {
            assert_eq!(verdict(status, &none), Verdict::Taken);
        }
        for status in [100, 101, 199, 300, 301, 302, 304, 307, 308, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
            assert_eq!(verdict(status, &none), Verdict::Again, "{status}");
        }
        for status in [400, 401, 403, 404, 405, 407, 409, 410, 411, 412, 413, 414, 415, 422, 431, 451, 499] {
            assert_eq!(verdict(status, &none), Verdict::Refused, "{status}");
            let again = if some.contains(&status) { Verdict::Again } else { Verdict::Refused };
            assert_eq!(verdict(status, &some), again, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_in_three_forms() {
        // 1994-11-06T08:49:37Z, the example of RFC 9110.
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let secs = |n| Some(Duration::from_secs(n));
        for (text, time) in [
            ("0", secs(0)),
            ("120", secs(120)),
            (" 7 ", secs(7)),
            ("99999999999999999999999999", secs(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", secs(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", secs(90)),
            ("Sun Nov  6 08:49:37 1994", secs(90)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", secs(0)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Mon, 06 Nov 1994", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), time, "{text:?}");
        }
    }

    #[test]
    fn what_a_server_repeats_is_hidden() {
        let mask = Mask::new(["abc", "", "abcdef", "f=\"1"].into_iter().map(|secret| secret.as_bytes().to_vec()));
        assert_eq!(mask.hide(b"abcdefabcxab f=\"1\""), b"******xab ***\"");
        assert_eq!(Mask::default().hide(b"abc"), b"abc");
        let answer = Answer {
            status: 302,
            location: Some("/abc".to_owned()),
            retry_after: Some("abcdef".to_owned()),
            beginning: b"-abc-".to_vec(),
        };
        let text = answer.masked(&mask).to_string();
        assert!(text.starts_with("302 Found, Retry-After '***', Location '/***': '-***-';"), "{text}");
    }

    #[test]
    fn an_answer_is_told_in_one_line() {
        let answer = Answer {
            status: 503,
            retry_after: Some("30".to_owned()),
            beginning: b"<p>\r\nbusy\"\xff\x1b[31m".to_vec(),
            ..Answer::default()
        };
        assert_eq!(
            answer.to_string(),
            "503 Service Unavailable, Retry-After '30': '<p>\\r\\nbusy\"\u{fffd}\\u{1b}[31m'"
        );
        let answer = Answer { status: 302, location: Some("http://evil/\n".to_owned()), ..Answer::default() };
        assert_eq!(
            answer.to_string(),
            "302 Found, Location 'http://evil/\\n'; a redirect is not followed; correct url, and start the worker again"
        );
        assert_eq!(shown(&[b'x'; 400], 3), "'xxx…'");
    }
}
