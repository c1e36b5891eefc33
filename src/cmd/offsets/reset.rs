//! `worker offsets reset`: another place for groups to go on from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;

use super::change::Change;
use super::memory::{Memory, Standing};
use super::target::{Moved, Target, aim};
use super::wrong::Wrong;
use super::{Manner, Part, Present, carry_out, cluster, load, look_up, occupied, time};
use crate::cli::Reset;
use crate::client::Manage;
use crate::cmd::table::{Table, or_dash};
use crate::record::{Offset, TopicPartition};

/// A partition that is reset.
struct Row {
    group: String,
    part: Part,
    before: Standing,
    after: Offset,
    moved: Moved,
    note: String,
}

pub(super) fn reset(arguments: &Reset, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Wrong> {
    let (config, topics) = load(&arguments.config, &arguments.topics)?;
    if !arguments.partition.is_empty() && topics.len() != 1 {
        return Err(Wrong::CommandLine("--partition needs exactly one --topic".to_owned()));
    }
    let Some(target) = Target::of(&arguments.to) else {
        return Err(Wrong::CommandLine("say where to: --to-earliest, --to-latest, --to-offset, …".to_owned()));
    };
    let manner = Manner { execute: arguments.execute, force: arguments.force };
    // With the lock held before the first question no worker moves what is looked at.
    let (memory, mut obstacles) = Memory::open(&config, &arguments.config, manner.execute);
    let mut cluster = cluster(&config);
    let (mut present, missing) = look_up(&mut *cluster, topics)?;
    if !arguments.all_topics && !missing.is_empty() {
        let names = missing.join(", ");
        return Err(Wrong::CommandLine(format!("there is no topic {names} in the cluster; nothing was changed")));
    }
    for topic in &missing {
        let _ = writeln!(err, "there is no topic {topic} in the cluster: it has no offsets to reset");
    }
    choose(&mut present, &arguments.partition)?;
    let rows = rows(&mut *cluster, &memory, &present, target, &arguments.partition)?;
    let groups: BTreeSet<&str> = present.iter().map(|topic| topic.settings.group.as_str()).collect();
    obstacles.extend(occupied(&mut *cluster, &groups)?);
    write!(out, "{}", text(&rows, target)).map_err(Wrong::Output)?;
    let changes = changes(&rows, &present);
    carry_out(manner, &mut *cluster, changes, (&memory, obstacles), (out, err))
}

/// Leaves only the partitions that were asked for.
fn choose(present: &mut [Present], wanted: &[i32]) -> Result<(), Wrong> {
    let Some(one) = present.first_mut().filter(|_| !wanted.is_empty()) else { return Ok(()) };
    let has = |number: &i32| one.parts.iter().any(|part| part.name.partition == *number);
    let strange: Vec<String> = wanted.iter().filter(|number| !has(number)).map(ToString::to_string).collect();
    if !strange.is_empty() {
        let last = one.parts.iter().map(|part| part.name.partition).max();
        return Err(Wrong::CommandLine(format!(
            "topic {} has no partition {}; its partitions are 0 to {}; nothing was changed",
            one.settings.name,
            strange.join(", "),
            or_dash(last)
        )));
    }
    one.parts.retain(|part| wanted.contains(&part.name.partition));
    Ok(())
}

/// Asks what is not known yet, and finds each partition's new place.
fn rows(
    cluster: &mut dyn Manage,
    memory: &Memory,
    present: &[Present],
    target: Target,
    partitions: &[i32],
) -> Result<Vec<Row>, Wrong> {
    let mut by_group: BTreeMap<&str, Vec<&Present>> = BTreeMap::new();
    for topic in present {
        by_group.entry(&topic.settings.group).or_default().push(topic);
    }
    let mut rows = Vec::new();
    for (group, topics) in by_group {
        let names: Vec<TopicPartition> =
            topics.iter().flat_map(|topic| topic.parts.iter().map(|part| part.name.clone())).collect();
        let committed = if names.is_empty() {
            Vec::new()
        } else {
            cluster
                .committed_with_metadata(group, &names)
                .map_err(|fault| Wrong::Unanswered { what: format!("the offsets of group {group}"), fault })?
        };
        let times = match target {
            Target::Time(ms) => cluster.at_time(&names, ms).map_err(Wrong::Cluster)?,
            Target::Earliest | Target::Latest | Target::Offset(_) | Target::Shift(_) => vec![Ok(None); names.len()],
        };
        let remembered = memory.of_group(group);
        let parts = topics.iter().flat_map(|topic| topic.parts.iter().map(|part| (part, topic.topic.id)));
        for (((part, id), committed), at_time) in parts.zip(committed).zip(times) {
            let at_time = at_time.map_err(|fault| Wrong::Unanswered { what: part.name.to_string(), fault })?;
            let before = Memory::standing(&remembered, &part.name, committed.as_ref(), id, part.bounds.log_start);
            if matches!(before, Standing::Anew(_)) && !partitions.is_empty() {
                return Err(Wrong::CommandLine(format!(
                    "topic {} was deleted and made anew since the worker ran last: all its partitions need a new place; \
                     leave --partition out",
                    part.name.topic
                )));
            }
            let Some((after, remark)) = aim(target, part.bounds, before.offset(), at_time) else {
                return Err(Wrong::CommandLine(format!(
                    "{} has nothing committed from which to shift; name a place, as --to-earliest does",
                    part.name
                )));
            };
            let moved = before.offset().map(|before| Moved::between(before, after, part.bounds)).unwrap_or_default();
            let notes = [before.remark().map(str::to_owned), remark.map(|remark| remark.to_string())];
            let note = notes.into_iter().flatten().collect::<Vec<_>>().join("; ");
            rows.push(Row { group: group.to_owned(), part: part.clone(), before, after, moved, note });
        }
    }
    Ok(rows)
}

fn text(rows: &[Row], target: Target) -> String {
    let mut text = String::new();
    if let Target::Time(ms) = target {
        // A String takes whatever is written to it.
        let _ = writeln!(text, "to the first record of {} ({ms}) or later", time::show(ms));
    }
    let mut table = Table::new(&[
        "GROUP",
        "TOPIC",
        "PARTITION",
        "LOG-START-OFFSET",
        "LOG-END-OFFSET",
        "BEFORE",
        "AFTER",
        "SKIPPED",
        "REPLAYED",
        "NOTE",
    ]);
    for row in rows {
        table.line(vec![
            row.group.clone(),
            row.part.name.topic.to_string(),
            row.part.name.partition.to_string(),
            row.part.bounds.log_start.to_string(),
            row.part.bounds.log_end.to_string(),
            or_dash(row.before.offset()),
            row.after.to_string(),
            or_dash(row.before.offset().map(|_| row.moved.skipped)),
            or_dash(row.before.offset().map(|_| row.moved.replayed)),
            row.note.clone(),
        ]);
    }
    let moves: Vec<Moved> = rows.iter().map(|row| row.moved).collect();
    let _ = write!(text, "{table}");
    let _ = writeln!(text, "{}", Moved::sum(&moves));
    text
}

fn changes(rows: &[Row], present: &[Present]) -> Vec<Change> {
    let mut changes: BTreeMap<&str, Change> = BTreeMap::new();
    for row in rows {
        let change = changes.entry(&row.group).or_insert_with(|| Change {
            group: row.group.clone(),
            at: Vec::new(),
            metadata: String::new(),
            ids: Vec::new(),
            moves: true,
            enter: false,
        });
        change.at.push((row.part.name.clone(), row.after));
    }
    for topic in present {
        if let (Some(change), Some(id)) = (changes.get_mut(topic.settings.group.as_str()), topic.topic.id) {
            change.ids.push((topic.settings.name.clone(), id));
        }
    }
    changes.into_values().collect()
}
