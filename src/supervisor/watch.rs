//! Which lanes stand still inside their sink.
//!
//! A lane whose sink blocks (a pipe that nobody reads, a file system that hangs) can say nothing, so
//! the supervisor looks. Owns what was told of each lane; the lanes own the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lane::Busy;
use crate::trouble::{Phrases, Trouble, Word};

/// A call of a sink that lasts longer than this is told.
const SLOW: Duration = Duration::from_secs(10);
/// How often the lanes are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

const PHRASES: Phrases = Phrases {
    begins: "sink is slow, its topics wait",
    goes_on: "sink is still slow, its topics wait",
    ends: "sink goes on",
    flaps: "sink is slow again and again",
};
const WHY: &str = "a write or flush does not come back: a reader that does not read, a disk or a network file system that hangs, a handler that takes long, a cluster that does not acknowledge";

struct Lane {
    name: String,
    busy: Arc<Busy>,
    /// The call that was told.
    slow: Option<Instant>,
    trouble: Trouble,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Watch {
    lanes: Vec<Lane>,
}

impl Watch {
    pub(super) fn add(&mut self, name: &str, busy: Arc<Busy>) {
        self.lanes.push(Lane { name: name.to_owned(), busy, slow: None, trouble: Trouble::default() });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.lanes.retain(|lane| lane.name != name);
    }

    /// Looks at every lane, and writes what there is to say.
    pub(super) fn look(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            for word in lane.look(now).into_iter().flatten() {
                PHRASES.log(word, log::Level::Warn, &format_args!("sink={}", lane.name), &WHY);
            }
        }
    }
}

impl Lane {
    fn look(&mut self, now: Instant) -> [Option<Word>; 2] {
        let since = self.busy.since();
        let mut said = [None, None];
        if self.slow.is_some() && self.slow != since {
            self.slow = None;
            said[0] = self.trouble.works(now);
        }
        said[1] = match since.filter(|since| now.saturating_duration_since(*since) >= SLOW) {
            Some(since) if self.slow.is_none() => {
                self.slow = Some(since);
                Some(self.trouble.fails(since, now))
            }
            _ => self.trouble.due(now),
        };
        said
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_call_that_does_not_come_back_is_told_once_reminded_of_and_its_end_told() {
        let base = Instant::now();
        let busy = Arc::new(Busy::new(base));
        let mut lane =
            Lane { name: "out".to_owned(), busy: Arc::clone(&busy), slow: None, trouble: Trouble::default() };
        assert_eq!(lane.look(base + 100 * S), [None, None], "a lane that waits for work is not slow");
        let began = busy.during(|| {
            let began = busy.since().unwrap();
            assert_eq!(lane.look(began + SLOW - S), [None, None]);
            assert_eq!(lane.look(began + SLOW + S), [None, Some(Word::Begins(SLOW + S))]);
            assert_eq!(lane.look(began + SLOW + 2 * S), [None, None]);
            assert_eq!(lane.look(began + 700 * S), [None, Some(Word::GoesOn(700 * S))]);
            began
        });
        assert_eq!(lane.look(began + 701 * S), [Some(Word::Ends(701 * S)), None]);
        assert_eq!(lane.look(began + 900 * S), [None, None]);
    }
}
