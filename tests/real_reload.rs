//! A reload on a real Kafka, under load: nothing is missing, nothing comes twice, and a paused topic's group
//! keeps its offset, as Kafka's own tool shows it.

use std::collections::BTreeMap;

#[cfg(feature = "librdkafka")]
use crate::kafka_or_skip;
use crate::on_each;
use crate::support::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Flow;
#[cfg(feature = "librdkafka")]
use crate::support::kafka::tool::{End, Produce};
use crate::support::on::On;
#[cfg(feature = "librdkafka")]
use crate::support::worker::sink;
use crate::support::worker::{Config, Rec, Site, Worker};

on_each!(topics_are_paused_changed_removed_and_added_under_load,);

const PARTITIONS: u32 = 2;

#[track_caller]
fn reload(site: &Site, worker: &Worker, config: &Config) {
    site.write_config(&config.to_string());
    let from = worker.log().len();
    worker.signal("HUP");
    worker.wait_words_after(from, &["reload complete", "waiting=-"]);
}

/// CURRENT-OFFSET and LAG of each partition, as `kafka-consumer-groups` prints them.
fn described(kafka: &Kafka, group: &str, topic: &str) -> BTreeMap<i32, (i64, i64)> {
    let text = kafka.describe_group(group);
    let row = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != topic).skip(1);
        let mut number = || words.next()?.parse::<i64>().ok();
        let (partition, current, _end, lag) = (number()?, number()?, number()?, number()?);
        Some((i32::try_from(partition).ok()?, (current, lag)))
    };
    let rows: BTreeMap<_, _> = text.lines().filter_map(row).collect();
    assert_eq!(rows.len(), PARTITIONS as usize, "{text}");
    rows
}

fn topics_are_paused_changed_removed_and_added_under_load(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let names: Vec<String> = ["paused", "changed", "removed", "still"].map(Kafka::name).into();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let [paused, changed, removed, still] = all[..] else { unreachable!() };
    all.iter().for_each(|topic| drop(tool.create(topic, &PARTITIONS.to_string(), "")));
    let group = Kafka::name("g");
    let config = |topics: &[&str]| kafka.config(&group, topics);
    let site = Site::new();
    let worker = site.start(&config(&all).to_string());
    worker.wait_started();
    let flow = Kafka::name("flow");
    tool.flow(Flow {
        name: &flow,
        topics: &all,
        partitions: PARTITIONS,
        rate: 2_000,
        size: 50,
        configs: "linger.ms=5",
    });
    let arrived = |topic: &str| site.records().iter().filter(|record| record.topic == topic).count();
    let more = |topic: &str| {
        let committed = || kafka.committed(&format!("{group}-{topic}"), topic, 0);
        let before = committed();
        eventually(&format!("more of {topic}"), || committed() > before);
    };
    all.iter().for_each(|topic| more(topic));

    let pause = format!("[[topic]]\nname = '{paused}'\npaused = true");
    let change = format!("{pause}\n[[topic]]\nname = '{changed}'\nmax_poll_records = 50\nfetch_max_wait_ms = 50");
    reload(&site, &worker, &config(&all).more(&change));
    let at = described(kafka, &format!("{group}-{paused}"), paused);
    let delivered = arrived(paused);
    assert_eq!(at.values().map(|(current, _)| *current).sum::<i64>(), delivered as i64, "delivered and committed");
    [changed, removed, still].iter().for_each(|topic| more(topic));
    let later = described(kafka, &format!("{group}-{paused}"), paused);
    for (partition, (current, lag)) in &later {
        assert_eq!(*current, at[partition].0, "the group keeps its offset");
        assert!(*lag > 0, "and has something before it: {later:?}");
    }
    assert_eq!(arrived(paused), delivered);

    reload(&site, &worker, &config(&[paused, changed, still]).more(&change));
    more(still);
    reload(&site, &worker, &config(&all));
    all.iter().for_each(|topic| more(topic));
    let flowed = tool.end_flow(&flow);
    assert_eq!(flowed.refused, 0);
    for topic in &all {
        for (partition, (_, end)) in (0..).zip(tool.bounds(topic)) {
            kafka.await_committed(&format!("{group}-{topic}"), topic, partition, end);
        }
    }
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    for words in ["did not drain", "not committed at the end", "reading again"] {
        assert_eq!(ended.lines_with(&[words]), [""; 0]);
    }
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
    let place = |record: &Rec| (record.topic.clone(), record.partition, record.offset);
    let mut delivered: Vec<_> = site.records().iter().map(place).collect();
    delivered.sort_unstable();
    let mut acked: Vec<_> =
        flowed.acked.iter().map(|(topic, partition, offset, _)| (topic.clone(), *partition, *offset)).collect();
    acked.sort_unstable();
    assert_eq!(delivered.len(), acked.len());
    assert!(delivered == acked, "each record once");
}

/// What a reload changes of a topic (the library, what is read of transactions, which partitions are this worker's)
/// holds for that topic alone, and from its position on.
#[cfg(feature = "librdkafka")]
#[test]
fn client_isolation_and_partitions_of_a_topic_are_changed_at_its_position() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let names: Vec<String> = ["client", "isolation", "partitions", "still"].map(Kafka::name).into();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let [client, isolation, partitions, still] = all[..] else { unreachable!() };
    all.iter().for_each(|topic| drop(tool.create(topic, &PARTITIONS.to_string(), "")));
    let group = Kafka::name("g");
    let table = |topic: &str, keys: &str| format!("[[topic]]\nname = '{topic}'\n{keys}");
    let config = |keys: [&str; 3]| {
        let tables = [client, isolation, partitions].into_iter().zip(keys).map(|(topic, keys)| table(topic, keys));
        kafka.config(&group, &all).more(&tables.collect::<Vec<_>>().join("\n"))
    };
    let site = Site::new();
    let librdkafka = |level: &str| format!("client = 'librdkafka'\nisolation_level = '{level}'");
    let worker =
        site.start(&config(["client = 'kafka'", &librdkafka("read_uncommitted"), "partitions = [0]"]).to_string());
    worker.wait_started();
    let flow = Kafka::name("flow");
    let flowing = [client, partitions, still];
    let configs = "linger.ms=5";
    tool.flow(Flow { name: &flow, topics: &flowing, partitions: PARTITIONS, rate: 2_000, size: 50, configs });
    let id = format!("enable.idempotence=true;transactional.id={isolation}");
    let transaction = |first, end| tool.produce(&Produce { first, end, configs: &id, ..Produce::new(isolation, 20) });
    transaction(0, End::Abort);
    // 20 records and the marker behind them.
    kafka.await_committed(&format!("{group}-{isolation}"), isolation, 0, 21);
    let moves = |topic: &str| {
        let committed = || kafka.committed(&format!("{group}-{topic}"), topic, 0);
        let before = committed();
        eventually(&format!("more of {topic}"), || committed() > before);
    };
    flowing.iter().for_each(|topic| moves(topic));
    assert_eq!(kafka.committed(&format!("{group}-{partitions}"), partitions, 1), None, "it is another worker's");

    let (from, started) = (worker.log().len(), worker.count(&["consumer started topic=", still]));
    let now = config(["client = 'librdkafka'", &librdkafka("read_committed"), "partitions = [0, 1]"]);
    reload(&site, &worker, &now);
    let said = worker.wait_words_after(from, &["configuration reloaded"]).1;
    assert!([client, isolation, partitions].iter().all(|topic| said.contains(*topic)), "{said}");
    assert!(!said.contains(still), "the others are left alone: {said}");
    flowing.iter().for_each(|topic| moves(topic));
    transaction(20, End::Abort);
    transaction(40, End::Commit);
    let flowed = tool.end_flow(&flow);
    assert_eq!(flowed.refused, 0);
    // What the crate can't read.
    tool.produce(&Produce { configs: "compression.type=lz4", ..Produce::new(client, 30) });
    for topic in &all {
        for (partition, (_, end)) in (0..).zip(tool.bounds(topic)).filter(|(_, (_, end))| *end > 0) {
            kafka.await_committed(&format!("{group}-{topic}"), topic, partition, end);
        }
    }
    assert_eq!(worker.count(&["consumer started topic=", still]), started, "its consumer was not started again");
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    for words in ["ERROR", "did not drain", "not committed at the end", "reading again", "reading with librdkafka"] {
        assert_eq!(ended.lines_with(&[words]), [""; 0]);
    }
    let records = site.records();
    let mut aborted_and_not = sink::offsets(&records, isolation, 0);
    aborted_and_not.sort_unstable();
    assert_eq!(aborted_and_not, (0..20).chain(42..62).collect::<Vec<_>>());
    for topic in flowing {
        for (partition, (_, end)) in (0..).zip(tool.bounds(topic)) {
            assert_eq!(sink::offsets(&records, topic, partition), (0..end).collect::<Vec<_>>(), "{topic}-{partition}");
        }
    }
}
