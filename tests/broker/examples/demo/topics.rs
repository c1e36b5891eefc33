//! What the demo produces: six topics, each with its own rhythm, and payloads that can be made again
//! from topic and offset, so that what arrives can be compared byte by byte.

use std::time::Duration;

use broker::{Codec, Error, Server};

/// How records come into a topic.
#[derive(Clone, Copy)]
pub enum Rhythm {
    /// So many a second.
    Steady(u64),
    /// So many at once, first after `first`, then every `every`.
    Burst { records: u64, first: Duration, every: Duration },
    /// None.
    Silent,
}

/// One topic of the demo.
pub struct Topic {
    pub name: &'static str,
    /// Records that are there before the worker starts.
    pub backlog: u64,
    pub rhythm: Rhythm,
    /// Which of the worker's two file sinks takes it.
    pub sink: &'static str,
    payload: fn(u64) -> String,
}

/// A batch as a producer sends it.
const RECORDS_A_BATCH: usize = 500;
/// When the first record was written, in milliseconds since 1970 (UTC). Fixed, so that a payload
/// depends on nothing but its offset.
const EPOCH_MS: u64 = 1_763_546_400_000;

pub const TOPICS: [Topic; 6] = [
    Topic {
        name: "SCHEDULE-STATION-PARAM",
        backlog: 20_000,
        rhythm: Rhythm::Steady(5),
        sink: "records",
        payload: |n| {
            let (station, limit) = (n % 120, 400 + n % 7 * 20);
            format!(
                r#"{{"station":"S{station:03}","transformer_kva":630,"power_limit_kw":{limit},"ts":{}}}"#,
                at(n, 200)
            )
        },
    },
    Topic {
        name: "SCHEDULE-CAR-ORDER",
        backlog: 1_500,
        rhythm: Rhythm::Steady(120),
        sink: "orders",
        payload: |n| {
            let (connector, soc) = (n % 4 + 1, n * 7 % 80 + 10);
            let at = at(n, 8);
            format!(r#"{{"order":"CO{n:08}","connector":{connector},"soc":{soc},"target_soc":90,"ts":{at}}}"#)
        },
    },
    Topic {
        name: "SCHEDULE-CAR-PRICE",
        backlog: 24,
        rhythm: Rhythm::Steady(1),
        sink: "records",
        payload: |n| format!(r#"{{"hour":{},"price_cny_kwh":"0.{:02}","ts":{}}}"#, n % 24, 31 + n % 60, at(n, 1_000)),
    },
    Topic {
        name: "SCHEDULE-DEVICE-HOST-DCDC",
        backlog: 0,
        rhythm: Rhythm::Steady(1_000),
        sink: "records",
        payload: |n| {
            let (device, volt, ampere) = (n % 16, 700 + n % 50, n % 250);
            format!(r#"{{"dcdc":{device},"voltage_v":{volt},"current_a":{ampere},"fault":null,"ts":{}}}"#, at(n, 1))
        },
    },
    Topic {
        name: "SCHEDULE-DEVICE-STORAGE",
        backlog: 0,
        rhythm: Rhythm::Burst { records: 60_000, first: Duration::from_secs(4), every: Duration::from_secs(7) },
        sink: "records",
        payload: |n| {
            let (rack, soc, temperature) = (n % 12, n * 3 % 100, 20 + n % 15);
            format!(
                r#"{{"rack":"储能-{rack:02}","soc":{soc},"temp_c":{temperature},"cycles":{},"ts":{}}}"#,
                n / 12,
                at(n, 5)
            )
        },
    },
    Topic {
        name: "MODULE-OUTPUT-PV_PREDICTION",
        backlog: 0,
        rhythm: Rhythm::Silent,
        sink: "records",
        payload: |n| format!(r#"{{"pv_kw":{},"ts":{}}}"#, n % 500, at(n, 900_000)),
    },
];

fn at(offset: u64, every_ms: u64) -> u64 {
    EPOCH_MS + offset * every_ms
}

impl Topic {
    pub fn key(offset: u64) -> String {
        format!("{}", offset % 16)
    }

    pub fn value(&self, offset: u64) -> String {
        (self.payload)(offset)
    }

    /// How many records there are to be after `elapsed`, the backlog included.
    pub fn due(&self, elapsed: Duration) -> u64 {
        self.backlog
            + match self.rhythm {
                Rhythm::Steady(a_second) => (elapsed.as_millis() as u64 * a_second) / 1_000,
                Rhythm::Burst { first, .. } if elapsed < first => 0,
                Rhythm::Burst { records, first, every } => {
                    records * (1 + (elapsed - first).as_millis() as u64 / every.as_millis() as u64)
                }
                Rhythm::Silent => 0,
            }
    }

    /// Appends what is missing up to `due`; returns how many records that were.
    pub fn produce(&self, server: &Server, produced: &mut u64, due: u64) -> Result<u64, Error> {
        let records: Vec<(String, String)> = (*produced..due).map(|n| (Self::key(n), self.value(n))).collect();
        for batch in records.chunks(RECORDS_A_BATCH) {
            let batch: Vec<(&str, &str)> = batch.iter().map(|(key, value)| (&**key, &**value)).collect();
            server.append(self.name, 0, &batch, Codec::None)?;
        }
        *produced += records.len() as u64;
        Ok(records.len() as u64)
    }

    /// In words, for the opening lines.
    pub fn describe(&self) -> String {
        let rhythm = match self.rhythm {
            Rhythm::Steady(a_second) => format!("{a_second} a second"),
            Rhythm::Burst { records, first, every } => {
                format!("{records} at once after {} s, then every {} s", first.as_secs(), every.as_secs())
            }
            Rhythm::Silent => "silent".to_owned(),
        };
        match self.backlog {
            0 => format!("{:<27} {rhythm}", self.name),
            backlog => format!("{:<27} {rhythm}; {backlog} wait already", self.name),
        }
    }
}
