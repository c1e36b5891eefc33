//! A reload on a real Kafka, under load: nothing is missing, nothing comes twice, and a paused topic's group
//! keeps its offset, as Kafka's own tool shows it.

use std::collections::BTreeMap;

use crate::on_each;
use crate::support::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Flow;
use crate::support::on::On;
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
