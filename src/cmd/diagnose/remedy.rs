//! What to do about a finding: lines for the configuration, and commands. Pure.

use super::finding::{Facts, Kind, Part};
use crate::client::Fault;
use crate::client::reading::{self, HAS_LIBRDKAFKA};
use crate::config::{DeadLetter, Mode, OnOutOfRange, SinkSettings};
use crate::consumer::resolve;
use crate::failure::{LETTERS_FAIL, OnFailure};
use crate::record::TopicPartition;
use crate::state::Running;
use crate::verdict::Verdict;

/// `part`: the partition for which the finding holds.
pub(super) fn remedy(facts: &Facts<'_>, kind: Kind, part: Option<&Part>) -> Vec<String> {
    let mut lines = of_kind(facts, kind, part);
    if facts.parts.iter().any(|part| facts.transactional(part).is_some()) {
        lines.push(format!("to have the records of committed transactions only: {}", other_client(facts)));
    }
    lines
}

fn of_kind(facts: &Facts<'_>, kind: Kind, part: Option<&Part>) -> Vec<String> {
    match kind {
        Kind::Elsewhere | Kind::Idle | Kind::Empty | Kind::CatchingUp => Vec::new(),
        Kind::Paused => vec![format!(
            "to read it again: take paused = true from [[topic]] name = \"{}\", and send SIGHUP",
            facts.settings.name
        )],
        Kind::Behind => {
            vec![format!("look longer: --for {}s", facts.settings.patience(&facts.config.commit).as_secs() + 1)]
        }
        Kind::NotStarted => not_started(facts),
        Kind::FallingBack => falling_back(facts),
        Kind::OutOfRange => out_of_range(facts, part),
        Kind::InTrouble => vec![
            "do what the error above says; the worker goes on by itself when its client works again".to_owned(),
        ],
        Kind::Stalled => stalled(facts),
        Kind::SinkFailing => sink_failing(facts),
        Kind::Shared => shared(facts),
        Kind::Unreadable => unreadable(facts, part),
        Kind::Missing => vec![
            format!("{} --create --topic {}", tool(facts, "kafka-topics"), facts.settings.name),
            format!("or take it out of consumer.topics in {}, or correct its name there", facts.file.display()),
        ],
        Kind::Failing => vec![
            "do what the error above says: the settings are under [kafka.tls] and [kafka.sasl], ACLs are the cluster's (kafka-acls); the worker goes on by itself when it is let in"
                .to_owned(),
        ],
        Kind::Unknown => vec!["look at the brokers; the worker goes on by itself when they answer".to_owned()],
    }
}

/// `kafka-topics --bootstrap-server a:9092,b:9092`
fn tool(facts: &Facts<'_>, name: &str) -> String {
    format!("{name} --bootstrap-server {}", facts.config.kafka.bootstrap_servers.join(","))
}

/// The command that sets the group's offset of a partition, and what this worker remembers of it.
fn reset(facts: &Facts<'_>, part: &Part, to: &str) -> String {
    format!(
        "worker offsets reset -c {} --topic {} --partition {} {to} --execute",
        facts.file.display(),
        facts.settings.name,
        part.number
    )
}

/// A setting of this topic alone.
fn of_topic(facts: &Facts<'_>, setting: &str) -> String {
    format!("{setting} below [[topic]] name = \"{}\" in {}", facts.settings.name, facts.file.display())
}

/// How the topic is read by librdkafka, which reads what the crate `kafka` can't.
fn other_client(facts: &Facts<'_>) -> String {
    let setting = "client = \"auto\" (or \"librdkafka\")";
    let place = match facts.config.mode {
        Mode::Multi => format!("{}, or below [kafka] for all topics", of_topic(facts, setting)),
        // One client reads all topics.
        Mode::Single => format!("{setting} below [kafka] in {}", facts.file.display()),
    };
    if HAS_LIBRDKAFKA { place } else { format!("{}; then {place}", reading::BUILD_WITH_LIBRDKAFKA) }
}

/// A group of its own has no offset: without one `auto_offset_reset` would decide, and might pass records over.
fn shared(facts: &Facts<'_>) -> Vec<String> {
    let group = format!("group_id = \"{}-2\"", facts.group.name);
    let mut lines = vec![
        "stop the other program; or, if it is another worker, give each its share: partitions, instance or membership under [consumer]".to_owned(),
        format!("or stop the worker, and give this topic a group of its own: {}", of_topic(facts, &group)),
    ];
    let places = facts.parts.iter().filter_map(|part| Some((part, part.seen.as_ref().ok()?.committed?)));
    lines.extend(places.map(|(part, at)| {
        format!("then, so that it goes on where it is: {}", reset(facts, part, &format!("--to-offset {at}")))
    }));
    lines
}

fn start(facts: &Facts<'_>) -> Vec<String> {
    match facts.running {
        Running::No | Running::Never => vec![format!("start the worker: worker -c {}", facts.file.display())],
        Running::Yes { .. } | Running::Unknown { .. } => Vec::new(),
    }
}

fn not_started(facts: &Facts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let remembered = facts.parts.iter().any(|part| part.told.is_some());
    if let Some((base, offsets)) = facts.group.base.as_ref().filter(|_| !remembered) {
        for (number, at) in offsets {
            if let Some(part) = facts.parts.iter().find(|part| part.number == *number) {
                lines.push(format!(
                    "to go on where group {base} is: {}",
                    reset(facts, part, &format!("--to-offset {at}"))
                ));
            }
        }
    }
    let skips = facts.parts.iter().any(|part| {
        let bounds = part.seen.as_ref().map(|seen| seen.bounds);
        part.told.is_none()
            && bounds.is_ok_and(|b| {
                resolve::first_start(b, facts.settings.auto_offset_reset, facts.is_new(part)).skipped() > 0
            })
    });
    if skips {
        lines.push(format!("to read what is there: {}", of_topic(facts, "auto_offset_reset = \"earliest\"")));
    }
    lines.extend(start(facts));
    if let Running::Yes { .. } = facts.running {
        lines.push(format!("it runs, and has not committed its first position: {}", look_at_log(facts)));
    }
    lines
}

fn falling_back(facts: &Facts<'_>) -> Vec<String> {
    let settings = facts.settings;
    let full = facts.status.is_some_and(|status| status.consumer.full_for_ms.is_some());
    let shared =
        facts.config.topics.iter().filter(|topic| topic.sinks.iter().any(|sink| sink == facts.sink_name)).count();
    let mut lines = Vec::new();
    if shared > 1 {
        lines.push(format!(
            "its sink {} has {shared} topics, which wait for each other; a sink of its own: {}",
            facts.sink_name,
            of_topic(facts, "sink = \"…\"")
        ));
    }
    if full {
        lines.push(format!("it waits for sink {}: a faster disk or reader is what helps", facts.sink_name));
        return lines;
    }
    lines.push(of_topic(facts, "profile = \"high-throughput\""));
    if settings.check_crcs {
        lines.push(format!(
            "{}: half of the time of large fetches is their checksums",
            of_topic(facts, "check_crcs = false")
        ));
    }
    lines
}

fn out_of_range(facts: &Facts<'_>, part: Option<&Part>) -> Vec<String> {
    let settings = facts.settings;
    let mut lines = Vec::new();
    if let Some(part) = part
        && let Verdict::OutOfRange { committed, bounds } = part.verdict
    {
        let jump = resolve::out_of_range(committed, bounds, settings.on_out_of_range, settings.auto_offset_reset);
        match jump {
            None if settings.on_out_of_range == OnOutOfRange::Stop => {
                lines.push(format!("stop the worker, and set the offset: {}", reset(facts, part, "--to-earliest")));
            }
            Some(jump) if jump.reset.is_some() => lines.push(format!(
                "to read what is still there, before the next start: {}",
                of_topic(facts, "on_out_of_range = \"earliest\"")
            )),
            Some(_) | None if committed < bounds.log_start => lines.push(format!(
                "nothing that exists is passed over; to lose less next time: kafka-configs --alter --entity-type topics --entity-name {} --add-config retention.ms=…",
                settings.name
            )),
            Some(_) | None => lines.push(format!(
                "was the log cut, or the topic made anew? To choose the place by hand: {}",
                reset(facts, part, "--to-offset OFFSET")
            )),
        }
    }
    lines.extend(start(facts));
    lines
}

fn stalled(facts: &Facts<'_>) -> Vec<String> {
    let start = start(facts);
    if !start.is_empty() {
        return start;
    }
    if facts.unknown_to_worker {
        return vec!["restart the worker: it has read another configuration than this".to_owned()];
    }
    let mut lines = Vec::new();
    let stopped = |part: &&crate::admin::status::PartitionStatus| part.state.as_deref() == Some("stopped");
    if let Some(status) = facts.status {
        if let Some(part) = status.partitions.iter().find(stopped)
            && let Some(part) = facts.parts.iter().find(|own| own.number == part.partition)
        {
            lines.push(format!(
                "stop the worker, set an offset that exists, start it: {}",
                reset(facts, part, "--to-earliest")
            ));
        }
        if status.consumer.commit_trouble.is_some() {
            lines.push("records are delivered; look at the coordinator of the group, see the error".to_owned());
        }
    }
    if facts.status.is_none() && facts.settings.failure.on_failure == OnFailure::Stop {
        lines.push(format!(
            "on_failure is stop: a record that its sink {} does not take stops it, and the log says which: grep 'topic stopped.*topic={}' LOG",
            facts.sink_name, facts.settings.name
        ));
    }
    lines.push(look_at_log(facts));
    if facts.status.is_none() {
        lines.push("to see the worker's own state here: [admin] listen = \"127.0.0.1:9464\"".to_owned());
    }
    lines
}

fn look_at_log(facts: &Facts<'_>) -> String {
    format!(
        "look at the worker's log: grep -E 'WARN|ERROR' LOG | grep {}; its rounds: --log-level info,worker::dispatch=debug",
        facts.settings.name
    )
}

/// What to do about the place of dead letters, for which the sink waits. `error`: what the worker says of it.
fn dead_letters(facts: &Facts<'_>, error: &str) -> Vec<String> {
    match &facts.config.dead_letter {
        Some(DeadLetter::Topic(settings)) => {
            let bootstrap = settings.cluster.bootstrap_servers.join(",");
            let topic = settings.topic.name(&TopicPartition::new(&*facts.settings.name, 0));
            let what = if error.contains("does not exist") { "--create" } else { "--describe" };
            let mut lines = vec![format!("kafka-topics --bootstrap-server {bootstrap} {what} --topic {topic}")];
            if what == "--create" {
                lines.push(format!(
                    "or correct [dead_letter] topic in {}, and send SIGHUP; the worker goes on by itself when there is one",
                    facts.file.display()
                ));
            }
            lines
        }
        Some(DeadLetter::File(path)) => {
            let path = path.display();
            vec![format!(
                "look with df -h {path}; ls -ld {path}: make room, make the directory, or correct [dead_letter] path or its rights"
            )]
        }
        None => vec![format!("write [dead_letter] in {}, and send SIGHUP", facts.file.display())],
    }
}

fn sink_failing(facts: &Facts<'_>) -> Vec<String> {
    let trouble = facts.sink_status.and_then(|status| status.trouble.as_ref()).filter(|_| !facts.is_stopped());
    if let Some(trouble) = trouble.filter(|trouble| trouble.error.contains(LETTERS_FAIL)) {
        return dead_letters(facts, &trouble.error);
    }
    let mut lines = match facts.sink {
        SinkSettings::File { path, .. } => {
            let path = path.display();
            vec![format!(
                "look with df -h {path}; ls -ld {path}: make room, make the directory, or correct [sink.{}] path or its rights",
                facts.sink_name
            )]
        }
        SinkSettings::Stdout { .. } => vec!["whoever reads the worker's standard output has to read on".to_owned()],
        SinkSettings::Log { .. } => vec!["whoever reads the worker's log has to read on".to_owned()],
        SinkSettings::Exec(_) => vec![format!(
            "see what its handler writes and answers: grep -E 'handler (wrote|lost)|sink fails|topic stopped' LOG | grep sink={}; README, \"Handlers\"",
            facts.sink_name
        )],
        SinkSettings::Http(settings) => vec![format!(
            "look at the service behind {}, and at what it answered: grep 'sink={}' LOG; README, \"HTTP\"",
            settings.endpoint.shown(),
            facts.sink_name
        )],
        SinkSettings::Kafka(settings) => vec![format!(
            "look at where [sink.{}] writes: kafka-topics --bootstrap-server {} --describe --topic {}; README, \"To Kafka\"",
            facts.sink_name,
            settings.cluster.bootstrap_servers.join(","),
            settings.topic.name(&TopicPartition::new(&*facts.settings.name, 0))
        )],
        SinkSettings::Drop | SinkSettings::Own(_) => Vec::new(),
    };
    if facts.is_stopped() {
        let mend = "mend what rejects the record and send SIGHUP, or set on_failure of the topic to dead_letter or drop, and send SIGHUP";
        lines.insert(0, mend.to_owned());
    }
    lines.extend(start(facts));
    lines
}

fn unreadable(facts: &Facts<'_>, part: Option<&Part>) -> Vec<String> {
    let Some((part, fault)) = part.and_then(|part| Some((part, facts.unreadable(part)?))) else { return Vec::new() };
    match fault {
        Fault::TooLarge { size, setting, .. } => {
            let most = size.next_power_of_two() >> 20;
            vec![match setting {
                "memory.limit" => {
                    format!("[memory] limit = \"{}MiB\": a quarter of it is what one batch may have", (most * 4).max(1))
                }
                key => of_topic(facts, &format!("{key} = \"{}MiB\"", most.max(1))),
            }]
        }
        // Kafka 4 and newer: nothing else helps.
        Fault::TooNew { .. } => vec![other_client(facts)],
        Fault::Unreadable { what, .. } if what.contains("downconversion") => vec![
            other_client(facts),
            format!(
                "or {} --alter --entity-type topics --entity-name {} --add-config message.downconversion.enable=true",
                tool(facts, "kafka-configs"),
                facts.settings.name
            ),
        ],
        Fault::Unreadable { last, .. } => {
            let to = last.map_or_else(|| "--to-latest".to_owned(), |last| format!("--to-offset {}", last.next()));
            vec![
                other_client(facts),
                "or let its producers use compression.type=gzip, snappy or none".to_owned(),
                format!("or, to pass the batch over, with the worker stopped: {}", reset(facts, part, &to)),
            ]
        }
        _ => Vec::new(),
    }
}
