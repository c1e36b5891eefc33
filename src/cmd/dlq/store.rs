//! Dead letters, read from their file line by line or from their topics, and the note of what was replayed.
//!
//! The note (`FILE.replayed`; for topics `dead-letters.replayed` in the state directory) has a line for each letter that was
//! delivered: where its line begins, or its offset, and a checksum of it, so that a file or a topic of the same name with
//! other letters is not mistaken for this one. It only grows; a letter is noted when the sink has flushed it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use super::letter::Letter;
#[cfg(feature = "librdkafka")]
use super::topics::Topics;
use crate::cli::Letters;

/// A letter's place, and its line's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) sum: u64,
}

/// FNV-1a in 64 bits: it has to be the same in every version of this program.
pub(super) fn sum(line: &[u8]) -> u64 {
    line.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A letter in its file.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is: `line 12`, or `orders-dead-0:12`.
    pub(super) place: String,
    /// The line, or what it would be in a file.
    pub(super) text: String,
    pub(super) letter: Letter,
    pub(super) mark: Mark,
}

/// Where letters are.
#[derive(Debug)]
pub(super) enum Store {
    File(PathBuf),
    #[cfg(feature = "librdkafka")]
    Topics(Box<Topics>),
}

impl Store {
    /// Calls `each` for every letter that is meant; those that can't be read are told to `wrong`, in words.
    ///
    /// # Errors
    /// The file or a topic can't be read, or `each` has failed.
    pub(super) fn read(
        &self,
        which: &Letters,
        each: &mut dyn FnMut(Found) -> io::Result<()>,
        wrong: &mut dyn FnMut(String) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::File(path) => read(path, which, each, wrong),
            #[cfg(feature = "librdkafka")]
            Self::Topics(topics) => topics.read(which, each, wrong),
        }
    }

    /// The file in which it is noted what was replayed.
    pub(super) fn note(&self) -> PathBuf {
        match self {
            Self::File(path) => {
                let mut name = OsString::from(path);
                name.push(".replayed");
                PathBuf::from(name)
            }
            #[cfg(feature = "librdkafka")]
            Self::Topics(topics) => topics.note.clone(),
        }
    }
}

/// For an error: the file or the topics.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            #[cfg(feature = "librdkafka")]
            Self::Topics(topics) => topics.fmt(f),
        }
    }
}

fn read(
    path: &Path,
    which: &Letters,
    each: &mut dyn FnMut(Found) -> io::Result<()>,
    wrong: &mut dyn FnMut(String) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut at, mut line) = (0_u64, 0);
    loop {
        let mut bytes = Vec::new();
        let read = file.read_until(b'\n', &mut bytes)?;
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            // Half a line is one that is being written.
            return Ok(());
        }
        line += 1;
        let mark = Mark { at, sum: sum(&bytes) };
        at += read as u64;
        let text = String::from_utf8(bytes).map_err(|_| "is no UTF-8".to_owned());
        match text.and_then(|text| Letter::parse(&text).map(|letter| (text, letter))) {
            Ok((text, letter)) if is_meant(&letter, which) => {
                each(Found { place: format!("line {line}"), text, letter, mark })?
            }
            Ok(_) => {}
            Err(why) => wrong(format!("{}:{line}: {why}", path.display()))?,
        }
    }
}

pub(super) fn is_meant(letter: &Letter, which: &Letters) -> bool {
    let offset = letter.offset.get();
    (which.topics.is_empty() || which.topics.iter().any(|topic| **topic == *letter.partition.topic))
        && which.partition.is_none_or(|partition| partition == letter.partition.partition)
        && which.from_offset.is_none_or(|from| offset >= from)
        && which.to_offset.is_none_or(|to| offset <= to)
        && which.reason.as_ref().is_none_or(|words| letter.reason.contains(words.as_str()))
}

/// What was replayed.
pub(super) struct Replayed {
    path: PathBuf,
    known: HashSet<Mark>,
    file: Option<File>,
}

impl Replayed {
    /// As it is noted in this file.
    ///
    /// # Errors
    /// There is a note, and it can't be read.
    pub(super) fn read(path: PathBuf) -> io::Result<Self> {
        let mut known = HashSet::new();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    let line = line?;
                    let mark = std::str::from_utf8(&line).ok().and_then(|line| line.split_once(' '));
                    // Half a line of a crash is one letter that comes twice.
                    if let Some((at, sum)) = mark
                        && let (Ok(at), Ok(sum)) = (at.parse(), u64::from_str_radix(sum, 16))
                    {
                        known.insert(Mark { at, sum });
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { path, known, file: None })
    }

    pub(super) fn has(&self, mark: Mark) -> bool {
        self.known.contains(&mark)
    }

    /// These were delivered; when it returns that is on the disk.
    pub(super) fn note(&mut self, marks: &[Mark]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().append(true).create(true).open(&self.path)?),
        };
        // The line break goes first: half a line of a crash stays one of its own.
        let lines: String = marks.iter().map(|mark| format!("\n{} {:x}", mark.at, mark.sum)).collect();
        file.write_all(lines.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        self.known.extend(marks);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
