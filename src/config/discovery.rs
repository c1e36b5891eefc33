//! `topics_regex`: which topics of the cluster are meant that the file does not name, and what holds for them. Pure.
//!
//! What always holds: a topic that the file names is there once, with its own settings, whatever patterns say; no
//! topic of Kafka's own (`__consumer_offsets`) is ever meant; a topic is left only when the cluster has not had it
//! twice in a row, as a broker that comes up may not know all topics for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::{Config, DeadLetter, Mode, SinkSettings, TopicSettings, topics};
use crate::sink::kafka::Template;

/// So many topics are taken by patterns at most: each is some four threads.
pub const MOST: usize = 10_000;
/// How many times in a row a topic has to be absent.
const ABSENT: u32 = 2;
/// Of a compiled pattern, in bytes: some hundred times what a sensible one needs.
const PATTERN_MAX: usize = 1 << 20;

/// A regular expression for the whole name of a topic.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// # Errors
    /// It is no regular expression, in words.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = |why: String| {
            let shown = super::value::show_text(text);
            format!(
                "is {shown}, which is no regular expression: {why}; write one for the whole name, such as \"orders-.*\""
            )
        };
        if text.is_empty() {
            return Err("is empty; write a regular expression for the whole name, such as \"orders-.*\"".to_owned());
        }
        // By itself first: "a)(b" would be one between the brackets below.
        let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_MAX).build();
        let reason = |error: regex::Error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        };
        build(text).map_err(|error| wrong(reason(error)))?;
        let regex = build(&format!(r"\A(?:{text})\z")).map_err(|error| wrong(reason(error)))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether it is one of those that everybody writes for any name.
    pub(super) fn fits_all(&self) -> bool {
        matches!(self.text.as_str(), ".*" | ".+" | "^.*$" | "^.+$")
    }

    /// Whether the whole of `name` fits.
    pub fn fits(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

/// What holds for topics that the file does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `consumer.topics_regex`; at least one.
    pub(super) include: Vec<Pattern>,
    /// `consumer.topics_exclude_regex`
    pub(super) exclude: Vec<Pattern>,
    /// `consumer.topics`
    pub(super) listed: BTreeSet<Arc<str>>,
    /// The `[[topic]]` with names that are not listed; name and group are complete.
    pub(super) named: BTreeMap<Arc<str>, TopicSettings>,
    /// The `[[topic]]` with patterns, in the order of the file. Name and group are empty, as in `rest`.
    pub(super) tables: Vec<(Pattern, TopicSettings)>,
    /// What holds for all others.
    pub(super) rest: TopicSettings,
}

impl Discovery {
    /// Whether a topic of this name is meant, listed or not.
    pub fn means(&self, name: &str) -> bool {
        let fits = |pattern: &Pattern| pattern.fits(name);
        !name.starts_with("__") && self.include.iter().any(fits) && !self.exclude.iter().any(fits)
    }

    /// The settings that a topic may come to have.
    pub fn all(&self) -> impl Iterator<Item = &TopicSettings> {
        self.named.values().chain(self.tables.iter().map(|(_, settings)| settings)).chain([&self.rest])
    }

    /// The same, to be changed.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut TopicSettings> {
        let tables = self.tables.iter_mut().map(|(_, settings)| settings);
        self.named.values_mut().chain(tables).chain([&mut self.rest])
    }

    fn settings(&self, name: &Arc<str>, group: String, came_later: bool) -> TopicSettings {
        if let Some(own) = self.named.get(name) {
            return TopicSettings { came_later, ..own.clone() };
        }
        let table = self.tables.iter().find(|(pattern, _)| pattern.fits(name));
        let settings = table.map_or(&self.rest, |(_, settings)| settings).clone();
        TopicSettings { name: Arc::clone(name), group, came_later, ..settings }
    }
}

/// The topics of the cluster, as they were listed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Each with how many times in a row it was absent since.
    names: BTreeMap<Arc<str>, u32>,
    /// Those that were not in the first list: whatever they hold was written since.
    later: BTreeSet<Arc<str>>,
    listed: bool,
}

impl Listing {
    /// Takes what the cluster has now.
    pub fn take(&mut self, now: BTreeSet<Arc<str>>) {
        let first = !std::mem::replace(&mut self.listed, true);
        for (name, absent) in &mut self.names {
            *absent = if now.contains(name) { 0 } else { *absent + 1 };
        }
        let gone: Vec<Arc<str>> =
            self.names.iter().filter(|(_, absent)| **absent >= ABSENT).map(|(name, _)| Arc::clone(name)).collect();
        for name in gone {
            self.names.remove(&name);
            self.later.remove(&name);
        }
        for name in now {
            if !self.names.contains_key(&name) {
                if !first {
                    self.later.insert(Arc::clone(&name));
                }
                self.names.insert(name, 0);
            }
        }
    }

    /// Whether there was a list yet.
    pub fn is_known(&self) -> bool {
        self.listed
    }
}

impl Config {
    /// The same with those topics of `listing` that its patterns mean, in place of what was found before. The second:
    /// how many were left out, as they are more than [`MOST`].
    #[must_use]
    pub fn with_found(mut self, listing: &Listing) -> (Self, usize) {
        let Some(discovery) = &self.discovery else { return (self, 0) };
        self.topics.retain(|topic| discovery.listed.contains(&topic.name));
        // What is written here would be read here, and written once more.
        let written: Vec<&Template> = self.written_topics().collect();
        let is_new = |name: &&Arc<str>| !discovery.listed.contains(*name) && discovery.means(name);
        let meant = || {
            listing.names.keys().filter(is_new).filter(|name| !written.iter().any(|template| template.could_make(name)))
        };
        let left_out = meant().count().saturating_sub(MOST);
        let found = meant().take(MOST).map(|name| {
            let group = match self.mode {
                Mode::Multi => topics::group_of_its_own(&self.group_id, name),
                Mode::Single => self.group_id.clone(),
            };
            discovery.settings(name, group, listing.later.contains(name))
        });
        let found: Vec<TopicSettings> = found.collect();
        self.topics.extend(found);
        (self, left_out)
    }

    /// The topics of the same cluster that are written to.
    fn written_topics(&self) -> impl Iterator<Item = &Template> {
        let sinks = self.sinks.values().filter_map(|sink| match sink {
            SinkSettings::Kafka(settings) => Some(&**settings),
            _ => None,
        });
        let letters = self.dead_letter.iter().filter_map(|to| match to {
            DeadLetter::Topic(settings) => Some(&**settings),
            DeadLetter::File(_) => None,
        });
        sinks.chain(letters).filter(|settings| settings.same_cluster).map(|settings| &settings.topic)
    }

    /// The settings of all topics that there are, or may come to be.
    pub fn possible_topics(&self) -> impl Iterator<Item = &TopicSettings> {
        self.topics.iter().chain(self.discovery.iter().flat_map(Discovery::all))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(consumer: &str, more: &str) -> Config {
        let text = format!("[kafka]\nbootstrap_servers = 'b:1'\n[consumer]\ngroup_id = 'g'\n{consumer}\n{more}");
        crate::config::parse(&text, &|_| None).unwrap()
    }

    fn listing(lists: &[&[&str]]) -> Listing {
        let mut listing = Listing::default();
        for list in lists {
            listing.take(list.iter().map(|name| Arc::from(*name)).collect());
        }
        listing
    }

    fn found(config: &Config, lists: &[&[&str]]) -> Vec<(String, String, bool)> {
        let (config, _) = config.clone().with_found(&listing(lists));
        config.topics.iter().map(|one| (one.name.to_string(), one.sinks.join("+"), one.came_later)).collect()
    }

    fn row(name: &str, sink: &str, came_later: bool) -> (String, String, bool) {
        (name.to_owned(), sink.to_owned(), came_later)
    }

    #[test]
    fn the_whole_name_has_to_fit_and_kafkas_own_never_do() {
        let config = config("topics_regex = ['a|b', '.*-x']\ntopics_exclude_regex = 'no-.*'", "");
        let all = ["a", "ab", "b", "ba", "q-x", "no-x", "__a-x", "__consumer_offsets"];
        let rows = [row("a", "log", false), row("b", "log", false), row("q-x", "log", false)];
        assert_eq!(found(&config, &[&all]), rows);
        assert_eq!(config.topics, []);
        assert_eq!(config.clone().with_found(&listing(&[&all])).0.topics[0].group, "g-a");
    }

    #[test]
    fn a_name_goes_over_a_pattern_and_the_first_pattern_over_the_next() {
        let text = "[[topic]]\nname = 'a-1'\nsink = 'drop'\n[[topic]]\nregex = 'a-.*'\nsink = 'stdout'\n\
                    [[topic]]\nregex = '.*'\nsink = ['drop', 'log']\n";
        let config = config("topics = ['a-0', 'z']\ntopics_regex = '.*'", text);
        let rows = [
            row("a-0", "stdout", false),
            row("z", "drop+log", false),
            row("a-1", "drop", false),
            row("a-2", "stdout", false),
            row("b", "drop+log", false),
        ];
        assert_eq!(found(&config, &[&["a-0", "a-1", "a-2", "b", "z"]]), rows);
        assert_eq!(found(&config, &[&[]]), rows[..2], "listed ones are there, whatever the cluster has");
    }

    #[test]
    fn what_comes_later_is_known_and_what_is_absent_twice_is_left() {
        let config = config("topics_regex = '.'", "");
        assert_eq!(found(&config, &[&["a"], &["a", "b"]]), [row("a", "log", false), row("b", "log", true)]);
        assert_eq!(found(&config, &[&["a"], &[]]), [row("a", "log", false)]);
        assert_eq!(found(&config, &[&["a"], &[], &["a"], &[]]), [row("a", "log", false)]);
        assert_eq!(found(&config, &[&["a"], &[], &[]]), []);
        assert_eq!(found(&config, &[&["a"], &[], &[], &["a"]]), [row("a", "log", true)], "it was made anew");
    }

    /// What a sink writes to on the same cluster is no topic to be found; nor is that of dead letters.
    #[cfg(feature = "librdkafka")]
    #[test]
    fn what_is_written_here_is_not_found() {
        let config = config(
            "topics_regex = '.*'\nsink = 'copy'\non_failure = 'dead_letter'",
            "[sink.copy]\ntype = 'kafka'\ntopic = 'copy-of-{topic}'\n[dead_letter]\ntopic = 'dead.letters'\n",
        );
        let all = ["a", "copy-of-a", "copy-of-copy-of-a", "copy-of-", "dead.letters", "dead-letters"];
        let names = |rows: Vec<(String, String, bool)>| rows.into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        assert_eq!(names(found(&config, &[&all])), ["a", "copy-of-", "dead-letters"]);
    }

    #[test]
    fn there_is_a_limit() {
        let config = config("topics_regex = '.*'", "");
        let mut listing = Listing::default();
        listing.take((0..MOST + 7).map(|number| Arc::from(number.to_string())).collect());
        let (config, left_out) = config.with_found(&listing);
        assert_eq!((config.topics.len(), left_out), (MOST, 7));
    }

    #[test]
    fn what_is_no_pattern_is_told_in_a_line() {
        for (text, words) in [
            ("", "is empty"),
            ("a(", "unclosed group"),
            ("a)(b", "unopened group"),
            ("(?=x)", "look-around"),
            ("(a{1000}){1000}", "size limit"),
        ] {
            let why = Pattern::new(text).unwrap_err();
            assert!(why.contains(words) && !why.contains('\n'), "{text}: {why}");
        }
    }
}
