//! Everything that is asked of a cluster but records: the session of a client's control links, and what the observer
//! and an operator's commands ask.
//!
//! Opens wire sockets for it, because the crate `kafka` can't ask without harm: it creates a topic by asking
//! for its metadata, drops all answers when one partition fails, needs the metadata of all topics for a
//! question about a group, and repeats a commit that is not answered without an end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::client::{Assignment, Bounds, Cluster, Committed, Connection, Fault, Inspect, Manage, Member, Portion};
use crate::record::{Offset, TopicId, TopicPartition};
use crate::wire::{ClusterView, Wire};

mod coordinators;
mod inspect;
mod manage;

use coordinators::Coordinators;

/// Members of a group that are named in a line of the log.
const MEMBERS_TOLD: usize = 5;

/// What is known of one topic.
#[derive(Debug)]
pub(super) enum TopicState {
    /// It exists, under this id where the broker knows ids, with these partitions and their leaders'
    /// addresses.
    Present(Option<TopicId>, Vec<(i32, Option<String>)>),
    /// It does not exist.
    Missing,
    /// The broker did not say.
    Unknown(Fault),
}

/// The answer to a survey.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) topics: Vec<(Arc<str>, TopicState)>,
    /// Partitions that were not held before, with all that is needed to start them.
    pub(super) found: Vec<Assignment>,
    /// Those that can't be started at present.
    pub(super) unfound: Vec<(TopicPartition, Fault)>,
    /// Live members of the group that is continued, a few of them, in words.
    pub(super) members: Vec<String>,
    /// Whether the brokers serve what the client over the crate `kafka` speaks.
    pub(super) old_fetch: Result<(), Fault>,
}

/// See the module's text.
pub(super) struct Control {
    connection: Arc<Connection>,
    /// Brokers that the last metadata named, asked after the bootstrap servers.
    brokers: Vec<String>,
    /// They are those of a metadata answer, and all went well with them since.
    brokers_are_known: bool,
    leaders: HashMap<TopicPartition, Option<String>>,
    coordinators: Coordinators,
    /// What the broker that gave the last metadata serves.
    old_fetch: Result<(), Fault>,
}

/// A wire socket to a broker that can be asked.
fn open_wire(connection: &Connection, host: &str) -> Result<Wire, Fault> {
    let wire = Wire::connect_as(connection, host)?;
    wire.require()?;
    Ok(wire)
}

/// The cluster behind `connection`, for those who ask without consuming. Nothing is connected before
/// the first question; each round of questions, which begins with the topics' partitions, connects anew.
pub fn cluster(connection: Arc<Connection>) -> Box<dyn Cluster> {
    Box::new(Control::new(connection))
}

/// The same for those who also want to know why something does not move.
pub fn inspect(connection: Arc<Connection>) -> Box<dyn Inspect> {
    Box::new(Control::new(connection))
}

/// The same for those who move the offsets of groups.
pub fn manage(connection: Arc<Connection>) -> Box<dyn Manage> {
    Box::new(Control::new(connection))
}

impl Control {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let coordinators = Coordinators::new(Arc::clone(&connection));
        Self {
            connection,
            brokers: Vec::new(),
            brokers_are_known: false,
            leaders: HashMap::new(),
            coordinators,
            old_fetch: Ok(()),
        }
    }

    /// Looks the topics up, and for each partition that is not in `held` its bounds and the group's
    /// committed offset. A partition that has none at present is left for the next survey.
    pub(super) fn survey(
        &mut self,
        topics: &[Arc<str>],
        group: &str,
        held: &HashSet<TopicPartition>,
        portion: &Portion,
    ) -> Result<Survey, Fault> {
        self.coordinators.begin();
        let topics = self.look_up(topics)?;
        let mut new = Vec::new();
        for (name, state) in &topics {
            if let TopicState::Present(_, partitions) = state {
                let own = partitions.iter().filter(|(number, _)| portion.contains(*number));
                let named = own.map(|(number, _)| TopicPartition::new(Arc::clone(name), *number));
                new.extend(named.filter(|partition| !held.contains(partition)));
            }
        }
        let (mut found, mut unfound, mut members) = (Vec::new(), Vec::new(), Vec::new());
        if !new.is_empty() {
            let bounds = self.bounds(&new)?;
            let committed = self.committed(group, &new)?;
            for ((partition, bounds), committed) in new.into_iter().zip(bounds).zip(committed) {
                match bounds {
                    Ok(bounds) => {
                        found.push(Assignment { partition, committed, bounds, remembered: None, is_new: false })
                    }
                    Err(fault) => unfound.push((partition, fault)),
                }
            }
        }
        // Where nothing is committed yet the first commit tells.
        if held.is_empty() && found.iter().any(|assignment| assignment.committed.is_some()) {
            members = self.who_is_in(group);
        }
        Ok(Survey { topics, found, unfound, members, old_fetch: self.old_fetch.clone() })
    }

    /// Commits `at`, but of the partitions `first` only what the group does not have yet: what a
    /// member has committed since is committed again as it is, to learn whether the member is gone.
    /// Returns those partitions, to be started there. What the group had of `unchanged` is left as it is
    /// if somebody else has moved it. `mark` is written beside each offset.
    pub(super) fn commit_after(
        &mut self,
        group: &str,
        mut at: Vec<(TopicPartition, Offset)>,
        first: &[TopicPartition],
        unchanged: &[(TopicPartition, Offset)],
        mark: &str,
    ) -> Result<Vec<Assignment>, Fault> {
        self.coordinators.begin();
        if !unchanged.is_empty() {
            let names: Vec<TopicPartition> = unchanged.iter().map(|(name, _)| name.clone()).collect();
            let found = match self.committed(group, &names) {
                Ok(found) => found,
                Err(fault) => {
                    // The others matter more than these, which the group has for another week.
                    log::debug!("unchanged offsets not committed again group_id={group} error=\"{fault}\"");
                    at.retain(|(partition, _)| !names.contains(partition));
                    Vec::new()
                }
            };
            for ((name, ours), found) in unchanged.iter().zip(found) {
                let Some(found) = found.filter(|found| found != ours) else { continue };
                log::warn!(
                    "committed offset was moved by someone else, left as it is {name} group_id={group} found={found} \
                     ours={ours} meaning=\"the next start goes on there\""
                );
                at.retain(|(partition, _)| partition != name);
            }
            if at.is_empty() {
                return Ok(Vec::new());
            }
        }
        let mut moved = Vec::new();
        if !first.is_empty() {
            let (bounds, committed) = (self.bounds(first)?, self.committed(group, first)?);
            for ((partition, bounds), committed) in first.iter().zip(bounds).zip(committed) {
                let Some(committed) = committed else { continue };
                at.iter_mut().filter(|(name, _)| name == partition).for_each(|(_, offset)| *offset = committed);
                let committed = Some(committed);
                moved.push(Assignment {
                    partition: partition.clone(),
                    committed,
                    bounds: bounds?,
                    remembered: None,
                    is_new: false,
                });
            }
        }
        self.commit_as(group, &at, mark)?;
        Ok(moved)
    }

    /// What the group has of these partitions, asked anew.
    pub(super) fn read_back(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Fault> {
        self.coordinators.begin();
        self.committed_with_metadata(group, of)
    }

    /// Asks the leader of each partition.
    pub(super) fn ask_leaders<T>(
        &mut self,
        of: &[TopicPartition],
        ask: impl Fn(&mut Wire, &[(Arc<str>, i32)]) -> Result<Vec<Result<T, Fault>>, Fault>,
    ) -> Result<Vec<Result<T, Fault>>, Fault> {
        if of.iter().any(|p| !self.leaders.contains_key(p)) {
            let names: HashSet<_> = of.iter().map(|p| Arc::clone(&p.topic)).collect();
            self.look_up(&names.into_iter().collect::<Vec<_>>())?;
        }
        let mut answers: Vec<Result<T, Fault>> = of.iter().map(|_| Err(Fault::NoLeader)).collect();
        let mut by_leader: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, partition) in of.iter().enumerate() {
            if let Some(Some(leader)) = self.leaders.get(partition) {
                by_leader.entry(leader.clone()).or_default().push(index);
            }
        }
        for (leader, indexes) in by_leader {
            let asked: Vec<_> = indexes.iter().map(|&i| (Arc::clone(&of[i].topic), of[i].partition)).collect();
            match self.connect(&leader).and_then(|mut wire| ask(&mut wire, &asked)) {
                Ok(list) => indexes.iter().zip(list).for_each(|(&index, answer)| answers[index] = answer),
                Err(fault) => indexes.iter().for_each(|&index| answers[index] = Err(fault.clone())),
            }
        }
        Ok(answers)
    }

    /// What failed before is tried again, and the topics are looked up.
    pub(super) fn begin(&mut self, topics: &[Arc<str>]) -> Result<Vec<(Arc<str>, TopicState)>, Fault> {
        self.coordinators.begin();
        self.look_up(topics)
    }

    fn look_up(&mut self, topics: &[Arc<str>]) -> Result<Vec<(Arc<str>, TopicState)>, Fault> {
        let view = self.view(topics)?;
        self.leaders.clear();
        let mut states = Vec::with_capacity(topics.len());
        for name in topics {
            let state = match view.topics.iter().find(|t| t.name == *name) {
                None => TopicState::Missing,
                Some(topic) => match &topic.partitions {
                    Err(Fault::TopicMissing { .. }) => TopicState::Missing,
                    Err(fault) => TopicState::Unknown(fault.clone()),
                    Ok(partitions) => {
                        let list: Vec<_> = partitions.iter().map(|p| (p.partition, p.leader.clone())).collect();
                        for (number, leader) in &list {
                            self.leaders.insert(TopicPartition::new(Arc::clone(name), *number), leader.clone());
                        }
                        TopicState::Present(topic.id, list)
                    }
                },
            };
            states.push((Arc::clone(name), state));
        }
        Ok(states)
    }

    /// Whom to ask for what any broker knows, one after the other.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts = self.connection.bootstrap_servers.clone();
        hosts.extend(self.brokers.iter().filter(|b| !self.connection.bootstrap_servers.contains(b)).cloned());
        hosts
    }

    /// Who leads the partition, as the last look at the metadata had it.
    pub(super) fn leader(&self, partition: &TopicPartition) -> Option<&String> {
        self.leaders.get(partition)?.as_ref()
    }

    /// Asks one broker after the other for the metadata, until one answers.
    fn view(&mut self, topics: &[Arc<str>]) -> Result<ClusterView, Fault> {
        let (view, old_fetch) = self.ask_any(|wire| Ok((wire.metadata(topics)?, wire.require_old_fetch())))?;
        self.old_fetch = old_fetch;
        self.brokers = view.brokers.iter().map(|(_, address)| address.clone()).collect();
        self.brokers_are_known = true;
        Ok(view)
    }

    /// Asks the first broker that answers.
    fn ask_any<T>(&mut self, ask: impl Fn(&mut Wire) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut faults = Vec::new();
        for host in self.hosts() {
            match self.connect(&host).and_then(|mut wire| ask(&mut wire)) {
                Ok(answer) => return Ok(answer),
                Err(fault) => faults.push(fault),
            }
        }
        Err(most_telling(faults))
    }

    /// Who is in the group, in words; a few of them. None if that can't be learned: it is only told.
    fn who_is_in(&mut self, group: &str) -> Vec<String> {
        let mut members = self.ask_coordinator(group, |wire| wire.members(group)).unwrap_or_default();
        let more = members.len().saturating_sub(MEMBERS_TOLD);
        members.truncate(MEMBERS_TOLD);
        let told = members.iter().map(Member::to_string);
        told.chain((more > 0).then(|| format!("and {more} more"))).collect()
    }

    pub(super) fn ask_coordinator<T>(
        &mut self,
        group: &str,
        ask: impl Fn(&mut Wire) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if !self.brokers_are_known {
            // Without them the bootstrap servers are asked alone, which may do.
            let _ = self.view(&[]);
        }
        let hosts = self.hosts();
        self.coordinators.ask(&hosts, group, ask).inspect_err(|_| self.brokers_are_known = false)
    }

    pub(super) fn commit_as(
        &mut self,
        group: &str,
        at: &[(TopicPartition, Offset)],
        metadata: &str,
    ) -> Result<(), Fault> {
        let mut answer = self.ask_coordinator(group, |wire| wire.commit(group, at, metadata));
        if let Err(Fault::GroupHasMembers { members, .. }) = &mut answer {
            *members = self.who_is_in(group);
        }
        answer
    }

    pub(super) fn connect(&self, host: &str) -> Result<Wire, Fault> {
        open_wire(&self.connection, host)
    }
}

/// A round of questions begins with that for the partitions: what failed in the last one is tried again.
impl Cluster for Control {
    fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault> {
        let list = |(name, state): (Arc<str>, TopicState)| match state {
            TopicState::Missing => Err(Fault::TopicMissing { topic: name.to_string() }),
            TopicState::Unknown(fault) => Err(fault),
            TopicState::Present(_, partitions) => {
                Ok(partitions.iter().map(|(n, _)| TopicPartition::new(Arc::clone(&name), *n)).collect())
            }
        };
        Ok(self.begin(topics)?.into_iter().map(list).collect())
    }

    fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault> {
        self.ask_any(Wire::topic_names)
    }

    fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
        self.ask_leaders(of, |wire, asked| wire.bounds(asked))
    }

    fn last_stable(&mut self, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        let found = self.ask_leaders(of, |wire, asked| wire.last_stable(asked))?;
        Ok(found.into_iter().map(|stable| stable.ok().flatten()).collect())
    }

    fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        let found = self.ask_coordinator(group, |wire| wire.committed(group, of))?;
        Ok(found.into_iter().map(|committed| committed.map(|committed| committed.offset)).collect())
    }

    fn commit(&mut self, group: &str, at: &[(TopicPartition, Offset)]) -> Result<(), Fault> {
        self.commit_as(group, at, "")
    }
}

/// Of the faults of several hosts the one that tells an operator most: that something answers and
/// is the wrong thing, before that nothing does.
fn most_telling(faults: Vec<Fault>) -> Fault {
    let rank = |fault: &Fault| match fault {
        Fault::TooNew { .. } | Fault::TooOld { .. } | Fault::NoMetadata { .. } => 0,
        Fault::NotKafka { .. } => 1,
        Fault::Unreachable { .. } => 3,
        _ => 2,
    };
    let none = Fault::Unreachable {
        broker: "(none)".to_owned(),
        why: "no bootstrap server is configured".to_owned(),
        advertised: false,
    };
    faults.into_iter().min_by_key(rank).unwrap_or(none)
}
