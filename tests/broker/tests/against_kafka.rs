//! The embedded broker against a real one: the same batches in both, the same fetches, and the
//! answers compared byte by byte. Not run by default, since it needs an Apache Kafka 3.9:
//! `KAFKA_BOOTSTRAP=127.0.0.1:9092 cargo test -p broker -- --ignored against_kafka`.

use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::log::{Batch, Marker};
use broker::{Codec, NewRecord, Server};

use crate::support::{LONG, Wire, server};

/// Requests encoded by hand, since most of them are of no use to anyone else here.
struct Request(Vec<u8>);

impl Request {
    fn new(key: i16, version: i16) -> Self {
        Self(Vec::new()).i16(key).i16(version).i32(1).text("test")
    }

    fn i16(mut self, number: i16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn i32(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn i64(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn text(mut self, text: &str) -> Self {
        self = self.i16(i16::try_from(text.len()).unwrap());
        self.0.extend(text.as_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.i32(i32::try_from(bytes.len()).unwrap());
        self.0.extend(bytes);
        self
    }

    /// The answer behind its correlation id.
    fn ask(&self, wire: &mut Wire) -> Vec<u8> {
        wire.send(&self.0);
        wire.receive().expect("the broker closed the connection").split_off(4)
    }
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// A topic of a real broker.
struct Kafka {
    wire: Wire,
    topic: String,
}

impl Kafka {
    fn create(name: &str, configs: &[(&str, &str)]) -> Self {
        let address = std::env::var("KAFKA_BOOTSTRAP").expect("KAFKA_BOOTSTRAP names a Kafka 3.9, host:port");
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut wire = Wire(socket);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let topic = format!("{name}-{now}");
        let mut create = Request::new(19, 0).i32(1).text(&topic).i32(1).i16(1).i32(0);
        create = create.i32(i32::try_from(configs.len()).unwrap());
        for (key, value) in configs {
            create = create.text(key).text(value);
        }
        let answer = create.i32(10_000).ask(&mut wire);
        assert_eq!(i16_at(&answer, answer.len() - 2), 0, "{topic} is created");
        let metadata = Request::new(3, 0).i32(1).text(&topic);
        let deadline = Instant::now() + LONG;
        // One broker, one topic without error, one partition without error.
        loop {
            let answer = metadata.ask(&mut wire);
            let host = usize::try_from(i16_at(&answer, 8)).unwrap();
            let found = &answer[4 + 4 + 2 + host + 4 + 4..];
            let partition = 2 + 2 + topic.len() + 4;
            if i16_at(found, 0) == 0 && found.len() > partition + 2 && i16_at(found, partition) == 0 {
                return Self { wire, topic };
            }
            assert!(Instant::now() < deadline, "{topic} has no leader");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn produce(&mut self, batch: &[u8], transaction: Option<&str>) {
        // A producer counts from 0, and knows no epoch; neither is covered by the checksum.
        let mut batch = batch.to_vec();
        batch[..8].fill(0);
        let request = Request::new(0, 7);
        let request = match transaction {
            None => request.i16(-1),
            Some(id) => request.text(id),
        };
        let request = request.i16(-1).i32(10_000).i32(1).text(&self.topic).i32(1).i32(0).bytes(&batch);
        let answer = request.ask(&mut self.wire);
        let error = i16_at(&answer, 4 + 2 + self.topic.len() + 4 + 4);
        assert_eq!(error, 0, "Kafka takes the batch");
    }

    /// Appends a batch as part of a transaction, and ends that.
    fn transaction(&mut self, batch: &Batch, commit: bool) {
        let id = format!("txn-{}", self.topic);
        // FindCoordinator creates the topic in which transactions are kept.
        let deadline = Instant::now() + LONG;
        let mut find = Request::new(10, 1).text(&id);
        find.0.push(1);
        while i16_at(&find.ask(&mut self.wire), 4) != 0 {
            assert!(Instant::now() < deadline, "there is no coordinator");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let mut answer = Request::new(22, 0).text(&id).i32(60_000).ask(&mut self.wire);
        while i16_at(&answer, 4) != 0 {
            assert!(Instant::now() < deadline, "there is no producer id: {}", i16_at(&answer, 4));
            std::thread::park_timeout(Duration::from_millis(50));
            answer = Request::new(22, 0).text(&id).i32(60_000).ask(&mut self.wire);
        }
        let (producer, epoch) = (i64::from_be_bytes(answer[6..14].try_into().unwrap()), i16_at(&answer, 14));
        let begin = Request::new(24, 0).text(&id).i64(producer).i16(epoch).i32(1).text(&self.topic).i32(1).i32(0);
        let answer = begin.ask(&mut self.wire);
        assert_eq!(i16_at(&answer, answer.len() - 2), 0, "the partition is added");
        let mut bytes = batch.encoded().to_vec();
        bytes[43..51].copy_from_slice(&producer.to_be_bytes());
        bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        self.produce(&bytes, Some(&id));
        let mut end = Request::new(26, 0).text(&id).i64(producer).i16(epoch);
        end.0.push(u8::from(commit));
        assert_eq!(i16_at(&end.ask(&mut self.wire), 4), 0, "the transaction ends");
        // The marker is written a moment later.
        let end = batch.last_offset() + 2;
        while self.end() < end {
            assert!(Instant::now() < deadline, "there is no marker");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn end(&mut self) -> i64 {
        let answer = Request::new(2, 1).i32(-1).i32(1).text(&self.topic).i32(1).i32(0).i64(-1).ask(&mut self.wire);
        i64::from_be_bytes(answer[answer.len() - 8..].try_into().unwrap())
    }

    fn fetch(&mut self, version: i16, position: i64, max_bytes: i32) -> Vec<u8> {
        fetch(&mut self.wire, &self.topic, version, position, max_bytes)
    }
}

fn fetch(wire: &mut Wire, topic: &str, version: i16, position: i64, max_bytes: i32) -> Vec<u8> {
    fetch_from(wire, topic, 0, version, position, max_bytes)
}

/// What comes behind the topic's name in the answer to Fetch 0 or 4.
fn fetch_from(wire: &mut Wire, topic: &str, number: i32, version: i16, position: i64, max_bytes: i32) -> Vec<u8> {
    let mut request = Request::new(1, version).i32(-1).i32(0).i32(0);
    if version == 4 {
        request = request.i32(i32::MAX);
        request.0.push(0);
    }
    let request = request.i32(1).text(topic).i32(1).i32(number).i64(position).i32(max_bytes);
    let mut answer = request.ask(wire);
    let mut head = 4 + 2 + topic.len() + 4;
    if version == 4 {
        head += 4;
    }
    answer.split_off(head)
}

/// Compares all positions, with sizes around every boundary between batches.
fn compare(server: &Server, kafka: &mut Kafka, versions: &[i16]) -> usize {
    let (end, sizes): (i64, Vec<usize>) =
        server.with_log("t", 0, |log| (log.end(), log.batches().iter().map(|batch| batch.size()).collect())).unwrap();
    let mut wire = Wire::to(server, 0);
    let mut compared = 0;
    for version in versions {
        for position in -1..=end + 1 {
            let mut boundaries = vec![0, 60, 1 << 20];
            for from in 0..sizes.len() {
                for to in from..sizes.len() {
                    let sum: usize = sizes[from..=to].iter().sum();
                    boundaries.extend([sum - 1, sum, sum + 1, sum + 30]);
                }
            }
            boundaries.sort_unstable();
            boundaries.dedup();
            for max_bytes in boundaries {
                let max_bytes = i32::try_from(max_bytes).unwrap();
                let ours = fetch(&mut wire, "t", *version, position, max_bytes);
                let theirs = kafka.fetch(*version, position, max_bytes);
                assert_eq!(ours, theirs, "Fetch {version} at {position}, at most {max_bytes} bytes; sizes {sizes:?}");
                compared += 1;
            }
        }
    }
    compared
}

fn records(count: usize, size: usize) -> Vec<NewRecord> {
    let timestamp_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let record = |index: usize| NewRecord {
        timestamp_ms: timestamp_ms + i64::try_from(index).unwrap(),
        key: index.is_multiple_of(2).then(|| format!("key-{index}").into_bytes()),
        value: Some(vec![b'v'; size]),
    };
    (0..count).map(record).collect()
}

fn append(server: &Server, kafka: &mut Kafka, records: Vec<NewRecord>, codec: Codec) {
    let batch = server
        .with_log("t", 0, |log| {
            log.append(records, codec);
            std::sync::Arc::clone(log.batches().last().unwrap())
        })
        .unwrap();
    kafka.produce(batch.encoded(), None);
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_plain_batches_are_answered_alike() {
    let (server, mut kafka) = (server(), Kafka::create("plain", &[]));
    for (count, size) in [(3, 10), (1, 0), (10, 1), (2, 300), (4, 17)] {
        append(&server, &mut kafka, records(count, size), Codec::None);
    }
    assert!(compare(&server, &mut kafka, &[0, 4]) > 1000);
    // A partition, and a topic, that does not exist.
    let mut wire = Wire::to(&server, 0);
    for version in [0, 4] {
        let theirs = fetch_from(&mut kafka.wire, &kafka.topic, 7, version, 0, 100);
        assert_eq!(fetch_from(&mut wire, "t", 7, version, 0, 100), theirs);
        let theirs = fetch(&mut kafka.wire, "no-such-topic", version, 0, 100);
        assert_eq!(fetch(&mut wire, "no-such-topic", version, 0, 100), theirs);
    }
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_a_topic_without_down_conversion_is_refused_alike() {
    let server = server();
    server.set_down_conversion("t", false).unwrap();
    let mut kafka = Kafka::create("no-conversion", &[("message.downconversion.enable", "false")]);
    append(&server, &mut kafka, records(3, 10), Codec::None);
    compare(&server, &mut kafka, &[0, 4]);
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_zstd_is_refused_alike_and_stored_alike() {
    let (server, mut kafka) = (server(), Kafka::create("zstd", &[]));
    for codec in [Codec::None, Codec::None, Codec::Zstd, Codec::None] {
        append(&server, &mut kafka, records(3, 10), codec);
    }
    compare(&server, &mut kafka, &[0, 4]);
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_compressed_batches_are_taken_and_stored_alike() {
    // Converted, they are compressed anew, which no two implementations do alike.
    let (server, mut kafka) = (server(), Kafka::create("compressed", &[]));
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        append(&server, &mut kafka, records(3, 1000), codec);
        append(&server, &mut kafka, records(400, 200), codec);
    }
    let mut wire = Wire::to(&server, 0);
    for position in [0, 3, 403, 406, 806, 809, 1209, 1212] {
        assert_eq!(fetch(&mut wire, "t", 4, position, 1), kafka.fetch(4, position, 1), "at {position}");
    }
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_control_batches_are_dropped_alike() {
    let (server, mut kafka) = (server(), Kafka::create("control", &[]));
    append(&server, &mut kafka, records(3, 10), Codec::None);
    for (count, commit) in [(2, false), (5, true), (1, false)] {
        let batch = server
            .with_log("t", 0, |log| {
                log.append_transactional(records(count, 10), Codec::None);
                let batch = std::sync::Arc::clone(log.batches().last().unwrap());
                log.append_control(if commit { Marker::Commit } else { Marker::Abort }, 0);
                batch
            })
            .unwrap();
        kafka.transaction(&batch, commit);
    }
    append(&server, &mut kafka, records(4, 10), Codec::None);
    // Producer ids and the times of markers differ, so the batches themselves are not compared.
    assert!(compare(&server, &mut kafka, &[0]) > 500);
}

/// The complete messages of an answer to Fetch 0: offset, codec, and what is in it where that can
/// be told.
fn messages(answer: &[u8]) -> Vec<(i64, u8, Vec<NewRecord>)> {
    let (mut found, mut rest) = (Vec::new(), &answer[18..]);
    while let Some((head, behind)) = rest.split_first_chunk::<12>() {
        let size = usize::try_from(i32::from_be_bytes(head[8..].try_into().unwrap())).unwrap();
        let Some(message) = behind.get(..size) else { break };
        let inner = broker::log::read_message_set(&rest[..12 + size], 0).map_or_else(|_| Vec::new(), |read| read.0);
        found.push((i64::from_be_bytes(head[..8].try_into().unwrap()), message[5], inner));
        rest = &behind[size..];
    }
    found
}

#[test]
#[ignore = "needs an Apache Kafka 3.9 at $KAFKA_BOOTSTRAP"]
fn against_kafka_compressed_batches_are_converted_alike() {
    let (server, mut kafka) = (server(), Kafka::create("converted", &[]));
    for codec in [Codec::Gzip, Codec::None, Codec::Snappy, Codec::Lz4, Codec::None, Codec::Gzip, Codec::None] {
        append(&server, &mut kafka, records(4, 60), codec);
    }
    let sizes: Vec<usize> =
        server.with_log("t", 0, |log| log.batches().iter().map(|batch| batch.size()).collect()).unwrap();
    let mut wire = Wire::to(&server, 0);
    for position in 0..=28 {
        let first = usize::try_from(position / 4).unwrap();
        // With one batch fetched, and with all: in between, what is cut off depends on the compressor.
        let one = sizes.get(first).copied().unwrap_or(100);
        for max_bytes in [one - 1, one, 1 << 20] {
            let max_bytes = i32::try_from(max_bytes).unwrap();
            let ours = messages(&fetch(&mut wire, "t", 0, position, max_bytes));
            let theirs = messages(&kafka.fetch(0, position, max_bytes));
            let common = if max_bytes == 1 << 20 { ours.len().min(theirs.len()) } else { usize::MAX };
            let head = |list: &[_]| list.iter().take(common).cloned().collect::<Vec<(i64, u8, Vec<NewRecord>)>>();
            assert_eq!(head(&ours), head(&theirs), "at {position}, at most {max_bytes} bytes");
            assert!(ours.len().abs_diff(theirs.len()) <= 1, "{} messages, {} in Kafka", ours.len(), theirs.len());
            let empty = position == 28 || max_bytes == i32::try_from(one - 1).unwrap();
            assert_eq!(ours.is_empty(), empty, "at {position}, at most {max_bytes} bytes");
        }
    }
}
