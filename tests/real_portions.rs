//! Workers that share a topic of a real Kafka without membership: each record is in the output of one of them.

use crate::on_each;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Produce;
use crate::support::on::{On, Stand};
use crate::support::worker::{Site, Worker, sink};

on_each!(instances_and_lists_of_partitions_share_a_topic,);

const PARTITIONS: i32 = 5;
/// Records of each partition in each of the two lives.
const EACH: i64 = 200;

/// A worker with a portion of a topic, and where it writes to.
fn start(kafka: &Stand, group: &str, topic: &str, portion: &str) -> (Site, Worker) {
    let (site, (key, value)) = (Site::new(), portion.split_once(" = ").unwrap());
    let worker = site.start(&kafka.config(group, &[topic]).set("consumer", key, value).to_string());
    worker.wait_started();
    (site, worker)
}

/// Stops each, which has to have these partitions' records from `from` on, once and in order, and none of another.
#[track_caller]
fn stop(running: Vec<(Site, Worker)>, topic: &str, portions: &[&[i32]], from: i64) {
    assert_eq!(running.len(), portions.len());
    for ((site, worker), portion) in running.into_iter().zip(portions) {
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0));
        assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
        let records = site.records();
        for partition in 0..PARTITIONS {
            let expected: Vec<i64> =
                if portion.contains(&partition) { (from..from + EACH).collect() } else { Vec::new() };
            assert_eq!(sink::offsets(&records, topic, partition), expected, "{portion:?}: partition {partition}");
        }
    }
}

fn instances_and_lists_of_partitions_share_a_topic(on: On) {
    let kafka = on.shared();
    let tool = kafka.tool();
    let (topic, group) = (Kafka::name("portions"), Kafka::name("g"));
    tool.create(&topic, &PARTITIONS.to_string(), "");
    let start_all =
        |portions: &[&str]| portions.iter().map(|portion| start(&kafka, &group, &topic, portion)).collect::<Vec<_>>();
    let fill = |first: i64| {
        for partition in 0..PARTITIONS {
            let (first, partition) = (first.unsigned_abs(), Some(partition));
            tool.produce(&Produce { first, partition, ..Produce::new(&topic, EACH.unsigned_abs()) });
        }
    };
    let await_all = |end| {
        (0..PARTITIONS).for_each(|number| kafka.await_committed(&format!("{group}-{topic}"), &topic, number, end));
    };
    // Half of it is there before they start.
    fill(0);
    let running = start_all(&["instance = '1/3'", "instance = '2/3'", "instance = '3/3'"]);
    await_all(EACH);
    stop(running, &topic, &[&[0, 3], &[1, 4], &[2]], 0);
    // Others share it otherwise, and go on where those have ended.
    let running = start_all(&["partitions = [0, 2]", "partitions = [4, 1, 3]"]);
    fill(EACH);
    await_all(2 * EACH);
    stop(running, &topic, &[&[0, 2], &[1, 3, 4]], EACH);
}
