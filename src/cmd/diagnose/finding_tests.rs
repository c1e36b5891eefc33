use super::*;
use crate::admin::status::{ConsumerStatus, PartitionStatus, TroubleStatus};
use crate::client::Bounds;
use crate::client::reading::HAS_LIBRDKAFKA;
use crate::config::{self, Mode, OnOutOfRange};
use crate::verdict::{Pace, Reason};

const LOOKED: Duration = Duration::from_secs(10);

fn at(number: i64) -> Offset {
    Offset::new(number).unwrap()
}

fn seen(start: i64, end: i64, committed: i64) -> Seen {
    Seen {
        bounds: Bounds { log_start: at(start), log_end: at(end) },
        committed: Offset::new(committed),
        last_stable: None,
    }
}

/// Topic `t` in group `g-t`, of one partition that was seen twice; the worker runs.
struct Case {
    config: Config,
    part: Part,
    members: Vec<Member>,
    base: Option<(String, Vec<(i32, Offset)>)>,
    whole: Option<Fault>,
    running: Running,
    sink_fails: Option<String>,
    status: Option<TopicStatus>,
    sink_status: Option<SinkStatus>,
    looked: Duration,
    steady: bool,
    unknown_to_worker: bool,
}

impl Case {
    fn new(first: Seen, last: Seen, verdict: Verdict) -> Self {
        let text = "[kafka]\nbootstrap_servers = ['b:1']\nclient = 'kafka'\n[consumer]\ngroup_id = 'g'\ntopics = ['t', 'u']\nsink = 'out'\n\
                    [sink.out]\ntype = 'file'\npath = '/data/out'\n";
        let rates = Rates {
            consumed: first.committed.zip(last.committed).map(|(from, to)| to.since(from) as f64 / 10.0),
            produced: last.bounds.log_end.since(first.bounds.log_end) as f64 / 10.0,
            over: LOOKED,
        };
        let part = Part {
            number: 0,
            first: Some(first),
            seen: Ok(last),
            verdict,
            rates: Some(rates),
            ahead: None,
            newest: None,
            told_before: first.committed,
            told: last.committed,
        };
        Self {
            config: config::parse(text, &|_| None).unwrap(),
            part,
            members: Vec::new(),
            base: None,
            whole: None,
            running: Running::Yes { owner: "7".to_owned() },
            sink_fails: None,
            status: None,
            sink_status: None,
            looked: LOOKED,
            steady: true,
            unknown_to_worker: false,
        }
    }

    fn idle() -> Self {
        Self::new(seen(0, 9, 9), seen(0, 9, 9), Verdict::Idle)
    }

    fn stalled() -> Self {
        let stalled = Verdict::Stalled { readable: 5, still: LOOKED, reason: Reason::Unexplained };
        Self::new(seen(0, 9, 4), seen(0, 9, 4), stalled)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn finding(self) -> Finding {
        let whole = self.whole.clone();
        let facts = Facts {
            sink_name: "out",
            file: Path::new("c.toml"),
            config: &self.config,
            settings: &self.config.topics[0],
            sink: &self.config.sinks["out"],
            sink_fails: self.sink_fails,
            group: Group { name: "g-t".to_owned(), members: Ok(self.members), base: self.base },
            parts: if whole.is_some() { Vec::new() } else { vec![self.part] },
            whole,
            running: &self.running,
            steady: self.steady,
            limits: vec![(1 << 20, "max_partition_fetch_bytes"), (4 << 20, "memory.limit")],
            looked: self.looked,
            unknown_to_worker: self.unknown_to_worker,
            status: self.status.as_ref(),
            sink_status: self.sink_status.as_ref(),
        };
        finding(&facts)
    }

    /// Its kind, with evidence and remedy as one text each.
    fn told(self) -> (Kind, String, String) {
        let Finding { kind, evidence, remedy } = self.finding();
        (kind, evidence.join("\n"), remedy.join("\n"))
    }
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} in:\n{text}");
    }
}

fn pace(readable: u64, before: u64, consumed: u64) -> Pace {
    Pace { readable, before, consumed, within: LOOKED }
}

#[test]
fn an_idle_topic_needs_nothing() {
    let (kind, evidence, remedy) = Case::idle().told();
    assert_eq!((kind, remedy.as_str()), (Kind::Idle, ""));
    has(
        &evidence,
        &[
            "CURRENT-OFFSET 9, LOG-START-OFFSET 0, LOG-END-OFFSET 9, LAG 0, READABLE 0, EXPIRED 0",
            "group g-t has no members",
        ],
    );
    let needy: Vec<Kind> =
        [Kind::Idle, Kind::Empty, Kind::Behind, Kind::CatchingUp, Kind::NotStarted, Kind::FallingBack]
            .into_iter()
            .filter(|kind| kind.needs_attention())
            .collect();
    assert_eq!(needy, [Kind::NotStarted, Kind::FallingBack]);
}

#[test]
fn catching_up_says_how_long_it_takes_and_what_a_setting_means() {
    let case = Case::new(seen(0, 100, 10), seen(0, 110, 60), Verdict::CatchingUp(pace(50, 90, 50)));
    let case = case.with(|case| {
        case.part.newest = Some(Ahead { offset: at(109), size: 1_000, records: Some(10), transactional: false });
    });
    let (kind, evidence, remedy) = case.told();
    assert_eq!((kind, remedy.as_str()), (Kind::CatchingUp, ""));
    has(
        &evidence,
        &["CURRENT-OFFSET 10 -> 60", "LOG-END-OFFSET 100 -> 110", "consumed 5.0/s, produced 1.0/s, caught up in 12 s"],
    );
    has(
        &evidence,
        &["about 100 B/s are written, so fetch_min_bytes = 1024 is not there within fetch_max_wait_ms = 500"],
    );
}

#[test]
fn falling_back_has_settings_that_may_help() {
    let case = || Case::new(seen(0, 100, 10), seen(0, 900, 60), Verdict::FallingBack(pace(840, 90, 50)));
    let (kind, evidence, remedy) = case().told();
    assert_eq!(kind, Kind::FallingBack);
    has(&evidence, &["never caught up at these rates"]);
    has(
        &remedy,
        &[
            "profile = \"high-throughput\" below [[topic]] name = \"t\" in c.toml",
            "check_crcs = false",
            "sink out has 2 topics",
        ],
    );
    // It waits for its sink: settings of the fetch would not help.
    let consumer = ConsumerStatus { full_for_ms: Some(900), ..ConsumerStatus::default() };
    let (_, evidence, remedy) =
        case().with(|case| case.status = Some(TopicStatus { consumer, ..TopicStatus::default() })).told();
    has(&evidence, &["the worker says: its memory or its batches are used up for 900 ms"]);
    has(&remedy, &["it waits for sink out"]);
    assert!(!remedy.contains("high-throughput"), "{remedy}");
}

#[test]
fn a_topic_stands_still_where_no_worker_runs() {
    let (kind, evidence, remedy) = Case::stalled().with(|case| case.running = Running::No).told();
    assert_eq!((kind, remedy.as_str()), (Kind::Stalled, "start the worker: worker -c c.toml"));
    has(&evidence, &["nothing moved for 10.0 s", "the worker does not run"]);
}

#[test]
fn a_client_in_trouble_needs_attention_where_nothing_is_to_be_read() {
    let troubled = |age_ms| {
        let trouble = Some(TroubleStatus { error: "shut out".to_owned(), age_ms });
        let consumer = ConsumerStatus { trouble, ..ConsumerStatus::default() };
        let status = Some(TopicStatus { consumer, ..TopicStatus::default() });
        Case::new(seen(0, 100, 100), seen(0, 100, 100), Verdict::Idle).with(|case| case.status = status).told()
    };
    let (kind, evidence, remedy) = troubled(600_000);
    assert_eq!(kind, Kind::InTrouble);
    has(&evidence, &["its client is in trouble for 600000 ms: shut out"]);
    has(&remedy, &["do what the error above says"]);
    assert_eq!(troubled(100).0, Kind::Idle, "it may have begun and ended while it was looked");
}

#[test]
fn the_running_workers_own_state_explains_a_stall() {
    let trouble = |error: &str| Some(TroubleStatus { error: error.to_owned(), age_ms: 1_500 });
    let consumer = ConsumerStatus {
        trouble: trouble("no broker"),
        commit_trouble: trouble("no group"),
        ..ConsumerStatus::default()
    };
    let part = PartitionStatus {
        partition: 0,
        state: Some("stopped".to_owned()),
        trouble: trouble("no leader"),
        ..PartitionStatus::default()
    };
    let status = TopicStatus { consumer, partitions: vec![part], ..TopicStatus::default() };
    let (kind, evidence, remedy) = Case::stalled().with(|case| case.status = Some(status)).told();
    assert_eq!(kind, Kind::Stalled);
    has(&evidence, &["its client is in trouble for 1500 ms: no broker", "its commits fail for 1500 ms: no group"]);
    has(&evidence, &["partition 0 is stopped", "partition 0 can't be read for 1500 ms: no leader"]);
    has(
        &remedy,
        &[
            "worker offsets reset -c c.toml --topic t --partition 0 --to-earliest --execute",
            "grep -E 'WARN|ERROR' LOG | grep t",
        ],
    );
    assert!(!remedy.contains("[admin]"), "it answers: {remedy}");
    has(&Case::stalled().told().2, &["[admin] listen"]);
}

#[test]
fn a_sink_that_fails_explains_what_waits_for_it() {
    let fails = |error: Option<&str>, busy_for_ms| {
        let trouble = error.map(|error| TroubleStatus { error: error.to_owned(), age_ms: 5 });
        Some(SinkStatus { sink: "out".to_owned(), busy_for_ms, trouble })
    };
    // What the worker says of the topic: so many records are with the sink.
    let with_sink = |in_flight| {
        let part = PartitionStatus { in_flight, ..PartitionStatus::default() };
        Some(TopicStatus { partitions: vec![part], ..TopicStatus::default() })
    };
    let stalled = || Case::stalled().with(|case| case.status = with_sink(0));
    let (kind, evidence, remedy) = stalled().with(|case| case.sink_status = fails(Some("disk full"), None)).told();
    assert_eq!(kind, Kind::SinkFailing);
    has(&evidence, &["sink out fails for 5 ms: disk full"]);
    has(&remedy, &["df -h /data/out"]);
    let kind = |case: Case| case.finding().kind;
    assert_eq!(kind(stalled().with(|case| case.sink_status = fails(None, Some(20_000)))), Kind::SinkFailing);
    assert_eq!(kind(stalled().with(|case| case.sink_status = fails(None, Some(2_000)))), Kind::Stalled);
    // The sink's trouble is that of the topics whose records it has.
    let catching = || Case::new(seen(0, 100, 10), seen(0, 100, 60), Verdict::CatchingUp(pace(40, 90, 50)));
    let of = |in_flight| {
        catching().with(|case| (case.status, case.sink_status) = (with_sink(in_flight), fails(Some("full"), None)))
    };
    assert_eq!((kind(of(7)), kind(of(0))), (Kind::SinkFailing, Kind::CatchingUp));
    let other = |case: &mut Case| (case.unknown_to_worker, case.sink_status) = (true, fails(Some("full"), None));
    let (unknown, evidence, remedy) = Case::stalled().with(other).told();
    assert_eq!(unknown, Kind::Stalled);
    has(&evidence, &["the running worker does not have this topic"]);
    has(&remedy, &["restart the worker"]);
    // Nothing waits for it.
    assert_eq!(
        kind(
            Case::idle().with(|case| (case.status, case.sink_status) = (with_sink(1), fails(Some("disk full"), None)))
        ),
        Kind::Idle
    );
    // From outside, only a file can be looked at; the worker's word goes before it, and that records go through.
    let wrong = || Some("/data/out can't be opened".to_owned());
    assert_eq!(kind(Case::stalled().with(|case| case.sink_fails = wrong())), Kind::SinkFailing);
    assert_eq!(
        kind(Case::stalled().with(|case| (case.sink_fails, case.sink_status) = (wrong(), fails(None, None)))),
        Kind::Stalled
    );
    assert_eq!(kind(catching().with(|case| case.sink_fails = wrong())), Kind::CatchingUp);
}

#[test]
fn members_and_foreign_commits_are_somebody_else() {
    let member = Member { id: "m-1".to_owned(), client_id: "old".to_owned(), host: "/10.0.0.7".to_owned() };
    let (kind, evidence, remedy) = Case::idle().with(|case| case.members = vec![member]).told();
    assert_eq!(kind, Kind::Shared);
    has(&evidence, &["has 1 live members, and this worker is no member of its groups: old at 10.0.0.7"]);
    has(&remedy, &["group_id = \"g-t-2\""]);

    let moved = || Case::new(seen(0, 9, 3), seen(0, 9, 9), Verdict::Idle);
    let kind = |case: Case| case.finding().kind;
    // A worker that runs commits; one that does not, does not.
    assert_eq!(kind(moved()), Kind::Idle);
    assert_eq!(kind(moved().with(|case| case.running = Running::No)), Kind::Shared);
    assert_eq!(kind(moved().with(|case| case.running = Running::Never)), Kind::Idle);
    assert_eq!(
        kind(moved().with(|case| (case.running, case.steady) = (Running::No, false))),
        Kind::Idle,
        "it ran until now"
    );
    // The state file is some seconds late.
    let late = |case: &mut Case| (case.part.told_before, case.part.told) = (Some(at(3)), Some(at(5)));
    assert_eq!(kind(moved().with(late)), Kind::Idle);
    let ahead = |case: &mut Case| (case.part.told_before, case.part.told) = (Some(at(1)), Some(at(2)));
    assert_eq!(kind(moved().with(ahead)), Kind::Shared);
    assert_eq!(kind(moved().with(ahead).with(|case| case.looked = LOOKED / 5)), Kind::Idle, "too short to know");
    // Set back, below what the worker had committed before.
    let back = Case::new(seen(0, 9, 9), seen(0, 9, 4), Verdict::CatchingUp(pace(5, 0, 0)));
    assert_eq!(kind(back.with(|case| case.part.told = Some(at(9)))), Kind::Shared);
    let own = Case::new(seen(0, 9, 9), seen(0, 9, 4), Verdict::CatchingUp(pace(5, 0, 0)));
    assert_eq!(kind(own), Kind::CatchingUp, "the worker went back itself");
    // The worker's own word is not late.
    let here = |committed| {
        let part = PartitionStatus { committed_here: Some(committed), ..PartitionStatus::default() };
        Some(TopicStatus { partitions: vec![part], ..TopicStatus::default() })
    };
    assert_eq!(kind(moved().with(ahead).with(|case| case.status = here(9))), Kind::Idle);
    assert_eq!(kind(moved().with(|case| case.status = here(2))), Kind::Shared);
    // Set while the worker was down, and left there: it may be meant.
    let set = Case::stalled().with(|case| (case.running, case.part.told) = (Running::No, Some(at(8))));
    let (kind, evidence, _) = set.told();
    assert_eq!(kind, Kind::Stalled);
    has(&evidence, &["this worker committed 8 last, the group has 4"]);
}

#[test]
fn what_this_client_cannot_read_goes_before_the_stall() {
    let unreadable =
        |what: &str| Some(Err(Fault::Unreadable { offset: at(4), last: Some(at(6)), what: what.to_owned() }));
    let (kind, evidence, remedy) = Case::stalled().with(|case| case.part.ahead = unreadable("codec=zstd")).told();
    assert_eq!(kind, Kind::Unreadable);
    has(&evidence, &["the batch of offsets 4 to 6 can't be read by this client (codec=zstd)"]);
    has(&remedy, &["compression.type=gzip", "--to-offset 7 "]);
    let other =
        "client = \"auto\" (or \"librdkafka\") below [[topic]] name = \"t\" in c.toml, or below [kafka] for all topics";
    let has_it = |remedy: &str| {
        has(remedy, &[other]);
        assert_eq!(remedy.contains("this program was built without librdkafka"), !HAS_LIBRDKAFKA, "{remedy}");
    };
    has_it(&remedy);
    // With one client for all topics it is a setting of all of them.
    let single = |case: &mut Case| (case.config.mode, case.part.ahead) = (Mode::Single, unreadable("codec=lz4"));
    let (_, _, remedy) = Case::stalled().with(single).told();
    has(&remedy, &["client = \"auto\" (or \"librdkafka\") below [kafka] in c.toml\n"]);
    let (_, _, remedy) =
        Case::stalled().with(|case| case.part.ahead = unreadable("message.downconversion.enable")).told();
    has_it(&remedy);
    let too_new = || Some(Err(Fault::TooNew { broker: "b:1".to_owned(), fetch_min: 4 }));
    let (kind, evidence, of_kafka_4) = Case::stalled().with(|case| case.part.ahead = too_new()).told();
    assert_eq!(kind, Kind::Unreadable);
    has(&evidence, &["broker b:1 is too new for the client 'kafka'"]);
    has_it(&of_kafka_4);
    has(&remedy, &["or kafka-configs --bootstrap-server b:1", "message.downconversion.enable=true"]);
    let large = |size| Some(Ok(Some(Ahead { offset: at(4), size, records: None, transactional: false })));
    let (kind, evidence, remedy) = Case::stalled().with(|case| case.part.ahead = large((3 << 20) + 1)).told();
    assert_eq!(kind, Kind::Unreadable);
    has(&evidence, &["raise max_partition_fetch_bytes"]);
    has(&remedy, &["max_partition_fetch_bytes = \"4MiB\""]);
    assert_eq!(Case::stalled().with(|case| case.part.ahead = large(1 << 20)).finding().kind, Kind::Stalled);
    let aborted = Ahead { offset: at(4), size: 9, records: None, transactional: true };
    let (kind, evidence, remedy) = Case::stalled().with(|case| case.part.ahead = Some(Ok(Some(aborted)))).told();
    assert_eq!(kind, Kind::Stalled, "it can be read");
    has_it(&remedy);
    has(&evidence, &["offset 4 belongs to a transaction: this client delivers the records of aborted ones, too"]);
}

#[test]
fn out_of_range_says_where_the_next_start_goes_on() {
    let bounds = |start, end| Bounds { log_start: at(start), log_end: at(end) };
    let case = |committed, policy: Option<OnOutOfRange>| {
        let verdict = Verdict::OutOfRange { committed: at(committed), bounds: bounds(6, 9) };
        Case::new(seen(6, 9, committed), seen(6, 9, committed), verdict).with(|case| {
            case.running = Running::No;
            if let Some(policy) = policy {
                case.config.topics[0].on_out_of_range = policy;
            }
        })
    };
    let (kind, evidence, remedy) = case(4, None).told();
    assert_eq!(kind, Kind::OutOfRange);
    has(
        &evidence,
        &["offset 4 was deleted by retention; the next start goes on at 9, and passes over 3 offsets that exist"],
    );
    has(&remedy, &["on_out_of_range = \"earliest\"", "worker -c c.toml"]);
    let (_, evidence, remedy) = case(4, Some(OnOutOfRange::Earliest)).told();
    has(&evidence, &["goes on at 6, and passes over 0 offsets"]);
    has(&remedy, &["retention.ms"]);
    let (_, evidence, remedy) = case(12, None).told();
    has(&evidence, &["offset 12 is beyond the log end; the next start goes on at 9"]);
    has(&remedy, &["--to-offset"]);
    let (_, evidence, remedy) = case(4, Some(OnOutOfRange::Stop)).told();
    has(&evidence, &["on_out_of_range is stop"]);
    has(&remedy, &["--to-earliest"]);
}

#[test]
fn a_group_without_offsets_says_where_its_first_start_begins() {
    let case = || {
        Case::new(seen(0, 9, -1), seen(0, 9, -1), Verdict::NotStarted { readable: 9 })
            .with(|case| case.running = Running::Never)
    };
    let (kind, evidence, remedy) = case().told();
    assert_eq!(kind, Kind::NotStarted);
    has(&evidence, &["auto_offset_reset is latest: the first start begins at 9, and passes over 9 offsets"]);
    has(&remedy, &["auto_offset_reset = \"earliest\"", "worker -c c.toml"]);
    let shared = Some(("g".to_owned(), vec![(0, at(7))]));
    let (_, evidence, remedy) = case().with(|case| case.base = shared).told();
    has(&evidence, &["group g, which all topics shared before, has committed 0:7"]);
    has(&remedy, &["worker offsets reset -c c.toml --topic t --partition 0 --to-offset 7 --execute"]);
    let (_, evidence, remedy) = case().with(|case| case.part.told = Some(at(3))).told();
    has(&evidence, &["the state directory remembers offset 3"]);
    assert!(!remedy.contains("earliest"), "{remedy}");
}

#[test]
fn a_topic_that_is_not_there_or_not_known() {
    let missing = Fault::TopicMissing { topic: "t".to_owned() };
    let (kind, evidence, remedy) = Case::idle().with(|case| case.whole = Some(missing)).told();
    assert_eq!(kind, Kind::Missing);
    has(&evidence, &["topic t does not exist"]);
    has(&remedy, &["kafka-topics --bootstrap-server b:1 --create --topic t", "consumer.topics in c.toml"]);
    assert_eq!(Case::idle().with(|case| case.whole = Some(Fault::NoLeader)).finding().kind, Kind::Unknown);
    let lost = Case::idle().with(|case| {
        (case.part.seen, case.part.verdict) = (Err(Fault::NoLeader), Verdict::Unknown(Fault::NoLeader));
    });
    let (kind, evidence, _) = lost.told();
    assert_eq!(kind, Kind::Unknown);
    has(&evidence, &["partition 0: the partition has no leader at present"]);
}

/// The sink waits for them, and is well.
#[test]
fn a_place_of_dead_letters_that_fails_has_its_own_remedy() {
    let told = |table: &str, error: &str| {
        let text = format!(
            "[kafka]\nbootstrap_servers = ['b:1', 'c:1']\n[consumer]\ngroup_id = 'g'\ntopics = ['t', 'u']\nsink = 'out'\n\
             on_failure = 'dead_letter'\n[sink.out]\ntype = 'exec'\ncommand = ['/bin/true']\n[dead_letter]\n{table}\n"
        );
        let error = format!("{}: {error}", crate::failure::LETTERS_FAIL);
        let trouble = Some(TroubleStatus { error, age_ms: 5 });
        let case = Case::stalled().with(|case| {
            case.config = config::parse(&text, &|_| None).unwrap();
            case.status = Some(TopicStatus::default());
            case.sink_status = Some(SinkStatus { sink: "out".to_owned(), busy_for_ms: None, trouble });
        });
        let (kind, evidence, remedy) = case.told();
        assert_eq!(kind, Kind::SinkFailing);
        has(&evidence, &["sink out fails for 5 ms: dead letters can't be written: "]);
        assert!(!remedy.contains("handler"), "{remedy}");
        remedy
    };
    has(
        &told("path = '/data/dead'", "/data/dead: write failed: no storage space"),
        &["look with df -h /data/dead; ls -ld /data/dead", "[dead_letter] path"],
    );
    if HAS_LIBRDKAFKA {
        let create =
            "kafka-topics --bootstrap-server b:1,c:1 --create --topic t-dead\nor correct [dead_letter] topic in c.toml";
        has(&told("topic = '{topic}-dead'", "topic t-dead does not exist"), &[create]);
        let elsewhere = "topic = 'dead'\nbootstrap_servers = ['d:1']";
        has(&told(elsewhere, "no broker"), &["kafka-topics --bootstrap-server d:1 --describe --topic dead"]);
    }
}
