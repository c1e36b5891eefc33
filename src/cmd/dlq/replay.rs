//! Giving dead letters to sinks again.
//!
//! In the order of the file, some of one partition at a time, each flushed and noted before the next. A letter that is
//! rejected, or whose sink fails too often, is told and left; the next replay tries it again.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Wrong;
use super::letter::{Kept, Letter};
use super::store::{Mark, Replayed, Store};
use crate::cli::Letters;
use crate::config::Config;
use crate::record::{Records, TopicPartition};
use crate::sink::{Sink, Why};
use crate::supervisor::open_sink;

/// Letters that are flushed together.
const TOGETHER: usize = 500;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How it is done.
pub(super) struct Options<'a> {
    /// The sink, instead of each letter's own.
    pub(super) sink: Option<&'a str>,
    /// How often a sink is tried that fails for now.
    pub(super) attempts: u32,
    /// Also what was replayed before.
    pub(super) again: bool,
}

/// What became of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) delivered: u64,
    pub(super) failed: u64,
}

/// What goes to a sink together.
#[derive(Default)]
struct Group {
    letters: Vec<Letter>,
    marks: Vec<Mark>,
}

impl Group {
    fn takes(&self, sink: &str, letter: &Letter, options: &Options<'_>) -> bool {
        self.letters.last().is_none_or(|last| {
            self.letters.len() < TOGETHER
                && last.partition == letter.partition
                && options.sink.unwrap_or(&last.sink) == sink
        })
    }
}

/// Replays what is meant, and tells after each group how far it is.
pub(super) fn replay(
    config: &Config,
    store: &Store,
    which: &Letters,
    options: &Options<'_>,
    replayed: &mut Replayed,
    err: &mut dyn Write,
    mut tell: impl FnMut(&Sum, &mut dyn Write),
) -> Result<Sum, Wrong> {
    let (mut sum, mut sinks) = (Sum::default(), Sinks { config, open: BTreeMap::new() });
    let (mut group, mut failure) = (Group::default(), None);
    let stop = || std::io::Error::other("stopped");
    let mut flush = |group: Group, replayed: &mut Replayed| -> Result<(), Wrong> {
        if group.letters.is_empty() {
            return Ok(());
        }
        let delivered = sinks.deliver(group, options, err, &mut sum)?;
        replayed.note(&delivered).map_err(|error| Wrong::File(replayed.path().to_owned(), error))?;
        tell(&sum, err);
        Ok(())
    };
    let read = store.read(
        which,
        &mut |found| {
            if replayed.has(found.mark) && !options.again {
                return Ok(());
            }
            let sink = options.sink.unwrap_or(&found.letter.sink);
            if !group.takes(sink, &found.letter, options)
                && let Err(wrong) = flush(std::mem::take(&mut group), replayed)
            {
                failure = Some(wrong);
                return Err(stop());
            }
            group.letters.push(found.letter);
            group.marks.push(found.mark);
            Ok(())
        },
        // They were told when the letters were counted.
        &mut |_| Ok(()),
    );
    if let Some(wrong) = failure {
        return Err(wrong);
    }
    read.map_err(|error| Wrong::Store(store.to_string(), error))?;
    flush(group, replayed)?;
    Ok(sum)
}

/// The sinks that were opened.
struct Sinks<'a> {
    config: &'a Config,
    open: BTreeMap<String, Box<dyn Sink>>,
}

impl Sinks<'_> {
    fn of(&mut self, name: &str) -> Result<&mut Box<dyn Sink>, Wrong> {
        if !self.open.contains_key(name) {
            let settings = self.config.sinks.get(name).ok_or_else(|| Wrong::NoSink(name.to_owned()))?;
            let sink = open_sink(name, settings, 0).map_err(Wrong::Sink)?;
            self.open.insert(name.to_owned(), sink);
        }
        self.open.get_mut(name).ok_or_else(|| Wrong::NoSink(name.to_owned()))
    }

    /// Gives a group to its sink. Returns the marks of those that were delivered; a `Wrong` is what no other try can
    /// mend.
    fn deliver(
        &mut self,
        group: Group,
        options: &Options<'_>,
        err: &mut dyn Write,
        sum: &mut Sum,
    ) -> Result<Vec<Mark>, Wrong> {
        let Group { letters, marks } = group;
        let Some(first) = letters.first() else { return Ok(marks) };
        let (partition, name) = (first.partition.clone(), options.sink.unwrap_or(&first.sink).to_owned());
        let sink = self.of(&name)?;
        let count = letters.len();
        let records = Records::new(Arc::new(Kept(letters)), 0..count);
        let mut lost = vec![false; count];
        for attempt in 1..=options.attempts {
            write(&mut **sink, &partition, &records, options.attempts, &mut lost, |offset, why| {
                // Without standard error there is nobody left to tell; the sum still says it.
                let _ = writeln!(err, "not delivered {partition} offset={offset} sink={name}: {why}");
            });
            match sink.flush() {
                Ok(()) => break,
                Err(why) if attempt == options.attempts => {
                    let _ = writeln!(err, "not delivered {partition} letters={count} sink={name}: {why}");
                    lost.fill(true);
                }
                Err(_) => thread::sleep(wait(attempt)),
            }
        }
        let failed = lost.iter().filter(|lost| **lost).count();
        sum.failed += failed as u64;
        sum.delivered += (count - failed) as u64;
        Ok(marks.into_iter().zip(lost).filter_map(|(mark, lost)| (!lost).then_some(mark)).collect())
    }
}

/// The wait behind a failed try, the first being 1.
fn wait(attempt: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST_RETRY)
}

/// Writes what is not lost; what the sink does not take is lost from then on, and told.
fn write(
    sink: &mut dyn Sink,
    partition: &TopicPartition,
    records: &Records,
    attempts: u32,
    lost: &mut [bool],
    mut tell: impl FnMut(i64, &str),
) {
    let (mut at, mut tries) = (0, 0);
    while at < records.len() {
        let gap = |lost: &[bool]| lost.iter().skip(at).position(|lost| *lost).map_or(records.len(), |gap| at + gap);
        let end = gap(lost);
        if end == at {
            at += 1;
            continue;
        }
        let Err(stopped) = sink.write(partition, &records.slice(at..end)) else {
            at = end;
            continue;
        };
        if stopped.done > 0 {
            tries = 0;
        }
        at = at.saturating_add(stopped.done).min(end);
        tries += 1;
        match stopped.why {
            _ if at == end => {}
            Why::Retry(_) if tries < attempts => thread::sleep(wait(tries)),
            Why::RetryAfter(_, least) if tries < attempts => thread::sleep(wait(tries).max(least)),
            Why::Retry(why) | Why::RetryAfter(why, _) | Why::Reject(why) => {
                tell(records.get(at).map_or(-1, |record| record.offset.get()), &why);
                if let Some(lost) = lost.get_mut(at) {
                    *lost = true;
                }
                (at, tries) = (at + 1, 0);
            }
        }
    }
}
