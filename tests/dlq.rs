//! `worker dlq`: what it lists and shows, what it gives to sinks again, and that nothing is given twice without need.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use crate::support::worker::{Config, Ended, Site, Worker};

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
    assert_eq!(ended.log, ["there is no [sink.gone] in the configuration; name another one with --sink"]);
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
