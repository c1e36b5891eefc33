//! Dead letters in a topic: what they are made of, and what `worker dlq` makes of them.

use std::fs;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::on_brokers;
use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::Produce;
use crate::support::worker::{Config, Ended, Site, Worker};

on_brokers!(
    a_letter_is_the_record_with_headers_of_its_own,
    letters_are_listed_shown_and_replayed_once,
    while_their_topic_is_missing_letters_wait,
);

/// A handler that rejects what has `bad` in it, unless there is a file `mended`.
const HANDLER: &str = "while read -r line; do seq=${line#*:}; seq=${seq%%,*}; case \"$line\" in *bad*) if [ -e $dir/mended ]; \
then printf '%s\\n' \"$line\" >>$dir/out.jsonl; echo \"{\\\"ack\\\":$seq}\"; else echo \"{\\\"fail\\\":$seq,\\\"retry\\\":false,\
\\\"reason\\\":\\\"no such order\\\"}\"; fi;; *) echo \"{\\\"ack\\\":$seq}\";; esac; done";

fn config(kafka: &Kafka, site: &Site, group: &str, topic: &str) -> Config {
    let dir = site.path("x").parent().unwrap().display().to_string();
    fs::write(site.path("handler.sh"), format!("dir={dir}\n{HANDLER}\n")).unwrap();
    kafka
        .config(group, &[topic])
        .set("kafka", "client", "'librdkafka'")
        .set("state", "dir", "'@DIR@/state'")
        .set("sink.h", "type", "'exec'")
        .set("sink.h", "command", "['sh', '@DIR@/handler.sh']")
        .set("consumer", "sink", "'h'")
        .set("consumer", "on_failure", "'dead_letter'")
        .set("dead_letter", "topic", "'{topic}-dead'")
        .set("dead_letter", "timeout_ms", 3_000)
}

fn dlq(site: &Site, command: &str, arguments: &[&str]) -> Ended {
    let file = site.path("consumer.toml").display().to_string();
    Worker::run(&[&["dlq", command, "-c", &file], arguments].concat())
}

/// Three records of ten are bad; one of them is binary, and has headers.
fn write(kafka: &Kafka, topic: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
    for number in 0..10_u8 {
        let value = if number % 4 == 1 { format!("bad {number}") } else { format!("good {number}") };
        let key = [number, 0xff];
        let mut record = BaseRecord::<[u8], str>::to(topic)
            .partition(0)
            .payload(&value)
            .timestamp(1_700_000_000_000 + i64::from(number));
        if number == 5 {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "a", value: Some(&b"\xff\0"[..]) })
                .insert(Header { key: "dead_letter.topic", value: Some(&b"an earlier one"[..]) })
                .insert(Header { key: "a", value: None::<&[u8]> });
            record = record.key(&key).headers(headers);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

fn a_letter_is_the_record_with_headers_of_its_own(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("lettered");
    let dead = format!("{topic}-dead");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().create(&dead, "1", "");
    write(kafka, &topic);
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&config(kafka, &site, &group, &topic).to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 10);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert!(!ended.lines_with(&["records become dead letters", "no such order"]).is_empty(), "{:#?}", ended.log);

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).set("group.id", &group).create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&dead, 0, rdkafka::Offset::Offset(1)).unwrap();
    consumer.assign(&list).unwrap();
    let message = std::iter::repeat_with(|| consumer.poll(Duration::from_secs(1))).flatten().next().unwrap().unwrap();
    assert_eq!((message.key(), message.payload()), (Some(&[5, 0xff][..]), Some(&b"bad 5"[..])));
    let headers: Vec<_> = message.headers().unwrap().iter().collect();
    let text = |header: &Header<'_, &[u8]>| {
        (header.key.to_owned(), header.value.map(|value| String::from_utf8_lossy(value).into_owned()))
    };
    let own: Vec<_> = headers.iter().skip(3).map(text).collect();
    let expected = [
        ("topic", &*topic),
        ("partition", "0"),
        ("offset", "5"),
        ("timestamp", "1700000000005"),
        ("sink", "h"),
        ("reason", "the handler rejects it: no such order"),
        ("attempts", "1"),
    ];
    let expected = expected.map(|(name, value)| (format!("dead_letter.{name}"), Some(value.to_owned())));
    assert_eq!(own[..7], expected);
    assert_eq!([&*own[7].0, &*own[8].0], ["dead_letter.first_failure", "dead_letter.dead"]);
    assert_eq!(own.len(), 9);
    let dead_ms = own[8].1.as_ref().unwrap().parse().ok();
    assert_eq!(message.timestamp().to_millis(), dead_ms, "retention begins when it was given up");
    assert_eq!((headers[0].key, headers[0].value), ("a", Some(&b"\xff\0"[..])));
    assert_eq!((headers[1].key, headers[1].value), ("dead_letter.topic", Some(&b"an earlier one"[..])));
    assert_eq!((headers[2].key, headers[2].value), ("a", None));
}

fn letters_are_listed_shown_and_replayed_once(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("replayed");
    let dead = format!("{topic}-dead");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().create(&dead, "3", "");
    write(kafka, &topic);
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&config(kafka, &site, &group, &topic).to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 10);
    // It is read while the worker runs.
    let ended = dlq(&site, "list", &[]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    assert_eq!(ended.stdout.len(), 4, "{:#?}", ended.stdout);
    assert!(
        ended.stdout.iter().any(|line| line.contains(&dead) && line.contains("no such order")),
        "{:#?}",
        ended.stdout
    );
    let ended = dlq(&site, "list", &["--json", "--from-offset", "5", "--to-offset", "5"]);
    let line: serde_json::Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    assert_eq!(
        (&line["value"], &line["timestamp"], &line["sink"]),
        (&"bad 5".into(), &1_700_000_000_005_i64.into(), &"h".into())
    );
    assert_eq!((line["headers"].as_array().unwrap().len(), ended.stdout.len()), (3, 1));
    let ended = dlq(&site, "show", &["--from-offset", "9"]);
    let text = ended.stdout.join("\n");
    for words in [&*dead, "offset=9", "the handler rejects it: no such order", "bad 9"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let ended = dlq(&site, "replay", &[]);
    assert!(
        ended.stdout[0].contains("would replay 3 dead letters of topic") && ended.stdout[0].contains(&dead),
        "{ended:?}"
    );

    fs::write(site.path("mended"), "").unwrap();
    let ended = dlq(&site, "replay", &["--execute", "--to-offset", "5"]);
    assert!(ended.stdout[0].starts_with("replayed delivered=2 failed=0 before=0 noted_in="), "{ended:?}");
    let ended = dlq(&site, "replay", &["--execute"]);
    assert!(ended.stdout[0].starts_with("replayed delivered=1 failed=0 before=2 noted_in="), "{ended:?}");
    let ended = dlq(&site, "replay", &["--execute"]);
    assert!(ended.stdout[0].starts_with("replayed delivered=0 failed=0 before=3 noted_in="), "{ended:?}");
    let out = fs::read_to_string(site.path("out.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut offsets: Vec<_> = lines.iter().map(|line| line["offset"].as_i64().unwrap()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [1, 5, 9], "each once");
    let five = lines.iter().find(|line| line["offset"] == 5).unwrap();
    assert_eq!(five["headers"].as_array().unwrap().len(), 3, "those of the record alone");
    assert_eq!(worker.stop().code(), Some(0));
}

fn while_their_topic_is_missing_letters_wait(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("homeless");
    let dead = format!("{topic}-dead");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 5));
    write(kafka, &topic);
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&config(kafka, &site, &group, &topic).to_string());
    let line = worker.wait_words(&["WARN", "dead letters can't be written", &dead]);
    assert!(line.contains("does not exist") && line.contains("--create"), "{line}");
    assert!(
        kafka.committed(&format!("{group}-{topic}"), &topic, 0).unwrap_or(0) <= 6,
        "nothing behind it is committed"
    );
    assert!(!kafka.tool().topics().contains(&dead), "it is never created by the worker");
    kafka.tool().create(&dead, "1", "");
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 15);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(kafka.tool().read(&dead, "read_committed").len(), 3, "none twice");
}
