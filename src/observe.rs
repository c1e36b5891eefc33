//! The observer: samples the cluster from outside the consumers, judges, and feeds the watchdog.
//!
//! Owns the thread `observe` and a link on which the cluster is asked; touches no consumer but by reading
//! what it tells of itself. Invariants:
//! - what there is to read is learnt from the cluster, not from the thread that is judged;
//! - it waits for no answer: a stop ends it at once, and an answer that does not come costs one round;
//! - a cluster that does not answer is no news here: the consumers tell it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::client::link::Link;
use crate::client::{Cluster, Fault};
use crate::config::{Config, KafkaSettings};
use crate::consumer::Never;
use crate::progress::{Board, Entry, Pulse, State};
use crate::record::TopicPartition;
use crate::sample::{self, TopicRound};
use crate::verdict;

mod judge;
pub mod sight;

use judge::{Judge, News};
use sight::Sights;

/// How many topics a line names when the same holds for many.
const NAMED: usize = 10;
/// How often its loop turns at least, to show that it does.
const TURN: Duration = Duration::from_secs(1);
/// One round asks for topics, log starts, log ends and groups: each of these may have to wait once for a
/// host that does not answer.
const QUESTIONS: u32 = 4;

/// When the first look is, if it can be seen from outside.
const SOON: Duration = Duration::from_secs(1);

/// What is observed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `observe.interval_ms`
    pub interval: Duration,
    /// How soon the first look is; each of the next waits twice as long, up to the interval.
    pub first: Duration,
    /// `watchdog.stall_timeout_ms`
    pub stall_timeout: Duration,
    /// How the brokers are reached.
    pub kafka: KafkaSettings,
}

impl Settings {
    /// What `config` says of it.
    pub fn new(config: &Config) -> Self {
        Self {
            interval: config.observe_interval,
            // Somebody may look at the page just after the start.
            first: if config.admin.is_some() { SOON.min(config.observe_interval) } else { config.observe_interval },
            stall_timeout: config.watchdog.stall_timeout,
            kafka: config.kafka.clone(),
        }
    }

    /// How long a round of questions may take before it is given up.
    fn round_timeout(&self) -> Duration {
        (self.kafka.connect_timeout + self.kafka.request_timeout) * QUESTIONS
    }
}

/// The ends of the channels that the observer holds, and what it looks at.
pub struct Ends {
    /// Dropped at the other end when it is to end.
    pub stop: Receiver<Never>,
    /// To the supervisor.
    pub demands: Sender<Demand>,
    /// Who there is, and what they tell of themselves.
    pub board: Arc<Board>,
    /// Where it is published what was seen.
    pub sights: Arc<Sights>,
    /// What the observer tells of itself.
    pub pulse: Arc<Pulse>,
    /// Makes what is asked about the cluster; called on the link's thread.
    pub cluster: Arc<dyn Fn() -> Box<dyn Cluster> + Send + Sync>,
}

/// The watchdog asks for a consumer to be given up and started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its number on the board.
    pub consumer: usize,
    /// The run that does not move.
    pub run: u32,
    /// Why.
    pub why: String,
}

/// What the cluster said in one round of those consumers that were there when it was asked.
type Round = Vec<Asked>;

/// What it said of one consumer, by its number.
#[derive(Clone)]
struct Asked {
    consumer: usize,
    seen: Vec<TopicRound>,
}

/// Observes until `ends.stop` is dropped.
pub fn run(settings: &Settings, ends: Ends) {
    let Ends { stop, demands, board, sights, pulse, cluster } = ends;
    let (ready_tx, ready) = bounded(1);
    let mut link: Link<Box<dyn Cluster>, Result<Round, Fault>> =
        Link::new("link:observe".to_owned(), ready_tx, move || cluster());
    let mut judge = Judge::new(settings.stall_timeout);
    let (mut asked, mut wait) = (Instant::now(), settings.first);
    let mut next = asked + wait;
    sights.begin(settings.interval);
    loop {
        let alarm = link.deadline().map_or(next, |deadline| deadline.min(next)).min(Instant::now() + TURN);
        select! {
            recv(stop) -> _ => return,
            recv(ready) -> _ => {}
            recv(crossbeam_channel::at(alarm)) -> _ => {}
        }
        let now = Instant::now();
        pulse.beat(now);
        match link.reply(now) {
            Some(Ok(Ok(round))) => {
                let (news, wanted) = judge.round(round.clone(), &board.entries(), &board.lanes(), asked, now);
                tell(news);
                sights.set(sight::after(&sights.newest(), round, judge.take_judged(), asked));
                wanted.into_iter().for_each(|demand| send(&demands, demand));
            }
            Some(Ok(Err(fault)) | Err(fault)) => {
                log::debug!("the cluster was not observed error=\"{fault}\"");
                sights.fail(fault, now);
            }
            None => {}
        }
        if now >= next {
            wait = (wait * 2).min(settings.interval);
            next = now + wait;
            let entries = board.entries();
            for Entry { consumer, progress, .. } in &entries {
                if let Some(reason) = verdict::stuck(&progress.snapshot(), now, settings.stall_timeout) {
                    send(&demands, Demand { consumer: *consumer, run: progress.run(), why: reason.to_string() });
                }
            }
            if !link.is_busy() {
                asked = now;
                let call = move |cluster: &mut Box<dyn Cluster>| sample(&mut **cluster, &entries);
                if let Err(fault) = link.start("observe", settings.round_timeout(), now, call) {
                    log::debug!("the cluster is not observed error=\"{fault}\"");
                }
            }
        }
    }
}

fn send(demands: &Sender<Demand>, demand: Demand) {
    // Full: the supervisor has enough to do, and the next round asks again.
    let _ = demands.try_send(demand);
}

/// Asks for all topics in one round.
fn sample(cluster: &mut dyn Cluster, entries: &[Entry]) -> Result<Round, Fault> {
    let watched: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.watched)).collect();
    let round = sample::round(cluster, &watched)?;
    let asked = |(entry, seen): (&Entry, Vec<TopicRound>)| Asked { consumer: entry.consumer, seen: own(entry, seen) };
    Ok(entries.iter().zip(round).map(asked).collect())
}

/// Without the partitions that other workers read: they are judged there, and count there.
fn own(entry: &Entry, mut seen: Vec<TopicRound>) -> Vec<TopicRound> {
    let snapshot = entry.progress.snapshot();
    let held = |partition: &TopicPartition| snapshot.part(partition).is_some_and(|part| part.state != State::Gone);
    for partitions in seen.iter_mut().filter_map(|topic| topic.partitions.as_mut().ok()) {
        partitions.retain(|(partition, _)| entry.watched.reads(partition.partition, || held(partition)));
    }
    seen
}

/// Writes what an operator must know; what is the same for many topics, once.
fn tell(news: Vec<News>) {
    let mut alike: Vec<(News, Vec<Arc<str>>)> = Vec::new();
    for one in news {
        let topic = Arc::clone(one.topic());
        match alike.iter_mut().find(|(first, _)| first.is_like(&one)) {
            Some((_, topics)) => topics.push(topic),
            None => alike.push((one, vec![topic])),
        }
    }
    for (first, topics) in alike {
        let more = match topics.len() {
            1 => String::new(),
            count => format!(" and_{}_more=\"{}\"", count - 1, named(&topics[1..])),
        };
        log::log!(first.level(), "{first}{more}");
    }
}

fn named(topics: &[Arc<str>]) -> String {
    let names: Vec<&str> = topics.iter().take(NAMED).map(|name| &**name).collect();
    let rest = topics.len().saturating_sub(NAMED);
    if rest == 0 { names.join(", ") } else { format!("{} and {rest} others", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Membership, Portion};
    use crate::progress::Phase;
    use crate::sample::Watched;

    #[test]
    fn partitions_of_other_workers_are_left_out() {
        let left = |membership: Membership| {
            let (board, counts) = (Board::default(), Arc::default());
            let watched = Watched {
                group: "g".to_owned(),
                topics: vec![("t".into(), vec!["log".to_owned()])],
                membership,
                committed_only: false,
            };
            board.add(0, watched, Phase::Waiting, &counts);
            let sampled = |number| (TopicPartition::new("t", number), Err(Fault::NoLeader));
            let seen = TopicRound { topic: "t".into(), partitions: Ok((0..4).map(sampled).collect()) };
            let own = own(&board.entries()[0], vec![seen]);
            own[0].partitions.iter().flatten().map(|(partition, _)| partition.partition).collect::<Vec<_>>()
        };
        assert_eq!(left(Membership::None(Portion::All)), [0, 1, 2, 3]);
        assert_eq!(left(Membership::None(Portion::Instance { number: 2, of: 2 })), [1, 3]);
        assert_eq!(left(Membership::None(Portion::Partitions([3, 9].into()))), [3]);
        assert_eq!(left(Membership::Group { instance_id: None }), [0_i32; 0], "nothing is held yet");
    }

    #[test]
    fn a_line_for_many_topics_names_ten_and_counts_the_rest() {
        let names: Vec<Arc<str>> = (0..600).map(|n| format!("t{n}").into()).collect();
        assert_eq!(named(&names[..2]), "t0, t1");
        assert_eq!(named(&names), "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 590 others");
    }
}
