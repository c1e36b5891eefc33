//! Every system call fails once, and the machine crashes at every one: what is in the files then.

use proptest::prelude::*;

use super::*;

/// Records of one flush, given in two batches.
const GROUP: usize = 6;
const GROUPS: usize = 4;

/// What a lane does: gives a group until all of it is taken, flushes, and after a failed flush gives
/// it again. Says how many records were acknowledged within that many failures.
fn drive<D: Disk>(sink: &mut FileSink<D>, mut failures: usize) -> usize {
    for group in 0..GROUPS {
        'again: loop {
            for batch in [0, GROUP / 2] {
                let records = numbered(group * GROUP + batch, GROUP / 2);
                let mut done = 0;
                while let Err(stopped) = sink.write(&orders(), &records.slice(done..records.len())) {
                    done += stopped.done;
                    assert!(matches!(stopped.why, Why::Retry(_)));
                    if failures == 0 {
                        return group * GROUP;
                    }
                    failures -= 1;
                }
            }
            match sink.flush() {
                Ok(()) => break 'again,
                Err(_) if failures == 0 => return group * GROUP,
                Err(_) => failures -= 1,
            }
        }
    }
    GROUPS * GROUP
}

/// Drives a sink on a disk with these faults to the end, and looks at its files.
fn survives(fates: &[(usize, Fate)], rotation: Option<Rotation>) {
    let (_directory, path) = place();
    let disk = Faulty::with(fates.iter().copied());
    let Ok(mut sink) = FileSink::with(disk.clone(), &path, Format::Raw, rotation, 16) else { return };
    assert_eq!(drive(&mut sink, 2 * fates.len()), GROUPS * GROUP, "{fates:?} in {:?}", disk.calls());
    assert_eq!(all_of(&path), lines(GROUPS * GROUP), "{fates:?} in {:?}", disk.calls());
}

fn calls_without_fault(rotation: Option<Rotation>) -> usize {
    let (_directory, path) = place();
    let disk = Faulty::default();
    drive(&mut small(disk.clone(), &path, rotation), 0);
    let calls = disk.calls();
    assert_eq!(calls.contains(&"rename"), rotation.is_some());
    assert!(calls.iter().filter(|&&call| call == "write").count() > GROUPS, "several writes a flush");
    calls.len()
}

const FATES: [Fate; 3] = [Fate::Fail(ErrorKind::StorageFull), Fate::FailHalf, Fate::Short];

#[test]
fn any_call_may_fail() {
    for rotation in [None, rotation(50, None)] {
        for call in 0..calls_without_fault(rotation) {
            FATES.into_iter().for_each(|fate| survives(&[(call, fate)], rotation));
        }
    }
}

/// The second fault meets the repair of the first.
#[test]
fn any_two_calls_close_together_may_fail() {
    for rotation in [None, rotation(50, None)] {
        for call in 0..calls_without_fault(rotation) {
            for later in call + 1..call + 6 {
                for first in FATES {
                    FATES.into_iter().for_each(|second| survives(&[(call, first), (later, second)], rotation));
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_call_neither_loses_nor_doubles_what_was_acknowledged() {
    for rotation in [None, rotation(50, None)] {
        for call in 1..=calls_without_fault(rotation) {
            let (_directory, path) = place();
            let mut sink = small(Faulty::dead_from(call), &path, rotation);
            let acknowledged = drive(&mut sink, 3);
            drop(sink);
            drop(small(Faulty::default(), &path, rotation));
            let (text, expected) = (all_of(&path), lines(GROUPS * GROUP));
            assert!(text.starts_with(&lines(acknowledged)), "lost at {call}: {acknowledged} of {text:?}");
            assert!(expected.starts_with(&text), "not in order at {call}: {text:?}");
            assert!(text.is_empty() || text.ends_with('\n'), "half a line at {call}: {text:?}");
        }
    }
}

#[test]
fn nothing_is_appended_before_half_a_line_is_cut_off() {
    let (_directory, path) = place();
    let disk = Faulty::default();
    let mut sink = FileSink::with(disk.clone(), &path, Format::Raw, None, 1 << 20).unwrap();
    sink.write(&orders(), &numbered(0, 2)).unwrap();
    sink.flush().unwrap();
    let calls = disk.calls().len();
    (0..4).for_each(|ahead| disk.decide(ahead, Fate::FailHalf));
    sink.write(&orders(), &numbered(2, 2)).unwrap();
    // The write fails, the cut in it, and the cut of going back to the last flush.
    assert!(sink.flush().unwrap_err().contains("write failed"));
    assert!(read(&path).len() > lines(2).len(), "half a line is there");
    sink.write(&orders(), &numbered(2, 2)).unwrap();
    assert!(sink.flush().unwrap_err().contains("cut of a half-written line failed"));
    assert_eq!(disk.calls()[calls..], ["write", "truncate", "truncate", "truncate", "truncate"]);
    assert_eq!(read(&path), lines(2), "the last cut succeeded");
    sink.write(&orders(), &numbered(2, 2)).unwrap();
    sink.flush().unwrap();
    assert_eq!(read(&path), lines(4));
}

#[test]
fn a_failed_sync_takes_back_what_was_written() {
    let (_directory, path) = place();
    let disk = Faulty::default();
    let mut sink = small(disk.clone(), &path, None);
    sink.write(&orders(), &numbered(0, 5)).unwrap();
    sink.flush().unwrap();
    sink.write(&orders(), &numbered(5, 1)).unwrap();
    disk.decide(1, Fate::Fail(ErrorKind::Other));
    assert!(sink.flush().unwrap_err().contains("orders.jsonl: sync failed: "));
    assert_eq!(read(&path), lines(5));
}

/// `copytruncate` is documented as lossy for what is written meanwhile; but what is given again after
/// it must stand in the file once, without half lines and zeros before it.
#[test]
fn a_file_that_was_truncated_in_place_is_mended_from_its_new_end() {
    let (_directory, path) = place();
    let disk = Faulty::default();
    let mut sink = FileSink::with(disk.clone(), &path, Format::Raw, None, 1 << 20).unwrap();
    sink.write(&orders(), &numbered(0, 9)).unwrap();
    sink.flush().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    sink.write(&orders(), &numbered(0, 1)).unwrap();
    disk.decide(0, Fate::Short);
    disk.decide(1, Fate::Fail(ErrorKind::StorageFull));
    sink.flush().unwrap_err();
    assert_eq!(read(&path), "");
    sink.write(&orders(), &numbered(0, 5)).unwrap();
    disk.decide(0, Fate::FailHalf);
    sink.flush().unwrap_err();
    assert_eq!(read(&path), "", "the length to go back to is the new one");
    sink.write(&orders(), &numbered(0, 5)).unwrap();
    sink.flush().unwrap();
    assert_eq!(read(&path), lines(5));
}

proptest! {
    #[test]
    fn any_pattern_of_failures_is_survived(
        fates in prop::collection::vec((1..120_usize, prop::sample::select(FATES.to_vec())), 0..40),
        rotated in any::<bool>(),
    ) {
        survives(&fates, rotated.then(|| rotation(50, None)).flatten());
    }
}
