#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admin::status::{ConsumerStatus, SinkStatus, TroubleStatus, VerdictStatus};

fn topic(name: &str, word: &str, lag: i64) -> TopicStatus {
    TopicStatus {
        topic: name.to_owned(),
        group: format!("g-{name}"),
        sink: "out".to_owned(),
        verdict: Some(VerdictStatus { word: word.to_owned(), text: format!("{word}: text"), reason: None }),
        stalled: word == "stalled",
        lag: Some(lag),
        ..TopicStatus::default()
    }
}

fn look(topics: Vec<TopicStatus>) -> Look {
    let histories = topics.iter().map(|_| Arc::default()).collect();
    let status = Status { ready: true, topics, ..Status::default() };
    Look { status, consumers: Vec::new(), histories, sink_failures: Vec::new(), rounds: (0, 0), now: Instant::now() }
}

#[test]
fn the_worst_comes_first() {
    let names =
        [("a", "idle", 0), ("b", "falling-back", 5), ("c", "stalled", 1), ("d", "falling-back", 9), ("e", "idle", 3)];
    let page = topics(&look(names.into_iter().map(|(name, word, lag)| topic(name, word, lag)).collect()));
    let at = |name: &str| page.find(&format!("/topic/{name}\"")).unwrap();
    let mut order = ["a", "b", "c", "d", "e"];
    order.sort_by_key(|name| at(name));
    assert_eq!(order, ["c", "d", "b", "e", "a"]);
    assert!(page.contains("<title>(3) worker</title>"));
}

#[test]
fn nothing_from_outside_becomes_markup() {
    let evil = "<script>alert(\"1\")</script>'&";
    let mut one = topic("t", "stalled", 1);
    one.verdict = Some(VerdictStatus { word: "stalled".to_owned(), text: evil.to_owned(), reason: None });
    one.sink = evil.to_owned();
    one.group = evil.to_owned();
    one.last_error = Some(TroubleStatus { error: evil.to_owned(), age_ms: 0 });
    one.partitions = vec![PartitionStatus { error: Some(evil.to_owned()), ..PartitionStatus::default() }];
    one.consumer = ConsumerStatus {
        trouble: Some(TroubleStatus { error: evil.to_owned(), age_ms: 0 }),
        ..ConsumerStatus::default()
    };
    let mut look = look(vec![one]);
    look.status.process.config = evil.to_owned();
    look.status.observed.error = Some(evil.to_owned());
    look.status.not_ready = vec![evil.to_owned()];
    look.status.sinks = vec![SinkStatus { sink: evil.to_owned(), ..SinkStatus::default() }];
    for page in [topics(&look), super::topic(&look, "t").unwrap()] {
        assert!(!page.contains("<script>") && !page.contains("alert(\""), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;"));
    }
    assert_eq!(super::topic(&look, "u"), None);
}

#[test]
fn what_a_stall_says_itself_is_not_said_twice() {
    let mut one = topic("t", "stalled", 1);
    let reason = "it waits for sink out, which fails: disk full".to_owned();
    one.verdict = Some(VerdictStatus { word: "stalled".to_owned(), text: String::new(), reason: Some(reason) });
    let mut look = look(vec![one]);
    let trouble = Some(TroubleStatus { error: "disk full".to_owned(), age_ms: 5000 });
    look.status.sinks = vec![SinkStatus { sink: "out".to_owned(), trouble, busy_for_ms: None }];
    assert_eq!(topics(&look).matches("disk full").count(), 1);
    look.status.topics[0].verdict = None;
    assert!(topics(&look).contains("<div>sink out fails for 5 s: disk full</div>"));
}

#[test]
fn a_sparkline_stays_inside_its_frame() {
    let now = Instant::now();
    let point = |(age, lag): (u64, i64)| Point { at: now.checked_sub(Duration::from_secs(age)).unwrap(), lag };
    let mut out = String::new();
    spark(&mut out, &[(700, 5), (600, -3), (300, 100), (0, 50)].map(point), now).unwrap();
    assert!(out.contains("points=\"0.0,26.7 0.0,28.0 60.0,2.0 120.0,15.0 120.0,15.0\""), "{out}");
    assert!(out.contains("aria-label=\"lag: first 5, now 50, at most 100\""), "{out}");
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!(Grouped(-1_234_567).to_string(), "−1\u{202f}234\u{202f}567");
    assert_eq!(
        (rate(None), rate(Some(0.25)), rate(Some(12_345.0))),
        ("–".into(), "0.2/s".into(), "12\u{202f}345/s".into())
    );
    assert_eq!(
        [0, 119_000, 120_000, 7_200_000, 172_800_000].map(|ms| Ago(ms).to_string()),
        ["0 s", "119 s", "2 min", "2 h", "2 d"]
    );
}
