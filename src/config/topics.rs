//! `[consumer]` and the tables `[[topic]]`: the layers of each topic.
//!
//! Owns the keys that can differ from topic to topic, their limits, and the names of groups.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::discovery::{Discovery, Pattern};
use super::errors::{Faults, TableName, short};
use super::read::{Context, Layer, Origin, Reader};
use super::reading::Kafka;
use super::report::{Scope, Setting, Source};
use super::resolve::Tables;
use super::value::{self, Choice};
use super::{Mode, TopicSettings};
use crate::client::Membership;

mod table;
mod values;

use table::{TopicTable, TopicTables, topic_tables};
use values::{Values, values};

/// The names of the tables in `profiles.toml`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Profile(&'static str);

impl Choice for Profile {
    const ALL: &'static [(&'static str, Self)] = &[
        ("balanced", Self("balanced")),
        ("high-throughput", Self("high-throughput")),
        ("real-time", Self("real-time")),
    ];
}

impl Profile {
    fn layer<'a>(self, tables: &Tables<'a>, topic: bool, chosen_at: Option<usize>) -> Option<Layer<'a>> {
        let table = tables.profiles.get(self.0)?.get_ref().as_table()?;
        Some(Layer { origin: Origin::Profile { name: self.0, topic, chosen_at }, table })
    }
}

/// What `[consumer]` and `[[topic]]` give.
pub(super) struct Consumer {
    pub(super) mode: Option<Mode>,
    pub(super) group_id: Option<String>,
    /// `None` if anything is wrong.
    pub(super) topics: Option<Vec<TopicSettings>>,
    /// What holds for topics that are not listed, if there are to be such; `None` if anything is wrong.
    pub(super) discovery: Option<Option<Discovery>>,
    /// `consumer.topics`; `None` if that list itself is wrong.
    pub(super) names: Option<BTreeSet<Arc<str>>>,
    /// The report on `[consumer]`.
    pub(super) base: Scope,
    /// The reports on the topics.
    pub(super) scopes: Vec<Scope>,
}

/// `[consumer]` as it holds for a topic that has no table of its own.
struct Base<'a, 'k> {
    layers: Vec<Layer<'a>>,
    kafka: &'k Kafka,
    mode: Option<Mode>,
    group_id: Option<String>,
    values: Values,
    settings: Option<TopicSettings>,
}

/// Reads `[consumer]` and all `[[topic]]`. `sinks` are the names that a topic may use.
pub(super) fn read<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    sinks: &BTreeSet<&str>,
    kafka: &Kafka,
) -> Consumer {
    const EXAMPLE: &str = "[\"orders\"]";
    let found = tables.in_file(context, "consumer");
    let file = found.map(|(_, table)| Layer { origin: Origin::File { inherited: None }, table });
    let layers = tables.default_layer(&["consumer"]).into_iter().chain(file).collect();
    let mut reader = Reader::new(context, TableName::new("consumer"), found.map_or(0, |(at, _)| at), layers);
    let group_id = reader.text("group_id", value::plain_name);
    let group_id = reader.required("group_id", group_id, "\"my-service\"");
    let mode = reader.flag("multi_consumer_mode").map(|multi| if multi { Mode::Multi } else { Mode::Single });
    let names = reader.list("topics", EXAMPLE, false, value::topic_name);
    let patterns = Patterns::read(&mut reader);
    let names = match patterns {
        // Patterns alone are enough; a list that is wrong stays wrong.
        Ok(Some(_)) if reader.own("topics").is_none() => Some(vec![]),
        Ok(None) => reader.required("topics", names, EXAMPLE),
        Ok(Some(_)) | Err(()) => names,
    };
    if let Some(layer) = reader.choice::<Profile>("profile").and_then(|p| p.layer(tables, false, reader.own("profile")))
    {
        reader.insert_below_file(layer);
    }
    let values = values(&mut reader, sinks, kafka, None);
    let mut layers = reader.layers().to_vec();
    for layer in &mut layers {
        if let Origin::File { inherited } = &mut layer.origin {
            *inherited = Some("consumer");
        }
    }
    let (context, base_scope) = reader.finish("[consumer]".to_owned());
    let settings = values.clone().complete();
    let base = Base { layers, kafka, mode, group_id, values, settings };

    let mut of_table = topic_tables(tables, context, &base, sinks);
    shadowed(context, &of_table.patterns);
    let mut topics = Some(vec![]);
    let mut scopes = vec![];
    let mut seen = HashSet::new();
    let mut places = HashMap::new();
    for name in names.iter().flatten() {
        let line = context.lines.line(name.span().start);
        let name = name.get_ref().as_str();
        if !seen.insert(name) {
            context
                .warnings
                .push(format!("line {line}: topic {name} is listed twice in consumer.topics; it is consumed once"));
            continue;
        }
        let (topic, scope) = match of_table.named.remove(name) {
            Some(table) => {
                places.insert(name, table.at);
                (table.settings, table.scope)
            }
            None => base.topic(name, &base_scope, &of_table),
        };
        scopes.push(scope);
        topics = topics.zip(topic).map(|(mut topics, topic): (Vec<_>, _)| {
            topics.push(topic);
            topics
        });
    }
    let discovery = match (patterns, &names) {
        (Ok(patterns), Some(_)) => {
            if patterns.is_none() {
                no_topics(context, &of_table, &seen, &places);
            }
            let listed = seen.iter().map(|name| Arc::from(*name)).collect();
            match patterns {
                Some(patterns) => patterns.discovery(context, &base, of_table, listed, &mut scopes).map(Some),
                None => Some(None),
            }
        }
        _ => None,
    };
    if let (Some(topics), Some(Mode::Multi)) = (&topics, mode) {
        shared_groups(topics, &places, context);
    }
    let listed = names.as_ref().map(|_| seen.iter().map(|name| Arc::from(*name)).collect());
    let (group_id, topics) = (base.group_id, topics.filter(|_| names.is_some()));
    Consumer { mode, group_id, topics, discovery, names: listed, base: base_scope, scopes }
}

/// Tells of each `[[topic]]` with a pattern that never applies, because earlier ones have all that it fits, as far as that
/// can be known: whether one regular expression has all names of another one is not looked into.
fn shadowed(context: &mut Context<'_>, patterns: &[(Pattern, TopicTable)]) {
    for (index, (pattern, table)) in patterns.iter().enumerate() {
        let earlier = patterns.iter().take(index).find(|(earlier, _)| earlier == pattern || earlier.fits_all());
        let Some((_, earlier)) = earlier else { continue };
        let (line, first) = (context.lines.line(table.at), context.lines.line(earlier.at));
        context.warnings.push(format!(
            "line {line}: this [[topic]] never applies: the one on line {first} fits the same topics, and the first that fits is taken; \
             take one of them out, or put this one first"
        ));
    }
}

/// The tables `[[topic]]` that are for no topic, where there are no patterns. `own`: the topics with a `[[topic]]` of their
/// own name.
fn no_topics(context: &mut Context<'_>, left: &TopicTables, listed: &HashSet<&str>, own: &HashMap<&str, usize>) {
    let mut named: Vec<_> = left.named.iter().collect();
    named.sort_by_key(|(_, table)| table.at);
    for (name, table) in named {
        let text = not_consumed(&mut context.faults, name, listed.iter().copied());
        context.faults.missing(table.at, "topic.name".to_owned(), text);
    }
    for (index, (pattern, table)) in left.patterns.iter().enumerate() {
        let line = context.lines.line(table.at);
        let earlier: Vec<&Pattern> = left.patterns.iter().take(index).map(|(earlier, _)| earlier).collect();
        if earlier.iter().any(|earlier| *earlier == pattern || earlier.fits_all()) {
            // It was told.
            continue;
        }
        let mut fitting = listed.iter().filter(|name| pattern.fits(name)).peekable();
        if fitting.peek().is_none() {
            context.warnings.push(format!("line {line}: this [[topic]] fits no topic of consumer.topics"));
        } else if fitting.all(|name| own.contains_key(name) || earlier.iter().any(|earlier| earlier.fits(name))) {
            context.warnings.push(format!(
                "line {line}: this [[topic]] never applies: each topic of consumer.topics that it fits has a [[topic]] of its own \
                 name, or fits an earlier one; take it out, or put it first"
            ));
        }
    }
}

/// `topics_regex` and what belongs to it.
struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Patterns {
    /// `Err`: they are wrong, which was told.
    fn read(reader: &mut Reader<'_, '_>) -> Result<Option<Self>, ()> {
        let mut list = |key: &'static str, example: &str| {
            let texts = reader.texts(key, example, |text| Pattern::new(text).map(drop));
            match (texts, reader.own(key)) {
                (Some(texts), _) => {
                    Ok(Some(texts.iter().filter_map(|text| Pattern::new(text).ok()).collect::<Vec<_>>()))
                }
                (None, None) => Ok(None),
                (None, Some(_)) => Err(()),
            }
        };
        let include = list("topics_regex", "[\"orders-.*\", \"prices\"]");
        let exclude = list("topics_exclude_regex", "[\".*-test\"]");
        let (include, exclude) = (include?, exclude?);
        if exclude.is_some() && include.is_none() {
            let text = "does nothing without topics_regex; write that, or leave this out";
            reader.wrong("topics_exclude_regex", text.to_owned());
            return Err(());
        }
        Ok(include.map(|include| Self { include, exclude: exclude.unwrap_or_default() }))
    }

    /// What holds for the topics that are found. `None` if anything in it is wrong.
    fn discovery(
        self,
        context: &mut Context<'_>,
        base: &Base<'_, '_>,
        left: TopicTables,
        listed: BTreeSet<Arc<str>>,
        scopes: &mut Vec<Scope>,
    ) -> Option<Discovery> {
        let mut good = true;
        let mut named: Vec<_> = left.named.into_iter().collect();
        named.sort_by_key(|(_, table)| table.at);
        let mut complete = Discovery {
            include: self.include,
            exclude: self.exclude,
            listed,
            named: Default::default(),
            tables: vec![],
            rest: base.settings.clone()?,
        };
        for (name, table) in named {
            if !complete.means(&name) {
                let text = format!(
                    "is \"{}\", which is neither in consumer.topics nor meant by topics_regex; add it there, or leave it out here",
                    short(&name)
                );
                context.faults.missing(table.at, "topic.name".to_owned(), text);
                good = false;
                continue;
            }
            scopes.push(table.scope);
            match table.settings {
                Some(settings) => drop(complete.named.insert(name.into(), settings)),
                None => good = false,
            }
        }
        for (pattern, mut table) in left.patterns {
            show_group(&mut table.scope, base.group("{topic}").as_deref());
            scopes.push(table.scope);
            match table.settings {
                Some(settings) => complete.tables.push((pattern, settings)),
                None => good = false,
            }
        }
        good.then_some(complete)
    }
}

/// The text of the error about a topic that is not in `consumer.topics`.
pub(super) fn not_consumed<'n>(faults: &mut Faults, name: &str, topics: impl Iterator<Item = &'n str>) -> String {
    faults.offer(name, topics).map_or_else(
        || format!("is \"{}\", which is not in consumer.topics; add it there, or leave it out here", short(name)),
        |offer| format!("is \"{}\", which is not in consumer.topics; did you mean \"{offer}\"?", short(name)),
    )
}

/// The name of the group of a topic that has one to itself and none in its `[[topic]]`.
pub(super) fn group_of_its_own(group_id: &str, topic: &str) -> String {
    format!("{group_id}-{topic}")
}

impl Base<'_, '_> {
    fn group(&self, topic: &str) -> Option<String> {
        let group = self.group_id.as_ref()?;
        match self.mode? {
            Mode::Multi => Some(group_of_its_own(group, topic)),
            Mode::Single => Some(group.clone()),
        }
    }

    /// A topic without a table of its own name.
    fn topic(&self, name: &str, base: &Scope, tables: &TopicTables) -> (Option<TopicSettings>, Scope) {
        let group = self.group(name);
        let title = format!("topic {name}");
        let (settings, mut scope) = match tables.fitting(name) {
            Some((_, table)) => (&table.settings, Scope { title, ..table.scope.clone() }),
            None => {
                let mut scope = Scope { title, settings: base.settings.clone(), unset: vec![] };
                let of_all = ["topics", "topics_regex", "topics_exclude_regex", "multi_consumer_mode"];
                scope.settings.retain(|setting| !of_all.contains(&&*setting.key));
                let at = scope.settings.iter().position(|setting| &*setting.key == "profile").map_or(0, |at| at + 1);
                scope.settings.splice(at..at, self.kafka.setting.clone());
                let paused = Setting { key: "paused".into(), value: false.to_string(), source: Source::Default };
                scope.settings.push(paused);
                (&self.settings, scope)
            }
        };
        show_group(&mut scope, group.as_deref());
        let settings = settings.clone().zip(group);
        (settings.map(|(settings, group)| TopicSettings { name: name.into(), group, ..settings }), scope)
    }
}

/// Puts the whole name of the group in place of `group_id`.
fn show_group(scope: &mut Scope, group: Option<&str>) {
    let setting = scope.settings.iter_mut().find(|setting| setting.key == "group_id");
    if let (Some(setting), Some(group)) = (setting, group) {
        setting.value = value::show_text(group);
    }
}

/// Two consumers with one group have different topics, so they do not take each other's offsets; but
/// they are one group to Kafka, which is what the mode is meant to avoid. `places` are those of the `[[topic]]`.
fn shared_groups(topics: &[TopicSettings], places: &HashMap<&str, usize>, context: &mut Context<'_>) {
    let mut first: HashMap<&str, &TopicSettings> = HashMap::new();
    for topic in topics {
        let Some(other) = first.insert(&topic.group, topic) else { continue };
        let (group, name) = (&topic.group, &topic.name);
        let wrong = match (&other.reading.membership, &topic.reading.membership) {
            (Membership::None(_), Membership::Group { .. }) | (Membership::Group { .. }, Membership::None(_)) => {
                "and only one of them is a member of it: while a group has members, nobody else may commit to it"
            }
            (Membership::Group { instance_id: Some(a) }, Membership::Group { instance_id: Some(b) }) if a == b => {
                "and have the same group_instance_id: the one member would throw out the other"
            }
            _ => {
                context.warnings.push(format!("topics {} and {name} share the group {group}: Kafka's tools show them as one, and members of one disturb the other; give each a group_id of its own", other.name));
                continue;
            }
        };
        let at = places.get(&**name).or_else(|| places.get(&*other.name)).copied().unwrap_or(0);
        let text = format!(
            "topics {} and {name} share the group {group}, {wrong}; give each a group_id of its own",
            other.name
        );
        context.faults.add(at, "topic.group_id".to_owned(), text);
    }
}
