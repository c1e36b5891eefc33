//! What the worker of a configuration remembers, and keeping it in line with what is committed for it.
//!
//! Owns the state directories during a command: their locks are held from before the first question until the end, so
//! that no worker starts in between. A directory in which no worker ever ran is left alone: nothing is made there.

use std::path::{Path, PathBuf};

use super::change::Change;
use super::wrong::{Obstacle, Wrong};
use crate::client::{Committed, Remembered};
use crate::config::Config;
use crate::record::{Offset, TopicId, TopicPartition};
use crate::state::{self, Ledger, OpenError, Running, State};

/// See the module's text.
pub(super) struct Memory {
    /// Those that exist, the one that a worker takes first.
    places: Vec<Place>,
}

struct Place {
    dir: PathBuf,
    running: Running,
    ledger: Ledger,
    /// Held while something is to be changed.
    lock: Option<State>,
}

/// Where a worker that starts now would go on in a partition of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// `auto_offset_reset` would decide.
    Nowhere,
    /// The group has it.
    Committed(Offset),
    /// The group has forgotten it; the state file has it.
    Remembered(Offset),
    /// The topic was deleted and made anew since the worker ran: at its log start.
    Anew(Offset),
}

impl Standing {
    pub(super) fn offset(self) -> Option<Offset> {
        match self {
            Self::Nowhere => None,
            Self::Committed(offset) | Self::Remembered(offset) | Self::Anew(offset) => Some(offset),
        }
    }

    /// What is to be said of it, if anything.
    pub(super) fn remark(self) -> Option<&'static str> {
        match self {
            Self::Committed(_) => None,
            Self::Nowhere => Some("nothing committed: auto_offset_reset would decide"),
            Self::Remembered(_) => Some("the group has forgotten it, the state file has it"),
            Self::Anew(_) => Some("the topic was made anew since: from its start"),
        }
    }
}

impl Memory {
    /// Only looks; `obstacles` are what would stand against a change.
    pub(super) fn look(config: &Config, file: &Path) -> (Self, Vec<Obstacle>) {
        Self::open(config, file, false)
    }

    /// Takes the locks if `hold`, and looks.
    pub(super) fn open(config: &Config, file: &Path, hold: bool) -> (Self, Vec<Obstacle>) {
        let beside = file.with_extension("state");
        let mut dirs = vec![config.state_dir.clone().unwrap_or_else(|| beside.clone())];
        // Where the configured one can't be used, a worker takes the one beside the file. It may be the same by
        // another name: relative, or through a link.
        let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        if !dirs.iter().any(|dir| real(dir) == real(&beside)) {
            dirs.push(beside);
        }
        let (mut places, mut obstacles) = (Vec::new(), Vec::new());
        for dir in dirs {
            let running = state::running(&dir);
            match &running {
                Running::Never => continue,
                Running::Yes { owner } => {
                    obstacles.push(Obstacle::WorkerRuns { dir: dir.clone(), owner: owner.clone() });
                }
                Running::Unknown { why } => obstacles.push(Obstacle::State { dir: dir.clone(), why: why.clone() }),
                Running::No => {}
            }
            let place = match state::ledger(&dir) {
                Ok(_) if hold && running == Running::No => match State::open(&dir) {
                    Ok((lock, ledger)) => Place { dir, running, ledger, lock: Some(lock) },
                    Err(error) => {
                        obstacles.push(match error {
                            OpenError::Locked { dir, owner } => Obstacle::WorkerRuns { dir, owner },
                            error @ OpenError::Io { .. } => {
                                Obstacle::State { dir: dir.clone(), why: error.to_string() }
                            }
                        });
                        Place { dir, running, ledger: Ledger::default(), lock: None }
                    }
                },
                Ok(ledger) => Place { dir, running, ledger, lock: None },
                Err(why) => {
                    obstacles.push(Obstacle::State { dir: dir.clone(), why });
                    Place { dir, running, ledger: Ledger::default(), lock: None }
                }
            };
            places.push(place);
        }
        (Self { places }, obstacles)
    }

    /// The directories, each with whether a worker runs with it.
    pub(super) fn places(&self) -> impl Iterator<Item = (&Path, &Running)> {
        self.places.iter().map(|place| (place.dir.as_path(), &place.running))
    }

    /// What is remembered of a group.
    pub(super) fn of_group(&self, group: &str) -> Vec<Remembered> {
        self.places.first().map(|place| place.ledger.of_group(group)).unwrap_or_default()
    }

    /// Where the group stands in `of`, whose topic has the id `id` and whose log begins at `log_start`.
    pub(super) fn standing(
        remembered: &[Remembered],
        of: &TopicPartition,
        committed: Option<&Committed>,
        id: Option<TopicId>,
        log_start: Offset,
    ) -> Standing {
        let mut own = remembered.iter().filter(|one| one.partition.topic == of.topic);
        let differs = |one: &Remembered| one.topic_id.zip(id).is_some_and(|(known, now)| known != now);
        if own.clone().any(differs) {
            return Standing::Anew(log_start);
        }
        match (committed, own.find(|one| one.partition == *of)) {
            (Some(committed), _) => Standing::Committed(committed.offset),
            (None, Some(remembered)) => Standing::Remembered(remembered.offset),
            (None, None) => Standing::Nowhere,
        }
    }

    /// Enters what the groups have been given, and returns the files that have it. A group of which a file knows nothing of
    /// a topic gets an entry only where the change says so: one that is there makes its other partitions new ones.
    pub(super) fn keep(&self, changes: Vec<Change>) -> Result<Vec<PathBuf>, Wrong> {
        let mut kept = Vec::new();
        for place in &self.places {
            let Some(lock) = &place.lock else { continue };
            let mut entered = false;
            for change in changes.iter().filter(|change| change.moves) {
                let known = place.ledger.of_group(&change.group);
                let knows =
                    |of: &TopicPartition| change.enter || known.iter().any(|one| one.partition.topic == of.topic);
                for (topic, id) in &change.ids {
                    place.ledger.topic(&change.group, topic, *id);
                }
                let own: Vec<_> = change.at.iter().filter(|(of, _)| knows(of)).cloned().collect();
                entered |= !own.is_empty();
                place.ledger.committed(&change.group, &own);
            }
            let path = place.dir.join(state::OFFSETS);
            lock.write(&place.ledger).map_err(|error| Wrong::NotKept { path: path.clone(), error })?;
            if entered {
                kept.push(path);
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stands_where_a_worker_would_go_on() {
        let at = |offset| Offset::new(offset).unwrap();
        let (old, new) = (TopicId::new([1; 16]), TopicId::new([2; 16]));
        let of = |number| TopicPartition::new("t", number);
        let remembered = [Remembered { partition: of(0), topic_id: old, offset: at(5) }];
        let committed = Committed { offset: at(7), metadata: String::new() };
        let standing = |number, committed, id| Memory::standing(&remembered, &of(number), committed, id, at(1));
        assert_eq!(standing(0, Some(&committed), old), Standing::Committed(at(7)));
        assert_eq!(standing(0, None, old), Standing::Remembered(at(5)));
        assert_eq!(standing(0, None, None), Standing::Remembered(at(5)), "a broker that knows no ids");
        assert_eq!(standing(1, None, old), Standing::Nowhere);
        // Whatever the group has is of the topic that was.
        assert_eq!(standing(0, Some(&committed), new), Standing::Anew(at(1)));
        assert_eq!(standing(1, Some(&committed), new), Standing::Anew(at(1)));
    }
}
