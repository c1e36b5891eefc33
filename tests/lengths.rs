//! Given an answer whose lengths lie (row 9), the worker neither grows nor loses a record. Where the
//! `kafka` crate believes a number that no memory can hold, the process is aborted, and a new one goes on.

use std::os::unix::process::ExitStatusExt as _;

use broker::{Api, Fault, Order};
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::{Bed, SHORT};
use crate::support::eventually;
use crate::support::worker::{Config, Ended, Worker};

for_clients!(row_9_lengths_that_no_answer_can_have, row_9_arrays_of_two_billion,);

/// Far below the 2 GB that the answers claim, far above what a worker needs for ten records; a process
/// that aborts may need some 70 MB for the symbols of its backtrace.
const MODEST: u64 = 256 << 20;
const SIGABRT: i32 = 6;

/// A worker whose process is started again when it was aborted, as an init system does.
struct Restarted<'a> {
    bed: &'a Bed,
    config: &'a Config,
    worker: Worker,
    aborts: u32,
}

impl Restarted<'_> {
    /// Waits until the fault has struck and all that the log holds is delivered and committed.
    #[track_caller]
    fn await_all(&mut self, struck: impl Fn(&Bed) -> bool) {
        eventually("the fault strikes, and everything is committed after it", || {
            if !self.worker.is_running() {
                let ended = std::mem::replace(&mut self.worker, self.bed.start(self.config)).kill9();
                assert_aborted(&ended);
                self.aborts += 1;
            }
            let rss = self.worker.peak_rss_if_running().unwrap_or(0);
            assert!(rss < MODEST, "{rss} bytes");
            struck(self.bed) && self.bed.committed("t") == Some(self.bed.server.bounds("t", 0).unwrap().1)
        });
    }

    /// Stops it, which ends well, unless it was just about to abort. Returns how often it did.
    #[track_caller]
    fn stop(self) -> u32 {
        let ended = self.worker.stop();
        if ended.code() == Some(0) {
            return self.aborts;
        }
        assert_aborted(&ended);
        self.bed.stop(self.bed.started(self.config));
        self.aborts + 1
    }
}

#[track_caller]
fn assert_aborted(ended: &Ended) {
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{}", ended.log.join("\n"));
    assert!(!ended.lines_with(&["memory allocation of"]).is_empty(), "{}", ended.log.join("\n"));
}

/// Lets the fault strike an answer of a start, and, if `running`, one of a worker that runs.
#[track_caller]
fn survives(client: Library, api: Api, fault: &Fault, running: bool) {
    let bed = Bed::new(&["t"]).by(client);
    let config = bed.config(&["t"]).set("kafka", "request_timeout_ms", SHORT.as_millis());
    bed.fill("t", 10);
    let order = bed.server.order(Order::new(api, fault.clone()));
    let mut restarted = Restarted { bed: &bed, config: &config, worker: bed.start(&config), aborts: 0 };
    restarted.await_all(|bed| !bed.server.is_pending(order));
    if running {
        let order = bed.server.order(Order::new(api, fault.clone()));
        bed.fill("t", 10);
        restarted.await_all(|bed| !bed.server.is_pending(order));
    }
    let aborts = restarted.stop();
    println!("{api:?} {fault:?}: {aborts} aborts");
    let mut arrived = bed.arrived("t", 0);
    if aborts == 0 {
        bed.assert_all("t", 0);
    }
    // An abort is a kill: what was not committed came again.
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived, bed.held("t", 0), "{api:?} {fault:?}");
}

fn row_9_lengths_that_no_answer_can_have(client: Library) {
    for api in [Api::Fetch, Api::Metadata, Api::OffsetCommit] {
        survives(client, api, &Fault::Length(i32::MAX), true);
    }
    for api in [Api::ListOffsets, Api::OffsetFetch, Api::FindCoordinator, Api::ApiVersions] {
        survives(client, api, &Fault::Length(i32::MAX), false);
    }
}

fn row_9_arrays_of_two_billion(client: Library) {
    for api in [Api::Fetch, Api::Metadata, Api::OffsetCommit] {
        survives(client, api, &Fault::Count(i32::MAX), true);
    }
    for api in [Api::ListOffsets, Api::OffsetFetch, Api::ApiVersions] {
        survives(client, api, &Fault::Count(i32::MAX), false);
    }
}
