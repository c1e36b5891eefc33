//! What can be wrong with a configuration, and where.
//!
//! Owns the texts around an error: its place, the offer of a similar name, the list. The text of one
//! error is written where the value is read. What always holds: every error has a line that exists
//! in the file, and there is never an empty list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{MAX_FILE_BYTES, synonyms};

/// How many errors of one file are told. A file that is no configuration at all (an image, say) has
/// hundreds of thousands, and nobody reads them.
const MAX_ERRORS: usize = 100;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key with its table, `consumer.topics`; empty if the text could not be read as TOML there.
    pub key: String,
    /// What is wrong; what to do.
    pub text: String,
}

/// `12:1: consumer.topics: what is wrong; what to do`
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// All that is wrong with one file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    list: Vec<Error>,
    more: usize,
}

impl Errors {
    /// The errors in the order of the file; at most the first hundred.
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.list.iter()
    }

    /// How many there are beyond those of [`iter`](Self::iter).
    pub fn more(&self) -> usize {
        self.more
    }

    /// A single error at the beginning of the file.
    pub(super) fn one(text: String) -> Self {
        Self { list: vec![Error { line: 1, column: 1, key: String::new(), text }], more: 0 }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, prefix: &str) -> fmt::Result {
        for (index, error) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{prefix}{error}")?;
        }
        if self.more > 0 {
            write!(f, "\n{prefix}{}: and {} more errors", self.list.last().map_or(1, |e| e.line), self.more)?;
        }
        Ok(())
    }
}

/// One error a line, without the file's name.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl std::error::Error for Errors {}

/// Why a file gave no configuration. The exit code for all of them is 2.
#[derive(Debug)]
pub enum LoadError {
    /// The file could not be opened or read: missing, not permitted, a directory.
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no UTF-8 text.
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line in which the first bad byte is, from 1.
        line: usize,
    },
    /// It was read, and is wrong.
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        errors: Errors,
    },
}

/// One or more lines of the form `FILE:LINE:COLUMN: key: what is wrong; what to do`.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => {
                let path = path.display();
                match error.kind() {
                    io::ErrorKind::NotFound => {
                        write!(f, "{path}: there is no such file; name the configuration with -c FILE")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "{path}: may not be read; give the worker's user read permission for it")
                    }
                    io::ErrorKind::IsADirectory => write!(f, "{path}: is a directory; name the file in it"),
                    _ => write!(f, "{path}: can't be read: {error}"),
                }
            }
            Self::TooLarge { path } => write!(
                f,
                "{}: is larger than {MAX_FILE_BYTES} bytes, which no configuration is; check the file's name",
                path.display()
            ),
            Self::NotUtf8 { path, line } => write!(
                f,
                "{}:{line}:1: has a byte that is no UTF-8; save it as UTF-8, or check the file's name",
                path.display()
            ),
            Self::Invalid { path, errors } => errors.write(f, &format!("{}:", path.display())),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Invalid { errors, .. } => Some(errors),
            Self::TooLarge { .. } | Self::NotUtf8 { .. } => None,
        }
    }
}

/// Finds the line of a byte without counting from the start each time.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line of the byte `at`, from 1. What lies behind the last line counts to the last line.
    pub(super) fn line(&self, at: usize) -> usize {
        let mut line = self.starts.partition_point(|start| *start <= at);
        // A final newline ends the last line; it does not begin another.
        if line > 1 && self.starts.get(line - 1) == Some(&self.text.len()) {
            line -= 1;
        }
        line.max(1)
    }

    /// The column of the byte `at` in its line, in characters, from 1.
    fn column(&self, at: usize) -> usize {
        let start = self.starts.get(self.line(at) - 1).copied().unwrap_or(0);
        self.text[start..].char_indices().take_while(|(i, _)| start + *i < at).count() + 1
    }
}

struct Fault {
    at: usize,
    key: String,
    text: String,
}

/// How a table is called.
#[derive(Clone, Debug)]
pub(super) struct TableName {
    /// In errors: `sink.orders`.
    pub(super) path: String,
    /// In the file: `[sink.orders]`.
    pub(super) header: String,
}

impl TableName {
    /// `[path]`
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), header: format!("[{path}]") }
    }

    /// One of the tables `[[topic]]`.
    pub(super) fn topic() -> Self {
        Self { path: "topic".to_owned(), header: "[[topic]]".to_owned() }
    }
}

struct Unknown {
    at: usize,
    table: TableName,
    key: String,
    known: Vec<&'static str>,
}

/// Collects what is wrong while a file is read.
#[derive(Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    unknown: Vec<Unknown>,
    /// Which tables read a key, so that one in the wrong table can be shown the way.
    homes: BTreeMap<&'static str, BTreeSet<String>>,
    /// How many similar names were looked for.
    offers: usize,
    /// Part of the text could not be read as TOML. What is missing may stand in that part.
    incomplete: bool,
}

impl Faults {
    /// The text could not be read as TOML at the byte `at`.
    pub(super) fn syntax(&mut self, at: usize, text: String) {
        self.incomplete = true;
        self.add(at, String::new(), text);
    }

    /// What stands at the byte `at` is wrong.
    pub(super) fn add(&mut self, at: usize, key: String, text: String) {
        self.list.push(Fault { at, key, text });
    }

    /// Something that has to be there is not. Not told if part of the file could not be read.
    pub(super) fn missing(&mut self, at: usize, key: String, text: String) {
        if !self.incomplete {
            self.add(at, key, text);
        }
    }

    /// The name that `name` was most likely meant to be. Not looked for once there are more errors
    /// than are told, as thousands of wrong names among thousands of right ones take long.
    pub(super) fn offer<'n>(&mut self, name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        self.offers += 1;
        if self.offers > MAX_ERRORS { None } else { nearest(name, candidates) }
    }

    /// Whether part of the file could not be read, so that nothing can be said to be missing.
    pub(super) fn incomplete(&self) -> bool {
        self.incomplete
    }

    /// The table `header` reads these keys.
    pub(super) fn home(&mut self, header: &str, known: &[&'static str]) {
        for key in known {
            self.homes.entry(key).or_default().insert(header.to_owned());
        }
    }

    /// Nobody read the key at the byte `at`, in a table whose keys are `known`.
    pub(super) fn unknown(&mut self, at: usize, table: &TableName, key: &str, known: &[&'static str]) {
        self.unknown.push(Unknown { at, table: table.clone(), key: key.to_owned(), known: known.to_vec() });
    }

    /// The table that `key` belongs to, if one reads it. Keys of sinks belong to many.
    fn home_of(&self, path: &str, key: &str) -> Option<&str> {
        let homes = self.homes.get(key).filter(|_| !path.starts_with("sink."))?;
        // A key of [[topic]] is one of [consumer] too, and that is where most belong.
        homes.iter().find(|home| *home != "[[topic]]").or_else(|| homes.first()).map(String::as_str)
    }

    /// What users of other clients call it. A sink's keys are nobody else's.
    fn synonym(&self, path: &str, key: &str) -> Option<String> {
        if path.starts_with("sink.") {
            return None;
        }
        synonyms::advice(key, |name| self.home_of(path, name))
    }

    /// Leaves one error on a line that could not be read: what else is said about it is about what
    /// the parser made of it.
    fn drop_consequences(&mut self, lines: &Lines<'_>) {
        if !self.incomplete {
            return;
        }
        self.list.sort_by_key(|fault| (fault.at, !fault.key.is_empty()));
        let syntax = |fault: &Fault| fault.key.is_empty();
        let broken: BTreeSet<usize> = self.list.iter().filter(|f| syntax(f)).map(|f| lines.line(f.at)).collect();
        let mut told = BTreeSet::new();
        self.list.retain(|fault| {
            let line = lines.line(fault.at);
            !broken.contains(&line) || (syntax(fault) && told.insert(line))
        });
    }

    /// All of them with their places; `None` if there are none.
    pub(super) fn finish(mut self, lines: &Lines<'_>) -> Option<Errors> {
        for Unknown { at, table: TableName { path, header }, key, known } in std::mem::take(&mut self.unknown) {
            let advice = if let Some(home) = self.home_of(&path, &key) {
                format!("it belongs under {home}; move it there")
            } else if let Some(advice) = self.synonym(&path, &key) {
                advice
            } else if let Some(offer) = nearest(&key, known.iter().copied()) {
                format!("did you mean {offer}?")
            } else {
                format!("the keys here are {}", known.join(", "))
            };
            let place = if header.is_empty() { String::new() } else { format!(" of {header}") };
            let full = if path.is_empty() { short(&key) } else { format!("{path}.{}", short(&key)) };
            self.add(at, full, format!("is no key{place}; {advice}"));
        }
        self.drop_consequences(lines);
        // The same value is read again for every topic that inherits it: told once. At one place the
        // errors stay in the order in which they were found.
        let mut list: Vec<_> = self.list.into_iter().enumerate().collect();
        list.sort_by(|(i, a), (j, b)| (a.at, &a.key, &a.text, i).cmp(&(b.at, &b.key, &b.text, j)));
        list.dedup_by(|(_, a), (_, b)| (a.at, &a.key, &a.text) == (b.at, &b.key, &b.text));
        list.sort_by_key(|(found, fault)| (fault.at, *found));
        if list.is_empty() {
            return None;
        }
        let more = list.len().saturating_sub(MAX_ERRORS);
        let list = list.into_iter().take(MAX_ERRORS).map(|(_, Fault { at, key, text })| {
            let (line, column) = (lines.line(at), lines.column(at));
            Error { line, column, key, text }
        });
        Some(Errors { list: list.collect(), more })
    }
}

/// A name of the user's, cut to what fits on a line, without anything that a terminal would obey.
pub(super) fn short(name: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The candidate that `name` was most likely meant to be, if any is near enough.
pub(super) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let name: Vec<char> = name.chars().flat_map(char::to_lowercase).take(256).collect();
    // A third of the letters wrong is still a typo; more is another word. Two letters exchanged in a
    // short name count as two.
    let limit = match name.len() {
        0..=2 => 1,
        3..=8 => 2,
        long => long / 3,
    };
    let near = candidates.filter_map(|candidate| {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let near_enough = name.len().abs_diff(other.len()) <= limit;
        near_enough.then(|| (distance(&name, &other), candidate)).filter(|(distance, _)| *distance <= limit)
    });
    near.min().map(|(_, candidate)| candidate)
}

/// How many letters have to be added, left out or exchanged to get from one word to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
