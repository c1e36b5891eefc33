//! The daemon beside a real Kafka: its configuration, and what the broker says of its groups.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Kafka;
use super::install::Version;
use crate::support::worker::Config;

/// How long a million records, or a broker's way back, may take. Far above what they do take.
pub const LONG: Duration = Duration::from_secs(90);

/// How often the broker, or a file, is looked at that has no event to wait on.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Kafka {
    /// A configuration for these topics of this cluster; the groups are `{group}-{topic}`. The client is the one over
    /// the crate `kafka`, and librdkafka where that one can't read.
    pub fn config(&self, group: &str, topics: &[&str]) -> Config {
        let servers: Vec<String> = self.bootstrap.split(',').map(str::to_owned).collect();
        let client = match self.version {
            Version::V4 if cfg!(feature = "librdkafka") => "librdkafka",
            Version::V3 | Version::V4 => "kafka",
        };
        let config = Config::new(&servers, topics).set("kafka", "client", format!("'{client}'"));
        config.set("consumer", "group_id", format!("'{group}'"))
    }

    /// What a group has committed of a partition.
    #[track_caller]
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let offsets = self.tool().group(group);
        offsets.iter().find(|of| of.topic == topic && of.partition == partition).map(|of| of.committed)
    }

    /// Returns once a group has committed exactly this of a partition.
    #[track_caller]
    pub fn await_committed(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let until = Instant::now() + LONG;
        loop {
            let committed = self.committed(group, topic, partition);
            if committed == Some(offset) {
                return;
            }
            let last = Instant::now() >= until;
            assert!(!last, "group {group} has {committed:?} of {topic}-{partition} after {LONG:?}, not {offset}");
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Returns once a file has so many bytes.
#[track_caller]
pub fn await_size(path: &Path, bytes: u64) {
    let until = Instant::now() + LONG;
    loop {
        let size = fs::metadata(path).map_or(0, |file| file.len());
        if size >= bytes {
            return;
        }
        assert!(Instant::now() < until, "{} has {size} bytes after {LONG:?}, not {bytes}", path.display());
        thread::sleep(LOOK_EVERY / 5);
    }
}

/// The numbers of [`Produce`](super::tool::Produce) in a file of format `raw`, as a range for each
/// partition: partition 0 has the numbers below `each`, partition 1 those up to `2 * each`, and so
/// on. Within a partition they must be without a gap and in order. Half a line at the end is none.
#[track_caller]
pub fn ranges(path: &Path, partitions: usize, each: u64) -> Vec<Option<Range<u64>>> {
    let mut ranges: Vec<Option<Range<u64>>> = vec![None; partitions];
    let bytes = fs::read(path).unwrap_or_default();
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
        let text = std::str::from_utf8(&line[..12]).unwrap();
        let number: u64 = text.parse().unwrap_or_else(|_| panic!("a line begins with {text:?}"));
        match &mut ranges[usize::try_from(number / each).unwrap()] {
            Some(range) => {
                assert_eq!(number, range.end, "the order of {}", path.display());
                range.end += 1;
            }
            none => *none = Some(number..number + 1),
        }
    }
    ranges
}
