//! Given a network or a broker that swallows what it is sent, without a word: it is noticed within the time
//! that a request may take, and the worker goes on soon after it is over.

use std::time::{Duration, Instant};

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Produce;
use crate::support::proxy::{Network, Proxy};
use crate::support::worker::{Site, sink};

/// How long a request may take in this test, beyond the time that a fetch may be held.
const REQUEST: Duration = Duration::from_millis(1_500);
/// Between two tries lies a second at most, and a try may have to go through a survey first; doubled for
/// busy machines.
const BACK: Duration = Duration::from_secs(10);

#[test]
fn a_black_hole_is_noticed_in_time_and_left_soon_after_it_is_over() {
    let proxies = [Proxy::new()];
    let kafka = kafka_or_skip!(Kafka::behind(&proxies));
    let [proxy] = &proxies;
    let tool = kafka.tool();
    tool.create("t", "2", "");
    let mut end = 0;
    let mut produce = || {
        for partition in [Some(0), Some(1)] {
            tool.produce(&Produce { partition, first: end, ..Produce::new("t", 50) });
        }
        end += 50;
        end as i64
    };
    let config = kafka.config("g", &["t"]).set("kafka", "bootstrap_servers", format!("{:?}", [proxy.address()])).set(
        "kafka",
        "request_timeout_ms",
        REQUEST.as_millis(),
    );
    let site = Site::new();
    let await_all = |end: i64| (0..2).for_each(|partition| kafka.await_committed("g-t", "t", partition, end));
    // The network, for a moment; the same, and it has forgotten its connections (as behind a NAT or a
    // firewall); longer than all links together may hang; the broker itself.
    for (what, lasts) in [("hole", 0), ("forgetful", 0), ("long and forgetful", 15), ("broker", 0)] {
        // One for each, because a trouble that comes and goes is soon not told each time.
        let worker = site.start(&config.to_string());
        await_all(produce());
        let from = worker.log().len();
        let began = Instant::now();
        match what {
            "broker" => kafka.freeze(0),
            _ => proxy.set(Network::BlackHole),
        }
        let (_, line) = worker.wait_words_after(from, &["WARN", "consumer in trouble", "group_id=g-t"]);
        let noticed = began.elapsed();
        assert!(line.contains("within") || line.contains("no answer"), "{line}");
        let silence = REQUEST + Duration::from_millis(200);
        assert!(noticed < 2 * silence + Duration::from_secs(2), "{what}: noticed after {noticed:?}");
        // The time itself is what is tried here.
        std::thread::sleep(Duration::from_secs(lasts).saturating_sub(began.elapsed()));
        if what.contains("forgetful") {
            proxy.forget();
        }
        match what {
            "broker" => kafka.thaw(0),
            _ => proxy.set(Network::Good),
        }
        let over = Instant::now();
        worker.wait_words_after(from, &["consumer works again", "group_id=g-t"]);
        await_all(produce());
        println!("{what}: noticed after {noticed:?}, all committed {:?} after it was over", over.elapsed());
        assert!(over.elapsed() < BACK, "{what}: {:?}", over.elapsed());
        assert_eq!(worker.stop().code(), Some(0));
    }
    let records = site.records();
    for partition in [0, 1] {
        assert_eq!(sink::offsets(&records, "t", partition), (0..400).collect::<Vec<_>>());
    }
}
