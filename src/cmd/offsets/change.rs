//! Committing new offsets to groups, one after the other, and what is known when that fails on the way.

use std::fmt;
use std::sync::Arc;

use crate::client::{Fault, Manage};
use crate::cmd::table::{Table, or_dash};
use crate::record::{Offset, TopicId, TopicPartition};

/// What one group is given.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) group: String,
    /// Never empty.
    pub(super) at: Vec<(TopicPartition, Offset)>,
    /// What is written beside each offset.
    pub(super) metadata: String,
    /// The ids of the topics, where the broker knows ids.
    pub(super) ids: Vec<(Arc<str>, TopicId)>,
    /// The group goes on elsewhere than before; if not, only the metadata are new.
    pub(super) moves: bool,
    /// The state file is to have it even if it knew nothing of the group so far.
    pub(super) enter: bool,
}

/// A commit that failed, and what each partition has since.
#[derive(Debug)]
pub(super) struct HalfWay {
    fault: Fault,
    group: String,
    /// Of each change of offsets, in its order: the group, the partition, what it was to have, what it has.
    now: Vec<Result<Now, Unknown>>,
}

#[derive(Debug)]
struct Now {
    group: String,
    partition: TopicPartition,
    wanted: Offset,
    has: Option<Offset>,
}

/// A group that could not be asked either.
#[derive(Debug)]
struct Unknown {
    group: String,
    fault: Fault,
}

/// Commits all of it, until one fails; then looks at what the groups have.
pub(super) fn commit(cluster: &mut dyn Manage, changes: &[Change]) -> Result<(), HalfWay> {
    for change in changes {
        if let Err(fault) = cluster.commit_with_metadata(&change.group, &change.at, &change.metadata) {
            return Err(look(cluster, changes, fault, &change.group));
        }
    }
    Ok(())
}

fn look(cluster: &mut dyn Manage, changes: &[Change], fault: Fault, group: &str) -> HalfWay {
    // Begins a new round, in which hosts that failed are asked again; that it may fail shows below.
    let _ = cluster.topics(&[]);
    let mut now = Vec::new();
    for change in changes.iter().filter(|change| change.moves) {
        let of: Vec<TopicPartition> = change.at.iter().map(|(partition, _)| partition.clone()).collect();
        match cluster.committed(&change.group, &of) {
            Err(fault) => now.push(Err(Unknown { group: change.group.clone(), fault })),
            Ok(found) => now.extend(change.at.iter().zip(found).map(|((partition, wanted), has)| {
                Ok(Now { group: change.group.clone(), partition: partition.clone(), wanted: *wanted, has })
            })),
        }
    }
    HalfWay { fault, group: group.to_owned(), now }
}

impl HalfWay {
    /// Of `changes` what the groups have taken.
    pub(super) fn done(&self, changes: &[Change]) -> Vec<Change> {
        let has = |group: &str, of: &TopicPartition, wanted: Offset| {
            let same = |now: &&Now| now.group == group && now.partition == *of;
            self.now.iter().flatten().find(same).is_some_and(|now| now.has == Some(wanted))
        };
        let taken = |change: &Change| {
            let at = change.at.iter().filter(|(of, wanted)| has(&change.group, of, *wanted)).cloned().collect();
            Change { at, ..change.clone() }
        };
        changes.iter().map(taken).filter(|change| !change.at.is_empty()).collect()
    }
}

impl fmt::Display for HalfWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the commit to group {} failed: {}", self.group, self.fault)?;
        let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "WANTED", "HAS-NOW", ""]);
        let mut unknown = Vec::new();
        let mut missing = 0;
        for now in &self.now {
            match now {
                Ok(now) => {
                    let done = now.has == Some(now.wanted);
                    missing += usize::from(!done);
                    table.line(vec![
                        now.group.clone(),
                        now.partition.topic.to_string(),
                        now.partition.partition.to_string(),
                        now.wanted.to_string(),
                        or_dash(now.has),
                        if done { "done" } else { "not done" }.to_owned(),
                    ]);
                }
                Err(unknown_group) => unknown.push(unknown_group),
            }
        }
        write!(f, "{table}")?;
        for Unknown { group, fault } in &unknown {
            writeln!(f, "what group {group} has is not known: {fault}")?;
        }
        if missing == 0 && unknown.is_empty() {
            f.write_str("all groups have what they were to have; run this again to complete it")
        } else {
            f.write_str("these offsets hold now; look at them with `worker offsets show` before this is run again")
        }
    }
}
