//! A consumer that panics, hangs or stands still is started again and loses nothing; the others go on; and
//! what that does not help ends the process with code 70. A topic that stalls is told of with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use broker::scripted::{Mishap, Stage};
use broker::{Api, Fault as Ordered, Log, Order};
use crossbeam_channel::{Sender, bounded};
use worker::client::{Bounds, Client, Cluster, Fault, Remembered};
use worker::config::KafkaSettings;
use worker::plan::ConsumerPlan;
use worker::record::{Offset, TopicPartition};
use worker::supervisor::{CLEAN, INTERNAL, Library, Signals, Source, Stop, run_with};

use crate::support::bed::{Bed, numbered};
use crate::support::eventually;
use crate::support::worker::{Config, PATIENCE, Site, sink};

/// How long a drain may take.
const DRAIN_MS: u64 = 500;

/// Short times, as far as they go.
fn hasty(config: &Config) -> Config {
    config.clone().set("observe", "interval_ms", 100).set("watchdog", "stall_timeout_ms", 1_000)
}

/// The stages of several topics as one cluster.
#[derive(Clone)]
struct Stages(BTreeMap<String, Stage>);

impl Stages {
    fn of(&mut self, partition: &TopicPartition) -> &mut Stage {
        self.0.get_mut(&*partition.topic).unwrap()
    }
}

impl Cluster for Stages {
    fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault> {
        Ok(topics.iter().map(|topic| Ok(vec![TopicPartition::new(Arc::clone(topic), 0)])).collect())
    }

    fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault> {
        unreachable!("no topics are found by pattern")
    }

    fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
        of.iter().map(|name| Ok(self.of(name).bounds(std::slice::from_ref(name))?.remove(0))).collect()
    }

    fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        of.iter().map(|name| Ok(self.of(name).committed(group, std::slice::from_ref(name))?.remove(0))).collect()
    }

    fn commit(&mut self, _: &str, _: &[(TopicPartition, Offset)]) -> Result<(), Fault> {
        unreachable!("an observer commits nothing")
    }
}

/// The whole worker on a thread of this process, over scripted clients.
struct Scene {
    site: Site,
    stages: Stages,
    stop: Sender<Stop>,
    hangup: Sender<()>,
    thread: JoinHandle<u8>,
}

impl Scene {
    /// A consumer for each of these topics, which are empty.
    fn start(topics: &[&str]) -> Self {
        let site = Site::new();
        let text = hasty(&Config::new(&["127.0.0.1:1".to_owned()], topics));
        let text = text.set("shutdown", "drain_timeout_ms", DRAIN_MS).to_string();
        let config = worker::config::load(&site.write_config(&text)).unwrap();
        let stage = |topic: &&str| Stage::new([(TopicPartition::new(*topic, 0), Log::starting_at(0))]).0;
        let stages = Stages(topics.iter().map(|topic| ((*topic).to_owned(), stage(topic))).collect());
        let (stop, stopped) = bounded(2);
        let beside = site.path("state");
        let (of_client, of_cluster) = (stages.clone(), stages.clone());
        let library = Library {
            client: Arc::new(move |plan: &ConsumerPlan, _: &[Remembered]| -> Box<dyn Client> {
                Box::new(of_client.0[&plan.name].client())
            }),
            cluster: Arc::new(move |_: &KafkaSettings| -> Box<dyn Cluster> { Box::new(of_cluster.clone()) }),
        };
        let (hangup, reopen) = bounded(1);
        let file = site.path("consumer.toml");
        let source = Box::new(move || worker::config::load(&file));
        let run = move || {
            let source = Source { load: source, set_log_level: Box::new(|_| {}) };
            run_with(config, &beside, &Signals { stop: stopped, reopen }, source, library)
        };
        Self { site, stages, stop, hangup, thread: std::thread::spawn(run) }
    }

    /// Asks for a reload with these topics, and these lines behind them.
    fn reload(&self, topics: &[&str], more: &str) {
        let config =
            hasty(&Config::new(&["127.0.0.1:1".to_owned()], topics)).set("shutdown", "drain_timeout_ms", DRAIN_MS);
        self.site.write_config(&config.more(more).to_string());
        self.hangup.send(()).unwrap();
    }

    fn stage(&self, topic: &str) -> &Stage {
        &self.stages.0[topic]
    }

    fn append(&self, topic: &str, count: usize) {
        let append = |log: &mut Log| {
            let from = log.end();
            log.append((from..).take(count).map(numbered), broker::Codec::None);
        };
        self.stage(topic).with_log(&TopicPartition::new(topic, 0), append);
    }

    fn arrived(&self, topic: &str) -> Vec<i64> {
        sink::offsets(&self.site.records(), topic, 0)
    }

    #[track_caller]
    fn await_committed(&self, topic: &str, offset: i64) {
        eventually(&format!("{offset} of {topic} is committed"), || {
            self.stage(topic).commits().last().is_some_and(|(_, at)| *at == offset)
        });
    }

    /// Waits for the end by itself.
    #[track_caller]
    fn code(self) -> u8 {
        eventually("it ends", || self.thread.is_finished());
        self.thread.join().unwrap()
    }

    #[track_caller]
    fn stop(self) -> u8 {
        self.stop.send(Stop { name: "SIGTERM", number: 15 }).unwrap();
        self.code()
    }
}

#[test]
fn a_consumer_that_panics_is_started_again_and_goes_on_where_it_was() {
    let scene = Scene::start(&["a", "b"]);
    scene.append("a", 5);
    scene.await_committed("a", 5);
    scene.stage("a").order(Mishap::Panic("ordered by a test"));
    scene.append("a", 5);
    scene.append("b", 5);
    scene.await_committed("b", 5);
    scene.await_committed("a", 10);
    let mut arrived = scene.arrived("a");
    arrived.dedup();
    assert_eq!(arrived, (0..10).collect::<Vec<_>>());
    assert_eq!(scene.stop(), CLEAN);
}

#[test]
fn a_consumer_that_panics_again_and_again_ends_the_process() {
    let scene = Scene::start(&["a", "b"]);
    scene.append("b", 5);
    scene.await_committed("b", 5);
    for _ in 0..3 {
        scene.stage("a").order(Mishap::Panic("ordered by a test"));
        eventually("it panics", || scene.stage("a").outstanding() == 0);
    }
    scene.append("a", 5);
    scene.await_committed("a", 5);
    scene.append("b", 5);
    scene.await_committed("b", 10);
    scene.stage("a").order(Mishap::Panic("ordered by a test"));
    assert_eq!(scene.code(), INTERNAL);
}

#[test]
fn a_consumer_that_hangs_is_replaced_and_says_nothing_more_when_it_comes_back() {
    let scene = Scene::start(&["a", "b"]);
    scene.append("a", 5);
    scene.await_committed("a", 5);
    let (release, until) = bounded(0);
    scene.stage("a").order(Mishap::Hang(until));
    eventually("it hangs", || scene.stage("a").outstanding() == 0);
    scene.append("a", 5);
    scene.append("b", 5);
    scene.await_committed("b", 5);
    scene.await_committed("a", 10);
    drop(release);
    scene.append("a", 5);
    scene.await_committed("a", 15);
    assert_eq!(scene.arrived("a"), (0..15).collect::<Vec<_>>(), "each once: nothing was in flight");
    assert_eq!(scene.stop(), CLEAN);
}

/// It hangs when it is to drain: it is given up, another one takes its place, and it says nothing more.
#[test]
fn a_consumer_that_hangs_while_it_should_leave_is_given_up_and_its_place_taken() {
    let scene = Scene::start(&["a", "b"]);
    scene.append("a", 5);
    scene.await_committed("a", 5);
    let (release, until) = bounded(0);
    scene.stage("a").order(Mishap::Hang(until));
    eventually("it hangs", || scene.stage("a").outstanding() == 0);
    scene.reload(&["a", "b"], "[[topic]]\nname = 'a'\nmax_poll_records = 2");
    scene.append("a", 5);
    scene.append("b", 5);
    scene.await_committed("b", 5);
    scene.await_committed("a", 10);
    drop(release);
    scene.append("a", 5);
    scene.await_committed("a", 15);
    assert_eq!(scene.arrived("a"), (0..15).collect::<Vec<_>>(), "each once: nothing was in flight");
    assert_eq!(scene.stop(), CLEAN);
}

#[test]
fn a_consumer_that_stands_still_without_a_reason_is_started_again() {
    let scene = Scene::start(&["a"]);
    scene.append("a", 5);
    scene.await_committed("a", 5);
    scene.stage("a").order(Mishap::Silence);
    eventually("it falls silent", || scene.stage("a").outstanding() == 0);
    scene.append("a", 5);
    scene.await_committed("a", 10);
    assert_eq!(scene.stop(), CLEAN);
}

#[test]
fn a_topic_whose_sink_fails_is_told_of_with_the_sink_and_its_consumer_left_alone() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let config = hasty(&bed.config(&["t"])).set("sink.out", "path", "'/dev/full'");
    let worker = bed.started(&config);
    let line = worker.wait_words(&["WARN", "topic stalled topic=t group_id=g-t partitions=0 readable=10 "]);
    assert!(line.contains("for sink out, which fails: ") && line.contains("/dev/full"), "{line}");
    // Several rounds later it is not told again, and nobody was started again.
    let seen = bed.server.requests(Api::OffsetFetch);
    eventually("more rounds", || bed.server.requests(Api::OffsetFetch) > seen + 20);
    assert_eq!((worker.count(&["topic stalled"]), worker.count(&["consumer restarts"])), (1, 0));
}

/// No new run would help against the broker, and no new process: the other topics need this one.
#[test]
fn a_topic_that_the_broker_does_not_serve_is_told_of_and_the_others_go_on() {
    let bed = Bed::new(&["a", "b"]);
    bed.fill("a", 10);
    let order = bed.server.order(Order::new(Api::Fetch, Ordered::Hang).topic("a").always());
    let worker = bed.start(&hasty(&bed.config(&["a", "b"])).set("kafka", "request_timeout_ms", 300));
    let line = worker.wait_words(&["WARN", "topic stalled topic=a group_id=g-a partitions=0 readable=10 "]);
    assert!(line.contains("did not answer Fetch within"), "{line}");
    // Longer than a consumer may stand still for a reason of its own, and try again.
    for _ in 0..10 {
        let asked = bed.server.requests(Api::Fetch);
        assert!(bed.server.await_requests(Api::Fetch, asked + 5, PATIENCE));
        bed.fill("b", 10);
        bed.await_all("b", 0);
    }
    assert_eq!((worker.count(&["topic stalled"]), worker.count(&["consumer restarts"])), (1, 0));
    bed.server.cancel(order);
    bed.await_all("a", 0);
    bed.stop(worker);
}

#[test]
fn a_stop_does_not_wait_for_the_observers_question() {
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&hasty(&bed.config(&["t"])));
    // Only the observer asks for it after the start, until the committed offsets are read back.
    let hangs = bed.server.order(Order::new(Api::ListOffsets, Ordered::Hang).always());
    let asked = bed.server.requests(Api::ListOffsets);
    eventually("it asks", || bed.server.requests(Api::ListOffsets) > asked);
    let ended = bed.stop(worker);
    assert!(ended.lines_with(&["threads did not end in time"]).is_empty());
    assert!(ended.lines_with(&["topic stalled"]).is_empty());
    assert!(bed.server.is_pending(hangs));
}
