//! Looking at a state directory without being its worker: whether one runs with it, and what it committed last.
//!
//! Changes nothing in the directory, and waits for nobody.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use std::sync::Mutex;

use super::{Entries, Inner, LOCK, Ledger, OFFSETS, text};
use crate::record::{Offset, TopicPartition};

/// Whether a worker runs with a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// The lock is held.
    Yes {
        /// What the lock's file says: its process id.
        owner: String,
    },
    /// One ran here, and has ended.
    No,
    /// None ever ran with this directory, on this machine.
    Never,
    /// It can't be looked at.
    Unknown {
        /// The system's reason.
        why: String,
    },
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes { owner } => write!(f, "running, process {owner}"),
            Self::No => f.write_str("not running"),
            Self::Never => f.write_str("never ran here"),
            Self::Unknown { why } => write!(f, "not known: {why}"),
        }
    }
}

/// Whether a worker runs with the state directory `dir`. Its lock is taken for a moment to learn it, if it is free.
pub fn running(dir: &Path) -> Running {
    let path = dir.join(LOCK);
    let unknown = |error: io::Error| Running::Unknown { why: format!("{}: {error}", path.display()) };
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Running::Never,
        Err(error) => return unknown(error),
    };
    // Shared, so that two who look at the same time do not take each other for a worker. Given back with the file.
    match lock.try_lock_shared() {
        Ok(()) => Running::No,
        Err(TryLockError::WouldBlock) => {
            // Who it is, is only told; that there is somebody is known.
            let owner = fs::read_to_string(&path).unwrap_or_default();
            Running::Yes { owner: owner.trim().to_owned() }
        }
        Err(TryLockError::Error(error)) => unknown(error),
    }
}

/// What stands in the file; one that makes no sense is an error, too.
fn entries(dir: &Path) -> io::Result<Entries> {
    let text = fs::read_to_string(dir.join(OFFSETS))?;
    text::read(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

fn wrong(dir: &Path, error: &io::Error) -> String {
    format!("{}: {error}", dir.join(OFFSETS).display())
}

/// What the worker of `dir` has committed last, of each partition of each group; some seconds late while it runs.
///
/// # Errors
/// There is no such file, it can't be read, or makes no sense: in words.
pub fn last_committed(dir: &Path) -> Result<Vec<(String, TopicPartition, Offset)>, String> {
    let entries = entries(dir).map_err(|error| wrong(dir, &error))?;
    Ok(entries.into_iter().map(|((group, partition), entry)| (group, partition, entry.offset)).collect())
}

/// The same as a ledger of one's own, with the topics' ids; empty where there is no such file.
///
/// # Errors
/// The file can't be read, or makes no sense: in words.
pub fn ledger(dir: &Path) -> Result<Ledger, String> {
    let entries = match entries(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Entries::new(),
        read => read.map_err(|error| wrong(dir, &error))?,
    };
    Ok(Ledger { inner: Mutex::new(Inner { entries, ..Inner::default() }) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::client::Remembered;
    use crate::state::State;

    fn ledger_of(dir: &Path, group: &str) -> Vec<Remembered> {
        super::ledger(dir).unwrap().of_group(group)
    }

    #[test]
    fn who_looks_sees_the_lock_and_disturbs_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()), Running::Never);
        assert!(last_committed(dir.path()).unwrap_err().contains("offsets"));
        assert_eq!(ledger_of(dir.path(), "g"), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made by looking");
        let (state, ledger) = State::open(dir.path()).unwrap();
        assert_eq!(running(dir.path()), Running::Yes { owner: std::process::id().to_string() });
        let (partition, offset) = (TopicPartition::new("t", 3), Offset::new(7).unwrap());
        ledger.committed("g", &[(partition.clone(), offset)]);
        state.write(&ledger).unwrap();
        assert_eq!(last_committed(dir.path()).unwrap(), [("g".to_owned(), partition, offset)]);
        assert_eq!(ledger_of(dir.path(), "g"), ledger.of_group("g"));
        drop(state);
        assert_eq!(running(dir.path()), Running::No);
        // A worker that starts while somebody looks is not taken for a second one.
        let looking = File::open(dir.path().join(LOCK)).unwrap();
        looking.try_lock_shared().unwrap();
        assert_eq!(running(dir.path()), Running::No);
        let ends = std::thread::spawn(move || {
            // Long enough for the first attempt to be refused, and far shorter than all of them take.
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(looking);
        });
        State::open(dir.path()).unwrap();
        ends.join().unwrap();
    }
}
