//! What a running worker tells over HTTP, to whom it may concern and to those who mean no good.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use broker::fault::{Fault, Order, code};
use broker::{Api, Codec, Options};

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::http::{address, connect, get, metric, send, status};
use crate::support::worker::{Config, Site, Worker};

/// A configuration with an admin at a free port, and a cluster that is looked at all the time.
fn with_admin(config: &Config) -> Config {
    config.clone().set("admin", "listen", "'127.0.0.1:0'").set("observe", "interval_ms", 100)
}

#[test]
fn every_path_says_what_it_is_for() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 1000);
    let worker = bed.started(&with_admin(&bed.config(&["t", "gone"])));
    let at = address(&worker);
    bed.await_all("t", 0);
    eventually("both are judged", || status(at).topics.iter().all(|topic| topic.verdict.is_some()));
    eventually("all is counted", || metric(at, "worker_delivered_records_total{topic=\"t\"}") == Some(1000.0));

    assert_eq!((get(at, "/healthz").status, get(at, "/healthz").body.as_str()), (200, "alive\n"));
    assert_eq!((get(at, "/readyz").status, get(at, "/readyz").body.as_str()), (200, "ready\n"));

    let told = status(at);
    assert!(told.ready && told.not_ready.is_empty() && !told.process.stopping);
    assert_eq!((told.process.version.as_str(), told.process.pid), (env!("CARGO_PKG_VERSION"), worker.pid()));
    assert_eq!(told.process.config, bed.site.path("consumer.toml").canonicalize().unwrap().display().to_string());
    assert!(told.process.uptime_ms > 0 && told.observed.age_ms.is_some() && told.observed.interval_ms == 100);
    let [t, gone] = &told.topics[..] else { panic!("two topics: {told:?}") };
    assert_eq!((t.topic.as_str(), t.group.as_str(), t.sink.as_str()), ("t", "g-t", "out"));
    assert_eq!(t.verdict.as_ref().unwrap().word, "idle");
    assert_eq!((t.lag, t.readable, t.stalled, t.consumer.run), (Some(0), Some(0), false, 0));
    let [part] = &t.partitions[..] else { panic!("one partition: {t:?}") };
    assert_eq!(part.state.as_deref(), Some("reading"));
    assert_eq!(
        (part.log_start, part.log_end, part.committed, part.expired),
        (Some(0), Some(1000), Some(1000), Some(0))
    );
    assert_eq!((part.position, part.acknowledged, part.committed_here), (Some(1000), Some(1000), Some(1000)));
    assert_eq!(gone.verdict.as_ref().unwrap().word, "missing");
    assert_eq!(told.sinks.iter().map(|sink| sink.sink.as_str()).collect::<Vec<_>>(), ["out"]);

    let metrics = get(at, "/metrics");
    assert!(metrics.head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(metrics.body.ends_with("# EOF\n"));
    let expected = [
        ("worker_build_info{version=\"0.1.0\"}", 1.0),
        ("worker_ready", 1.0),
        ("worker_topic_verdict{topic=\"t\",verdict=\"idle\"}", 1.0),
        ("worker_topic_stalled{topic=\"t\"}", 0.0),
        ("worker_consumed_records_total{topic=\"t\"}", 1000.0),
        ("worker_passed_offsets_total{topic=\"t\",reason=\"expired\"}", 0.0),
        ("worker_lag_offsets{topic=\"t\",partition=\"0\"}", 0.0),
        ("worker_log_end_offset{topic=\"t\",partition=\"0\"}", 1000.0),
        ("worker_committed_offset{topic=\"t\",partition=\"0\"}", 1000.0),
        ("worker_consumer_restarts_total{group=\"g-t\"}", 0.0),
        ("worker_sink_failing{sink=\"out\"}", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(metric(at, name), Some(value), "{name} in\n{}", metrics.body);
    }
    for counted in ["worker_fetch_duration_seconds_count", "worker_commit_duration_seconds_count"] {
        assert!(metric(at, &format!("{counted}{{group=\"g-t\"}}")) > Some(0.0), "{counted}");
    }
    assert!(metric(at, "worker_progress_age_seconds{topic=\"t\"}").unwrap() < 60.0);

    let page = get(at, "/");
    assert!(page.head.contains("\r\nContent-Security-Policy: default-src 'none';"), "{}", page.head);
    assert!(page.body.contains("href=\"/topic/t\"") && page.body.contains(">missing<"), "{}", page.body);
    assert!(get(at, "/topic/t").body.contains("Current offset"));
    for path in ["/page.css", "/page.js", "/icon.svg"] {
        assert_eq!(get(at, path).status, 200, "{path}");
    }
    for path in ["/topic/other", "/etc/passwd", "/../etc/passwd", "/topic/"] {
        assert_eq!(get(at, path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(send(at, &format!("{method} / HTTP/1.1\r\n\r\n")).status, 405, "{method}");
    }
    let head = send(at, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let elsewhere = send(at, "GET /status HTTP/1.1\r\nHost: evil.example:80\r\n\r\n");
    assert_eq!((elsewhere.status, elsewhere.body.contains("g-t")), (403, false), "no name of others leads here");
    bed.stop(worker);
}

#[test]
fn what_keeps_it_from_being_ready_is_said() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new();
    let worker = site.start(&with_admin(&Config::new(&[free.to_string()], &["t", "u"])).to_string());
    let at = address(&worker);
    eventually("it says what it waits for", || {
        let answer = get(at, "/readyz");
        (answer.status, answer.body.as_str()) == (503, "not read yet: t, u\n")
    });
    assert_eq!(get(at, "/healthz").status, 200, "it is alive all the same");
    eventually("the look at the cluster fails", || status(at).observed.error.is_some());
    let told = status(at);
    assert!(told.observed.age_ms.is_none(), "{:?}", told.observed);
    assert!(told.topics[0].consumer.trouble.is_some() && told.topics[0].last_error.is_some(), "{told:?}");
    assert!(metric(at, "worker_observation_failures_total") > Some(0.0));
}

#[test]
fn a_partition_that_cant_be_read_is_named_with_its_fault() {
    let bed = Bed::new(&["other", "refused"]);
    bed.server.create_topic("t", 3).unwrap();
    bed.fill_as("t", 1, 10, Codec::Lz4);
    bed.server.move_leader("t", 2, None).unwrap();
    let config = with_admin(&bed.config(&["t", "other", "refused"])).set("kafka", "metadata_max_age_ms", 200);
    let worker = bed.start(&config);
    let at = address(&worker);
    let unreadable =
        "can't be read: topic=t partition=1: the batch of offsets 0 to 9 can't be read by this client (codec=lz4); ";
    let says = |start: &str| get(at, "/readyz").body.lines().any(|line| line.starts_with(start));
    eventually("the partition and its fault are named", || says(unreadable));
    let trouble = |number: i32| {
        let found = status(at).topics[0].partitions.iter().find(|part| part.partition == number)?.trouble.clone()?;
        Some(found.error)
    };
    eventually("so they are in the status", || trouble(1).is_some_and(|error| error.contains("codec=lz4")));
    let no_leader = "the partition has no leader at present";
    eventually("also one that never began", || trouble(2).as_deref() == Some(no_leader));
    assert_eq!(trouble(0), None);

    let refused = Fault::Error(code::TOPIC_AUTHORIZATION_FAILED);
    bed.server.order(Order::new(Api::Metadata, refused).topic("refused").always());
    eventually("a topic that is refused is named with the fault", || says("in trouble: refused: the broker refused"));
    let told = status(at);
    assert!(!told.ready && told.not_ready.iter().any(|reason| reason.starts_with(unreadable)), "{told:?}");
    assert_eq!(get(at, "/readyz").status, 503);
    bed.server.cancel_all();
    eventually("it is over", || !says("in trouble"));
    bed.stop(worker);
}

#[test]
fn a_stalled_topic_and_a_failing_sink_are_to_be_seen_also_while_it_stops() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 10);
    let config = with_admin(&bed.config(&["t", "u"]))
        .set("watchdog", "stall_timeout_ms", 1_000)
        .set("sink.full", "type", "'file'")
        .set("sink.full", "path", "'/dev/full'")
        .more("[[topic]]\nname = 't'\nsink = 'full'");
    let worker = bed.started(&config);
    let at = address(&worker);
    eventually("it is not ready", || get(at, "/readyz").body == "stalled: t\n");
    eventually("the status has it, too", || status(at).topics[0].stalled);
    let told = status(at);
    let t = &told.topics[0];
    assert!(t.verdict.as_ref().unwrap().text.contains("for sink full, which fails"), "{t:?}");
    assert!(told.sinks[0].trouble.as_ref().unwrap().error.contains("/dev/full"), "{:?}", told.sinks);
    eventually("the metrics have it, too", || metric(at, "worker_topic_stalled{topic=\"t\"}") == Some(1.0));
    assert_eq!(metric(at, "worker_sink_failing{sink=\"full\"}"), Some(1.0));
    assert!(metric(at, "worker_sink_failures_total{sink=\"full\"}") > Some(0.0));
    assert_eq!(metric(at, "worker_readable_offsets{topic=\"t\",partition=\"0\"}"), Some(10.0));
    eventually("the page has it, too", || get(at, "/").body.contains("Not ready: stalled: t."));
    let page = get(at, "/").body;
    assert!(page.find("/topic/t\"").unwrap() < page.find("/topic/u\"").unwrap(), "the worst first");
    worker.signal("TERM");
    eventually("it says that it stops", || get(at, "/readyz").body.starts_with("the worker is stopping\n"));
    eventually("the status does, too", || status(at).process.stopping);
    let ended = worker.exit(crate::support::worker::PATIENCE);
    assert!(TcpStream::connect(at).is_err(), "{:?}", ended.code());
}

#[test]
fn a_port_that_is_taken_is_a_start_that_fails_and_says_so() {
    let bed = Bed::new(&["t"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let worker = bed.start(&bed.config(&["t"]).set("admin", "listen", format!("'{at}'")));
    let ended = worker.exit(crate::support::worker::PATIENCE);
    assert_eq!(ended.code(), Some(1));
    let line = format!("cannot start error=\"[admin] listen = \"{at}\": ");
    assert_eq!(ended.lines_with(&["ERROR", &line, "in use", "choose another port"]).len(), 1, "{:?}", ended.log);
    assert_eq!(bed.committed("t"), None, "nothing was begun");
}

/// Clients that say nothing, say it slowly, never end, or never listen.
#[test]
fn hostile_clients_disturb_neither_the_topics_nor_each_other_for_long() {
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&with_admin(&bed.config(&["t"])));
    let at = address(&worker);
    assert_eq!(get(at, "/metrics").status, 200);
    let (threads, memory) = (worker.threads(), worker.rss());
    let mut hostile: Vec<TcpStream> = Vec::new();
    let until = Instant::now() + Duration::from_secs(3);
    let mut slowest = Duration::ZERO;
    let mut filled = 0;
    while Instant::now() < until {
        for kind in 0..40 {
            // Its places may all be taken for a moment: then the system keeps the connection waiting.
            let Ok(mut stream) = TcpStream::connect_timeout(&at, Duration::from_millis(500)) else { continue };
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            let endless = vec![b'a'; 1 << 20];
            let _ = match kind % 4 {
                0 => Ok(()),
                1 => stream.write_all(b"GET /metrics HT"),
                2 => stream.write_all(&endless),
                _ => stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n"),
            };
            hostile.push(stream);
        }
        // No more than this process may have.
        hostile.drain(..hostile.len().saturating_sub(400));
        let asked = Instant::now();
        assert_eq!(get(at, "/healthz").status, 200);
        slowest = slowest.max(asked.elapsed());
        bed.fill("t", 10);
        filled += 10;
        bed.await_committed("t", 0, filled);
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert!(worker.threads() <= threads + 2, "{} threads after {threads}", worker.threads());
    let grown = worker.peak_rss().saturating_sub(memory);
    assert!(grown < 48 << 20, "{grown} bytes more");
    drop(hostile);
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// CPU time of the thread of this name, in clock ticks of which there are 100 a second.
fn ticks(worker: &Worker, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let of = |dir: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(dir.ok()?.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        head.ends_with(&format!("({name}"))
            .then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
    };
    tasks.filter_map(of).sum()
}

#[test]
fn metrics_of_two_hundred_topics_come_soon_and_cost_little() {
    const SCRAPES: u32 = 20;
    let names: Vec<String> = (0..200).map(|n| format!("topic-with-a-name-of-usual-length-{n}")).collect();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::with(Options::default(), &topics);
    for topic in &topics {
        bed.fill(topic, 100);
    }
    let config =
        with_admin(&bed.config(&topics)).set("observe", "interval_ms", 2_000).set("consumer", "sink", "'drop'");
    let worker = bed.started(&config);
    let at = address(&worker);
    let last = format!("worker_lag_offsets{{topic=\"{}\",partition=\"0\"}}", names[199]);
    eventually("all are looked at", || metric(at, &last) == Some(0.0));
    let before = ticks(&worker, "admin");
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..SCRAPES {
        // So long that nothing is answered from what was made before; and they run meanwhile.
        thread::sleep(worker::admin::FRESH + Duration::from_millis(10));
        for topic in &topics[..20] {
            bed.fill(topic, 10);
        }
        let asked = Instant::now();
        let answer = get(at, "/metrics");
        took.push(asked.elapsed());
        assert!(answer.body.len() > 200 * 1000, "{}", answer.body.len());
    }
    let cost = Duration::from_millis((ticks(&worker, "admin") - before) * 10) / SCRAPES;
    took.sort();
    println!(
        "/metrics of 200 topics: fastest {:?}, median {:?}, slowest {:?}; CPU {cost:?} a scrape",
        took[0], took[10], took[19]
    );
    // A debug build on a machine that has other things to do: the fastest shows what it takes.
    assert!(took[0] < Duration::from_millis(20), "{took:?}");
    assert!(cost < Duration::from_millis(10), "{cost:?} a scrape is more than 1 % when scraped every second");
    bed.stop(worker);
}

/// The names of metrics in `text`, as Prometheus' expressions write them.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !name(c)).filter(|word| word.starts_with("worker_") && word.len() > "worker_".len());
    words.map(str::to_owned).collect()
}

#[test]
fn what_the_rules_and_the_dashboard_name_exists() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&with_admin(&bed.config(&["t"])));
    let at = address(&worker);
    bed.await_all("t", 0);
    eventually("it is judged", || status(at).topics[0].verdict.is_some());
    let text = get(at, "/metrics").body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<String> = lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect();
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc");
    for (file, least) in [("worker.rules.yml", 10), ("worker-dashboard.json", 15)] {
        let named = metrics_in(&fs::read_to_string(etc.join(file)).unwrap());
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names what is not in /metrics: {unknown:?}");
        assert!(named.len() >= least, "{file}: {named:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(etc.join("worker-dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for name in ["worker_topic_stopped", "worker_given_up_records_total", "worker_topic_stalled", "worker_sink_failing"]
    {
        assert!(panels.iter().any(|panel| panel["targets"].to_string().contains(name)), "no panel has {name}");
    }
    // None hides another one.
    let place = |panel: &serde_json::Value| {
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        (of("x")..of("x") + of("w"), of("y")..of("y") + of("h"))
    };
    let common = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = place(panel);
        assert!(x.end <= 24, "{panel}");
        for other in &panels[..number] {
            let (other_x, other_y) = place(other);
            assert!(!common(&x, &other_x) || !common(&y, &other_y), "{} and {}", panel["title"], other["title"]);
            assert_ne!(panel["id"], other["id"]);
        }
    }
    bed.stop(worker);
}

/// Also those that nobody looks at are well formed: Prometheus' own tool says so, where there is one.
#[test]
fn prometheus_reads_the_rules() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/worker.rules.yml");
    let text = fs::read_to_string(&rules).unwrap();
    let count =
        |word: &str| text.lines().filter(|line| line.trim_start().trim_start_matches("- ").starts_with(word)).count();
    let alerts = count("alert: ");
    assert!(alerts >= 8, "{alerts}");
    for key in ["expr: ", "for: ", "severity: ", "summary: ", "description: "] {
        assert_eq!(count(key), alerts, "every alert has {key}");
    }
    match std::process::Command::new("promtool").args(["check", "rules"]).arg(&rules).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("SKIPPED: promtool is not installed; the rules were only looked through"),
    }
}

/// Answers are not mixed up when many ask at once.
#[test]
fn many_ask_at_once() {
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&with_admin(&bed.config(&["t"])));
    let at: SocketAddr = address(&worker);
    let ask = move |n: usize| {
        let path = ["/healthz", "/readyz", "/status", "/metrics", "/"][n % 5];
        let mut stream = connect(at);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let own = ["alive\n", "ready\n", "\"process\"", "# EOF\n", "<!DOCTYPE html>"][n % 5];
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(own), "{path}: {answer}");
    };
    let threads: Vec<_> = (0..40).map(|n| thread::spawn(move || ask(n))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    bed.stop(worker);
}

#[test]
fn a_reload_is_to_be_seen() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 10);
    let worker = bed.started(&with_admin(&bed.config(&["t"])));
    let at = address(&worker);
    bed.await_all("t", 0);
    let topics = || status(at).topics.into_iter().map(|topic| topic.topic).collect::<Vec<_>>();
    assert_eq!(topics(), ["t"]);
    let verdict = |name: &str| {
        let told = status(at).topics.into_iter().find(|topic| topic.topic == name)?;
        Some((told.consumer.phase, told.verdict?.word))
    };
    let config = with_admin(&bed.config(&["t", "u"]))
        .set("admin", "listen", "'127.0.0.1:1'")
        .set("observe", "interval_ms", 150)
        .more("[[topic]]\nname = 't'\npaused = true");
    bed.site.write_config(&config.to_string());
    worker.signal("HUP");
    worker.wait_words(&["WARN", "restart needed key=admin.listen"]);
    worker.wait_words(&["reload complete"]);
    eventually("t is shown as paused", || {
        verdict("t").is_some_and(|(phase, word)| (&*phase, &*word) == ("paused", "paused"))
    });
    eventually("u is shown", || verdict("u").is_some_and(|(_, word)| word == "empty"));
    assert_eq!(status(at).observed.interval_ms, 150);
    assert_eq!(get(at, "/readyz").body, "ready\n");
    assert!(get(at, "/").body.contains(">paused<"));
    bed.stop(worker);
}
