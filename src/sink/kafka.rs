//! The sink `kafka`: records to a topic of this or another cluster, through librdkafka's idempotent producer.
//!
//! Owns what is configured of it; `forward.rs` is the sink. Key, value, headers and timestamp are kept: null stays null,
//! empty stays empty. README.md, "To Kafka", says what it promises.

use std::fmt;
use std::time::Duration;

use super::Sink;
use crate::config::KafkaSettings;

#[cfg(feature = "librdkafka")]
mod forward;
mod template;
#[cfg(feature = "librdkafka")]
mod window;

#[cfg(feature = "librdkafka")]
pub use forward::KafkaSink;
pub use template::{Placement, Template};

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// snappy
    Snappy,
    /// lz4
    Lz4,
    /// zstd
    Zstd,
}

/// Kafka's name of it.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// What is configured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The topic that records go to.
    pub topic: Template,
    /// The partition that records go to.
    pub placement: Placement,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// How long no acknowledgement may come while one is owed.
    pub timeout: Duration,
    /// The cluster. Its properties are those of the sink alone.
    pub cluster: KafkaSettings,
    /// It is the one that records come from, as far as the names of its brokers tell.
    pub same_cluster: bool,
    /// Where the cluster is written: `kafka`, or the table with `bootstrap_servers` of its own, as in `sink.out`.
    pub table: String,
}

/// Why it can't be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// librdkafka makes no producer with these settings; in its words.
    Refused(String),
    /// This program can't: it was built without librdkafka.
    NotBuilt,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => {
                write!(f, "librdkafka makes no producer of these settings: {why}; correct the sink's librdkafka table")
            }
            Self::NotBuilt => f.write_str("this program was built without the feature librdkafka, which it needs"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens a sink `name` (for the log). Nothing is connected before there is something to write.
///
/// # Errors
/// See [`probe`].
pub fn open(name: &str, settings: &Settings) -> Result<Box<dyn Sink>, OpenError> {
    probe(settings)?;
    #[cfg(feature = "librdkafka")]
    return Ok(Box::new(KafkaSink::new(name, settings)));
    #[cfg(not(feature = "librdkafka"))]
    {
        let _ = name;
        Err(OpenError::NotBuilt)
    }
}

/// Whether it could be opened. No broker is asked.
///
/// # Errors
/// It could not.
#[cfg(feature = "librdkafka")]
pub fn probe(settings: &Settings) -> Result<(), OpenError> {
    forward::probe(settings).map_err(OpenError::Refused)
}

/// Whether it could be opened.
///
/// # Errors
/// It could not.
#[cfg(not(feature = "librdkafka"))]
pub fn probe(_: &Settings) -> Result<(), OpenError> {
    Err(OpenError::NotBuilt)
}
