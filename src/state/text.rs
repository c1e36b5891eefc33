//! The text of the file `offsets`. Pure.
//!
//! A first line that names the form, a line a partition, a last line that counts them, so that a file
//! that was cut is not taken for a whole one:
//!
//! ```text
//! worker-offsets 1
//! OFFSET PARTITION TOPIC-ID TOPIC GROUP
//! end 1
//! ```
//!
//! `TOPIC-ID` is `-` where the broker has none. A topic's name has no blanks; a group's may have, and
//! goes to the end of the line.

use std::fmt::Write as _;

use super::{Entries, Entry};
use crate::record::{Offset, TopicId, TopicPartition};

const FORM: &str = "worker-offsets 1";

pub(super) fn write(entries: &Entries) -> String {
    let mut text = format!("{FORM}\n");
    for ((group, partition), entry) in entries {
        let id = entry.topic_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        // A String takes whatever is written to it.
        let _ = writeln!(text, "{} {} {id} {} {group}", entry.offset, partition.partition, partition.topic);
    }
    let _ = writeln!(text, "end {}", entries.len());
    text
}

/// What `write` has written; or what is wrong, and in which line.
pub(super) fn read(text: &str) -> Result<Entries, String> {
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, FORM)) => {}
        Some((_, first)) => return Err(format!("line 1 is {first:?} instead of {FORM:?}")),
        None => return Err("it is empty".to_owned()),
    }
    let mut entries = Entries::new();
    for (index, line) in lines {
        if let Some(count) = line.strip_prefix("end ") {
            return match count.parse::<usize>() {
                Ok(count) if entries.len() == count => Ok(entries),
                _ => Err(format!("line {} counts {count} partitions, {} are there", index + 1, entries.len())),
            };
        }
        let (key, entry) = entry(line).ok_or_else(|| format!("line {} is {line:?}", index + 1))?;
        entries.insert(key, entry);
    }
    Err("its last line is missing: it was cut".to_owned())
}

fn entry(line: &str) -> Option<((String, TopicPartition), Entry)> {
    let mut words = line.splitn(5, ' ');
    let offset = Offset::new(words.next()?.parse().ok()?)?;
    let partition = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let topic_id = match words.next()? {
        "-" => None,
        id => Some(TopicId::parse(id)?),
    };
    let topic = words.next().filter(|name| !name.is_empty())?;
    let group = words.next().filter(|name| !name.is_empty())?;
    Some(((group.to_owned(), TopicPartition::new(topic, partition)), Entry { topic_id, offset }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            list in proptest::collection::vec(("[a-z-][a-z -]{0,8}", "[a-zA-Z._-]{1,9}", 0..i32::MAX, 0..i64::MAX, any::<[u8; 16]>()), 0..9),
            cut in 0..400_usize,
        ) {
            let entries: Entries = list
                .into_iter()
                .map(|(group, topic, partition, offset, id)| {
                    let entry = Entry { topic_id: TopicId::new(id), offset: Offset::new(offset).unwrap() };
                    ((group, TopicPartition::new(topic, partition)), entry)
                })
                .collect();
            let text = write(&entries);
            prop_assert_eq!(read(&text), Ok(entries));
            // Only the newline at the very end may be missing.
            if cut + 1 < text.len() {
                prop_assert!(read(&text[..cut]).is_err());
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = read(&text);
            let _ = read(&format!("{FORM}\n{text}"));
        }
    }
}
