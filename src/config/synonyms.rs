//! Keys that this program does not have, by the names that users of other Kafka clients know.
//!
//! Pure. The names are those of Kafka's own consumer (with dots), of kafka-python and aiokafka (with
//! underscores), and of librdkafka.

/// Another name for a key that is here: the key, and its table.
const OTHER_NAMES: &[(&[&str], &str, &str)] = &[
    (&["group", "groupid", "group_name", "consumer_group", "consumer_group_id"], "group_id", "[consumer]"),
    (
        &[
            "bootstrap",
            "bootstrap_server",
            "brokers",
            "broker",
            "broker_list",
            "metadata_broker_list",
            "servers",
            "hosts",
        ],
        "bootstrap_servers",
        "[kafka]",
    ),
    (&["client_library", "library"], "client", "[kafka]"),
    (&["isolation", "transaction_isolation"], "isolation_level", "[consumer]"),
    (&["static_member", "static_membership", "group_instance", "instance_id"], "group_instance_id", "[consumer]"),
    (&["partition", "partition_list", "assign", "assignment"], "partitions", "[consumer]"),
    (&["topic_list", "subscription", "subscribe"], "topics", "[consumer]"),
    (&["auto", "auto_offset", "offset_reset"], "auto_offset_reset", "[consumer]"),
    (&["check_crc", "check"], "check_crcs", "[consumer]"),
    (&["fetch_wait_max_ms"], "fetch_max_wait_ms", "[consumer]"),
    (&["fetch_message_max_bytes"], "max_partition_fetch_bytes", "[consumer]"),
    (&["poll_timeout_ms", "consumer_timeout_ms"], "timeout_ms", "[consumer]"),
    (&["batch_max_records", "max_records"], "max_poll_records", "[consumer]"),
    (&["auto_commit_interval_ms", "commit_interval_ms"], "interval_ms", "[commit]"),
    (&["metadata_max_age"], "metadata_max_age_ms", "[kafka]"),
    (&["socket_timeout_ms"], "request_timeout_ms", "[kafka]"),
    (&["log_level", "loglevel"], "level", "[log]"),
    (&["log_format", "logformat"], "format", "[log]"),
    (&["memory_limit"], "limit", "[memory]"),
    (&["ssl_ca_location", "ssl_cafile", "ssl_ca", "ssl_truststore_location", "ca_file", "cafile"], "ca", "[kafka.tls]"),
    (&["ssl_certificate_location", "ssl_certfile", "ssl_keystore_location"], "certificate", "[kafka.tls]"),
    (&["ssl_key_location", "ssl_keyfile"], "key", "[kafka.tls]"),
    (&["ssl_key_password", "ssl_password"], "key_password", "[kafka.tls]"),
    (
        &["ssl_check_hostname", "ssl_endpoint_identification_algorithm", "enable_ssl_certificate_verification"],
        "verify_hostname",
        "[kafka.tls]",
    ),
    (&["sasl_mechanism", "sasl_mechanisms"], "mechanism", "[kafka.sasl]"),
    (&["sasl_plain_username", "sasl_username", "user"], "username", "[kafka.sasl]"),
    (&["sasl_plain_password", "sasl_password"], "password (or password_file)", "[kafka.sasl]"),
];

const NO_MEMBER: &str = "the worker is no member of its group, so there is no session, no heartbeat and no rebalance, \
                         but with membership = \"group\"; for that it is a property under [kafka.librdkafka]";
const TLS: &str = "the table [kafka.tls] switches TLS on, the table [kafka.sasl] a user";
const NO_DECODING: &str = "keys and values are delivered as they are; the form of a line is the sink's format";
const BACKOFF: &str = "the waits between tries are built in; of commits it is retry_delay_ms under [commit]";

/// What there is none of here, and why.
const NOT_HERE: &[(&[&str], &str)] = &[
    (
        &["enable_auto_commit", "auto_commit", "enable", "enable_auto_offset_store"],
        "offsets are always committed by the worker, and only after delivery; see [commit]",
    ),
    (
        &[
            "session",
            "session_timeout_ms",
            "heartbeat",
            "heartbeat_interval_ms",
            "max_poll_interval_ms",
            "rebalance_timeout_ms",
            "partition_assignment_strategy",
        ],
        NO_MEMBER,
    ),
    (&["security", "security_protocol", "sasl", "ssl", "ssl_context"], TLS),
    (&["key_deserializer", "value_deserializer"], NO_DECODING),
    (&["api_version", "api_version_auto_timeout_ms"], "each broker is asked which versions it serves"),
    (&["retry_backoff_ms", "reconnect_backoff_ms", "reconnect_backoff_max_ms", "retries"], BACKOFF),
    (&["connections_max_idle_ms"], "connections stay open while a topic is read"),
];

/// `session.timeout.ms`, `sessionTimeoutMs` and `session-timeout-ms` as `session_timeout_ms`.
fn normal(key: &str) -> String {
    let mut normal = String::with_capacity(key.len() + 8);
    let mut lower = false;
    for c in key.chars() {
        if c.is_uppercase() && lower {
            normal.push('_');
        }
        lower = c.is_lowercase();
        normal.extend(if matches!(c, '.' | '-') { '_' } else { c }.to_lowercase());
    }
    normal
}

/// What to do about the unknown `key`, if it is known under another name, or known not to be here.
/// `home` gives the table that reads a key.
pub(super) fn advice<'h>(key: &str, home: impl Fn(&str) -> Option<&'h str>) -> Option<String> {
    let normal = normal(key);
    if normal != key
        && let Some(table) = home(&normal)
    {
        return Some(format!("here it is {normal} under {table}"));
    }
    if let Some((_, name, table)) = OTHER_NAMES.iter().find(|(others, ..)| others.contains(&normal.as_str())) {
        return Some(format!("here it is {name} under {table}"));
    }
    let prefixed = ["sasl_", "ssl_"].iter().any(|prefix| normal.starts_with(prefix)).then_some(TLS);
    let why = NOT_HERE.iter().find(|(keys, _)| keys.contains(&normal.as_str())).map(|(_, why)| *why).or(prefixed)?;
    Some(format!("there is no such setting: {why}; leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_clients_are_answered_however_they_are_written() {
        let none = |_: &str| None;
        for key in ["session.timeout.ms", "session_timeout_ms", "sessionTimeoutMs", "session-timeout-ms"] {
            assert_eq!(
                advice(key, none),
                Some(format!("there is no such setting: {NO_MEMBER}; leave it out")),
                "{key}"
            );
        }
        assert_eq!(advice("brokers", none).as_deref(), Some("here it is bootstrap_servers under [kafka]"));
        assert_eq!(advice("sasl.plain.username", none).as_deref(), Some("here it is username under [kafka.sasl]"));
        assert_eq!(advice("ssl.cipher.suites", none), Some(format!("there is no such setting: {TLS}; leave it out")));
        let home = |key: &str| (key == "max_poll_records").then_some("[consumer]");
        assert_eq!(advice("max.poll.records", home).as_deref(), Some("here it is max_poll_records under [consumer]"));
        assert_eq!(advice("colour", home), None);
        let home = |key: &str| ["isolation_level", "group_instance_id"].contains(&key).then_some("[consumer]");
        assert_eq!(advice("isolation.level", home).as_deref(), Some("here it is isolation_level under [consumer]"));
        assert_eq!(advice("group.instance.id", home).as_deref(), Some("here it is group_instance_id under [consumer]"));
        assert_eq!(advice("assign", home).as_deref(), Some("here it is partitions under [consumer]"));
    }
}
