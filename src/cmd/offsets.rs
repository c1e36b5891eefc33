//! `worker offsets show | reset | migrate`: what the groups have committed, and moving it.
//!
//! Owns the order in which that is safe: take the lock of the state directory, ask everything, show what will be done,
//! and only if every question was answered and nothing stands against it commit, and then bring the state file in line.
//! Without `--execute` nothing is changed anywhere, and no lock is taken.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::{FAILURE, OK, USAGE, ask};
use crate::cli::Offsets;
use crate::client::{Bounds, Fault, Manage, Topic, control};
use crate::config::{Config, TopicSettings};
use crate::record::TopicPartition;

mod change;
mod decide;
mod memory;
mod migrate;
mod reset;
mod show;
mod target;
pub mod time;
mod wrong;

use change::Change;
use memory::Memory;
use wrong::{Obstacle, Wrong};

/// Members of a group that are named.
const MEMBERS_TOLD: usize = 5;

/// Carries `command` out: what is found and done goes to `out`, what stands against it to `err`. Returns the exit code: 0
/// if it was done, or shown; 1 if it was refused, or the cluster can't be asked; 2 for a wrong command line or configuration.
pub fn offsets(command: &Offsets, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = match command {
        Offsets::Show(arguments) => show::show(arguments, out),
        Offsets::Reset(arguments) => reset::reset(arguments, out, err),
        Offsets::Migrate(arguments) => migrate::migrate(arguments, out, err),
    };
    match done {
        Ok(code) => code,
        // The reader has seen enough, as in `worker offsets show | head`; but what was to be changed was not.
        Err(Wrong::Output(error))
            if error.kind() == io::ErrorKind::BrokenPipe && matches!(command, Offsets::Show(_)) =>
        {
            OK
        }
        Err(wrong) => {
            // Without standard error there is nobody left to tell; the exit code still says it.
            let _ = writeln!(err, "{wrong}");
            wrong.code()
        }
    }
}

/// Reads the configuration, and finds these topics of it, or all if there are none.
fn load(path: &Path, topics: &[String]) -> Result<(Config, Vec<TopicSettings>), Wrong> {
    let config = ask::read(path, topics).map_err(Wrong::Asked)?;
    let wanted = |topic: &&TopicSettings| topics.is_empty() || topics.iter().any(|name| **name == *topic.name);
    let found = config.topics.iter().filter(wanted).cloned().collect();
    Ok((config, found))
}

fn cluster(config: &Config) -> Box<dyn Manage> {
    control::manage(Arc::new(config.kafka.connection()))
}

/// A partition, and what has to be known of it to move an offset in it.
#[derive(Clone, Debug)]
struct Part {
    name: TopicPartition,
    bounds: Bounds,
}

/// A topic that exists.
struct Present {
    settings: TopicSettings,
    topic: Topic,
    parts: Vec<Part>,
}

/// Looks all topics up, with the bounds of their partitions. Those that do not exist are returned by name: they have no
/// offsets. Any other question without an answer ends it.
fn look_up(cluster: &mut dyn Manage, topics: Vec<TopicSettings>) -> Result<(Vec<Present>, Vec<Arc<str>>), Wrong> {
    let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
    let found = cluster.topics(&names).map_err(Wrong::Cluster)?;
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for (settings, found) in topics.into_iter().zip(found) {
        match found {
            Ok(topic) => present.push(Present { settings, topic, parts: Vec::new() }),
            Err(Fault::TopicMissing { .. }) => missing.push(settings.name),
            Err(fault) => return Err(Wrong::Unanswered { what: format!("topic={}", settings.name), fault }),
        }
    }
    let all: Vec<TopicPartition> = present.iter().flat_map(|one| one.topic.partitions.iter().cloned()).collect();
    let mut bounds = cluster.bounds(&all).map_err(Wrong::Cluster)?.into_iter();
    for one in &mut present {
        for (name, bounds) in one.topic.partitions.iter().zip(&mut bounds) {
            let bounds = bounds.map_err(|fault| Wrong::Unanswered { what: name.to_string(), fault })?;
            one.parts.push(Part { name: name.clone(), bounds });
        }
    }
    Ok((present, missing))
}

/// Who is in these groups; a group that has members is an obstacle.
fn occupied(cluster: &mut dyn Manage, groups: &BTreeSet<&str>) -> Result<Vec<Obstacle>, Wrong> {
    let mut occupied = Vec::new();
    for group in groups {
        let members = cluster
            .members(group)
            .map_err(|fault| Wrong::Unanswered { what: format!("the members of group {group}"), fault })?;
        if !members.is_empty() {
            let mut told: Vec<String> = members.iter().take(MEMBERS_TOLD).map(ToString::to_string).collect();
            told.extend((members.len() > MEMBERS_TOLD).then(|| format!("and {} more", members.len() - MEMBERS_TOLD)));
            occupied.push(Obstacle::Members { group: (*group).to_owned(), members: told });
        }
    }
    Ok(occupied)
}

/// How a change is asked for.
#[derive(Clone, Copy)]
struct Manner {
    execute: bool,
    force: bool,
}

/// Carries out what was shown, if that was asked for and nothing stands against it.
fn carry_out(
    manner: Manner,
    cluster: &mut dyn Manage,
    mut changes: Vec<Change>,
    (memory, obstacles): (&Memory, Vec<Obstacle>),
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<u8, Wrong> {
    if !manner.execute {
        // Without standard error there is nobody left to tell.
        obstacles.iter().for_each(|obstacle| drop(writeln!(err, "now it would be refused: {obstacle}")));
        writeln!(out, "dry run: nothing was changed; add --execute to do it").map_err(Wrong::Output)?;
        return Ok(OK);
    }
    if !obstacles.is_empty() && !manner.force {
        return Err(Wrong::Refused(obstacles));
    }
    obstacles.iter().for_each(|obstacle| drop(writeln!(err, "forced, although {obstacle}")));
    // What was shown has to be seen before anything is done.
    out.flush().map_err(Wrong::Output)?;
    if changes.is_empty() {
        writeln!(out, "nothing to do").and_then(|()| out.flush()).map_err(Wrong::Output)?;
        return Ok(OK);
    }
    // The broker refuses a group with members itself: better before anything else is committed than half-way. That a group
    // was taken over is written last: it must never be said of one of which it is not yet true.
    let is_occupied = |change: &Change| {
        obstacles.iter().any(|one| matches!(one, Obstacle::Members { group, .. } if *group == change.group))
    };
    changes.sort_by_key(|change| (!change.moves, !is_occupied(change)));
    let result = change::commit(cluster, &changes);
    // What the groups have now is what counts, however far it came.
    let kept = memory.keep(result.as_ref().map_or_else(|half_way| half_way.done(&changes), |()| changes.clone()));
    if let Err(half_way) = result {
        kept.unwrap_or_else(|wrong| {
            let _ = writeln!(err, "{wrong}");
            Vec::new()
        });
        return Err(Wrong::HalfWay(half_way));
    }
    let kept = kept?;
    let partitions: usize = changes.iter().filter(|change| change.moves).map(|change| change.at.len()).sum();
    let mut said = format!("done: committed offsets of {partitions} partitions");
    for path in kept {
        said.push_str(&format!("; {} has them too, so that the next start goes on there", path.display()));
    }
    writeln!(out, "{said}").and_then(|()| out.flush()).map_err(Wrong::Output)?;
    Ok(OK)
}
