//! Given handlers that die in a loop, or that nothing ends: what the log has of them, and what becomes of them when the
//! worker stops or is killed.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::exec::{GOOD, await_gone, await_lines, command, handled, pid_of};
use crate::support::bed::Bed;
use crate::support::worker::Ended;

/// How many lines have these words, and how many more were hidden behind the line `more`.
fn told(ended: &Ended, words: &[&str], more: &str) -> (usize, usize) {
    let lines = words.iter().map(|words| ended.lines_with(&[words]).len()).sum();
    let hidden = ended.lines_with(&[more]).into_iter().map(|line| {
        let count = line.split("hidden_lines=").nth(1).unwrap().split(' ').next().unwrap();
        count.parse::<usize>().unwrap()
    });
    (lines, hidden.sum())
}

#[test]
fn many_lanes_with_handlers_that_die_write_few_lines_and_say_how_many_are_left_out() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 200);
    let config = handled(&bed, &["t"], "echo x >>$dir/starts; echo oops >&2; exit 3")
        .set("sink.h", "lanes", 16)
        .set("sink.h", "order", "'key'")
        .set("consumer", "retry_initial_ms", 5)
        .set("consumer", "retry_max_ms", 10)
        .set("shutdown", "drain_timeout_ms", 100);
    let began = Instant::now();
    let worker = bed.started(&config);
    await_lines(&bed.site.path("starts"), 400);
    let ended = worker.stop();
    let windows = began.elapsed().as_secs() as usize / 10 + 1;
    let starts = fs::read_to_string(bed.site.path("starts")).unwrap().lines().count();
    for (words, more, most) in [
        (&["handler started sink=h", "handler ended sink=h"][..], "INFO  handlers started and ended more often", 10),
        (&["handler lost sink=h", "drain is over, handler"], "WARN  handlers lost more often than is logged", 10),
        (&["handler wrote sink=h"], "WARN  handler wrote more than is logged sink=h", 100),
    ] {
        let (lines, hidden) = told(&ended, words, more);
        assert!(lines > 0 && lines <= most * windows, "{words:?}: {lines} lines in {windows} windows");
        // Of what was under way at the end not all was told or hidden.
        assert!(lines + hidden + 16 >= starts, "{words:?}: {lines} and {hidden} of {starts}");
    }
}

/// Neither the end of its input nor SIGTERM moves it, be it that it owes answers or that it has nothing to do.
#[test]
fn a_stop_leaves_no_handler_behind_and_ends_in_good_order() {
    for (script, committed) in
        [("", 0), ("for n in 1 2 3 4 5 6 7 8 9 10; do read -r l; done; echo '{\"ack\":10}';", 10)]
    {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 10);
        let script = format!("trap '' TERM; echo $$ >$dir/pid; {script} while :; do sleep 1; done");
        let config = handled(&bed, &["t"], &script).set("shutdown", "drain_timeout_ms", 300).set(
            "sink.h",
            "kill_timeout_ms",
            60_000,
        );
        let worker = bed.started(&config);
        await_lines(&bed.site.path("pid"), 1);
        if committed > 0 {
            bed.await_committed("t", 0, committed);
        }
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0));
        let sums =
            format!("delivered={committed} committed={committed} in_flight={} expired=0 reset=0", 10 - committed);
        assert_eq!((bed.committed("t"), ended.sums("t")), (Some(committed), sums));
        for signal in ["SIGTERM", "SIGKILL"] {
            let line = ["WARN", "drain is over, handler is ended sink=h pid=", signal];
            assert_eq!(ended.lines_with(&line).len(), 1, "{:?}", ended.log);
        }
        let given_up = ended.lines_with(&["sink given up at the end, its records are delivered again sink=h"]).len();
        assert_eq!(given_up, usize::from(committed == 0), "{:?}", ended.log);
        assert_eq!(ended.lines_with(&["threads did not end in time"]), [""; 0]);
        await_gone(pid_of(&bed.site.path("pid")).unwrap());
    }
}

/// The operator of a slow handler hears of it then, and not when all that is behind it is done.
#[test]
fn what_is_given_up_is_told_when_that_is_decided() {
    for (on_failure, words) in
        [("'drop'", "records dropped topic=t"), ("'dead_letter'", "records become dead letters topic=t")]
    {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 10);
        let script = "while read -r l; do seq=${l#*:}; seq=${seq%%,*}; case $l in *'\"value 1\"'*) \
             echo \"{\\\"fail\\\":$seq,\\\"retry\\\":false}\"; continue;; *'\"value 2\"'*) while [ ! -e $dir/go ]; do sleep 0.05; done;; \
             esac; echo \"{\\\"ack\\\":$seq}\"; done";
        let config = handled(&bed, &["t"], script)
            .set("sink.h", "max_batch_records", 1)
            .set("consumer", "on_failure", on_failure)
            .set("dead_letter", "path", "'@DIR@/dead.jsonl'");
        let worker = bed.started(&config);
        let line = worker.wait_words(&["WARN", words, "sink=h count=1 offsets=\"1\""]);
        assert!(bed.committed("t").is_none_or(|offset| offset <= 2), "{line}");
        fs::write(bed.site.path("go"), "").unwrap();
        bed.await_committed("t", 0, 10);
        let ended = bed.stop(worker);
        assert_eq!(ended.lines_with(&[words]).len(), 1);
    }
}

/// `false`: there is no setpriv here, and the test says so. With `CI=true` that is a failure.
fn has_setpriv() -> bool {
    let found = Command::new("setpriv").args(["--pdeathsig", "KILL", "--", "true"]).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and there is no setpriv with --pdeathsig");
        let text = "\nSKIPPED tests/exec_ends.rs: no setpriv with --pdeathsig here\n";
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    }
    found
}

/// A handler that goes on behind the end of its input lives on when its worker is killed, but for the README's way to
/// prevent it. Who starts it is the lane's thread, which lives as long as it: else it would be killed before.
#[test]
fn the_way_to_end_a_deaf_handler_with_a_killed_worker_works() {
    if !has_setpriv() {
        return;
    }
    for with in [false, true] {
        let bed = Bed::new(&["t"]);
        let script = format!("echo $$ >$dir/pid; {GOOD}; while :; do sleep 1; done");
        let config = handled(&bed, &["t"], &script);
        let words = ["setpriv", "--pdeathsig", "KILL", "--", "@DIR@/handler.sh"];
        let config = if with { command(&bed, &["t"], &words) } else { config };
        let worker = bed.started(&config);
        for records in [10, 20] {
            bed.fill("t", 10);
            bed.await_committed("t", 0, records);
        }
        let pid = pid_of(&bed.site.path("pid")).unwrap();
        let ended = worker.kill9();
        assert_eq!((ended.lines_with(&["handler started"]).len(), ended.lines_with(&["handler lost"]).len()), (1, 0));
        if !with {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            assert!(!stat.contains(") Z "), "{stat}");
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
        await_gone(pid);
    }
}
