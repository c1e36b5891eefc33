//! Given little memory for many topics, or for records that are larger than a topic's share of it:
//! everything arrives, in bounded memory, and nobody waits for somebody else's sink.

use std::fs;
use std::io::{PipeReader, Read as _, pipe};
use std::thread;
use std::time::Duration;

use broker::{Api, Codec, Fault, NewRecord, Options, Order};
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::eventually_within;
use crate::support::worker::{Config, Worker};

for_clients!(
    a_slow_sink_fills_its_own_shares_and_stops_its_own_topics,
    records_of_20_mb_in_several_of_200_topics_arrive,
    a_record_larger_than_the_reserve_stops_its_partition_alone,
    a_fetch_that_fails_gives_the_reserve_back,
);

/// Far above what it takes, for busy machines.
const LONG: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn record(bytes: usize) -> NewRecord {
    NewRecord { timestamp_ms: 0, key: None, value: Some(vec![b'x'; bytes]) }
}

/// Appends these records, each as a batch of its own.
fn append(bed: &Bed, topic: &str, sizes: impl IntoIterator<Item = usize>) {
    let append = |log: &mut broker::Log| {
        for size in sizes {
            log.append([record(size)], Codec::None);
        }
    };
    bed.server.with_log(topic, 0, append).unwrap();
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t{n}")).collect()
}

fn names(topics: &[String]) -> Vec<&str> {
    topics.iter().map(String::as_str).collect()
}

/// What is routed to `stdout`, as `raw` lines; all other topics go to the file.
fn to_stdout(config: Config, topics: &[&str]) -> Config {
    let route = |config: Config, topic: &&str| config.more(&format!("[[topic]]\nname = '{topic}'\nsink = 'stdout'"));
    topics.iter().fold(config, route).set("sink.stdout", "type", "'stdout'").set("sink.stdout", "format", "'raw'")
}

/// A worker whose standard output goes to a pipe that holds 64 KiB, and nobody reads but the test.
fn with_pipe(bed: &Bed, config: &Config) -> (Worker, PipeReader) {
    let file = bed.site.write_config(&config.to_string());
    let (reader, writer) = pipe().unwrap();
    let mut command = Worker::command();
    command.arg("-c").arg(file).stdout(writer);
    (Worker::spawn_as_it_is(command), reader)
}

#[track_caller]
fn await_end(bed: &Bed, topic: &str) {
    let end = bed.server.bounds(topic, 0).unwrap().1;
    let committed = || bed.committed(topic);
    let in_time = bed.server.await_committed(&format!("g-{topic}"), topic, 0, end, LONG);
    assert!(in_time, "{topic} has committed {:?} of {end}", committed());
}

/// 198 topics fill all of their shares, because nobody reads their sink. The two others go on, with
/// a record of 20 MB each; and when somebody reads, everything arrives.
fn a_slow_sink_fills_its_own_shares_and_stops_its_own_topics(client: Library) {
    let topics = topics(200);
    let names = names(&topics);
    let (others, slow) = names.split_at(2);
    let bed = Bed::new(&names).by(client);
    // More than a share, which is 983 KB.
    slow.iter().for_each(|topic| append(&bed, topic, [10_000; 120]));
    let config = to_stdout(bed.config(&names), slow).set("consumer", "fetch_max_wait_ms", 500);
    let (worker, mut reader) = with_pipe(&bed, &config);
    eventually_within(LONG, "the shares are full", || worker.rss() > 140 * MIB);
    for topic in others {
        append(&bed, topic, [10_000; 50].into_iter().chain([20_000_000]).chain([10_000; 50]));
    }
    for topic in others {
        await_end(&bed, topic);
        bed.assert_all(topic, 0);
    }
    let moved: i64 = slow.iter().filter_map(|topic| bed.committed(topic)).sum();
    assert!(moved <= 6, "{moved} records of 10 KB have gone to a pipe of 64 KiB");
    let drain = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap());
    slow.iter().for_each(|topic| await_end(&bed, topic));
    let peak = worker.peak_rss();
    println!("200 topics, 198 of them with full shares, and records of 20 MB: at most {} MiB resident", peak / MIB);
    // librdkafka counts keys and values only, and each of its 200 consumers has threads and buffers of its own.
    let beside = if client == Library::Kafka { 64 } else { 192 };
    assert!(peak < (256 + beside) * MIB, "{} MiB with memory.limit = 256MiB", peak / MIB);
    bed.stop(worker);
    assert_eq!(drain.join().unwrap(), 198 * 120 * 10_001, "each record once");
}

fn records_of_20_mb_in_several_of_200_topics_arrive(client: Library) {
    let topics = topics(200);
    let names = names(&topics);
    let bed = Bed::new(&names).by(client);
    let (large, busy) = names.split_at(4);
    large.iter().for_each(|topic| append(&bed, topic, [1_000, 20_000_000, 1_000]));
    busy.iter().for_each(|topic| bed.fill(topic, 500));
    let worker = bed.start(&bed.config(&names));
    names.iter().for_each(|topic| await_end(&bed, topic));
    let peak = worker.peak_rss();
    println!("200 topics, 4 of them with a record of 20 MB: at most {} MiB resident", peak / MIB);
    assert!(peak < (256 + 64) * MIB, "{} MiB with memory.limit = 256MiB", peak / MIB);
    large.iter().for_each(|topic| bed.assert_all(topic, 0));
    bed.stop(worker);
    let lines = fs::read(bed.site.out()).unwrap().iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines, 4 * 3 + 196 * 500, "each record once");
}

/// The smallest limit: shares of 1.5 MiB, a reserve of 4 MiB.
fn small(bed: &Bed, names: &[&str]) -> Config {
    bed.config(names).set("memory", "limit", "'16MiB'")
}

/// `holder` has borrowed the reserve, and its sink stands still. `waiter` waits for it without asking
/// again and again, goes on with its other partition, and has its turn as soon as the sink goes on.
/// With librdkafka the other partition waits, too: what has left librdkafka's queue is in memory, and counts.
#[test]
fn two_oversized_records_take_turns_and_who_waits_goes_on_otherwise() {
    let topics: Vec<String> = ["holder", "waiter"].map(str::to_owned).into_iter().chain(topics(6)).collect();
    let names = names(&topics);
    let bed = Bed::new(&names[..1]);
    bed.server.create_topic("waiter", 2).unwrap();
    names[2..].iter().for_each(|topic| bed.server.create_topic(topic, 1).unwrap());
    append(&bed, "holder", [3_000_000]);
    let (worker, mut reader) = with_pipe(&bed, &to_stdout(small(&bed, &names), &["holder"]));
    worker.wait_started();
    reader.read_exact(&mut [0]).unwrap();
    append(&bed, "waiter", [3_000_000]);
    bed.fill_as("waiter", 1, 100, Codec::None);
    bed.await_all("waiter", 1);
    // Each idle link asks every 200 ms, so what is fetched in a while says whether one asks all the time.
    let before = bed.server.requests(Api::Fetch);
    thread::sleep(Duration::from_secs(1));
    let asked = bed.server.requests(Api::Fetch) - before;
    assert!(asked < 100, "{asked} fetches in a second, by 8 consumers with nothing to do");
    bed.fill_as("waiter", 1, 100, Codec::None);
    bed.await_all("waiter", 1);
    assert_eq!(bed.committed("waiter"), Some(0), "its turn has not come");
    let drain = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap());
    await_end(&bed, "waiter");
    await_end(&bed, "holder");
    bed.assert_all("waiter", 0);
    bed.stop(worker);
    assert_eq!(drain.join().unwrap(), 3_000_000, "without the first byte, with the line's end");
}

fn a_record_larger_than_the_reserve_stops_its_partition_alone(client: Library) {
    let topics = topics(8);
    let names = names(&topics);
    let bed = Bed::new(&names).by(client);
    append(&bed, "t0", [100, 5_000_000, 100]);
    append(&bed, "t1", [100, 4_000_000, 100]);
    let worker = bed.start(&small(&bed, &names));
    let line = worker.wait_words(&["ERROR", "partition fails topic=t0 partition=0"]);
    assert!(line.contains("the batch at offset=1 has 50000"), "{line}");
    assert!(line.contains("a fetch may have 4194304; raise memory.limit"), "{line}");
    await_end(&bed, "t1");
    bed.fill("t7", 100);
    bed.await_all("t7", 0);
    bed.await_committed("t0", 0, 1);
    bed.assert_all("t1", 0);
    bed.stop(worker);
}

/// The loan comes back when its fetch is cut off in the middle, and when nobody waits for it any more.
fn a_fetch_that_fails_gives_the_reserve_back(client: Library) {
    let topics = topics(8);
    let names = names(&topics);
    let bed = Bed::new(&names).by(client);
    // Those that have such a record fail in all their fetches for a while.
    let cut = bed.server.order(Order::new(Api::Fetch, Fault::Truncate(100_000)).topic("t0").after(2).times(3));
    bed.server.order(Order::new(Api::Fetch, Fault::Hang).topic("t1").after(2));
    ["t0", "t1", "t2"].iter().for_each(|topic| append(&bed, topic, [3_000_000, 100, 3_000_000]));
    let config = small(&bed, &names).set("kafka", "request_timeout_ms", 500);
    let worker = bed.start(&config);
    if client == Library::Kafka {
        worker.wait_words(&["WARN", "did not answer Fetch within 500 ms"]);
    }
    // The thread that nobody waits for keeps what was borrowed until its socket ends.
    bed.server.disconnect(0);
    ["t0", "t1", "t2"].iter().for_each(|topic| await_end(&bed, topic));
    ["t0", "t1", "t2"].iter().for_each(|topic| bed.assert_all(topic, 0));
    assert!(!bed.server.is_pending(cut), "the answers were cut off");
    bed.stop(worker);
}

/// An answer that is cut off has no record, as one has of a batch that compaction has emptied. It must
/// not be taken for that.
#[test]
fn a_batch_larger_than_what_the_broker_sends_is_not_passed_over() {
    let bed = Bed::with(Options { fetch_max_bytes: 1 << 20, ..Options::default() }, &["t", "other"]);
    append(&bed, "t", [100, 2_000_000, 100]);
    let worker = bed.start(&bed.config(&["t", "other"]));
    let line = worker.wait_words(&["ERROR", "partition fails topic=t partition=0"]);
    assert!(line.contains("the broker sends only a part of the batch at offset=1, which has 2000"), "{line}");
    bed.fill("other", 100);
    bed.await_all("other", 0);
    assert_eq!(bed.arrived_offsets("t", 0), [0]);
    bed.stop(worker);
    assert_eq!(bed.committed("t"), Some(1));
}
