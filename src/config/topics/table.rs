//! The tables `[[topic]]`: what differs for one topic, or for those whose names a pattern fits.

use std::collections::{BTreeSet, HashMap};

use toml::de::DeTable;

use super::values::{one_client, values};
use super::{Base, Profile, show_group};
use crate::config::discovery::Pattern;
use crate::config::errors::TableName;
use crate::config::read::{Context, Layer, Origin, Reader};
use crate::config::report::Scope;
use crate::config::resolve::Tables;
use crate::config::{Mode, TopicSettings, value};

pub(super) struct TopicTable {
    /// The place of its name or pattern.
    pub(super) at: usize,
    /// `None` if anything in it is wrong.
    pub(super) settings: Option<TopicSettings>,
    pub(super) scope: Scope,
}

/// All of them.
#[derive(Default)]
pub(super) struct TopicTables {
    pub(super) named: HashMap<String, TopicTable>,
    /// In the order of the file. Their settings have neither name nor group.
    pub(super) patterns: Vec<(Pattern, TopicTable)>,
}

/// Which topics a table is for.
enum For {
    Name(String),
    Fitting(Pattern),
}

/// Reads every `[[topic]]`, whether `consumer.topics` has it or not, so that all errors are found.
pub(super) fn topic_tables<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    base: &Base<'a, '_>,
    sinks: &BTreeSet<&str>,
) -> TopicTables {
    let mut found = TopicTables::default();
    let Some(entry) = tables.file.get("topic") else { return found };
    let Some(list) = entry.get_ref().as_array() else {
        let text = value::wrong(entry.get_ref(), "[[topic]] in two brackets, once for each topic");
        context.faults.add(entry.span().start, "topic".to_owned(), text);
        return found;
    };
    for element in list {
        let Some(table) = element.get_ref().as_table() else {
            let text = value::wrong(element.get_ref(), "[[topic]] in two brackets, once for each topic");
            context.faults.add(element.span().start, "topic".to_owned(), text);
            continue;
        };
        let Some((whose, topic)) = topic_table(tables, context, base, sinks, (element.span().start, table)) else {
            continue;
        };
        match whose {
            For::Fitting(pattern) => found.patterns.push((pattern, topic)),
            For::Name(name) => {
                if let Some(first) = found.named.get(&name) {
                    let line = context.lines.line(first.at);
                    let text = format!(
                        "is \"{name}\", which has a [[topic]] on line {line} already; write all its keys there"
                    );
                    context.faults.add(topic.at, "topic.name".to_owned(), text);
                } else {
                    found.named.insert(name, topic);
                }
            }
        }
    }
    found
}

fn topic_table<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    base: &Base<'a, '_>,
    sinks: &BTreeSet<&str>,
    (at, table): (usize, &'a DeTable<'a>),
) -> Option<(For, TopicTable)> {
    let own = Layer { origin: Origin::File { inherited: None }, table };
    let defaults = tables.default_layer(&["topic"]);
    let below = tables.kafka_layers().into_iter().chain(base.layers.iter().copied());
    let layers = defaults.into_iter().chain(below).chain([own]).collect();
    let mut reader = Reader::new(context, TableName::topic(), at, layers);
    let name = reader.text("name", value::topic_name);
    let pattern = reader.text("regex", |text| Pattern::new(text).map(drop)).and_then(|text| Pattern::new(&text).ok());
    let by_pattern = reader.own("regex").is_some();
    if by_pattern && reader.own("name").is_some() {
        reader.wrong(
            "regex",
            "stands beside name; write one of them: a [[topic]] is for one topic, or for those that fit".to_owned(),
        );
    }
    let name = if by_pattern { name } else { reader.required("name", name, "\"orders\"") };
    let name_at = reader.place(if by_pattern { "regex" } else { "name" });
    let group_id = reader.text("group_id", value::plain_name);
    let group = match reader.own("group_id") {
        Some(_) if by_pattern => {
            let text =
                "stands beside regex, and a group is for one topic; leave it out: each has its own, GROUP_ID-TOPIC";
            reader.wrong("group_id", text.to_owned());
            None
        }
        Some(_) => group_id,
        None if by_pattern => None,
        None => name.as_deref().and_then(|name| base.group(name)),
    };
    let profile = reader.choice::<Profile>("profile").filter(|_| reader.own("profile").is_some());
    if let Some(layer) = profile.and_then(|p| p.layer(tables, true, reader.own("profile"))) {
        reader.insert_below_file(layer);
    }
    let values = values(&mut reader, sinks, base.kafka, Some(&base.values));
    let paused = reader.flag("paused").unwrap_or(false);
    if base.mode == Some(Mode::Single) {
        one_client(&mut reader, base, group.as_deref(), &values);
    }
    let title = match (&name, &pattern) {
        (_, Some(_)) => format!("topics that fit [[topic]] on line {}", reader.context.lines.line(at)),
        (name, None) => format!("topic {}", name.as_deref().unwrap_or_default()),
    };
    let (_, mut scope) = reader.finish(title);
    scope.settings.retain(|setting| setting.key != "name");
    scope.unset.retain(|key| !matches!(*key, "name" | "regex"));
    let settings = values.complete();
    let (whose, settings) = if by_pattern {
        (For::Fitting(pattern?), settings.map(|settings| TopicSettings { paused, ..settings }))
    } else {
        show_group(&mut scope, group.as_deref());
        let name = name?;
        let complete = settings.zip(group);
        let settings = complete.map(|(s, group)| TopicSettings { name: name.as_str().into(), group, paused, ..s });
        (For::Name(name), settings)
    };
    Some((whose, TopicTable { at: name_at, settings, scope }))
}

impl TopicTables {
    /// The table with a pattern that fits this topic, which has none with its name.
    pub(super) fn fitting(&self, name: &str) -> Option<&(Pattern, TopicTable)> {
        self.patterns.iter().find(|(pattern, _)| pattern.fits(name))
    }
}
