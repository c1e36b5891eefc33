//! Given a signal, the worker ends: with everything committed that was delivered, and in time.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use broker::{Api, Fault, Order};
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::worker::{Config, PATIENCE, Site, Worker};

for_clients!(
    a_signal_drains_and_commits,
    a_signal_in_the_middle_of_a_stream,
    the_broker_is_gone_at_the_end,
    a_long_poll_does_not_delay_the_end,
);

/// How much later than its deadline a process may be gone, on a busy machine.
const LATE: Duration = Duration::from_secs(4);

fn a_signal_drains_and_commits(client: Library) {
    for (name, signal) in [("TERM", "SIGTERM"), ("INT", "SIGINT")] {
        let bed = Bed::new(&["a", "b"]).by(client);
        // Nothing is committed before the end, but the first positions.
        let config =
            bed.config(&["a", "b"]).set("commit", "interval_ms", 60_000).set("commit", "batch_size", 1_000_000);
        let worker = bed.started(&config);
        bed.fill("a", 300);
        bed.fill("b", 200);
        bed.site.wait_records(500, PATIENCE);
        worker.signal(name);
        let ended = worker.exit(PATIENCE);
        assert_eq!(ended.code(), Some(0));
        assert_eq!(ended.lines_with(&[&format!("stopping signal={signal} drain_timeout_ms=5000")]).len(), 1);
        assert_eq!(ended.sums("a"), "delivered=300 committed=300 in_flight=0 expired=0 reset=0");
        assert_eq!(ended.sums("b"), "delivered=200 committed=200 in_flight=0 expired=0 reset=0");
        assert!(ended.log.last().unwrap().ends_with("stopped exit_code=0"), "{}", ended.log.join("\n"));
        assert_eq!((bed.committed("a"), bed.committed("b")), (Some(300), Some(200)));
        assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
    }
}

/// The stop comes in the middle of a stream: what is in the sink is what is committed.
fn a_signal_in_the_middle_of_a_stream(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    for _ in 0..300 {
        bed.fill("t", 1_000);
    }
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "max_poll_records", 100));
    bed.site.wait_records(5_000, PATIENCE);
    let ended = bed.stop(worker);
    let arrived = bed.arrived_offsets("t", 0);
    let count = i64::try_from(arrived.len()).unwrap();
    assert!(count < 300_000, "it was to be stopped in the middle");
    assert_eq!(arrived, (0..count).collect::<Vec<_>>());
    assert_eq!(bed.committed("t"), Some(count));
    assert_eq!(ended.sums("t"), format!("delivered={count} committed={count} in_flight=0 expired=0 reset=0"));
}

/// A worker on a topic whose sink fails, so that its drain does not end by itself.
fn hanging(drain_timeout_ms: u64) -> (Bed, Worker) {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let config = bed.config(&["t"]).set("sink.out", "path", "'/dev/full'");
    let worker = bed.started(&config.set("shutdown", "drain_timeout_ms", drain_timeout_ms));
    worker.wait_words(&["sink fails"]);
    (bed, worker)
}

#[test]
fn a_drain_with_a_sink_that_fails_ends_by_its_deadline() {
    let (bed, worker) = hanging(700);
    let asked = Instant::now();
    let ended = bed.stop(worker);
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(700) + LATE, "{took:?}");
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert_eq!(bed.committed("t"), Some(0));
    assert_eq!(
        ended.lines_with(&["WARN", "sink given up at the end, its records are delivered again sink=out"]).len(),
        1
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let (_bed, worker) = hanging(60_000);
        worker.signal("TERM");
        worker.wait_words(&["stopping signal=SIGTERM"]);
        // Two that come closer together than 200 ms are taken for one: here the time itself is tested.
        thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        worker.signal(name);
        let ended = worker.exit(PATIENCE);
        assert!(asked.elapsed() < LATE, "it took {:?}", asked.elapsed());
        assert_eq!(ended.code(), Some(code));
        assert_eq!(ended.lines_with(&["WARN", "stopping at once"]).len(), 1);
    }
}

/// `timeout` and some shells send a signal to the process and then to its group.
#[test]
fn the_same_signal_twice_in_a_moment_is_one() {
    let (bed, worker) = hanging(500);
    worker.signal("TERM");
    worker.signal("TERM");
    let ended = worker.exit(PATIENCE);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert_eq!(bed.committed("t"), Some(0));
}

/// What was delivered and could not be committed any more is delivered again after the restart.
fn the_broker_is_gone_at_the_end(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let config = bed.config(&["t"]).set("commit", "interval_ms", 60_000).set("commit", "batch_size", 1_000_000).set(
        "shutdown",
        "drain_timeout_ms",
        1_000,
    );
    let worker = bed.started(&config);
    bed.fill("t", 100);
    bed.site.wait_records(100, PATIENCE);
    bed.server.stop(0).unwrap();
    let asked = Instant::now();
    let ended = bed.stop(worker);
    assert!(asked.elapsed() < Duration::from_secs(1) + LATE, "it took {:?}", asked.elapsed());
    assert_eq!(ended.sums("t"), "delivered=100 committed=0 in_flight=0 expired=0 reset=0");
    let said = ended.lines_with(&["WARN", "not committed at the end topic=t partition=0 group_id=g-t committed=0"]);
    assert_eq!(said.len(), 1, "{}", ended.log.join("\n"));
    assert!(said[0].contains("delivered_up_to=100") && said[0].contains("delivers again"), "{}", said[0]);
    bed.server.start_again(0).unwrap();
    let worker = bed.started(&config);
    bed.site.wait_records(200, PATIENCE);
    assert_eq!(bed.stop(worker).sums("t"), "delivered=100 committed=100 in_flight=0 expired=0 reset=0");
    assert_eq!(bed.arrived_offsets("t", 0), (0..100).chain(0..100).collect::<Vec<_>>());
}

/// Commits that are never answered hold the end up for the drain's time and no longer.
#[test]
fn the_coordinator_hangs_at_the_end() {
    let bed = Bed::new(&["t"]);
    let config = bed.config(&["t"]).set("commit", "interval_ms", 60_000).set("commit", "batch_size", 1_000_000).set(
        "shutdown",
        "drain_timeout_ms",
        500,
    );
    let worker = bed.started(&config);
    bed.fill("t", 100);
    bed.site.wait_records(100, PATIENCE);
    bed.server.order(Order::new(Api::OffsetCommit, Fault::Hang).always());
    let asked = Instant::now();
    let ended = bed.stop(worker);
    // The last commit has two seconds more.
    assert!(asked.elapsed() < Duration::from_millis(2_500) + LATE, "it took {:?}", asked.elapsed());
    assert_eq!(ended.lines_with(&["WARN", "not committed at the end", "no answer in time"]).len(), 1);
    assert_eq!(ended.sums("t"), "delivered=100 committed=0 in_flight=0 expired=0 reset=0");
}

#[test]
fn a_worker_that_never_reached_a_broker_ends_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Nobody accepts there, so that the request is under way for a minute.
    let site = Site::new();
    let config = Config::new(&[address], &["t"]).set("kafka", "request_timeout_ms", 60_000);
    let worker = site.start(&config.to_string());
    let (_stream, _) = listener.accept().unwrap();
    let asked = Instant::now();
    assert_eq!(worker.stop().code(), Some(0));
    assert!(asked.elapsed() < LATE, "it took {:?}", asked.elapsed());
}

/// A fetch that the broker holds does not hold the end up.
fn a_long_poll_does_not_delay_the_end(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let config = bed.config(&["t"]).set("consumer", "fetch_max_wait_ms", 20_000);
    let worker = bed.started(&config);
    assert!(bed.server.await_requests(Api::Fetch, 1, PATIENCE));
    let asked = Instant::now();
    bed.stop(worker);
    assert!(asked.elapsed() < LATE, "it took {:?}", asked.elapsed());
}

/// A storm of requests to reopen files does not hide the stop, and does not make it a second one.
#[test]
fn a_stop_among_many_hangups_is_one_stop() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 20);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..20).for_each(|_| worker.signal("HUP")));
        }
    });
    worker.signal("TERM");
    let ended = worker.exit(PATIENCE);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert_eq!(bed.committed("t"), Some(20));
}

/// With a log that nobody reads every thread may stand still in it; a second signal ends it all the same.
#[test]
fn a_second_signal_ends_it_although_nobody_reads_the_log() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5000);
    let config = bed.site.write_config(&bed.config(&["t"]).set("consumer", "sink", "\"log\"").to_string());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_worker"));
    command.arg("-c").arg(&config).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = child.id().to_string();
    let kill = || assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    // The pipe is full when something was delivered and nothing more is asked for.
    bed.server.await_requests(broker::Api::OffsetCommit, 1, PATIENCE);
    thread::sleep(Duration::from_millis(300));
    kill();
    thread::sleep(Duration::from_millis(300));
    kill();
    let asked = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if asked.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(code, Some(143));
}
