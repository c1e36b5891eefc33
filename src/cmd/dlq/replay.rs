//! Giving dead letters to sinks again.
//!
//! In the order of the file, some of one partition at a time, each flushed and noted before the next. What always holds:
//! - there are as many of them as the sink takes in [`AT_ONCE`] at its pace so far, so what is delivered is noted soon
//!   after, and a signal is heard;
//! - a letter that is rejected, or whose sink fails too often, is told and left; the next replay tries it again;
//! - behind a signal no letter is begun, what was delivered is noted, and nothing that was left counts as failed.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;

use super::Wrong;
use super::letter::{Kept, Letter};
use super::store::{Mark, Replayed, Store};
use crate::cli::Letters;
use crate::config::Config;
use crate::record::{Records, TopicPartition};
use crate::sink::{Sink, Why};
use crate::supervisor::{Signals, Stop, open_sink};

/// Letters that are flushed together, at most.
const TOGETHER: usize = 500;
/// How long a sink may have with them.
const AT_ONCE: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How it is done.
pub(super) struct Options<'a> {
    /// Which letters.
    pub(super) which: &'a Letters,
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

/// The signals that end it.
pub(super) struct Ear<'a> {
    signals: &'a Signals,
    heard: Option<Stop>,
}

impl<'a> Ear<'a> {
    pub(super) fn new(signals: &'a Signals) -> Self {
        Self { signals, heard: None }
    }

    /// Waits so long, or until a signal comes. Whether one has.
    fn wait(&mut self, time: Duration) -> bool {
        let hangup = Stop { name: "SIGHUP", number: 1 };
        if self.heard.is_none() {
            // Who sends signals lives as long as the process.
            self.heard = select! {
                recv(self.signals.stop) -> stop => stop.ok(),
                recv(self.signals.reopen) -> said => said.ok().map(|()| hangup),
                default(time) => None,
            };
        }
        self.heard.is_some()
    }

    fn is_over(&mut self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// The signal that came.
    pub(super) fn heard(&self) -> Option<Stop> {
        self.heard
    }
}

/// What goes to a sink together.
#[derive(Default)]
struct Group {
    letters: Vec<Letter>,
    marks: Vec<Mark>,
}

impl Group {
    fn takes(&self, sink: &str, most: usize, letter: &Letter, options: &Options<'_>) -> bool {
        self.letters.last().is_none_or(|last| {
            self.letters.len() < most
                && last.partition == letter.partition
                && options.sink.unwrap_or(&last.sink) == sink
        })
    }
}

/// Replays what is meant, and tells after each group how far it is.
pub(super) fn replay(
    config: &Config,
    store: &Store,
    options: &Options<'_>,
    replayed: &mut Replayed,
    ear: &mut Ear<'_>,
    err: &mut dyn Write,
    mut tell: impl FnMut(&Sum, &mut dyn Write),
) -> Result<Sum, Wrong> {
    let (mut sum, mut sinks) = (Sum::default(), Sinks { config, open: BTreeMap::new() });
    let (mut group, mut failure) = (Group::default(), None);
    let stop = || std::io::Error::other("stopped");
    let mut flush =
        |group: Group, sinks: &mut Sinks<'_>, replayed: &mut Replayed, ear: &mut Ear<'_>| -> Result<(), Wrong> {
            if group.letters.is_empty() || ear.is_over() {
                return Ok(());
            }
            let delivered = sinks.deliver(group, options, ear, err, &mut sum)?;
            replayed.note(&delivered).map_err(|error| Wrong::File(replayed.path().to_owned(), error))?;
            tell(&sum, err);
            Ok(())
        };
    let read = store.read(
        options.which,
        &mut |found| {
            if ear.is_over() {
                return Err(stop());
            }
            if replayed.has(found.mark) && !options.again {
                return Ok(());
            }
            let sink = options.sink.unwrap_or(&found.letter.sink);
            if !group.takes(sink, sinks.most(sink), &found.letter, options)
                && let Err(wrong) = flush(std::mem::take(&mut group), &mut sinks, replayed, ear)
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
    if ear.heard().is_none() {
        read.map_err(|error| Wrong::Store(store.to_string(), error))?;
    }
    flush(group, &mut sinks, replayed, ear)?;
    Ok(sum)
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is for the sink to take, or was taken.
    Given,
    /// The sink has not taken it.
    Lost,
    /// A signal came first.
    Left,
}

/// How many letters a sink gets at a time: no more than it takes in [`AT_ONCE`], if it goes on as before, and no more
/// than twice as many as the last time.
fn next_most(count: usize, took: Duration) -> usize {
    let fit = count as f64 * AT_ONCE.as_secs_f64() / took.as_secs_f64().max(1e-6);
    (fit as usize).min(2 * count).clamp(1, TOGETHER)
}

/// The sinks that were opened, and how many letters each gets next.
struct Sinks<'a> {
    config: &'a Config,
    open: BTreeMap<String, (Box<dyn Sink>, usize)>,
}

impl Sinks<'_> {
    fn most(&self, name: &str) -> usize {
        self.open.get(name).map_or(1, |(_, most)| *most)
    }

    fn of(&mut self, name: &str) -> Result<&mut (Box<dyn Sink>, usize), Wrong> {
        if !self.open.contains_key(name) {
            let settings = self.config.sinks.get(name).ok_or_else(|| Wrong::no_sink(name, self.config))?;
            let sink = open_sink(name, settings, 0).map_err(Wrong::Sink)?;
            self.open.insert(name.to_owned(), (sink, 1));
        }
        self.open.get_mut(name).ok_or_else(|| Wrong::no_sink(name, self.config))
    }

    /// Gives a group to its sink. Returns the marks of those that were delivered; a `Wrong` is what no other try can
    /// mend.
    fn deliver(
        &mut self,
        group: Group,
        options: &Options<'_>,
        ear: &mut Ear<'_>,
        err: &mut dyn Write,
        sum: &mut Sum,
    ) -> Result<Vec<Mark>, Wrong> {
        let Group { letters, marks } = group;
        let Some(first) = letters.first() else { return Ok(marks) };
        let (partition, name) = (first.partition.clone(), options.sink.unwrap_or(&first.sink).to_owned());
        let (sink, most) = self.of(&name)?;
        let (count, begun) = (letters.len(), Instant::now());
        let records = Records::new(Arc::new(Kept(letters)), 0..count);
        let mut fates = vec![Fate::Given; count];
        for attempt in 1..=options.attempts {
            write(&mut **sink, &partition, &records, options.attempts, &mut fates, ear, |offset, why| {
                // Without standard error there is nobody left to tell; the sum still says it.
                let _ = writeln!(err, "not delivered {partition} offset={offset} sink={name}: {why}");
            });
            match sink.flush() {
                Ok(()) => break,
                Err(why) if attempt == options.attempts => {
                    let _ = writeln!(err, "not delivered {partition} letters={count} sink={name}: {why}");
                    fates.fill(Fate::Lost);
                }
                Err(_) if ear.wait(wait(attempt)) => {
                    fates.fill(Fate::Left);
                    break;
                }
                Err(_) => {}
            }
        }
        *most = next_most(count, begun.elapsed());
        let of = |fate| fates.iter().filter(|own| **own == fate).count() as u64;
        sum.failed += of(Fate::Lost);
        sum.delivered += of(Fate::Given);
        Ok(marks.into_iter().zip(fates).filter_map(|(mark, fate)| (fate == Fate::Given).then_some(mark)).collect())
    }
}

/// The wait behind a failed try, the first being 1.
fn wait(attempt: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST_RETRY)
}

/// Writes what is not lost; what the sink does not take is lost from then on, and told. What a signal comes before is left.
fn write(
    sink: &mut dyn Sink,
    partition: &TopicPartition,
    records: &Records,
    attempts: u32,
    fates: &mut [Fate],
    ear: &mut Ear<'_>,
    mut tell: impl FnMut(i64, &str),
) {
    let (mut at, mut tries) = (0, 0);
    while at < records.len() {
        let end = fates.iter().skip(at).position(|fate| *fate != Fate::Given).map_or(records.len(), |gap| at + gap);
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
        let least = match stopped.why {
            _ if at == end => continue,
            Why::Retry(_) if tries < attempts => Duration::ZERO,
            Why::RetryAfter(_, least) if tries < attempts => least,
            Why::Retry(why) | Why::RetryAfter(why, _) | Why::Reject(why) => {
                tell(records.get(at).map_or(-1, |record| record.offset.get()), &why);
                if let Some(fate) = fates.get_mut(at) {
                    *fate = Fate::Lost;
                }
                (at, tries) = (at + 1, 0);
                continue;
            }
        };
        if ear.wait(wait(tries).max(least)) {
            for fate in fates.iter_mut().skip(at).filter(|fate| **fate == Fate::Given) {
                *fate = Fate::Left;
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_gets_what_it_takes_in_half_a_second_and_no_leaps() {
        let ms = Duration::from_millis;
        for (count, took, next) in [
            (1, ms(1), 2),
            (256, ms(1), 500),
            (500, Duration::ZERO, 500),
            (100, ms(500), 100),
            (100, ms(2000), 25),
            (1, ms(1000), 1),
            (2, Duration::from_secs(3600), 1),
        ] {
            assert_eq!(next_most(count, took), next, "{count} in {took:?}");
        }
    }
}
