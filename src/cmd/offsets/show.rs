//! `worker offsets show`: each partition's committed offset beside its log and what the worker remembers.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use serde::Serialize;

use super::memory::{Memory, Standing};
use super::wrong::Wrong;
use super::{FAILURE, OK, cluster, load};
use crate::cli::Show;
use crate::client::{Fault, Topic};
use crate::cmd::table::{Table, or_dash};
use crate::record::TopicPartition;
use crate::state::Running;

#[derive(Serialize)]
struct Report {
    state: Vec<Directory>,
    partitions: Vec<Line>,
}

#[derive(Serialize)]
struct Directory {
    dir: String,
    /// `null` if that can't be learned.
    running: Option<bool>,
    text: String,
}

/// A partition, or a topic without any; `null` where there is nothing, or nothing is known.
#[derive(Serialize)]
struct Line {
    group: String,
    topic: String,
    partition: Option<i32>,
    committed_offset: Option<i64>,
    log_start_offset: Option<i64>,
    log_end_offset: Option<i64>,
    /// What the state file of this worker has.
    remembered_offset: Option<i64>,
    /// Where a worker that starts now goes on; `null`: `auto_offset_reset` decides.
    next_start: Option<i64>,
    note: String,
    /// Why something is not known.
    error: Option<String>,
}

pub(super) fn show(arguments: &Show, out: &mut dyn Write) -> Result<u8, Wrong> {
    let (config, topics) = load(&arguments.config, &arguments.topics)?;
    let (memory, _) = Memory::look(&config, &arguments.config);
    let mut cluster = cluster(&config);
    let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
    let found = cluster.topics(&names).map_err(Wrong::Cluster)?;
    let all: Vec<TopicPartition> =
        found.iter().flatten().flat_map(|topic: &Topic| topic.partitions.iter().cloned()).collect();
    let mut bounds = cluster.bounds(&all).map_err(Wrong::Cluster)?.into_iter();

    // One question for each group.
    let mut of_group: BTreeMap<&str, Vec<TopicPartition>> = BTreeMap::new();
    for (settings, found) in topics.iter().zip(&found) {
        let own = found.iter().flat_map(|topic| topic.partitions.iter().cloned());
        of_group.entry(&settings.group).or_default().extend(own);
    }
    let mut committed = BTreeMap::new();
    for (group, of) in &of_group {
        let answer = if of.is_empty() { Ok(Vec::new()) } else { cluster.committed_with_metadata(group, of) };
        match answer {
            Ok(list) => {
                committed.extend(of.iter().cloned().zip(list).map(|(of, one)| ((*group, of), Ok(one))));
            }
            Err(fault) => committed.extend(of.iter().cloned().map(|of| ((*group, of), Err(fault.clone())))),
        }
    }

    let mut lines = Vec::new();
    for (settings, found) in topics.iter().zip(found) {
        let group = settings.group.as_str();
        let topic = match found {
            Ok(topic) => topic,
            Err(fault) => {
                lines.push(Line::without(group, &settings.name, None, &fault));
                continue;
            }
        };
        let remembered = memory.of_group(group);
        for (of, bounds) in topic.partitions.iter().zip(&mut bounds) {
            let committed = committed.remove(&(group, of.clone())).unwrap_or(Ok(None));
            let (bounds, committed) = match (bounds, committed) {
                (Ok(bounds), Ok(committed)) => (bounds, committed),
                (Err(fault), _) | (_, Err(fault)) => {
                    lines.push(Line::without(group, &settings.name, Some(of.partition), &fault));
                    continue;
                }
            };
            let standing = Memory::standing(&remembered, of, committed.as_ref(), topic.id, bounds.log_start);
            let own = remembered.iter().find(|one| one.partition == *of);
            let note = match standing {
                Standing::Committed(at) if !bounds.contain(at) => "out of range: on_out_of_range decides".to_owned(),
                other => other.remark().unwrap_or_default().to_owned(),
            };
            lines.push(Line {
                group: group.to_owned(),
                topic: settings.name.to_string(),
                partition: Some(of.partition),
                committed_offset: committed.map(|committed| committed.offset.get()),
                log_start_offset: Some(bounds.log_start.get()),
                log_end_offset: Some(bounds.log_end.get()),
                remembered_offset: own.map(|one| one.offset.get()),
                next_start: standing.offset().map(|offset| offset.get()),
                note,
                error: None,
            });
        }
    }
    let state = memory.places().map(|(dir, running)| Directory {
        dir: dir.display().to_string(),
        running: match running {
            Running::Yes { .. } => Some(true),
            Running::No | Running::Never => Some(false),
            Running::Unknown { .. } => None,
        },
        text: running.to_string(),
    });
    let report = Report { state: state.collect(), partitions: lines };
    let code = if report.partitions.iter().all(|line| line.error.is_none()) { OK } else { FAILURE };
    print(&report, arguments.json, out).and_then(|()| out.flush()).map_err(Wrong::Output)?;
    Ok(code)
}

impl Line {
    fn without(group: &str, topic: &str, partition: Option<i32>, fault: &Fault) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
            committed_offset: None,
            log_start_offset: None,
            log_end_offset: None,
            remembered_offset: None,
            next_start: None,
            note: String::new(),
            error: Some(fault.to_string()),
        }
    }
}

fn print(report: &Report, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, report)?;
        return writeln!(out);
    }
    let mut table = Table::new(&[
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-START-OFFSET",
        "LOG-END-OFFSET",
        "REMEMBERED",
        "NOTE",
    ]);
    for line in &report.partitions {
        table.line(vec![
            line.group.clone(),
            line.topic.clone(),
            or_dash(line.partition),
            or_dash(line.committed_offset),
            or_dash(line.log_start_offset),
            or_dash(line.log_end_offset),
            or_dash(line.remembered_offset),
            line.error.clone().unwrap_or_else(|| line.note.clone()),
        ]);
    }
    write!(out, "{table}")?;
    for place in &report.state {
        writeln!(out, "state directory {}: {}", place.dir, place.text)?;
    }
    if report.state.is_empty() {
        writeln!(out, "no state directory: this worker has not run on this machine")?;
    }
    Ok(())
}
