//! Several workers on one topic, without membership: each reads its share; and two that hold the same
//! partitions by mistake notice it.

use std::time::Instant;

use crate::support::bed::Bed;
use crate::support::worker::{Config, PATIENCE, Site, Worker};
use crate::support::{eventually, http};

/// A topic `t` of so many partitions.
fn bed_of(partitions: i32) -> Bed {
    let bed = Bed::new(&[]);
    bed.server.create_topic("t", partitions).unwrap();
    bed
}

fn fill_all(bed: &Bed, partitions: i32, count: usize) {
    (0..partitions).for_each(|number| bed.fill_as("t", number, count, broker::Codec::None));
}

/// The partitions of which records have arrived at a site.
fn partitions(site: &Site) -> Vec<i32> {
    let mut numbers: Vec<i32> = site.records().iter().map(|record| record.partition).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn with_admin(config: Config) -> Config {
    config.set("admin", "listen", "'127.0.0.1:0'").set("observe", "interval_ms", 100)
}

#[test]
fn instances_share_a_topic_and_nothing_is_read_twice() {
    let (bed, other) = (bed_of(5), Site::new());
    fill_all(&bed, 5, 10);
    let config = |instance: &str| bed.config(&["t"]).set("consumer", "instance", format!("'{instance}'"));
    let first = bed.started(&with_admin(config("1/2")));
    let second = other.start(&config("2/2").to_string());
    second.wait_started();
    (0..5).for_each(|number| bed.await_committed("t", number, 10));
    // What comes later is shared out, too.
    bed.server.add_partitions("t", 2).unwrap();
    fill_all(&bed, 7, 5);
    (0..5).for_each(|number| bed.await_committed("t", number, 15));
    (5..7).for_each(|number| bed.await_committed("t", number, 5));
    assert_eq!((partitions(&bed.site), partitions(&other)), (vec![0, 2, 4, 6], vec![1, 3, 5]));
    assert_eq!((bed.site.records().len(), other.records().len()), (3 * 15 + 5, 2 * 15 + 5));
    // The worker that runs tells of its own; who asks the cluster sees all.
    let address = http::address(&first);
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let status = http::status(address);
        let told: Vec<(i32, Option<i64>)> = status.topics[0].partitions.iter().map(|p| (p.partition, p.lag)).collect();
        if told.len() == 4 && told.iter().all(|(_, lag)| *lag == Some(0)) {
            break told;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        std::thread::yield_now();
    };
    assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2, 4, 6]);
    assert!(second.is_running());
    let second = bed.stop(second);
    // Nobody reads the others now, and that is not for this worker to tell.
    fill_all(&bed, 7, 1);
    (0..7).filter(|number| number % 2 == 0).for_each(|number| {
        let end = bed.server.bounds("t", number).unwrap().1;
        bed.await_committed("t", number, end);
    });
    let path = bed.site.write_config(&config("1/2").to_string());
    let path = path.to_str().unwrap();
    let lag = Worker::run(&["lag", "-c", path, "--json"]);
    let round: serde_json::Value = serde_json::from_str(&lag.stdout.join("")).unwrap();
    let verdicts: Vec<&str> =
        round["partitions"].as_array().unwrap().iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["idle", "elsewhere", "idle", "elsewhere", "idle", "elsewhere", "idle"]);
    let diagnosed = Worker::run(&["diagnose", "-c", path, "--for", "1"]);
    let text = diagnosed.stdout.join("\n");
    assert_eq!(diagnosed.code(), Some(0), "{text}");
    assert_eq!(text.matches("; read by another worker").count(), 3, "{text}");
    let first = bed.stop(first);
    for log in [first.log, second.log] {
        assert!(!log.iter().any(|line| line.contains("WARN")), "{}", log.join("\n"));
    }
}

#[test]
fn partitions_that_do_not_exist_are_told_once_and_read_when_they_come() {
    let bed = bed_of(3);
    fill_all(&bed, 3, 4);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "partitions", "[1, 4, 9]"));
    let line = worker.wait_words(&["WARN", "partitions do not exist", "topic=t", "group_id=g-t"]);
    assert!(line.contains(" partitions=4,9 "), "{line}");
    bed.await_committed("t", 1, 4);
    bed.server.add_partitions("t", 2).unwrap();
    bed.fill_as("t", 4, 3, broker::Codec::None);
    bed.await_committed("t", 4, 3);
    worker.wait_words(&["INFO", "partitions exist now", "partitions=4"]);
    let ended = bed.stop(worker);
    assert_eq!(partitions(&bed.site), [1, 4]);
    assert_eq!(ended.lines_with(&["partitions do not exist"]).len(), 1, "{}", ended.log.join("\n"));
    for number in [0, 2, 3] {
        assert_eq!(bed.server.committed("g-t", "t", number), None, "nothing is committed for others");
    }
}

/// With more workers than partitions one has nothing to do. It is up, and says so.
#[test]
fn a_worker_without_a_partition_is_up_and_takes_what_comes() {
    let bed = bed_of(2);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "instance", "'3/3'"));
    worker.wait_words(&["WARN", "no partition is left for this worker topic=t"]);
    bed.server.add_partitions("t", 1).unwrap();
    fill_all(&bed, 3, 2);
    bed.await_committed("t", 2, 2);
    let ended = bed.stop(worker);
    assert_eq!(partitions(&bed.site), [2]);
    assert_eq!(ended.lines_with(&["no partition is left"]).len(), 1);
}

/// Both read all and commit the same offsets. Each looks at the group just before a commit of its own, and so finds
/// the other's: both tell it, once, with what to do; and when one has ended the other says that it is over.
#[test]
fn two_workers_on_the_same_partitions_notice_each_other() {
    let (bed, other) = (bed_of(1), Site::new());
    let config = with_admin(bed.config(&["t"]).set("kafka", "metadata_max_age_ms", 100));
    let workers = [bed.started(&config), other.start(&config.to_string())];
    workers[1].wait_started();
    const TOLD: &[&str] =
        &["WARN", "committed offset was moved by someone else group_id=g-t", "another worker commits"];
    let mut filled = 0;
    let mut write = |sites: &[&Site]| {
        bed.fill("t", 1);
        filled += 1;
        sites.iter().for_each(|site| drop(site.wait_records(filled, PATIENCE)));
    };
    eventually("both tell it", || {
        write(&[&bed.site, &other]);
        workers.iter().all(|worker| worker.count(TOLD) > 0)
    });
    for (at, worker) in workers.iter().enumerate() {
        let line = worker.wait_words(TOLD);
        let (own, rival) = (worker.pid(), workers[1 - at].pid());
        assert!(line.contains(&format!("pid={rival} ")) && !line.contains(&format!("pid={own} ")), "{line}");
        assert!(line.contains("partitions, instance or membership"), "{line}");
    }
    let shared = |worker: &Worker| {
        let address = http::address(worker);
        let status = http::status(address).topics.remove(0).consumer.shared_group;
        (status.is_some(), http::metric(address, "worker_group_shared{group=\"g-t\"}"))
    };
    let told_by_both = || workers.iter().all(|worker| shared(worker) == (true, Some(1.0)));
    eventually("both have it in /status and /metrics", told_by_both);
    for _ in 0..30 {
        write(&[&bed.site, &other]);
        assert!(told_by_both(), "it does not come and go");
    }
    let [left, ends] = workers;
    let ended = [bed.stop(ends)];
    const OVER: &[&str] = &["INFO", "committed offset is no longer moved by someone else group_id=g-t"];
    eventually("it is over for who is left", || {
        write(&[&bed.site]);
        left.count(OVER) > 0
    });
    eventually("also in /status and /metrics", || shared(&left) == (false, Some(0.0)));
    for ended in ended.into_iter().chain([bed.stop(left)]) {
        assert_eq!(ended.lines_with(TOLD).len(), 1, "{}", ended.log.join("\n"));
    }
}
