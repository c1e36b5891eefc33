//! Where every value of a configuration comes from.
//!
//! Kept beside the configuration, not in it: code that uses a setting sees a plain value.

use std::borrow::Cow;
use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the program.
    Default,
    /// In a profile. `line` is where a `[[topic]]` chose it, if the profile is the topic's own.
    Profile {
        /// The profile's name.
        name: &'static str,
        /// The line of the file, from 1.
        line: Option<usize>,
    },
    /// In the file.
    File {
        /// The table, in its brackets.
        table: String,
        /// The line, from 1.
        line: usize,
    },
}

/// `default`, `profile balanced`, `[consumer] line 12`
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Profile { name, line: None } => write!(f, "profile {name}"),
            Self::Profile { name, line: Some(line) } => write!(f, "profile {name}, [[topic]] line {line}"),
            Self::File { table, line } => write!(f, "{table} line {line}"),
        }
    }
}

/// One value that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: Cow<'static, str>,
    /// It, as it would be written in the file.
    pub value: String,
    /// Where it was written.
    pub source: Source,
}

/// The values of one table, or of one topic with all its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What they belong to: `[commit]`, `topic orders`.
    pub title: String,
    /// The values, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// Keys that could be written here and that nothing sets.
    pub unset: Vec<&'static str>,
}

/// The scope as the file could have it, each value with its source behind it.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A list of many topics must not push everything else to the right.
        const WIDEST: usize = 64;
        writeln!(f, "{}", self.title)?;
        let keys = self.settings.iter().map(|s| s.key.len()).chain(self.unset.iter().map(|key| key.len() + 2));
        let key_width = keys.max().unwrap_or(0);
        let values = self.settings.iter().map(|s| s.value.chars().count());
        let value_width = values.filter(|width| *width <= WIDEST).max().unwrap_or(0);
        for Setting { key, value, source } in &self.settings {
            writeln!(f, "{key:key_width$} = {value:value_width$}  # {source}")?;
        }
        for key in &self.unset {
            writeln!(f, "{:key_width$}   {:value_width$}  # not set", format!("# {key}"), "")?;
        }
        Ok(())
    }
}
