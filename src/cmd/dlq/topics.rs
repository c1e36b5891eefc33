//! The topics of dead letters, read from their start to what is their end when they are asked for.
//!
//! Reads with librdkafka, the worker's own client: the other one knows no headers. No group is joined and nothing is
//! committed. One partition after the other, each in its order.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::letter::Letter;
use super::store::{Found, Mark, is_meant, sum};
use crate::cli::Letters;
use crate::client::assigned::AssignedClient;
use crate::client::{
    Bounds, Client, Connection, Event, Fault, FetchSettings, Isolation, Library, Membership, Portion, Reading, Retry,
    Room, control,
};
use crate::config::Config;
use crate::memory::Reserve;
use crate::record::{Offset, Record, TopicPartition};
use crate::sink::kafka::Settings;

/// What may be in memory at a time, in bytes; and what a larger batch may take beside it.
const MEMORY: usize = 32 << 20;
const RESERVE: usize = 128 << 20;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Topics {
    names: BTreeSet<Arc<str>>,
    connection: Arc<Connection>,
    /// One that the worker's user may ask about.
    group: String,
    /// Where it is noted what was replayed.
    pub(super) note: PathBuf,
}

/// `topic orders-dead`
impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        write!(f, "{} {}", if names.len() == 1 { "topic" } else { "topics" }, names.join(", "))
    }
}

fn failed(what: &impl fmt::Display) -> io::Error {
    io::Error::other(what.to_string())
}

impl Topics {
    /// Those of the topics that the file names, and of those that are asked for.
    pub(super) fn new(config: &Config, settings: &Settings, which: &Letters) -> Self {
        let listed = config.topics.iter().map(|topic| &*topic.name);
        let meant = |name: &&str| which.topics.is_empty() || which.topics.iter().any(|topic| topic == name);
        // What a pattern finds is not known here, but by its name.
        let all = listed.filter(meant).chain(which.topics.iter().map(String::as_str));
        let names = all.map(|name| settings.topic.name(&TopicPartition::new(name, 0)).into()).collect();
        let beside = config.file.as_deref().map(|file| file.with_extension("state")).unwrap_or_default();
        let dir = config.state_dir.as_deref().filter(|dir| dir.is_dir()).map(Path::to_owned).unwrap_or(beside);
        Self {
            names,
            connection: Arc::new(settings.cluster.connection()),
            group: config.topics.first().map_or_else(|| config.group_id.clone(), |topic| topic.group.clone()),
            note: dir.join("dead-letters.replayed"),
        }
    }

    /// As [`Store::read`](super::store::Store::read).
    pub(super) fn read(
        &self,
        which: &Letters,
        each: &mut dyn FnMut(Found) -> io::Result<()>,
        wrong: &mut dyn FnMut(String) -> io::Result<()>,
    ) -> io::Result<()> {
        let names: Vec<Arc<str>> = self.names.iter().cloned().collect();
        let mut cluster = control::cluster(Arc::clone(&self.connection));
        let found = cluster.partitions(&names).map_err(|fault| failed(&fault))?;
        let mut partitions = Vec::new();
        for (name, found) in names.iter().zip(found) {
            match found {
                Ok(list) => partitions.extend(list),
                Err(fault) => wrong(format!("topic {name}: {fault}"))?,
            }
        }
        let bounds = cluster.bounds(&partitions).map_err(|fault| failed(&fault))?;
        drop(cluster);
        for (partition, bounds) in partitions.into_iter().zip(bounds) {
            let bounds = bounds.map_err(|fault| failed(&format!("{partition}: {fault}")))?;
            if bounds.log_start < bounds.log_end {
                self.read_one(&partition, bounds, &mut |record| see(&partition, record, which, each, wrong))?;
            }
        }
        Ok(())
    }

    fn read_one(
        &self,
        partition: &TopicPartition,
        bounds: Bounds,
        each: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let fetch = FetchSettings {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_partition_bytes: RESERVE,
            max_bytes: RESERVE,
            memory: MEMORY,
            reserve: Reserve::new(RESERVE),
            check_crcs: true,
            isolation: Isolation::ReadCommitted,
            times: Arc::default(),
        };
        let portion = Portion::Partitions([partition.partition].into());
        let reading = Reading { library: Some(Library::Librdkafka), membership: Membership::None(portion) };
        let (topics, group) = (vec![Arc::clone(&partition.topic)], self.group.as_str());
        let mut client =
            AssignedClient::new("dlq", group, topics, Arc::clone(&self.connection), Arc::new(fetch), reading, &[]);
        let (mut since, mut last): (Instant, Option<Fault>) = (Instant::now(), None);
        loop {
            let event = match client.poll(Room { bytes: MEMORY }) {
                Ok(event) => event,
                Err(fault) if fault.retry() == Retry::Soon => {
                    last = Some(fault);
                    None
                }
                Err(fault) => return Err(failed(&format!("{partition}: {fault}"))),
            };
            match event {
                Some(Event::Assigned(list)) if list.iter().any(|found| found.partition == *partition) => {
                    client.seek(partition, bounds.log_start);
                }
                // Retention was here meanwhile.
                Some(Event::OutOfRange { bounds: now, .. }) => client.seek(partition, now.log_start),
                Some(Event::Span(span)) => {
                    since = Instant::now();
                    for record in span.records.iter().filter(|record| record.offset < bounds.log_end) {
                        each(&record)?;
                    }
                    if span.offsets.end >= bounds.log_end {
                        return Ok(());
                    }
                }
                Some(Event::Failing(_, fault)) if fault.retry() == Retry::Soon => last = Some(fault),
                Some(Event::Failing(_, fault)) => return Err(failed(&format!("{partition}: {fault}"))),
                Some(Event::Missing(topic)) => {
                    return Err(failed(&Fault::TopicMissing { topic: topic.to_string() }));
                }
                Some(_) => {}
                None => {
                    let left = PATIENCE.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        let why = last.map_or_else(|| "no answer".to_owned(), |fault| fault.to_string());
                        return Err(failed(&format!("{partition}: nothing came for {} s: {why}", PATIENCE.as_secs())));
                    }
                    let wake = client.wake().map_or(left, |at| at.saturating_duration_since(Instant::now()).min(left));
                    // Woken, or it is time: both mean another look.
                    let _ = client.ready().recv_timeout(wake);
                }
            }
        }
    }
}

fn see(
    partition: &TopicPartition,
    record: &Record<'_>,
    which: &Letters,
    each: &mut dyn FnMut(Found) -> io::Result<()>,
    wrong: &mut dyn FnMut(String) -> io::Result<()>,
) -> io::Result<()> {
    let place = format!("{}-{}:{}", partition.topic, partition.partition, record.offset);
    match Letter::of(record) {
        Ok(letter) if is_meant(&letter, which) => {
            let (text, letter) = letter.line();
            let at = u64::try_from(Offset::get(record.offset)).unwrap_or_default();
            // The place is part of it: each partition has the same offsets.
            let mark = Mark { at, sum: sum(format!("{place} {text}").as_bytes()) };
            each(Found { place, text, letter, mark })
        }
        Ok(_) => Ok(()),
        Err(why) => wrong(format!("{place}: {why}")),
    }
}
