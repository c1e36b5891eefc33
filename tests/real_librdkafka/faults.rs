//! Brokers that go and come back, seeks under load, a consumer without room.

use worker::client::reader::Reader;

use super::*;

#[test]
fn seeks_back_and_forth_under_load_bring_nothing_of_the_place_that_was_left() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("seeks");
    kafka.tool().create(&topic, "2", PLAIN);
    for partition in [0, 1] {
        kafka.tool().produce(&Produce { partition: Some(partition), ..Produce::new(&topic, 50_000) });
    }
    // The harness asserts that each span begins where the last seek or the last span said.
    let mut harness = Harness::new(&kafka.bootstrap, Settings { memory: 4 << 20, ..Settings::default() });
    harness.keep = false;
    let mut to = 7_i64;
    let other = harness.seek(&topic, 1, 0);
    for round in 0..300 {
        to = (to * 7_919 + 13) % 50_000;
        let part = harness.seek(&topic, 0, to);
        // From none to some turns of reading between two seeks.
        for _ in 0..round % 4 {
            harness.turn();
        }
        if round % 10 == 0 {
            harness.until("some of it is read", |h| h.position(&part) > to);
        }
    }
    let part = harness.seek(&topic, 0, 0);
    harness.keep = true;
    harness.until("all is read", |h| h.position(&part) == 50_000 && h.position(&other) == 50_000);
    let records = harness.records(&part);
    assert!(records.iter().enumerate().all(|(n, record)| record.offset == n as i64));
    assert_eq!(records.len(), 50_000);
}

#[test]
fn what_comes_is_told_also_when_batches_of_an_earlier_seek_are_done_late() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("late");
    kafka.tool().create(&topic, "1", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 10));
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    harness.held = Some(Vec::new());
    let part = harness.seek(&topic, 0, 0);
    harness.until("all are read", |h| h.position(&part) == 10);
    let earlier = harness.held.take();
    harness.seek(&topic, 0, 0);
    harness.until("all are read again", |h| h.position(&part) == 10);
    drop(earlier);
    // Back to the thread that took them.
    harness.turn();
    let mut waited = Duration::ZERO;
    for next in 10..15 {
        kafka.tool().produce(&Produce { first: next, ..Produce::new(&topic, 1) });
        let written = Instant::now();
        harness.when_ready(&part, next as i64 + 1);
        waited += written.elapsed();
    }
    // Without a signal each waits for the next statistics, five seconds.
    assert!(waited < Duration::from_secs(8), "{waited:?}");
}

#[test]
fn without_room_nothing_is_taken_and_with_room_all_of_it() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("no-room");
    kafka.tool().create(&topic, "1", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 20_000));
    let mut harness = Harness::new(&kafka.bootstrap, Settings { memory: 1 << 20, ..Settings::default() });
    harness.room = 0;
    let part = harness.seek(&topic, 0, 0);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        harness.turn();
    }
    assert_eq!(harness.position(&part), 0);
    harness.room = 1 << 20;
    harness.until("all is read", |h| h.position(&part) == 20_000);
    assert_eq!(harness.records(&part).len(), 20_000);
}

#[test]
fn a_broker_that_was_killed_is_read_again_soon_after_its_return() {
    kafka_or_skip!();
    let kafka = Kafka::node(&[]);
    let topic = Kafka::name("killed");
    kafka.tool().create(&topic, "1", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 100));
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    harness.until("the first are read", |h| h.position(&part) == 100);
    kafka.kill(0);
    let down = Instant::now();
    harness.until("it is told", |h| h.failing(&part).is_some());
    assert!(down.elapsed() < Duration::from_secs(15), "{:?}", down.elapsed());
    assert!(matches!(harness.failing(&part), Some(Fault::Unreachable { .. })), "{:?}", harness.failing(&part));
    kafka.start(0);
    let up = Instant::now();
    kafka.tool().produce(&Produce { first: 100, ..Produce::new(&topic, 100) });
    let written = Instant::now();
    harness.until("the next are read", |h| h.position(&part) == 200);
    println!("read {:?} after the broker was up, {:?} after they were written", up.elapsed(), written.elapsed());
    assert!(written.elapsed() < Duration::from_secs(4), "{:?}", written.elapsed());
    harness.until("it is well", |h| h.failing(&part).is_none());
    let failing = harness.events.iter().filter(|event| matches!(event, Event::Failing(..))).count();
    assert_eq!(failing, 1, "one line for one trouble: {:?}", harness.events);
    assert!(told(&harness.events, |event| matches!(event, Event::Recovered(_))));
}

#[test]
fn an_idle_partition_recovers_without_a_record() {
    kafka_or_skip!();
    let kafka = Kafka::node(&[]);
    let topic = Kafka::name("idle-again");
    kafka.tool().create(&topic, "1", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 1));
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    harness.until("it is read", |h| h.position(&part) == 1);
    kafka.kill(0);
    harness.until("it is told", |h| h.failing(&part).is_some());
    kafka.start(0);
    let up = Instant::now();
    harness.until("it is well", |h| h.failing(&part).is_none());
    // With the next statistics but one at the latest.
    assert!(up.elapsed() < Duration::from_secs(15), "{:?}", up.elapsed());
    assert_eq!(harness.position(&part), 1);
}

#[test]
fn a_partition_without_leader_is_told_and_its_return_too() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("leaderless");
    kafka.tool().create(&topic, "1", PLAIN);
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while harness.failing(&part) != Some(Fault::NoLeader) {
        assert!(Instant::now() < deadline, "{:?}", harness.events);
        // As each survey tells it.
        harness.lead(&part, None);
        harness.turn();
    }
    harness.lead(&part, Some(kafka.address(0)));
    harness.until("it is well", |h| h.failing(&part).is_none());
}

#[test]
fn brokers_that_were_never_reached_are_told_of() {
    let [port] = crate::support::kafka::free_ports(1)[..] else { panic!("one port") };
    let mut harness = Harness::new(&format!("127.0.0.1:{port}"), Settings::default());
    let part = harness.seek("t", 0, 0);
    harness.until("it is told", |h| h.failing(&part).is_some());
    let text = harness.failing(&part).unwrap().to_string();
    assert!(text.contains("Connection refused") && text.contains(&port.to_string()), "{text}");
}

#[test]
fn a_topic_that_is_deleted_fails_and_others_are_read() {
    let kafka = kafka_or_skip!();
    let (gone, stays) = (Kafka::name("gone"), Kafka::name("stays"));
    for topic in [&gone, &stays] {
        kafka.tool().create(topic, "1", PLAIN);
        kafka.tool().produce(&Produce::new(topic, 10));
    }
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let (part, other) = (harness.seek(&gone, 0, 0), harness.seek(&stays, 0, 0));
    harness.until("both are read", |h| h.position(&part) == 10 && h.position(&other) == 10);
    kafka.tool().delete(&gone);
    kafka.tool().produce(&Produce { first: 10, ..Produce::new(&stays, 10) });
    harness.until("the other is read on", |h| h.position(&other) == 20);
    harness.reader.remove(&part);
    assert_eq!(harness.reader.state(&part), None);
    kafka.tool().produce(&Produce { first: 20, ..Produce::new(&stays, 10) });
    harness.until("the other is read on", |h| h.position(&other) == 30);
}

#[test]
fn a_damaged_batch_is_named_and_nothing_behind_it_is_delivered() {
    kafka_or_skip!();
    let kafka = Kafka::node(&[]);
    let topic = Kafka::name("damaged");
    kafka.tool().create(&topic, "2", PLAIN);
    let produce = |partition, first| {
        let configs = "linger.ms=200";
        kafka.tool().produce(&Produce { partition: Some(partition), first, configs, ..Produce::new(&topic, 10) });
    };
    (0..3).for_each(|batch| produce(0, batch * 10));
    produce(1, 0);
    // In good order, so that the log is not looked through at the next start.
    kafka.stop(0);
    let segment = kafka.partition_dir(0, &topic, 0).join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.windows(12).position(|part| part == b"000000000015").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    kafka.start(0);
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let (part, other) = (harness.seek(&topic, 0, 0), harness.seek(&topic, 1, 0));
    harness.until("it is told", |h| h.failing(&part).is_some());
    let Some(Fault::Corrupt { offset }) = harness.failing(&part) else { panic!("{:?}", harness.failing(&part)) };
    // How many records a producer puts into its first batch is its own choice.
    let place = harness.position(&part);
    assert!((10..=15).contains(&place) && offset.get() == place, "{offset} {place}");
    produce(1, 10);
    harness.until("the other partition is read", |h| h.position(&other) == 20);
    assert_eq!(harness.position(&part), place);
    // Passed over by whoever decides so.
    harness.seek(&topic, 0, 20);
    harness.until("what is behind it is read", |h| h.position(&part) == 30 && h.failing(&part).is_none());
}
