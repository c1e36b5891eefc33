//! `worker offsets migrate`: from the shared group into a group a topic, and back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write;

use super::change::Change;
use super::decide::{Reason, Side, decide, is_marked, mark};
use super::memory::{Memory, Standing};
use super::target::Moved;
use super::wrong::Wrong;
use super::{Manner, Part, Present, carry_out, cluster, load, look_up, occupied};
use crate::cli::Migrate;
use crate::client::{Committed, Manage};
use crate::cmd::table::{Table, or_dash};
use crate::config::{Config, Mode};
use crate::record::{Offset, TopicId, TopicPartition};

/// A partition whose place another group takes over.
struct Row {
    part: Part,
    id: Option<TopicId>,
    source: String,
    /// What the source has.
    from: Side,
    /// The source's own commit of it, if it is that which is taken over.
    committed: Option<Offset>,
    target: String,
    /// What the target has.
    own: Side,
    after: Option<Offset>,
    reason: Reason,
    moved: Moved,
}

type Groups = HashMap<(String, TopicPartition), Option<Committed>>;

pub(super) fn migrate(arguments: &Migrate, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Wrong> {
    let (config, topics) = load(&arguments.config, &[])?;
    let manner = Manner { execute: arguments.execute, force: arguments.force };
    // With the lock held before the first question no worker moves what is looked at.
    let (memory, mut obstacles) = Memory::open(&config, &arguments.config, manner.execute);
    let mut cluster = cluster(&config);
    let (present, missing) = look_up(&mut *cluster, topics)?;
    for topic in &missing {
        let _ = writeln!(err, "there is no topic {topic} in the cluster: it has no offsets to take over");
    }
    let rows = rows(&mut *cluster, &config, &memory, &present, arguments)?;
    let groups: BTreeSet<&str> = rows.iter().flat_map(|row| [row.source.as_str(), row.target.as_str()]).collect();
    obstacles.extend(occupied(&mut *cluster, &groups)?);
    write!(out, "{}", text(&rows)).map_err(Wrong::Output)?;
    let code = carry_out(manner, &mut *cluster, changes(&rows), (&memory, obstacles), (out, err))?;
    let (mode, wanted) = match (config.mode, arguments.way.to_shared) {
        (Mode::Single, false) => ("false", "true"),
        (Mode::Multi, true) => ("true", "false"),
        (Mode::Single, true) | (Mode::Multi, false) => return Ok(code),
    };
    let line = format!(
        "consumer.multi_consumer_mode is {mode} in the configuration: set it to {wanted} before the next start"
    );
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Wrong::Output)?;
    Ok(code)
}

fn rows(
    cluster: &mut dyn Manage,
    config: &Config,
    memory: &Memory,
    present: &[Present],
    arguments: &Migrate,
) -> Result<Vec<Row>, Wrong> {
    let pairs: Vec<(&Present, String, String)> = present
        .iter()
        .map(|topic| {
            let (shared, own) = (config.group_id.clone(), config.group_of_its_own(&topic.settings));
            if arguments.way.to_shared { (topic, own, shared) } else { (topic, shared, own) }
        })
        // A topic whose own group is the shared one has nothing to take over.
        .filter(|(_, source, target)| source != target)
        .collect();
    let mut asked: BTreeMap<&str, Vec<TopicPartition>> = BTreeMap::new();
    for (topic, source, target) in &pairs {
        for group in [source, target] {
            asked.entry(group).or_default().extend(topic.parts.iter().map(|part| part.name.clone()));
        }
    }
    let mut found = Groups::new();
    for (group, of) in asked.into_iter().filter(|(_, of)| !of.is_empty()) {
        let answer = cluster
            .committed_with_metadata(group, &of)
            .map_err(|fault| Wrong::Unanswered { what: format!("the offsets of group {group}"), fault })?;
        found.extend(of.into_iter().zip(answer).map(|(of, committed)| ((group.to_owned(), of), committed)));
    }
    let mut rows = Vec::new();
    for (topic, source, target) in pairs {
        let remembered = [memory.of_group(&source), memory.of_group(&target)];
        for part in &topic.parts {
            let committed = |group: &str| found.get(&(group.to_owned(), part.name.clone())).and_then(Option::as_ref);
            let side = |group: usize, own: &str, other: &str| {
                let (committed, id, start) = (committed(own), topic.topic.id, part.bounds.log_start);
                let standing = Memory::standing(&remembered[group], &part.name, committed, id, start);
                Side { standing, taken: is_marked(committed, other) }
            };
            let (from, own) = (side(0, &source, &target), side(1, &target, &source));
            let (after, reason) = decide(from, own, arguments.source_wins);
            let moved = match (after, own.standing.offset(), from.standing.offset()) {
                // Read again by the target: what it or the source has done already.
                (Some(after), Some(own), _) if reason == Reason::TargetAhead => Moved::between(own, after, part.bounds),
                (Some(after), _, Some(from)) if reason == Reason::LowerHolds => {
                    Moved::between(from, after, part.bounds)
                }
                (Some(after), Some(own), _) if reason == Reason::SourceWins => Moved::between(own, after, part.bounds),
                _ => Moved::default(),
            };
            rows.push(Row {
                part: part.clone(),
                id: topic.topic.id,
                committed: match from.standing {
                    Standing::Committed(offset) if !from.taken => Some(offset),
                    _ => None,
                },
                source: source.clone(),
                from,
                target: target.clone(),
                own,
                after,
                reason,
                moved,
            });
        }
    }
    Ok(rows)
}

fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "SOURCE-GROUP",
        "SOURCE",
        "TARGET-GROUP",
        "BEFORE",
        "AFTER",
        "SKIPPED",
        "REPLAYED",
        "NOTE",
    ]);
    for row in rows {
        let notes = [
            Some(row.reason.to_string()),
            row.from
                .standing
                .remark()
                .filter(|_| row.from.standing != Standing::Nowhere)
                .map(|it| format!("source: {it}")),
        ];
        table.line(vec![
            row.part.name.topic.to_string(),
            row.part.name.partition.to_string(),
            row.source.clone(),
            or_dash(row.from.standing.offset()),
            row.target.clone(),
            or_dash(row.own.standing.offset()),
            or_dash(row.after),
            row.moved.skipped.to_string(),
            row.moved.replayed.to_string(),
            notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]);
    }
    let moves: Vec<Moved> = rows.iter().map(|row| row.moved).collect();
    let mut text = table.to_string();
    // A String takes whatever is written to it.
    let _ = writeln!(text, "{}", Moved::sum(&moves));
    text
}

/// First all targets get their offsets; then it is written beside those of the sources that they were taken over.
fn changes(rows: &[Row]) -> Vec<Change> {
    let mut targets: BTreeMap<&str, Change> = BTreeMap::new();
    let mut sources: BTreeMap<(&str, &str), Change> = BTreeMap::new();
    let empty = |group: &str, metadata: String, moves: bool| Change {
        group: group.to_owned(),
        at: Vec::new(),
        metadata,
        ids: Vec::new(),
        moves,
        enter: moves,
    };
    for row in rows {
        let Some(after) = row.after else { continue };
        // What it has committed itself stays as it is, with what is written beside it.
        if row.own.standing != Standing::Committed(after) {
            let change = targets.entry(&row.target).or_insert_with(|| empty(&row.target, String::new(), true));
            change.at.push((row.part.name.clone(), after));
            let topic = &row.part.name.topic;
            if let Some(id) = row.id.filter(|_| change.ids.iter().all(|(known, _)| known != topic)) {
                change.ids.push((topic.clone(), id));
            }
        }
        if let Some(committed) = row.committed.filter(|committed| after <= *committed) {
            let change = sources
                .entry((&row.source, &row.target))
                .or_insert_with(|| empty(&row.source, mark(&row.target), false));
            change.at.push((row.part.name.clone(), committed));
        }
    }
    targets.into_values().chain(sources.into_values()).collect()
}
