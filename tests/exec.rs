//! Given such a handler, what it gets, what is committed, and what the log says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::support::bed::Bed;
use crate::support::worker::{Config, PATIENCE, Worker};

/// A handler in sh that acknowledges each record when its line stands in `@DIR@/out.jsonl`.
pub const GOOD: &str = r#"while read -r line; do seq=${line#*:}; seq=${seq%%,*}; printf '%s\n' "$line" >>$dir/out.jsonl; echo "{\"ack\":$seq}"; done"#;

/// A configuration whose sink `h` runs this script with sh; `$dir` is the site's directory.
pub fn handled(bed: &Bed, topics: &[&str], script: &str) -> Config {
    let file = bed.site.path("handler.sh");
    let dir = file.parent().unwrap().display();
    fs::write(&file, format!("#!/bin/sh\ndir={dir}\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    command(bed, topics, &["@DIR@/handler.sh"])
}

pub fn command(bed: &Bed, topics: &[&str], command: &[&str]) -> Config {
    bed.config(topics)
        .set("sink.h", "type", "'exec'")
        .set("sink.h", "command", format!("{command:?}"))
        .set("sink.h", "kill_timeout_ms", 1000)
        .set("consumer", "sink", "'h'")
}

/// `false`: there is no python3 here, and the test says so. With `CI=true` that is a failure.
#[track_caller]
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and there is no python3");
        let text = format!("\nSKIPPED {}: no python3 here\n", std::panic::Location::caller());
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    }
    found
}

/// Each offset has arrived, and for the first time in the order of the log.
#[track_caller]
fn assert_nothing_missing(bed: &Bed, topic: &str) -> usize {
    let end = bed.server.bounds(topic, 0).unwrap().1;
    let arrived = bed.arrived_offsets(topic, 0);
    let mut next = 0;
    for offset in &arrived {
        assert!(*offset <= next, "{offset} came before {next}");
        next = next.max(offset + 1);
    }
    assert_eq!(next, end);
    arrived.len() - usize::try_from(end).unwrap()
}

#[test]
fn a_good_handler_has_all_records_in_their_order() {
    let bed = Bed::new(&["a", "b"]);
    bed.fill("a", 3_000);
    bed.fill("b", 500);
    let worker = bed.started(&handled(&bed, &["a", "b"], GOOD));
    bed.await_all("a", 0);
    bed.await_all("b", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("a"), "delivered=3000 committed=3000 in_flight=0 expired=0 reset=0");
    assert_eq!(ended.lines_with(&["handler started sink=h pid="]).len(), 1);
    assert_eq!(ended.lines_with(&["handler ended sink=h", "status=\"exit code 0"]).len(), 1);
    for words in ["handler lost", "sink fails", "nonsense"] {
        assert_eq!(ended.lines_with(&[words]), [""; 0]);
    }
}

/// The README's example, with a record that it rejects.
#[test]
fn the_example_in_python_works_as_it_is() {
    if !has_python() {
        return;
    }
    let bed = Bed::new(&["t"]);
    bed.fill("t", 1_000);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/handlers/handler.py");
    let worker = bed.started(&command(&bed, &["t"], &[example.to_str().unwrap()]));
    bed.await_committed("t", 0, 1_000);
    worker.wait_words(&["INFO", "handler wrote sink=h", "line=\"t 0: value 0\""]);
    worker.wait_words(&["WARN", "handler wrote more than is logged sink=h hidden_lines=900"]);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["handler lost"]), [""; 0]);
}

/// `handle()` is changed as a user would.
#[test]
fn the_example_in_python_rejects_and_asks_for_another_try() {
    if !has_python() {
        return;
    }
    let bed = Bed::new(&["t"]);
    bed.fill("t", 100);
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/handlers/handler.py")).unwrap();
    let old = "    print(f\"{record['topic']} {record['offset']}: {value}\", file=sys.stderr)\n";
    assert!(example.contains(old));
    let file = bed.site.path("handler.py");
    let out = bed.site.out();
    let new = format!(
        "    if value == 'value 40': raise Reject('not this one')\n\
         \x20   if value == 'value 20' and not os.path.exists('{0}.once'):\n\
         \x20       open('{0}.once', 'w').close()\n\
         \x20       raise OSError('later')\n\
         \x20   with open('{0}', 'a') as out: out.write(json.dumps(record) + '\\n')\n",
        out.display()
    );
    fs::write(&file, example.replace(old, &new)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let config = command(&bed, &["t"], &["@DIR@/handler.py"]).set("consumer", "on_failure", "'dead_letter'").set(
        "dead_letter",
        "path",
        "'@DIR@/dead.jsonl'",
    );
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 100);
    worker.wait_words(&["sink fails, its topics wait sink=h", "the handler asks for another try: OSError: later"]);
    bed.stop(worker);
    let in_order: Vec<i64> = (0..100).filter(|offset| *offset != 40).collect();
    assert_eq!(bed.arrived_offsets("t", 0), in_order, "what was on the way behind 20 was sent back");
    let dead = fs::read_to_string(bed.site.path("dead.jsonl")).unwrap();
    assert!(dead.lines().count() == 1 && dead.contains("\"offset\":40"), "{dead}");
    assert!(dead.contains("the handler rejects it: Reject: not this one"), "{dead}");
}

#[test]
fn the_example_in_shell_works_and_finds_the_record_that_it_can_not_take() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 30);
    let null = broker::NewRecord { timestamp_ms: 0, key: None, value: None };
    bed.server.with_log("t", 0, |log| log.append([null], broker::Codec::None)).unwrap();
    bed.fill("t", 30);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/handlers/handler.sh");
    let config = command(&bed, &["t"], &[example.to_str().unwrap(), "@DIR@/out.jsonl"])
        .set("sink.h", "mode", "'batch'")
        .set("consumer", "on_failure", "'drop'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 61);
    let line =
        worker.wait_words(&["INFO", "handler failed, looking for the record sink=h topic=t partition=0 offsets="]);
    assert!(line.contains(" error=\"the handler failed with "), "{line}");
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0), (0..61).filter(|offset| *offset != 30).collect::<Vec<_>>());
}

/// A record that a run fails for is rejected, and with on_failure = "stop" its topic waits.
#[test]
fn poison_stops_its_topic_and_no_other() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 50);
    bed.fill("u", 50);
    let script = r#"cat >$dir/now; grep -q '"topic":"t".*"value 20"' $dir/now && { echo poison >&2; exit 9; }; cat $dir/now >>$dir/out.jsonl"#;
    let worker = bed.started(&handled(&bed, &["t", "u"], script).set("sink.h", "mode", "'batch'"));
    let line = worker.wait_words(&["ERROR", "topic stopped, its records wait topic=t sink=h"]);
    assert!(line.contains("offset=20") && line.contains("exit code 9") && line.contains("'poison'"), "{line}");
    bed.await_all("u", 0);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0), (0..20).collect::<Vec<_>>());
}

#[track_caller]
pub fn await_gone(pid: i32) {
    let until = Instant::now() + PATIENCE;
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "process {pid} is still there");
        thread::yield_now();
    }
}

pub fn pid_of(file: &Path) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Kills at changing moments, as fast as a new handler is there.
#[test]
fn handlers_that_are_killed_at_random_lose_nothing() {
    let bed = Bed::new(&["t"]);
    for _ in 0..40 {
        bed.fill("t", 500);
    }
    let worker = bed.started(&handled(&bed, &["t"], &format!("echo $$ >$dir/pid; {GOOD}")));
    let file = bed.site.path("pid");
    let (mut kills, mut last) = (0, 0);
    let until = Instant::now() + PATIENCE;
    while kills < 15 && bed.committed("t") != Some(20_000) {
        assert!(Instant::now() < until);
        // Another number of records each time, and then the next one.
        bed.site.wait_records((kills * 1237 + 300).min(20_000), PATIENCE);
        if let Some(pid) = pid_of(&file).filter(|pid| *pid != last) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
            (kills, last) = (kills + 1, pid);
        }
        thread::yield_now();
    }
    assert!(kills >= 5, "{kills} kills");
    bed.await_committed("t", 0, 20_000);
    let ended = bed.stop(worker);
    assert_nothing_missing(&bed, "t");
    assert!(!ended.lines_with(&["WARN", "handler lost sink=h", "signal 9, SIGKILL"]).is_empty());
}

#[test]
fn a_worker_that_is_killed_in_the_middle_loses_nothing_and_its_handler_ends() {
    let bed = Bed::new(&["t"]);
    for _ in 0..20 {
        bed.fill("t", 500);
    }
    let config = handled(&bed, &["t"], &format!("echo $$ >$dir/pid; {GOOD}"));
    for round in 1..=3 {
        let worker = bed.started(&config);
        bed.site.wait_records(round * 1_000, PATIENCE);
        worker.kill9();
        // Its pipes are closed by the system, so it ends by the end of its input, or by SIGPIPE.
        await_gone(pid_of(&bed.site.path("pid")).unwrap());
    }
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 10_000);
    bed.stop(worker);
    assert_nothing_missing(&bed, "t");
}

pub fn await_lines(path: &Path, count: usize) {
    let until = Instant::now() + PATIENCE;
    while fs::read_to_string(path).unwrap_or_default().lines().count() < count {
        assert!(Instant::now() < until, "{count} lines in {}", path.display());
        thread::yield_now();
    }
}

/// The first handler does something wrong, the next one is good.
#[test]
fn handlers_that_lie_lose_nothing_and_a_line_says_how() {
    for (wrong, words) in [
        ("read -r l; echo nonsense", "is no answer: 'nonsense'"),
        (
            "read -r l; printf '%s\\n' \"$l\" >>$dir/out.jsonl; echo '{\"ack\":1}'; echo '{\"ack\":1}'",
            "everything up to 1 is settled already",
        ),
        ("read -r l; echo '{\"ack\":12345678}'", "it acknowledges 12345678"),
        ("read -r l; sleep 1000", "gave no answer for timeout_ms=400"),
        ("sleep 1000", "gave no answer for timeout_ms=400"),
        ("exec >&-; sleep 1000", "closed its standard output"),
        ("exec <&-; sleep 1000", "gave no answer for timeout_ms=400"),
        ("sleep 1000 & read -r l; exit 5", "exit code 5"),
        ("head -c 100000000 /dev/zero", "is longer than 64 KiB"),
        ("head -c 100000000 /dev/zero >&2; read -r l; exit 6", "exit code 6"),
    ] {
        let bed = Bed::new(&["t"]);
        let script = format!("if [ -e $dir/once ]; then {GOOD}; else touch $dir/once; {wrong}; fi");
        let config =
            handled(&bed, &["t"], &script).set("sink.h", "timeout_ms", 400).set("sink.h", "start_timeout_ms", 1);
        let worker = bed.started(&config);
        bed.fill("t", 200);
        let line = worker.wait_words(&["WARN", "handler lost sink=h"]);
        // Whether a closed input is found by a write or by the deadline depends on when it is closed.
        assert!(
            line.contains(words) || (wrong.contains("<&-") && line.contains("closed its standard input")),
            "{line}"
        );
        assert!(line.len() < 1_500, "{line}");
        bed.await_committed("t", 0, 200);
        assert!(worker.peak_rss() < 100 << 20, "{wrong}: {} bytes", worker.peak_rss());
        bed.stop(worker);
        assert_nothing_missing(&bed, "t");
    }
}

#[test]
fn hup_brings_the_new_program() {
    let bed = Bed::new(&["t"]);
    let config = handled(&bed, &["t"], &format!("echo 1 >>$dir/versions; {GOOD}"));
    let worker = bed.started(&config);
    bed.fill("t", 10);
    bed.await_committed("t", 0, 10);
    handled(&bed, &["t"], &format!("echo 2 >>$dir/versions; {GOOD}"));
    worker.signal("HUP");
    worker.wait_words(&["sink reopened sink=h"]);
    bed.fill("t", 10);
    bed.await_all("t", 0);
    bed.stop(worker);
    assert_eq!(fs::read_to_string(bed.site.path("versions")).unwrap(), "1\n2\n");
}

#[test]
fn a_lane_has_a_handler_of_its_own() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 700);
    let config = handled(&bed, &["t"], &format!("echo x >>$dir/starts; {GOOD}"))
        .set("sink.h", "lanes", 3)
        .set("sink.h", "order", "'key'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 700);
    bed.stop(worker);
    let mut arrived = bed.arrived_offsets("t", 0);
    arrived.sort_unstable();
    assert_eq!(arrived, (0..700).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(bed.site.path("starts")).unwrap().lines().count(), 3);
}

#[test]
fn a_command_that_can_not_be_run_is_said_before_anything_starts() {
    let bed = Bed::new(&["t"]);
    fs::write(bed.site.path("plain"), "#!/bin/sh\n").unwrap();
    for (program, words) in [
        ("@DIR@/none", "there is no such file; correct the path of the handler"),
        ("@DIR@/plain", "can't be run: Permission denied"),
        ("no-such-program-anywhere", "no directory of PATH"),
    ] {
        let config = command(&bed, &["t"], &[program]);
        let ended = bed.start(&config).exit(PATIENCE);
        assert_eq!(ended.code(), Some(1), "{}", ended.log.join("\n"));
        assert_eq!(ended.lines_with(&["ERROR", "cannot start", "[sink.h]", words]).len(), 1, "{:?}", ended.log);
        let file = bed.site.write_config(&config.to_string());
        let checked = Worker::run(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(checked.code(), Some(2));
        let said = checked.lines_with(&["sink.h.command: ", words]);
        assert_eq!(said.len(), 1, "{:?}", checked.log);
    }
    assert_eq!(bed.server.connections(), 0);
}
