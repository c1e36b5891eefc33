//! The names of rotated files: `PATH.1`, `PATH.2`, … in the order in which they were written.
//!
//! Looks into directories, and changes nothing there. What always holds: a number is never given
//! twice, and a file that has one keeps it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::open::directory_of;

/// When a file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The length in bytes at which a file is full. It is exceeded by what one flush brings.
    pub size: NonZeroU64,
    /// How many full files stay; older ones are **removed**. `None`: all stay.
    pub keep: Option<NonZeroUsize>,
}

/// The rotated files of one path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rotated {
    /// The numbers of those that still have the name they were given, ascending.
    pub(super) numbers: Vec<u64>,
    /// The highest number in use, also of a file with something behind its number (`PATH.7.gz`).
    pub(super) highest: u64,
}

/// `path` with a number behind it.
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Looks for the rotated files of `path`.
pub(super) fn find(path: &Path) -> io::Result<Rotated> {
    let mut found = Rotated::default();
    let Some(name) = path.file_name() else { return Ok(found) };
    for entry in fs::read_dir(directory_of(path))? {
        let Some((number, exact)) = number_of(name, &entry?.file_name()) else { continue };
        found.highest = found.highest.max(number);
        if exact {
            found.numbers.push(number);
        }
    }
    found.numbers.sort_unstable();
    Ok(found)
}

/// The number in `other`, if that is `name.NUMBER` or `name.NUMBER.…`, and whether it is the former.
fn number_of(name: &OsStr, other: &OsStr) -> Option<(u64, bool)> {
    let rest = other.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b".")?;
    let digits = rest.split(|&byte| byte == b'.').next()?;
    // `007` is nobody's: the name made from its number would be another one.
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // The next one has to have a number, too.
    (number < u64::MAX).then_some((number, digits.len() == rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_rotation_gives_count() {
        let number = |other: &str| number_of(OsStr::new("a.jsonl"), OsStr::new(other));
        assert_eq!(number("a.jsonl.12"), Some((12, true)));
        assert_eq!(number("a.jsonl.12.gz"), Some((12, false)));
        for other in [
            "a.jsonl",
            "a.jsonl.",
            "a.jsonl.x",
            "a.jsonl.-1",
            "a.jsonl.+1",
            "a.jsonl.007",
            "a.jsonl.1x",
            "b.jsonl.1",
            "a.jsonlx.1",
            "a.jsonl.18446744073709551615",
            "a.jsonl.99999999999999999999",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
