use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::sink::Why;
use crate::sink::format::testing::{records, records_from};

mod batch;

/// What each handler begins with: `$seq` and `$line` of the next record, `$dir` a directory of the test.
const NEXT: &str = r#"dir=$1; next() { read -r line || return 1; seq=${line#*:}; seq=${seq%%,*}; }; ack() { echo "{\"ack\":$seq}"; }; "#;

struct Bench {
    dir: TempDir,
    sink: ExecSink,
}

impl Bench {
    fn new(mode: Mode, script: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("{NEXT}{script}");
        let mut settings = Settings {
            command: ["sh", "-c", &script, "handler", &dir.path().display().to_string()].map(str::to_owned).to_vec(),
            mode,
            timeout: Duration::from_secs(20),
            start_timeout: Duration::from_secs(20),
            max_batch_records: 500,
            kill_timeout: Duration::from_secs(5),
        };
        change(&mut settings);
        Self { sink: ExecSink::open("t", settings).unwrap(), dir }
    }

    fn stream(script: &str) -> Self {
        Self::new(Mode::Stream, script, |_| {})
    }

    fn batch(script: &str) -> Self {
        Self::new(Mode::Batch, script, |_| {})
    }

    /// Gives records from offset `first` on.
    fn give(&mut self, first: i64, count: usize) -> Result<(), Stopped> {
        let contents =
            (0..count).map(|at| (None, Some(format!("v{}", first + at as i64).into_bytes()), None)).collect();
        let records = records_from(first, contents);
        self.sink.write(&TopicPartition::new("t", 0), &records)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The offsets that stand in a file of lines as handlers get them.
    fn offsets(&self, name: &str) -> Vec<i64> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        let offset = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_i64().unwrap();
        text.lines().map(offset).collect()
    }
}

#[track_caller]
fn retry(result: Result<(), Stopped>, done: usize, words: &str) -> String {
    match result {
        Err(Stopped { done: at, why: Why::Retry(why) }) if at == done && why.contains(words) => why,
        other => panic!("no retry at {done} with {words:?}: {other:?}"),
    }
}

#[track_caller]
fn reject(result: Result<(), Stopped>, done: usize, words: &str) {
    match result {
        Err(Stopped { done: at, why: Why::Reject(why) }) if at == done && why.contains(words) => {}
        other => panic!("no rejection at {done} with {words:?}: {other:?}"),
    }
}

/// Whether a process of this number is there and not a zombie.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[track_caller]
fn await_gone(file: &Path) {
    let until = Instant::now() + Duration::from_secs(10);
    let pid = fs::read_to_string(file).unwrap();
    while lives(&pid) {
        assert!(Instant::now() < until, "process {pid} is still there");
        std::thread::yield_now();
    }
}

const GOOD: &str = r#"while next; do printf '%s\n' "$line" >>$dir/all; ack; done; echo ended >>$dir/ended"#;

#[test]
fn a_good_handler_has_every_record_in_its_order_with_ascending_numbers() {
    let mut bench = Bench::stream(GOOD);
    for first in [0, 700, 1400] {
        assert_eq!(bench.give(first, 700), Ok(()));
        assert_eq!(bench.sink.flush(), Ok(()));
    }
    assert_eq!(bench.offsets("all"), (0..2100).collect::<Vec<_>>());
    let text = fs::read_to_string(bench.file("all")).unwrap();
    assert!(
        text.starts_with("{\"seq\":1,\"topic\":\"t\",\"partition\":0,\"offset\":0,\"key\":null,\"value\":\"v0\"}\n")
    );
    assert!(text.lines().last().unwrap().starts_with("{\"seq\":2100,"));
    let ended = bench.file("ended");
    let dir = bench.dir;
    drop(bench.sink);
    assert!(ended.exists(), "it was let end in peace");
    drop(dir);
}

#[test]
fn one_ack_for_many() {
    let mut bench = Bench::stream("n=0; while next; do n=$((n+1)); [ $n -lt 100 ] || { ack; n=0; }; done");
    assert_eq!(bench.give(0, 1000), Ok(()));
}

#[test]
fn what_is_rejected_stops_the_write_and_what_is_done_behind_it_is_not_given_again() {
    let mut bench = Bench::stream(
        r#"while next; do printf '%s\n' "$line" >>$dir/all; case $line in *'"v3"'*|*'"v7"'*) echo "{\"fail\":$seq,\"reason\":\"is bad\",\"retry\":false}";; *) ack;; esac; done"#,
    );
    reject(bench.give(0, 10), 3, "the handler rejects it: is bad");
    reject(bench.give(4, 6), 3, "is bad");
    assert_eq!(bench.give(8, 2), Ok(()));
    assert_eq!(bench.offsets("all"), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_is_to_be_tried_again_is_given_again_alone() {
    let mut bench = Bench::stream(
        r#"while next; do printf '%s\n' "$line" >>$dir/all; case $line in *'"v3"'*) if [ -e $dir/once ]; then ack; else touch $dir/once; echo "{\"fail\":$seq}"; fi;; *) ack;; esac; done"#,
    );
    retry(bench.give(0, 10), 3, "the handler asks for another try: no reason given");
    assert_eq!(bench.give(3, 7), Ok(()));
    let all = bench.offsets("all");
    assert_eq!(all.len(), 11, "{all:?}");
    assert_eq!(all.iter().filter(|offset| **offset == 3).count(), 2);
}

/// The memory is for who goes on there. For everybody else a record is one that was not given yet.
#[test]
fn another_write_forgets_what_was_settled() {
    let mut bench = Bench::stream(
        r#"while next; do printf '%s\n' "$line" >>$dir/all; case $line in *'"v3"'*) echo "{\"fail\":$seq}";; *) ack;; esac; done"#,
    );
    retry(bench.give(0, 10), 3, "another try");
    assert_eq!(bench.give(100, 1), Ok(()));
    assert_eq!(bench.give(4, 6), Ok(()));
    assert_eq!(bench.offsets("all"), (0..10).chain([100]).chain(4..10).collect::<Vec<_>>());
    // And a topic made anew begins below what is remembered.
    retry(bench.give(0, 10), 3, "another try");
    assert_eq!(bench.give(0, 3), Ok(()));
    assert_eq!(bench.give(4, 6), Ok(()));
    assert_eq!(bench.offsets("all").len(), 17 + 10 + 3 + 6);
}

#[test]
fn one_that_dies_is_told_with_its_last_words_and_the_next_has_the_rest() {
    let mut bench = Bench::stream(
        r#"while next; do printf '%s\n' "$line" >>$dir/all; case $line in *'"v5"'*) [ -e $dir/once ] || { touch $dir/once; echo oops >&2; exit 3; };; esac; ack; done"#,
    );
    let why = retry(bench.give(0, 50), 5, "exit code 3; last line of its standard error: 'oops'");
    assert!(why.contains("ended with 45 records not answered"), "{why}");
    assert_eq!(bench.give(5, 45), Ok(()));
    assert_eq!(bench.offsets("all"), (0..=5).chain(5..50).collect::<Vec<_>>());
}

/// It acknowledges late, so the first loss names a record that is not at fault; the second one does not.
#[test]
fn after_a_loss_records_are_given_one_at_a_time() {
    let late = r#"n=0; while next; do case $line in *'"v5"'*) exit 3;; esac; n=$((n+1)); [ $n -lt 10 ] || ack; done"#;
    let one_by_one = r#"while next; do case $line in *'"v5"'*) exit 3;; esac; ack; done"#;
    let mut bench = Bench::stream(&format!("if [ -e $dir/late ]; then {one_by_one}; else touch $dir/late; {late}; fi"));
    retry(bench.give(0, 20), 0, "ended with 20 records not answered");
    retry(bench.give(0, 20), 5, "ended with 1 records not answered");
    retry(bench.give(5, 15), 0, "ended with 1 records not answered");
}

#[test]
fn one_that_ends_well_now_and_then_is_started_again_without_a_word_to_the_lane() {
    let mut bench = Bench::stream(
        r#"for n in 1 2 3; do next || exit 0; printf '%s\n' "$line" >>$dir/all; ack; done; echo x >>$dir/starts"#,
    );
    assert_eq!(bench.give(0, 20), Ok(()));
    assert_eq!(bench.give(20, 20), Ok(()));
    assert_eq!(bench.offsets("all"), (0..40).collect::<Vec<_>>());
    assert!(fs::read_to_string(bench.file("starts")).unwrap().lines().count() >= 12);
}

#[test]
fn one_that_ends_at_once_is_no_loop() {
    retry(Bench::stream("exit 0").give(0, 3), 0, "exit code 0");
    retry(Bench::stream("echo no; exit 1").give(0, 3), 0, "'no'");
}

#[test]
fn one_that_was_killed_while_idle_is_simply_started_again() {
    let mut bench = Bench::stream(r#"echo $$ >$dir/pid; while next; do printf '%s\n' "$line" >>$dir/all; ack; done"#);
    assert_eq!(bench.give(0, 3), Ok(()));
    let pid = fs::read_to_string(bench.file("pid")).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    await_gone(&bench.file("pid"));
    assert_eq!(bench.give(3, 3), Ok(()));
    assert_eq!(bench.offsets("all"), (0..6).collect::<Vec<_>>());
}

#[test]
fn nonsense_of_every_kind_is_told_and_the_next_handler_goes_on() {
    for (script, done, words) in [
        ("next; echo hello", 0, "is no answer: 'hello'"),
        ("next; echo '{\"ack\":7000}'", 0, "it acknowledges 7000, and it was given 1 to "),
        ("next; echo '{\"fail\":0}'", 0, "it fails 0, and it was given 1 to "),
        ("next; ack; ack", 1, "it acknowledges 1, and everything up to 1 is settled already"),
        ("next; next; ack; seq=1; ack", 2, "it acknowledges 1, and everything up to 2 is settled already"),
        ("next; ack; echo '{\"fail\":1}'", 1, "it fails 1, which is settled already"),
        ("next; head -c 100000000 /dev/zero", 0, "is longer than 64 KiB"),
        ("next; printf '\\377\\000\\n'", 0, "is no answer"),
    ] {
        let script = format!("if [ -e $dir/once ]; then {GOOD}; else touch $dir/once; {script}; cat >/dev/null; fi");
        let mut bench = Bench::stream(&script);
        let why = retry(bench.give(0, 20), done, words);
        assert!(why.contains("answers nonsense, and was killed") && why.len() < 1000, "{why}");
        assert_eq!(bench.give(done as i64, 20 - done), Ok(()), "{script}");
        assert_eq!(bench.offsets("all"), (done as i64..20).collect::<Vec<_>>());
    }
}

/// More than a pipe holds, so that the writer would stand still.
fn large() -> Records {
    records((0..40).map(|_| "x".repeat(20_000)))
}

#[test]
fn one_that_gives_no_answer_is_killed_by_the_deadline() {
    let drip = "while :; do printf '{'; sleep 0.05; done";
    for script in ["while next; do :; done; sleep 1000", "sleep 1000", "next; ack; sleep 1000", drip] {
        let mut bench = Bench::new(Mode::Stream, script, |settings| {
            (settings.timeout, settings.start_timeout) = (Duration::from_millis(500), Duration::from_millis(1));
        });
        let began = Instant::now();
        let partition = TopicPartition::new("t", 0);
        let stopped = bench.sink.write(&partition, &large());
        let done = usize::from(script.contains("ack"));
        let why = retry(stopped, done, "gave no answer for timeout_ms=500");
        assert!(why.contains("flush its output") && why.contains("SIGTERM"), "{why}");
        assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_secs(5));
    }
}

/// An interpreter that is slow to start is none that hangs. Once it has answered `timeout` holds.
#[test]
fn the_first_answer_has_the_time_of_a_start() {
    let patience = |start: u64| {
        move |settings: &mut Settings| {
            settings.timeout = Duration::from_millis(100);
            settings.start_timeout = Duration::from_millis(start);
        }
    };
    let mut bench = Bench::new(Mode::Stream, "sleep 1; while next; do ack; done", patience(20_000));
    assert_eq!(bench.give(0, 3), Ok(()));
    let began = Instant::now();
    let mut bench = Bench::new(Mode::Stream, "next; ack; next; sleep 1000", patience(20_000));
    retry(bench.give(0, 3), 1, "gave no answer for timeout_ms=100");
    assert!(began.elapsed() < Duration::from_secs(10));
    let mut bench = Bench::new(Mode::Stream, "while next; do :; done; sleep 1000", patience(400));
    let began = Instant::now();
    let why = retry(bench.give(0, 3), 0, "gave no answer for start_timeout_ms=400 since its start, with 3 records");
    assert!(why.contains("raise start_timeout_ms"), "{why}");
    assert!(began.elapsed() >= Duration::from_millis(400) && began.elapsed() < Duration::from_secs(5));
}

#[test]
fn one_that_closes_a_pipe_is_ended() {
    let partition = TopicPartition::new("t", 0);
    for (script, words) in
        [("exec <&-; sleep 1000", "closed its standard input"), ("exec >&-; sleep 1000", "closed its standard output")]
    {
        let mut bench = Bench::new(Mode::Stream, script, |settings| settings.kill_timeout = Duration::from_millis(300));
        retry(bench.sink.write(&partition, &large()), 0, words);
    }
}

#[test]
fn one_that_forks_and_exits_leaves_nothing_behind() {
    let mut bench = Bench::stream("sleep 1000 & echo $! >$dir/pid; next; ack; exit 0");
    let began = Instant::now();
    assert_eq!(bench.give(0, 3), Ok(()));
    // That the last one has ended is noticed when there is something for it.
    bench.sink.reopen().unwrap();
    await_gone(&bench.file("pid"));
    let mut bench = Bench::stream("sleep 1000 & echo $! >$dir/pid; exit 1");
    retry(bench.give(0, 3), 0, "exit code 1");
    await_gone(&bench.file("pid"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A process that has left the group holds the pipes; nothing waits for it.
#[test]
fn one_that_leaves_a_daemon_holds_up_nothing() {
    let mut bench = Bench::stream(
        "setsid sh -c 'echo $$ >$0/pid; exec sleep 30' $dir & while [ ! -s $dir/pid ]; do :; done; next; exit 1",
    );
    let began = Instant::now();
    retry(bench.give(0, 3), 0, "exit code 1");
    let file = bench.file("pid");
    assert!(began.elapsed() < Duration::from_secs(10));
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

#[test]
fn one_that_ignores_everything_is_killed_in_time() {
    let mut bench =
        Bench::new(Mode::Stream, "trap '' TERM; echo $$ >$dir/pid; next; ack; while :; do sleep 1; done", |s| {
            s.kill_timeout = Duration::from_millis(200);
        });
    assert_eq!(bench.give(0, 1), Ok(()));
    let began = Instant::now();
    bench.sink.reopen().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(4));
    await_gone(&bench.file("pid"));
}

/// It heeds neither a signal that can be ignored nor a deadline that comes soon.
#[test]
fn a_brake_ends_a_write_from_another_thread() {
    for (mode, script) in [
        (Mode::Stream, "trap '' TERM; read -r l; echo $$ >$dir/pid; while :; do sleep 1; done"),
        (Mode::Batch, "trap '' TERM; read -r l; echo $$ >$dir/pid; while :; do sleep 1; done"),
        (Mode::Stream, "read -r l; echo $$ >$dir/pid; exec sleep 1000"),
        (Mode::Batch, "read -r l; echo $$ >$dir/pid; exec sleep 1000"),
    ] {
        // What it reads is written when its start is over: a brake before that kills it at once.
        let mut bench = Bench::new(mode, script, |settings| settings.timeout = Duration::from_secs(600));
        let (brake, pid) = (bench.sink.brake().unwrap(), bench.file("pid"));
        let (times, signal) = if script.contains("trap") { (2, "SIGKILL") } else { (1, "SIGTERM") };
        let presser = std::thread::spawn(move || {
            while fs::read_to_string(&pid).unwrap_or_default().lines().next().is_none() {
                std::thread::yield_now();
            }
            (0..times).for_each(|_| brake());
        });
        retry(bench.give(0, 3), 0, signal);
        presser.join().unwrap();
        await_gone(&bench.file("pid"));
        retry(bench.give(0, 3), 0, "no handler is started any more");
    }
}

#[test]
fn after_a_reopen_the_new_program_is_run() {
    let mut bench = Bench::stream(r#"cat $dir/version >>$dir/versions; while next; do ack; done"#);
    for version in ["1\n", "2\n"] {
        fs::write(bench.file("version"), version).unwrap();
        assert_eq!(bench.give(0, 3), Ok(()));
        assert_eq!(bench.sink.reopen(), Ok(()));
    }
    assert_eq!(fs::read_to_string(bench.file("versions")).unwrap(), "1\n2\n");
}

/// It writes to standard error more than a pipe holds before it answers.
#[test]
fn one_that_talks_much_is_not_held_up() {
    let mut bench = Bench::stream("head -c 1000000 /dev/zero >&2; while next; do echo $seq >&2; ack; done");
    assert_eq!(bench.give(0, 300), Ok(()));
}

/// No answer is read before all is written, by a handler that answers much: both pipes would be full.
#[test]
fn answers_are_read_while_records_are_written() {
    let script = r#"pad=$(printf '%60000s' ''); while next; do echo "{\"ack\":$seq}$pad"; done"#;
    let mut bench = Bench::stream(script);
    assert_eq!(bench.sink.write(&TopicPartition::new("t", 0), &large()), Ok(()));
}

#[test]
fn no_more_records_are_given_than_may_wait() {
    let script = r#"n=0; while next; do n=$((n+1)); [ $n -lt 3 ] || { ack; n=0; }; done"#;
    let mut bench = Bench::new(Mode::Stream, script, |settings| {
        settings.max_batch_records = 2;
        (settings.timeout, settings.start_timeout) = (Duration::from_millis(300), Duration::from_millis(1));
    });
    retry(bench.give(0, 9), 0, "with 2 records not answered");
    let mut bench = Bench::new(Mode::Stream, script, |settings| settings.max_batch_records = 3);
    assert_eq!(bench.give(0, 9), Ok(()));
}

#[test]
fn a_command_that_can_not_be_run_is_told() {
    let settings = |program: String| Settings {
        command: vec![program],
        mode: Mode::Stream,
        timeout: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        max_batch_records: 1,
        kill_timeout: Duration::ZERO,
    };
    assert!(ExecSink::open("t", settings("/no/such".to_owned())).is_err());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("handler");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut sink = ExecSink::open("t", settings(file.display().to_string())).unwrap();
    let result = sink.write(&TopicPartition::new("t", 0), &records(["a"]));
    retry(result, 0, "its first line (#!) names a program that is not");
}
