//! The sink `file`: records as lines at the end of a file, on the disk before they are acknowledged.
//!
//! Owns one file, or the rotated files of one path, and a buffer. It blocks as long as its disk does:
//! a local one answers with data or an error, a network file system may block without a bound.
//!
//! What always holds:
//! - `flush` says Ok only when every line taken so far was written and synced, and the file's name is
//!   on the disk; so what is acknowledged survives a crash of the machine.
//! - After a failure the file is cut back to whole lines: after a failed `flush` to where the last
//!   good one left it, after a failed write in between to before that write, and its lines stay in
//!   the buffer. Neither half a line nor a line that is given again remains. If the cut fails too,
//!   nothing is appended before it has succeeded.
//! - After a crash, what was written behind the last good flush may still be there, and its records
//!   are given again: at least once, as everything here. Half a line at the end is cut off.
//! - Rotation happens only behind a good flush, by renaming: a line is in one file at any moment.
//!
//! Another process must not append to the file (it is locked, as far as others ask for the lock) nor
//! truncate it in place: `copytruncate` of logrotate loses what is written while it copies. Rename
//! the file and send SIGHUP instead. A character device (`/dev/null`) is written without all that.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::format::Encoder;
use super::{Format, Sink, Stopped, Why};
use crate::record::{Records, TopicPartition};

pub mod disk;
mod open;
mod rotate;

#[cfg(test)]
mod tests;

use disk::{Disk, Os};
pub use open::{OpenError, probe};
use open::{Opened, advice, directory_of, is_at};
pub use rotate::Rotation;

/// How much is gathered before it is written, in bytes: some hundred records of 100 B a system call.
/// From 16 KiB to 4 MiB the sink measured equally fast, and each lane has one of these.
const BUFFER: usize = 64 << 10;

/// Appends records to a file.
#[derive(Debug)]
pub struct FileSink<D: Disk = Os> {
    disk: D,
    path: PathBuf,
    encoder: Encoder,
    out: Opened,
    /// Whole lines that are not in the file yet.
    buffer: Vec<u8>,
    buffer_limit: usize,
    /// The file's length after the last good flush.
    good: u64,
    /// Bytes of whole lines that were written since.
    written: u64,
    /// Something may stand behind `good + written` that has to be cut off before anything is
    /// appended: so many bytes, as far as is known.
    torn: Option<u64>,
    rotation: Option<Rotation>,
    /// The highest number that a rotated file was given; no number is used twice.
    last_number: u64,
    /// After a rotation failed: the length at which it is tried again.
    rotate_again_at: Option<u64>,
}

impl FileSink {
    /// Opens `path`, or makes it with the rights that the process's umask leaves, and locks it. Half a
    /// line at its end is cut off.
    ///
    /// # Errors
    /// It can't be opened, is no file, or is written by somebody else.
    pub fn open(path: impl Into<PathBuf>, format: Format, rotation: Option<Rotation>) -> Result<Self, OpenError> {
        Self::with(Os, path, format, rotation, BUFFER)
    }
}

/// Why a flush did not succeed.
enum Failure {
    System(&'static str, io::Error),
    /// The file has no name any more: what was written to it is lost.
    Deleted,
}

impl<D: Disk> FileSink<D> {
    fn with(
        mut disk: D,
        path: impl Into<PathBuf>,
        format: Format,
        rotation: Option<Rotation>,
        buffer_limit: usize,
    ) -> Result<Self, OpenError> {
        let path = path.into();
        let out = open::open(&mut disk, &path)?;
        Ok(Self {
            disk,
            path,
            encoder: Encoder::new(format),
            good: out.len,
            out,
            buffer: Vec::with_capacity(buffer_limit),
            buffer_limit,
            written: 0,
            torn: None,
            rotation,
            last_number: 0,
            rotate_again_at: None,
        })
    }

    /// Takes what `line` appends, one whole line, as [`write`](Sink::write) takes a record.
    ///
    /// # Errors
    /// In words for the log. As after a failed flush, nothing since the last good one was taken.
    pub(crate) fn append(&mut self, line: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        if let Err(failure) = self.make_room() {
            let text = self.explain(&failure);
            self.go_back();
            return Err(text);
        }
        line(&mut self.buffer);
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), Failure> {
        if self.buffer.len() >= self.buffer_limit { self.drain() } else { Ok(()) }
    }

    /// Cuts off what may stand behind the last whole line.
    fn mend(&mut self) -> Result<(), Failure> {
        let Some(torn) = self.torn else { return Ok(()) };
        if !self.out.device {
            let now = self.out.file.metadata().map_err(|error| Failure::System("look at the file", error))?.len();
            // Both are the same unless somebody truncated the file: then what we wrote is nearer to
            // its beginning, and a cut at the old place would fill the file up with zeros.
            let keep = (self.good + self.written).min(now.saturating_sub(torn));
            if keep < now {
                let cut = self.disk.truncate(&self.out.file, keep);
                cut.map_err(|error| Failure::System("cut of a half-written line", error))?;
            }
            self.good = keep.saturating_sub(self.written);
        }
        self.torn = None;
        Ok(())
    }

    /// Writes the buffer to the file. If that fails, the file is cut back to before it, and the lines
    /// stay in the buffer.
    fn drain(&mut self) -> Result<(), Failure> {
        self.mend()?;
        let mut put = 0;
        while put < self.buffer.len() {
            let error = match self.disk.write(&mut self.out.file, &self.buffer[put..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(some) => {
                    put += some;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.torn = Some(put as u64);
            // Tried again before the next write if it fails now.
            let _ = self.mend();
            return Err(Failure::System("write", error));
        }
        self.written += put as u64;
        self.buffer.clear();
        // One huge record is no reason to keep its memory for ever.
        self.buffer.shrink_to(4 * self.buffer_limit);
        Ok(())
    }

    /// Makes all lines durable.
    fn settle(&mut self) -> Result<(), Failure> {
        self.drain()?;
        if self.out.device {
            self.written = 0;
            return Ok(());
        }
        if self.written > 0 {
            self.disk.sync(&self.out.file).map_err(|error| Failure::System("sync", error))?;
            let there = self.out.file.metadata().map_err(|error| Failure::System("look at the file", error))?;
            if there.nlink() == 0 && !is_at(&self.out.file, &self.path) {
                return Err(Failure::Deleted);
            }
            self.sync_name()?;
            self.good = there.len();
            self.written = 0;
        }
        Ok(())
    }

    /// Makes the file's name durable, if it may not be.
    fn sync_name(&mut self) -> Result<(), Failure> {
        if !self.out.name_unsynced {
            return Ok(());
        }
        // Behind a symbolic link it is the directory of the file itself that counts.
        let real = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        match self.disk.sync_directory(directory_of(&real)) {
            Ok(()) => {}
            Err(error) if cannot_sync(error.kind()) => log::warn!(
                "directory can't be synced, a new file may be missing after a power failure path={} error={error:?}",
                self.path.display()
            ),
            Err(error) => return Err(Failure::System("sync of the directory", error)),
        }
        self.out.name_unsynced = false;
        Ok(())
    }

    /// Goes back to the last good flush: what was written since is cut off, the buffer is dropped.
    fn go_back(&mut self) {
        self.torn = Some(self.torn.unwrap_or(0) + self.written);
        self.written = 0;
        self.buffer.clear();
        // Tried again before the next write if it fails now.
        let _ = self.mend();
    }

    /// Goes on with another file.
    fn take(&mut self, out: Opened) {
        self.good = out.len;
        self.out = out;
        self.written = 0;
        self.torn = None;
        self.rotate_again_at = None;
    }

    fn explain(&self, failure: &Failure) -> String {
        let path = self.path.display();
        match failure {
            Failure::System(call, error) => {
                format!("{path}: {call} failed: {error}{}; the records wait and are given again", advice(error))
            }
            Failure::Deleted => format!(
                "{path}: was deleted while it was written; the records since the last flush are given again, what was \
                 flushed before is gone with the file (rename it and send SIGHUP to begin a new one)"
            ),
        }
    }

    /// Puts the file aside if it is full. It is no failure of the delivery if that can't be done.
    fn rotate_if_full(&mut self) {
        let Some(rotation) = self.rotation else { return };
        if self.out.device || self.good < self.rotate_again_at.unwrap_or(rotation.size.get()) {
            return;
        }
        match self.rotate(rotation) {
            Ok(()) => self.rotate_again_at = None,
            Err(why) => {
                if self.rotate_again_at.is_none() {
                    log::warn!(
                        "file can't be rotated, it is written on and this is tried again path={} error={why:?}",
                        self.path.display()
                    );
                }
                // Not at every flush: each try reads the directory.
                self.rotate_again_at = Some(self.good + rotation.size.get() / 10 + 1);
            }
        }
    }

    fn rotate(&mut self, rotation: Rotation) -> Result<(), String> {
        if !is_at(&self.out.file, &self.path) {
            // Somebody has renamed it already.
            return self.begin_anew();
        }
        let told = |path: &Path, error: &io::Error| format!("{}: {error}{}", path.display(), advice(error));
        // Behind a symbolic link the file itself is renamed, not the link.
        let real = fs::canonicalize(&self.path).map_err(|error| told(&self.path, &error))?;
        let mut rotated = rotate::find(&real).map_err(|error| told(directory_of(&real), &error))?;
        let number = rotated.highest.max(self.last_number) + 1;
        let aside = rotate::numbered(&real, number);
        self.disk.rename(&real, &aside).map_err(|error| told(&aside, &error))?;
        self.last_number = number;
        if let Err(why) = self.begin_anew() {
            // The lock stays on our file, so nobody else writes it. Its old name is taken back only
            // if nobody has it by now; if that fails, the next try only opens a new file.
            if fs::symlink_metadata(&real).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                let _ = self.disk.rename(&aside, &real);
                self.out.name_unsynced = true;
            }
            return Err(why);
        }
        log::info!("file rotated path={} to={}", real.display(), aside.display());
        rotated.numbers.push(number);
        let surplus = rotation.keep.map_or(0, |keep| rotated.numbers.len().saturating_sub(keep.get()));
        for &old in &rotated.numbers[..surplus] {
            let old = rotate::numbered(&real, old);
            match self.disk.remove(&old) {
                Ok(()) => log::info!("rotated file removed path={}", old.display()),
                Err(error) => log::warn!("rotated file can't be removed path={} error={error:?}", old.display()),
            }
        }
        Ok(())
    }

    /// Opens the path anew and goes on there. Only behind a good flush.
    fn begin_anew(&mut self) -> Result<(), String> {
        let out = open::open(&mut self.disk, &self.path).map_err(|error| error.to_string())?;
        log::info!("file opened anew path={} length={}", self.path.display(), out.len);
        self.take(out);
        Ok(())
    }
}

/// Whether this is how a system says that a directory is not to be synced at all: no right to read
/// it, or a file system that has no such thing.
fn cannot_sync(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

impl<D: Disk> Sink for FileSink<D> {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        self.encoder.begin(partition);
        for (index, record) in records.iter().enumerate() {
            self.make_room().map_err(|failure| Stopped { done: index, why: Why::Retry(self.explain(&failure)) })?;
            self.encoder.append(&mut self.buffer, &record);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        if let Err(failure) = self.settle() {
            let text = self.explain(&failure);
            self.go_back();
            if matches!(failure, Failure::Deleted)
                && let Err(why) = self.begin_anew()
            {
                return Err(format!("{text}; a new file can't be made: {why}"));
            }
            return Err(text);
        }
        self.rotate_if_full();
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        if self.out.device || is_at(&self.out.file, &self.path) {
            return Ok(());
        }
        let old = "the old file is written on";
        if !self.buffer.is_empty() || self.written > 0 {
            return Err(format!("{}: not opened anew between a write and its flush; {old}", self.path.display()));
        }
        self.mend().map_err(|failure| format!("{}; {old}", self.explain(&failure)))?;
        self.begin_anew().map_err(|why| format!("{why}; {old}"))
    }
}
