//! The producer of librdkafka: idempotent, every record acknowledged by all replicas in sync.
//!
//! Owns one `BaseProducer` and what it tells. What always holds:
//! - of what was sent to a partition of the target, its log gets a beginning, in order: no record without those before
//!   it. The broker sees to that by the sequence numbers of the batches, and librdkafka by giving up as a whole where one
//!   batch fails for good (`enable.gapless.guarantee`), instead of going on behind it with numbers of its own;
//! - but a broker that knows nothing of a producer takes any number for the first one. So whoever sends has to wait for
//!   the first record of each partition before the second one is sent;
//! - nothing is given up because of its age: whoever waits decides for how long (`message.timeout.ms` is 0);
//! - a topic is never created by producing to it;
//! - reports and errors are taken on the thread that calls `serve`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header as Pair, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};

use super::context::tell;
use super::properties::{producing, reason};
use crate::client::Connection;
use crate::record::{Header, Record};
use crate::sink::kafka::Compression;

/// How many records may be sent and not reported at the same time.
pub const IN_FLIGHT: usize = 50_000;

/// What is configured of a producer, beside the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producing {
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for more records.
    pub linger: Duration,
}

/// Why a record was not produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed with others, or with the producer as a whole: nothing is known against it.
    Innocent,
    /// It, or the batch that it was in, is too large.
    TooLarge(String),
    /// It, or another one in its batch, is refused for what it is.
    Refused(String),
    /// Its topic or partition can't be written at present.
    Elsewhere(String),
    /// The same, and an ACL is what is missing.
    Unauthorized(String),
}

impl Failure {
    fn of(code: Code) -> Self {
        let text = || format!("{code:?} ({code})");
        match code {
            Code::PurgeQueue
            | Code::PurgeInflight
            | Code::Fatal
            | Code::GaplessGuarantee
            | Code::BrokerDestroy
            | Code::InvalidDifferentRecord
            | Code::OutOfOrderSequenceNumber => Self::Innocent,
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Self::TooLarge(text()),
            Code::InvalidRecord | Code::InvalidTimestamp | Code::PolicyViolation | Code::InvalidTopic => {
                Self::Refused(text())
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Self::Unauthorized(text()),
            _ => Self::Elsewhere(text()),
        }
    }
}

/// What became of a record.
#[derive(Clone, Debug)]
pub struct Report {
    /// The number that it was sent with.
    pub number: usize,
    /// `Ok`: all replicas in sync have it.
    pub result: Result<(), Failure>,
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// So many wait that there is no place for it now.
    Full,
    /// It is not produced.
    Failed(Failure),
}

#[derive(Default)]
struct Notes {
    reports: Vec<Report>,
    /// What librdkafka said last of the cluster or a broker.
    last_error: Option<String>,
}

struct Context {
    name: String,
    notes: Arc<Mutex<Notes>>,
}

/// Nothing that is done under the lock panics half way.
fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tell(level, facility, text, &format_args!("sink={}", self.name));
    }

    fn error(&self, error: KafkaError, text: &str) {
        log::debug!(
            "librdkafka tells an error sink={} code={:?} error=\"{text}\"",
            self.name,
            error.rdkafka_error_code()
        );
        // That all brokers are down says less than what it said of the last of them.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            lock(&self.notes).last_error = Some(text.to_owned());
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(Failure::of(error.rdkafka_error_code().unwrap_or(Code::Unknown))),
        };
        let mut notes = lock(&self.notes);
        if result.is_ok() {
            // What was wrong is over.
            notes.last_error = None;
        }
        notes.reports.push(Report { number, result });
    }
}

/// See the module's text.
pub struct Producer {
    name: String,
    producer: BaseProducer<Context>,
    notes: Arc<Mutex<Notes>>,
}

impl Producer {
    /// Starts librdkafka's threads, which connect. `name` for the log. `batch`: how large a batch may become, in bytes.
    ///
    /// # Errors
    /// In librdkafka's words, for instance that a certificate can't be read.
    pub fn new(
        name: &str,
        connection: &Connection,
        settings: &Producing,
        batch: Option<usize>,
    ) -> Result<Self, String> {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let context = Context { name: name.to_owned(), notes: Arc::clone(&notes) };
        let made = producing(connection, settings, batch).create_with_context(context);
        let producer = made.map_err(|error| reason(&error))?;
        Ok(Self { name: name.to_owned(), producer, notes })
    }

    /// Whether librdkafka takes all of these settings together. Connects to nothing.
    ///
    /// # Errors
    /// In librdkafka's words.
    pub fn probe(connection: &Connection, settings: &Producing) -> Result<(), String> {
        let alone = Connection { bootstrap_servers: Vec::new(), ..connection.clone() };
        Self::new("probe", &alone, settings, None).map(drop)
    }

    /// Hands a record over, to be produced under the number. Copies it; never waits. `more`: headers behind its own.
    ///
    /// # Errors
    /// It was not taken, and there will be no report.
    pub fn send(
        &self,
        number: usize,
        topic: &str,
        partition: i32,
        record: &Record<'_>,
        more: &[Header<'_>],
    ) -> Result<(), Untaken> {
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number).partition(partition);
        message.key = record.key;
        message.payload = record.value;
        message.timestamp = record.timestamp_ms;
        let mut headers: Option<OwnedHeaders> = None;
        for (key, value) in record.headers.chain(more.iter().copied()) {
            headers = Some(headers.take().unwrap_or_default().insert(Pair { key, value }));
        }
        message.headers = headers;
        match self.producer.send(message) {
            Ok(()) => Ok(()),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(Code::QueueFull) => Untaken::Full,
                code => Untaken::Failed(Failure::of(code.unwrap_or(Code::Unknown))),
            }),
        }
    }

    /// Takes out reports, and waits this long for the first one: librdkafka's call comes back when the time is over,
    /// not before.
    pub fn serve(&self, wait: Duration, into: &mut Vec<Report>) {
        let before = into.len();
        self.producer.poll(wait);
        loop {
            into.append(&mut lock(&self.notes).reports);
            let taken = into.len();
            self.producer.poll(Duration::ZERO);
            into.append(&mut lock(&self.notes).reports);
            if into.len() == taken || taken - before >= IN_FLIGHT {
                return;
            }
        }
    }

    /// What librdkafka said last of the cluster or a broker, since the last record that was acknowledged.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.notes).last_error.clone()
    }

    /// Why nothing more is produced, if librdkafka has given up.
    pub fn fatal(&self) -> Option<Failure> {
        let (code, text) = self.producer.client().fatal_error()?;
        Some(match Failure::of(code) {
            Failure::Unauthorized(_) => Failure::Unauthorized(text),
            _ => Failure::Elsewhere(text),
        })
    }

    /// Gives up all that is not reported yet: the reports follow at once. What a broker has been sent it may still write.
    pub fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }

    /// Ends it on a thread of its own, as its end can't be interrupted. The receiver is disconnected when all its threads
    /// are gone.
    pub fn close(self) -> Receiver<()> {
        let (done, gone) = bounded::<()>(0);
        let (name, producer) = (self.name, self.producer);
        let end = move || {
            drop(producer);
            drop(done);
        };
        // Without a thread it ends here and now, as the closure is dropped.
        if let Err(why) = thread::Builder::new().name(format!("close:{name}")).spawn(end) {
            log::debug!("no thread for the end of librdkafka sink={name} error=\"{why}\"");
        }
        gone
    }
}
