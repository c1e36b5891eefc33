//! The properties of librdkafka that the worker sets itself, and what an operator writes instead.

/// Name of the property; why it is refused, and what to write.
const OWNED: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "it is bootstrap_servers under [kafka]"),
    (&["client.id"], "it is client_id under [kafka]"),
    (&["socket.connection.setup.timeout.ms"], "it is connect_timeout_ms under [kafka]"),
    (&["socket.timeout.ms"], "it is request_timeout_ms under [kafka]"),
    (&["metadata.max.age.ms", "topic.metadata.refresh.interval.ms"], "it is metadata_max_age_ms under [kafka]"),
    (&["group.id"], "it is group_id under [consumer] or [[topic]]"),
    (&["group.instance.id"], "it is group_instance_id under [consumer] or [[topic]]"),
    (&["isolation.level"], "it is isolation_level under [consumer] or [[topic]]"),
    (&["auto.offset.reset"], "it is auto_offset_reset under [consumer] or [[topic]]"),
    (&["check.crcs"], "it is check_crcs under [consumer] or [[topic]]"),
    (&["fetch.wait.max.ms"], "it is fetch_max_wait_ms under [consumer] or [[topic]]"),
    (&["fetch.min.bytes"], "it is fetch_min_bytes under [consumer] or [[topic]]"),
    (&["fetch.max.bytes"], "it is fetch_max_bytes under [consumer] or [[topic]]"),
    (
        &["max.partition.fetch.bytes", "fetch.message.max.bytes"],
        "it is max_partition_fetch_bytes under [consumer] or [[topic]]",
    ),
    (
        &["queued.max.messages.kbytes", "queued.min.messages", "receive.message.max.bytes"],
        "the worker sets it so that all records in flight stay within limit under [memory]",
    ),
    (
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "the worker commits itself, and only after delivery; see [commit]",
    ),
    (&["allow.auto.create.topics"], "the worker never creates a topic by asking for it"),
    (&["enable.partition.eof", "fetch.queue.backoff.ms"], "the worker sets it, and works with no other value"),
    (&["security.protocol"], "it follows from the tables: [kafka.tls] switches TLS on, [kafka.sasl] a user"),
    (&["group.protocol"], "the worker chooses what the brokers have"),
];

/// Families of properties, by how they begin.
const FAMILIES: &[(&str, &str)] = &[
    ("ssl.", "TLS is set under [kafka.tls]"),
    ("enable.ssl.", "TLS is set under [kafka.tls]; whether the host name is checked is verify_hostname there"),
    ("https.ca.", "TLS is set under [kafka.tls]"),
    ("sasl.", "the user is set under [kafka.sasl]"),
    ("enable.sasl.", "the user is set under [kafka.sasl], with the mechanisms PLAIN and SCRAM"),
];

/// Why an operator can't set the property, if it is one of the worker's own. Names count without their case, as they
/// do in no client, so that none slips by.
pub(super) fn owned(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let one = OWNED.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, why)| *why);
    let family = || FAMILIES.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, why)| *why);
    let callback = || name.ends_with("_cb").then_some("it is a function of a program, no value");
    let why = one.or_else(family).or_else(callback)?;
    Some(format!("is the worker's own: {why}; leave it out here"))
}
