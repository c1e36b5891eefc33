//! What the commands have in common that ask the cluster: the configuration, the topics that are meant, and
//! how errors are told.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{FAILURE, OK, USAGE};
use crate::client::control;
use crate::client::{Fault, Inspect, Membership};
use crate::config::discovery::Listing;
use crate::config::{self, Config, LoadError, TopicSettings};
use crate::plan::Plan;
use crate::sample::{self, Watched};
use crate::trend::{Row, Trends};
use crate::verdict::Verdict;

/// What was asked can't be asked: the command line or the configuration is wrong.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The configuration.
    Config(LoadError),
    /// Topics on the command line that are not in the configuration, in words.
    Topics(Vec<String>),
    /// Topics are read by pattern, and the cluster can't be asked which it has.
    Unlisted(Fault),
}

impl Wrong {
    /// The exit code of a command that it ends.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Topics(_) => USAGE,
            Self::Unlisted(_) => FAILURE,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Topics(lines) => f.write_str(&lines.join("\n")),
            Self::Unlisted(fault) => {
                write!(f, "the cluster can't be asked which topics it has, for consumer.topics_regex: {fault}")
            }
        }
    }
}

/// Reads the configuration in `path`, with the topics that its patterns find; these topics have to be in it.
pub(super) fn read(path: &Path, topics: &[String]) -> Result<Config, Wrong> {
    let config = config::load(path).map_err(Wrong::Config)?;
    let config = match &config.discovery {
        None => config,
        Some(_) => {
            let mut listing = Listing::default();
            listing.take(cluster(&config).topic_names().map_err(Wrong::Unlisted)?);
            config.with_found(&listing).0
        }
    };
    let known = |name: &str| config.topics.iter().any(|topic| &*topic.name == name);
    let strange = topics.iter().filter(|name| !known(name)).map(|name| {
        let offer = config::nearest(name, config.topics.iter().map(|topic| &*topic.name));
        let offer = offer.map(|offer| format!("; did you mean {offer}?")).unwrap_or_default();
        let place = match config.discovery {
            None => "not in consumer.topics",
            Some(_) => "neither in consumer.topics nor found by topics_regex",
        };
        format!("topic {name:?} is {place} of {}{offer}", path.display())
    });
    let strange: Vec<String> = strange.collect();
    if strange.is_empty() { Ok(config) } else { Err(Wrong::Topics(strange)) }
}

/// Reads the configuration in `path`, and finds the consumers of these topics, or of all if there are none.
pub(super) fn load(path: &Path, topics: &[String]) -> Result<(Config, Vec<Watched>), Wrong> {
    let config = read(path, topics)?;
    let mut watched = Watched::all(&Plan::new(&config));
    if !topics.is_empty() {
        for one in &mut watched {
            one.topics.retain(|(name, _)| topics.iter().any(|topic| **topic == **name));
        }
        watched.retain(|one| !one.topics.is_empty());
    }
    Ok((config, watched))
}

/// The settings of a topic of `config`.
pub(super) fn settings<'c>(config: &'c Config, topic: &str) -> Option<&'c TopicSettings> {
    config.topics.iter().find(|settings| &*settings.name == topic)
}

/// The cluster of `config`.
pub(super) fn cluster(config: &Config) -> Box<dyn Inspect> {
    control::inspect(Arc::new(config.kafka.connection()))
}

/// One look at the cluster, with judgements that know how short the time was.
pub(super) fn look(
    cluster: &mut dyn Inspect,
    config: &Config,
    watched: &[Watched],
    trends: &mut Trends,
) -> Result<Vec<Row>, Fault> {
    let at = Instant::now();
    let round = sample::round(cluster, watched)?;
    let grace =
        |topic: &str| settings(config, topic).map_or(config.commit.interval, |own| own.patience(&config.commit));
    let paused = |row: Row| match &row.seen {
        Ok(seen) if settings(config, &row.topic).is_some_and(|own| own.paused) => {
            let verdict = Verdict::Paused { readable: seen.readable(), expired: seen.expired() };
            Row { verdict, ..row }
        }
        // What Kafka shares out is somebody's, and is judged as a whole.
        Ok(seen) if is_elsewhere(config, &row) => {
            let verdict = Verdict::Elsewhere { readable: seen.readable() };
            Row { verdict, ..row }
        }
        _ => row,
    };
    Ok(trends.take(watched, round, at, grace).into_iter().map(paused).collect())
}

/// What there is to tell where the cluster as a whole could not be asked: each topic, and why nothing is known of it.
pub(super) fn unasked(watched: &[Watched], fault: &Fault) -> Vec<Row> {
    let topics = watched.iter().flat_map(|one| one.topics.iter().map(|(topic, _)| (&one.group, topic)));
    let row = |(group, topic): (&String, &Arc<str>)| Row {
        group: group.clone(),
        topic: Arc::clone(topic),
        partition: None,
        seen: Err(fault.clone()),
        verdict: Verdict::Unknown(fault.clone()),
        rates: None,
    };
    topics.map(row).collect()
}

/// Whether the partition is left to other workers by this one's configuration.
fn is_elsewhere(config: &Config, row: &Row) -> bool {
    let membership = settings(config, &row.topic).map(|own| &own.reading.membership);
    match (membership, row.partition) {
        (Some(Membership::None(portion)), Some(partition)) => !portion.contains(partition),
        (Some(Membership::Group { .. }) | None, _) | (_, None) => false,
    }
}

/// The exit code of a command whose output was written, or was not.
pub(super) fn written(result: io::Result<u8>, err: &mut dyn Write) -> u8 {
    match result {
        Ok(code) => code,
        // The reader has seen enough, as in `worker lag | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            // Without standard error there is nobody left to tell; the exit code still says it.
            let _ = writeln!(err, "the output can't be written: {error}");
            FAILURE
        }
    }
}
