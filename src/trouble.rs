//! What the log says of a trouble: when it begins, that it still goes on, when it is over, and that
//! it comes and goes.
//!
//! Pure but for [`Phrases::log`]: time is a parameter, and the words are the caller's. What many say at
//! once is gathered in [`chorus`]. One [`Trouble`] is one thing that can
//! fail (a client, a partition, a sink, a topic that should exist). What always holds:
//! - a trouble that begins is told at once, unless it has begun `FLIPS` times within `WINDOW`;
//!   then one line says that, and no single begin or end is told before it has kept still for
//!   `WINDOW`;
//! - while it lasts it is told again every [`REMIND`], so that the newest log file has it too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

pub mod chorus;

/// How often the log is reminded of what still fails.
pub const REMIND: Duration = Duration::from_secs(600);
/// So many begins within `WINDOW` are told one by one, and the last of them says so.
const FLIPS: usize = 5;
/// See `FLIPS`.
const WINDOW: Duration = Duration::from_secs(60);

/// What the log is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It begins, or has another reason than before; it has lasted for so long already.
    Begins(Duration),
    /// It goes on, for so long by now.
    GoesOn(Duration),
    /// It is over, after so long.
    Ends(Duration),
    /// It comes and goes: so many times within this time. Single ones are not told for now.
    Flaps {
        /// How often it began.
        times: u32,
        /// Within this time.
        within: Duration,
    },
    /// It kept coming and going for so long, and is over.
    Calm(Duration),
    /// It begins once more while it comes and goes: only for the debug level.
    BeginsAgain,
    /// It ends once more while it comes and goes: only for the debug level.
    EndsAgain,
}

/// How a trouble of one kind is called in the log.
#[derive(Debug)]
pub struct Phrases {
    /// It begins.
    pub begins: &'static str,
    /// It goes on.
    pub goes_on: &'static str,
    /// It is over.
    pub ends: &'static str,
    /// It comes and goes.
    pub flaps: &'static str,
}

impl Phrases {
    /// Writes the line: `who` names it by `key=value`, `why` is the reason, `level` its weight.
    pub fn log(&self, word: Word, level: log::Level, who: &dyn fmt::Display, why: &dyn fmt::Display) {
        let Self { begins, goes_on, ends, flaps } = self;
        let (who, why) = (who.to_string(), why.to_string());
        let alike = match word {
            Word::Begins(_) => Some((level, *begins)),
            Word::GoesOn(_) => Some((level, *goes_on)),
            Word::Ends(_) | Word::Calm(_) => Some((log::Level::Info, *ends)),
            Word::Flaps { .. } | Word::BeginsAgain | Word::EndsAgain => None,
        };
        if alike.is_some_and(|(level, phrase)| !chorus::is_first(level, phrase, &who, &why)) {
            return;
        }
        match word {
            Word::Begins(Duration::ZERO) => log::log!(level, "{begins} {who} error=\"{why}\""),
            Word::Begins(since) => log::log!(level, "{begins} {who} since_ms={} error=\"{why}\"", since.as_millis()),
            Word::GoesOn(since) => log::log!(level, "{goes_on} {who} since_ms={} error=\"{why}\"", since.as_millis()),
            Word::Ends(after) | Word::Calm(after) => {
                log::info!("{ends} {who} after_ms={} trouble=\"{why}\"", after.as_millis());
            }
            Word::BeginsAgain => log::debug!("{begins} {who} error=\"{why}\""),
            Word::EndsAgain => log::debug!("{ends} {who}"),
            Word::Flaps { times, within } => log::log!(
                level,
                "{flaps} {who} times={times} within_ms={} error=\"{why}\" \
                 meaning=\"it is not told each time until it has kept still for {} s\"",
                within.as_millis(),
                WINDOW.as_secs()
            ),
        }
    }
}

/// One thing that can fail.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Since when it fails; `None` while it works.
    since: Option<Instant>,
    /// When the log had it last.
    told: Option<Instant>,
    /// When it began, `FLIPS` times at most; the newest last.
    begins: VecDeque<Instant>,
    /// It comes and goes: since when, and how often it has begun since the log was told.
    flapping: Option<(Instant, u32)>,
}

impl Trouble {
    /// It fails, or has another reason to fail; `since` when, if that was noticed only now.
    pub fn fails(&mut self, since: Instant, now: Instant) -> Word {
        let since = *self.since.get_or_insert(since);
        if self.begins.len() == FLIPS {
            self.begins.pop_front();
        }
        self.begins.push_back(now);
        if let Some((_, times)) = &mut self.flapping {
            *times += 1;
            return Word::BeginsAgain;
        }
        self.told = Some(now);
        match self.begins.front() {
            Some(first) if self.begins.len() == FLIPS && now.saturating_duration_since(*first) <= WINDOW => {
                self.flapping = Some((now, 0));
                let times = u32::try_from(FLIPS).unwrap_or(u32::MAX);
                Word::Flaps { times, within: now.saturating_duration_since(*first) }
            }
            _ => Word::Begins(now.saturating_duration_since(since)),
        }
    }

    /// It works; `None` if it did already. That what came and went is over is told by [`due`](Self::due).
    pub fn works(&mut self, now: Instant) -> Option<Word> {
        let since = self.since.take()?;
        Some(match self.flapping {
            Some(_) => Word::EndsAgain,
            None => Word::Ends(now.saturating_duration_since(since)),
        })
    }

    /// A try failed, the first one (of a trouble that began at `since`) or one more; what is to be said of it.
    pub fn failed(&mut self, since: Instant, now: Instant) -> Option<Word> {
        if self.since.is_some() { self.due(now) } else { Some(self.fails(since, now)) }
    }

    /// A try succeeded; what is to be said of it.
    pub fn succeeded(&mut self, now: Instant) -> Option<Word> {
        self.works(now).or_else(|| self.due(now))
    }

    /// Since when it fails.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When [`due`](Self::due) is to be asked at the latest.
    pub fn wake(&self) -> Option<Instant> {
        let remind = self.told.map(|told| told + REMIND);
        match self.flapping {
            Some(_) => self.begins.back().map(|last| *last + WINDOW).into_iter().chain(remind).min(),
            None => self.since.and(remind),
        }
    }

    /// What time alone has made worth a line.
    pub fn due(&mut self, now: Instant) -> Option<Word> {
        if self.wake().is_none_or(|at| now < at) {
            return None;
        }
        let told = self.told.replace(now)?;
        let Some((began, times)) = self.flapping else {
            return Some(Word::GoesOn(now.saturating_duration_since(self.since?)));
        };
        if self.begins.back().is_some_and(|last| now.saturating_duration_since(*last) < WINDOW) {
            self.flapping = Some((began, 0));
            return Some(Word::Flaps { times, within: now.saturating_duration_since(told) });
        }
        self.flapping = None;
        self.begins.clear();
        Some(match self.since {
            Some(since) => Word::GoesOn(now.saturating_duration_since(since)),
            None => Word::Calm(now.saturating_duration_since(began)),
        })
    }

    /// Nothing about it is of interest any more.
    fn is_over(&self, now: Instant) -> bool {
        let still = |last: &Instant| now.saturating_duration_since(*last) >= WINDOW;
        self.since.is_none() && self.flapping.is_none() && self.begins.back().is_none_or(still)
    }
}

/// The troubles of one thread, by what fails; each with what the caller wants to say of it.
#[derive(Debug)]
pub struct Troubles<K, T> {
    of: BTreeMap<K, (Trouble, T)>,
}

impl<K: Ord, T> Default for Troubles<K, T> {
    fn default() -> Self {
        Self { of: BTreeMap::new() }
    }
}

impl<K: Ord, T> Troubles<K, T> {
    /// `key` fails because of `why`, since `since`.
    pub fn fails(&mut self, key: K, why: T, since: Instant, now: Instant) -> Word {
        // Whatever has kept still for long enough is forgotten, so that nothing grows here.
        self.of.retain(|_, (trouble, _)| !trouble.is_over(now));
        let (mut trouble, _) = self.of.remove(&key).unzip();
        let trouble = trouble.get_or_insert_default();
        let word = trouble.fails(since, now);
        self.of.insert(key, (std::mem::take(trouble), why));
        word
    }

    /// `key` works; what it failed for.
    pub fn works(&mut self, key: &K, now: Instant) -> Option<(Word, &T)> {
        let (trouble, why) = self.of.get_mut(key)?;
        Some((trouble.works(now)?, why))
    }

    /// There is no `key` any more.
    pub fn forget(&mut self, key: &K) {
        self.of.remove(key);
    }

    /// When [`due`](Self::due) is to be asked at the latest.
    pub fn wake(&self) -> Option<Instant> {
        self.of.values().filter_map(|(trouble, _)| trouble.wake()).min()
    }

    /// What time alone has made worth a line.
    pub fn due(&mut self, now: Instant) -> impl Iterator<Item = (&K, Word, &T)> {
        self.of.iter_mut().filter_map(move |(key, (trouble, why))| Some((key, trouble.due(now)?, &*why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const BEGINS: Word = Word::Begins(Duration::ZERO);

    #[test]
    fn what_stands_is_told_when_it_begins_every_ten_minutes_and_when_it_ends() {
        let (mut trouble, t) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.wake(), None);
        assert_eq!(trouble.fails(t, t), BEGINS);
        assert_eq!(trouble.due(t + 599 * S), None);
        assert_eq!(trouble.wake(), Some(t + REMIND));
        assert_eq!(trouble.due(t + REMIND), Some(Word::GoesOn(REMIND)));
        assert_eq!(trouble.due(t + REMIND + S), None, "once");
        assert_eq!(trouble.due(t + 2 * REMIND), Some(Word::GoesOn(2 * REMIND)));
        assert_eq!(trouble.works(t + 1300 * S), Some(Word::Ends(1300 * S)));
        assert_eq!(trouble.works(t + 1301 * S), None);
        assert_eq!(trouble.wake(), None, "what works is no reason to wake up");
        assert_eq!(trouble.due(t + 9000 * S), None);
    }

    #[test]
    fn another_reason_is_told_and_does_not_begin_anew() {
        let (mut trouble, t) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.fails(t, t), BEGINS);
        assert_eq!(trouble.fails(t + 100 * S, t + 100 * S), Word::Begins(100 * S));
        assert_eq!(trouble.works(t + 200 * S), Some(Word::Ends(200 * S)));
    }

    /// Fails and works again every second from `t` on; the lines that come of it.
    fn flap(trouble: &mut Trouble, t: Instant, seconds: u32) -> Vec<Word> {
        let mut said = Vec::new();
        for second in 0..seconds {
            let now = t + second * S;
            said.extend(trouble.due(now));
            said.push(trouble.fails(now, now));
            said.extend(trouble.works(now + S / 2));
        }
        said.retain(|word| !matches!(word, Word::BeginsAgain | Word::EndsAgain));
        said
    }

    #[test]
    fn what_comes_and_goes_is_one_line_every_ten_minutes_and_one_when_it_keeps_still() {
        let (mut trouble, t) = (Trouble::default(), Instant::now());
        let said = flap(&mut trouble, t, 1000);
        let single = [BEGINS, Word::Ends(S / 2)].repeat(4);
        let flaps = [Word::Flaps { times: 5, within: 4 * S }, Word::Flaps { times: 599, within: 600 * S }];
        assert_eq!(said, [&single[..], &flaps[..]].concat());
        assert_eq!(trouble.due(t + 1058 * S), None);
        assert_eq!(trouble.due(t + 1059 * S), Some(Word::Calm(1055 * S)));
        assert_eq!(trouble.fails(t + 1060 * S, t + 1060 * S), BEGINS, "then it is told as ever");
    }

    #[test]
    fn what_came_and_went_and_then_stays_is_told_as_standing() {
        let (mut trouble, t) = (Trouble::default(), Instant::now());
        flap(&mut trouble, t, 10);
        assert_eq!(trouble.fails(t + 10 * S, t + 10 * S), Word::BeginsAgain);
        assert_eq!(trouble.due(t + 70 * S), Some(Word::GoesOn(WINDOW)));
        assert_eq!(trouble.works(t + 80 * S), Some(Word::Ends(70 * S)));
    }

    #[test]
    fn slow_repetitions_are_told_one_by_one() {
        let (mut trouble, t) = (Trouble::default(), Instant::now());
        for n in 0..20 {
            assert_eq!(trouble.fails(t + n * 20 * S, t + n * 20 * S), BEGINS);
            assert_eq!(trouble.works(t + (n * 20 + 1) * S), Some(Word::Ends(S)));
        }
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut troubles, t) = (Troubles::default(), Instant::now());
        for n in 0..1000_u32 {
            let now = t + n * 61 * S;
            assert_eq!(troubles.fails(n, "why", now, now), BEGINS);
            assert_eq!(troubles.works(&n, now + S), Some((Word::Ends(S), &"why")));
            assert!(troubles.of.len() <= 2);
        }
        assert_eq!(troubles.wake(), None);
    }
}
