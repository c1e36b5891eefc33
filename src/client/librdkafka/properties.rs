//! From the worker's settings to the properties of librdkafka. Pure.
//!
//! What a consumer's memory may be (`FetchSettings::memory`, its share) is divided: a quarter for what librdkafka has
//! fetched ahead, a quarter for the fetch under way, half for the messages that the worker has taken. librdkafka's
//! own accounting is per partition as soon as partitions have queues of their own, and counts keys and values only:
//! so both its limits, of bytes and of messages, are divided by the number of partitions.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::membership::Joining;
use super::producer::{IN_FLIGHT, Producing};
use crate::client::properties::{RECONNECT_MS, is_new_protocol};
use crate::client::{Connection, FetchSettings, Isolation};

/// What librdkafka keeps in memory for each message beside its key and value, in bytes, rounded up: its `rd_kafka_op_t`.
pub(super) const MESSAGE: usize = 512;
/// librdkafka's own default for one partition's part of a fetch. Larger ones bring nothing.
const PARTITION_FETCH: usize = 1 << 20;
/// The largest record that a producer takes, in bytes.
const LARGEST_MESSAGE: usize = 100_000_000;
/// A fetch of less is not worth a request.
const SMALLEST_FETCH: usize = 16 << 10;
/// What the protocol needs around the records of an answer; librdkafka insists on it.
const FRAME: usize = 512;
/// How often librdkafka tells its statistics, in milliseconds: it is what a broken connection is noticed by, and its
/// mending. Seldom enough that 200 idle consumers do not feel it.
const STATISTICS_MS: u32 = 5_000;
/// What is waited before a partition with a full queue is looked at again, in milliseconds. librdkafka's default of
/// 1,000 is a pause of a second in each burst; 0 would keep its thread busy.
const QUEUE_BACKOFF_MS: u32 = 10;

/// The largest batch that this consumer takes, with the setting that says so.
pub(super) fn largest_batch(settings: &FetchSettings) -> (usize, &'static str) {
    let limits = [
        (settings.max_partition_bytes, "max_partition_fetch_bytes"),
        (settings.max_bytes, "fetch_max_bytes"),
        (settings.memory.max(settings.reserve.bytes()), "memory.limit"),
    ];
    let smallest = limits.into_iter().min_by_key(|(limit, _)| *limit);
    smallest.unwrap_or((settings.max_bytes, "fetch_max_bytes"))
}

/// How much of the share the messages may have that the worker has taken.
pub(super) fn taken(settings: &FetchSettings) -> usize {
    settings.memory / 2
}

/// The properties for a consumer that reads so many partitions.
pub fn properties(group: &str, connection: &Connection, settings: &FetchSettings, partitions: usize) -> ClientConfig {
    let mut config = ClientConfig::new();
    let mut set = |name: &str, value: &dyn Display| {
        config.set(name, value.to_string());
    };
    let quarter = settings.memory / 4;
    let ahead = quarter / partitions.max(1);
    let fetch = quarter.clamp(SMALLEST_FETCH, 50 << 20).min(settings.max_bytes);
    let largest = largest_batch(settings).0.max(fetch).min(i32::MAX as usize - FRAME);

    // Partitions can only be assigned to a client that has a group; it never joins it, and never commits.
    set("group.id", &group);
    set("enable.auto.commit", &false);
    set("enable.auto.offset.store", &false);
    set("auto.offset.reset", &"error");
    set("enable.partition.eof", &true);
    set("check.crcs", &settings.check_crcs);
    let isolation = match settings.isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    set("isolation.level", &isolation);

    set("fetch.wait.max.ms", &ms(settings.max_wait, 0, 300_000));
    set("fetch.min.bytes", &settings.min_bytes.clamp(1, 100_000_000));
    set("fetch.max.bytes", &fetch);
    set("max.partition.fetch.bytes", &settings.max_partition_bytes.min(PARTITION_FETCH).min(fetch));
    set("receive.message.max.bytes", &(largest + FRAME));
    // Of producers, but fetch.max.bytes may not be less.
    set("message.max.bytes", &1_000);
    set("queued.max.messages.kbytes", &(ahead >> 10).clamp(1, 2_097_151));
    set("queued.min.messages", &(ahead / MESSAGE).clamp(1, 100_000));
    set("fetch.queue.backoff.ms", &QUEUE_BACKOFF_MS);
    set("fetch.error.backoff.ms", &RECONNECT_MS.0);

    set("statistics.interval.ms", &STATISTICS_MS);
    connect(&mut config, connection);
    config
}

fn ms(time: Duration, least: u128, most: u128) -> u128 {
    time.as_millis().clamp(least, most)
}

/// How brokers are reached, and what is passed through, which overrides the rest.
fn connect(config: &mut ClientConfig, connection: &Connection) {
    let mut set = |name: &str, value: &dyn Display| {
        config.set(name, value.to_string());
    };
    set("bootstrap.servers", &connection.bootstrap_servers.join(","));
    set("client.id", &connection.client_id);
    set("allow.auto.create.topics", &false);
    set("socket.connection.setup.timeout.ms", &ms(connection.connect_timeout, 1_000, 300_000));
    // librdkafka adds the time that a fetch may be held by itself.
    set("socket.timeout.ms", &ms(connection.request_timeout, 10, 300_000));
    set("reconnect.backoff.ms", &RECONNECT_MS.0);
    set("reconnect.backoff.max.ms", &RECONNECT_MS.1);
    set("topic.metadata.refresh.interval.ms", &ms(connection.metadata_max_age, 1_000, 3_600_000));
    set("metadata.max.age.ms", &ms(connection.metadata_max_age.saturating_mul(3), 3_000, 86_400_000));
    // Nothing is sent about this program but what its work needs.
    set("enable.metrics.push", &false);
    // The broker closes what is idle, and librdkafka opens it again: not worth a line.
    set("log.connection.close", &false);
    security(config, connection);
    for (name, value) in &connection.properties {
        config.set(name, value);
    }
    config.set_log_level(log_level());
}

/// The properties for a producer, see `producer.rs` for why they are so. `batch`: how large a batch may become, in bytes;
/// `None`: as librdkafka or the configuration has it.
pub(super) fn producing(connection: &Connection, settings: &Producing, batch: Option<usize>) -> ClientConfig {
    let mut config = ClientConfig::new();
    let mut set = |name: &str, value: &dyn Display| {
        config.set(name, value.to_string());
    };
    set("acks", &"all");
    set("enable.idempotence", &true);
    set("enable.gapless.guarantee", &true);
    // The worker waits, for as long as the sink's timeout_ms.
    set("message.timeout.ms", &0);
    // A broker that waits for replicas says so before librdkafka gives the request up.
    set("request.timeout.ms", &ms(connection.request_timeout * 4 / 5, 1, 900_000));
    set("linger.ms", &ms(settings.linger, 0, 900_000));
    set("compression.type", &settings.compression.to_string());
    // What is in flight is bounded by the sink.
    set("queue.buffering.max.messages", &(2 * IN_FLIGHT));
    set("queue.buffering.max.kbytes", &2_097_151);
    // How large a record may be is the topic's to say; beyond this no broker takes a request (socket.request.max.bytes).
    set("message.max.bytes", &LARGEST_MESSAGE);
    connect(&mut config, connection);
    if let Some(batch) = batch {
        config.set("batch.size", batch.max(1).to_string());
    }
    config
}

/// What makes the consumer a member of its group, with incremental rebalances. The group's new protocol (KIP-848,
/// `group.protocol`) has no strategies of the member's own.
pub(super) fn membership(config: &mut ClientConfig, joining: &Joining) {
    if !config.get("group.protocol").is_some_and(is_new_protocol) {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    if let Some(instance_id) = &joining.instance_id {
        config.set("group.instance.id", instance_id);
    }
}

fn security(config: &mut ClientConfig, connection: &Connection) {
    let security = &connection.security;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    config.set("security.protocol", security.protocol().to_ascii_lowercase());
    if let Some(tls) = &security.tls {
        if let Some(ca) = &tls.ca {
            config.set("ssl.ca.location", path(ca));
        }
        if let Some(identity) = &tls.identity {
            config.set("ssl.certificate.location", path(&identity.certificate));
            config.set("ssl.key.location", path(&identity.key));
            if let Some(password) = &identity.key_password {
                config.set("ssl.key.password", password.reveal());
            }
        }
        let algorithm = if tls.verify_hostname { "https" } else { "none" };
        config.set("ssl.endpoint.identification.algorithm", algorithm);
    }
    if let Some(sasl) = &security.sasl {
        config.set("sasl.mechanism", sasl.mechanism.to_string());
        config.set("sasl.username", sasl.username.clone());
        config.set("sasl.password", sasl.password.reveal());
    }
}

/// What librdkafka need not make a line of, because nobody would see it.
fn log_level() -> RDKafkaLogLevel {
    if log::log_enabled!(log::Level::Debug) { RDKafkaLogLevel::Info } else { RDKafkaLogLevel::Warning }
}

/// What is wrong with the properties, each with its name, if librdkafka does not know one, or not this value of it.
///
/// # Errors
/// Name and reason of each of them.
pub fn check_properties(properties: &[(String, String)]) -> Result<(), Vec<(String, String)>> {
    let wrong = properties.iter().filter_map(|(name, value)| {
        let native = ClientConfig::new().set(name, value).create_native_config();
        native.err().map(|error| (name.clone(), reason(&error)))
    });
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The library's words, without the value: it may be a password.
pub(super) fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, what, name, _) => format!("{what} ({name})"),
        KafkaError::ClientCreation(what) => what.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::properties::{OWNED, not_together};
    use crate::client::security::{Identity, Mechanism, Sasl, Secret, Security, Tls};
    use crate::memory::Reserve;

    fn connection() -> Connection {
        Connection {
            bootstrap_servers: vec!["a:1".to_owned(), "b:2".to_owned()],
            client_id: "c".to_owned(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(60),
            security: Security::default(),
            properties: Vec::new(),
            known: Default::default(),
        }
    }

    fn settings(memory: usize, reserve: usize) -> FetchSettings {
        FetchSettings {
            max_wait: Duration::from_millis(500),
            min_bytes: 1024,
            max_partition_bytes: 100 << 20,
            max_bytes: 500 << 20,
            memory,
            reserve: Reserve::new(reserve),
            check_crcs: true,
            isolation: Isolation::ReadCommitted,
            times: Arc::default(),
        }
    }

    #[test]
    fn librdkafka_takes_them_whatever_the_share() {
        for (memory, partitions) in [(1, 1), (64 << 10, 500), (1 << 20, 12), (192 << 20, 1), (64 << 30, 3)] {
            let config = properties("g", &connection(), &settings(memory, 64 << 20), partitions);
            // Also what belongs together has to fit, which only a consumer checks.
            let made: Result<rdkafka::consumer::BaseConsumer, _> = config.create();
            assert!(made.is_ok(), "memory={memory}: {:?}", made.err());
        }
    }

    #[test]
    fn queue_and_fetch_stay_within_half_of_the_share() {
        for (memory, partitions) in [(1 << 20, 1), (1 << 20, 12), (192 << 20, 64)] {
            let config = properties("g", &connection(), &settings(memory, 64 << 20), partitions);
            let number = |name: &str| config.get(name).unwrap().parse::<usize>().unwrap();
            assert!(number("queued.max.messages.kbytes") * 1024 * partitions <= memory / 4);
            assert!(number("queued.min.messages") * MESSAGE * partitions <= memory / 4);
            assert!(number("fetch.max.bytes") <= memory / 4);
        }
    }

    #[test]
    fn the_smallest_limit_decides_which_batch_is_too_large() {
        assert_eq!(largest_batch(&settings(1 << 20, 64 << 20)), (64 << 20, "memory.limit"));
        assert_eq!(largest_batch(&settings(192 << 20, 64 << 20)), (100 << 20, "max_partition_fetch_bytes"));
        let config = properties("g", &connection(), &settings(1 << 20, 64 << 20), 1);
        assert_eq!(config.get("receive.message.max.bytes"), Some("67109376"));
    }

    #[test]
    fn security_is_said_in_librdkafkas_words() {
        let tls = Tls {
            ca: Some("/ca.pem".into()),
            identity: Some(Identity {
                certificate: "/c.pem".into(),
                key: "/k.pem".into(),
                key_password: Some(Secret::new("k")),
            }),
            verify_hostname: false,
        };
        let sasl = Sasl { mechanism: Mechanism::ScramSha512, username: "u".to_owned(), password: Secret::new("p") };
        let secured = Connection { security: Security { tls: Some(tls), sasl: Some(sasl) }, ..connection() };
        let config = properties("g", &secured, &settings(1 << 20, 0), 1);
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/ca.pem"),
            ("ssl.certificate.location", "/c.pem"),
            ("ssl.key.location", "/k.pem"),
            ("ssl.key.password", "k"),
            ("ssl.endpoint.identification.algorithm", "none"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        let plain = properties("g", &connection(), &settings(1 << 20, 0), 1);
        assert_eq!(plain.get("security.protocol"), Some("plaintext"));
    }

    #[test]
    fn what_is_passed_through_comes_last() {
        let passed =
            Connection { properties: vec![("socket.keepalive.enable".to_owned(), "true".to_owned())], ..connection() };
        let config = properties("g", &passed, &settings(1 << 20, 0), 1);
        assert_eq!(config.get("socket.keepalive.enable"), Some("true"));
    }

    #[test]
    fn a_member_is_made_with_either_protocol_of_a_group_however_it_is_spelt() {
        for protocol in [None, Some("classic"), Some("CLASSIC"), Some("consumer"), Some("Consumer")] {
            let passed = protocol.map(|protocol| ("group.protocol".to_owned(), protocol.to_owned()));
            let connection = Connection { properties: passed.into_iter().collect(), ..connection() };
            let mut config = properties("g", &connection, &settings(1 << 20, 0), 1);
            let joining = Joining { topics: Vec::new(), instance_id: Some("i".to_owned()), partitions: 1 };
            membership(&mut config, &joining);
            let new = protocol.is_some_and(is_new_protocol);
            assert_eq!(config.get("partition.assignment.strategy").is_some(), !new, "{protocol:?}");
            let made: Result<rdkafka::consumer::BaseConsumer, _> = config.create();
            assert!(made.is_ok(), "{protocol:?}: {:?}", made.err());
        }
    }

    #[test]
    fn the_configuration_refuses_together_what_librdkafka_makes_no_consumer_of() {
        let mut refused = 0;
        for list in [
            "session.timeout.ms=6000 heartbeat.interval.ms=500",
            "group.protocol=classic session.timeout.ms=6000",
            "group.protocol=consumer session.timeout.ms=6000",
            "group.protocol=CONSUMER heartbeat.interval.ms=500",
            "session.timeout.ms=300000",
            "session.timeout.ms=300001",
            "session.timeout.ms=300001 max.poll.interval.ms=300001",
            "max.poll.interval.ms=44999",
            "group.protocol=consumer max.poll.interval.ms=44999",
            "reconnect.backoff.ms=500",
            "reconnect.backoff.ms=501",
            "reconnect.backoff.ms=5000 reconnect.backoff.max.ms=10000",
            "reconnect.backoff.max.ms=99",
        ] {
            let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let list: Vec<_> = list.split(' ').filter_map(pair).collect();
            let connection = Connection { properties: list.clone(), ..connection() };
            let made: Result<rdkafka::consumer::BaseConsumer, _> =
                properties("g", &connection, &settings(1 << 20, 0), 1).create();
            let wrong = not_together(&list);
            assert_eq!(wrong.is_empty(), made.is_ok(), "{list:?}: {wrong:?}, {:?}", made.err());
            refused += wrong.len();
        }
        assert_eq!(refused, 6);
    }

    #[test]
    fn a_property_that_librdkafka_does_not_take_is_named_with_its_reason() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(check_properties(&[pair("socket.keepalive.enable", "true")]), Ok(()));
        let wrong = check_properties(&[
            pair("socket.keepalive.enable", "perhaps"),
            pair("no.such.thing", "1"),
            pair("socket.timeout.ms", "1"),
        ]);
        let wrong = wrong.unwrap_err();
        let names: Vec<_> = wrong.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["socket.keepalive.enable", "no.such.thing", "socket.timeout.ms"]);
        assert!(wrong.iter().all(|(_, why)| !why.is_empty()), "{wrong:?}");
    }

    #[test]
    fn all_that_is_set_here_is_the_workers_own_or_a_default_that_may_be_overridden() {
        let open = [
            "fetch.queue.backoff.ms",
            "fetch.error.backoff.ms",
            "socket.connection.setup.timeout.ms",
            "socket.timeout.ms",
            "reconnect.backoff.ms",
            "reconnect.backoff.max.ms",
            "topic.metadata.refresh.interval.ms",
            "metadata.max.age.ms",
            "enable.metrics.push",
            "log.connection.close",
        ];
        let config = properties("g", &connection(), &settings(1 << 20, 0), 1);
        for (name, _) in config.config_map() {
            let owned = OWNED.iter().any(|(owned, _)| *owned == name);
            assert!(owned != open.contains(&name), "{name}");
        }
    }
}
