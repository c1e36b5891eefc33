//! The state directory: what this worker has committed last, and that no other worker uses it.
//!
//! Owns the files `lock` and `offsets` in it. The group at the broker is what counts; this is for the
//! day on which the broker has forgotten it (`offsets.retention.minutes`, a deleted group), and for
//! knowing a topic again that was deleted and made anew while the worker was down.
//! Invariants:
//! - `offsets` is replaced as a whole (a new file, synced, renamed), so it is sound at any moment;
//! - it holds only what a broker has acknowledged, so it is never ahead of the group;
//! - nobody waits for the disk: consumers change the ledger in memory, one thread writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::client::Remembered;
use crate::consumer::Never;
use crate::record::{Offset, TopicId, TopicPartition};
use crate::trouble::{Phrases, Trouble, Word};

mod peek;
mod text;

pub use peek::{Running, last_committed, ledger, running};

/// How often what has changed is written: so much of it a kill -9 may take, while the group has it.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Somebody who only looks whether the lock is held ([`running`]) holds it himself for some microseconds: so often, and
/// so long apart, it is tried again.
const LOOKERS: (u32, Duration) = (20, Duration::from_millis(10));
/// The file in a state directory that has what was committed last.
pub const OFFSETS: &str = "offsets";
const LOCK: &str = "lock";

/// Why a state directory can't be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds its lock.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the lock's file says: its process id.
        owner: String,
    },
    /// It can't be made, or a file in it can't be read or written.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, owner } => write!(
                f,
                "another worker (process {owner}) runs with the state directory {}; stop it, or give each its own state.dir",
                dir.display()
            ),
            Self::Io { path, what, error } => write!(f, "{} can't be {what}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

/// What is known of one partition of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The topic's id when it was committed, where the broker knows ids.
    topic_id: Option<TopicId>,
    /// What was committed last.
    offset: Offset,
}

type Entries = BTreeMap<(String, TopicPartition), Entry>;

/// What has been committed, as consumers tell it.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Entries,
    /// Topics as they are now, by name.
    ids: BTreeMap<Arc<str>, TopicId>,
    changed: bool,
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds it can panic halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a group's partitions.
    pub fn of_group(&self, group: &str) -> Vec<Remembered> {
        let inner = self.inner();
        let own = inner.entries.iter().filter(|((name, _), _)| name == group);
        let remembered = |((_, partition), entry): (&(String, TopicPartition), &Entry)| Remembered {
            partition: partition.clone(),
            topic_id: entry.topic_id,
            offset: entry.offset,
        };
        own.map(remembered).collect()
    }

    /// The id under which a topic is being read from now on. What the group had of an earlier topic of
    /// that name means nothing any more.
    pub fn topic(&self, group: &str, topic: &Arc<str>, id: TopicId) {
        let mut inner = self.inner();
        inner.ids.insert(Arc::clone(topic), id);
        let before = inner.entries.len();
        inner.entries.retain(|(own, name), entry| {
            own != group || name.topic != *topic || entry.topic_id.is_none_or(|known| known == id)
        });
        inner.changed |= inner.entries.len() != before;
    }

    /// The group has these offsets.
    pub fn committed(&self, group: &str, offsets: &[(TopicPartition, Offset)]) {
        let mut inner = self.inner();
        for (partition, offset) in offsets {
            let entry = Entry { topic_id: inner.ids.get(&partition.topic).copied(), offset: *offset };
            let key = (group.to_owned(), partition.clone());
            if inner.entries.get(&key) != Some(&entry) {
                inner.entries.insert(key, entry);
                inner.changed = true;
            }
        }
    }

    /// The topic no longer has these partitions.
    pub fn lost(&self, group: &str, partitions: &[TopicPartition]) {
        let mut inner = self.inner();
        for partition in partitions {
            inner.changed |= inner.entries.remove(&(group.to_owned(), partition.clone())).is_some();
        }
    }

    /// The whole, if it has changed since it was taken last.
    fn take_changes(&self) -> Option<String> {
        let mut inner = self.inner();
        std::mem::take(&mut inner.changed).then(|| text::write(&inner.entries))
    }

    fn not_written(&self) {
        self.inner().changed = true;
    }
}

const FAILS: Phrases = Phrases {
    begins: "state can't be written, retrying",
    goes_on: "state still can't be written, retrying",
    ends: "state is written again",
    flaps: "state can't be written again and again",
};

/// An open state directory. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    _lock: File,
}

impl State {
    /// Makes the directory if need be, takes its lock, and reads what an earlier run has left.
    ///
    /// # Errors
    /// See [`OpenError`]. A file `offsets` that makes no sense is none: it is set aside, with an error
    /// in the log.
    pub fn open(dir: &Path) -> Result<(Self, Ledger), OpenError> {
        let failed = |path: &Path, what| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, what, error }
        };
        fs::create_dir_all(dir).map_err(failed(dir, "made"))?;
        let path = dir.join(LOCK);
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed(&path, "opened for writing"))?;
        let mut locked = lock.try_lock();
        for _ in 0..LOOKERS.0 {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(LOOKERS.1);
            locked = lock.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Who it is, is only told; that there is somebody is known.
                let _ = lock.read_to_string(&mut owner);
                return Err(OpenError::Locked { dir: dir.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::Io { path, what: "locked", error }),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed(&path, "written"))?;
        let state = Self { dir: dir.to_owned(), _lock: lock };
        let entries = state.read()?;
        let ledger = Ledger { inner: Mutex::new(Inner { entries, ..Inner::default() }) };
        Ok((state, ledger))
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn read(&self) -> Result<Entries, OpenError> {
        let path = self.dir.join(OFFSETS);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not text".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
            Err(error) => return Err(OpenError::Io { path, what: "read", error }),
        };
        match text.and_then(|text| text::read(&text)) {
            Ok(entries) => Ok(entries),
            Err(why) => {
                let aside = self.dir.join("offsets.bad");
                log::error!(
                    "state file makes no sense, going on without it file={} reason=\"{why}\" kept_as={} \
                     meaning=\"where the group has no offset, auto_offset_reset decides\"",
                    path.display(),
                    aside.display()
                );
                fs::rename(&path, &aside).map_err(|error| OpenError::Io { path, what: "set aside", error })?;
                Ok(Entries::new())
            }
        }
    }

    /// Replaces the file by what the ledger holds, if that has changed.
    ///
    /// # Errors
    /// The file can't be written; the one before it is untouched.
    pub fn write(&self, ledger: &Ledger) -> io::Result<()> {
        let Some(text) = ledger.take_changes() else { return Ok(()) };
        let result = self.replace(&text);
        if result.is_err() {
            ledger.not_written();
        }
        result
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let (new, path) = (self.dir.join("offsets.new"), self.dir.join(OFFSETS));
        let mut file = File::create(&new)?;
        // An operator's command may run as root, and the worker has to read it afterwards. Where we may not give it away,
        // it is ours, and so is the directory.
        if let Ok(dir) = fs::metadata(&self.dir) {
            let _ = fchown(&file, Some(dir.uid()), Some(dir.gid()));
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        // So that the new name survives a power cut, too.
        File::open(&self.dir)?.sync_all()
    }

    /// Writes what has changed now and then, until `stop` is dropped, and then once more.
    pub fn keep(&self, ledger: &Ledger, stop: &Receiver<Never>) {
        let (mut trouble, mut why) = (Trouble::default(), String::new());
        let tell = |word: Word, why: &str| {
            FAILS.log(word, log::Level::Warn, &format_args!("dir={}", self.dir.display()), &why);
        };
        loop {
            let last = match stop.recv_timeout(WRITE_EVERY) {
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
                Ok(never) => match never {},
            };
            let now = Instant::now();
            match self.write(ledger) {
                Ok(()) => {
                    if let Some(word) = trouble.succeeded(now) {
                        tell(word, &why);
                    }
                }
                Err(error) => {
                    why = format!(
                        "{error}; commits to the group go on, and only if the group forgets them, older offsets are gone back to"
                    );
                    match trouble.failed(now, now) {
                        Some(word) => tell(word, &why),
                        None => {
                            log::debug!("state still can't be written dir={} error=\"{error}\"", self.dir.display())
                        }
                    }
                }
            }
            if last {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn what_was_written_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/on/the/way");
        let (state, ledger) = State::open(&path).unwrap();
        let partition = TopicPartition::new("t", 3);
        let id = TopicId::new([7; 16]).unwrap();
        ledger.topic("a group", &partition.topic, id);
        ledger.committed("a group", &[(partition.clone(), at(5)), (TopicPartition::new("other", 0), at(1))]);
        state.write(&ledger).unwrap();
        ledger.lost("a group", &[TopicPartition::new("other", 0)]);
        state.write(&ledger).unwrap();
        drop(state);
        let (_state, ledger) = State::open(&path).unwrap();
        assert_eq!(ledger.of_group("a group"), [Remembered { partition, topic_id: Some(id), offset: at(5) }]);
        assert_eq!(ledger.of_group("another"), []);
        assert!(ledger.take_changes().is_none(), "nothing has changed since");
        ledger.topic("a group", &"t".into(), TopicId::new([8; 16]).unwrap());
        assert_eq!(ledger.of_group("a group"), [], "it is of another topic of that name");
    }

    #[test]
    fn it_belongs_to_one_worker_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path()).unwrap();
        let Err(OpenError::Locked { owner, .. }) = State::open(dir.path()) else { panic!("it is locked") };
        assert_eq!(owner, std::process::id().to_string());
        drop(first);
        State::open(dir.path()).unwrap();
    }

    /// Only root can give a file away; for anybody else there is nothing to be seen.
    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (state, ledger) = State::open(dir.path()).unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).is_err() {
            return;
        }
        ledger.committed("g", &[(TopicPartition::new("t", 0), at(5))]);
        state.write(&ledger).unwrap();
        let file = fs::metadata(dir.path().join(OFFSETS)).unwrap();
        assert_eq!((file.uid(), file.gid()), (65_534, 65_534));
    }

    #[test]
    fn a_file_without_sense_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(OFFSETS), b"worker-offsets 1\n0 5 ").unwrap();
        let (_state, ledger) = State::open(dir.path()).unwrap();
        assert!(ledger.inner().entries.is_empty());
        assert!(dir.path().join("offsets.bad").exists() && !dir.path().join(OFFSETS).exists());
    }

    #[test]
    fn what_can_not_be_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (state, ledger) = State::open(dir.path()).unwrap();
        ledger.committed("g", &[(TopicPartition::new("t", 0), at(5))]);
        fs::create_dir(dir.path().join("offsets.new")).unwrap();
        assert!(state.write(&ledger).is_err());
        fs::remove_dir(dir.path().join("offsets.new")).unwrap();
        state.write(&ledger).unwrap();
        assert!(dir.path().join(OFFSETS).exists());
    }
}
