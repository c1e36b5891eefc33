//! Given a position outside the log, the worker goes on where `on_out_of_range` says, and says so.
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::http::{address, get};
use crate::support::worker::{Config, PATIENCE};

for_clients!(
    a_committed_offset_that_the_log_no_longer_has,
    a_position_that_is_lost_in_the_middle_of_a_run,
    a_topic_that_stops_says_so_and_commits_nothing,
    a_lost_position_is_left_only_when_its_records_are_delivered,
);

/// The policies, as the configuration has them, and where each goes on: at the log start (`true`) or
/// at its end, from below the log start and from beyond the log end.
const POLICIES: [(&str, &str, bool, bool); 6] = [
    ("earliest", "on_out_of_range = 'earliest'\nauto_offset_reset = 'latest'", true, true),
    ("latest", "on_out_of_range = 'latest'\nauto_offset_reset = 'earliest'", false, false),
    ("nearest", "on_out_of_range = 'nearest'\nauto_offset_reset = 'latest'", true, false),
    ("reset-earliest", "on_out_of_range = 'auto_offset_reset'\nauto_offset_reset = 'earliest'", true, true),
    ("reset-latest", "on_out_of_range = 'auto_offset_reset'\nauto_offset_reset = 'latest'", false, false),
    ("default", "", true, true),
];

fn config(bed: &Bed, names: &[&str]) -> Config {
    let with_policy = |config: Config, name: &&str| {
        let (_, keys, ..) = POLICIES.iter().find(|(policy, ..)| name.starts_with(policy)).unwrap();
        config.more(&format!("[[topic]]\nname = '{name}'\n{keys}"))
    };
    names.iter().fold(bed.config(names), with_policy)
}

/// Below the log start and beyond the log end, at the start of the worker.
fn a_committed_offset_that_the_log_no_longer_has(client: Library) {
    let names: Vec<String> =
        POLICIES.iter().flat_map(|(name, ..)| [format!("{name}-below"), format!("{name}-beyond")]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&names).by(client);
    for name in &names {
        bed.fill(name, 30);
        bed.server.with_log(name, 0, |log| log.delete_records(20)).unwrap();
        let lost = if name.ends_with("below") { 5 } else { 50 };
        bed.server.set_committed(&format!("g-{name}"), name, 0, Some(lost));
    }
    let worker = bed.started(&config(&bed, &names));
    // Each jump is committed before the first record behind it would be; then one record more.
    for name in &names {
        worker.wait_words(&["WARN", "position out of range", &format!("topic={name} ")]);
        bed.fill(name, 1);
    }
    for (policy, _, below_at_start, beyond_at_start) in POLICIES {
        for (side, lost, at_start) in [("below", 5, below_at_start), ("beyond", 50, beyond_at_start)] {
            let name = format!("{policy}-{side}");
            let group = format!("g-{name}");
            let to = if at_start { 20 } else { 30 };
            // A committed offset beyond the end is taken back, so it falls; the end comes again with 31.
            let ends = || bed.server.committed(&group, &name, 0) == Some(31);
            crate::support::eventually(&format!("{name}: 31 is committed"), ends);
            assert_eq!(bed.arrived_offsets(&name, 0), (to..31).collect::<Vec<_>>(), "{name}");
            let line = worker.wait_words(&["position out of range", &format!("topic={name} ")]);
            let (expired, skipped) = match (side, at_start) {
                ("below", true) => (15, 0),
                ("below", false) => (15, 10),
                _ => (0, 0),
            };
            let said = format!(
                "lost_offset={lost} log_start=20 log_end=30 new_offset={to} expired={expired} skipped_by_policy={skipped}"
            );
            assert!(line.contains(&said), "{line}\nshould say {said}");
        }
    }
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("latest-below"), "delivered=1 committed=31 in_flight=0 expired=15 reset=10");
}

/// The log is cut while the worker runs: retention overtakes it, or an unclean election takes its end.
fn a_position_that_is_lost_in_the_middle_of_a_run(client: Library) {
    let names: Vec<String> =
        POLICIES.iter().flat_map(|(name, ..)| [format!("{name}-below"), format!("{name}-beyond")]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&names).by(client);
    for name in &names {
        bed.fill(name, 10);
        bed.server.set_committed(&format!("g-{name}"), name, 0, Some(0));
    }
    let worker = bed.started(&config(&bed, &names));
    for name in &names {
        bed.await_committed(name, 0, 10);
    }
    for name in &names {
        // In one step, as if it had happened between two fetches.
        let cut = |log: &mut broker::Log| {
            if name.ends_with("below") {
                log.append((0..10).map(crate::support::bed::numbered), broker::Codec::None);
                log.delete_records(15);
            } else {
                log.truncate(0);
                log.append((0..5).map(crate::support::bed::numbered), broker::Codec::None);
            }
        };
        bed.server.with_log(name, 0, cut).unwrap();
    }
    for name in &names {
        worker.wait_words(&["WARN", "position out of range", &format!("topic={name} "), "lost_offset=10"]);
        bed.fill(name, 1);
    }
    for (policy, _, below_at_start, beyond_at_start) in POLICIES {
        for (side, at_start, start, end) in [("below", below_at_start, 15, 20), ("beyond", beyond_at_start, 0, 5)] {
            let name = format!("{policy}-{side}");
            let group = format!("g-{name}");
            let ends = || bed.server.committed(&group, &name, 0) == Some(end + 1);
            crate::support::eventually(&format!("{name}: {} is committed", end + 1), ends);
            let from = if at_start { start } else { end };
            let expected: Vec<i64> = (0..10).chain(from..=end).collect();
            assert_eq!(bed.arrived_offsets(&name, 0), expected, "{name}");
        }
    }
    bed.stop(worker);
}

fn a_topic_that_stops_says_so_and_commits_nothing(client: Library) {
    let bed = Bed::new(&["stop", "other"]).by(client);
    bed.fill("stop", 30);
    bed.server.with_log("stop", 0, |log| log.delete_records(20)).unwrap();
    bed.server.set_committed("g-stop", "stop", 0, Some(5));
    let config = bed.config(&["stop", "other"]).set("consumer", "on_out_of_range", "'stop'");
    let config = config.set("admin", "listen", "'127.0.0.1:0'");
    let worker = bed.started(&config);
    let line = worker.wait_words(&["ERROR", "position out of range, stopped topic=stop partition=0"]);
    assert!(line.contains("offset 5 is outside the log (log_start=20 log_end=30)"), "{line}");
    assert!(line.contains("set an offset for group g-stop"), "{line}");
    let ready = || get(address(&worker), "/readyz");
    let said = "can't be read: topic=stop partition=0: it stopped at offset 5, which is out of range (on_out_of_range";
    eventually("it is not ready, and says why", || ready().status == 503 && ready().body.starts_with(said));
    bed.fill("other", 10);
    bed.await_all("other", 0);
    bed.stop(worker);
    assert_eq!(bed.committed("stop"), Some(5));
    assert!(bed.arrived("stop", 0).is_empty());
}

/// A commit behind the jump would pass over records that the sink has not taken yet.
fn a_lost_position_is_left_only_when_its_records_are_delivered(client: Library) {
    let bed = Bed::new(&["t", "other"]).by(client);
    let config = bed
        .config(&["t", "other"])
        .set("sink.full", "type", "'file'")
        .set("sink.full", "path", "'/dev/full'")
        .set("shutdown", "drain_timeout_ms", 300)
        .more("[[topic]]\nname = 't'\nsink = 'full'");
    let worker = bed.started(&config);
    bed.fill("t", 10);
    worker.wait_words(&["sink fails"]);
    let looks = bed.server.requests(broker::Api::ListOffsets);
    let cut = |log: &mut broker::Log| {
        log.append((0..10).map(crate::support::bed::numbered), broker::Codec::None);
        log.delete_records(15);
    };
    bed.server.with_log("t", 0, cut).unwrap();
    assert!(bed.server.await_requests(broker::Api::ListOffsets, looks + 1, PATIENCE));
    for _ in 0..3 {
        bed.fill("other", 10);
        bed.await_all("other", 0);
    }
    let ended = bed.stop(worker);
    assert_eq!(bed.committed("t"), Some(0));
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    // The records that were in flight are gone from the log too, which is said at the next start.
    let worker = bed.started(&bed.config(&["t", "other"]));
    worker.wait_words(&["WARN", "position out of range topic=t", "lost_offset=0 log_start=15", "expired=15"]);
    bed.await_committed("t", 0, 20);
    bed.stop(worker);
}
