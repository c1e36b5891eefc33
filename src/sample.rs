//! One look at the cluster: for many topics at once, where they begin and end, and what their groups have.
//!
//! Owns the order of the questions and nothing else. Whoever wants to know how topics are doing asks this
//! way, so that all judge by the same numbers: the observer of a running worker, `worker lag`,
//! `worker diagnose`. A round costs one question for all topics, two for each broker that leads one of
//! their partitions, one more if something of it is behind, and one for each group.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::client::{Cluster, Fault, Isolation, Membership, Portion};
use crate::plan::{ConsumerPlan, Paused, Plan};
use crate::record::TopicPartition;
use crate::verdict::Seen;

/// A consumer, as those who only watch it know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its group.
    pub group: String,
    /// Its topics, each with the names of its sinks.
    pub topics: Vec<(Arc<str>, Vec<String>)>,
    /// Who shares their partitions.
    pub membership: Membership,
    /// It is not given what waits for an open transaction.
    pub committed_only: bool,
}

impl Watched {
    /// A consumer that is to run.
    pub fn new(plan: &ConsumerPlan) -> Self {
        let sinks = |topic: &Arc<str>| plan.sinks.get(topic).cloned().unwrap_or_default();
        let topics = plan.settings.topics.iter().map(|(name, _)| (Arc::clone(name), sinks(name))).collect();
        let committed_only = plan.fetch.isolation == Isolation::ReadCommitted && plan.reading.may_use_librdkafka();
        let membership = plan.reading.membership.clone();
        Self { group: plan.settings.group.clone(), topics, membership, committed_only }
    }

    /// A topic that is not read at present.
    pub fn paused(paused: &Paused) -> Self {
        let topics = vec![(Arc::clone(&paused.topic), paused.sinks.clone())];
        let membership = Membership::None(Portion::All);
        Self { group: paused.group.clone(), topics, membership, committed_only: false }
    }

    /// Whether the partition is this worker's. `held`: whether the worker holds it, by its own account, which
    /// decides where Kafka shares the partitions out.
    pub fn reads(&self, partition: i32, held: impl FnOnce() -> bool) -> bool {
        match &self.membership {
            Membership::None(portion) => portion.contains(partition),
            Membership::Group { .. } => held(),
        }
    }

    /// All consumers of `plan` in its order, and then what is paused.
    pub fn all(plan: &Plan) -> Vec<Self> {
        plan.consumers.iter().map(Self::new).chain(plan.paused.iter().map(Self::paused)).collect()
    }
}

/// What the cluster said of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRound {
    /// Its name.
    pub topic: Arc<str>,
    /// Its partitions, each with what was seen of it, or why nothing was. As a whole [`Fault::TopicMissing`], or why
    /// its partitions are not known.
    pub partitions: Result<Vec<Sampled>, Fault>,
}

/// A partition, and what was seen of it or why nothing was.
pub type Sampled = (TopicPartition, Result<Seen, Fault>);

/// A topic, and its partitions or why they are not known.
type Found = (Arc<str>, Result<Vec<TopicPartition>, Fault>);

/// What the cluster said in one round: for each consumer its topics, in the order in which they were asked.
pub type Round = Vec<Vec<TopicRound>>;

/// Asks for all topics in one round.
///
/// # Errors
/// No broker could be asked. What concerns one topic or one partition is inside.
pub fn round(cluster: &mut dyn Cluster, watched: &[impl Borrow<Watched>]) -> Result<Round, Fault> {
    let watched: Vec<&Watched> = watched.iter().map(Borrow::borrow).collect();
    let names: Vec<Arc<str>> = watched.iter().flat_map(|w| w.topics.iter().map(|(name, _)| Arc::clone(name))).collect();
    let mut topics = names.iter().cloned().zip(cluster.partitions(&names)?);
    // The topics of each consumer, with their partitions as far as they have any.
    let owned: Vec<Vec<Found>> =
        watched.iter().map(|watched| topics.by_ref().take(watched.topics.len()).collect()).collect();
    let all: Vec<TopicPartition> =
        owned.iter().flatten().flat_map(|(_, found)| found.iter().flatten()).cloned().collect();
    let mut bounds = cluster.bounds(&all)?.into_iter();
    let mut round = Vec::with_capacity(watched.len());
    for (watched, topics) in watched.iter().zip(owned) {
        let of: Vec<TopicPartition> = topics.iter().flat_map(|(_, found)| found.iter().flatten()).cloned().collect();
        let mut committed = match of.as_slice() {
            [] => Ok(Vec::new()),
            some => cluster.committed(&watched.group, some),
        }
        .map(Vec::into_iter);
        let mut seen = |partition: TopicPartition| {
            let bounds = bounds.next().unwrap_or(Err(Fault::NoLeader));
            // The group's answer is taken up partition by partition, be the bounds known or not.
            let committed = committed.as_mut().map(|answers| answers.next().flatten()).map_err(|fault| fault.clone());
            let seen = committed.and_then(|committed| Ok(Seen { bounds: bounds?, committed, last_stable: None }));
            (partition, seen)
        };
        let sampled = |(topic, found): Found| TopicRound {
            topic,
            partitions: found.map(|list| list.into_iter().map(&mut seen).collect()),
        };
        round.push(topics.into_iter().map(sampled).collect());
    }
    ask_for_stable(cluster, &watched, &mut round);
    Ok(round)
}

/// Asks for the last stable offsets of what seems to be behind. Without an answer they are not known.
fn ask_for_stable(cluster: &mut dyn Cluster, watched: &[&Watched], round: &mut Round) {
    let of_committed = watched.iter().zip(round).filter(|(watched, _)| watched.committed_only);
    let sampled = of_committed.flat_map(|(_, topics)| topics).flat_map(|topic| topic.partitions.iter_mut().flatten());
    let behind = sampled.filter_map(|(name, seen)| Some((name, seen.as_mut().ok()?)));
    let (names, mut behind): (Vec<TopicPartition>, Vec<&mut Seen>) =
        behind.filter(|(_, seen)| seen.readable() > 0).map(|(name, seen)| (name.clone(), seen)).unzip();
    if names.is_empty() {
        return;
    }
    match cluster.last_stable(&names) {
        Ok(stable) => behind.iter_mut().zip(stable).for_each(|(seen, stable)| seen.last_stable = stable),
        Err(fault) => log::debug!("last stable offsets are not known error=\"{fault}\""),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::client::Bounds;
    use crate::record::Offset;

    /// Topic `two` has two partitions, of which the second has no leader; `gone` does not exist; the group `away`
    /// can't be asked. What is committed is the partition's number.
    struct Scripted;

    impl Cluster for Scripted {
        fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault> {
            let of = |name: &Arc<str>| match &**name {
                "gone" => Err(Fault::TopicMissing { topic: name.to_string() }),
                "two" => Ok((0..2).map(|number| TopicPartition::new(Arc::clone(name), number)).collect()),
                _ => Ok(vec![TopicPartition::new(Arc::clone(name), 0)]),
            };
            Ok(topics.iter().map(of).collect())
        }

        fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault> {
            unreachable!("who watches knows what")
        }

        fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
            let bounds = |p: &TopicPartition| match p.partition {
                0 => Ok(Bounds { log_start: Offset::ZERO, log_end: at(p.topic.len()) }),
                _ => Err(Fault::NoLeader),
            };
            Ok(of.iter().map(bounds).collect())
        }

        fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
            match group {
                "away" => Err(Fault::Refused { call: "OffsetFetch", code: "NotCoordinator".to_owned() }),
                _ => Ok(of.iter().map(|p| Some(at(p.topic.len() - 1))).collect()),
            }
        }

        fn commit(&mut self, _: &str, _: &[(TopicPartition, Offset)]) -> Result<(), Fault> {
            unreachable!("who watches commits nothing")
        }
    }

    fn at(number: usize) -> Offset {
        Offset::new(i64::try_from(number).unwrap()).unwrap()
    }

    #[test]
    fn answers_find_their_partitions_whatever_is_missing_between_them() {
        let watch = |group: &str, topics: &[&str]| Watched {
            group: group.to_owned(),
            topics: topics.iter().map(|name| (Arc::from(*name), vec!["log".to_owned()])).collect(),
            membership: Membership::None(Portion::All),
            committed_only: false,
        };
        let watched = [watch("g", &["gone", "two", "later"]), watch("away", &["one"]), watch("last", &["fourth"])];
        let round = round(&mut Scripted, &watched).unwrap();
        let told: Vec<Vec<(String, String)>> = round
            .iter()
            .map(|topics| topics.iter().map(|t| (t.topic.to_string(), told(&t.partitions))).collect())
            .collect();
        let line = |topic: &str, told: &str| (topic.to_owned(), told.to_owned());
        assert_eq!(
            told,
            [
                vec![line("gone", "missing"), line("two", "2/3 no"), line("later", "4/5")],
                vec![line("one", "no")],
                vec![line("fourth", "5/6")]
            ]
        );
    }

    fn told(partitions: &Result<Vec<Sampled>, Fault>) -> String {
        let Ok(partitions) = partitions else { return "missing".to_owned() };
        let one = |(_, seen): &Sampled| match seen {
            Ok(seen) => format!("{}/{}", seen.committed.unwrap(), seen.bounds.log_end),
            Err(_) => "no".to_owned(),
        };
        partitions.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}
