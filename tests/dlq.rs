//! `worker dlq`: what it lists and shows, what it gives to sinks again, and that nothing is given twice without need.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::eventually;
use crate::support::web::{Web, answer, ok};
use crate::support::worker::{Config, Ended, PATIENCE, Site, Worker};

const LETTERS: &str = concat!(
    r#"{"topic":"a","partition":0,"offset":5,"timestamp":1700000000000,"key":"k","value":"five","sink":"out","reason":"no such order","attempts":3,"first_failure":1700000001000,"dead":1700000002000}"#,
    "\n",
    r#"{"topic":"a","partition":1,"offset":7,"key":null,"value_base64":"/w==","headers":[{"name":"h","value":"x"}],"sink":"out","reason":"a reason that is much longer than what fits into a line of the list, so it is cut","attempts":1,"first_failure":1700000001000,"dead":1700000002000}"#,
    "\n",
    r#"{"topic":"b","partition":0,"offset":9,"key":null,"value":"nine","sink":"gone","reason":"no such order","attempts":1,"first_failure":1700000001000,"dead":1700000002000}"#,
    "\n",
);

struct Place {
    site: Site,
    config: Config,
}

impl Place {
    fn new(letters: &str) -> Self {
        let place = Self { site: Site::new(), config: Config::new(&["127.0.0.1:9".to_owned()], &["a", "b"]) };
        fs::write(place.file(), letters).unwrap();
        Self {
            config: place
                .config
                .set("sink.out", "path", "'@DIR@/out'")
                .set("dead_letter", "path", "'@DIR@/dead.jsonl'")
                .set("consumer", "on_failure", "'dead_letter'"),
            ..place
        }
    }

    fn file(&self) -> PathBuf {
        self.site.path("dead.jsonl")
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Ended {
        let config = self.site.write_config(&self.config.to_string()).display().to_string();
        Worker::run(&[&["dlq", command, "-c", &config], arguments].concat())
    }

    /// Replays, which has to end with this code and these words; returns what the sink has got.
    #[track_caller]
    fn replay(&self, arguments: &[&str], code: i32, words: &str) -> Vec<String> {
        let ended = self.run("replay", &[&["--execute"], arguments].concat());
        assert_eq!(ended.code(), Some(code), "{:?} {:?}", ended.stdout, ended.log);
        assert!(ended.stdout[0].starts_with(words), "{:?}", ended.stdout);
        let text = fs::read_to_string(self.site.path("out")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_list_has_a_line_for_each_letter_that_is_meant() {
    let place = Place::new(LETTERS);
    let ended = place.run("list", &[]);
    assert_eq!((ended.code(), ended.stdout.len()), (Some(0), 4), "{:?}", ended.log);
    let first: Vec<&str> = ended.stdout[1].split_whitespace().collect();
    assert_eq!(first[..8], ["1", "a", "0", "5", "2023-11-14T22:13:22Z", "3", "out", "-"], "{first:?}");
    assert!(ended.stdout[2].ends_with("than what fits into a line of …"), "{}", ended.stdout[2]);
    let lines = |arguments: &[&str]| place.run("list", arguments).stdout.len() - 1;
    assert_eq!(lines(&["--topic", "b"]), 1);
    assert_eq!(lines(&["--topic", "a", "--partition", "1"]), 1);
    assert_eq!(lines(&["--reason", "such order"]), 2);
    assert_eq!(lines(&["--from-offset", "6", "--to-offset", "7"]), 1);
    assert_eq!(place.run("list", &["--json", "--topic", "b"]).stdout, [LETTERS.lines().nth(2).unwrap()]);
    let shown = place.run("show", &["--topic", "a", "--from-offset", "7"]).stdout.join("\n");
    for words in
        ["line 2 topic=a partition=1 offset=7\n", "value          1 bytes, no text: ff\n", "header         h: x"]
    {
        assert!(shown.contains(words), "{shown}");
    }
}

#[test]
fn a_replay_gives_each_letter_once_and_goes_on_where_it_was() {
    let place = Place::new(LETTERS);
    let dry = place.run("replay", &["--topic", "a"]);
    assert!(dry.stdout[0].starts_with("would replay 2 dead letters of "), "{:?}", dry.stdout);
    assert!(!place.site.path("out").exists(), "nothing was done");
    let arrived = place.replay(&["--topic", "a"], 0, "replayed delivered=2 failed=0 before=0 ");
    assert_eq!(
        arrived,
        [
            r#"{"topic":"a","partition":0,"offset":5,"timestamp":1700000000000,"key":"k","value":"five"}"#,
            r#"{"topic":"a","partition":1,"offset":7,"key":null,"value_base64":"/w==","headers":[{"name":"h","value":"x"}]}"#,
        ]
    );
    let list = place.run("list", &[]).stdout;
    assert_eq!(list.iter().filter(|line| line.contains("  yes  ")).count(), 2, "{list:?}");
    // What comes meanwhile is replayed with the next one; what was replayed is not.
    let more = LETTERS.lines().next().unwrap().replace("\"offset\":5", "\"offset\":6");
    let mut file = OpenOptions::new().append(true).open(place.file()).unwrap();
    write!(file, "{more}\n{{\"topic\":\"a\",\"half a li").unwrap();
    let arrived = place.replay(&["--topic", "a"], 0, "replayed delivered=1 failed=0 before=2 ");
    assert_eq!(arrived.len(), 3);
    assert_eq!(place.replay(&["--topic", "a", "--again"], 0, "replayed delivered=3 failed=0 ").len(), 6);
    // The note of one file holds for no other.
    fs::write(place.file(), LETTERS.replace("five", "FIVE")).unwrap();
    let dry = place.run("replay", &["--topic", "a", "--partition", "0"]);
    assert!(dry.stdout[0].starts_with("would replay 1 dead letters"), "{:?}", dry.stdout);
}

#[test]
fn what_can_not_be_replayed_says_why_and_is_left() {
    let place = Place::new(LETTERS);
    let ended = place.run("replay", &["--topic", "b", "--execute"]);
    assert_eq!(ended.code(), Some(2));
    let no_sink =
        |name: &str| format!("there is no [sink.{name}] in the configuration; name another one with --sink: out");
    assert_eq!(ended.log, [no_sink("gone")]);
    for (arguments, name) in [(&["--topic", "b"][..], "gone"), (&["--sink", "nosuch"], "nosuch"), (&[], "gone")] {
        let dry = place.run("replay", arguments);
        assert_eq!((dry.code(), dry.stdout.len(), dry.log), (Some(2), 0, vec![no_sink(name)]), "{arguments:?}");
    }
    assert_eq!(place.run("replay", &["--topic", "b", "--sink", "out"]).code(), Some(0));
    assert_eq!(place.replay(&["--topic", "b", "--sink", "out"], 0, "replayed delivered=1 failed=0 ").len(), 1);
    // A disk that is full.
    let full = Place {
        config: place.config.set("sink.full", "type", "'file'").set("sink.full", "path", "'/dev/full'"),
        ..place
    };
    full.replay(&["--sink", "full", "--attempts", "2"], 1, "replayed delivered=0 failed=2 before=1 ");
    assert_eq!(full.replay(&["--sink", "out"], 0, "replayed delivered=2 failed=0 before=1 ").len(), 3);
    let none = Place::new("no letter\n{\"topic\":1}\n");
    let ended = none.run("list", &[]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log[0].contains("dead.jsonl:1: is no dead letter: expected ident at line 1"), "{:?}", ended.log);
    let missing = none.run("list", &["--file", "/nowhere/dead"]);
    assert_eq!((missing.code(), missing.log.len()), (Some(1), 1), "{:?}", missing.log);
}

/// Ten letters for a service.
fn for_service(web: &Web) -> Place {
    let letter = |offset: usize| LETTERS.lines().next().unwrap().replace(":5,", &format!(":{offset},")) + "\n";
    let place = Place::new(&(0..10).map(letter).collect::<String>());
    let config = place.config.clone().without("sink.out", "path").set("sink.out", "type", "'http'");
    Place {
        config: config.set("sink.out", "url", format!("'{}'", web.url())).set("sink.out", "body", "'record'"),
        ..place
    }
}

fn start(place: &Place, arguments: &[&str]) -> Worker {
    let file = place.site.write_config(&place.config.to_string());
    let mut command = Worker::command();
    command.args(["dlq", "replay", "-c"]).arg(file).arg("--execute").args(arguments);
    Worker::spawn(command)
}

fn sent(web: &Web) -> Vec<i64> {
    web.requests().iter().map(|request| request.number("kafka-offset")).collect()
}

#[test]
fn what_was_delivered_is_noted_soon_after_and_a_signal_leaves_the_rest() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (_slow, pause) = channel::<()>();
        let (slow, pause) = (Arc::new(AtomicBool::new(true)), Mutex::new(pause));
        let own = Arc::clone(&slow);
        // More than half a second for each is slow enough to get them one by one.
        let web = Web::start(move |_| {
            if own.load(Ordering::Relaxed) {
                let _ = pause.lock().unwrap().recv_timeout(Duration::from_millis(600));
            }
            ok()
        });
        let place = for_service(&web);
        let worker = start(&place, &[]);
        // A request is counted when its answer is on its way.
        web.wait_requests(2, PATIENCE);
        let noted = || {
            let text = fs::read_to_string(place.site.path("dead.jsonl.replayed")).unwrap_or_default();
            text.lines().filter(|line| !line.is_empty()).count()
        };
        eventually("two are noted", || noted() == 2);
        assert!(worker.is_running());
        worker.signal(signal);
        let ended = worker.exit(PATIENCE);
        assert_eq!(ended.code(), Some(code), "{:?}", ended.log);
        let count = noted();
        assert!((3..6).contains(&count), "{count}: the one under way, and what was begun before the signal was heard");
        let words = format!("replayed delivered={count} failed=0 before=0 ");
        assert!(ended.stdout[0].starts_with(&words), "{:?}", ended.stdout);
        let left = 10 - count;
        let words = format!("stopped by SIG{signal} with {left} dead letters left; the same command goes on with them");
        assert_eq!(ended.log, [words]);
        slow.store(false, Ordering::Relaxed);
        place.replay(&[], 0, &format!("replayed delivered={left} failed=0 before={count} "));
        assert_eq!(sent(&web), (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn a_signal_does_not_wait_for_the_next_try_and_what_was_left_has_not_failed() {
    let busy = Arc::new(AtomicBool::new(true));
    let own = Arc::clone(&busy);
    let web = Web::start(move |_| match own.load(Ordering::Relaxed) {
        true => answer(503, "Retry-After: 3000\r\n", ""),
        false => ok(),
    });
    let place = for_service(&web);
    let worker = start(&place, &["--attempts", "9"]);
    web.wait_requests(1, PATIENCE);
    worker.signal("TERM");
    let ended = worker.exit(PATIENCE);
    assert_eq!(ended.code(), Some(143), "{:?}", ended.log);
    assert!(ended.stdout[0].starts_with("replayed delivered=0 failed=0 before=0 "), "{:?}", ended.stdout);
    busy.store(false, Ordering::Relaxed);
    place.replay(&[], 0, "replayed delivered=10 failed=0 before=0 ");
}
