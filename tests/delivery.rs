//! Given this topic, these records arrive, each once and in order, and these offsets are committed.

use broker::{Codec, Options, Server};

use crate::support::worker::{Config, PATIENCE, Site, sink};

#[test]
fn a_topic_is_delivered_and_committed_to_its_end() {
    let server = Server::start(Options::default()).unwrap();
    server.create_topic("t", 1).unwrap();
    server.append("t", 0, &[("a", "1"), ("b", "2"), ("c", "3")], Codec::None).unwrap();
    let site = Site::new();
    let worker = site.start(&Config::new(&server.bootstrap(), &["t"]).to_string());
    let records = site.wait_records(3, PATIENCE);
    assert_eq!(sink::offsets(&records, "t", 0), [0, 1, 2]);
    assert!(server.await_committed("g-t", "t", 0, 3, PATIENCE));
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.sums("t"), "delivered=3 committed=3 in_flight=0 expired=0 reset=0");
}
