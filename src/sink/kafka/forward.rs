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

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::Settings;
use super::window::{State, Window};
use crate::client::librdkafka::producer::{Failure, IN_FLIGHT, Producer, Producing, Report, Untaken};
use crate::client::{Cluster, Connection, control};
use crate::record::{Header, Record, Records, TopicPartition};
use crate::sink::{Brake, Sink, Stopped, Why};

mod failing;
mod targets;

use failing::note;
use targets::{Start, Target};

/// Bytes of keys and values that may be under way: librdkafka's copies.
const BYTES_IN_FLIGHT: usize = 32 << 20;
/// After so long without a record a producer is made anew: a broker forgets those that are silent (a day by default,
/// `producer.id.expiration.ms`), and then takes any number for the first one.
const IDLE: Duration = Duration::from_secs(600);
/// How long the reports of what is given up are waited for, and the end of a producer.
const END_WITHIN: Duration = Duration::from_secs(3);
/// The shortest and the longest slice of a wait.
const SLICES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

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
    /// Nobody waits for acknowledgements any more.
    braked: Arc<AtomicBool>,
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
            braked: Arc::default(),
        }
    }

    fn is_careful(&self) -> bool {
        self.window.looks_up() || self.careful_until.is_some_and(|until| Instant::now() < until)
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
            if self.braked.load(Ordering::Relaxed) {
                self.give_up("the worker stops".to_owned());
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

    /// Takes one record. The number under which it is known; `Err`: it was not taken.
    fn give(
        &mut self,
        target: usize,
        source: u32,
        from: &TopicPartition,
        record: &Record<'_>,
        more: &[Header<'_>],
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
        more: &[Header<'_>],
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

    /// Takes a dead letter of `sink`'s; with the next good flush it is safe.
    ///
    /// # Errors
    /// The reason. Then all letters since the last good flush have to be put again; what is safe of them is not sent twice.
    pub(crate) fn put(
        &mut self,
        from: &TopicPartition,
        sink: &str,
        record: &Record<'_>,
        more: &[Header<'_>],
    ) -> Result<(), String> {
        // Two sinks may give up the same record.
        let source = self.window.source(&TopicPartition::new(format!("{sink} {}", from.topic), from.partition));
        let target = self.target(from);
        let given = target.and_then(|target| self.give(target, source, from, record, more));
        given.map(drop).map_err(|stopped| {
            self.window.again();
            let (Why::Retry(why) | Why::RetryAfter(why, _) | Why::Reject(why)) = stopped;
            format!("{from} offset={}: {why}", record.offset)
        })
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

impl Sink for KafkaSink {
    fn write(&mut self, from: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        if self.braked.load(Ordering::Relaxed) {
            return Err(Stopped { done: 0, why: Why::Retry("the worker stops".to_owned()) });
        }
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

    /// Waits for no acknowledgement any more; the target may have taken what is under way all the same. Where a topic is
    /// just being looked up, that ends within its own time.
    fn brake(&self) -> Option<Brake> {
        let braked = Arc::clone(&self.braked);
        Some(Box::new(move || braked.store(true, Ordering::Relaxed)))
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("name", &self.name).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.end();
    }
}
