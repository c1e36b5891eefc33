//! The configuration from outside: the example file, what a user reads, and any text at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use worker::client::reading::HAS_LIBRDKAFKA;
use worker::client::{Membership, Portion};
use worker::cmd::check::check;
use worker::config::{self, Config, Errors, LoadError, MAX_FILE_BYTES, Source};

mod properties;
mod reading;

const EXAMPLE: &str = include_str!("../etc/consumer.toml");

fn parse(text: &str) -> Result<Config, Errors> {
    config::parse(text, &|name| (name == "HOST").then(|| "kafka1".to_owned()))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn bad(text: &str) -> String {
    parse(text).expect_err("wrong").to_string()
}

/// The setting in a line that is "#" without a blank behind it.
fn commented_out(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
}

/// Settings that can't stand beside the others of the example.
const ALTERNATIVES: [&str; 7] = [
    "group_instance_id",
    "partitions",
    "instance",
    "topics_regex",
    "topics_exclude_regex",
    "regex",
    "bearer_token_file",
];

/// The example with every setting made that it shows, but for the [`ALTERNATIVES`].
fn example_with_all_settings() -> String {
    example_with(None)
}

/// The same with one of the alternatives, under `[consumer]` and under `[[topic]]`.
fn example_with(alternative: Option<&str>) -> String {
    let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let made = |line: &str| {
        commented_out(line)
            .filter(|line| Some(key(line).as_str()) == alternative || !ALTERNATIVES.contains(&key(line).as_str()))
            .unwrap_or(line)
            .to_owned()
    };
    EXAMPLE.lines().flat_map(|line| [made(line), "\n".to_owned()]).collect()
}

#[test]
fn the_example_is_right_as_it_is() {
    let config = good(EXAMPLE);
    assert_eq!(config.warnings, Vec::<String>::new());
    let topics: Vec<_> = config.topics.iter().map(|t| &*t.name).collect();
    assert_eq!(
        topics,
        [
            "SCHEDULE-STATION-PARAM",
            "SCHEDULE-CAR-ORDER",
            "SCHEDULE-CAR-PRICE",
            "SCHEDULE-DEVICE-HOST-DCDC",
            "SCHEDULE-DEVICE-STORAGE",
            "MODULE-OUTPUT-PV_PREDICTION",
        ]
    );
    assert_eq!(config.topics[5].group, "stack-charge-tcp-command-xfy-MODULE-OUTPUT-PV_PREDICTION");
    assert_eq!(config.gate, None);
}

/// Its keys are exactly the program's: none is unknown, and none that could be set is missing.
#[test]
fn the_example_has_every_key() {
    let config = good(&example_with_all_settings());
    let own = "topic SCHEDULE-CAR-ORDER";
    for scope in config.report.iter().filter(|scope| !scope.title.starts_with("topic ") || scope.title == own) {
        let unset: Vec<_> = scope.unset.iter().filter(|key| !ALTERNATIVES.contains(key)).collect();
        assert_eq!(unset, Vec::<&&str>::new(), "{}", scope.title);
        for setting in &scope.settings {
            let here = match &setting.source {
                Source::File { table, .. } => scope.title != own || table == "[[topic]]",
                Source::Default | Source::Profile { .. } => false,
            };
            assert!(here, "{}: {} comes from {}", scope.title, setting.key, setting.source);
        }
    }
    let titles: BTreeSet<_> =
        config.report.iter().map(|scope| scope.title.as_str()).filter(|t| t.starts_with('[')).collect();
    let all = [
        "[kafka]",
        "[kafka.tls]",
        "[kafka.sasl]",
        "[kafka.librdkafka]",
        "[consumer]",
        "[commit]",
        "[shutdown]",
        "[observe]",
        "[watchdog]",
        "[gate]",
        "[memory]",
        "[state]",
        "[admin]",
        "[log]",
        "[sink.drop]",
        "[sink.log]",
        "[sink.stdout]",
        "[sink.orders]",
        "[sink.handler]",
        "[sink.service]",
        "[sink.copy]",
        "[sink.copy.librdkafka]",
        "[dead_letter]",
    ];
    assert_eq!(titles, BTreeSet::from(all));
}

/// Those that exclude each other are in it too, each right where its comment says.
#[test]
fn the_example_has_the_alternatives() {
    let reads = |alternative: &str, group: bool| {
        let text = example_with(Some(alternative));
        let text = if group { text.replace("membership = \"none\"", "membership = \"group\"") } else { text };
        let config = config::parse(&text, &|_| Some("w1".to_owned())).unwrap_or_else(|errors| panic!("{errors}"));
        let scope = |title: &str| config.report.iter().find(|scope| scope.title == title).unwrap().unset.clone();
        for title in ["[consumer]", "topic SCHEDULE-CAR-ORDER"] {
            assert!(!scope(title).contains(&alternative), "{alternative} in {title}");
        }
        config.topics.into_iter().map(|topic| topic.reading.membership).collect::<Vec<_>>()
    };
    let all = |membership: Membership| vec![membership; 6];
    assert_eq!(reads("partitions", false), all(Membership::None(Portion::Partitions([0, 2].into()))));
    assert_eq!(reads("instance", false), all(Membership::None(Portion::Instance { number: 1, of: 3 })));
    if HAS_LIBRDKAFKA {
        assert_eq!(reads("group_instance_id", true), all(Membership::Group { instance_id: Some("w1".to_owned()) }));
    }
}

/// Patterns are in it too.
#[test]
fn the_example_has_patterns() {
    let text = example_with(Some("topics_regex")).replace("#topics_exclude_regex", "topics_exclude_regex");
    let found = good(&text).discovery.unwrap();
    let means =
        ["SCHEDULE-NEW", "MODULE-OUTPUT-NEW", "SCHEDULE-TEST", "SCHEDULE-A-TEST", "ASCHEDULE-A", "__SCHEDULE-A"];
    assert_eq!(means.map(|name| found.means(name)), [true, true, false, false, false, false]);
    let own = ["name = \"SCHEDULE-CAR-ORDER\"\n", "group_id = \"stack-charge-tcp-command-xfy-SCHEDULE-CAR-ORDER\"\n"];
    let text = own.iter().fold(example_with(Some("regex")), |text, line| text.replacen(line, "", 1));
    let config = good(&text.replace("#paused = false", "paused = true").replace("\npaused = false", "\npaused = true"));
    let paused: Vec<_> = config.topics.iter().filter(|topic| topic.paused).map(|topic| &*topic.name).collect();
    assert_eq!(paused, ["SCHEDULE-CAR-ORDER", "SCHEDULE-CAR-PRICE"]);
}

/// Its values are the program's defaults: with all of them, or with none but those without default,
/// the configuration is the same.
#[test]
fn the_example_shows_the_defaults() {
    let mut shown = good(&example_with_all_settings());
    let topics: Vec<_> = shown.topics.iter().map(|t| format!("{:?}", t.name)).collect();
    let bare = format!(
        "[kafka]\nbootstrap_servers = '127.0.0.1:9092'\n[kafka.tls]\nca = '/etc/worker/ca.pem'\n\
         certificate = '/etc/worker/client.pem'\nkey = '/etc/worker/client.key'\n\
         key_password_file = '/etc/worker/client.password'\n[kafka.sasl]\nmechanism = 'SCRAM-SHA-512'\n\
         username = 'worker'\npassword_file = '/etc/worker/kafka.password'\n[kafka.librdkafka]\n\
         'socket.keepalive.enable' = true\n[consumer]\ngroup_id = 'stack-charge-tcp-command-xfy'\ntopics = [{}]\n\
         [gate]\nrequired_topics = ['SCHEDULE-STATION-PARAM', 'SCHEDULE-CAR-PRICE']\n[sink.drop]\n[sink.log]\n[sink.stdout]\n\
         [sink.orders]\ntype = 'file'\npath = '/var/lib/worker/orders.jsonl'\nrotate_size = '100MiB'\nrotate_keep = 10\n\
         [sink.handler]\ntype = 'exec'\ncommand = ['/usr/local/share/worker/handlers/handler.py']\n\
         [sink.service]\ntype = 'http'\nurl = 'https://example.com/orders'\ncontent_type = 'application/vnd.orders+json'\n\
         username = 'worker'\npassword_file = '/etc/worker/http.password'\nca_file = '/etc/worker/ca.pem'\n\
         client_cert_file = '/etc/worker/client.pem'\nclient_key_file = '/etc/worker/client.key'\n\
         [sink.service.headers]\nX-Source = 'worker'\n\
         [sink.copy]\ntype = 'kafka'\ntopic = 'copy-of-{{topic}}'\nbootstrap_servers = ['broker9.example:9092']\n\
         [sink.copy.librdkafka]\n'socket.keepalive.enable' = true\n\
         [state]\ndir = '/var/lib/worker'\n[admin]\nlisten = '127.0.0.1:9464'\n\
         [dead_letter]\npath = '/var/lib/worker/dead.jsonl'\n",
        topics.join(",")
    );
    let mut bare = good(&bare);
    let unused = |warning: &String| warning.contains("] is used by no topic");
    for config in [&mut shown, &mut bare] {
        assert!(config.warnings.iter().all(unused), "{:?}", config.warnings);
        config.warnings.clear();
        config.report.clear();
    }
    assert_eq!(shown, bare);
}

/// A text, and the errors that it gives.
#[test]
fn errors_say_what_where_and_what_to_do() {
    let head = "[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t', 'u']\n";
    let cases = [
        (
            "",
            "1:1: kafka.bootstrap_servers: is missing; write bootstrap_servers = [\"127.0.0.1:9092\"] under [kafka]\n\
              1:1: consumer.group_id: is missing; write group_id = \"my-service\" under [consumer]\n\
              1:1: consumer.topics: is missing; write topics = [\"orders\"] under [consumer]",
        ),
        (
            "[kafka]\nbootstrap_servers = 'a:1, b'\n[consumer]\ngroup_id = ''\ntopics = []\n",
            "2:21: kafka.bootstrap_servers: \"b\" has no port; write host:port, such as \"broker1:9092\"\n\
          4:12: consumer.group_id: is empty; write a name\n\
          5:10: consumer.topics: is empty; write a list such as [\"orders\"]",
        ),
        (
            "[kafka]\nbootstrap_servers = ['PLAINTEXT://a:1', 'a:0']\n[consumer]\ngroup_id = 'g'\ntopics = ['a b', 't', '..']\n",
            "2:22: kafka.bootstrap_servers: \"PLAINTEXT://a:1\" has a protocol in front; leave out PLAINTEXT://, write host:port, such as \"broker1:9092\"\n\
          2:41: kafka.bootstrap_servers: \"a:0\" has no valid port; ports go from 1 to 65535: write host:port, such as \"broker1:9092\"\n\
          5:11: consumer.topics: is \"a b\", which is no topic's name: it has ' '; names are made of a-z, A-Z, 0-9, '.', '_' and '-'\n\
          5:23: consumer.topics: is \"..\", which Kafka does not allow as a topic's name; write another",
        ),
        (
            "on_failure = 'dead_letter'\nretry_initial_ms = 20000\n",
            "6:14: consumer.on_failure: is \"dead_letter\", and there is no place for dead letters; write [dead_letter] with path = \"/var/lib/worker/dead.jsonl\"\n\
          7:20: consumer.retry_initial_ms: waits only grow: retry_initial_ms is 20000, and retry_max_ms is 10000; write a retry_initial_ms of at most that",
        ),
        (
            "topics_regex = ['a(', '']\n[[topic]]\nregex = 'x+'\nname = 't'\n[[topic]]\nregex = '['\n[[topic]]\nregex = '.'\ngroup_id = 'h'\n",
            "6:17: consumer.topics_regex: is \"a(\", which is no regular expression: unclosed group; write one for the whole name, such as \"orders-.*\"\n\
          6:23: consumer.topics_regex: is empty; write a regular expression for the whole name, such as \"orders-.*\"\n\
          8:9: topic.regex: stands beside name; write one of them: a [[topic]] is for one topic, or for those that fit\n\
          11:9: topic.regex: is \"[\", which is no regular expression: unclosed character class; write one for the whole name, such as \"orders-.*\"\n\
          14:12: topic.group_id: stands beside regex, and a group is for one topic; leave it out: each has its own, GROUP_ID-TOPIC",
        ),
        (
            "topics_exclude_regex = 'a'\n",
            "6:24: consumer.topics_exclude_regex: does nothing without topics_regex; write that, or leave this out",
        ),
        (
            "topics_regex = 'x.*'\n[[topic]]\nname = 'y'\n",
            "8:8: topic.name: is \"y\", which is neither in consumer.topics nor meant by topics_regex; add it there, or leave it out here",
        ),
        (
            "sink = ['log', 'lag', 'log']\n",
            "6:8: consumer.sink: has \"log\" twice; write it once\n\
          6:8: consumer.sink: is \"lag\", and there is no such sink; did you mean \"log\"?",
        ),
        (
            "on_failure = 'skip'\nretry_attempts = -1\n[sink.a]\ntype = 'file'\npath = '/x/y'\n[dead_letter]\npath = '/x//y'\n",
            "6:14: consumer.on_failure: is \"skip\"; did you mean \"stop\"? It is one of \"stop\", \"dead_letter\", \"drop\"\n\
          7:18: consumer.retry_attempts: is -1; write a whole number from 0 to 2147483647\n\
          12:8: dead_letter.path: is the file that [sink.a] writes to; give the dead letters their own file",
        ),
        (
            "max_poll_records = -5\ntimeout_ms = '3s'\ncheck_crcs = 1\nfetch_max_bytes = '3GiB'\nfetch_min_bytes = 0\n",
            "6:20: consumer.max_poll_records: is -5; write a whole number from 1 to 2147483647\n\
          7:14: consumer.timeout_ms: is \"3s\"; write a whole number from 1 to 86400000\n\
          8:14: consumer.check_crcs: is 1; write true or false, without quotes\n\
          9:19: consumer.fetch_max_bytes: is \"3GiB\"; write bytes, or a text such as \"1MiB\" (B, KB, MB, GB, KiB, MiB, GiB), from \"1KiB\" to 2147483647\n\
          10:19: consumer.fetch_min_bytes: is 0; write bytes, or a text such as \"1MiB\" (B, KB, MB, GB, KiB, MiB, GiB), from 1 to 2147483647",
        ),
        (
            "fetch_min_byte = 1\nbatch_size = 5\ncolour = 1\nauto_offset_reset = 'latst'\nprofile = 1\n",
            "6:1: consumer.fetch_min_byte: is no key of [consumer]; did you mean fetch_min_bytes?\n\
          7:1: consumer.batch_size: is no key of [consumer]; it belongs under [commit]; move it there\n\
          8:1: consumer.colour: is no key of [consumer]; the keys here are group_id, multi_consumer_mode, topics, topics_regex, topics_exclude_regex, profile, isolation_level, membership, group_instance_id, partitions, instance, auto_offset_reset, on_out_of_range, max_poll_records, timeout_ms, fetch_max_wait_ms, fetch_min_bytes, max_partition_fetch_bytes, fetch_max_bytes, check_crcs, takeover_timeout_ms, on_takeover_timeout, sink, retry_attempts, retry_total_ms, retry_initial_ms, retry_max_ms, on_failure\n\
          9:21: consumer.auto_offset_reset: is \"latst\"; did you mean \"latest\"? It is one of \"latest\", \"earliest\"\n\
          10:11: consumer.profile: is 1; write \"balanced\", \"high-throughput\" or \"real-time\"",
        ),
        (
            "[[topic]]\nname = 'x'\n[[topic]]\nname = 't'\ntopics = ['t']\nsink = 'ordesr'\n[[topic]]\nname = 't'\n[[topic]]\n[sink.orders]\ntype = 'fil'\n",
            "7:8: topic.name: is \"x\", which is not in consumer.topics; did you mean \"t\"?\n\
          10:1: topic.topics: is no key of [[topic]]; it belongs under [consumer]; move it there\n\
          11:8: topic.sink: is \"ordesr\", and there is no such sink; did you mean \"orders\"?\n\
          13:8: topic.name: is \"t\", which has a [[topic]] on line 9 already; write all its keys there\n\
          14:1: topic.name: is missing; write name = \"orders\" under [[topic]]\n\
          16:8: sink.orders.type: is \"fil\"; did you mean \"file\"? It is one of \"drop\", \"log\", \"stdout\", \"file\", \"exec\", \"http\", \"kafka\"",
        ),
        (
            "[sink.a]\ntype = 'file'\npath = '/x/a'\n[sink.b]\ntype = 'file'\npath = '/x//a'\nrotate_keep = 0\n[sink.c]\ntype = 'file'\nrotate_keep = 1\n[sink.log]\ntype = 'file'\n[sink.'d e']\ntype = 'drop'\n[sink.f]\n",
            "11:8: sink.b.path: is \"/x/a\", to which [sink.a] writes already; give each its own file, or use one sink for both\n\
          12:15: sink.b.rotate_keep: is 0; write a whole number from 1 to 2147483647\n\
          12:15: sink.b.rotate_keep: does nothing without rotate_size; write how large a file may become, rotate_size = \"100MiB\"\n\
          13:1: sink.c.path: is missing; write path = \"/var/lib/worker/c.jsonl\" under [sink.c]\n\
          15:15: sink.c.rotate_keep: does nothing without rotate_size; write how large a file may become, rotate_size = \"100MiB\"\n\
          17:8: sink.log.type: is \"file\", but a sink named log is always of type log; give this one another name\n\
          18:7: sink: \"d e\" can't be a sink's name; write 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'\n\
          20:1: sink.f.type: is missing; write type = \"file\" (or exec, http, kafka, drop, log, stdout) under [sink.f]",
        ),
        (
            "[sink.a]\ntype = 'exec'\ncommand = ['/h']\nmode = 'batch'\nstart_timeout_ms = 5\n[sink.b]\ntype = 'exec'\ncommand = []\nmode = 'both'\nstart_timeout_ms = 0\n",
            "10:20: sink.a.start_timeout_ms: does nothing with mode = \"batch\", where timeout_ms is for a whole run; leave it out\n\
          13:11: sink.b.command: is empty; write a list such as [\"/usr/local/lib/b.py\"]\n\
          14:8: sink.b.mode: is \"both\"; did you mean \"batch\"? It is one of \"stream\", \"batch\"\n\
          15:20: sink.b.start_timeout_ms: is 0; write a whole number from 1 to 2147483647",
        ),
        (
            "[sink.h]\ntype = 'http'\n[sink.i]\ntype = 'http'\nurl = 'http://u:p@h/'\nbody = 'xml'\nretry_status = [401, 500]\nheaders = { Content-Length = '5', X = 7, Y = \"a\\nb\" }\n[sink.j]\ntype = 'http'\nurl = 'http://h/'\nbody = 'record'\nmax_batch_bytes = '2MiB'\nca_file = '/c'\nusername = 'a:b'\ncontent_type = 'json'\n[sink.k]\ntype = 'http'\nurl = 'http://h/'\nusername = 'a'\nbearer_token_file = '/t'\nheaders = { Authorization = 'x' }\nclient_key_file = ''\n",
            "6:1: sink.h.url: is missing; write url = \"https://example.com/h\" under [sink.h]\n\
          10:7: sink.i.url: has a user or a password in it; leave that out, and write username and password_file\n\
          11:8: sink.i.body: is \"xml\"; write \"record\", \"json\" or \"ndjson\"\n\
          12:16: sink.i.retry_status: has one that is 500; write a list of statuses from 400 to 499, such as [401, 403]\n\
          13:13: sink.i.headers.Content-Length: is the worker's own; leave it out\n\
          13:35: sink.i.headers.X: is no text; write it in quotes\n\
          13:42: sink.i.headers.Y: has a value that can't be sent; write 1 or more printable ASCII characters, none of them a blank at an end\n\
          18:19: sink.j.max_batch_bytes: does nothing with body = \"record\", which has one; write body = \"json\" or \"ndjson\", or leave it out\n\
          19:11: sink.j.ca_file: does nothing with an http:// url; write an https:// url, or leave it out\n\
          20:12: sink.j.username: has a colon in it, which HTTP does not allow in a user's name; correct it\n\
          20:12: sink.j.username: stands without password_file; write password_file = \"/etc/worker/http.password\" too\n\
          21:16: sink.j.content_type: is \"json\"; write one such as \"application/json\"\n\
          25:12: sink.k.username: stands beside bearer_token_file; leave one of them out\n\
          25:12: sink.k.username: stands without password_file; write password_file = \"/etc/worker/http.password\" too\n\
          25:12: sink.k.username: stands beside a header Authorization; leave one of them out\n\
          26:21: sink.k.bearer_token_file: stands beside a header Authorization; leave one of them out\n\
          28:19: sink.k.client_key_file: is \"\", which names no file; write a path such as \"/etc/worker/ca.pem\"\n\
          28:19: sink.k.client_key_file: stands without client_cert_file; write client_cert_file = \"/etc/worker/client.pem\" too\n\
          28:19: sink.k.client_key_file: does nothing with an http:// url; write an https:// url, or leave it out",
        ),
        (
            "[gate]\nrequired_topics = ['t', 'uu']\non_timeout = 'stop'\n[commit]\nmin_interval_ms = 6000\n[memory]\nlimit = '1MiB'\n[log]\nlevel = 'warn,worker=inf'\n",
            "7:25: gate.required_topics: is \"uu\", which is not in consumer.topics; did you mean \"u\"?\n\
          8:14: gate.on_timeout: is \"stop\"; write \"proceed\" or \"exit\"\n\
          10:19: commit.min_interval_ms: is 6000, more than interval_ms (5000); write at most 5000\n\
          12:9: memory.limit: is \"1MiB\"; write bytes, or a text such as \"1MiB\" (B, KB, MB, GB, KiB, MiB, GiB), from \"16MiB\" to \"1024GiB\"\n\
          14:9: log.level: has \"inf\" for a level; did you mean info? write error, warn, info, debug, trace or off, or a list such as \"warn,worker=debug\"",
        ),
        (
            "multi_consumer_mode = false\n[[topic]]\nname = 't'\nfetch_min_bytes = 7\n",
            "9:19: topic.fetch_min_bytes: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true",
        ),
        (
            "fetch_min_bytes = '2MiB'\n[[topic]]\nname = 't'\nmax_partition_fetch_bytes = '1MiB'\n",
            "9:29: topic.max_partition_fetch_bytes: every fetch would wait in vain: fetch_min_bytes is 2097152, and max_partition_fetch_bytes and fetch_max_bytes let it bring 1048576; write a fetch_min_bytes of at most 1048576",
        ),
        (
            "sink = '${SINK}'\n[topic]\nname = 't'\n[log]\nlevel = '${'\n",
            "6:8: consumer.sink: needs the environment variable SINK, which is not set; set it, or write $$ for a plain $\n\
          7:1: topic: is a table; write [[topic]] in two brackets, once for each topic\n\
          10:9: log.level: has a \"${\" without \"}\"; write ${NAME}, or $$ for a plain $",
        ),
        // What depends on values that are right is looked at although others are wrong.
        (
            "fetch_min_bytes = '2MiB'\ntimeout_ms = 0\nmulti_consumer_mode = false\n[[topic]]\nname = 't'\ncheck_crcs = false\nmax_partition_fetch_bytes = '1MiB'\n[gate]\nrequired_topics = ['uu']\n[sink.s]\nformat = 'yaml'\nrotate = 1\n",
            "7:14: consumer.timeout_ms: is 0; write a whole number from 1 to 86400000\n\
          11:14: topic.check_crcs: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true\n\
          12:29: topic.max_partition_fetch_bytes: every fetch would wait in vain: fetch_min_bytes is 2097152, and max_partition_fetch_bytes and fetch_max_bytes let it bring 1048576; write a fetch_min_bytes of at most 1048576\n\
          12:29: topic.max_partition_fetch_bytes: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true\n\
          14:20: gate.required_topics: is \"uu\", which is not in consumer.topics; did you mean \"u\"?\n\
          15:1: sink.s.type: is missing; write type = \"file\" (or exec, http, kafka, drop, log, stdout) under [sink.s]\n\
          16:10: sink.s.format: is \"yaml\"; write \"json\" or \"raw\"\n\
          17:1: sink.s.rotate: is no key of [sink.s]; the keys here are type, level, max_value_bytes, format, lanes, order, path, rotate_size, rotate_keep, command, mode, timeout_ms, start_timeout_ms, max_batch_records, kill_timeout_ms, url, method, body, max_batch_bytes, content_type, retry_status, retry_after_max_ms, headers, bearer_token_file, password_file, ca_file, client_cert_file, client_key_file, username, topic, bootstrap_servers, partition, compression, linger_ms, tls, sasl, librdkafka",
        ),
        (
            "group = 'g'\nenable_auto_commit = false\n'max.poll.records' = 5\nsession.timeout.ms = 6000\nsasl_mechanism = 'PLAIN'\nrequest_timeout_ms = 1\n[kafka.ssl]\nx = 1\n",
            "6:1: consumer.group: is no key of [consumer]; here it is group_id under [consumer]\n\
          7:1: consumer.enable_auto_commit: is no key of [consumer]; there is no such setting: offsets are always committed by the worker, and only after delivery; see [commit]; leave it out\n\
          8:1: consumer.max.poll.records: is no key of [consumer]; here it is max_poll_records under [consumer]\n\
          9:1: consumer.session: is no key of [consumer]; there is no such setting: the worker is no member of its group, so there is no session, no heartbeat and no rebalance, but with membership = \"group\"; for that it is a property under [kafka.librdkafka]; leave it out\n\
          10:1: consumer.sasl_mechanism: is no key of [consumer]; here it is mechanism under [kafka.sasl]\n\
          11:1: consumer.request_timeout_ms: is no key of [consumer]; it belongs under [kafka]; move it there\n\
          12:8: kafka.ssl: is no key of [kafka]; there is no such setting: the table [kafka.tls] switches TLS on, the table [kafka.sasl] a user; leave it out",
        ),
        (
            "sink = log\nsink = 'log'\n[commit\n",
            "6:8: can't be read as TOML: string values must be quoted, expected literal string; correct it here, or what is open above it\n\
          7:1: can't be read as TOML: duplicate key; correct it here, or what is open above it\n\
          8:8: can't be read as TOML: unclosed table, expected `]`; correct it here, or what is open above it",
        ),
    ];
    for (text, errors) in cases {
        let text =
            if text.is_empty() || text.starts_with("[kafka]") { text.to_owned() } else { format!("{head}{text}") };
        assert_eq!(bad(&text), errors, "\n{text}");
    }
}

#[test]
fn a_secret_that_others_could_read_on_the_way_is_a_warning() {
    let warnings = |url: &str, more: &str| {
        let text = format!(
            "[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\nsink = 'h'\n\
             [sink.h]\ntype = 'http'\nurl = '{url}'\n{more}"
        );
        good(&text).warnings
    };
    let bearer = "bearer_token_file = '/t'";
    let expected = "line 9: sink.h.url is no https:// url: the secret goes over the network as it is; use https";
    assert_eq!(warnings("http://example.com/", bearer), [expected]);
    assert_eq!(warnings("http://example.com/", ""), [""; 0]);
    assert_eq!(warnings("http://127.0.0.1/", bearer), [""; 0]);
    if HAS_LIBRDKAFKA {
        assert_eq!(warnings("https://example.com/", bearer), [""; 0]);
    }
}

#[test]
fn the_environment_fills_in_texts() {
    let config = good(
        "[kafka]\nbootstrap_servers = '${HOST}:1, ${HOST}:2'\nclient_id = '$${HOST}'\n[consumer]\ngroup_id = 'g'\ntopics = ['${HOST}.t']\n",
    );
    assert_eq!(config.kafka.bootstrap_servers, ["kafka1:1", "kafka1:2"]);
    assert_eq!(config.kafka.client_id, "${HOST}");
    assert_eq!(&*config.topics[0].name, "kafka1.t");
}

/// A file of its own for one test.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{}-{name}.toml", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}

fn checked(path: &Path) -> (u8, String, String) {
    let (mut out, mut err) = (vec![], vec![]);
    let code = check(path, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&path.display().to_string(), "FILE");
    (code, text(out), text(err))
}

#[test]
fn files_that_are_no_configuration() {
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("empty", vec![], "FILE:1:1: kafka.bootstrap_servers: is missing"),
        (
            "binary",
            b"\x7fELF\n\x02\xff\xfe".to_vec(),
            "FILE:2:1: has a byte that is no UTF-8; save it as UTF-8, or check the file's name",
        ),
        ("zeros", vec![0; 4096], "FILE:1:1: can't be read as TOML: invalid unquoted key"),
        (
            "large",
            vec![b'#'; 10 << 20],
            "FILE: is larger than 1048576 bytes, which no configuration is; check the file's name",
        ),
    ];
    for (name, bytes, expected) in cases {
        let path = file(name, &bytes);
        let (code, out, err) = checked(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.starts_with(expected), "{name}: {err}");
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    assert_eq!(checked(directory), (2, String::new(), "FILE: is a directory; name the file in it\n".to_owned()));
    let missing = directory.join("nothing.toml");
    assert_eq!(checked(&missing).2, "FILE: there is no such file; name the configuration with -c FILE\n");
    assert!(matches!(config::load(&missing), Err(LoadError::Read { .. })));
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let mut text = EXAMPLE.to_owned();
    text.push_str(&"#".repeat(MAX_FILE_BYTES - text.len()));
    let path = file("largest", text.as_bytes());
    let config = config::load(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!(config.unwrap().topics.len(), 6);
    text.push('#');
    assert_eq!(bad(&text), "1:1: is larger than 1048576 bytes, which no configuration is");
}

#[test]
fn check_prints_every_value_with_its_source() {
    let text = "[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t', 'u', 't']\nfetch_min_bytes = 4096\n\
                [[topic]]\nname = 'u'\nprofile = 'real-time'\nsink = 'orders'\n[sink.orders]\ntype = 'file'\npath = 'o.jsonl'\n";
    let path = file("check", text.as_bytes());
    let (code, out, err) = checked(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, include_str!("config/check.txt"));
}

/// What the start would fail for is told before, for every sink at once, and leaves nothing behind.
#[test]
fn check_looks_at_the_places_of_file_sinks() {
    let dir = tempfile::TempDir::new().unwrap();
    let text = |paths: [&str; 3]| {
        let mut text =
            "[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t0', 't1', 't2']\n".to_owned();
        for (index, path) in paths.into_iter().enumerate() {
            let path = dir.path().join(path).display().to_string();
            write!(
                text,
                "[[topic]]\nname = 't{index}'\nsink = 's{index}'\n[sink.s{index}]\ntype = 'file'\npath = '{path}'\n"
            )
            .unwrap();
        }
        text
    };
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("there"), "line\n").unwrap();
    let path = file("places", text(["d", "no/such/out", "/proc/out"]).as_bytes());
    let (code, out, err) = checked(&path);
    assert_eq!((code, out.as_str()), (2, ""));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    for (line, at, words) in [
        (lines[0], "FILE:11: sink.s0.path: ", "is a directory, not a file that lines can be appended to"),
        (lines[1], "FILE:17: sink.s1.path: ", "no/such does not exist; create it, or correct the path"),
        (lines[2], "FILE:23: sink.s2.path: ", "making a file in its directory failed"),
    ] {
        assert!(line.starts_with(at) && line.contains(words), "{line}");
    }
    fs::write(&path, text(["there", "new", "d/new"])).unwrap();
    let (code, _, err) = checked(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(dir.path().join("there")).unwrap(), "line\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count() + fs::read_dir(dir.path().join("d")).unwrap().count(), 2);
}

/// An output that can't be written to, for this reason.
struct Broken(io::ErrorKind);

impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn check_ends_with_its_reader_and_tells_of_a_full_disk() {
    let path = file("output", EXAMPLE.as_bytes());
    let mut err = vec![];
    let closed = check(&path, &mut Broken(io::ErrorKind::BrokenPipe), &mut err);
    assert_eq!((closed, err.as_slice()), (0, b"".as_slice()));
    let full = check(&path, &mut Broken(io::ErrorKind::StorageFull), &mut err);
    fs::remove_file(&path).unwrap();
    assert_eq!(
        (full, String::from_utf8(err).unwrap()),
        (1, "the output can't be written: no storage space\n".to_owned())
    );
}

/// As many topics with a table each.
fn many_topics(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|i| format!("'topic-{i}'")).collect();
    let list = names.join(",");
    let mut text = format!("[kafka]\nbootstrap_servers='a:1'\n[consumer]\ngroup_id='g'\ntopics=[{list}]\n");
    for (i, name) in names.iter().enumerate() {
        writeln!(text, "[[topic]]\nname={name}\nmax_poll_records={}", i + 1).unwrap();
    }
    text
}

/// What this thread has computed: other tests that run at the same time do not count.
fn cpu_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Eight times the topics take eight times as long; if each topic cost a copy of the list of all, it
/// would be some thirty times.
#[test]
fn the_time_to_read_grows_with_the_topics_not_with_their_square() {
    const FEW: usize = 1_500;
    let took = |count: usize| {
        let text = many_topics(count);
        let run = || {
            let start = cpu_time();
            let config = good(&text);
            let took = cpu_time() - start;
            assert_eq!(config.topics[count - 1].max_poll_records, count);
            took
        };
        (0..4).map(|_| run()).min().unwrap()
    };
    let (few, many) = (took(FEW), took(8 * FEW));
    assert!(many < few * 18, "{FEW} topics in {few:?}, eight times as many in {many:?}");
}

/// Thousands of wrong names beside thousands of right ones: told by the hundred, at once.
#[test]
fn many_wrong_names_do_not_take_long() {
    let text = many_topics(10_000).replace("name='", "sink='lgo'\nname='x");
    let start = Instant::now();
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.iter().count() + errors.more(), 20_000);
    assert_eq!(errors.iter().count(), 100);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
