//! One run a batch.

use super::*;

#[test]
fn a_run_a_batch_with_exit_code_0_takes_it() {
    let mut bench = Bench::new(Mode::Batch, "cat >>$dir/all; echo x >>$dir/runs; echo done", |settings| {
        settings.max_batch_records = 8;
    });
    assert_eq!(bench.give(0, 20), Ok(()));
    assert_eq!(bench.offsets("all"), (0..20).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(bench.file("runs")).unwrap(), "x\nx\nx\n");
    assert!(fs::read_to_string(bench.file("all")).unwrap().starts_with("{\"topic\":\"t\","));
    assert_eq!(bench.sink.write(&TopicPartition::new("t", 0), &large()), Ok(()));
}

#[test]
fn a_run_that_fails_is_halved_until_the_record_is_found() {
    let mut bench = Bench::batch(
        r#"cat >$dir/now; if grep -q -e '"v3"' -e '"v11"' $dir/now; then echo poison >&2; exit 4; fi; cat $dir/now >>$dir/all"#,
    );
    reject(bench.give(0, 20), 3, "exit code 4; last line of its standard error: 'poison'");
    reject(bench.give(4, 16), 7, "failed with 1 records");
    assert_eq!(bench.give(12, 8), Ok(()));
    let expected: Vec<i64> = (0..20).filter(|offset| ![3, 11].contains(offset)).collect();
    assert_eq!(bench.offsets("all"), expected);
}

#[test]
fn a_run_that_asks_for_another_try_or_is_killed_says_nothing_against_the_records() {
    retry(
        Bench::batch("cat >/dev/null; echo later >&2; exit 75").give(0, 20),
        0,
        "exit code 75; last line of its standard error: 'later'",
    );
    retry(Bench::batch("kill -9 $$").give(0, 1), 0, "signal 9, SIGKILL");
    reject(Bench::batch("kill -s ABRT $$").give(0, 2), 0, "signal 6, SIGABRT");
    let mut bench = Bench::new(Mode::Batch, "sleep 1000", |settings| settings.timeout = Duration::from_millis(300));
    let why = retry(bench.give(0, 2), 0, "did not end within timeout_ms=300");
    assert!(why.contains("SIGTERM"), "{why}");
    retry(bench.sink.write(&TopicPartition::new("t", 0), &large()), 0, "did not end within");
}

#[test]
fn a_run_that_does_not_read_to_the_end_has_not_done_it() {
    let partition = TopicPartition::new("t", 0);
    let result = Bench::batch("exit 0").sink.write(&partition, &large());
    retry(result, 0, "before it had read all of 40 records");
    // The rest fits into its pipe, and was written without an error.
    for (script, count) in [("exit 0", 20), ("exec <&-; sleep 0.1", 20), ("next", 2), ("head -c 20 >/dev/null", 1)] {
        retry(Bench::batch(script).give(0, count), 0, &format!("before it had read all of {count} records"));
    }
    // Also if somebody is left who may read it one day.
    retry(Bench::batch("exec 3<&0; sleep 1000 <&3 & exit 0").give(0, 2), 0, "before it had read all of 2 records");
    assert_eq!(Bench::batch("next; next").give(0, 2), Ok(()));
    assert_eq!(Bench::batch("cat >/dev/null; exec true").give(0, 20), Ok(()));
}

/// It has closed its input and lives on: no longer than its time, with a pipe that is full and one that is not.
#[test]
fn a_run_that_closes_its_input_has_its_time_and_no_more() {
    let mut bench = Bench::new(Mode::Batch, "exec <&-; sleep 1000", |settings| {
        settings.timeout = Duration::from_millis(300);
    });
    let began = Instant::now();
    retry(bench.sink.write(&TopicPartition::new("t", 0), &large()), 0, "did not end within timeout_ms=300");
    retry(bench.give(0, 2), 0, "did not end within timeout_ms=300");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
