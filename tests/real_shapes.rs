//! What a record is beside its value, from a real Kafka into JSON lines: null and empty, headers, timestamps, and a
//! header whose name is no text.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crc32c::crc32c;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::on_brokers;
use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Message, Produce};
use crate::support::web::{Web, ok};
use crate::support::worker::{PATIENCE, Site, Worker};

on_brokers!(
    json_lines_tell_null_from_empty_and_have_headers_and_timestamps,
    a_request_has_the_timestamp_and_the_headers_of_its_record,
    a_header_whose_name_is_no_text_does_not_hold_its_record_back,
    what_waits_for_an_open_transaction_is_not_readable,
);

fn what_waits_for_an_open_transaction_is_not_readable(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("open");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 10));
    let mut config = ClientConfig::new();
    let config = config.set("bootstrap.servers", &kafka.bootstrap).set("transactional.id", &topic);
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..5 {
        producer.send(BaseRecord::<str, str>::to(&topic).payload("open")).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let (site, group) = (Site::new(), Kafka::name("g"));
    let config = kafka.config(&group, &[&topic]).set("kafka", "client", "'librdkafka'");
    let _worker = site.start(&config.to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 10);
    let file = site.path("consumer.toml").display().to_string();
    let lag = || {
        let ended = Worker::run(&["lag", "-c", &file, "--json"]);
        let round: serde_json::Value = serde_json::from_str(&ended.stdout[0]).unwrap();
        let line = &round["partitions"][0];
        (line["lag"].as_i64(), line["readable"].as_i64(), line["verdict"].as_str().map(str::to_owned))
    };
    assert_eq!(lag(), (Some(5), Some(0), Some("idle".to_owned())));
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(site.wait_records(15, PATIENCE).len(), 15);
}

fn json_lines_tell_null_from_empty_and_have_headers_and_timestamps(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("shapes");
    kafka.tool().create(&topic, "1", "");
    let at = |key, value| Message { topic: &topic, partition: 0, key, value, timestamp_ms: Some(77) };
    kafka.tool().send("", End::Plain, &[at(None, None), at(Some(b""), Some(b"")), at(Some(b"k"), Some(b"\xff"))]);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "ü", value: None::<&str> })
        .insert(Header { key: "a", value: Some("") });
    let record = BaseRecord::<str, str>::to(&topic).payload("v").headers(headers).timestamp(1_700_000_000_123);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&kafka.config(&group, &[&topic]).set("kafka", "client", "'librdkafka'").to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 4);
    assert_eq!(worker.stop().code(), Some(0));
    let line =
        |offset: i64, rest: &str| format!("{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset},{rest}}}");
    let expected = [
        line(0, "\"timestamp\":77,\"key\":null,\"value\":null"),
        line(1, "\"timestamp\":77,\"key\":\"\",\"value\":\"\""),
        line(2, "\"timestamp\":77,\"key\":\"k\",\"value_base64\":\"/w==\""),
        line(
            3,
            "\"timestamp\":1700000000123,\"key\":null,\"value\":\"v\",\"headers\":[{\"name\":\"a\",\"value\":\"1\"},{\"name\":\"ü\",\"value\":null},{\"name\":\"a\",\"value\":\"\"}]",
        ),
    ];
    assert_eq!(fs::read_to_string(site.out()).unwrap().lines().collect::<Vec<_>>(), expected);
}

fn a_request_has_the_timestamp_and_the_headers_of_its_record(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("requests");
    kafka.tool().create(&topic, "1", "");
    let mut config = ClientConfig::new();
    let producer: BaseProducer = config.set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "content-length", value: Some("7\r\nX: y") })
        .insert(Header { key: "ü", value: None::<&str> });
    let record = BaseRecord::<str, str>::to(&topic).key("").payload("v").headers(headers).timestamp(1_700_000_000_123);
    producer.send(record).unwrap();
    producer.flush(PATIENCE).unwrap();
    let (site, web) = (Site::new(), Web::start(|_| ok()));
    let config = kafka
        .config(&Kafka::name("g"), &[&topic])
        .set("kafka", "client", "'librdkafka'")
        .set("consumer", "sink", "'w'")
        .set("sink.w", "type", "'http'")
        .set("sink.w", "url", format!("'{}'", web.url()))
        .set("sink.w", "body", "'record'");
    let _worker = site.start(&config.to_string());
    let request = &web.wait_requests(1, PATIENCE)[0];
    assert_eq!((request.text().as_str(), request.header("kafka-key")), ("v", Some("")));
    assert_eq!(request.header("kafka-timestamp"), Some("1700000000123"));
    assert_eq!(
        request.header("kafka-headers"),
        Some(r#"[{"name":"content-length","value":"7\r\nX: y"},{"name":"\u00fc","value":null}]"#)
    );
    assert_eq!((request.header("content-length"), request.header("x")), (Some("1"), None));
}

/// A header: its name and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// A signed number as records have them: zigzag, seven bits a byte, the lowest first.
fn varint(into: &mut Vec<u8>, number: usize) {
    let mut rest = number << 1;
    while rest > 0x7f {
        into.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn with_length(into: &mut Vec<u8>, bytes: &[u8]) {
    varint(into, bytes.len());
    into.extend_from_slice(bytes);
}

#[test]
fn crc32c_is_that_of_rfc_3720() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}

/// A record batch (magic 2), each record with a value and these headers.
fn batch(records: &[(&str, &[Pair<'_>])]) -> Vec<u8> {
    let mut body = Vec::new();
    let count = i32::try_from(records.len()).unwrap();
    body.extend(0_i16.to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    // Both timestamps, and a producer without an id: id, epoch, sequence.
    body.extend([1_700_000_000_000_i64; 2].map(i64::to_be_bytes).concat());
    body.extend([0xff; 8 + 2 + 4]);
    body.extend(count.to_be_bytes());
    for (offset, (value, headers)) in records.iter().enumerate() {
        // Attributes and the difference of timestamps, then of offsets; and a key that is null (-1).
        let mut record = vec![0, 0];
        varint(&mut record, offset);
        record.push(1);
        with_length(&mut record, value.as_bytes());
        varint(&mut record, headers.len());
        for (name, value) in *headers {
            with_length(&mut record, name);
            with_length(&mut record, value);
        }
        with_length(&mut body, &record);
    }
    let mut batch = 0_i64.to_be_bytes().to_vec();
    // Behind the length: the leader's epoch, the magic byte and the checksum.
    batch.extend(i32::try_from(4 + 1 + 4 + body.len()).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&body).to_be_bytes());
    batch.extend(body);
    batch
}

/// Sends a batch to partition 0 of a topic with Produce version 3, as no client library would, and checks the answer.
#[track_caller]
fn produce(kafka: &Kafka, topic: &str, batch: &[u8]) {
    let length = |bytes: usize| i32::try_from(bytes).unwrap().to_be_bytes();
    let name = [&i16::try_from(topic.len()).unwrap().to_be_bytes()[..], topic.as_bytes()].concat();
    let mut request = Vec::new();
    // Produce, version 3, correlation id, no client id; no transaction, acks=all, timeout.
    request.extend([0_i16, 3].map(i16::to_be_bytes).concat());
    request.extend(7_i32.to_be_bytes());
    request.extend([-1_i16, -1, -1].map(i16::to_be_bytes).concat());
    request.extend(10_000_i32.to_be_bytes());
    // One topic, one partition, number 0.
    request.extend([&length(1)[..], &name, &length(1), &length(0), &length(batch.len()), batch].concat());
    let mut stream = TcpStream::connect(kafka.address(0)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&[&length(request.len())[..], &request].concat()).unwrap();
    // Length, correlation id, one topic, its name, one partition, its number, error code.
    let mut answer = vec![0; 4 + 4 + 4 + name.len() + 4 + 4 + 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[answer.len() - 2..], [0, 0], "error code of {answer:?}");
}

fn a_header_whose_name_is_no_text_does_not_hold_its_record_back(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("no-text");
    kafka.tool().create(&topic, "1", "");
    let broken: &[Pair<'_>] = &[(b"first", b"1"), (b"\xff\xfe", b"lost"), (b"last", b"2")];
    produce(kafka, &topic, &batch(&[("before", &[(b"a", b"b")]), ("with", broken), ("behind", &[])]));
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&kafka.config(&group, &[&topic]).set("kafka", "client", "'librdkafka'").to_string());
    let records = site.wait_records(3, crate::support::worker::PATIENCE);
    let line = worker.wait_words(&["WARN", "a header's name is no UTF-8", &format!("topic={topic} partition=0")]);
    assert!(line.contains(" offset=1 ") && line.contains("the record is delivered"), "{line}");
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 3);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    // The crate panics at such a name: nothing that an operator has to know of.
    assert_eq!(ended.lines_with(&["panic thread="]), Vec::<&str>::new());
    let texts: Vec<(i64, &str)> = records.iter().map(|record| (record.offset, record.text())).collect();
    assert_eq!(texts, [(0, "before"), (1, "with"), (2, "behind")]);
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|value| value.as_bytes().to_vec()));
    assert_eq!(records[0].headers, [header("a", Some("b"))]);
    // The name can't be had, and with it the value.
    let replaced = [header("first", Some("1")), header("\u{FFFD}", None), header("last", Some("2"))];
    assert_eq!(records[1].headers, replaced);
    assert_eq!(records[2].headers, []);
}
