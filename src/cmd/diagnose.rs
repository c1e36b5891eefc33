//! `worker diagnose -c FILE`: why a topic is quiet, and what to do about it.
//!
//! Walks through what an operator would look at by hand: the offsets of each group at both ends of a short time, the
//! members of the group, the batch that is read next, the settings, whether the worker runs and what it says of
//! itself. It joins no group, commits nothing, and leaves nothing behind on disk.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::ask::{self, written};
use super::{FAILURE, OK};
use crate::admin::status::Status;
use crate::client::{Fault, Inspect, Member};
use crate::config::{Config, Mode, SinkSettings, TopicSettings};
use crate::plan::Plan;
use crate::record::{Offset, TopicPartition};
use crate::sample::Watched;
use crate::sink::{exec, file, kafka};
use crate::state::{self, Running};
use crate::trend::{Row, Trends};
use crate::verdict::Verdict;

mod ask_worker;
mod evidence;
mod finding;
mod print;
mod remedy;

use finding::{Facts, Group, Limits, Part, finding};
use print::{Report, TopicReport, WorkerReport};

/// How often the cluster is asked in that time.
const LOOKS: u32 = 10;
/// But not more often than this.
const LEAST: Duration = Duration::from_millis(200);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Only these topics; all if empty.
    pub topics: Vec<String>,
    /// How long to look.
    pub look_for: Duration,
    /// JSON instead of text.
    pub json: bool,
}

/// Prints to `out`; what is wrong to `err`. Returns the exit code: 0 if nothing needs attention, 1 if something does, if the
/// cluster could not be asked or the output not be written, 2 for a wrong configuration or a topic that it does not have.
pub fn diagnose(options: &Options, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (config, watched) = match ask::load(&options.config, &options.topics) {
        Ok(loaded) => loaded,
        Err(wrong) => {
            let _ = writeln!(err, "{wrong}");
            return wrong.code();
        }
    };
    let (report, unasked) = report(options, &config, &watched);
    if let Some(fault) = unasked {
        let _ = writeln!(err, "{fault}");
    }
    let code = if report.needs_attention { FAILURE } else { OK };
    let printed = if options.json { print::json(&report, out) } else { print::text(&report, out) };
    // Who has seen enough still wants to know how it is.
    match written(printed.and_then(|()| out.flush()).map(|()| code), err) {
        OK => code,
        failed => failed,
    }
}

/// What is known of the worker of a configuration from its state directory.
struct Worker {
    dir: PathBuf,
    running: Running,
    committed: HashMap<(String, TopicPartition), Offset>,
}

impl Worker {
    /// Looks at the directory that is configured; where it can't be used, a worker has taken the one beside the file.
    fn look(config: &Config, file: &Path) -> Self {
        let beside = file.with_extension("state");
        let configured = config.state_dir.clone().unwrap_or_else(|| beside.clone());
        let (dir, running) = match state::running(&configured) {
            found @ (Running::Yes { .. } | Running::No) => (configured, found),
            found @ (Running::Never | Running::Unknown { .. }) => match state::running(&beside) {
                Running::Never => (configured, found),
                other => (beside, other),
            },
        };
        let committed = state::last_committed(&dir).unwrap_or_default();
        let committed = committed.into_iter().map(|(group, partition, at)| ((group, partition), at)).collect();
        Self { dir, running, committed }
    }

    fn committed(&self, group: &str, partition: &TopicPartition) -> Option<Offset> {
        self.committed.get(&(group.to_owned(), partition.clone())).copied()
    }
}

/// The report; and why the cluster as a whole could not be asked, if so.
fn report(options: &Options, config: &Config, watched: &[Watched]) -> (Report, Option<Fault>) {
    let before = Worker::look(config, &options.config);
    let mut cluster = ask::cluster(config);
    // All samples are kept: the rates are those between the first and the last.
    let mut trends = Trends::new(Duration::MAX);
    let began = Instant::now();
    let mut last = ask::look(&mut *cluster, config, watched, &mut trends);
    let mut members: HashMap<&str, Result<Vec<Member>, Fault>> = HashMap::new();
    for group in watched.iter().map(|watched| watched.group.as_str()) {
        // Who can't be asked once, is not asked for every group.
        members.insert(group, last.as_ref().map_err(Fault::clone).and_then(|_| cluster.members(group)));
    }
    let step = (options.look_for / LOOKS).max(LEAST);
    // A look in between may fail; without the first one there is nothing to compare with.
    if last.is_ok() {
        let mut until = options.look_for;
        loop {
            thread::sleep(until.saturating_sub(began.elapsed()).min(step));
            last = ask::look(&mut *cluster, config, watched, &mut trends);
            if began.elapsed() >= until {
                // What stands still is looked at until that means something.
                let longer = last.as_ref().ok().and_then(|rows| undecided(config, rows)).map(|time| time + 2 * step);
                match longer.filter(|longer| *longer > until) {
                    Some(longer) => until = longer,
                    None => break,
                }
            }
        }
    }
    let unasked = last.as_ref().err().cloned();
    let rows = last.unwrap_or_else(|fault| ask::unasked(watched, &fault));
    let looked = began.elapsed();
    let after = Worker::look(config, &options.config);
    let (told, admin) = own_state(config, &after.running);
    let status = told.as_ref();
    let plan = Plan::new(config);
    let mut topics = Vec::new();
    for one in watched {
        let limits = limits(&plan, &one.group);
        for (topic, sinks) in &one.topics {
            let Some(settings) = ask::settings(config, topic) else { continue };
            let own: Vec<&Row> = rows.iter().filter(|row| row.group == one.group && row.topic == *topic).collect();
            let parts = own.iter().filter(|row| row.partition.is_some());
            let old = !settings.reading.may_use_librdkafka();
            let parts = parts.map(|row| part(&mut *cluster, row, &trends, &before, &after, old)).collect();
            let group = Group {
                name: one.group.clone(),
                members: members.get(one.group.as_str()).cloned().unwrap_or(Ok(Vec::new())),
                base: base(&mut *cluster, config, settings, &own),
            };
            let (sink_name, sink) = one_of(sinks, config, status);
            let facts = Facts {
                file: &options.config,
                config,
                settings,
                sink_name,
                sink,
                sink_fails: probe(sink),
                group,
                whole: own.iter().find(|row| row.partition.is_none()).and_then(|row| row.seen.clone().err()),
                parts,
                running: &after.running,
                steady: before.running == after.running,
                limits: limits.clone(),
                looked,
                unknown_to_worker: status.is_some_and(|status| status.topics.iter().all(|own| own.topic != **topic)),
                status: status.and_then(|status| status.topics.iter().find(|own| own.topic == **topic)),
                sink_status: status.and_then(|status| status.sinks.iter().find(|own| own.sink == sink_name)),
            };
            topics.push(TopicReport::new(&facts, finding(&facts)));
        }
    }
    let worker = WorkerReport::new(&after.dir, &after.running, &options.config, admin);
    (Report::new(options, looked, worker, topics), unasked)
}

/// How long has to be looked, where something has not moved and was looked at for too short a time.
fn undecided(config: &Config, rows: &[Row]) -> Option<Duration> {
    let behind = rows.iter().filter(|row| matches!(row.verdict, Verdict::Behind { .. }));
    behind.filter_map(|row| Some(ask::settings(config, &row.topic)?.patience(&config.commit))).max()
}

/// The one of a topic's sinks to look at: that which fails, stands still or can't be written, or else the first.
fn one_of<'a>(sinks: &'a [String], config: &'a Config, status: Option<&Status>) -> (&'a str, &'a SinkSettings) {
    let known = sinks.iter().filter_map(|name| Some((name.as_str(), config.sinks.get(name)?)));
    let worst = known.min_by_key(|(name, sink)| {
        let status = status.and_then(|status| status.sinks.iter().find(|own| own.sink == *name));
        let fails = status.map_or_else(|| probe(sink).is_some(), |status| status.trouble.is_some());
        let busy = status.and_then(|status| status.busy_for_ms).unwrap_or(0);
        (!fails, Reverse(busy))
    });
    // Each sink that a topic names is in the configuration, which is read as a whole or not at all.
    worst.unwrap_or(("", &SinkSettings::Drop))
}

/// What the running worker says of itself, if it can be asked; and in words, how that went.
fn own_state(config: &Config, running: &Running) -> (Option<Status>, Option<Result<String, String>>) {
    let Some(address) = config.admin.filter(|_| matches!(running, Running::Yes { .. })) else { return (None, None) };
    match ask_worker::ask(address) {
        Ok(status) => (Some(status), Some(Ok(format!("its admin port {address} answers")))),
        Err(why) => (
            None,
            Some(Err(format!(
                "its admin port {address} does not answer: {why}; it hangs, or was not started again since [admin] listen was changed"
            ))),
        ),
    }
}

/// Gathers what is known of one partition. Asks for the batch that is read next, if there is something to read. `old`: it is
/// read with the crate `kafka`.
fn part(cluster: &mut dyn Inspect, row: &Row, trends: &Trends, before: &Worker, after: &Worker, old: bool) -> Part {
    let partition = TopicPartition::new(row.topic.clone(), row.partition.unwrap_or_default());
    let trend = trends.get(&row.group, &partition);
    let mine = !matches!(row.verdict, Verdict::Elsewhere { .. });
    let ahead = row.seen.as_ref().ok().filter(|seen| seen.readable() > 0 && mine).map(|seen| {
        let start = seen.bounds.log_start;
        cluster.ahead(&partition, seen.committed.map_or(start, |committed| committed.max(start)), old)
    });
    // What is written at present may have another size than what is read at present.
    let newest = row.rates.filter(|rates| rates.produced > 0.0 && mine).and_then(|_| {
        let end = row.seen.as_ref().ok()?.bounds.log_end;
        cluster.ahead(&partition, Offset::new(end.get().checked_sub(1)?)?, old).ok()?
    });
    Part {
        first: trend.and_then(|trend| trend.first()).copied(),
        seen: row.seen.clone(),
        verdict: row.verdict.clone(),
        rates: row.rates,
        ahead,
        newest,
        told_before: before.committed(&row.group, &partition),
        told: after.committed(&row.group, &partition),
        number: partition.partition,
    }
}

/// What the group that all topics shared before has of this one, where its own group has nothing.
fn base(
    cluster: &mut dyn Inspect,
    config: &Config,
    settings: &TopicSettings,
    rows: &[&Row],
) -> Option<(String, Vec<(i32, Offset)>)> {
    let base = settings.group.strip_suffix(&format!("-{}", settings.name)).filter(|_| config.mode == Mode::Multi)?;
    let nothing = |row: &&&Row| row.seen.as_ref().is_ok_and(|seen| seen.committed.is_none());
    let of: Vec<TopicPartition> = rows
        .iter()
        .filter(nothing)
        .filter_map(|row| Some(TopicPartition::new(row.topic.clone(), row.partition?)))
        .collect();
    if of.is_empty() {
        return None;
    }
    let committed = cluster.committed(base, &of).ok()?;
    let found: Vec<_> = of.iter().zip(committed).filter_map(|(p, at)| Some((p.partition, at?))).collect();
    (!found.is_empty()).then(|| (base.to_owned(), found))
}

/// How large a batch may be for the consumer of this group, each limit with the key that sets it.
fn limits(plan: &Plan, group: &str) -> Limits {
    let consumer = plan.consumers.iter().find(|consumer| consumer.settings.group == group);
    let of = |consumer: &crate::plan::ConsumerPlan| {
        let fetch = &consumer.fetch;
        vec![
            (fetch.max_partition_bytes, "max_partition_fetch_bytes"),
            (fetch.max_bytes, "fetch_max_bytes"),
            (fetch.memory.max(fetch.reserve.bytes()), "memory.limit"),
        ]
    };
    consumer.map(of).unwrap_or_default()
}

/// Why the sink can't be written by whoever runs this, if that can be seen from here.
fn probe(sink: &SinkSettings) -> Option<String> {
    match sink {
        SinkSettings::File { path, .. } => file::probe(path).err().map(|error| error.to_string()),
        SinkSettings::Exec(settings) => exec::probe(settings.program()).err().map(|error| error.to_string()),
        SinkSettings::Kafka(settings) => kafka::probe(settings).err().map(|error| error.to_string()),
        SinkSettings::Drop
        | SinkSettings::Log { .. }
        | SinkSettings::Stdout { .. }
        | SinkSettings::Http(_)
        | SinkSettings::Own(_) => None,
    }
}
