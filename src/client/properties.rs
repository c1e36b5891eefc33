//! Properties of librdkafka that the worker sets itself, and what to use in their place.
//!
//! Words only, without the library: the configuration refuses them also in a build that lacks it.

const SECURITY: &str = "it is set from [kafka.tls] and [kafka.sasl]";
const GROUP: &str = "it is set from the topic's group_id, membership and group_instance_id";
const COMMITS: &str = "the worker commits itself, after delivery; see [commit]";
const MEMORY: &str = "it follows from memory.limit, which holds for all consumers together";
const CALLBACK: &str = "it is no text, but a function of the program";
const LOG: &str = "the worker's own log level decides; see RUST_LOG";

/// Names that `[kafka.librdkafka]` may not have, each with the reason or the key to use. `topic.` before a name is
/// the same property.
pub const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use kafka.bootstrap_servers"),
    ("metadata.broker.list", "use kafka.bootstrap_servers"),
    ("client.id", "use kafka.client_id"),
    ("group.id", GROUP),
    ("group.instance.id", GROUP),
    ("group.protocol.type", GROUP),
    (
        "partition.assignment.strategy",
        "the worker needs incremental rebalances: cooperative-sticky; with group.protocol = \"consumer\" the brokers assign, see group.remote.assignor",
    ),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("offset.store.path", COMMITS),
    ("offset.store.sync.interval.ms", COMMITS),
    ("auto.offset.reset", "use auto_offset_reset and on_out_of_range"),
    ("enable.partition.eof", "the worker needs it to know what does not exist"),
    ("allow.auto.create.topics", "the worker never creates a topic by asking for it"),
    ("isolation.level", "use isolation_level"),
    ("check.crcs", "use check_crcs"),
    ("fetch.wait.max.ms", "use fetch_max_wait_ms"),
    ("fetch.min.bytes", "use fetch_min_bytes"),
    ("fetch.max.bytes", "use fetch_max_bytes"),
    ("fetch.message.max.bytes", "use max_partition_fetch_bytes"),
    ("max.partition.fetch.bytes", "use max_partition_fetch_bytes"),
    ("message.max.bytes", MEMORY),
    ("receive.message.max.bytes", MEMORY),
    ("queued.max.messages.kbytes", MEMORY),
    ("queued.min.messages", MEMORY),
    ("security.protocol", SECURITY),
    ("ssl.ca.location", SECURITY),
    ("ssl.ca.pem", SECURITY),
    ("ssl.certificate.location", SECURITY),
    ("ssl.certificate.pem", SECURITY),
    ("ssl.key.location", SECURITY),
    ("ssl.key.pem", SECURITY),
    ("ssl.key.password", SECURITY),
    ("ssl.keystore.location", SECURITY),
    ("ssl.keystore.password", SECURITY),
    ("ssl.endpoint.identification.algorithm", "use verify_hostname in [kafka.tls]"),
    ("enable.ssl.certificate.verification", "certificates are always verified; use ca in [kafka.tls]"),
    ("sasl.mechanism", SECURITY),
    ("sasl.mechanisms", SECURITY),
    ("sasl.username", SECURITY),
    ("sasl.password", SECURITY),
    ("statistics.interval.ms", "the worker reads the statistics itself"),
    ("log_level", LOG),
    ("log.queue", LOG),
    ("enabled_events", "the worker needs all of them"),
    ("plugin.library.paths", "the worker loads no code from elsewhere"),
    ("internal.termination.signal", "the worker stops its threads itself"),
    ("error_cb", CALLBACK),
    ("throttle_cb", CALLBACK),
    ("stats_cb", CALLBACK),
    ("log_cb", CALLBACK),
    ("background_event_cb", CALLBACK),
    ("socket_cb", CALLBACK),
    ("connect_cb", CALLBACK),
    ("closesocket_cb", CALLBACK),
    ("open_cb", CALLBACK),
    ("resolve_cb", CALLBACK),
    ("rebalance_cb", CALLBACK),
    ("offset_commit_cb", CALLBACK),
    ("consume_cb", CALLBACK),
    ("ssl.certificate.verify_cb", CALLBACK),
    ("oauthbearer_token_refresh_cb", CALLBACK),
    ("opaque", CALLBACK),
    ("interceptors", CALLBACK),
    ("default_topic_conf", CALLBACK),
];

/// Families of properties, by how they begin: the worker's own connections and librdkafka's have to be the same.
const FAMILIES: &[&str] = &["ssl.", "enable.ssl.", "https.ca.", "sasl.", "enable.sasl."];

/// Why the worker sets this property itself; `None` if it may be passed through. Upper and lower case count as the same,
/// so that no misspelt password slips by.
pub fn owned(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let bare = name.strip_prefix("topic.").unwrap_or(&name);
    let one = OWNED.iter().find(|(owned, _)| *owned == name || *owned == bare).map(|(_, why)| *why);
    one.or_else(|| FAMILIES.iter().any(|begin| bare.starts_with(begin)).then_some(SECURITY))
}

const DELIVERY: &str = "the worker needs it so that no record is lost or out of order";
const IN_FLIGHT: &str = "the worker bounds what is under way itself";
const OF_SINK: &str = "it is set from bootstrap_servers and the tables tls and sasl of the sink, or else from [kafka]";

/// Names that `librdkafka` of a sink may not have, beside those in [`OWNED`].
const OWNED_BY_PRODUCER: &[(&str, &str)] = &[
    ("acks", DELIVERY),
    ("request.required.acks", DELIVERY),
    ("enable.idempotence", DELIVERY),
    ("enable.gapless.guarantee", DELIVERY),
    ("transactional.id", "the worker delivers at least once, without transactions"),
    ("transaction.timeout.ms", "the worker delivers at least once, without transactions"),
    ("message.timeout.ms", "use timeout_ms"),
    ("delivery.timeout.ms", "use timeout_ms"),
    ("message.send.max.retries", "it is tried again without an end; see timeout_ms"),
    ("retries", "it is tried again without an end; see timeout_ms"),
    ("linger.ms", "use linger_ms"),
    ("queue.buffering.max.ms", "use linger_ms"),
    ("compression.codec", "use compression"),
    ("compression.type", "use compression"),
    ("partitioner", "use partition"),
    ("partitioner_cb", CALLBACK),
    ("msg_order_cmp", CALLBACK),
    ("queuing.strategy", DELIVERY),
    ("queue.buffering.max.messages", IN_FLIGHT),
    ("queue.buffering.max.kbytes", IN_FLIGHT),
    ("delivery.report.only.error", DELIVERY),
    ("produce.offset.report", DELIVERY),
    ("dr_cb", CALLBACK),
    ("dr_msg_cb", CALLBACK),
    ("bootstrap.servers", OF_SINK),
    ("metadata.broker.list", OF_SINK),
];

/// The same as [`owned`] for the producer of a sink.
pub fn owned_by_producer(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_prefix("topic.").unwrap_or(&lower);
    let one = OWNED_BY_PRODUCER.iter().find(|(owned, _)| *owned == bare).map(|(_, why)| *why);
    match one.or_else(|| owned(name)) {
        // How large a record may be is bounded here or by the cluster, not by a consumer's share of the memory.
        Some(MEMORY) if bare == "message.max.bytes" => None,
        Some(SECURITY) => Some(OF_SINK),
        other => other,
    }
}

/// Properties that belong to a group's old protocol, and what has taken their place in the new one (KIP-848). librdkafka
/// makes no consumer at all with one of them beside `group.protocol = "consumer"`.
const CLASSIC: &[(&str, &str)] = &[
    ("session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
];

/// Whether `group.protocol` has this value: librdkafka takes it in upper case, too.
pub fn is_new_protocol(value: &str) -> bool {
    value.eq_ignore_ascii_case("consumer")
}

/// How long librdkafka waits after a failed connection, at first and at last, in milliseconds: a broker that comes back
/// is read again within two seconds, the time in which others take its partitions over included. May be overridden.
pub const RECONNECT_MS: (u32, u32) = (100, 500);

/// Pairs of which the first may not be above the second, each with the value that it has if nobody writes one. The first
/// pair is of a group's old protocol.
const PAIRS: [[(&str, u32); 2]; 2] = [
    [("session.timeout.ms", 45_000), ("max.poll.interval.ms", 300_000)],
    [("reconnect.backoff.ms", RECONNECT_MS.0), ("reconnect.backoff.max.ms", RECONNECT_MS.1)],
];

/// Which of these properties can't stand beside the others, though librdkafka takes each alone: it would make no consumer
/// with all of them, again and again. Each with why, and what to do.
pub fn not_together(list: &[(String, String)]) -> Vec<(&str, String)> {
    let written = |name: &str| list.iter().rev().find(|(other, _)| other == name);
    let new_protocol = written("group.protocol").is_some_and(|(_, value)| is_new_protocol(value));
    let mut wrong = Vec::new();
    if new_protocol {
        for (name, of_broker) in CLASSIC {
            wrong.extend(written(name).map(|(name, _)| {
                let why = format!(
                    "can't stand beside group.protocol = \"consumer\", with which the brokers decide it; leave it out here, and set {of_broker} in the brokers' configuration, or for the group (kafka-configs --entity-type groups), or write group.protocol = \"classic\""
                );
                (name.as_str(), why)
            }));
        }
    }
    // The session is the brokers' then.
    for [(least, low), (most, high)] in PAIRS.into_iter().skip(usize::from(new_protocol)) {
        let number = |name, value| written(name).map_or(Some(value), |(_, text)| text.parse().ok());
        let (Some(low), Some(high)) = (number(least, low), number(most, high)) else { continue };
        if low > high
            && let Some((name, _)) = written(least).or_else(|| written(most))
        {
            let why = format!(
                "can't be: {least} would be {low}, and {most} {high}; write both, the second not below the first"
            );
            wrong.push((name.as_str(), why));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_owns_is_refused_with_a_reason_and_nothing_else_is() {
        assert_eq!(owned("check.crcs"), Some("use check_crcs"));
        assert!(owned("topic.auto.offset.reset").is_some(), "the prefix changes nothing");
        assert!(owned("SASL.password").is_some() && owned("ssl.cipher.suites").is_some(), "whatever its name");
        assert_eq!(owned("socket.keepalive.enable"), None);
        assert_eq!(owned("topic.metadata.refresh.fast.cnt"), None);
        for name in ["acks", "topic.ACKS", "retries", "ssl.ca.location", "check.crcs", "bootstrap.servers"] {
            assert!(owned_by_producer(name).is_some(), "{name}");
        }
        assert_eq!(owned_by_producer("sasl.password"), Some(OF_SINK));
        for name in ["message.max.bytes", "batch.size", "max.in.flight", "socket.keepalive.enable"] {
            assert_eq!(owned_by_producer(name), None, "{name}");
        }
    }
}
