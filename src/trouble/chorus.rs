//! What many say at once: six hundred topics lose the same broker, and the log has two lines of it.
//!
//! The first line of a kind is written at once. Whoever says the same within [`WINDOW`] is counted and
//! named in one more line. Owns the process's windows, because who says the same sits on many threads;
//! pure but for [`say`] and [`flush`]. Nothing is lost: what does not fit is
//! written by itself, and names beyond those that are listed are counted.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

/// How long those that say the same are gathered.
const WINDOW: Duration = Duration::from_secs(1);
/// How many of them are named.
const NAMED: usize = 10;
/// How many are counted; of more each writes a line of its own.
const MOST: usize = 10_000;
/// How many kinds are gathered at a time; of more each line is written by itself.
const KINDS: usize = 64;

struct Window {
    since: Instant,
    level: Level,
    phrase: &'static str,
    why: String,
    /// Who has said it, in that order; the first one's line is written.
    who: Vec<String>,
}

/// See the module's text.
struct Chorus(Vec<Window>);

impl Chorus {
    /// Whether it is to be written now: nobody has said it within the last moment, or only the very same.
    fn is_first(&mut self, level: Level, phrase: &'static str, who: &str, why: &str, now: Instant) -> bool {
        let same = |window: &&mut Window| window.phrase == phrase && window.level == level && window.why == why;
        match self.0.iter_mut().find(same) {
            Some(window) if window.who.len() < MOST && window.who.iter().all(|one| one != who) => {
                window.who.push(who.to_owned());
                false
            }
            Some(_) => true,
            None => {
                if self.0.len() < KINDS {
                    let (why, who) = (why.to_owned(), vec![who.to_owned()]);
                    self.0.push(Window { since: now, level, phrase, why, who });
                }
                true
            }
        }
    }

    /// The lines of those windows that are over at `now`.
    fn over(&mut self, now: Instant) -> Vec<(Level, String)> {
        let is_over = |window: &mut Window| now.saturating_duration_since(window.since) >= WINDOW;
        let over = self.0.extract_if(.., is_over);
        over.filter(|window| window.who.len() > 1).map(|window| (window.level, line(&window))).collect()
    }
}

fn line(window: &Window) -> String {
    let Window { phrase, why, who, .. } = window;
    let also = who.get(1..).unwrap_or_default();
    let named = also.get(..NAMED).unwrap_or(also);
    let rest = match also.len() - named.len() {
        0 => String::new(),
        rest => format!("; and {rest} others"),
    };
    format!("{phrase} also={} who=\"{}{rest}\" error=\"{why}\"", also.len(), named.join("; "))
}

static CHORUS: Mutex<Chorus> = Mutex::new(Chorus(Vec::new()));

fn chorus() -> MutexGuard<'static, Chorus> {
    // A list of windows is whole at any moment.
    CHORUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `phrase` of `who`, because of `why`, is to be written by the caller now. If not, it is in the
/// line of a later [`flush`].
pub(super) fn is_first(level: Level, phrase: &'static str, who: &str, why: &str) -> bool {
    chorus().is_first(level, phrase, who, why, Instant::now())
}

/// Writes what was gathered; to be called about once a second, and at the end with a time to come.
pub fn flush(now: Instant) {
    // Not under the lock: whoever writes slowly holds nobody up.
    let lines = chorus().over(now);
    for (level, line) in lines {
        log::log!(level, "{line}");
    }
}

/// Writes what was gathered, at the end.
pub fn flush_all() {
    flush(Instant::now() + WINDOW);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_the_first_and_one_for_all_others() {
        let (mut chorus, t) = (Chorus(Vec::new()), Instant::now());
        let mut say = |who: usize, why: &str| chorus.is_first(Level::Warn, "fails", &format!("topic=t{who}"), why, t);
        let at_once = (0..600).filter(|n| say(*n, "refused")).count();
        assert_eq!(at_once, 1);
        assert!(say(1, "another reason"));
        assert_eq!(chorus.over(t + WINDOW / 2), []);
        let named: Vec<_> = (1..=10).map(|n| format!("topic=t{n}")).collect();
        let line = format!("fails also=599 who=\"{}; and 589 others\" error=\"refused\"", named.join("; "));
        assert_eq!(chorus.over(t + WINDOW), [(Level::Warn, line)]);
        let mut say = |who| chorus.is_first(Level::Warn, "fails", who, "refused", t + WINDOW);
        assert!(say("topic=t1"), "a new window");
        assert!(say("topic=t1"), "who says it again says it by himself");
    }

    #[test]
    fn kinds_beyond_the_bound_are_written_one_by_one() {
        let (mut chorus, t) = (Chorus(Vec::new()), Instant::now());
        for round in 0..2 {
            let written = (0..KINDS + 5)
                .filter(|n| chorus.is_first(Level::Warn, "fails", &format!("{round}"), &n.to_string(), t))
                .count();
            assert_eq!(written, [KINDS + 5, 5][round]);
        }
    }
}
