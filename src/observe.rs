//! The observer: samples the cluster from outside the consumers, judges, and feeds the watchdog.
//!
//! Owns the thread `observe` and a link on which the cluster is asked; touches no consumer but by reading
//! what it tells of itself. Invariants:
//! - what there is to read is learnt from the cluster, not from the thread that is judged;
//! - it waits for no answer: a stop ends it at once, and an answer that does not come costs one round;
//! - a cluster that does not answer is no news here: the consumers tell it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::client::kafka::Link;
use crate::client::{Cluster, Fault};
use crate::config::Config;
use crate::consumer::Never;
use crate::plan::Plan;
use crate::progress::{Beat, Board, LaneProgress, Pulse};
use crate::sample::{self, Round, Watched};
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
#[derive(Clone, Debug)]
pub struct Settings {
    /// `observe.interval_ms`
    pub interval: Duration,
    /// How soon the first look is; each of the next waits twice as long, up to the interval.
    pub first: Duration,
    /// `watchdog.stall_timeout_ms`
    pub stall_timeout: Duration,
    /// How long a round of questions may take before it is given up.
    pub round_timeout: Duration,
    /// The consumers, in the order of the plan.
    pub consumers: Vec<Watched>,
}

impl Settings {
    /// All consumers of `plan`.
    pub fn new(config: &Config, plan: &Plan) -> Self {
        Self {
            interval: config.observe_interval,
            // Somebody may look at the page just after the start.
            first: if config.admin.is_some() { SOON.min(config.observe_interval) } else { config.observe_interval },
            stall_timeout: config.watchdog.stall_timeout,
            round_timeout: (config.kafka.connect_timeout + config.kafka.request_timeout) * QUESTIONS,
            consumers: Watched::all(plan),
        }
    }
}

/// The ends of the channels that the observer holds, and what it looks at.
pub struct Ends {
    /// Dropped at the other end when the process is to end.
    pub stop: Receiver<Never>,
    /// To the supervisor.
    pub demands: Sender<Demand>,
    /// What the consumers tell of themselves.
    pub board: Arc<Board>,
    /// What the observer tells of itself.
    pub pulse: Arc<Pulse>,
    /// What the lanes tell of themselves, by the names of their sinks.
    pub lanes: HashMap<String, Arc<LaneProgress>>,
    /// Where it is published what was seen.
    pub sights: Arc<Sights>,
    /// Told at every turn, and at least once an interval.
    pub beat: Arc<Beat>,
    /// Makes what is asked about the cluster; called on the link's thread.
    pub cluster: Arc<dyn Fn() -> Box<dyn Cluster> + Send + Sync>,
}

/// The watchdog asks for a consumer to be given up and started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its place in the plan.
    pub consumer: usize,
    /// The run that does not move.
    pub run: u32,
    /// Why.
    pub why: String,
}

/// Observes until `ends.stop` is dropped.
pub fn run(settings: &Settings, ends: Ends) {
    let Ends { stop, demands, board, pulse, lanes, sights, beat, cluster } = ends;
    let (ready_tx, ready) = bounded(1);
    let mut link: Link<Box<dyn Cluster>, Result<Round, Fault>> =
        Link::new("link:observe".to_owned(), ready_tx, move || cluster());
    let consumers = Arc::new(settings.consumers.clone());
    let mut judge = Judge::new(settings.stall_timeout, &settings.consumers);
    let (mut asked, mut wait) = (Instant::now(), settings.first);
    let mut next = asked + wait;
    loop {
        let alarm = link.deadline().map_or(next, |deadline| deadline.min(next)).min(Instant::now() + TURN);
        select! {
            recv(stop) -> _ => return,
            recv(ready) -> _ => {}
            recv(crossbeam_channel::at(alarm)) -> _ => {}
        }
        let now = Instant::now();
        beat.now();
        pulse.beat(now);
        match link.reply(now) {
            Some(Ok(Ok(round))) => {
                let lanes = lanes.iter().map(|(name, lane)| (name.as_str(), lane.get())).collect();
                let snapshots: Vec<_> = (0..consumers.len()).map(|index| board.current(index)).collect();
                let (news, wanted) = judge.round(round.clone(), &snapshots, &lanes, asked, now);
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
            for index in 0..consumers.len() {
                let progress = board.current(index);
                if let Some(reason) = verdict::stuck(&progress.snapshot(), now, settings.stall_timeout) {
                    send(&demands, Demand { consumer: index, run: progress.run(), why: reason.to_string() });
                }
            }
            if !link.is_busy() {
                asked = now;
                let consumers = Arc::clone(&consumers);
                let call = move |cluster: &mut Box<dyn Cluster>| sample::round(&mut **cluster, &consumers);
                if let Err(fault) = link.start("observe", settings.round_timeout, now, call) {
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

    #[test]
    fn a_line_for_many_topics_names_ten_and_counts_the_rest() {
        let names: Vec<Arc<str>> = (0..600).map(|n| format!("t{n}").into()).collect();
        assert_eq!(named(&names[..2]), "t0, t1");
        assert_eq!(named(&names), "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 590 others");
    }
}
