//! A diagnosis as text for an operator, and as JSON for monitoring.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::finding::{Facts, Finding};
use crate::state::Running;
use crate::trend::Rates;

/// The whole.
#[derive(Serialize)]
pub(super) struct Report {
    config: String,
    looked_ms: u64,
    /// Something has to be done; the exit code is 1 then.
    pub(super) needs_attention: bool,
    worker: WorkerReport,
    topics: Vec<TopicReport>,
}

/// The worker of this configuration.
#[derive(Serialize)]
pub(super) struct WorkerReport {
    /// `true`, `false`, or `null` if that is not known here.
    running: Option<bool>,
    state_dir: String,
    needs_attention: bool,
    /// In words.
    text: String,
}

/// One topic.
#[derive(Serialize)]
pub(super) struct TopicReport {
    topic: String,
    group: String,
    /// One of a list that does not change.
    verdict: &'static str,
    /// The same for an operator.
    title: &'static str,
    needs_attention: bool,
    evidence: Vec<String>,
    remedy: Vec<String>,
    partitions: Vec<PartitionReport>,
}

/// One partition, at the end of the time.
#[derive(Serialize)]
struct PartitionReport {
    partition: i32,
    current_offset: Option<i64>,
    log_start_offset: Option<i64>,
    log_end_offset: Option<i64>,
    lag: Option<i64>,
    readable: Option<u64>,
    expired: Option<u64>,
    consumed_per_second: Option<f64>,
    produced_per_second: Option<f64>,
}

impl WorkerReport {
    /// `admin`: how the running worker was asked for its own state, in words, if it was; an error if it did not
    /// answer, which may well mean that it hangs.
    pub(super) fn new(dir: &Path, running: &Running, file: &Path, admin: Option<Result<String, String>>) -> Self {
        let (known, text) = match running {
            Running::Yes { .. } => (Some(true), running.to_string()),
            Running::No => (Some(false), format!("{running}; start it: worker -c {}", file.display())),
            Running::Never | Running::Unknown { .. } => (None, running.to_string()),
        };
        let text = format!("{text} (state directory {})", dir.display());
        Self {
            running: known,
            state_dir: dir.display().to_string(),
            needs_attention: *running == Running::No || matches!(admin, Some(Err(_))),
            text: match admin {
                Some(Ok(admin) | Err(admin)) => format!("{text}; {admin}"),
                None => text,
            },
        }
    }
}

impl TopicReport {
    pub(super) fn new(facts: &Facts<'_>, finding: Finding) -> Self {
        let partition = |part: &super::Part| {
            let seen = part.seen.as_ref().ok();
            PartitionReport {
                partition: part.number,
                current_offset: seen.and_then(|seen| seen.committed).map(|at| at.get()),
                log_start_offset: seen.map(|seen| seen.bounds.log_start.get()),
                log_end_offset: seen.map(|seen| seen.bounds.log_end.get()),
                lag: seen.and_then(|seen| seen.lag()),
                readable: seen.map(|seen| seen.readable()),
                expired: seen.map(|seen| seen.expired()),
                consumed_per_second: part.rates.and_then(|rates: Rates| rates.consumed),
                produced_per_second: part.rates.map(|rates| rates.produced),
            }
        };
        Self {
            topic: facts.settings.name.to_string(),
            group: facts.group.name.clone(),
            verdict: finding.kind.word(),
            title: finding.kind.title(),
            needs_attention: finding.kind.needs_attention(),
            evidence: finding.evidence,
            remedy: finding.remedy,
            partitions: facts.parts.iter().map(partition).collect(),
        }
    }
}

impl Report {
    pub(super) fn new(options: &Options, looked: Duration, worker: WorkerReport, topics: Vec<TopicReport>) -> Self {
        Self {
            config: options.config.display().to_string(),
            looked_ms: u64::try_from(looked.as_millis()).unwrap_or(u64::MAX),
            needs_attention: worker.needs_attention || topics.iter().any(|topic| topic.needs_attention),
            worker,
            topics,
        }
    }
}

/// As one JSON object.
pub(super) fn json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

/// For reading: what needs attention first, the rest in the order of the configuration.
pub(super) fn text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "worker: {}", report.worker.text)?;
    let (bad, good): (Vec<&TopicReport>, Vec<&TopicReport>) =
        report.topics.iter().partition(|topic| topic.needs_attention);
    for topic in bad.iter().chain(&good) {
        writeln!(out, "\n{}: {}", topic.topic, topic.title)?;
        topic.evidence.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        topic.remedy.iter().try_for_each(|line| writeln!(out, "  do: {line}"))?;
    }
    let names: Vec<&str> = bad.iter().map(|topic| topic.topic.as_str()).collect();
    let (count, seconds) = (report.topics.len(), report.looked_ms as f64 / 1_000.0);
    match (names.as_slice(), report.worker.needs_attention) {
        ([], false) => writeln!(out, "\nlooked for {seconds:.1} s: {count} topics, none needs attention"),
        ([], true) => writeln!(
            out,
            "\nlooked for {seconds:.1} s: {count} topics, none needs attention; but the worker does, see above"
        ),
        (some, _) => {
            writeln!(
                out,
                "\nlooked for {seconds:.1} s: {count} topics, {} need attention: {}",
                some.len(),
                some.join(", ")
            )
        }
    }
}
