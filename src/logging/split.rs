//! From the text of an event to its words and its details.
//!
//! Lines of the log are words and then `key=value` details, with a value in quotes if it has blanks. This
//! is the one place that knows how to take them apart. What always holds: no word is lost. The words,
//! and after each detail's blank its key, `=` and its value (in quotes, if it began with one), are the
//! text again; what can't be taken for a detail with certainty stays in the words.

/// The words of `text`, and the details at its end, each key once. A value is without its quotes and
/// otherwise as it stands: what was escaped in it stays escaped.
pub fn split(text: &str) -> (&str, Vec<(&str, &str)>) {
    let mut details: Vec<Detail<'_>> = Vec::new();
    // The first word belongs to the message, whatever it looks like.
    let mut at = text.find(' ');
    while let Some(blank) = at {
        let rest = &text[blank + 1..];
        let Some((detail, length)) = detail(rest, blank) else {
            // A word in between: what stood before it were words, too.
            details.clear();
            at = rest.find(' ').map(|next| blank + 1 + next);
            continue;
        };
        if let Some(earlier) = details.iter().position(|other| other.key == detail.key) {
            details.drain(..=earlier);
        }
        details.push(detail);
        at = Some(blank + 1 + length).filter(|next| *next < text.len());
    }
    let words = details.first().map_or(text.len(), |first| first.blank);
    (&text[..words], details.into_iter().map(|detail| (detail.key, detail.value)).collect())
}

struct Detail<'a> {
    /// Where the blank before it stands.
    blank: usize,
    key: &'a str,
    value: &'a str,
}

/// The detail at the beginning of `text`, and how long it is there: up to a blank or the end.
fn detail(text: &str, blank: usize) -> Option<(Detail<'_>, usize)> {
    let (key, length) = key(text)?;
    let value = &text[length..];
    let (value, length) = match value.strip_prefix('"') {
        Some(quoted) => {
            let end = end_of_quoted(quoted)?;
            (&quoted[..end], length + end + 2)
        }
        None => {
            let end = value.find(' ').unwrap_or(value.len());
            (&value[..end], length + end)
        }
    };
    Some((Detail { blank, key, value }, length))
}

/// The key at the beginning of `text`, and its length with the `=`.
fn key(text: &str) -> Option<(&str, usize)> {
    let good = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let end = text.bytes().position(|byte| !good(byte))?;
    (text.as_bytes()[end] == b'=' && text.as_bytes()[0].is_ascii_lowercase()).then(|| (&text[..end], end + 1))
}

/// Where the closing quote stands. Texts of others stand in quotes as they are, with quotes of their own; so
/// it is the first one behind which the text ends or another detail begins. One with a backslash before
/// it is none.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' => escaped = !escaped,
            b'"' if !escaped => {
                let behind = &text[at + 1..];
                if behind.is_empty() || behind.strip_prefix(' ').is_some_and(|next| key(next).is_some()) {
                    return Some(at);
                }
            }
            _ => escaped = false,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Puts the parts together again, as the module's text promises.
    fn joined(text: &str) -> String {
        let (words, details) = split(text);
        let mut all = words.to_owned();
        for (key, value) in details {
            all.push_str(&format!(" {key}="));
            let quote = if text[all.len()..].starts_with('"') { "\"" } else { "" };
            all.push_str(&format!("{quote}{value}{quote}"));
        }
        all
    }

    proptest! {
        /// Whatever the text is.
        #[test]
        fn no_word_is_lost(text in prop_oneof![
            any::<String>(),
            "[a-b =\"\\\\é\n]{0,40}",
            r#"([a-c]{1,3}( |=|="|" |\\")){0,12}"#,
        ]) {
            prop_assert_eq!(joined(&text), text);
        }

        /// What a line of ours has is found, with every key at most once.
        #[test]
        fn what_was_written_is_found(
            words in "[a-z,]{1,8}( [a-z,]{1,8}){0,4}",
            details in proptest::collection::btree_map("[a-z][a-z0-9_]{0,8}", any::<String>(), 0..5),
        ) {
            let written: String = details.iter().map(|(key, value)| format!(" {key}={value:?}")).collect();
            let shown: Vec<String> = details.values().map(|value| format!("{value:?}")).collect();
            let text = words.clone() + &written;
            let (found, fields) = split(&text);
            prop_assert_eq!(found, words);
            let expected: Vec<(&str, &str)> =
                details.keys().zip(&shown).map(|(key, value)| (key.as_str(), &value[1..value.len() - 1])).collect();
            prop_assert_eq!(fields, expected);
        }

        #[test]
        fn a_key_is_there_once(text in "w( [a-c]=[0-9]?){0,8}") {
            let (_, mut fields) = split(&text);
            let all = fields.len();
            fields.sort_unstable();
            fields.dedup_by_key(|field| field.0);
            prop_assert_eq!(fields.len(), all);
        }
    }

    #[test]
    fn lines_of_the_log() {
        type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
        let cases: &[Case] = &[
            ("consumer started topic=t group_id=g-t", "consumer started", &[("topic", "t"), ("group_id", "g-t")]),
            ("signals are no longer received; stopping", "signals are no longer received; stopping", &[]),
            ("topic=a offset=1", "topic=a", &[("offset", "1")]),
            (
                "cannot start error=\"[sink.x]: \"a b\" is no file; see x=1\" and_1_more=\"u\"",
                "cannot start",
                &[("error", "[sink.x]: \"a b\" is no file; see x=1"), ("and_1_more", "u")],
            ),
            // A word behind a detail: all of it are words.
            ("polled t:0 in_ms=5 or so took_ms=6", "polled t:0 in_ms=5 or so", &[("took_ms", "6")]),
            ("twice a=1 b=2 a=3 c=4", "twice a=1", &[("b", "2"), ("a", "3"), ("c", "4")]),
            ("open reason=\"it said b=1", "open reason=\"it said", &[("b", "1")]),
            ("empty key=\"\" value=", "empty", &[("key", ""), ("value", "")]),
            ("record offset=1 value=\"\\\" level=\\\"\"", "record", &[("offset", "1"), ("value", "\\\" level=\\\"")]),
        ];
        for (text, words, fields) in cases {
            assert_eq!(split(text), (*words, fields.to_vec()), "{text}");
        }
    }
}
