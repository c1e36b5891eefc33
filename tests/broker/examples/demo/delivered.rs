//! What the worker has delivered: the lines of its files, read as they grow, each compared with what
//! was produced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use crate::topics::{TOPICS, Topic};

/// What became of one topic's records.
#[derive(Default)]
pub struct Tally {
    /// How often each offset has arrived.
    times: Vec<u32>,
    /// Different records that have arrived.
    pub delivered: u64,
    /// Records that arrived again: at least once is what the worker promises.
    pub again: u64,
    /// Lines whose key or value is not what was produced, or whose offset never was.
    pub wrong: u64,
}

impl Tally {
    /// How many of the first `up_to` records have not arrived.
    pub fn missing(&self, up_to: u64) -> u64 {
        (0..up_to).filter(|&n| self.times.get(n as usize).is_none_or(|&times| times == 0)).count() as u64
    }
}

struct Tail {
    path: PathBuf,
    open: Option<BufReader<File>>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

/// The files of the sinks, and the sums of what was read from them.
pub struct Delivered {
    tails: Vec<Tail>,
    pub tallies: BTreeMap<&'static str, Tally>,
    /// The last line of each topic since it was last asked for.
    samples: BTreeMap<&'static str, String>,
    /// The topic of which a line was given last.
    sampled: &'static str,
}

impl Delivered {
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            tails: paths.into_iter().map(|path| Tail { path, open: None, begun: Vec::new() }).collect(),
            tallies: TOPICS.iter().map(|topic| (topic.name, Tally::default())).collect(),
            samples: BTreeMap::new(),
            sampled: "",
        }
    }

    /// Reads what was appended since the last time.
    pub fn read(&mut self) -> io::Result<()> {
        let (tallies, samples) = (&mut self.tallies, &mut self.samples);
        for tail in &mut self.tails {
            if tail.open.is_none() {
                match File::open(&tail.path) {
                    Ok(file) => tail.open = Some(BufReader::new(file)),
                    // The worker makes it when it starts.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            let Some(file) = &mut tail.open else { continue };
            while file.read_until(b'\n', &mut tail.begun)? > 0 && tail.begun.ends_with(b"\n") {
                let line = std::mem::take(&mut tail.begun);
                take(&line, tallies, samples)?;
            }
        }
        Ok(())
    }

    /// A line that came since the last time, of each topic in turn.
    pub fn sample(&mut self) -> Option<String> {
        let next = self.samples.keys().find(|name| **name > self.sampled).or_else(|| self.samples.keys().next());
        self.sampled = next.copied()?;
        self.samples.remove(self.sampled)
    }
}

fn take(
    line: &[u8],
    tallies: &mut BTreeMap<&'static str, Tally>,
    samples: &mut BTreeMap<&'static str, String>,
) -> io::Result<()> {
    let parsed: serde_json::Value = serde_json::from_slice(line)?;
    let topic = TOPICS.iter().find(|topic| parsed["topic"] == topic.name);
    let (Some(topic), Some(offset)) = (topic, parsed["offset"].as_u64()) else {
        return Err(io::Error::other("a line of the sink's file names none of the demo's topics, or no offset"));
    };
    let Some(tally) = tallies.get_mut(topic.name) else { return Ok(()) };
    if parsed["value"] != topic.value(offset) || parsed["key"] != Topic::key(offset) {
        tally.wrong += 1;
    }
    let index = offset as usize;
    if tally.times.len() <= index {
        tally.times.resize(index + 1, 0);
    }
    tally.times[index] += 1;
    match tally.times[index] {
        1 => tally.delivered += 1,
        _ => tally.again += 1,
    }
    samples.insert(topic.name, String::from_utf8_lossy(line).trim_end().to_owned());
    Ok(())
}
