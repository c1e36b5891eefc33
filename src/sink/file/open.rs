//! How the file of a sink is opened, and what has to hold before the first line is appended.
//!
//! Touches the file system, and the file's end if a crash left half a line there. What always holds
//! after [`open`]: the file is a regular one that ends in a whole line and that no other process
//! writes, or it is a character device.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::disk::Disk;

/// A file that is ready for lines.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// Its length in bytes.
    pub(super) len: u64,
    /// A character device (`/dev/null`): there is nothing to lock, to cut, to sync or to rotate.
    pub(super) device: bool,
    /// Whether the file's name may not yet be on the disk.
    pub(super) name_unsynced: bool,
}

/// Why a file can't be written.
#[derive(Debug)]
pub enum OpenError {
    /// There is no directory to make the file in.
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// Something else is there under this name.
    NotAFile {
        /// Its name.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another process, or another sink of this one, writes this file.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It was renamed or removed in the moment in which it was opened.
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        call: &'static str,
        /// The system's reason.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory { path, directory } => write!(
                f,
                "{}: the directory {} does not exist; create it, or correct the path",
                path.display(),
                directory.display()
            ),
            Self::NotAFile { path, what } => {
                write!(
                    f,
                    "{}: is {what}, not a file that lines can be appended to; choose another path, or the sink stdout",
                    path.display()
                )
            }
            Self::Locked { path } => write!(
                f,
                "{}: is already written by another process, or by another sink of this one; stop it, or choose another path",
                path.display()
            ),
            Self::Moved { path } => {
                write!(f, "{}: was renamed or removed while it was being opened; try again", path.display())
            }
            Self::System { path, call, error } => {
                write!(f, "{}: {call} failed: {error}{}", path.display(), advice(error))
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// What to do about an error of the file system, as the end of a sentence.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free space on that file system",
        io::ErrorKind::QuotaExceeded => "; raise the disk quota of the worker's user, or free space",
        io::ErrorKind::ReadOnlyFilesystem => "; mount that file system for writing, or choose another path",
        io::ErrorKind::FileTooLarge => "; set rotate_size, or raise the limit on the size of a file",
        io::ErrorKind::PermissionDenied => {
            "; let the worker's user read and write the file, and write to its directory"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "; correct the path, or create its directory",
        _ => "; look at that disk and the kernel's log",
    }
}

/// Whether `path` could be opened for appending lines, by this user and at present. Nothing is left
/// behind: a file that is there is not changed, and one that is not is tried under another name.
/// Another process may have the file locked, as a worker does that runs.
pub fn probe(path: &Path) -> Result<(), OpenError> {
    let failed = |call| move |error| OpenError::System { path: path.to_owned(), call, error };
    if exists_as_file(path)? {
        return OpenOptions::new().append(true).open(path).map(drop).map_err(failed("open"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&beside).map_err(failed("making a file in its directory"))?;
    fs::remove_file(&beside).map_err(failed("removal of a file in its directory"))
}

/// Whether something is at `path` that lines can be appended to. Looked at before it is opened, because
/// opening a fifo waits for its reader.
fn exists_as_file(path: &Path) -> Result<bool, OpenError> {
    let what = match fs::metadata(path) {
        Ok(there) => there.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory_of(path);
            if directory.is_dir() {
                return Ok(false);
            }
            return Err(OpenError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
        }
        Err(error) => return Err(OpenError::System { path: path.to_owned(), call: "look at the file", error }),
    };
    let what = match what {
        _ if what.is_dir() => "a directory",
        _ if what.is_fifo() => "a named pipe",
        _ if what.is_socket() => "a socket",
        _ if what.is_block_device() => "a block device",
        _ => return Ok(true),
    };
    Err(OpenError::NotAFile { path: path.to_owned(), what })
}

/// Opens `path` for appending lines, makes it if it is missing, locks it, and cuts off half a line
/// at its end.
pub(super) fn open(disk: &mut impl Disk, path: &Path) -> Result<Opened, OpenError> {
    let failed = |call| move |error| OpenError::System { path: path.to_owned(), call, error };
    exists_as_file(path)?;
    let file = disk.open(path).map_err(failed("open"))?;
    let there = file.metadata().map_err(failed("look at the file"))?;
    if !there.is_file() {
        return Ok(Opened { file, len: 0, device: true, name_unsynced: false });
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
        // The lock is a safeguard; some network file systems have none.
        Err(TryLockError::Error(error)) => log::warn!(
            "file can't be locked, make sure that no other process writes it path={} error={error:?}",
            path.display()
        ),
    }
    // Whoever held the lock until just now may have rotated the file in between.
    if !is_at(&file, path) {
        return Err(OpenError::Moved { path: path.to_owned() });
    }
    let len = file.metadata().map_err(failed("look at the file"))?.len();
    let whole = whole_lines(&file, len).map_err(failed("read of the last line"))?;
    if whole < len {
        disk.truncate(&file, whole).map_err(failed("cut of the half line at the end"))?;
        log::warn!(
            "half a line at the end of a file was cut off, as a crash leaves it; its record was not acknowledged and \
             is given again path={} cut_bytes={} length={whole}",
            path.display(),
            len - whole
        );
    }
    Ok(Opened { file, len: whole, device: false, name_unsynced: true })
}

/// The directory in which `path` is.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether `path` leads to `file`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// How long `file` is up to and with its last `\n`. Read backwards in blocks, so that a last line of
/// any size takes the memory of one block.
fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
    const BLOCK: usize = 64 << 10;
    let mut block = vec![0; BLOCK];
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
