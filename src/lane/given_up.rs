//! What the log says of records that were given up: their offsets, gathered, so that a sink that rejects everything
//! does not fill the disk. It is told when it is decided; dead letters are put later, with the next flush.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::record::{Offset, TopicPartition};

/// Between two lines about the same.
const EVERY: Duration = Duration::from_secs(1);
/// So many offsets are named in a line; of the others it says how many they are.
const NAMED: usize = 50;

/// Records of one partition.
#[derive(Default)]
struct Sum {
    /// The first ones.
    offsets: Vec<Offset>,
    count: u64,
    /// Why the last one.
    reason: String,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Where they come from, and whether they are dead letters.
    sums: BTreeMap<(TopicPartition, bool), Sum>,
    told: Option<Instant>,
}

impl GivenUp {
    /// Another one.
    pub(super) fn note(&mut self, partition: &TopicPartition, offset: Offset, is_letter: bool, reason: &str) {
        let sum = self.sums.entry((partition.clone(), is_letter)).or_default();
        sum.count += 1;
        if sum.offsets.len() < NAMED {
            sum.offsets.push(offset);
        }
        reason.clone_into(&mut sum.reason);
    }

    /// When there is something to tell.
    pub(super) fn wake(&self) -> Option<Instant> {
        let told = self.told.filter(|_| !self.sums.is_empty())?;
        Some(told + EVERY)
    }

    /// Tells it, unless that was done just now.
    pub(super) fn tell(&mut self, sink: &str, now: Instant) {
        if self.wake().is_none_or(|at| at <= now) {
            self.tell_all(sink, now);
        }
    }

    /// Tells it now, as there is no later.
    pub(super) fn tell_all(&mut self, sink: &str, now: Instant) {
        if self.sums.is_empty() {
            return;
        }
        self.told = Some(now);
        for line in self.lines(sink) {
            log::warn!("{line}");
        }
    }

    fn lines(&mut self, sink: &str) -> Vec<String> {
        let line = |((partition, is_letter), sum): ((TopicPartition, bool), Sum)| {
            let what = if is_letter { "records become dead letters" } else { "records dropped" };
            let named: Vec<String> = sum.offsets.iter().map(Offset::to_string).collect();
            let more = match sum.count - named.len() as u64 {
                0 => String::new(),
                more => format!(",and {more} more"),
            };
            let (count, reason, named) = (sum.count, sum.reason, named.join(","));
            format!("{what} {partition} sink={sink} count={count} offsets=\"{named}{more}\" last_error=\"{reason}\"")
        };
        std::mem::take(&mut self.sums).into_iter().map(line).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn many_are_one_line_and_the_first_are_named() {
        let mut given_up = GivenUp::default();
        let (part, start) = (TopicPartition::new("t", 1), Instant::now());
        for offset in 0..52 {
            given_up.note(&part, Offset::new(offset).unwrap(), true, "no");
        }
        given_up.note(&part, Offset::new(60).unwrap(), false, "never");
        let lines = given_up.lines("out");
        assert_eq!(lines[0], r#"records dropped topic=t partition=1 sink=out count=1 offsets="60" last_error="never""#);
        assert!(
            lines[1].starts_with("records become dead letters topic=t partition=1 sink=out count=52 offsets=\"0,1,2,")
        );
        assert!(lines[1].ends_with(",48,49,and 2 more\" last_error=\"no\""));
        assert_eq!(given_up.wake(), None);
        given_up.tell("out", start);
        given_up.note(&part, Offset::ZERO, true, "no");
        assert_eq!(given_up.wake(), None, "the first is told at once");
        given_up.tell("out", start);
        given_up.note(&part, Offset::ZERO, true, "no");
        assert_eq!(given_up.wake(), Some(start + EVERY));
        given_up.tell("out", start);
        assert!(!given_up.sums.is_empty(), "not yet");
        given_up.tell("out", start + EVERY);
        assert!(given_up.sums.is_empty());
    }
}
