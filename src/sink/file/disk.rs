//! The system calls of the sink `file` that can fail while it works.
//!
//! Owns nothing. It is a seam, so that a test can make any one of them fail and see that nothing is
//! lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What the sink asks of a file system.
pub trait Disk: Send {
    /// Opens a file for reading at any place and for appending; makes it if it is missing.
    ///
    /// # Errors
    /// The system's.
    fn open(&mut self, path: &Path) -> io::Result<File>;

    /// Appends some of `bytes`, and says how many.
    ///
    /// # Errors
    /// The system's.
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when what was written to `file`, and its length, is on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self, file: &File) -> io::Result<()>;

    /// Cuts `file` to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()>;

    /// Gives a file another name in the same directory.
    ///
    /// # Errors
    /// The system's.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Returns when the names in `directory` are on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Os;

impl Disk for Os {
    fn open(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).open(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}
