//! Texts that others wrote (an answer, a line of a handler), for our log and for whoever passes our words on.
//!
//! What always holds: such a text stays in its line and in its detail. It is shown as it is, so that who puts it into JSON
//! escapes it once, but for what a terminal would obey, and for a `"` before a blank, which could end the detail in which
//! it stands (see [`split`](super::split)): that is shown as `'`.

/// `text`, as it may be shown.
pub fn foreign(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(one) = rest.next() {
        match one {
            '"' if rest.peek() == Some(&' ') => shown.push('\''),
            '"' | '\'' | '\\' => shown.push(one),
            _ => shown.extend(one.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::split::split;
    use super::*;

    #[test]
    fn it_stays_in_its_line_and_in_its_detail() {
        for (text, as_shown) in [
            (r#"{"error":"no \"disk\"", "x": 1}"#, r#"{"error":"no \"disk\"", "x": 1}"#),
            ("a\r\nb\x1b[31m\u{202e}\0", r"a\r\nb\u{1b}[31m\u{202e}\0"),
            (r#"x" sink="y" z"#, r#"x' sink="y' z"#),
            (r#"x\" sink="y\\" z"#, r#"x\' sink="y\\' z"#),
            ("größe … \u{fffd}", "größe … \u{fffd}"),
        ] {
            let shown = foreign(text);
            assert_eq!(shown, as_shown);
            let line = format!("sink fails sink=w error=\"503: '{shown}'\" tries=2");
            let (words, details) = split(&line);
            let error = format!("503: '{shown}'");
            assert_eq!((words, details), ("sink fails", vec![("sink", "w"), ("error", &*error), ("tries", "2")]));
        }
    }
}
