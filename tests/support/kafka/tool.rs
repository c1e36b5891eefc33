//! Kafka's own Java clients, behind the pipes of one JVM (`tests/kafka/Tool.java`).
//!
//! Every method waits for its answer; requests of several threads run side by side. An error of
//! Kafka fails the test, with Kafka's words, but in [`Tool::request`], which returns them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::install::Install;

/// Parts the fields of a line.
const FIELD: char = '\u{1f}';
/// Parts the rows of an answer.
const ROW: char = '\u{1e}';
/// Above every limit that the tool has for itself, so that its own words come through.
const PATIENCE: Duration = Duration::from_secs(180);

/// The rows of an answer, each with its fields.
pub type Rows = Vec<Vec<String>>;
type Answer = Result<Rows, String>;
type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// The JVM. Dropped: its stdin ends, and so does it.
pub struct Tool {
    child: Child,
    requests: Mutex<(Option<ChildStdin>, u64)>,
    waiting: Waiting,
}

/// How a production ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Without a transaction.
    Plain,
    /// In a transaction, committed. The configs need a `transactional.id`.
    Commit,
    /// In a transaction, aborted.
    Abort,
}

/// Numbered records: the value of number 42 begins with `000000000042`.
#[derive(Clone, Debug)]
pub struct Produce<'a> {
    /// Where to.
    pub topic: &'a str,
    /// `None`: Kafka chooses.
    pub partition: Option<i32>,
    /// How many.
    pub count: u64,
    /// Bytes of each value, at least 12.
    pub size: usize,
    /// What stands behind the number: an alphabet, which all codecs make a hundred times shorter, or one with random
    /// digits in between, which is as compressible as what people send.
    pub mixed: bool,
    /// The number of the first.
    pub first: u64,
    /// `-`: null; `seq`: each its own; `100`: that many different ones.
    pub keys: &'a str,
    /// Settings of Java's producer: `compression.type=gzip;linger.ms=5`. `acks` is `all`, idempotence off.
    pub configs: &'a str,
    /// How it ends.
    pub end: End,
}

impl<'a> Produce<'a> {
    /// `count` records of 100 bytes without key to partition 0 of a topic.
    pub fn new(topic: &'a str, count: u64) -> Self {
        Self {
            topic,
            partition: Some(0),
            count,
            size: 100,
            mixed: false,
            first: 0,
            keys: "-",
            configs: "",
            end: End::Plain,
        }
    }
}

/// What was written to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The partition.
    pub partition: i32,
    /// The offset of the first record.
    pub first: i64,
    /// The offset of the last record.
    pub last: i64,
    /// How many records.
    pub count: u64,
}

/// A stream of numbered records to every partition of some topics, by turns: idempotent, with `acks=all`.
/// Each partition has its own numbers; the value of number 42 begins with `000000000042 NAME`.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Its name, which no other flow of this tool has.
    pub name: &'a str,
    /// Where to.
    pub topics: &'a [&'a str],
    /// How many partitions each topic has.
    pub partitions: u32,
    /// Records a second, in all.
    pub rate: u32,
    /// Bytes that a value has behind its name, at most.
    pub size: u32,
    /// Settings of Java's producer: `compression.type=gzip;linger.ms=5`.
    pub configs: &'a str,
}

/// What became of a [`Flow`].
#[derive(Clone, Debug)]
pub struct Flowed {
    /// How many records were sent.
    pub sent: u64,
    /// How many of them Kafka refused in the end; they may be in the log all the same.
    pub refused: u64,
    /// The others: topic, partition, offset, number.
    pub acked: Vec<(String, i32, i64, u64)>,
}

/// One record to be sent as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Where to.
    pub partition: i32,
    /// `None`: null.
    pub key: Option<&'a [u8]>,
    /// `None`: null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// `None`: now.
    pub timestamp_ms: Option<i64>,
}

/// One record as Java's consumer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// `None`: null.
    pub key: Option<Vec<u8>>,
    /// `None`: null.
    pub value: Option<Vec<u8>>,
}

/// A partition of a group, in the numbers of `kafka-consumer-groups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// CURRENT-OFFSET
    pub committed: i64,
    /// LOG-END-OFFSET
    pub log_end: i64,
    /// LAG
    pub lag: i64,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// The node id of its leader.
    pub leader: Option<i32>,
    /// Node ids.
    pub replicas: Vec<i32>,
    /// Node ids.
    pub in_sync: Vec<i32>,
}

impl Tool {
    /// Starts the JVM; it needs no broker yet. Its stderr goes to a file in `dir`.
    pub fn start(install: &Install, dir: &Path) -> Self {
        let mut child = Command::new("java")
            .args(install.jvm("768m", "-tools"))
            .arg("Tool")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("tool.log")).unwrap())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let answered = Arc::clone(&waiting);
        thread::Builder::new()
            .name("answers of the tool".into())
            .spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    let (number, answer) = parse(&line);
                    let waiting = answered.lock().unwrap().as_mut().and_then(|all| all.remove(&number));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(answer);
                    }
                }
                // It has ended: whoever waits learns it by the end of his channel.
                *answered.lock().unwrap() = None;
            })
            .unwrap();
        Self { child, requests: Mutex::new((stdin, 0)), waiting }
    }

    /// Asks by command and arguments; the commands are explained in `Tool.java`.
    ///
    /// # Errors
    /// Kafka's words.
    pub fn request(&self, command: &str, arguments: &[&str]) -> Answer {
        let (sender, receiver) = channel();
        {
            let mut requests = self.requests.lock().unwrap();
            requests.1 += 1;
            let number = requests.1;
            self.waiting.lock().unwrap().as_mut().expect("the tool's JVM has ended").insert(number, sender);
            let mut line = format!("{number}{FIELD}{command}");
            for argument in arguments {
                line.push(FIELD);
                line.push_str(argument);
            }
            line.push('\n');
            requests.0.as_mut().unwrap().write_all(line.as_bytes()).expect("the tool's JVM has ended");
        }
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no answer to {command} {arguments:?}: {error}"))
    }

    #[track_caller]
    fn ask(&self, command: &str, arguments: &[&str]) -> Rows {
        self.request(command, arguments).unwrap_or_else(|why| panic!("{command} {arguments:?}: {why}"))
    }

    /// Sets the brokers for everything that follows.
    pub fn connect(&self, bootstrap: &str) {
        self.ask("bootstrap", &[bootstrap]);
    }

    /// Returns once so many brokers are known: their node ids and addresses.
    pub fn brokers(&self, count: usize) -> Vec<(i32, String)> {
        let rows = self.ask("brokers", &[&count.to_string()]);
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
    }

    /// Runs one of Kafka's command line tools by the name of its class, and returns what it prints.
    #[track_caller]
    pub fn java(&self, class: &str, arguments: &[&str]) -> String {
        let rows = self.ask("java", &[&[class], arguments].concat());
        rows.iter().map(|row| row.join(" ") + "\n").collect()
    }

    /// Creates a topic, waits for its leaders, and returns its id. `partitions` is a number, or the
    /// node ids of each partition's replicas (`1,2;2,1`); `configs` are `key=value;key=value`.
    #[track_caller]
    pub fn create(&self, topic: &str, partitions: &str, configs: &str) -> String {
        self.ask("create", &[topic, partitions, configs])[0][0].clone()
    }

    /// Deletes a topic.
    #[track_caller]
    pub fn delete(&self, topic: &str) {
        self.ask("delete", &[topic]);
    }

    /// The names of all topics.
    pub fn topics(&self) -> Vec<String> {
        self.ask("topics", &[]).concat()
    }

    /// Leaders and replicas of a topic.
    #[track_caller]
    pub fn partitions(&self, topic: &str) -> Vec<Partition> {
        let ids = |text: &str| text.split(',').map(|id| id.parse().unwrap()).collect();
        let rows = match self.request("partitions", &[topic]) {
            Ok(rows) => rows,
            // Of several brokers the one that is asked may not have heard of a new topic yet.
            Err(why) if why.contains("UnknownTopicOrPartition") => Rows::new(),
            Err(why) => panic!("partitions of {topic}: {why}"),
        };
        rows.iter()
            .map(|row| Partition {
                partition: row[0].parse().unwrap(),
                leader: row[1].parse().ok(),
                replicas: ids(&row[2]),
                in_sync: ids(&row[3]),
            })
            .collect()
    }

    /// Changes settings: of a `topic`, a `broker` (by node id), or the quotas of a `client` (by its
    /// client id). An empty value takes a setting away.
    #[track_caller]
    pub fn configure(&self, kind: &str, name: &str, configs: &str) {
        self.ask("configure", &[kind, name, configs]);
    }

    /// Writes numbered records.
    #[track_caller]
    pub fn produce(&self, what: &Produce) -> Vec<Produced> {
        let partition = what.partition.map_or("-".into(), |partition| partition.to_string());
        produced(&self.ask(
            "produce",
            &[
                what.topic,
                &partition,
                &what.count.to_string(),
                &what.size.to_string(),
                if what.mixed { "mixed" } else { "alphabet" },
                &what.first.to_string(),
                what.keys,
                what.configs,
                what.end.word(),
            ],
        ))
    }

    /// Writes these records, those of a partition as one batch (up to 16 MiB, or `batch.size`).
    #[track_caller]
    pub fn send(&self, configs: &str, end: End, messages: &[Message]) -> Vec<Produced> {
        let mut arguments = vec![configs.to_owned(), end.word().to_owned()];
        for message in messages {
            arguments.extend([
                message.topic.to_owned(),
                message.partition.to_string(),
                hex(message.key),
                hex(message.value),
                message.timestamp_ms.map_or("-".into(), |time| time.to_string()),
            ]);
        }
        produced(&self.ask("send", &arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Begins to write records, until [`Tool::end_flow`].
    #[track_caller]
    pub fn flow(&self, flow: Flow) {
        let numbers = [flow.partitions, flow.rate, flow.size].map(|number| number.to_string());
        let [partitions, rate, size] = &numbers;
        self.ask("flow", &[flow.name, &flow.topics.join(","), partitions, rate, size, flow.configs]);
    }

    /// Ends a flow: returns when each of its records is acknowledged or refused.
    #[track_caller]
    pub fn end_flow(&self, name: &str) -> Flowed {
        let rows = self.ask("flow-end", &[name]);
        let runs = rows[1..].iter().flat_map(|row| {
            let (offset, number): (i64, u64) = (row[2].parse().unwrap(), row[3].parse().unwrap());
            let (topic, partition): (&String, i32) = (&row[0], row[1].parse().unwrap());
            let count: u64 = row[4].parse().unwrap();
            (offset..)
                .zip(number..number + count)
                .map(move |(offset, number)| (topic.clone(), partition, offset, number))
        });
        Flowed { sent: rows[0][0].parse().unwrap(), refused: rows[0][1].parse().unwrap(), acked: runs.collect() }
    }

    /// Commits an offset as a Java consumer does that is no member of its group.
    ///
    /// # Errors
    /// Kafka's words, for instance when the group has members.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        self.request("commit", &[group, topic, &partition.to_string(), &offset.to_string()]).map(drop)
    }

    /// What a group has committed.
    #[track_caller]
    pub fn group(&self, group: &str) -> Vec<GroupOffset> {
        self.ask("group", &[group])
            .iter()
            .map(|row| GroupOffset {
                topic: row[0].clone(),
                partition: row[1].parse().unwrap(),
                committed: row[2].parse().unwrap(),
                log_end: row[3].parse().unwrap(),
                lag: row[4].parse().unwrap(),
            })
            .collect()
    }

    /// A group's state (`Stable`, `Empty`, `Dead`), and its members' ids.
    #[track_caller]
    pub fn members(&self, group: &str) -> (String, Vec<String>) {
        let rows = self.ask("members", &[group]);
        (rows[0][0].clone(), rows[1..].iter().map(|row| row[0].clone()).collect())
    }

    /// A live member of a group, which polls and commits until [`Tool::leave`] with the same name.
    /// Returns its member id once it has an assignment.
    #[track_caller]
    pub fn join(&self, name: &str, group: &str, topics: &str, configs: &str) -> String {
        self.ask("join", &[name, group, topics, configs])[0][0].clone()
    }

    /// Ends a member in good order.
    #[track_caller]
    pub fn leave(&self, name: &str) {
        self.ask("leave", &[name]);
    }

    /// Every record of a topic, as a consumer with this `isolation.level` reads it:
    /// `read_committed` or `read_uncommitted`.
    #[track_caller]
    pub fn read(&self, topic: &str, isolation: &str) -> Vec<Read> {
        self.ask("read", &[topic, isolation])
            .iter()
            .map(|row| Read {
                partition: row[0].parse().unwrap(),
                offset: row[1].parse().unwrap(),
                timestamp_ms: row[2].parse().unwrap(),
                key: unhex(&row[3]),
                value: unhex(&row[4]),
            })
            .collect()
    }

    /// Deletes the records below an offset, as retention would.
    #[track_caller]
    pub fn trim(&self, topic: &str, partition: i32, offset: i64) {
        self.ask("trim", &[topic, &partition.to_string(), &offset.to_string()]);
    }

    /// Log start and log end of each partition, in their order.
    #[track_caller]
    pub fn bounds(&self, topic: &str) -> Vec<(i64, i64)> {
        let rows = self.ask("bounds", &[topic]);
        rows.iter().map(|row| (row[1].parse().unwrap(), row[2].parse().unwrap())).collect()
    }

    /// Moves a partition to these nodes (`2,3,1`); returns when it is there. The brokers' metadata follow a
    /// moment later.
    #[track_caller]
    pub fn reassign(&self, topic: &str, partition: i32, replicas: &str) {
        self.ask("reassign", &[topic, &partition.to_string(), replicas]);
    }

    /// Gives a topic more partitions: so many in all.
    #[track_caller]
    pub fn grow(&self, topic: &str, partitions: u32) {
        self.ask("grow", &[topic, &partitions.to_string()]);
    }

    /// Makes the first of a partition's replicas its leader.
    #[track_caller]
    pub fn elect(&self, topic: &str, partition: i32) {
        self.ask("elect", &[topic, &partition.to_string()]);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Ok(mut requests) = self.requests.lock() {
            requests.0 = None;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }
}

fn parse(line: &str) -> (u64, Answer) {
    let mut parts = line.splitn(3, FIELD);
    let number = parts.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let kind = parts.next().unwrap_or_default();
    let text = parts.next().unwrap_or_default();
    if kind != "ok" {
        return (number, Err(text.replace(ROW, "\n")));
    }
    let rows = text.split(ROW).filter(|_| !text.is_empty());
    (number, Ok(rows.map(|row| row.split(FIELD).map(str::to_owned).collect()).collect()))
}

fn produced(rows: &Rows) -> Vec<Produced> {
    rows.iter()
        .map(|row| Produced {
            partition: row[0].parse().unwrap(),
            first: row[1].parse().unwrap(),
            last: row[2].parse().unwrap(),
            count: row[3].parse().unwrap(),
        })
        .collect()
}

fn hex(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "-".into() };
    let mut text = String::with_capacity(1 + 2 * bytes.len());
    text.push('=');
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('=')?;
    Some((0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect())
}
