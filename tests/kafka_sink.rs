//! The configuration of the sink `kafka`, as far as it shows without a broker.

use std::fs;

use crate::support::worker::{Config, Ended, Site, Worker};

fn base() -> Config {
    Config::new(&["127.0.0.1:9".to_owned()], &["t", "u", "t-7"])
        .set("kafka", "client", "'auto'")
        .set("sink.k", "type", "'kafka'")
        .set("sink.k", "topic", "'copy-of-{topic}'")
        .set("consumer", "sink", "'k'")
}

fn check(site: &Site, config: &Config) -> Ended {
    let file = site.write_config(&config.to_string()).display().to_string();
    Worker::run(&["check", "-c", &file])
}

#[test]
fn a_good_one_is_shown_with_its_inner_tables() {
    let site = Site::new();
    fs::write(site.path("password"), "very-secret").unwrap();
    let config = base()
        .set("sink.k", "bootstrap_servers", "'a:1,b:2'")
        .set("sink.k", "lanes", 4)
        .set("sink.k.sasl", "mechanism", "'SCRAM-SHA-256'")
        .set("sink.k.sasl", "username", "'u'")
        .set("sink.k.sasl", "password_file", "'@DIR@/password'")
        .set("sink.k.librdkafka", "'batch.size'", 5000)
        .set("sink.k.librdkafka", "'message.max.bytes'", 2_000_000);
    let ended = check(&site, &config);
    let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
    assert_eq!(ended.code(), Some(0), "{text}");
    for words in ["[sink.k]", "\"copy-of-{topic}\"", "[sink.k.sasl]", "[sink.k.librdkafka]", "batch.size", "lanes"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("very-secret"), "{text}");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_key() {
    let site = Site::new();
    let cases = [
        (base().set("sink.k", "topic", "'{key}'"), "sink.k.topic: ", "{topic} and {partition}, and no other"),
        (base().set("sink.k", "topic", "'a b'"), "sink.k.topic: ", "no topic's name"),
        (base().set("sink.k", "topic", "'{topic}'"), "sink.k.topic: ", "the topic that they come from"),
        (base().set("sink.k", "topic", "'t'"), "sink.k.topic: ", "the topic that they come from (t)"),
        // From t to t-7, and from there to t-7.
        (base().set("sink.k", "topic", "'t-{partition}'"), "sink.k.topic: ", "come from (t-7)"),
        (
            base().set("consumer", "topics_regex", "'orders-.*'").set("sink.k", "topic", "'{topic}'"),
            "sink.k.topic: ",
            "come from (any that topics_regex finds)",
        ),
        (base().set("sink.k", "partition", "'random'"), "sink.k.partition: ", "\"key\" or \"same\""),
        (base().set("sink.k", "compression", "'brotli'"), "sink.k.compression: ", "zstd"),
        (base().set("sink.k", "bootstrap_servers", "'a'"), "sink.k.bootstrap_servers: ", "has no port"),
        (base().set("sink.k.tls", "ca", "'/none.pem'"), "sink.k.tls: ", "stands without sink.k.bootstrap_servers"),
        (base().set("sink.k.librdkafka", "acks", 1), "sink.k.librdkafka.acks: ", "the worker's own"),
        (base().set("sink.k.librdkafka", "'linger.ms'", 1), "sink.k.librdkafka.linger.ms: ", "use linger_ms"),
        (base().set("sink.k.librdkafka", "'linger.nanoseconds'", 1), "sink.k.librdkafka.", "refused by librdkafka"),
        // Each is right by itself.
        (
            base().set("sink.k.librdkafka", "'max.in.flight'", 10),
            "sink.k.type: ",
            "makes no producer of these settings",
        ),
    ];
    for (config, key, words) in cases {
        let ended = check(&site, &config);
        let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
        assert_eq!(ended.code(), Some(2), "{key} {words}: {text}");
        assert!(ended.log.iter().any(|line| line.contains(key) && line.contains(words)), "{key} {words}: {text}");
    }
}

#[test]
fn a_circle_over_several_topics_is_an_error_and_a_chain_is_not() {
    let site = Site::new();
    let three = |to: &str| {
        let to = to.replace("TO", "topic = ");
        base().set("consumer", "sink", "'drop'").more(&to)
    };
    let circle = "[[topic]]\nname = 't'\nsink = 'tu'\n[[topic]]\nname = 'u'\nsink = ['drop', 'ut']\n\
                  [sink.tu]\ntype = 'kafka'\nTO'u'\n[sink.ut]\ntype = 'kafka'\nTO't'\n";
    let ended = check(&site, &three(circle));
    assert_eq!(ended.code(), Some(2));
    let line = ended.log.iter().find(|line| line.contains("sink.tu.topic")).unwrap();
    assert!(line.contains("to u, and from there back to t, on the same cluster"), "{line}");
    let elsewhere = circle.replace("TO't'", "TO't'\nbootstrap_servers = 'b:2'");
    assert_eq!(check(&site, &three(&elsewhere)).code(), Some(0));
    let chain = circle.replace("TO't'", "TO'v'");
    assert_eq!(check(&site, &three(&chain)).code(), Some(0));
}

#[test]
fn what_is_forwarded_is_read_whole() {
    let site = Site::new();
    let config = base().set("kafka", "client", "'kafka'");
    let ended = check(&site, &config);
    assert_eq!(ended.code(), Some(0));
    let text = ended.stdout.join("\n");
    assert!(text.contains("topic t is forwarded by a sink of type kafka and read with client = \"kafka\""), "{text}");
    let config = worker::config::parse(&base().to_string(), &|_| None).unwrap();
    let librdkafka = Some(worker::client::reading::Library::Librdkafka);
    assert!(config.topics.iter().all(|topic| topic.reading.library == librdkafka));
    let config = worker::config::parse(&base().set("consumer", "sink", "'drop'").to_string(), &|_| None).unwrap();
    assert!(config.topics.iter().all(|topic| topic.reading.library.is_none()));
}

#[test]
fn dead_letters_go_to_a_file_or_to_a_topic() {
    let site = Site::new();
    let dead = |key: &str, value: &str| {
        base().set("consumer", "sink", "'drop'").set("consumer", "on_failure", "'dead_letter'").set(
            "dead_letter",
            key,
            value,
        )
    };
    let good = dead("topic", "'{topic}-dead'").set("dead_letter.librdkafka", "'batch.size'", 5000);
    let ended = check(&site, &good);
    let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
    assert_eq!(ended.code(), Some(0), "{text}");
    assert!(text.contains("\"{topic}-dead\"") && text.contains("[dead_letter.librdkafka]"), "{text}");
    let cases = [
        (dead("topic", "'d'").set("dead_letter", "path", "'/x/d'"), "dead_letter.path: ", "stands beside topic"),
        (dead("topic", "'d-{partition}'"), "dead_letter.topic: ", "one for each {topic}"),
        (dead("topic", "'{topic}'"), "dead_letter.topic: ", "the topic that they come from (t)"),
        // What is in t-7 may become a dead letter there.
        (dead("topic", "'t-7'"), "dead_letter.topic: ", "the topic that they come from (t-7)"),
        (dead("bootstrap_servers", "'a:1'"), "dead_letter.path: ", "is missing"),
        (
            dead("topic", "'d'").set("dead_letter.librdkafka", "acks", 1),
            "dead_letter.librdkafka.acks: ",
            "the worker's own",
        ),
    ];
    for (config, key, words) in cases {
        let ended = check(&site, &config);
        let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
        assert_eq!(ended.code(), Some(2), "{key} {words}: {text}");
        assert!(ended.log.iter().any(|line| line.contains(key) && line.contains(words)), "{key} {words}: {text}");
    }
}
