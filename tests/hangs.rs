//! Given a broker that accepts requests of some kind, or all, and does not answer: what does not need it goes
//! on, and what does goes on soon after it answers again, however long it lasted.

use std::time::{Duration, Instant};

use broker::{Api, Codec, Fault, Order};
use worker::client::reading::Library;

use crate::faults::{hasty, three_brokers};
use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::worker::PATIENCE;

for_clients!(one_broker_of_three_does_not_answer, one_broker_of_three_hangs_from_the_start, fetches_hang_for_long,);

/// Between two tries lies a second at most, and a request that hangs takes less; doubled for busy machines.
const SOON: Duration = Duration::from_secs(6);

/// What is said of a fetch that is not answered: who asks is a link, or librdkafka, of which only the partitions are seen.
fn hung(client: Library) -> &'static [&'static str] {
    match client {
        Library::Kafka => &["WARN", "consumer in trouble", "group_id=g-t"],
        Library::Librdkafka => &["WARN", "partition fails topic=t", "group_id=g-t"],
    }
}

/// The broker holds back the answers for one partition; the others do not wait for it.
fn one_broker_of_three_does_not_answer(client: Library) {
    let bed = three_brokers(client);
    let worker = bed.started(&hasty(&bed, &["t"]));
    let order = bed.server.order(Order::new(Api::Fetch, Fault::Hang).broker(1).always());
    (0..3).for_each(|partition| bed.fill_as("t", partition, 20, Codec::None));
    bed.await_all("t", 0);
    bed.await_all("t", 2);
    let line = worker.wait_words(hung(client));
    assert!(line.contains("did not answer Fetch within"), "{line}");
    bed.server.cancel(order);
    bed.await_all("t", 1);
    bed.stop(worker);
}

/// It is neither asked first nor the group's coordinator.
fn one_broker_of_three_hangs_from_the_start(client: Library) {
    let bed = three_brokers(client);
    bed.server.move_coordinator("g-t", 2);
    (0..3).for_each(|partition| bed.fill_as("t", partition, 20, Codec::None));
    let order = bed.server.order(Order::any(Fault::Hang).broker(1).always());
    let others: Vec<String> = [0, 2].map(|broker| bed.server.bootstrap()[broker].clone()).to_vec();
    let worker = bed.start(&hasty(&bed, &["t"]).set("kafka", "bootstrap_servers", format!("{others:?}")));
    bed.await_all("t", 0);
    bed.await_all("t", 2);
    let line = worker.wait_words(&["WARN", "partition fails topic=t partition=1"]);
    assert!(line.contains("did not answer ApiVersions within"), "{line}");
    bed.server.cancel(order);
    bed.await_all("t", 1);
    worker.wait_words(&["INFO", "partition is read again topic=t partition=1"]);
    bed.stop(worker);
}

/// Longer than all threads together may hang that the client library needs for its fetches.
fn fetches_hang_for_long(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let worker = bed.started(&hasty(&bed, &["t"]));
    bed.fill("t", 10);
    bed.await_all("t", 0);
    let order = bed.server.order(Order::new(Api::Fetch, Fault::Hang).always());
    worker.wait_words(hung(client));
    let asked = bed.server.requests(Api::Fetch);
    assert!(bed.server.await_requests(Api::Fetch, asked + 10, PATIENCE * 2), "it is asked again and again");
    bed.fill("t", 10);
    bed.server.cancel(order);
    let over = Instant::now();
    bed.await_all("t", 0);
    assert!(over.elapsed() < SOON, "{:?}", over.elapsed());
    bed.stop(worker);
}

/// What the group has can't be read back; commits do not need that.
#[test]
fn reading_back_hangs_for_long() {
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&hasty(&bed, &["t"]).set("kafka", "metadata_max_age_ms", 100));
    let order = bed.server.order(Order::new(Api::OffsetFetch, Fault::Hang).always());
    for _ in 0..6 {
        let asked = bed.server.requests(Api::OffsetFetch);
        assert!(bed.server.await_requests(Api::OffsetFetch, asked + 1, PATIENCE), "it is read back again and again");
        bed.fill("t", 10);
        bed.await_all("t", 0);
    }
    bed.server.cancel(order);
    assert_eq!(worker.count(&["WARN"]), 0);
    bed.stop(worker);
}

/// However long a broker was away, the waits between two tries to connect do not grow beyond half a second. With
/// librdkafka's own longest wait, 10 s, it took 0.9 to 3.7 s here instead of 0.1 to 0.9 s.
#[cfg(feature = "librdkafka")]
#[test]
fn librdkafka_finds_a_broker_again_soon_after_a_long_time() {
    let bed = Bed::new(&["t"]).by(Library::Librdkafka);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    bed.server.stop(0).unwrap();
    // The time itself is what is tried here: doubled waits would have come to five seconds by then.
    std::thread::sleep(Duration::from_secs(7));
    bed.fill("t", 50);
    bed.server.start_again(0).unwrap();
    let back = Instant::now();
    bed.await_all("t", 0);
    println!("read again {:?} after the broker was back", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(2), "it took {:?}", back.elapsed());
    bed.stop(worker);
}
