//! Records into a producer, and its reports back.
//!
//! Owns a producer, one after the other, and what was given since the last good flush. `write` hands records over, and
//! `flush` waits for all of them. What always holds, of each partition of the target:
//! - *a producer puts a beginning of what it was given into the log, in order*: the broker sees to that by sequence
//!   numbers, from the first record on that it has acknowledged; so the second one of a partition waits for the first;
//! - *whenever anything fails the producer is ended*, and the next one begins at or before the first record that is not
//!   known to be there. So a record gets there for the first time only when all before it are there; what the old
//!   producer has sent and a broker still writes are repetitions. It is never gone on behind a record that failed;
//! - a record is delivered when all replicas in sync have it, and rejected when it failed alone in its batch, or was named
//!   by the broker alone: of a batch that fails as a whole each is tried again by itself, or in smaller batches;
//! - after a flush that failed, and for a while after a record was rejected, `write` waits for its own records, and so says
//!   of which one it stops.
//!
//! A call waits at most `timeout` for each acknowledgement, beside what it takes to look a topic up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::Settings;
use super::window::{State, Window};
use crate::client::librdkafka::producer::{Failure, IN_FLIGHT, Producer, Producing, Report, Untaken};
use crate::client::{Cluster, Connection, Fault, control};
use crate::record::{Record, Records, TopicPartition};
use crate::sink::{Sink, Stopped, Why};

/// Bytes of keys and values that may be under way: librdkafka's copies.
const BYTES_IN_FLIGHT: usize = 32 << 20;
/// How long `write` waits for its own records after one was rejected: where there is one there are more.
const CAREFUL_FOR: Duration = Duration::from_secs(60);
/// After so long without a record a producer is made anew: a broker forgets those that are silent (a day by default,
/// `producer.id.expiration.ms`), and then takes any number for the first one.
const IDLE: Duration = Duration::from_secs(600);
/// How long the reports of what is given up are waited for, and the end of a producer.
const END_WITHIN: Duration = Duration::from_secs(3);
/// The shortest and the longest slice of a wait.
const SLICES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// What librdkafka gathers into a batch by default (`batch.size`), in bytes.
const BATCH: usize = 1_000_000;

/// A topic that records go to.
struct Target {
    name: Arc<str>,
    partitions: i32,
    /// When it was looked up; `None`: that holds no more.
    looked: Option<Instant>,
    /// Of each partition, as far as records have gone there through this producer.
    started: Vec<Start>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    No,
    /// The first record is under way.
    First,
    Yes,
}

/// The producer was ended.
struct Broken {
    reason: String,
    /// Because of a record, which will be found.
    of_record: bool,
}

/// See the module's text.
pub struct KafkaSink {
    name: String,
    settings: Settings,
    connection: Arc<Connection>,
    cluster: Box<dyn Cluster>,
    producer: Option<Producer>,
    /// The end of an earlier one.
    closing: Option<Receiver<()>>,
    targets: Vec<Target>,
    window: Window,
    reports: Vec<Report>,
    /// Since the producer was ended nothing was given again.
    broken: Option<Broken>,
    careful_until: Option<Instant>,
    /// How large a batch may become, once one was too large.
    batch: Option<usize>,
    /// When a report came last, or a record was sent.
    used: Instant,
}

fn producing(settings: &Settings) -> Producing {
    Producing { compression: settings.compression, linger: settings.linger }
}

/// Whether librdkafka makes a producer of these settings.
pub(super) fn probe(settings: &Settings) -> Result<(), String> {
    Producer::probe(&settings.cluster.connection(), &producing(settings))
}

impl KafkaSink {
    /// A sink `name`, for the log. Nothing is connected before the first record.
    pub fn new(name: &str, settings: &Settings) -> Self {
        let mut connection = settings.cluster.connection();
        connection.connect_timeout = connection.connect_timeout.min(settings.timeout);
        connection.request_timeout = connection.request_timeout.min(settings.timeout);
        let connection = Arc::new(connection);
        Self {
            name: name.to_owned(),
            settings: settings.clone(),
            cluster: control::cluster(Arc::clone(&connection)),
            connection,
            producer: None,
            closing: None,
            targets: Vec::new(),
            window: Window::default(),
            reports: Vec::new(),
            broken: None,
            careful_until: None,
            batch: None,
            used: Instant::now(),
        }
    }

    fn is_careful(&self) -> bool {
        self.window.looks_up() || self.careful_until.is_some_and(|until| Instant::now() < until)
    }

    /// A fault of the cluster, in the words of the table that it is written in.
    fn fault(&self, fault: &Fault) -> String {
        let table = &self.settings.table;
        match fault {
            Fault::TopicMissing { topic } => format!(
                "topic {topic} does not exist there, and the worker creates none: kafka-topics --bootstrap-server {} --create --topic {topic} --partitions N",
                self.connection.bootstrap_servers.join(",")
            ),
            Fault::Unauthorized { code, .. } => code.clone(),
            other if table == "kafka" => other.to_string(),
            other => ["bootstrap_servers", "tls", "sasl"]
                .iter()
                .fold(other.to_string(), |text, key| text.replace(&format!("kafka.{key}"), &format!("{table}.{key}"))),
        }
    }

    /// What to do about a missing ACL.
    fn allow(&self, topic: &str) -> String {
        format!(
            "{} may not write there: kafka-acls --add --allow-principal {} --operation Write --topic {topic} (brokers before 2.8 also want --operation IdempotentWrite --cluster)",
            self.connection.security.principal(),
            self.connection.security.principal().for_acls()
        )
    }

    /// The topic for the records of a partition, by its index, with the number of its partitions.
    fn target(&mut self, from: &TopicPartition) -> Result<usize, Why> {
        let name = self.settings.topic.name(from);
        let known = self.targets.iter().position(|target| *target.name == *name);
        let is_fresh =
            |target: &Target| target.looked.is_some_and(|at| at.elapsed() < self.connection.metadata_max_age);
        if let Some(known) = known.filter(|known| self.targets.get(*known).is_some_and(is_fresh)) {
            return Ok(known);
        }
        let topic: Arc<str> = Arc::from(name.as_str());
        let asked = self.cluster.partitions(&[Arc::clone(&topic)]);
        let found = asked.and_then(|found| found.into_iter().next().unwrap_or(Err(Fault::NoLeader)));
        let partitions = match found {
            Ok(list) => i32::try_from(list.len()).unwrap_or(i32::MAX),
            // What is known still holds as far as anybody knows, and records that can't be written are told of.
            Err(fault) if known.is_some() && !matches!(fault, Fault::TopicMissing { .. }) => {
                log::debug!("topic not looked up sink={} topic={topic} error=\"{fault}\"", self.name);
                return known.ok_or_else(|| Why::Retry(String::new()));
            }
            Err(Fault::Unauthorized { code, .. }) => {
                return Err(Why::Retry(format!("to topic {topic}: {code}; {}", self.allow(&topic))));
            }
            Err(Fault::Refused { code, .. }) if code.contains("InvalidTopic") => {
                return Err(Why::Reject(format!("to topic {topic}: the cluster takes no such name ({code})")));
            }
            Err(fault) => return Err(Why::Retry(format!("to topic {topic}: {}", self.fault(&fault)))),
        };
        if partitions == 0 {
            return Err(Why::Retry(format!("to topic {topic}: it has no partitions at present")));
        }
        let looked = Some(Instant::now());
        Ok(match known {
            Some(known) => {
                if let Some(target) = self.targets.get_mut(known) {
                    (target.partitions, target.looked) = (partitions, looked);
                    target.started.resize(usize::try_from(partitions).unwrap_or(0), Start::No);
                }
                known
            }
            None => {
                let started = vec![Start::No; usize::try_from(partitions).unwrap_or(0)];
                self.targets.push(Target { name: topic, partitions, looked, started });
                self.targets.len() - 1
            }
        })
    }

    /// There is a producer.
    fn ready(&mut self) -> Result<(), String> {
        if self.producer.is_some() && self.used.elapsed() > IDLE && self.window.under_way().0 == 0 {
            self.end();
        }
        if self.producer.is_some() {
            return Ok(());
        }
        if let Some(closing) = &self.closing
            && closing.recv_timeout(END_WITHIN) == Err(RecvTimeoutError::Timeout)
        {
            return Err("an earlier producer has not ended: one of its threads waits for a name server or the network; trying again".to_owned());
        }
        self.closing = None;
        let made = Producer::new(&self.name, &self.connection, &producing(&self.settings), self.batch);
        self.producer = Some(made.map_err(|why| format!("librdkafka makes no producer: {why}"))?);
        self.used = Instant::now();
        Ok(())
    }

    /// What was sent and not reported is lost; the next record gets a new producer.
    fn end(&mut self) {
        self.closing = self.producer.take().map(Producer::close).or(self.closing.take());
        self.window.lose();
        self.targets.iter_mut().for_each(|target| target.started.fill(Start::No));
    }

    /// Ends the producer for a reason that is no record's fault.
    fn give_up(&mut self, reason: String) {
        self.collect();
        self.end();
        self.broken.get_or_insert(Broken { reason, of_record: false });
    }

    /// Takes what is reported of what is given up. Failures are of no interest any more.
    fn collect(&mut self) -> Vec<(usize, Failure)> {
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

    /// Waits for reports until `is_done`. `false`: the producer was ended.
    fn serve(&mut self, is_done: impl Fn(&Self) -> bool) -> bool {
        let mut wait = Duration::ZERO;
        let mut since = Instant::now();
        loop {
            let Some(producer) = &self.producer else { return false };
            producer.serve(wait, &mut self.reports);
            if !self.reports.is_empty() {
                (since, self.used) = (Instant::now(), Instant::now());
            }
            let failures = note(&mut self.window, &mut self.targets, &mut self.reports);
            if !failures.is_empty() {
                self.fail(failures);
                return false;
            }
            if is_done(self) {
                return true;
            }
            if let Some(fatal) = self.producer.as_ref().and_then(Producer::fatal) {
                let failures = self.collect();
                let reason = match fatal {
                    Failure::Unauthorized(text) => format!("{text}; {}", self.allow("TOPIC")),
                    Failure::Elsewhere(text) | Failure::TooLarge(text) | Failure::Refused(text) => text,
                    Failure::Innocent => "librdkafka has given up".to_owned(),
                };
                if failures.iter().any(|(_, failure)| *failure != Failure::Innocent) {
                    self.fail(failures);
                } else {
                    self.give_up(reason);
                }
                return false;
            }
            let waited = since.elapsed();
            if waited >= self.settings.timeout {
                let reason = self.silence();
                self.give_up(reason);
                return false;
            }
            // librdkafka's call does not come back before its time is over, so it gets little at first.
            wait = (waited / 8).clamp(SLICES.0, SLICES.1).min(self.settings.timeout.saturating_sub(waited));
        }
    }

    /// Waits for all that is under way. `false`: the producer was ended.
    fn settle(&mut self) -> bool {
        self.window.under_way().0 == 0 || self.serve(|sink| sink.window.under_way().0 == 0)
    }

    /// Why nothing was acknowledged in time.
    fn silence(&mut self) -> String {
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
    fn fail(&mut self, mut failures: Vec<(usize, Failure)>) {
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
    fn outdated(&mut self, target: u32) {
        if let Some(target) = self.targets.get_mut(target as usize) {
            target.looked = None;
        }
    }

    /// One that was refused alone is rejected; of several each is tried alone.
    fn blame(&mut self, list: Vec<(usize, String)>) {
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
    fn shrink(&mut self, list: Vec<(usize, String)>) {
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

    /// Takes one record. The number under which it is known; `Err`: it was not taken.
    fn give(
        &mut self,
        target: usize,
        source: u32,
        from: &TopicPartition,
        record: &Record<'_>,
        more: &[(&str, &[u8])],
    ) -> Result<usize, Why> {
        let Some(to) = self.targets.get(target) else { return Err(Why::Retry("its topic is not known".to_owned())) };
        let (partition, partitions, topic) =
            (self.settings.placement.choose(from, record, to.partitions), to.partitions, Arc::clone(&to.name));
        if partition >= partitions {
            return Err(Why::Retry(format!(
                "topic {topic} has no partition {partition}, only {partitions} of them, and partition = \"same\" needs it: kafka-topics --alter --topic {topic} --partitions N, or write partition = \"key\""
            )));
        }
        let known = self.window.find(source, record.offset);
        let number = match known.and_then(|number| Some((number, self.window.get(number)?.state.clone()))) {
            Some((number, State::Done | State::Sent)) => {
                self.window.take(number, true);
                return Ok(number);
            }
            Some((number, State::Rejected(reason))) => {
                self.window.set(number, State::Lost);
                return Err(Why::Reject(reason));
            }
            Some((number, State::Lost)) => {
                self.window.place(number, partition);
                number
            }
            None => {
                let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                self.window.add(source, record.offset, u32::try_from(target).unwrap_or(u32::MAX), partition, bytes)
            }
        };
        // Behind what is lost nothing is sent: the flush fails, and all of it is given again.
        if self.broken.is_none() {
            self.send(number, target, &topic, partition, record, more)?;
        }
        self.window.take(number, true);
        Ok(number)
    }

    /// Sends a record; it stays lost if the producer was ended.
    fn send(
        &mut self,
        number: usize,
        target: usize,
        topic: &str,
        partition: i32,
        record: &Record<'_>,
        more: &[(&str, &[u8])],
    ) -> Result<(), Why> {
        self.ready().map_err(Why::Retry)?;
        let alone = self.window.get(number).is_some_and(|entry| entry.alone);
        if alone && !self.settle() {
            return Ok(());
        }
        let place = usize::try_from(partition).unwrap_or(0);
        let start = move |sink: &Self| {
            sink.targets.get(target).and_then(|target| target.started.get(place)).copied().unwrap_or(Start::No)
        };
        let may_go = move |sink: &Self| {
            let (count, bytes) = sink.window.under_way();
            count < IN_FLIGHT && bytes < BYTES_IN_FLIGHT && start(sink) != Start::First
        };
        if !may_go(self) && !self.serve(may_go) {
            return Ok(());
        }
        loop {
            let Some(producer) = &self.producer else { return Ok(()) };
            match producer.send(number, topic, partition, record, more) {
                Ok(()) => break,
                Err(Untaken::Full) => {
                    let (before, _) = self.window.under_way();
                    if !self.serve(move |sink| sink.window.under_way().0 < before.max(1)) {
                        return Ok(());
                    }
                }
                Err(Untaken::Failed(Failure::TooLarge(text))) => {
                    let text = format!(
                        "to topic {topic}: {text}; message.max.bytes of the sink's librdkafka table allows no larger ones"
                    );
                    return Err(Why::Reject(text));
                }
                Err(Untaken::Failed(Failure::Refused(text))) => {
                    return Err(Why::Reject(format!("to topic {topic}: {text}")));
                }
                Err(Untaken::Failed(Failure::Innocent)) => {
                    // Why it has given up is known to it.
                    self.serve(|_| false);
                    return Ok(());
                }
                Err(Untaken::Failed(Failure::Unauthorized(text))) => {
                    self.give_up(format!("to topic {topic}: {text}; {}", self.allow(topic)));
                    self.outdated(u32::try_from(target).unwrap_or(u32::MAX));
                    return Ok(());
                }
                Err(Untaken::Failed(Failure::Elsewhere(text))) => {
                    self.give_up(format!(
                        "to topic {topic} partition {partition}: {text}; check the topic and its partitions"
                    ));
                    self.outdated(u32::try_from(target).unwrap_or(u32::MAX));
                    return Ok(());
                }
            }
        }
        self.window.set(number, State::Sent);
        self.used = Instant::now();
        let to = self.targets.get_mut(target).and_then(|target| target.started.get_mut(place));
        if let Some(start) = to.filter(|start| **start == Start::No) {
            *start = Start::First;
        }
        if alone {
            self.settle();
        }
        Ok(())
    }

    /// Takes records, and waits for them: whichever is not taken is known, and none behind it counts.
    fn write_carefully(
        &mut self,
        target: usize,
        source: u32,
        from: &TopicPartition,
        records: &Records,
    ) -> Result<(), Stopped> {
        self.window.look_up();
        let mut numbers: Vec<usize> = Vec::with_capacity(records.len());
        loop {
            let mut stopped = None;
            numbers.drain(..).for_each(|number| self.window.take(number, false));
            for record in records.iter() {
                match self.give(target, source, from, &record, &[]) {
                    Ok(number) => numbers.push(number),
                    Err(why) => {
                        stopped = Some(why);
                        break;
                    }
                }
                if self.broken.is_some() {
                    break;
                }
            }
            if self.broken.is_none() {
                self.settle();
            }
            match self.broken.take() {
                None => {
                    let done = numbers.len();
                    return stopped.map_or(Ok(()), |why| Err(Stopped { done, why }));
                }
                // Each time one is rejected, or set apart, or the batches are smaller: it comes to an end.
                Some(Broken { of_record: true, .. }) => {}
                Some(Broken { reason, of_record: false }) => {
                    let is_done = |number: &usize| self.window.get(*number).is_some_and(|e| e.state == State::Done);
                    let done = numbers.iter().position(|number| !is_done(number)).unwrap_or(numbers.len());
                    numbers.into_iter().skip(done).for_each(|number| self.window.take(number, false));
                    return Err(Stopped { done, why: Why::Retry(reason) });
                }
            }
        }
    }
}

/// Notes reports; returns what failed.
fn note(window: &mut Window, targets: &mut [Target], reports: &mut Vec<Report>) -> Vec<(usize, Failure)> {
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

impl Sink for KafkaSink {
    fn write(&mut self, from: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let target = self.target(from).map_err(|why| Stopped { done: 0, why })?;
        let source = self.window.source(from);
        if self.is_careful() && self.broken.is_none() {
            return self.write_carefully(target, source, from, records);
        }
        for (done, record) in records.iter().enumerate() {
            self.give(target, source, from, &record, &[]).map_err(|why| Stopped { done, why })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.broken.is_none() {
            self.settle();
        }
        let broken = self.broken.take();
        let Some((_, from, offset)) = self.window.undone() else {
            self.window.clear();
            return Ok(());
        };
        let reason = broken.map_or_else(|| "the producer was ended".to_owned(), |broken| broken.reason);
        let text = format!("{from} offset={offset}: {reason}");
        self.window.again();
        Err(text)
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.end();
    }
}
