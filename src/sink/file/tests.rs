//! The sink `file` on a real directory, with a disk of which any call can be made to fail.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;
use crate::sink::format::testing::records_from;

mod faults;
mod names;
mod throughput;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It fails, and has done nothing.
    Fail(ErrorKind),
    /// It fails, and half of what it had to write is in the file all the same.
    FailHalf,
    /// A write that takes half of its bytes; other calls succeed.
    Short,
}

#[derive(Debug, Default)]
struct Plan {
    /// Which calls have been made, in order.
    calls: Vec<&'static str>,
    /// What becomes of the call with this number, if not success.
    fates: BTreeMap<usize, Fate>,
    /// From this call on there is no disk any more: as after a crash, nothing has any effect.
    dead_from: Option<usize>,
}

/// The real disk, but for the calls that the plan names. It does not sync: a test can't see that, and
/// it would take most of its time.
#[derive(Clone, Debug, Default)]
struct Faulty(Arc<Mutex<Plan>>);

impl Faulty {
    fn with(fates: impl IntoIterator<Item = (usize, Fate)>) -> Self {
        Self(Arc::new(Mutex::new(Plan { fates: fates.into_iter().collect(), ..Plan::default() })))
    }

    fn dead_from(call: usize) -> Self {
        Self(Arc::new(Mutex::new(Plan { dead_from: Some(call), ..Plan::default() })))
    }

    fn calls(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().calls.clone()
    }

    /// Decides the call that is made after `ahead` others from now.
    fn decide(&self, ahead: usize, fate: Fate) {
        let mut plan = self.0.lock().unwrap();
        let number = plan.calls.len() + ahead;
        plan.fates.insert(number, fate);
    }

    fn fate(&self, name: &'static str) -> Option<Fate> {
        let mut plan = self.0.lock().unwrap();
        let number = plan.calls.len();
        plan.calls.push(name);
        match plan.dead_from {
            Some(dead) if number == dead => Some(Fate::FailHalf),
            Some(dead) if number > dead => Some(Fate::Fail(ErrorKind::Other)),
            _ => plan.fates.get(&number).copied(),
        }
    }

    fn call<T>(&self, name: &'static str, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.fate(name) {
            Some(Fate::Fail(kind)) => Err(kind.into()),
            Some(Fate::FailHalf) => Err(ErrorKind::StorageFull.into()),
            Some(Fate::Short) | None => call(),
        }
    }
}

impl Disk for Faulty {
    fn open(&mut self, path: &Path) -> io::Result<File> {
        self.call("open", || Os.open(path))
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        let half = &bytes[..bytes.len().div_ceil(2)];
        match self.fate("write") {
            Some(Fate::Fail(kind)) => Err(kind.into()),
            Some(Fate::FailHalf) => Os.write(file, half).and(Err(ErrorKind::StorageFull.into())),
            Some(Fate::Short) => Os.write(file, half),
            None => Os.write(file, bytes),
        }
    }

    fn sync(&mut self, _file: &File) -> io::Result<()> {
        self.call("sync", || Ok(()))
    }

    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()> {
        self.call("truncate", || Os.truncate(file, len))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", || Os.rename(from, to))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.call("remove", || Os.remove(path))
    }

    fn sync_directory(&mut self, _directory: &Path) -> io::Result<()> {
        self.call("sync_directory", || Ok(()))
    }
}

fn orders() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

fn rotation(size: u64, keep: Option<usize>) -> Option<Rotation> {
    Some(Rotation { size: NonZeroU64::new(size).unwrap(), keep: keep.map(|keep| NonZeroUsize::new(keep).unwrap()) })
}

/// The value of record `number`: all are different, and of several lengths.
fn value(number: usize) -> String {
    format!("{number:03}{}", "x".repeat(number % 7))
}

/// Records `first..first + count`, their values as [`value`] says.
fn numbered(first: usize, count: usize) -> Records {
    let contents = (first..first + count).map(|number| (None, Some(value(number).into_bytes()), None));
    records_from(first as i64, contents.collect())
}

/// The first `count` records as raw lines.
fn lines(count: usize) -> String {
    (0..count).map(|number| value(number) + "\n").collect()
}

/// A directory and the path of a file in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders.jsonl");
    (directory, path)
}

/// What is in the rotated files of `path`, in their order, and in `path` itself.
fn all_of(path: &Path) -> String {
    let rotated = rotate::find(path).unwrap().numbers;
    let names = rotated.iter().map(|&number| rotate::numbered(path, number));
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    names.chain([path.to_owned()]).map(read).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// A sink for raw values with a small buffer, so that a few records are several writes.
fn small<D: Disk>(disk: D, path: &Path, rotation: Option<Rotation>) -> FileSink<D> {
    FileSink::with(disk, path, Format::Raw, rotation, 16).unwrap()
}

#[test]
fn what_is_flushed_is_in_the_file_and_synced() {
    let (_directory, path) = place();
    let disk = Faulty::default();
    let mut sink = FileSink::with(disk.clone(), &path, Format::Raw, None, 1 << 20).unwrap();
    sink.write(&orders(), &numbered(0, 2)).unwrap();
    sink.write(&orders(), &numbered(2, 1)).unwrap();
    assert_eq!(read(&path), "", "one write for several batches");
    sink.flush().unwrap();
    assert_eq!(read(&path), lines(3));
    sink.flush().unwrap();
    sink.write(&orders(), &numbered(3, 1)).unwrap();
    sink.flush().unwrap();
    assert_eq!(read(&path), lines(4));
    // The directory once, for the new name; nothing for a flush with nothing to do.
    assert_eq!(disk.calls(), ["open", "write", "sync", "sync_directory", "write", "sync"]);
}

#[test]
fn an_existing_file_is_appended_to() {
    let (_directory, path) = place();
    for round in 0..3 {
        let mut sink = FileSink::open(&path, Format::Json, None).unwrap();
        sink.write(&orders(), &numbered(round, 1)).unwrap();
        sink.flush().unwrap();
    }
    let text = read(&path);
    let offsets: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn half_a_line_at_the_end_is_cut_off_wherever_the_crash_came() {
    for format in [Format::Json, Format::Raw] {
        let (directory, path) = place();
        let mut sink = FileSink::open(&path, format, None).unwrap();
        sink.write(&orders(), &numbered(0, 4)).unwrap();
        sink.flush().unwrap();
        let text = fs::read(&path).unwrap();
        let crashed = directory.path().join("crashed");
        for length in 0..=text.len() {
            fs::write(&crashed, &text[..length]).unwrap();
            let whole = text[..length].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let mut sink = FileSink::with(Faulty::default(), &crashed, format, None, 16).unwrap();
            assert_eq!(fs::read(&crashed).unwrap(), &text[..whole], "{format:?}, cut at {length}");
            sink.write(&orders(), &numbered(4, 1)).unwrap();
            sink.flush().unwrap();
            let after = fs::read(&crashed).unwrap();
            assert!(after.starts_with(&text[..whole]) && after.ends_with(b"\n"));
            assert_eq!(after.iter().filter(|&&byte| byte == b'\n').count(), {
                text[..whole].iter().filter(|&&byte| byte == b'\n').count() + 1
            });
        }
    }
}

#[test]
fn a_half_line_larger_than_a_block_is_cut_off() {
    const BLOCK: usize = 64 << 10;
    let (_directory, path) = place();
    for before in [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1] {
        for half in [1, BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 7] {
            let mut text = vec![b'a'; before];
            if let Some(last) = text.last_mut() {
                *last = b'\n';
            }
            text.resize(before + half, b'b');
            fs::write(&path, &text).unwrap();
            small(Faulty::default(), &path, None);
            assert_eq!(fs::read(&path).unwrap(), &text[..before], "{before} + {half}");
        }
    }
}

#[test]
fn a_device_is_written_without_locks_and_cuts() {
    for _ in 0..2 {
        let mut sink = FileSink::open("/dev/null", Format::Json, rotation(1, None)).unwrap();
        sink.write(&orders(), &numbered(0, 10)).unwrap();
        sink.flush().unwrap();
        sink.reopen().unwrap();
    }
}

/// `/dev/full` is the system's own full disk: each write to it fails with ENOSPC.
#[test]
fn a_full_disk_is_said_and_nothing_is_acknowledged() {
    let mut sink = small(Os, Path::new("/dev/full"), None);
    let Stopped { done, why } = sink.write(&orders(), &numbered(0, 10)).unwrap_err();
    // Four lines are more than the 16 bytes of this sink's buffer; they stay in it.
    assert_eq!(done, 4);
    let text = "/dev/full: write failed: No space left on device (os error 28); free space on that file system; the \
                records wait and are given again";
    assert_eq!(why, Why::Retry(text.to_owned()));
    assert_eq!(sink.write(&orders(), &numbered(4, 6)).unwrap_err().done, 0);
    assert_eq!(sink.flush().unwrap_err(), text);
    // After the failed flush all of it is dropped, to be given again.
    assert_eq!(sink.flush(), Ok(()));
}
