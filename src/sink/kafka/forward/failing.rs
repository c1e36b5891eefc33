//! What failed, and who is to blame: the producer is ended, and either a record is rejected, or some are set apart, or the
//! batches are made smaller, or the reason is no record's fault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::window::{State, Window};
use super::targets::{Start, Target};
use super::{Broken, END_WITHIN, KafkaSink, SLICES};
use crate::client::librdkafka::producer::{Failure, Producer, Report};

/// How long `write` waits for its own records after one was rejected: where there is one there are more.
const CAREFUL_FOR: Duration = Duration::from_secs(60);
/// What librdkafka gathers into a batch by default (`batch.size`), in bytes.
const BATCH: usize = 1_000_000;

impl KafkaSink {
    /// Takes what is reported of what is given up. Failures are of no interest any more.
    pub(super) fn collect(&mut self) -> Vec<(usize, Failure)> {
        let mut failures = Vec::new();
        let Some(producer) = &self.producer else { return failures };
        producer.purge();
        let until = Instant::now() + END_WITHIN;
        while self.window.under_way().0 > 0 && Instant::now() < until {
            producer.serve(SLICES.0, &mut self.reports);
            failures.extend(note(&mut self.window, &mut self.targets, &mut self.reports));
        }
        failures
    }

    /// Why nothing was acknowledged in time.
    pub(super) fn silence(&mut self) -> String {
        let timeout = self.settings.timeout.as_millis();
        let names: Vec<Arc<str>> = self.targets.iter().map(|target| Arc::clone(&target.name)).collect();
        let asked = self.cluster.partitions(&names);
        // It is looked for again before the next record goes there.
        self.targets.iter_mut().for_each(|target| target.looked = None);
        let faults = asked.map(|found| found.into_iter().find_map(Result::err));
        let why = match (faults, self.producer.as_ref().and_then(Producer::last_error)) {
            (Err(fault) | Ok(Some(fault)), _) => self.fault(&fault),
            (Ok(None), Some(text)) => format!("{text}; check that the brokers run, and are reachable from here"),
            (Ok(None), None) => {
                "the brokers answer, but acknowledge nothing: look for partitions without a leader or with too few replicas in sync (kafka-topics --describe --under-min-isr-partitions)".to_owned()
            }
        };
        format!("nothing was acknowledged for timeout_ms={timeout}: {why}")
    }

    /// Some records failed: the producer is ended, and it is found out which are to blame.
    pub(super) fn fail(&mut self, mut failures: Vec<(usize, Failure)>) {
        failures.extend(self.collect());
        let fatal = self.producer.as_ref().and_then(Producer::fatal);
        self.end();
        let mut reason = None;
        let mut too_large: BTreeMap<(u32, i32), Vec<(usize, String)>> = BTreeMap::new();
        let mut refused = too_large.clone();
        for (number, failure) in failures {
            let Some(entry) = self.window.get(number) else { continue };
            let place = (entry.target, entry.partition);
            let topic = self.targets.get(place.0 as usize).map_or("", |target| &*target.name);
            let place_text = format!("to topic {topic} partition {}", place.1);
            match failure {
                Failure::Innocent => {}
                Failure::TooLarge(text) => too_large.entry(place).or_default().push((
                    number,
                    format!("{place_text}: {text}; raise max.message.bytes of the topic (kafka-configs --entity-type topics --entity-name {topic}) if it is to be there"),
                )),
                Failure::Refused(text) => {
                    refused.entry(place).or_default().push((number, format!("{place_text}: the cluster refuses it: {text}")));
                }
                Failure::Unauthorized(text) => {
                    reason.get_or_insert_with(|| format!("{place_text}: {text}; {}", self.allow(topic)));
                    self.outdated(place.0);
                }
                Failure::Elsewhere(text) => {
                    reason.get_or_insert_with(|| format!("{place_text}: {text}; check the topic and its partitions"));
                    self.outdated(place.0);
                }
            }
        }
        let of_record = !too_large.is_empty() || !refused.is_empty();
        if of_record {
            self.careful_until = Some(Instant::now() + CAREFUL_FOR);
        }
        for list in too_large.into_values() {
            reason.get_or_insert_with(|| list[0].1.clone());
            self.shrink(list);
        }
        for list in refused.into_values() {
            reason.get_or_insert_with(|| list[0].1.clone());
            self.blame(list);
        }
        let reason = reason.unwrap_or_else(|| match fatal {
            Some(Failure::Elsewhere(text) | Failure::Unauthorized(text)) => text,
            _ => "librdkafka has given up".to_owned(),
        });
        self.broken.get_or_insert(Broken { reason, of_record });
    }

    /// The topic is looked up before the next record goes there.
    pub(super) fn outdated(&mut self, target: u32) {
        if let Some(target) = self.targets.get_mut(target as usize) {
            target.looked = None;
        }
    }

    /// One that was refused alone is rejected; of several each is tried alone.
    pub(super) fn blame(&mut self, list: Vec<(usize, String)>) {
        let alone = list.len() == 1;
        for (number, reason) in list {
            if alone {
                self.window.set(number, State::Rejected(reason));
            } else {
                self.window.isolate(number);
            }
        }
    }

    /// A batch that is too large may be so only as a whole: then batches are made smaller.
    pub(super) fn shrink(&mut self, list: Vec<(usize, String)>) {
        let bytes: usize =
            list.iter().filter_map(|(number, _)| self.window.get(*number)).map(|entry| entry.bytes).sum();
        let smaller = bytes / 2;
        if list.len() == 1 || smaller == 0 || smaller >= self.batch.unwrap_or(BATCH) {
            return self.blame(list);
        }
        log::info!(
            "batches made smaller sink={} bytes={smaller} reason=\"{}\"",
            self.name,
            list.first().map_or("", |(_, reason)| reason)
        );
        self.batch = Some(smaller);
    }
}

/// Notes reports; returns what failed.
pub(super) fn note(window: &mut Window, targets: &mut [Target], reports: &mut Vec<Report>) -> Vec<(usize, Failure)> {
    let mut failures = Vec::new();
    for Report { number, result } in reports.drain(..) {
        match result {
            Ok(()) => {
                if let Some(entry) = window.get(number) {
                    let place = usize::try_from(entry.partition).unwrap_or(usize::MAX);
                    let to = targets.get_mut(entry.target as usize).and_then(|target| target.started.get_mut(place));
                    if let Some(start) = to {
                        *start = Start::Yes;
                    }
                }
                window.set(number, State::Done);
            }
            Err(failure) => {
                window.set(number, State::Lost);
                failures.push((number, failure));
            }
        }
    }
    failures
}
