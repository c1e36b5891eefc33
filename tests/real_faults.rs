//! Faults of a real Kafka: places that the log no longer has, brokers that restart, die and hand over.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::on_each;
use crate::real_kafka::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::await_size;
use crate::support::kafka::tool::Produce;
use crate::support::on::On;
use crate::support::worker::{Site, sink};

on_each!(
    a_start_outside_the_log_goes_where_the_policy_says,
    records_deleted_in_front_of_a_running_worker_are_counted,
    a_broker_that_restarts_or_dies_is_found_again,
    leaders_move_and_one_of_three_brokers_dies,
);

/// `[[topic]]` tables with an `on_out_of_range` each.
fn policies(topics: &[(&str, &str)]) -> String {
    let table = |(topic, policy): &(&str, &str)| format!("[[topic]]\nname = '{topic}'\non_out_of_range = '{policy}'\n");
    topics.iter().map(table).collect()
}

fn a_start_outside_the_log_goes_where_the_policy_says(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    // Policy, committed; the log has 50..100. Then the first offset that is read, and the sums.
    let cases = [
        ("earliest", 10, 50, "delivered=60 committed=110 in_flight=0 expired=40 reset=0"),
        ("latest", 10, 100, "delivered=10 committed=110 in_flight=0 expired=40 reset=50"),
        ("nearest", 10, 50, "delivered=60 committed=110 in_flight=0 expired=40 reset=0"),
        ("earliest", 1000, 50, "delivered=60 committed=110 in_flight=0 expired=0 reset=0"),
        ("latest", 1000, 100, "delivered=10 committed=110 in_flight=0 expired=0 reset=0"),
        ("nearest", 1000, 100, "delivered=10 committed=110 in_flight=0 expired=0 reset=0"),
    ];
    let names: Vec<String> = cases.iter().map(|(policy, ..)| Kafka::name(policy)).collect();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let group = Kafka::name("g");
    let group_of = |topic: &str| format!("{group}-{topic}");
    for (topic, (_, committed, ..)) in topics.iter().zip(cases) {
        tool.create(topic, "1", "");
        tool.produce(&Produce::new(topic, 100));
        tool.commit(&group_of(topic), topic, 0, committed).unwrap();
        tool.trim(topic, 0, 50);
        assert_eq!(tool.bounds(topic), [(50, 100)]);
    }
    let tables: Vec<_> = topics.iter().zip(cases).map(|(topic, (policy, ..))| (*topic, policy)).collect();
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &topics).more(&policies(&tables)).to_string());
    for (topic, (_, committed, first, _)) in topics.iter().zip(cases) {
        let lost = format!("lost_offset={committed} log_start=50 log_end=100 new_offset={first}");
        worker.wait_words(&["WARN", "position out of range", &format!("topic={topic} partition=0"), &lost]);
        // The new place stands in the group before anything is read from it, if all of it was read yet.
        eventually("the new place is committed", || kafka.committed(&group_of(topic), topic, 0) != Some(committed));
        tool.produce(&Produce { first: 100, ..Produce::new(topic, 10) });
        kafka.await_committed(&group_of(topic), topic, 0, 110);
    }
    let ended = worker.stop();
    let records = site.records();
    for (topic, (.., first, sums)) in topics.iter().zip(cases) {
        assert_eq!(sink::offsets(&records, topic, 0), (first..110).collect::<Vec<_>>(), "{topic}");
        assert_eq!(ended.sums(topic), sums, "{topic}");
    }
}

fn records_deleted_in_front_of_a_running_worker_are_counted(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let names: Vec<String> = ["run-earliest", "run-latest"].map(Kafka::name).into();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let [earliest, latest] = topics[..] else { unreachable!() };
    let group = Kafka::name("g");
    for topic in &topics {
        tool.create(topic, "1", "");
        // Batches that fit a small fetch: so it takes its time.
        tool.produce(&Produce { configs: "batch.size=4000", ..Produce::new(topic, 200_000) });
    }
    let site = Site::new();
    let config = kafka.config(&group, &topics).set("consumer", "max_partition_fetch_bytes", "'8KiB'");
    let config = config.more(&policies(&[(earliest, "earliest"), (latest, "latest")]));
    let worker = site.start(&config.to_string());
    await_size(&site.out(), 1_000_000);
    worker.signal("STOP");
    for topic in &topics {
        tool.trim(topic, 0, 199_000);
    }
    worker.signal("CONT");
    for topic in &topics {
        worker.wait_words(&["WARN", "position out of range", topic, "log_start=199000"]);
        eventually("it has jumped", || kafka.committed(&format!("{group}-{topic}"), topic, 0) >= Some(199_000));
        tool.produce(&Produce { first: 200_000, ..Produce::new(topic, 10) });
        kafka.await_committed(&format!("{group}-{topic}"), topic, 0, 200_010);
    }
    let ended = worker.stop();
    let records = site.records();
    for (topic, new) in [(earliest, 199_000), (latest, 200_000)] {
        let offsets = sink::offsets(&records, topic, 0);
        let lost = i64::try_from(offsets.iter().zip(0..).take_while(|(at, n)| **at == *n).count()).unwrap();
        assert_eq!(offsets, (0..lost).chain(new..200_010).collect::<Vec<_>>());
        assert!((1..199_000).contains(&lost), "in the middle of the run: {lost}");
        let (delivered, expired, reset) = (offsets.len(), 199_000 - lost, new - 199_000);
        let sums = format!("delivered={delivered} committed=200010 in_flight=0 expired={expired} reset={reset}");
        assert_eq!(ended.sums(topic), sums);
    }
}

fn a_broker_that_restarts_or_dies_is_found_again(on: On) {
    let kafka = &on.node(&[]);
    let tool = kafka.tool();
    let topics = ["one", "two"];
    for topic in topics {
        tool.create(topic, "2", "");
    }
    let mut end = 0;
    let mut produce = || {
        for topic in topics {
            for partition in [Some(0), Some(1)] {
                tool.produce(&Produce { partition, first: end, ..Produce::new(topic, 100) });
            }
        }
        end += 100;
        end
    };
    let site = Site::new();
    let worker = site.start(&kafka.config("g", &topics).to_string());
    worker.wait_started();
    let await_all = |end: u64| {
        for (topic, partition) in topics.iter().flat_map(|topic| [(topic, 0), (topic, 1)]) {
            kafka.await_committed(&format!("g-{topic}"), topic, partition, end as i64);
        }
    };
    await_all(produce());
    for what in ["stopped", "killed"] {
        let from = worker.log().len();
        match what {
            "stopped" => kafka.stop(0),
            _ => kafka.kill(0),
        }
        for topic in topics {
            worker.wait_words_after(from, &["WARN", "consumer in trouble", &format!("group_id=g-{topic}")]);
        }
        kafka.start(0);
        let answers = Instant::now();
        for topic in topics {
            worker.wait_words_after(from, &["consumer works again", &format!("group_id=g-{topic}")]);
        }
        let again = answers.elapsed();
        await_all(produce());
        println!(
            "broker {what} and started: the worker works again {again:?} after it answers, with new records committed {:?}",
            answers.elapsed()
        );
        assert!(again < Duration::from_secs(10), "{again:?}");
    }
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    let records = site.records();
    for (topic, partition) in topics.iter().flat_map(|topic| [(topic, 0), (topic, 1)]) {
        assert_eq!(sink::offsets(&records, topic, partition), (0..300).collect::<Vec<_>>(), "{topic}-{partition}");
    }
    let troubles = ended.lines_with(&["consumer in trouble"]).len();
    assert!(troubles <= 20, "{troubles} lines are a flood");
    assert_eq!(ended.lines_with(&["is no plain Kafka listener"]), [""; 0], "it spoke Kafka a moment ago");
}

fn leaders_move_and_one_of_three_brokers_dies(on: On) {
    let kafka = &on.cluster(3);
    let tool = kafka.tool();
    tool.create("moves", "1,2,3;2,3,1;3,1,2", "");
    let site = Site::new();
    let worker = site.start(&kafka.config("g", &["moves"]).to_string());
    worker.wait_started();
    let done = AtomicBool::new(false);
    // Up to where each partition's records are acknowledged to their producer.
    let written = [const { AtomicI64::new(0) }; 3];
    let leaders = |topic: &str| -> Vec<_> { tool.partitions(topic).iter().map(|partition| partition.leader).collect() };
    // Returns once records of every partition have arrived that were written after the call.
    let arrives = |what: &str| {
        let began = Instant::now();
        let before: Vec<i64> = written.iter().map(|end| end.load(Ordering::Relaxed)).collect();
        eventually("records arrive", || {
            let records = site.records();
            (0..).zip(&before).all(|(partition, end)| sink::offsets(&records, "moves", partition).len() as i64 > *end)
        });
        println!("{what}: new records of all partitions have arrived after {:?}", began.elapsed());
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = 0;
            while !done.load(Ordering::Relaxed) {
                for (partition, end) in (0..).zip(&written) {
                    let partition = Some(partition);
                    let sent = tool.produce(&Produce { partition, first, ..Produce::new("moves", 20) });
                    end.store(sent[0].last + 1, Ordering::Relaxed);
                }
                first += 20;
            }
        });
        // Whatever fails below, the producer is to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            arrives("at rest");
            tool.reassign("moves", 0, "2,3,1");
            tool.elect("moves", 0);
            eventually("node 2 leads partition 0", || leaders("moves")[0] == Some(2));
            arrives("a leader moved");
            // The one that keeps the group's offsets, too.
            let victim = leaders("__consumer_offsets")[0].unwrap();
            let index = usize::try_from(victim - 1).unwrap();
            kafka.kill(index);
            eventually("others lead", || {
                leaders("moves").iter().all(|leader| leader.is_some_and(|leader| leader != victim))
            });
            arrives("the broker with the group's offsets killed");
            // Another broker is the group's coordinator now, and commits go there.
            let begun: Vec<i64> = written.iter().map(|end| end.load(Ordering::Relaxed)).collect();
            eventually("commits go on at another coordinator", || {
                (0..).zip(&begun).all(|(partition, end)| kafka.committed("g-moves", "moves", partition) >= Some(*end))
            });
            kafka.start(index);
            eventually("all are in sync", || {
                let partitions = tool.partitions("moves");
                !partitions.is_empty() && partitions.iter().all(|of| of.in_sync.len() == 3)
            });
            for partition in 0..3 {
                tool.elect("moves", partition);
            }
            arrives("it is back and leads again");
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let ends: Vec<i64> = tool.bounds("moves").iter().map(|(_, end)| *end).collect();
    for (partition, end) in (0..).zip(&ends) {
        kafka.await_committed("g-moves", "moves", partition, *end);
    }
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    let records = site.records();
    for (partition, end) in (0..).zip(ends) {
        assert_eq!(sink::offsets(&records, "moves", partition), (0..end).collect::<Vec<_>>(), "partition {partition}");
    }
}
