//! A program with the worker inside, and a sink of its own in Rust: the newest value of each key, as a file.
//!
//! ```text
//! cargo run --example latest -- consumer.toml DIRECTORY
//! ```
//!
//! In the configuration a topic goes there with `sink = "latest"`. For key `a/b` of topic `prices` the newest value is in
//! `DIRECTORY/prices/612f62`: the key in hexadecimal, as a key may be anything. A null value removes the file. A record
//! without a key is rejected, and `on_failure` says what becomes of it.
//!
//! What it shows of the contract (`worker::sink::Sink`):
//! - `write` keeps records in memory, `flush` makes them durable, and only then are they committed;
//! - after a `flush` that failed everything since the last good one is given again, so it starts from nothing;
//! - delivery is at least once: a record that comes twice writes the same file again;
//! - an error of the disk is told by `flush` in words, and the worker tries again, as long as the topic's policy lets it;
//! - each lane has a sink of its own. With `order = "key"` one lane has all records of a key, so that two of them never
//!   write the same file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use worker::Worker;
use worker::config::Config;
use worker::logging::{LogFormat, Logger};
use worker::record::{Records, TopicPartition};
use worker::sink::{Sink, Stopped, Why};

/// The sink of one lane.
struct Latest {
    directory: PathBuf,
    /// What is not on the disk yet: for each file the newest value; `None`: it is to be removed.
    new: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Latest {
    fn open(directory: &Path) -> Result<Self, String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), new: BTreeMap::new() })
    }

    /// A file is written beside its place and moved there, so that a reader never sees half of a value.
    fn put(path: &Path, value: Option<&[u8]>) -> io::Result<()> {
        let Some(value) = value else {
            return match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        };
        let directory = path.parent().unwrap_or(path);
        fs::create_dir_all(directory)?;
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(value)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The name is durable when the directory is.
        File::open(directory)?.sync_all()
    }
}

impl Sink for Latest {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let directory = self.directory.join(&*partition.topic);
        for (done, record) in records.iter().enumerate() {
            let Some(key) = record.key else {
                let why = Why::Reject("it has no key, so there is no file for it".to_owned());
                return Err(Stopped { done, why });
            };
            let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            self.new.insert(directory.join(name), record.value.map(<[u8]>::to_vec));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        // Whatever comes of it: what could not be written is given again.
        for (path, value) in std::mem::take(&mut self.new) {
            Self::put(&path, value.as_deref()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, directory] = &arguments[..] else {
        eprintln!("usage: latest CONFIG DIRECTORY");
        return ExitCode::from(2);
    };
    let directory = PathBuf::from(directory);
    let worker = Worker::builder().config_file(config).sink("latest", move |_lane| Latest::open(&directory)).build();
    let worker = match worker {
        Ok(worker) => worker,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    // Any logger will do; this one is the worker's own.
    let Config { log_level, .. } = worker.config();
    Logger::start(log_level, LogFormat::Text);
    match worker.run_until_signal() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
