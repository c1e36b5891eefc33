//! SIGHUP: topics come, go, change, pause and resume while records arrive; what is wrong changes nothing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker::Codec;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::worker::{Config, PATIENCE, Rec, Worker, sink};

/// Writes this configuration, asks for a reload, and waits until it is complete.
#[track_caller]
fn reload(bed: &Bed, worker: &Worker, config: &Config) {
    let from = ask(bed, worker, config);
    worker.wait_words_after(from, &["reload complete"]);
}

/// Writes this configuration and asks for a reload; the number of lines in the log before.
fn ask(bed: &Bed, worker: &Worker, config: &Config) -> usize {
    bed.site.write_config(&config.to_string());
    let from = worker.log().len();
    worker.signal("HUP");
    from
}

/// Keeps writing to these topics, by turns, while `during` runs. Returns what that returns.
fn under_load<T>(bed: &Bed, topics: &[&str], during: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for topic in topics {
                    bed.fill_as(topic, 0, 20, Codec::None);
                }
                // A rate that busy machines bear: what arrives is read again and again.
                thread::sleep(Duration::from_millis(10));
            }
        });
        // Also if it panics.
        let _stop = Stop(&over);
        during()
    })
}

/// How much of a topic has arrived.
fn arrived(bed: &Bed, topic: &str) -> usize {
    bed.arrived_offsets(topic, 0).len()
}

/// Waits until more of a topic is delivered and committed.
#[track_caller]
fn await_more(bed: &Bed, topic: &str) {
    await_more_in(bed, &format!("g-{topic}"), topic);
}

#[track_caller]
fn await_more_in(bed: &Bed, group: &str, topic: &str) {
    let before = bed.server.committed(group, topic, 0);
    eventually(&format!("more of {topic} is committed"), || bed.server.committed(group, topic, 0) > before);
}

#[test]
fn topics_come_go_change_pause_and_resume_under_load_and_every_record_arrives_once() {
    let all = ["a", "b", "c", "d", "still"];
    let bed = Bed::new(&all);
    let first = bed.config(&["a", "b", "c", "still"]);
    let worker = bed.started(&first);
    under_load(&bed, &all, || {
        all.iter().filter(|topic| **topic != "d").for_each(|topic| await_more(&bed, topic));

        reload(&bed, &worker, &bed.config(&all));
        worker.wait_words(&["configuration reloaded added=d removed=- ", "paused=- resumed=- "]);
        await_more(&bed, "d");

        // Whatever made room for the new topic: from here on, these are left alone.
        worker.wait_words(&["consumer started topic=d"]);
        let others = |topic: &str| worker.count(&[&format!("consumer started topic={topic}")]);
        let untouched = (others("still"), others("d"));
        let changed = bed.config(&all).more("[[topic]]\nname = 'a'\nmax_poll_records = 7");
        reload(&bed, &worker, &changed);
        worker.wait_words(&["configuration reloaded added=- removed=- changed=a paused=- resumed=- unchanged=4"]);
        await_more(&bed, "a");

        let paused =
            bed.config(&all).more("[[topic]]\nname = 'a'\nmax_poll_records = 7\n[[topic]]\nname = 'b'\npaused = true");
        reload(&bed, &worker, &paused);
        worker.wait_words(&["configuration reloaded added=- removed=- changed=- paused=b resumed=- unchanged=4"]);
        let at = arrived(&bed, "b");
        assert_eq!(
            bed.committed("b"),
            Some(i64::try_from(at).unwrap()),
            "what was in flight is delivered and committed"
        );
        all.iter().filter(|topic| **topic != "b").for_each(|topic| await_more(&bed, topic));
        assert_eq!((arrived(&bed, "b"), bed.committed("b")), (at, Some(i64::try_from(at).unwrap())));

        let removed = bed.config(&["a", "b", "d", "still"]).more("[[topic]]\nname = 'b'\npaused = true");
        reload(&bed, &worker, &removed);
        worker.wait_words(&["configuration reloaded added=- removed=c changed=a paused=- resumed=- unchanged=3"]);
        let gone = arrived(&bed, "c");
        await_more(&bed, "d");
        assert_eq!((arrived(&bed, "c"), bed.committed("c")), (gone, Some(i64::try_from(gone).unwrap())));

        assert_eq!((others("still"), others("d")), untouched);
        reload(&bed, &worker, &bed.config(&all));
        worker.wait_words(&["configuration reloaded added=c removed=- ", "resumed=b "]);
        all.iter().for_each(|topic| await_more(&bed, topic));

        reload(&bed, &worker, &bed.config(&all).set("commit", "interval_ms", 90));
        worker.wait_words(&["added=- removed=- changed=a,b,c,d,still paused=- resumed=- unchanged=0"]);
        all.iter().for_each(|topic| await_more(&bed, topic));
    });
    all.iter().for_each(|topic| bed.await_all(topic, 0));
    let ended = bed.stop(worker);
    for topic in all {
        let end = bed.server.bounds(topic, 0).unwrap().1;
        assert_eq!(ended.sums(topic), format!("delivered={end} committed={end} in_flight=0 expired=0 reset=0"));
    }
    assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
}

#[test]
fn a_topic_with_another_policy_is_named_and_goes_on_undisturbed() {
    let bed = Bed::new(&["a", "b"]);
    bed.fill("a", 10);
    let dead = |config: Config| config.set("dead_letter", "path", "'@DIR@/dead.jsonl'");
    let worker = bed.started(&dead(bed.config(&["a", "b"])));
    bed.await_all("a", 0);
    let policy = |line: &str| dead(bed.config(&["a", "b"])).more(&format!("[[topic]]\nname = 'b'\n{line}"));
    for line in ["on_failure = 'dead_letter'", "on_failure = 'dead_letter'\nretry_attempts = 3"] {
        let from = ask(&bed, &worker, &policy(line));
        let words = "configuration reloaded added=- removed=- changed=b paused=- resumed=- unchanged=1";
        worker.wait_words_after(from, &[words]);
        worker.wait_words_after(from, &["reload complete"]);
    }
    // It is named once, also if it is started again for another key.
    let from = ask(
        &bed,
        &worker,
        &policy("on_failure = 'drop'\nmax_poll_records = 7").set("admin", "listen", "'127.0.0.1:1'"),
    );
    worker
        .wait_words_after(from, &["configuration reloaded added=- removed=- changed=b paused=- resumed=- unchanged=1"]);
    let words = "restart needed key=admin.listen meaning=\"nothing listens there before the worker is started again\"";
    worker.wait_words_after(from, &["WARN", words]);
    worker.wait_words_after(from, &["reload complete"]);
    eventually("b is started again", || worker.count(&["consumer started topic=b"]) == 2);
    assert_eq!(worker.count(&["consumer started topic=a"]), 1);
    bed.stop(worker);
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_every_error_is_told_with_its_place() {
    let bed = Bed::new(&["a", "b"]);
    let config = bed.config(&["a"]);
    let worker = bed.started(&config);
    let file = bed.site.path("consumer.toml").display().to_string();
    let refused = |text: &str, errors: &[&str]| {
        bed.site.write_config(text);
        let from = worker.log().len();
        worker.signal("HUP");
        for error in errors {
            worker.wait_words_after(from, &["ERROR", error]);
        }
        worker.wait_words_after(from, &["ERROR", "configuration not reloaded", "meaning=\"the one before goes on\""]);
        bed.fill("a", 10);
        bed.await_all("a", 0);
        assert_eq!(worker.count(&["reload complete"]), 0);
    };
    refused(
        "[kafka]\nbootstrap_servers = ['a']\n[consumer]\ngroup_id = 'g'\ntopics = ['b']\ncolour = 1\n",
        &[
            &format!("configuration: {file}:2:22: kafka.bootstrap_servers: \"a\" has no port"),
            &format!("configuration: {file}:6:1: consumer.colour: is no key"),
        ],
    );
    let unwritable = bed
        .config(&["a", "b"])
        .more("[sink.more]\ntype = 'file'\npath = '@DIR@/no/such.jsonl'\n[[topic]]\nname = 'b'\nsink = 'more'");
    refused(&unwritable.to_string(), &["[sink.more]: ", "does not exist"]);
    // Another sink writes this file.
    let taken = bed
        .config(&["a", "b"])
        .set("consumer", "sink", "'other'")
        .set("sink.other", "type", "'file'")
        .set("sink.other", "path", "'@DIR@/out.jsonl'")
        .set("sink.out", "path", "'@DIR@/new.jsonl'");
    refused(&taken.to_string(), &["[sink.other]: ", "is already written"]);
    std::fs::remove_file(bed.site.path("consumer.toml")).unwrap();
    let from = worker.log().len();
    worker.signal("HUP");
    worker.wait_words_after(from, &["ERROR", &format!("configuration: {file}: there is no such file")]);
    assert_eq!(worker.count(&["consumer started topic=a"]), 1, "it was never disturbed");
    reload(&bed, &worker, &bed.config(&["a", "b"]));
    bed.fill("b", 10);
    bed.await_all("b", 0);
}

#[test]
fn what_takes_a_restart_is_named_and_left_and_the_rest_holds() {
    let bed = Bed::new(&["a"]);
    let worker = bed.started(&bed.config(&["a"]));
    let config = bed
        .config(&["a"])
        .set("memory", "limit", "'64MiB'")
        .set("state", "dir", "'@DIR@/other'")
        .set("shutdown", "drain_timeout_ms", 1)
        .set("gate", "required_topics", "['a']")
        .set("sink.out", "format", "'raw'")
        .set("log", "level", "'info,worker::dispatch=debug'");
    reload(&bed, &worker, &config);
    for key in ["memory.limit", "state.dir", "shutdown.drain_timeout_ms", "gate", "sink.out"] {
        assert_eq!(worker.count(&["WARN", &format!("restart needed key={key} meaning=\"")]), 1, "{key}");
    }
    assert_eq!(worker.count(&["restart needed"]), 5);
    bed.fill("a", 10);
    bed.await_all("a", 0);
    worker.wait_words(&["DEBUG", "polled [a:"]);
    reload(&bed, &worker, &config.clone().set("consumer", "multi_consumer_mode", false));
    worker.wait_words(&["WARN", "restart needed key=consumer.multi_consumer_mode"]);
    let quiet = worker.log().len();
    reload(&bed, &worker, &config.set("log", "level", "'info'"));
    let told = worker.count(&["polled ["]);
    reload(&bed, &worker, &bed.config(&["a"]));
    assert_eq!(worker.count(&["polled ["]), told, "the level holds at once: {quiet}");
    assert!(!bed.site.path("other").exists());
    assert_eq!(worker.count(&["consumer started topic=a"]), 1, "none of it is its consumer's");
}

#[test]
fn a_topic_goes_over_to_a_new_sink_and_the_old_one_is_closed() {
    let bed = Bed::new(&["a", "b"]);
    let worker = bed.started(&bed.config(&["a"]));
    let more = |config: Config| {
        config.set("consumer", "sink", "'more'").set("sink.more", "type", "'file'").set(
            "sink.more",
            "path",
            "'@DIR@/more.jsonl'",
        )
    };
    let is_open = |name: &str| {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
        let path = bed.site.path(name);
        fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).any(|target| target == path)
    };
    under_load(&bed, &["a"], || {
        await_more(&bed, "a");
        assert!(is_open("out.jsonl"));
        reload(&bed, &worker, &more(bed.config(&["a"])));
        eventually("the old file is closed", || !is_open("out.jsonl"));
        sink::wait(&bed.site.path("more.jsonl"), 200, PATIENCE);
        // And back.
        reload(&bed, &worker, &bed.config(&["a"]));
        await_more(&bed, "a");
        eventually("the new file is closed", || !is_open("more.jsonl"));
    });
    let end = bed.server.bounds("a", 0).unwrap().1;
    bed.await_committed("a", 0, end);
    let mut offsets = bed.arrived_offsets("a", 0);
    let there = sink::offsets(&sink::read(&bed.site.path("more.jsonl")), "a", 0);
    assert!(there.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order");
    offsets.extend(there);
    offsets.sort_unstable();
    assert_eq!(offsets, (0..end).collect::<Vec<_>>(), "each once");
    assert_eq!(bed.stop(worker).lines_with(&["ERROR"]), [""; 0]);
}

/// There one consumer has all topics, so it is started again for each change; in its group they keep their places.
#[test]
fn with_one_consumer_for_all_topics_it_is_started_again_for_each_change() {
    let bed = Bed::new(&["a", "b", "c"]);
    let config = |topics: &[&str]| bed.config(topics).set("consumer", "multi_consumer_mode", false);
    let worker = bed.started(&config(&["a", "b"]));
    let paused = config(&["a", "b", "c"]).more("[[topic]]\nname = 'b'\npaused = true");
    under_load(&bed, &["a", "b", "c"], || {
        ["a", "b"].iter().for_each(|topic| await_more_in(&bed, "g", topic));
        reload(&bed, &worker, &paused);
        worker.wait_words(&["configuration reloaded added=- removed=- changed=g paused=b resumed=- unchanged=0"]);
        let at = arrived(&bed, "b");
        ["a", "c"].iter().for_each(|topic| await_more_in(&bed, "g", topic));
        assert_eq!(arrived(&bed, "b"), at);
        assert_eq!(bed.server.committed("g", "b", 0), Some(i64::try_from(at).unwrap()));
        reload(&bed, &worker, &config(&["a", "b", "c"]));
        ["a", "b", "c"].iter().for_each(|topic| await_more_in(&bed, "g", topic));
    });
    for topic in ["a", "b", "c"] {
        let end = bed.server.bounds(topic, 0).unwrap().1;
        bed.server.await_committed("g", topic, 0, end, PATIENCE);
        bed.assert_all(topic, 0);
    }
    assert_eq!(bed.stop(worker).lines_with(&["WARN"]), [""; 0]);
}

#[test]
fn fifty_hangups_with_a_file_that_changes_all_the_time() {
    let bed = Bed::new(&["a", "b", "still"]);
    let configs = [
        bed.config(&["a", "b", "still"]),
        bed.config(&["a", "still"]).more("[[topic]]\nname = 'a'\nmax_poll_records = 3"),
        bed.config(&["a", "b", "still"]).more("[[topic]]\nname = 'a'\npaused = true"),
    ];
    let worker = bed.started(&configs[0]);
    under_load(&bed, &["a", "b", "still"], || {
        for turn in 0..50 {
            let next = bed.site.path("next.toml");
            let text = configs[turn % 3].to_string().replace("@DIR@", &bed.site.path("").display().to_string());
            std::fs::write(&next, text).unwrap();
            // As editors do: the file is whole at any moment.
            std::fs::rename(&next, bed.site.path("consumer.toml")).unwrap();
            worker.signal("HUP");
            if turn % 7 == 0 {
                await_more(&bed, "still");
            }
        }
        reload(&bed, &worker, &configs[0]);
    });
    ["a", "b", "still"].iter().for_each(|topic| bed.await_all(topic, 0));
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
}

#[test]
fn a_stop_in_the_middle_of_a_reload_ends_in_time() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 10);
    let config = bed.config(&["t"]).set("sink.out", "path", "'/dev/full'").set("shutdown", "drain_timeout_ms", 1_000);
    let worker = bed.started(&config);
    worker.wait_words(&["sink fails"]);
    // Its drain does not end by itself, so the reload is under way for as long.
    let changed = config.more("[[topic]]\nname = 't'\nmax_poll_records = 3");
    let from = ask(&bed, &worker, &changed);
    worker.wait_words_after(from, &["configuration reloaded", "changed=t"]);
    let asked = Instant::now();
    let ended = bed.stop(worker);
    assert!(asked.elapsed() < Duration::from_secs(6), "it took {:?}", asked.elapsed());
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert_eq!(ended.lines_with(&["threads did not end in time"]), [""; 0]);
    assert_eq!(bed.committed("t"), Some(0));
}

/// The sink of one topic stands still: that topic's drain does not end, and its next run waits until the sink
/// has let go of what it holds. All others go on, and come and go.
#[test]
fn a_consumer_whose_sink_stands_still_is_given_up_and_its_next_run_waits_for_the_sink() {
    let bed = Bed::new(&["s", "a", "b"]);
    let config = |topics: &[&str], quota: usize| {
        let more = format!("[[topic]]\nname = 's'\nsink = 'stdout'\nmax_poll_records = {quota}");
        bed.config(topics).set("shutdown", "drain_timeout_ms", 300).more(&more)
    };
    let mut command = Worker::command();
    command.arg("-c").arg(bed.site.write_config(&config(&["s", "a"], 50).to_string()));
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(Stdio::from(writer));
    let worker = Worker::spawn_as_it_is(command);
    worker.wait_started();
    // More than a pipe holds, and nobody reads it.
    bed.fill("s", 3_000);
    bed.fill("a", 10);
    bed.await_all("a", 0);
    eventually("some of it is committed, or none ever will", || bed.committed("s").is_some());

    let from = ask(&bed, &worker, &config(&["s", "a", "b"], 20));
    bed.fill("b", 10);
    bed.await_all("b", 0);
    worker.wait_words_after(from, &["WARN", "consumer did not drain in time thread=consumer:s"]);
    worker.wait_words_after(from, &["reload complete", "waiting=s"]);
    assert_eq!(worker.count(&["consumer started topic=s"]), 1);
    bed.fill("a", 10);
    bed.await_all("a", 0);

    let lines = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.map(|line| Rec::parse(&line)).collect::<Vec<_>>()
    });
    eventually("its next run starts", || worker.count(&["consumer started topic=s"]) == 2);
    bed.await_committed("s", 0, 3_000);
    assert_eq!(bed.stop(worker).lines_with(&["ERROR"]), [""; 0]);
    let mut offsets = sink::offsets(&lines.join().unwrap(), "s", 0);
    let again = offsets.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!(again <= 1, "it went back once, to the committed offset: {again}");
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets, (0..3_000).collect::<Vec<_>>(), "none is missing");
}

#[test]
fn a_topic_that_is_paused_at_the_start_is_shown_so_and_goes_on_where_its_group_was() {
    let bed = Bed::new(&["a", "p"]);
    bed.fill("p", 10);
    let running = bed.config(&["a", "p"]);
    let worker = bed.started(&running);
    bed.await_all("p", 0);
    bed.stop(worker);
    bed.fill("p", 10);
    let paused =
        running.clone().more("[[topic]]\nname = 'p'\npaused = true").set("gate", "required_topics", "['a', 'p']");
    let file = bed.site.write_config(&paused.to_string());
    let check = Command::new(env!("CARGO_BIN_EXE_worker")).arg("check").arg("-c").arg(file).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("correct; topics=2 paused=1"), "{said}");
    assert!(
        said.lines()
            .any(|line| line.starts_with("paused ") && line.contains("= true ") && line.contains("[[topic]] line")),
        "{said}"
    );
    let worker = bed.started(&paused);
    worker.wait_words(&["INFO", "topics paused topics=p"]);
    bed.fill("a", 10);
    // The gate does not wait for it.
    bed.await_all("a", 0);
    assert_eq!((arrived(&bed, "p"), bed.committed("p")), (10, Some(10)));
    reload(&bed, &worker, &running.set("gate", "required_topics", "['a', 'p']"));
    worker.wait_words(&["continuing topic=p partition=0 offset=10"]);
    bed.await_all("p", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("p"), "delivered=10 committed=20 in_flight=0 expired=0 reset=0");
    let worker = bed.started(&paused);
    assert_eq!(bed.stop(worker).sums("p"), "delivered=0 committed=- in_flight=0 expired=0 reset=0 state=paused");
}

#[test]
fn a_gate_does_not_wait_for_a_topic_that_was_removed() {
    let bed = Bed::new(&["a", "b"]);
    let config = |topics: &[&str], required: &str| {
        bed.config(topics).set("gate", "required_topics", required).set("gate", "max_attempts", 1_000)
    };
    bed.fill("a", 10);
    let worker = bed.started(&config(&["a", "b"], "['a', 'b']"));
    reload(&bed, &worker, &config(&["a"], "['a']"));
    worker.wait_words(&["gate open"]);
    bed.await_all("a", 0);
    assert_eq!(worker.count(&["restart needed"]), 0);
    assert_eq!(bed.stop(worker).lines_with(&["WARN"]), [""; 0]);
}

#[test]
fn the_observer_follows_and_its_settings_and_the_brokers_can_be_changed() {
    let bed = Bed::new(&["a", "f"]);
    let worker = bed.started(&bed.config(&["a"]).set("shutdown", "drain_timeout_ms", 300));
    let with = |more: &str| {
        let config =
            bed.config(&["a", "f"]).set("shutdown", "drain_timeout_ms", 300).set("kafka", "client_id", "'other'");
        let config = config.set("observe", "interval_ms", 100).set("watchdog", "stall_timeout_ms", 1_000);
        config.set("sink.full", "type", "'file'").set("sink.full", "path", "'/dev/full'").more(more)
    };
    bed.fill("f", 10);
    reload(&bed, &worker, &with("[[topic]]\nname = 'f'\nsink = 'full'"));
    worker.wait_words(&["changed=a ", "added=f "]);
    worker.wait_words(&["WARN", "topic stalled topic=f group_id=g-f"]);
    bed.fill("a", 10);
    bed.await_all("a", 0);
    // A sink that fails holds its drain up; paused, it is nobody's stall.
    reload(&bed, &worker, &with("[[topic]]\nname = 'f'\nsink = 'full'\npaused = true"));
    let seen = bed.server.requests(broker::Api::OffsetFetch);
    eventually("more rounds", || bed.server.requests(broker::Api::OffsetFetch) > seen + 30);
    assert_eq!(worker.count(&["topic stalled"]), 1);
    assert_eq!(worker.count(&["consumer restarts"]), 0);
}
