//! What arrives from a real Kafka in the daemon's sink, and what the broker then says of its groups.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::real_kafka::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::{LONG, await_size, ranges};
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Message, Produce};
use crate::support::on::{On, Stand};
use crate::support::worker::{Config, Site, sink};
use crate::{kafka_or_skip, on_each};

on_each!(
    six_topics_arrive_once_and_in_order_with_the_default_configuration,
    kill_9_loses_nothing_of_a_million_records,
    what_the_sink_does_not_take_is_not_committed,
    alternating_codecs_arrive_complete,
    transaction_markers_are_passed_and_committed,
    a_compacted_topic_arrives_with_its_holes,
    large_records_arrive,
);

/// The topics of the service that the worker replaces.
const TOPICS: [&str; 6] = [
    "SCHEDULE-STATION-PARAM",
    "SCHEDULE-CAR-ORDER",
    "SCHEDULE-CAR-PRICE",
    "SCHEDULE-DEVICE-HOST-DCDC",
    "SCHEDULE-DEVICE-STORAGE",
    "MODULE-OUTPUT-PV_PREDICTION",
];

fn six_topics_arrive_once_and_in_order_with_the_default_configuration(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let names = TOPICS.map(Kafka::name);
    let names = names.each_ref().map(String::as_str);
    // Partitions, records of each, bytes of each record.
    let shapes = [(1, 20_000, 100), (3, 2_000, 1_000), (1, 60, 100_000), (1, 1, 12), (2, 0, 12), (2, 300, 5_000)];
    let topics: Vec<_> = names.into_iter().zip(shapes).collect();
    for (topic, (partitions, ..)) in &topics {
        tool.create(topic, &partitions.to_string(), "");
    }
    let site = Site::new();
    let worker = site.start(&format!(
        "[kafka]\nbootstrap_servers = ['{}']\nclient = '{}'\n[consumer]\ngroup_id = 'stack-charge-tcp-command-xfy'\n\
         topics = {names:?}\nsink = 'out'\n[sink.out]\ntype = 'file'\npath = '@DIR@/out.jsonl'\n",
        kafka.bootstrap, on.client
    ));
    // The default is `latest`: what is written from now on is read.
    worker.wait_started();
    for (topic, (partitions, count, size)) in &topics {
        for partition in (0..*partitions).filter(|_| *count > 0) {
            let partition = Some(partition);
            let configs = "enable.idempotence=true";
            tool.produce(&Produce { partition, size: *size, keys: "seq", configs, ..Produce::new(topic, *count) });
        }
    }
    let total: u64 = shapes.iter().map(|(partitions, count, _)| *partitions as u64 * count).sum();
    site.wait_records(usize::try_from(total).unwrap(), LONG);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));

    let records = site.records();
    assert_eq!(records.len() as u64, total, "none twice");
    for record in &records {
        let (_, (.., size)) = topics.iter().find(|(topic, _)| *topic == record.topic).unwrap();
        assert_eq!(record.text()[..12], format!("{:012}", record.offset));
        assert_eq!((record.text().len(), record.key.clone()), (*size, Some(format!("k{}", record.offset).into())));
    }
    for (topic, (partitions, count, _)) in &topics {
        for partition in 0..*partitions {
            let expected: Vec<i64> = (0..*count as i64).collect();
            assert_eq!(sink::offsets(&records, topic, partition), expected, "{topic}-{partition}");
        }
        let group = format!("stack-charge-tcp-command-xfy-{topic}");
        let text = kafka.describe_group(&group);
        println!("$ kafka-consumer-groups --describe --group {group}{text}");
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let rows: Vec<_> = rows.iter().filter(|row| row.first() == Some(&&*group)).collect();
        assert_eq!(rows.len(), usize::try_from(*partitions).unwrap(), "{text}");
        let count = count.to_string();
        for row in rows {
            assert_eq!((row[1], row[3], row[4], row[5]), (*topic, &*count, &*count, "0"), "{text}");
        }
    }
}

const PARTITIONS: usize = 2;
const EACH: u64 = 500_000;
/// Of a record of 100 bytes in a file of format `raw`.
const LINE: u64 = 101;

/// The runs of a daemon that is killed again and again, each with a file of its own.
struct Runs<'a> {
    kafka: &'a Stand,
    topic: &'a str,
    group: String,
    site: Site,
    count: usize,
    /// How far each partition has been delivered.
    reached: [u64; PARTITIONS],
    duplicates: u64,
}

impl<'a> Runs<'a> {
    fn new(kafka: &'a Stand, topic: &'a str) -> Self {
        let group = Kafka::name("killed");
        Self { kafka, topic, group, site: Site::new(), count: 0, reached: [0; PARTITIONS], duplicates: 0 }
    }

    fn config(&mut self) -> Config {
        self.count += 1;
        let path = format!("'@DIR@/run{}'", self.count);
        let config = self.kafka.config(&self.group, &[self.topic]);
        config.set("sink.out", "path", path).set("sink.out", "format", "'raw'")
    }

    fn file(&self) -> std::path::PathBuf {
        self.site.path(&format!("run{}", self.count))
    }

    fn committed(&self) -> Vec<u64> {
        let group = format!("{}-{}", self.group, self.topic);
        let of = |partition| self.kafka.committed(&group, self.topic, partition).unwrap_or(0);
        (0..PARTITIONS).map(|partition| u64::try_from(of(i32::try_from(partition).unwrap())).unwrap()).collect()
    }

    /// What the run that has ended wrote: it begins where the one before had committed, in order and
    /// without a gap, and has reached at least what is committed now.
    #[track_caller]
    fn account(&mut self, committed_before: &[u64]) {
        let committed = self.committed();
        for (partition, range) in ranges(&self.file(), PARTITIONS, EACH).into_iter().enumerate() {
            let base = partition as u64 * EACH;
            if let Some(range) = range {
                let (first, end) = (range.start - base, range.end - base);
                assert_eq!(first, committed_before[partition], "run {} begins at its group's offset", self.count);
                assert!(first <= self.reached[partition], "lost: {}..{first}", self.reached[partition]);
                self.duplicates += self.reached[partition].min(end) - first;
                self.reached[partition] = self.reached[partition].max(end);
            }
            assert!(committed[partition] <= self.reached[partition], "committed before it was written");
        }
    }

    /// Lets it run to the end, and returns how many records were delivered more than once.
    #[track_caller]
    fn finish(&mut self) -> u64 {
        let before = self.committed();
        let config = self.config();
        let worker = self.site.start(&config.to_string());
        // The group may have everything already; a stop before the first line of the log meets no handler of signals.
        worker.wait_started();
        for partition in 0..PARTITIONS {
            let (group, number) = (format!("{}-{}", self.group, self.topic), i32::try_from(partition).unwrap());
            self.kafka.await_committed(&group, self.topic, number, EACH as i64);
        }
        assert_eq!(worker.stop().code(), Some(0));
        self.account(&before);
        assert_eq!(self.reached, [EACH; PARTITIONS], "missing 0");
        self.duplicates
    }
}

fn kill_9_loses_nothing_of_a_million_records(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("million");
    kafka.tool().create(&topic, &PARTITIONS.to_string(), "");
    for partition in 0..PARTITIONS {
        let first = partition as u64 * EACH;
        let partition = Some(i32::try_from(partition).unwrap());
        // Idempotent: so the numbers are in the log in their order, none of them twice.
        let configs = "batch.size=131072;linger.ms=10;enable.idempotence=true";
        kafka.tool().produce(&Produce { partition, first, configs, ..Produce::new(&topic, EACH) });
    }
    assert_eq!(kafka.tool().bounds(&topic), [(0, EACH as i64); PARTITIONS]);

    let mut runs = Runs::new(kafka, &topic);
    let config = runs.config();
    let worker = runs.site.start(&config.to_string());
    await_size(&runs.file(), 300_000 * LINE);
    worker.kill9();
    runs.account(&[0; PARTITIONS]);
    let killed_at: u64 = runs.reached.iter().sum();
    assert!(killed_at < PARTITIONS as u64 * EACH, "it was killed in the middle");
    let duplicates = runs.finish();
    println!("kill -9 after {killed_at} of 1000000 records: missing 0, delivered twice {duplicates}");

    let seed: Option<u64> = std::env::var("WORKER_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    println!("kills at random moments: WORKER_TESTS_SEED={seed}");
    let mut random: u64 = seed | 1;
    let mut runs = Runs::new(kafka, &topic);
    let mut moments = Vec::new();
    for _ in 0..6 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_millis(random % 500);
        let before = runs.committed();
        let config = runs.config();
        let worker = runs.site.start(&config.to_string());
        // A random moment is what is wanted, not an event.
        std::thread::sleep(moment);
        worker.kill9();
        runs.account(&before);
        moments.push((moment, runs.reached.iter().sum::<u64>()));
    }
    let duplicates = runs.finish();
    println!("kill -9 after (time, records delivered): {moments:?}: missing 0, delivered twice {duplicates}");
}

fn what_the_sink_does_not_take_is_not_committed(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("full");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 1_000));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    let config = kafka.config(&group, &[&topic]);
    let full = config.clone().set("sink.out", "path", "'/dev/full'").set("shutdown", "drain_timeout_ms", 300);
    let site = Site::new();
    let worker = site.start(&full.to_string());
    worker.wait_words(&["WARN", "sink fails", "No space left on device"]);
    let ended = worker.stop();
    assert!(ended.sums(&topic).starts_with("delivered=0 committed=0 in_flight="), "{}", ended.sums(&topic));
    assert_eq!(kafka.committed(&own_group, &topic, 0), Some(0), "the first position, and nothing more");

    let worker = site.start(&config.to_string());
    kafka.await_committed(&own_group, &topic, 0, 1_000);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (0..1_000).collect::<Vec<_>>());
}

fn alternating_codecs_arrive_complete(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("alternating");
    // The others read what the crate can't, and what the broker would not convert for it.
    let more: &[&str] = if on.is_old() { &[] } else { &["lz4", "zstd"] };
    let converts = on.is_old() || on.version == Version::V4;
    kafka.tool().create(&topic, "1", if converts { "" } else { "message.downconversion.enable=false" });
    let mut end = 0;
    for (round, codec) in
        ["none", "gzip", "none", "snappy", "gzip", "snappy"].iter().chain(more).cycle().take(72).enumerate()
    {
        let (count, configs) = (1 + (round as u64 * 37) % 83, format!("compression.type={codec}"));
        let size = 12 + (round * 31) % 200;
        kafka.tool().produce(&Produce { first: end, size, configs: &configs, ..Produce::new(&topic, count) });
        end += count;
    }
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic]).to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, end as i64);
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    let numbers: Vec<u64> = records.iter().map(|record| record.text()[..12].parse().unwrap()).collect();
    assert_eq!(numbers, (0..end).collect::<Vec<_>>());
    assert_eq!(sink::offsets(&records, &topic, 0), (0..end as i64).collect::<Vec<_>>());
}

/// The `kafka` crate's Fetch 0 does not know of transactions: records of aborted ones arrive too,
/// as for a Java consumer with `isolation.level=read_uncommitted`; with librdkafka they do not. The markers are passed.
fn transaction_markers_are_passed_and_committed(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let names: Vec<String> = ["all", "from-marker", "only-marker"].map(Kafka::name).into();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    for topic in &topics {
        tool.create(topic, "1", "");
        let configs = format!("enable.idempotence=true;transactional.id={topic}");
        for (first, end) in [(0, End::Commit), (10, End::Abort), (20, End::Commit)] {
            tool.produce(&Produce { first, end, configs: &configs, ..Produce::new(topic, 10) });
        }
        // The last marker is written a moment after the producer has its answer.
        eventually("markers are at 10, 21 and 32", || tool.bounds(topic) == [(0, 33)]);
    }
    let group = Kafka::name("g");
    tool.commit(&format!("{group}-{}", topics[1]), topics[1], 0, 21).unwrap();
    tool.commit(&format!("{group}-{}", topics[2]), topics[2], 0, 32).unwrap();
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &topics).to_string());
    for topic in &topics {
        kafka.await_committed(&format!("{group}-{topic}"), topic, 0, 33);
    }
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    let isolation = if on.is_old() { "read_uncommitted" } else { "read_committed" };
    let expected: Vec<i64> = tool.read(topics[0], isolation).iter().map(|record| record.offset).collect();
    assert_eq!(sink::offsets(&records, topics[0], 0), expected);
    assert_eq!(sink::offsets(&records, topics[1], 0), (22..32).collect::<Vec<_>>());
    assert_eq!(sink::offsets(&records, topics[2], 0), [0_i64; 0]);
}

fn a_compacted_topic_arrives_with_its_holes(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let topic = Kafka::name("compacted");
    let configs = "cleanup.policy=compact;min.cleanable.dirty.ratio=0.01;delete.retention.ms=0";
    tool.create(&topic, "1", &format!("{configs};{}", kafka.segment_bytes(1_000)));
    // Two of three records overwrite each other, and holes are inside batches and of whole batches.
    for batch in 0..30 {
        let key = |n: u32| if n.is_multiple_of(3) && batch % 4 != 0 { format!("own{n}") } else { "shared".to_owned() };
        let keys: Vec<String> = (batch * 10..batch * 10 + 10).map(key).collect();
        let message = |key| Message { topic: &topic, key: Some(key), value: Some(b"value"), ..Message::default() };
        let messages: Vec<_> = keys.iter().map(|key| message(key.as_bytes())).collect();
        tool.send("", End::Plain, &messages);
    }
    let offsets = || -> Vec<i64> { tool.read(&topic, "read_committed").iter().map(|record| record.offset).collect() };
    eventually("the cleaner has been there", || offsets().len() < 120);

    for (first, group) in [(0, Kafka::name("g")), (35, Kafka::name("g"))] {
        let own_group = format!("{group}-{topic}");
        tool.commit(&own_group, &topic, 0, first).unwrap();
        let before = offsets();
        let site = Site::new();
        let worker = site.start(&kafka.config(&group, &[&topic]).to_string());
        kafka.await_committed(&own_group, &topic, 0, 300);
        assert_eq!(worker.stop().code(), Some(0));
        // The cleaner may have taken more meanwhile.
        let after = offsets();
        let delivered = sink::offsets(&site.records(), &topic, 0);
        assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
        assert!(after.iter().all(|at| *at < first || delivered.contains(at)), "{after:?} in {delivered:?}");
        assert!(delivered.iter().all(|at| *at >= first && before.contains(at)), "{delivered:?} in {before:?}");
    }
}

fn large_records_arrive(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("large");
    kafka.tool().create(&topic, "1", "max.message.bytes=8000000");
    let sizes = [100, 1_000_000, 200, 5_000_000, 300, 1_000_000, 5_000_000, 5_000_000, 100];
    for (number, size) in sizes.into_iter().enumerate() {
        let codec = if number % 2 == 0 || number == 7 { "none" } else { "gzip" };
        let configs = format!("compression.type={codec}");
        kafka.tool().produce(&Produce { first: number as u64, size, configs: &configs, ..Produce::new(&topic, 1) });
    }
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic]).to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, sizes.len() as i64);
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    assert_eq!(records.iter().map(|record| record.text().len()).collect::<Vec<_>>(), sizes);
    assert_eq!(sink::offsets(&records, &topic, 0), (0..sizes.len() as i64).collect::<Vec<_>>());
}

#[test]
fn what_the_client_cannot_read_stops_its_own_partition_only() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let names: Vec<String> = ["lz4", "zstd", "no-conversion", "plain"].map(Kafka::name).into();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let [lz4, zstd, no_conversion, plain] = topics[..] else { unreachable!() };
    for topic in [lz4, zstd, plain] {
        tool.create(topic, "2", "");
    }
    tool.create(no_conversion, "2", "message.downconversion.enable=false");
    for topic in &topics {
        for partition in [0, 1] {
            tool.produce(&Produce { partition: Some(partition), ..Produce::new(topic, 100) });
        }
    }
    for (topic, configs) in [(lz4, "compression.type=lz4"), (zstd, "compression.type=zstd")] {
        tool.produce(&Produce { first: 100, configs, ..Produce::new(topic, 50) });
    }
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &topics).to_string());
    for (topic, codec) in [(lz4, "codec=lz4"), (zstd, "codec=zstd")] {
        let line = worker.wait_words(&["ERROR", "partition fails", &format!("topic={topic} partition=0"), codec]);
        // Where the batch ends is the producer's choice: a first record may travel alone.
        assert!(line.contains("offsets 100 to 1") && line.contains("gzip, snappy or no compression"), "{line}");
    }
    for partition in ["partition=0", "partition=1"] {
        let topic = format!("topic={no_conversion}");
        worker.wait_words(&["ERROR", "partition fails", &topic, partition, "message.downconversion.enable"]);
    }
    // The others go on while these stand.
    let began = Instant::now();
    for (topic, partition) in [(lz4, 1), (zstd, 1), (plain, 0), (plain, 1)] {
        tool.produce(&Produce { partition: Some(partition), first: 100, ..Produce::new(topic, 100) });
    }
    for (topic, partition) in [(lz4, 1), (zstd, 1), (plain, 0), (plain, 1)] {
        kafka.await_committed(&format!("{group}-{topic}"), topic, partition, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "they do not wait for the others: {:?}", began.elapsed());
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.lines_with(&["partition fails"]).len(), 4, "each is told once");
    let records = site.records();
    for (topic, ends) in [(lz4, [100, 200]), (zstd, [100, 200]), (no_conversion, [0, 0]), (plain, [200, 200])] {
        for (partition, end) in (0..).zip(ends) {
            assert_eq!(sink::offsets(&records, topic, partition), (0..end).collect::<Vec<_>>(), "{topic}-{partition}");
            assert_eq!(kafka.committed(&format!("{group}-{topic}"), topic, partition), Some(end));
        }
    }
}
