//! One table of settings: its layers one over the other, read key by key.
//!
//! Each read adds its own error, and goes on. The keys that were read are the known ones; what is
//! left in the file's table when the reader finishes is unknown. Values are borrowed from the parsed
//! text: a layer costs nothing but a reference, however many topics share it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::errors::{Faults, Lines, TableName};
use super::report::{Scope, Setting, Source};
use super::value::{self, Choice};
use crate::sink::own::OwnSink;

mod secret;

/// A file that the configuration names.
pub(super) struct NamedFile {
    pub(super) bytes: Vec<u8>,
    /// Every user of this machine may read it.
    pub(super) open_to_all: bool,
}

/// Reads such files.
#[derive(Clone, Copy)]
pub(super) struct Files<'a>(pub(super) &'a dyn Fn(&Path) -> io::Result<NamedFile>);

impl Files<'_> {
    pub(super) fn read(&self, path: &Path) -> io::Result<NamedFile> {
        (self.0)(path)
    }
}

/// What all readers of one file share.
pub(super) struct Context<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// The files that the configuration names; `None`: they are not looked into.
    pub(super) files: Option<Files<'a>>,
    /// Every user of this machine may read the configuration.
    pub(super) open_to_all: bool,
    pub(super) faults: Faults,
    pub(super) warnings: Vec<String>,
    pub(super) report: Vec<Scope>,
    /// The sinks of the program that has the worker inside.
    pub(super) own: &'a BTreeMap<String, OwnSink>,
    /// The file has `[dead_letter]`.
    pub(super) has_dead_letter: bool,
}

/// Where a layer comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    Default,
    /// `chosen_at`: the place of the `profile` key, if it is in the file.
    Profile {
        name: &'static str,
        topic: bool,
        chosen_at: Option<usize>,
    },
    /// The file. `inherited`: another table of it, seen from the one that is read.
    File {
        inherited: Option<&'static str>,
    },
}

/// Some of the values of a table.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) origin: Origin,
    pub(super) table: &'a DeTable<'a>,
}

/// Reads one table.
pub(super) struct Reader<'c, 'a> {
    pub(super) context: &'c mut Context<'a>,
    name: TableName,
    /// Its place, for errors about what is missing.
    at: usize,
    /// The lowest first.
    layers: Vec<Layer<'a>>,
    known: Vec<&'static str>,
    settings: Vec<Setting>,
    unset: Vec<&'static str>,
}

impl<'c, 'a> Reader<'c, 'a> {
    pub(super) fn new(context: &'c mut Context<'a>, name: TableName, at: usize, layers: Vec<Layer<'a>>) -> Self {
        Self { context, name, at, layers, known: vec![], settings: vec![], unset: vec![] }
    }

    /// Lays one more layer just below the file's own.
    pub(super) fn insert_below_file(&mut self, layer: Layer<'a>) {
        let file = self.layers.iter().rposition(|l| matches!(l.origin, Origin::File { .. }));
        self.layers.insert(file.unwrap_or(self.layers.len()), layer);
    }

    /// The layers, the lowest first.
    pub(super) fn layers(&self) -> &[Layer<'a>] {
        &self.layers
    }

    /// The table, in its brackets.
    pub(super) fn table(&self) -> &str {
        &self.name.header
    }

    /// How the table is called in errors.
    pub(super) fn path(&self) -> &str {
        &self.name.path
    }

    /// A table inside of this one, and its place, if the file has it.
    pub(super) fn inner(&mut self, key: &'static str) -> Option<(usize, &'a DeTable<'a>)> {
        self.known.push(key);
        let top = self.layers.last().filter(|layer| matches!(layer.origin, Origin::File { .. }))?;
        let (name, value) = top.table.get_key_value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let text = value::wrong(value.get_ref(), &format!("its keys under [{}.{key}], once", self.name.path));
            self.wrong(key, text);
        }
        Some((name.span().start, table?))
    }

    /// Nothing is missing without `key`.
    pub(super) fn leave_out(&mut self, key: &'static str) {
        self.unset.retain(|unset| *unset != key);
    }

    fn find(&self, key: &str) -> Option<(Origin, &'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let hit = |layer: &Layer<'a>| layer.table.get_key_value(key).map(|(k, v)| (layer.origin, k, v));
        self.layers.iter().rev().find_map(hit)
    }

    /// The layer that decided about `key`.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.find(key).map(|(origin, ..)| origin)
    }

    /// What the report says of `key`; `None` if nothing sets it, or what does is wrong.
    pub(super) fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// What a lower table says of `key` does not hold in this one.
    pub(super) fn set_aside(&mut self, key: &'static str) {
        let read = self.settings.len();
        self.settings.retain(|setting| setting.key != key);
        if self.settings.len() < read {
            self.unset.push(key);
        }
    }

    /// The place in the file that decided about `key`.
    pub(super) fn place(&self, key: &str) -> usize {
        match self.find(key) {
            Some((Origin::File { .. }, _, value)) => value.span().start,
            Some((Origin::Profile { chosen_at: Some(at), .. }, ..)) => at,
            Some((Origin::Profile { .. } | Origin::Default, ..)) | None => self.at,
        }
    }

    /// The place of `key` if the file's table itself has it.
    pub(super) fn own(&self, key: &str) -> Option<usize> {
        let top = self.layers.last().filter(|layer| matches!(layer.origin, Origin::File { .. }))?;
        Some(top.table.get(key)?.span().start)
    }

    fn source(&self, origin: Origin, key: &Spanned<DeString<'a>>) -> Source {
        match origin {
            Origin::Default => Source::Default,
            Origin::Profile { name, topic, chosen_at } => {
                let line = chosen_at.filter(|_| topic).map(|at| self.context.lines.line(at));
                Source::Profile { name, line }
            }
            Origin::File { inherited } => {
                let table = inherited.map_or_else(|| self.name.header.clone(), |table| format!("[{table}]"));
                Source::File { table, line: self.context.lines.line(key.span().start) }
            }
        }
    }

    /// Adds an error about `key`.
    pub(super) fn wrong(&mut self, key: &str, text: String) {
        self.wrong_at(self.place(key), key, text);
    }

    /// Adds an error about a part of `key`'s value.
    pub(super) fn wrong_at(&mut self, at: usize, key: &str, text: String) {
        // Told under the table that has it, so that it is the same error for all topics.
        let path = match self.origin(key) {
            Some(Origin::File { inherited: Some(table) }) => table,
            Some(_) | None => &self.name.path,
        };
        self.context.faults.add(at, format!("{path}.{key}"), text);
    }

    /// `None`, and an error that says what to write.
    pub(super) fn required<T>(&mut self, key: &str, value: Option<T>, example: &str) -> Option<T> {
        if value.is_none() && self.find(key).is_none() {
            let text = format!("is missing; write {key} = {example} under {}", self.name.header);
            self.context.faults.missing(self.at, format!("{}.{key}", self.name.path), text);
        }
        value
    }

    /// The value with its `${NAME}` replaced, and where it comes from.
    fn raw(&mut self, key: &'static str) -> Option<(Source, Spanned<DeValue<'a>>)> {
        self.known.push(key);
        let Some((origin, key_span, value)) = self.find(key) else {
            self.unset.push(key);
            return None;
        };
        let mut value = value.clone();
        let mut bad = Vec::new();
        expand(&mut value, self.context.env, &mut bad);
        for (span, text) in &bad {
            self.wrong_at(span.start, key, text.clone());
        }
        bad.is_empty().then(|| (self.source(origin, key_span), value))
    }

    /// Reads `key`, which may be absent.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (source, value) = self.raw(key)?;
        match parse(value.get_ref()) {
            Ok(parsed) => {
                self.settings.push(Setting { key: Cow::Borrowed(key), value: show(&parsed), source });
                Some(parsed)
            }
            Err(text) => {
                self.wrong(key, text);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, value::flag, bool::to_string)
    }

    pub(super) fn choice<T: Choice>(&mut self, key: &'static str) -> Option<T> {
        self.read(key, value::choice::<T>, |choice| value::show_text(choice.word()))
    }

    /// A count; or anything else that is a plain number.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<T> {
        let number = self.read(key, |v| value::number(v, &range), u64::to_string)?;
        T::try_from(number).ok()
    }

    pub(super) fn millis(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, range).map(Duration::from_millis)
    }

    pub(super) fn size<T: TryFrom<u64>>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<T> {
        let bytes = self.read(key, |v| value::size(v, &range), |bytes| value::show_size(*bytes))?;
        T::try_from(bytes).ok()
    }

    pub(super) fn text(&mut self, key: &'static str, check: fn(&str) -> Result<(), String>) -> Option<String> {
        let parse = |v: &DeValue<'_>| value::string(v).and_then(|text| check(&text).map(|()| text));
        self.read(key, parse, |text| value::show_text(text))
    }

    /// Numbers of partitions, none twice: a list, or one text with commas, as the environment can give it.
    pub(super) fn partitions(&mut self, key: &'static str) -> Option<BTreeSet<i32>> {
        let show = |list: &BTreeSet<i32>| format!("{:?}", list.iter().collect::<Vec<_>>());
        self.read(key, value::partitions, show)
    }

    /// One text, or a list of them.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        example: &str,
        check: fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        match self.find(key) {
            Some((_, _, value)) if value.get_ref().is_array() => {
                let list = self.list(key, example, false, check)?;
                Some(list.into_iter().map(Spanned::into_inner).collect())
            }
            _ => Some(vec![self.text(key, check)?]),
        }
    }

    /// A list of texts, each with its place. With `commas`, one text with commas is a list too.
    /// Bad ones are told one by one; an empty list counts as wrong.
    pub(super) fn list(
        &mut self,
        key: &'static str,
        example: &str,
        commas: bool,
        check: fn(&str) -> Result<(), String>,
    ) -> Option<Vec<Spanned<String>>> {
        let (source, value) = self.raw(key)?;
        let wanted = format!("a list such as {example}");
        let elements: Vec<Spanned<DeValue<'a>>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().cloned().collect(),
            DeValue::String(text) if commas => {
                let part = |part: &str| Spanned::new(value.span(), DeValue::String(part.trim().to_owned().into()));
                text.split(',').map(part).collect()
            }
            other => {
                let text = value::wrong(other, &wanted);
                self.wrong(key, text);
                return None;
            }
        };
        if elements.is_empty() {
            self.wrong(key, format!("is empty; write {wanted}"));
            return None;
        }
        let mut texts = Vec::with_capacity(elements.len());
        let mut good = true;
        for element in elements {
            match value::string(element.get_ref()).and_then(|text| check(&text).map(|()| text)) {
                Ok(text) => texts.push(Spanned::new(element.span(), text)),
                Err(text) => {
                    good = false;
                    self.wrong_at(element.span().start, key, text);
                }
            }
        }
        let value = value::show_list(texts.iter().map(|t| t.get_ref().as_str()));
        self.settings.push(Setting { key: Cow::Borrowed(key), value, source });
        good.then_some(texts)
    }

    /// Ends the reading: what is left in the topmost layer is unknown if that one is the file's.
    /// `title` names the scope in the report.
    pub(super) fn finish(self, title: String) -> (&'c mut Context<'a>, Scope) {
        if !self.name.path.starts_with("sink.") {
            self.context.faults.home(&self.name.header, &self.known);
        }
        if let Some(Layer { origin: Origin::File { .. }, table }) = self.layers.last() {
            for key in table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
                self.context.faults.unknown(key.span().start, &self.name, key.get_ref(), &self.known);
            }
        }
        (self.context, Scope { title, settings: self.settings, unset: self.unset })
    }
}

/// Replaces `${NAME}` in a value, and in all values of a list.
fn expand(
    value: &mut Spanned<DeValue<'_>>,
    env: &dyn Fn(&str) -> Option<String>,
    bad: &mut Vec<(Range<usize>, String)>,
) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => match value::expand(text, env) {
            Ok(std::borrow::Cow::Borrowed(_)) => {}
            Ok(std::borrow::Cow::Owned(new)) => *text = new.into(),
            Err(why) => bad.push((span, why)),
        },
        DeValue::Array(array) => array.iter_mut().for_each(|element| expand(element, env, bad)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {}
    }
}
